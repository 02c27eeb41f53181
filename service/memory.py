"""What a job needs on each worker before it runs: the peak of its memory, and the arithmetic of a step."""

from dataclasses import astuple, dataclass, replace
from typing import Literal

from pydantic import BaseModel

from service.footprint import Footprint
from service.methods.base import FeatureSettings, MethodSettings, PairSettings
from service.spec import JobSpec

FLOAT, HALF = 4, 2
"""Bytes of a number."""
GRADIENTS_AT_PEAK = 0.5
"""Share of a role's gradients that is there when they and the activations that are left take most, in a single pass:
the ones grow as the others go. Fitted to runs on a CPU."""
PREVIEWED, CLASSES_PREVIEWED, PREVIEWED_AT_ONCE = 20, 10, 8
"""Images of a sample grid, the classes or prompts that it has two each of, and the images that are made at once."""
JUDGED_AT_ONCE, PIXELS_JUDGED_AT_ONCE = 8, 250
"""Images of an evaluation: a pipeline's, and those of a network on pixels."""
CAPTIONS_SHOWN = 500
"""Of a dataset's captions, the first ones, which are encoded for the student that is judged."""

Phase = Literal["starting", "training", "evaluating"]
"""Of a job: until its first step; its stages; the judging and writing of its students."""


@dataclass(frozen=True)
class Costs:
    """What of a teacher decides: its parameters, and what one image costs its network."""

    parameters: int
    footprint: Footprint
    conditions: int | None
    """The classes, prompts or captions of the job; None where the network takes none."""
    captions: bool = False
    """Whether they are a dataset's captions, of which a network is given those of a batch."""


@dataclass(frozen=True)
class Layout:
    """How a stage is laid out on its workers.

    Attributes:
        images: of one pass on one worker.
        passes: that make a worker's gradients.
        rank, fake_rank: of low-rank updates of the student, and of what is trained beside it; 0 trains all weights.
        half: whether networks run in 16 bits; their weights, averages and optimizers never are.
        blocks_again: whether blocks are run again in the backward pass.
        shards: workers that weights, gradients and optimizers are spread over.
        device: whether the worker has a device, whose memory is not the machine's.
        offloaded: whether encoders leave that device while training.
    """

    images: int
    passes: int = 1
    workers: int = 1
    rank: int = 0
    fake_rank: int = 0
    half: bool = False
    blocks_again: bool = False
    shards: int = 1
    device: bool = False
    offloaded: bool = False


@dataclass(frozen=True)
class Memory:
    """Bytes of one worker at the peak of a phase, by what takes them. `weights`: all networks' and averages', and
    students set aside; `encoders`: text encoders, VAE and encoded prompts; `activations`: whatever comes and goes."""

    weights: int
    optimizer: int
    gradients: int
    activations: int
    encoders: int

    @property
    def total(self) -> int:
        return sum(astuple(self))


def layout(spec: JobSpec, method: MethodSettings) -> Layout:
    """Of one of the spec's stages."""
    workers, compute = spec.resources.workers, spec.compute
    device = spec.resources.gpus_per_worker > 0
    return Layout(
        images=method.batch_size // (workers * method.micro_batches),
        passes=method.micro_batches,
        workers=workers,
        rank=method.lora_rank,
        fake_rank=method.other_rank(),
        half=compute.precision != "fp32",
        blocks_again=compute.activation_checkpointing,
        shards=workers if compute.strategy == "fsdp" else 1,
        device=device,
        offloaded=compute.offload and device,
    )


def peak(spec: JobSpec, costs: Costs) -> Memory:
    """Of the phase that needs most."""
    return max(phases(spec, costs).values(), key=lambda memory: memory.total)


