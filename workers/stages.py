"""A job from its teacher to its exported students: the chain of stages, resumable at every step."""

from dataclasses import dataclass
from pathlib import Path

import torch

from service.errors import TeacherInvalid
from service.methods.base import MethodSettings, PairSettings
from service.spec import JobSpec
from service.status import Wish
from workers import finish
from workers.artifact import folder_sha256, load_student
from workers.compute import hasten
from workers.data.digits import load_digits
from workers.data.source import ImageSource
from workers.diffusion.guidance import guided
from workers.host import Host
from workers.methods.base import Method
from workers.methods.registry import REGISTRY
from workers.models.denoiser import Denoiser
from workers.pairs import make_pairs
from workers.precision import exact
from workers.preview import Decode, Preview, itself
from workers.state import Finished, State, read
from workers.trainer import Cadence, Trainer


@dataclass(frozen=True)
class Outcome:
    """`stopped` is the wish that was obeyed, None when all is done; `step` counts over all stages."""

    stopped: Wish | None
    step: int


def run(spec: JobSpec, teacher_folder: Path, host: Host) -> Outcome:
    """Train every stage from the latest checkpoint on, then judge and export every student.

    Raises:
        TeacherInvalid: the teacher cannot be used with this spec.
        workers.trainer.Diverged: a loss or a gradient is not finite.
    """
    model = load_student(teacher_folder, spec.prompts or (), host.device, spec.compute.offload)
    teacher = model.denoiser
    checkpoint = host.latest_checkpoint()
    state = read(checkpoint) if checkpoint else State()

    stopped = train(spec, teacher, host, state, _identity(spec, teacher_folder), model.decode)
    done = _steps_before(spec, state.stage) + state.step
    if stopped:
        return Outcome(stopped, done)

    if host.rank == 0:
        host.phase("evaluating")
        model.to(host.device)
        for student in state.finished:
            network = student_network(spec, teacher, student)
            with exact():
                finish.export(
                    model,
                    network,
                    student.sampler,
                    student.method,
                    student.label,
                    student.stage,
                    spec,
                    host,
                    student.training_seconds,
                )
    return Outcome(None, done)


def train(
    spec: JobSpec,
    teacher: Denoiser,
    host: Host,
    state: State,
    identity: str = "",
    decode: Decode = itself,
) -> Wish | None:
    """Run the stages that are left; `state` is moved on in place. Returns the wish that stopped it, or None.

    What is to be split between workers is made on the CPU, and `teacher` stays there whole: rank 0 judges it alone.

    Args:
        identity: of the teacher's weights; what it made is kept under it.
        decode: images of what the networks work on.
    """
    chain = spec.chain()
    preview = Preview(host, teacher.num_classes, decode)
    split = spec.compute.strategy == "fsdp" and host.world_size > 1
    if state.step < chain[-1].method.total_steps() or state.stage + 1 < len(chain):
        host.phase("training")
    if state.stage == state.step == 0 and host.rank == 0:
        preview.teacher(guided(teacher, chain[0].method.guidance_scale), spec.evaluation.teacher_steps)

    while True:
        settings = chain[state.stage].method
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.seed + state.stage)  # for nets that start from nothing, such as a critic's head
            if split:
                teacher.to("cpu")
            method = build(settings, teacher.frozen_copy() if split else teacher, _start(spec, teacher, state))
        method.teacher.to(host.device)
        with exact():
            images = data_source(method, host, spec.seed, f"{identity} guidance={settings.guidance_scale:g}")
        if isinstance(images, Wish):
            return images
        for module in (method.teacher, *method.trainable.values()):
            module.to("cpu" if split else host.device)
        hasten([method.teacher, *method.trainable.values(), *method.followers.values()], spec.compute)
        cadence = Cadence(spec.checkpoint_every, spec.preview_every, _steps_before(spec, state.stage))
        stopped = Trainer(method, images, host, state, cadence, spec.seed, preview, spec.compute).run()
        if stopped or state.stage + 1 == len(chain):
            return stopped
        state.stage, state.step, state.live = state.stage + 1, 0, {}


def _identity(spec: JobSpec, teacher_folder: Path) -> str:
    """Of what the teacher makes: its weights and, where it takes text, the prompts."""
    return folder_sha256(teacher_folder) + finish.prompts_identity(spec.prompts or ())


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


def student_network(spec: JobSpec, teacher: Denoiser, student: Finished) -> Denoiser:
    """A finished student. Its stage and each one before may have made it smaller."""
    network = teacher
    for stage in spec.chain()[: student.stage + 1]:
        network = sized(network, stage.method)
    network = network.frozen_copy()
    network.load_state_dict(student.weights)
    return network


def data_source(method: Method, host: Host, seed: int, identity: str) -> ImageSource | Wish | None:
    """What the method's batches are drawn from; a wish, where one stopped it from being made."""
    match method.data_need:
        case "none":
            return None
        case "images":
            return image_source(method.teacher)
        case "pairs":
            assert isinstance(method.settings, PairSettings)
            return make_pairs(method.teacher, method.settings, host, seed, identity)


def image_source(teacher: Denoiser) -> ImageSource:
    """The images that `teacher` was trained on; the digits are the only set that ships."""
    digits = load_digits()
    shape = tuple(digits.train_images.shape[1:])
    if teacher.shape != shape:
        raise TeacherInvalid(
            f"the teacher makes images of {list(teacher.shape)}, and training images exist of {list(shape)} only; "
            "use a method that needs none, such as dmd2 with gan_weight 0"
        )
    return ImageSource(digits.train_images, None if teacher.num_classes is None else digits.train_labels)


def _start(spec: JobSpec, teacher: Denoiser, state: State) -> Denoiser | None:
    """The student of the stage before: the last one that it finished."""
    before = [student for student in state.finished if student.stage < state.stage]
    return student_network(spec, teacher, before[-1]) if before else None


def _steps_before(spec: JobSpec, stage: int) -> int:
    return sum(stage.method.total_steps() for stage in spec.chain()[:stage])
