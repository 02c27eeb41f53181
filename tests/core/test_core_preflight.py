"""What a job refuses before its first step: oracles of every prediction type, called something else, and worse."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_edm
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from service.errors import DataInvalid, TeacherInvalid
from service.families import EDM_PREDICTIONS
from service.spec import JobSpec
from workers import preflight, stages
from workers.data.digits import load_digits
from workers.diffusion.convert import Prediction
from workers.diffusion.guidance import guided
from workers.diffusion.paths import EDM as EDMPath
from workers.diffusion.paths import Path as NoisePath
from workers.diffusion.paths import RectifiedFlow, expand
from workers.families.edm import EDM
from workers.models.denoiser import Denoiser
from workers.models.stock import PREDICTION_TYPES
from workers.models.unet2d import load_teacher
from workers.preview import Preview

TEACHER = Path(stages.__file__).parent / "assets" / "digits" / "teacher"
DIGITS = load_teacher(TEACHER)
TYPES = {prediction: name for name, prediction in PREDICTION_TYPES.items()}


class Called(Denoiser):
    """The digits teacher, answering with `truth` times `sign` and calling that `name`, on any path."""

    def __init__(self, truth: Prediction, name: Prediction, path: NoisePath | None = None, sign: float = 1) -> None:
        super().__init__()
        self.truth, self.prediction, self.sign = truth, name, sign
        self.path, self.shape = path or DIGITS.path, DIGITS.shape
        self.num_classes = self.null_label = 10
        self.deaf = False

    def raw(self, x: Tensor, t: Tensor, labels: Tensor | None, s: Tensor | None = None) -> Tensor:
        told = torch.full_like(labels, 10) if self.deaf and labels is not None else labels
        return self.sign * DIGITS.predict(x, t, told, self.truth, self.path)

    def with_conditions(self, copies: int) -> Denoiser:
        return self


class Listening:
    """A host that keeps what is logged."""

    rank, world_size, device = 0, 1, torch.device("cpu")

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def log(self, level: str, message: str) -> None:
        self.lines.append((level, message))

    def sample(self, *sample: Any) -> None:
        pass


def look(network: Denoiser, scale: float = 1.0) -> tuple[str, str]:
    """The line of the log. TeacherInvalid."""
    host: Any = Listening()
    drawn, images = Preview(host, network.num_classes).teacher(guided(network, scale), 8)
    preflight.check(network, [scale], drawn, images, host, None)
    (line,) = host.lines
    return line


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("truth", TYPES)
def test_a_network_is_what_its_scheduler_says_or_the_job_says_what_it_is(truth: Prediction, name: Prediction) -> None:
    if truth == name:
        level, message = look(Called(truth, name))
        assert (level, message[:10]) == ("info", "Preflight:")
        return
    says = f"the scheduler says {TYPES[name]}, but the network answers as {TYPES[truth]} does: set prediction_type"
    with pytest.raises(TeacherInvalid, match=says):
        look(Called(truth, name))


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_flow_of_the_other_sign(shift: float) -> None:
    path = RectifiedFlow(shift)
    assert look(Called("flow", "flow", path))[0] == "info"
    with pytest.raises(TeacherInvalid, match="answers x0 - eps, where the pipeline"):
        look(Called("flow", "flow", path, sign=-1))
    with pytest.raises(TeacherInvalid, match="answers with the image itself"):
        look(Called("x0", "flow", path))


class Preconditioned(EDM):
    """The digits teacher as EDM's x0 = c_skip x + c_out F, and its answer with the sign `sign`/`truth`."""

    def __init__(self, sign: float, truth: float = 1) -> None:
        super().__init__(DIGITS.unet, EDMPath(), 0.5, sign)
        self.truth = truth

    def raw(self, x: Tensor, t: Tensor, labels: Tensor | None, s: Tensor | None = None) -> Tensor:
        x0 = DIGITS.predict(x, t, labels, path=self.path)
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        skip = expand(alpha * self.sigma_data**2 / (sigma**2 + (self.sigma_data * alpha) ** 2), x) * x
        return skip + self.sign / self.truth * (x0 - skip)


@pytest.mark.parametrize(("sign", "says", "answers"), [(1, *EDM_PREDICTIONS), (-1, *EDM_PREDICTIONS[::-1])])
def test_an_edm_network_of_the_other_sign(sign: float, says: str, answers: str) -> None:
    assert look(Preconditioned(sign, sign))[0] == "info"
    with pytest.raises(TeacherInvalid, match=f"the scheduler says {says}, but the network answers as {answers} does"):
        look(Preconditioned(sign, -sign))


def test_an_untrained_edm_network_is_warned_about() -> None:
    level, message = look(EDM.of(tiny_edm.edm()))
    assert (level, "prediction type cannot be checked" in message) == ("warning", True)


def test_an_untrained_network_is_warned_about() -> None:
    network = DIGITS.frozen_copy()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.05 * torch.randn_like(parameter))
    level, message = look(network)
    assert level == "warning"
    assert "prediction type cannot be checked" in message


def test_guidance_that_does_nothing() -> None:
    network = Called("v", "v")
    assert look(network, 2.0)[0] == "info"
    network.deaf = True
    look(network)
    with pytest.raises(TeacherInvalid, match="guidance_scale is 2, but the network answers alike"):
        look(network, 2.0)


def test_guidance_over_guidance_that_is_built_in_is_warned_about() -> None:
    network = Called("eps", "eps")
    network.embedded_guidance = 3.5
    assert look(network)[0] == "info"
    level, message = look(network, 2.0)
    assert level == "warning"
    assert "a scale of 3.5" in message
    assert "guidance_scale 2 leads on" in message


def test_answers_that_are_not_finite() -> None:
    with pytest.raises(TeacherInvalid, match="the network's answer is not finite"):
        look(Called("v", "v", sign=float("nan")))


def test_samples_that_are_no_images() -> None:
    host: Any = Listening()
    for drawn, says in [(torch.full((4, 1, 8, 8), 50.0), "a size of 50"), (torch.full((4, 1, 8, 8), 3.0), "100% of")]:
        with pytest.raises(TeacherInvalid, match=f"{says}.*or guidance_scale is too high"):
            preflight.check(Called("eps", "eps"), [4.0], drawn, drawn, host, None)


def test_training_images_that_are_none() -> None:
    images = load_digits().train_images[:8]
    preflight.check_images(images, (1, 8, 8))
    for wrong, says in [
        (images * 127.5 + 127.5, r"lie in \[0, 255\]"),
        (images * float("nan"), "lie in .nan"),
        (torch.zeros_like(images), "of one colour"),
        (images[..., :4], r"are \[1, 8, 4\]"),
    ]:
        with pytest.raises(DataInvalid, match=says):
            preflight.check_images(wrong, (1, 8, 8))


def test_a_job_with_the_wrong_prediction_type_ends_before_its_first_step(local_host: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(TEACHER, tmp_path / "teacher")
    scheduler = DDPMScheduler.from_pretrained(folder / "scheduler", prediction_type="sample")
    assert isinstance(scheduler, DDIMScheduler | DDPMScheduler)
    scheduler.save_pretrained(folder / "scheduler")
    method = {"kind": "progressive", "first_steps": 2, "rung_iterations": 1, "batch_size": 4}
    spec = JobSpec.model_validate({"teacher": "digits", "method": method, "evaluation": {"teacher_steps": 2}})
    host = local_host()
    with pytest.raises(TeacherInvalid, match="the network answers as v_prediction does"):
        stages.run(spec, folder, host)
    assert not host.steps
