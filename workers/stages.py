"""A job from its teacher to its exported students: the chain of stages, resumable at every step."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from service.errors import DataInvalid, TeacherInvalid
from service.methods.base import MethodSettings, PairSettings
from service.spec import JobSpec
from service.status import Wish
from workers import finish, preflight
from workers.artifact import folder_sha256, load_student
from workers.compute import hasten, lay_out
from workers.data.chunks import Chunks
from workers.data.dataset import Dataset
from workers.data.digits import load_digits
from workers.data.encode import CaptionRows, encode
from workers.data.source import ImageSource, Source, StoredSource
from workers.diffusion.guidance import guided
from workers.host import Host
from workers.identity import check_trained_with
from workers.methods.base import Method
from workers.methods.registry import REGISTRY
from workers.models.codec import Coder
from workers.models.denoiser import Denoiser
from workers.models.low_rank import merged, only_updates, summed
from workers.pairs import make_pairs
from workers.pipeline_model import PipelineModel
from workers.precision import exact
from workers.preview import Preview, itself
from workers.state import Finished, State, read
from workers.trainer import Cadence, Trainer


@dataclass(frozen=True)
class Outcome:
    """`stopped` is the wish that was obeyed, None when all is done; `step` counts over all stages."""

    stopped: Wish | None
    step: int


def run(spec: JobSpec, teacher_folder: Path, host: Host, dataset: Dataset | None = None) -> Outcome:
    """Train every stage from the latest checkpoint on, then judge and export every student.

    Args:
        dataset: what the teacher is asked for, and what methods that need images learn from.

    Raises:
        TeacherInvalid: the teacher cannot be used with this spec, or is not the checkpoint's.
        DataInvalid: the dataset cannot be used with this teacher and these methods, or is not the checkpoint's.
        workers.trainer.Diverged: a loss or a gradient is not finite.
    """
    model = load_student(teacher_folder, spec.prompts or (), host.device, spec.compute.offload)
    features = finish.opened_features(spec, host) if host.rank == 0 else None
    with host.latest_checkpoint() as checkpoint:
        state = read(checkpoint) if checkpoint else State()

    images = any(stage.method.data() == "images" for stage in spec.chain())
    used = dataset if model.text or images else None
    weights, data = folder_sha256(teacher_folder), "" if used is None else used.identity
    check_trained_with(state, spec, weights, data)
    if state.stage + state.step and not state.teacher:
        host.log("warning", "The checkpoint does not say with which teacher and dataset: it goes on with today's.")
    state.teacher, state.dataset = weights, data
    identity, source = weights + finish.prompts_identity(spec.prompts or ()), None
    if spec.aspect_buckets and (dataset is None or not images):
        raise DataInvalid("aspect_buckets is of use to methods that learn from a dataset's images: set it to false")
    if used is not None:
        chunks = encode(used, model, host, images, weights, spec.aspect_buckets)
        if isinstance(chunks, Wish):
            return Outcome(chunks, _steps_before(spec, state.stage) + state.step)
        source, identity = StoredSource(chunks, captions=model.text), f"{identity} data={data}"
        if spec.aspect_buckets:
            identity += " by size"  # so are the captions ordered
            _warn_of_small(chunks, spec, host)
        if isinstance(model, PipelineModel) and model.text:
            model.tell(CaptionRows(chunks), chunks.captions)

    teacher, coder = model.denoiser, model if isinstance(model, PipelineModel) else None
    stopped = train(spec, teacher, host, state, identity, source, coder)
    state.live = {}
    done = _steps_before(spec, state.stage) + state.step
    if stopped:
        return Outcome(stopped, done)

    if host.rank == 0:
        check_trained_with(state, spec, folder_sha256(teacher_folder), data)  # what is exported names it
        host.phase("evaluating")
        for student in state.finished:
            with exact():
                finish.export(
                    model,
                    partial(student_network, spec, teacher, state.finished, student),
                    student.sampler,
                    student.method,
                    student.label,
                    student.stage,
                    spec,
                    host,
                    student.training_seconds,
                    features=features,
                    lora=lora(state.finished, student),
                )
    return Outcome(None, done)


def train(
    spec: JobSpec,
    teacher: Denoiser,
    host: Host,
    state: State,
    identity: str = "",
    stored: StoredSource | None = None,
    coder: Coder | None = None,
) -> Wish | None:
    """Run the stages that are left; `state` is moved on in place. Returns the wish that stopped it, or None.

    What is to be split between workers is made on the CPU, and `teacher` stays there whole: rank 0 judges it alone.

    Args:
        identity: of the teacher's weights; what it made is kept under it.
        stored: the job's own images; None where it brought none.
        coder: between images and what the networks work on; None where that is the same.
    """
    chain = spec.chain()
    preview = Preview(host, teacher.num_classes, itself if coder is None else coder.decode)
    if state.step < chain[-1].method.total_steps() or state.stage + 1 < len(chain):
        host.phase("training")
    if state.stage == state.step == 0:  # on every rank, so that all come to the same verdict
        drawn = preview.teacher(guided(teacher, chain[0].method.guidance_scale), spec.evaluation.teacher_steps)
        preflight.check(teacher, [stage.method.guidance_scale for stage in chain], *drawn, host, coder)

    while True:
        stopped = _train_stage(spec, teacher, host, state, identity, stored, preview)
        if stopped or state.stage + 1 == len(chain):
            return stopped
        state.stage, state.step, state.live = state.stage + 1, 0, {}


def _train_stage(
    spec: JobSpec,
    teacher: Denoiser,
    host: Host,
    state: State,
    identity: str,
    stored: StoredSource | None,
    preview: Preview,
) -> Wish | None:
    """Run what is left of the stage that `state` stands in; nothing of it is held any more when the next one begins."""
    settings = spec.chain()[state.stage].method
    split = spec.compute.strategy == "fsdp" and host.world_size > 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed + state.stage)  # for nets that start from nothing, such as a critic's head
        if split:
            teacher.to("cpu")
        start = _start(spec, teacher, state)
        for network in (teacher,) if start is None else (teacher, start):
            lay_out(network, spec.compute)
        method = build(settings, teacher.frozen_copy() if split else teacher, start)
    method.teacher.to(host.device)
    with exact():
        images = data_source(method, host, spec.seed, f"{identity} guidance={settings.guidance_scale:g}", stored)
    if isinstance(images, Wish):
        return images
    for module in (method.teacher, *method.trainable.values()):
        module.to("cpu" if split else host.device)
    hasten([method.teacher, *method.trainable.values(), *method.followers.values()], spec.compute)
    cadence = Cadence(spec.checkpoint_every, spec.preview_every, _steps_before(spec, state.stage))
    return Trainer(method, images, host, state, cadence, spec.seed, preview, spec.compute).run()


def _warn_of_small(chunks: Chunks, spec: JobSpec, host: Host) -> None:
    """Of sizes with fewer images than make a batch."""
    batch = max(stage.method.batch_size for stage in spec.chain() if stage.method.data() == "images")
    small = [f"{samples} of {size}" for size, samples in chunks.sizes.items() if samples < batch]
    if small:
        host.log("warning", f"Fewer images than a batch of {batch} has, so it repeats them: {', '.join(small)}.")


def build(settings: MethodSettings, teacher: Denoiser, start: Denoiser | None = None) -> Method:
    """The method of one stage. `start` is the student of the stage before, None in the first stage."""
    kind, beginning = REGISTRY[settings.kind], sized(start or teacher, settings)
    if start is not None and kind.teacher_is_start:
        return kind(settings, start, beginning)  # it has learnt the guided result already
    return kind(settings, guided(teacher, settings.guidance_scale), beginning)


def sized(network: Denoiser, settings: MethodSettings) -> Denoiser:
    """`network`, or a smaller one that the student is to start from."""
    if settings.student_width == settings.student_depth == 1:
        return network
    return network.smaller(settings.student_width, settings.student_depth)


def student_network(spec: JobSpec, teacher: Denoiser, finished: Sequence[Finished], student: Finished) -> Denoiser:
    """A finished student in the teacher's format: what its stage started from, with what it has learnt."""
    before = last_before(finished, student.stage)
    start = teacher if before is None else student_network(spec, teacher, finished, before)
    network = sized(start, spec.chain()[student.stage].method)
    if network is teacher:
        network = teacher.frozen_copy()
    return merged(network.requires_grad_(False), student.weights)


