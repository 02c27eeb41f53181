"""What a job needs on each worker before it runs: the peak of its memory, and the arithmetic of a step."""

from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from itertools import accumulate

from pydantic import BaseModel

from service.footprint import Footprint
from service.methods.base import FeatureSettings, MethodSettings
from service.methods.lcm import LCMSettings
from service.spec import JobSpec, Stage

FLOAT, HALF = 4, 2
"""Bytes of a number."""
GRADIENTS_AT_PEAK = 0.5
"""Share of a role's gradients that is there when they and the activations that are left take most, in a single pass:
the ones grow as the others go. Fitted to runs on a CPU."""
PREVIEWED = 20
"""Images of a sample grid, which are made at once."""
CLASSES_PREVIEWED = 10
ADAPTER = 64
"""The rank that is advised."""


@dataclass(frozen=True)
class Costs:
    """What of a teacher decides: its parameters, and what one image costs its network."""

    parameters: int
    footprint: Footprint
    conditions: int | None
    """The classes or prompts of the job; None where the network takes none."""


@dataclass(frozen=True)
class Layout:
    """How a stage is laid out on its workers.

    Attributes:
        images: of one pass on one worker.
        passes: that make a worker's gradients.
        rank, fake_rank: of low-rank updates of the student, and of what is trained beside it; 0 trains all weights.
        half: whether networks run, and frozen weights are kept, in 16 bits.
        blocks_again: whether blocks are run again in the backward pass.
        shards: workers that weights, gradients and optimizers are spread over.
        offloaded: whether encoders leave the device while training.
    """

    images: int
    passes: int = 1
    workers: int = 1
    rank: int = 0
    fake_rank: int = 0
    half: bool = False
    blocks_again: bool = False
    shards: int = 1
    offloaded: bool = False

    def fits_more_passes(self) -> bool:
        """Whether a pass can be halved."""
        return self.images > 1 and self.images % 2 == 0


@dataclass(frozen=True)
class Memory:
    """Bytes of one worker at the peak, by what takes them. `weights`: all networks' and averages', and students set
    aside; `encoders`: text encoders, VAE and encoded prompts; `activations`: whatever comes and goes."""

    weights: int
    optimizer: int
    gradients: int
    activations: int
    encoders: int

    @property
    def total(self) -> int:
        return sum(astuple(self))


@dataclass(frozen=True)
class Advice:
    """A change of the spec, and the bytes that a worker would need with it."""

    change: str
    total: int


def layout(spec: JobSpec, stage: Stage) -> Layout:
    """Of a stage as it is set."""
    method, workers = stage.method, spec.resources.workers
    return Layout(
        images=method.batch_size // (workers * method.micro_batches),
        passes=method.micro_batches,
        workers=workers,
        rank=method.lora_rank if isinstance(method, LCMSettings) else 0,
    )


def peak(spec: JobSpec, costs: Costs) -> Memory:
    """Of the stage that needs most."""
    return _of_plan(spec, costs, _plan(spec))


def flops(spec: JobSpec, costs: Costs) -> int:
    """Operations of one worker in the stage's step that takes most of them: a multiply-add counts twice."""
    return max(_flops(stage.method, costs, at) for stage, at in zip(spec.chain(), _plan(spec), strict=True))


def advice(spec: JobSpec, costs: Costs, limit: int) -> list[Advice]:
    """Changes that bring the job below `limit` bytes, each by itself; where none does, the one that saves most.

    Empty where it fits as it is.
    """
    now = peak(spec, costs).total
    if now <= limit:
        return []
    tried = [Advice(change, _of_plan(spec, costs, plan).total) for change, plan in _changes(spec)]
    better = [one for one in tried if one.total < now]
    fitting = [one for one in better if one.total <= limit]
    first_of_a_kind = {one.change.split()[0]: one for one in reversed(fitting)}
    return list(reversed(first_of_a_kind.values())) or sorted(better, key=lambda one: one.total)[:1]


def _plan(spec: JobSpec) -> list[Layout]:
    """The layouts of all stages."""
    return [layout(spec, stage) for stage in spec.chain()]


def _of_plan(spec: JobSpec, costs: Costs, plan: list[Layout]) -> Memory:
    """Of the stage that needs most."""
    chain = spec.chain()
    left = accumulate(len(stage.method.student_steps()) for stage in chain)
    stages = zip(chain, plan, left, strict=True)
    return max((_of_stage(stage.method, costs, at, n - 1) for stage, at, n in stages), key=lambda memory: memory.total)