def phases(spec: JobSpec, costs: Costs) -> dict[Phase, Memory]:
    """The peak of each; of the stages, that of the one that needs most."""
    methods = [stage.method for stage in spec.chain()]
    needs, aside = list[Memory](), 0
    for i, method in enumerate(methods):
        at, students = layout(spec, method), len(method.student_steps())
        student, _ = _trained(method, costs, at)
        needs.append(_of_stage(method, costs, at, aside + (students - 1) * student, later=i > 0))
        if isinstance(method, PairSettings) and method.data() == "pairs":
            needs.append(_making_pairs(method, costs, at, needs[-1]))
        aside += students * student
    at = layout(spec, methods[0])
    return {
        "starting": _starting(spec, costs, at),
        "training": max(needs, key=lambda memory: memory.total),
        "evaluating": _evaluating(spec, costs, at, aside),
    }


def flops(spec: JobSpec, costs: Costs) -> int:
    """Operations of one worker in the stage's step that takes most of them: a multiply-add counts twice."""
    methods = [stage.method for stage in spec.chain()]
    return max(_flops(method, costs, layout(spec, method)) for method in methods)


def _starting(spec: JobSpec, costs: Costs, at: Layout) -> Memory:
    """Whatever the layout, everything is on the device once and whole, while prompts and a dataset's images are
    encoded; the teacher is sampled from before it learns."""
    methods = [stage.method for stage in spec.chain()]
    images, guided = any(method.data() == "images" for method in methods), methods[0].guidance_scale != 1
    encoding = FLOAT * costs.footprint.decoding if spec.data and images else 0  # a VAE's halves are about as wide
    encoders, encoded = FLOAT * costs.footprint.encoders, _encoded(costs, 1 if costs.captions else costs.conditions)
    opening = Memory(FLOAT * costs.parameters, 0, 0, encoding, encoded + encoders)
    sampling = replace(
        opening, activations=_previewing(costs, guided), encoders=encoded + (not at.offloaded) * encoders
    )
    return max(opening, sampling, key=lambda memory: memory.total)


def _evaluating(spec: JobSpec, costs: Costs, at: Layout, aside: int) -> Memory:
    """The teacher is sampled from, and the student's folder, which is opened as a whole. They are on a device in turns;
    a worker without one holds both.

    Args:
        aside: parameters of the students.
    """
    guided = any(stage.method.guidance_scale != 1 for stage in spec.chain())
    at_once = JUDGED_AT_ONCE if costs.footprint.encoders else PIXELS_JUDGED_AT_ONCE
    rows = min(at_once, spec.evaluation.samples) * (1 + guided)
    shown = min(CAPTIONS_SHOWN, costs.conditions or 0) if costs.captions else costs.conditions
    encoders, encoded, copies = FLOAT * costs.footprint.encoders, _encoded(costs, shown), 1 if at.device else 2
    opening = Memory(
        weights=FLOAT * (copies * costs.parameters + (0 if at.device else aside)),
        optimizer=0,
        gradients=0,
        activations=0,
        encoders=copies * (encoded + encoders),
    )
    sampling = replace(
        opening,
        activations=FLOAT * max(rows * costs.footprint.passing, costs.footprint.decoding),
        encoders=copies * (encoded + (not at.offloaded) * encoders),
    )
    return max(opening, sampling, key=lambda memory: memory.total)


def _of_stage(method: MethodSettings, costs: Costs, at: Layout, aside: int, later: bool = False) -> Memory:
    """
    Args:
        aside: parameters of students that are finished before the stage's last one, and stay.
        later: whether the stage starts from the student of another one, which stays as well.
    """
    footprint, split = costs.footprint, at.shards > 1
    student, other = _trained(method, costs, at)
    others = method.trained_networks - 1
    trained = student + others * other
    copies = (method.networks - 1 - others) * student + others * other
    held = (costs.parameters + copies) // at.shards
    if split and (at.rank or (others and at.fake_rank)):
        held += costs.parameters  # what low-rank updates are added to is not split
    if not at.device:
        held += aside  # else they are in the machine's memory, as what a split stage starts from
    if not split or not at.device:
        held += later * costs.parameters
    if split and not at.device:
        held += costs.parameters  # the teacher that is judged

    told = min(method.samples(at.images), costs.conditions or 0) if costs.captions else costs.conditions
    training = _pass(method, costs, at)
    if at.passes == 1:
        training -= (1 - GRADIENTS_AT_PEAK) * FLOAT * max(student, other)
    previewing = _previewing(costs) + (FLOAT * costs.parameters if split else 0)
    averaging = 0 if at.workers == 1 or split else FLOAT * max(student, other)
    setting_aside = 0 if at.device else FLOAT * student  # the stage's last, before the last preview
    return Memory(
        weights=FLOAT * held,
        optimizer=2 * FLOAT * trained // at.shards,
        gradients=FLOAT * trained // at.shards,
        activations=round(max(training, averaging, previewing + setting_aside)),
        encoders=_encoded(costs, told) + (0 if at.offloaded else FLOAT * footprint.encoders),
    )