def last_before(finished: Sequence[Finished], stage: int) -> Finished | None:
    """What a stage starts from: the last student of the stage before. None for the first stage."""
    return next((student for student in reversed(finished) if student.stage < stage), None)


def lora(finished: Sequence[Finished], student: Finished) -> dict[str, Tensor] | None:
    """What leads from the teacher to a student, as one low-rank update; None, if a stage trained whole weights."""
    way = [student]
    while (before := last_before(finished, way[0].stage)) is not None:
        way.insert(0, before)
    return summed([student.weights for student in way]) if all(only_updates(s.weights) for s in way) else None


def data_source(
    method: Method, host: Host, seed: int, identity: str, stored: StoredSource | None = None
) -> Source | Wish | None:
    """What the method's batches are drawn from; a wish, where one stopped it from being made."""
    match method.data_need:
        case "none":
            return None
        case "images":
            return stored or image_source(method.teacher)
        case "pairs":
            assert isinstance(method.settings, PairSettings)
            return make_pairs(method.teacher, method.settings, host, seed, identity)


def image_source(teacher: Denoiser) -> ImageSource:
    """The images that `teacher` was trained on, for a job without a dataset; the digits are the only set that ships."""
    digits = load_digits()
    shape = tuple(digits.train_images.shape[1:])
    if teacher.shape != shape:
        raise TeacherInvalid(
            f"the teacher makes images of {list(teacher.shape)}, and training images exist of {list(shape)} only; "
            "give the job a dataset, or use a method that needs none, such as dmd2 with gan_weight 0"
        )
    preflight.check_images(digits.train_images, shape)
    return ImageSource(digits.train_images, None if teacher.num_classes is None else digits.train_labels)


def _start(spec: JobSpec, teacher: Denoiser, state: State) -> Denoiser | None:
    """The student of the stage before."""
    before = last_before(state.finished, state.stage)
    return None if before is None else student_network(spec, teacher, state.finished, before)


def _steps_before(spec: JobSpec, stage: int) -> int:
    return sum(stage.method.total_steps() for stage in spec.chain()[:stage])