def _changes(spec: JobSpec) -> Iterator[tuple[str, list[Layout]]]:
    """Changes of the spec and the stages' layouts with them, of each kind the mildest first."""
    plans = _plan(spec)
    split = plans
    while any(at.fits_more_passes() for at in split):
        split = [
            replace(at, images=at.images // 2, passes=2 * at.passes) if at.fits_more_passes() else at for at in split
        ]
        yield f"micro_batches {max(at.passes for at in split)}", split
    if any(isinstance(stage.method, LCMSettings) for stage in spec.chain()) and not all(at.rank for at in plans):
        adapted = [
            replace(at, rank=at.rank or ADAPTER) if isinstance(stage.method, LCMSettings) else at
            for stage, at in zip(spec.chain(), plans, strict=True)
        ]
        yield f"lora_rank {ADAPTER}", adapted
        yield (
            f"lora_rank {ADAPTER} with micro_batches {max(at.passes * at.images for at in plans)}",
            [replace(at, images=1, passes=at.passes * at.images) for at in adapted],
        )


def _of_stage(method: MethodSettings, costs: Costs, at: Layout, set_aside: int) -> Memory:
    """`set_aside`: students that are finished before the stage's last one, and stay."""
    footprint = costs.footprint
    student, other = _trained(method, costs, at)
    others = method.trained_networks - 1
    trained = student + others * other
    copies = (method.networks - 1 - others) * student + others * other
    frozen, number = (HALF, HALF) if at.half else (FLOAT, FLOAT)
    weights = frozen * costs.parameters + FLOAT * (copies + student * set_aside)
    weights += HALF * trained if at.half else 0  # a copy in 16 bits of what is trained in 32
    gradients = FLOAT * trained

    training = at.images * number * _activations(method, footprint, at)
    if at.passes == 1:
        training -= (1 - GRADIENTS_AT_PEAK) * FLOAT * max(student, other)
    drawn = PREVIEWED if costs.conditions is None else 2 * min(CLASSES_PREVIEWED, costs.conditions)
    previewing = number * drawn * footprint.passing
    decoding = FLOAT * footprint.decoding
    averaging = 0 if at.workers == 1 or at.shards > 1 else FLOAT * max(student, other)
    ending = FLOAT * student  # the student that is set aside
    encoded = FLOAT * footprint.prompt * (1 + (costs.conditions or 0))
    return Memory(
        weights=weights // at.shards,
        optimizer=2 * FLOAT * trained // at.shards,
        gradients=gradients // at.shards,
        activations=round(max(training, previewing, decoding, averaging, ending, 0)),
        encoders=encoded + (0 if at.offloaded else FLOAT * footprint.encoders),
    )


def _trained(method: MethodSettings, costs: Costs, at: Layout) -> tuple[int, int]:
    """Parameters of the student that are trained, and of each other network that is; 0 if there is none."""
    whole = round(costs.parameters * method.student_width**2 * method.student_depth)
    student = at.rank * costs.footprint.low_rank_weights if at.rank else whole
    other = at.fake_rank * costs.footprint.low_rank_weights if at.fake_rank else costs.parameters
    return student, other if method.trained_networks > 1 else 0


def _learns_features(method: BaseModel) -> bool:
    return isinstance(method, FeatureSettings) and method.feature_weight > 0


def _activations(method: MethodSettings, footprint: Footprint, at: Layout) -> float:
    """Numbers of one image at the peak of a pass."""
    held = method.passes()
    features = 0.5 if _learns_features(method) else 0.0
    for_weights = footprint.kept_for_weights
    if at.rank:
        for_weights = footprint.kept_for_updates + at.rank * footprint.low_rank_places
    trained, through = footprint.kept + for_weights, footprint.kept
    if at.blocks_again:
        trained = through = footprint.kept_by_blocks
    share = method.student_width * method.student_depth if method.trained_networks == 1 else 1
    return share * (held.trained + features) * trained + held.through * through + held.idle * footprint.passing


def _flops(method: MethodSettings, costs: Costs, at: Layout) -> int:
    backward = (1 if at.rank else 2) + at.blocks_again
    passes = method.forwards + backward * method.backwards
    return round(passes * at.images * at.passes * costs.footprint.flops)