def _making_pairs(method: PairSettings, costs: Costs, at: Layout, stage: Memory) -> Memory:
    """Before the stage trains: there are no gradients and optimizers yet, the teacher is whole, and run in 32 bits."""
    rows = method.pairs_at_once(at.images) * (1 if method.guidance_scale == 1 else 2)
    whole = FLOAT * costs.parameters if at.shards > 1 else 0
    return replace(stage, optimizer=0, gradients=0, activations=FLOAT * rows * costs.footprint.passing + whole)


def _trained(method: MethodSettings, costs: Costs, at: Layout) -> tuple[int, int]:
    """Parameters of the student that are trained, and of each other network that is; 0 if there is none."""
    whole = round(costs.parameters * method.student_width**2 * method.student_depth)
    student = at.rank * costs.footprint.low_rank_weights if at.rank else whole
    other = at.fake_rank * costs.footprint.low_rank_weights if at.fake_rank else costs.parameters
    return student, other if method.trained_networks > 1 else 0


def _encoded(costs: Costs, prompts: int | None) -> int:
    """Bytes of so many encoded prompts, and of none."""
    return FLOAT * costs.footprint.prompt * (1 + (prompts or 0))


def _previewing(costs: Costs, guided: bool = False) -> int:
    """Bytes while images are sampled and decoded, in 32 bits; under guidance each takes two rows of a batch."""
    drawn = PREVIEWED if costs.conditions is None else 2 * min(CLASSES_PREVIEWED, costs.conditions)
    rows = min(drawn, PREVIEWED_AT_ONCE) * (1 + guided)
    return FLOAT * max(rows * costs.footprint.passing, costs.footprint.decoding)


def _pass(method: MethodSettings, costs: Costs, at: Layout) -> float:
    """Bytes that come and go in the passes that are alive at once."""
    held, footprint = method.passes(), costs.footprint
    features = 0.5 if _learns_features(method) else 0.0
    ranks = (at.rank, at.fake_rank) if method.trained_networks > 1 else (at.rank,)
    for_weights = footprint.kept_for_weights
    if all(ranks):
        for_weights = footprint.kept_for_updates + max(ranks) * footprint.low_rank_places
    trained, through = footprint.kept + for_weights, footprint.kept
    if at.blocks_again:
        trained = through = footprint.kept_by_blocks
    share = method.student_width * method.student_depth if method.trained_networks == 1 else 1
    passes = share * (held.trained + features) + held.through
    numbers = share * (held.trained + features) * trained + held.through * through + held.idle * footprint.passing
    number = HALF + (FLOAT - HALF) * footprint.kept_in_float if at.half else FLOAT
    needed = method.samples(at.images) * number * numbers
    if at.half:  # a pass keeps the rounded weights that its backward pass is to go through, split or not
        needed += HALF * (footprint.block if at.blocks_again else passes * costs.parameters)
    if at.shards > 1:
        needed += FLOAT * footprint.gathered
    return needed


def _learns_features(method: BaseModel) -> bool:
    return isinstance(method, FeatureSettings) and method.feature_weight > 0


def _flops(method: MethodSettings, costs: Costs, at: Layout) -> int:
    low = at.rank and (at.fake_rank or method.trained_networks == 1)
    forward, attention = costs.footprint.flops, costs.footprint.attention
    backward = (forward + attention if low else 2 * forward) + at.blocks_again * forward
    forwards, backwards = method.cost()
    return round((forwards * forward + backwards * backward) * at.images * at.passes)
