"""Figures that warn of trouble while a student trains, and the stop when its samples are of no use any more."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from service.methods.consistency import ConsistencySettings
from service.methods.dmd2 import DMD2Settings
from workers import stages
from workers.diffusion.sampler import SamplerSpec
from workers.methods.consistency import Consistency
from workers.methods.dmd2 import DMD2
from workers.models.denoiser import Denoiser
from workers.models.mixture import MlpDenoiser
from workers.models.unet2d import load_teacher
from workers.preview import Preview
from workers.state import State
from workers.trainer import Cadence, Diverged, Trainer

TEACHER = Path(stages.__file__).parent / "assets" / "digits" / "teacher"
ONE_STEP = SamplerSpec("ddim", (1,))


class Always(Denoiser):
    """Says that every clean image is `x0` times the sign of its own noise, or just `x0`."""

    prediction = "x0"
    shape = (1, 8, 8)
    num_classes, null_label = 10, 10

    def __init__(self, x0: float, noise: float = 0.0) -> None:
        super().__init__()
        self.path, self.x0, self.noise = load_teacher(TEACHER).path, x0, noise

    def raw(self, x: Tensor, t: Tensor, labels: Tensor | None, s: Tensor | None = None) -> Tensor:
        return torch.full_like(x, self.x0) + self.noise * x

    def with_conditions(self, copies: int) -> Denoiser:
        raise NotImplementedError


def test_size_saturation_and_diversity_are_those_of_the_samples(local_host: Any) -> None:
    preview = Preview(local_host(), 10)
    flat = preview.student(Always(0.5), ONE_STEP, 1, 0)
    assert flat == pytest.approx({"sample_size": 0.5, "sample_saturation": 0, "sample_diversity": 0}, abs=1e-6)
    noisy = preview.student(Always(0, noise=1.0), ONE_STEP, 1, 0)
    assert noisy["sample_size"] == pytest.approx(1, abs=0.1)
    assert noisy["sample_saturation"] == pytest.approx(0.271, abs=0.05), "a normal's mass beyond 1.1"
    assert noisy["sample_diversity"] == pytest.approx(2**0.5, abs=0.1)
    assert preview.student(Always(3), ONE_STEP, 1, 0)["sample_saturation"] == 1


def consistency(host: Any, iterations: int = 4) -> Trainer:
    teacher = load_teacher(TEACHER)
    method = Consistency(ConsistencySettings(iterations=iterations, batch_size=4), teacher, teacher)
    return Trainer(method, stages.image_source(teacher), host, State(), Cadence(100, 2), 0, Preview(host, 10))


def test_a_previewed_step_reports_them(local_host: Any) -> None:
    host = local_host()
    consistency(host).run()
    names = {"sample_size", "sample_saturation", "sample_diversity"}
    assert [names <= host.steps[step].keys() for step in (1, 2, 3, 4)] == [False, True, False, True]


def test_samples_that_explode_stop_the_run_before_a_loss_is_nan(local_host: Any) -> None:
    run = consistency(local_host())
    last = run.average.unet.conv_out  # type: ignore[union-attr]
    with torch.no_grad():
        last.weight.mul_(1e4)
    with pytest.raises(Diverged, match=r"step 0: the student's samples have grown to \d.*lower learning_rate"):
        run.run()


def test_the_losses_of_other_roles_are_set_against_the_students(local_host: Any) -> None:
    torch.manual_seed(0)
    host, teacher = local_host(), MlpDenoiser()
    method = DMD2(DMD2Settings(iterations=2, batch_size=8), teacher, teacher)
    Trainer(method, None, host, State(), Cadence(100, 100), 0).run()
    for values in host.steps.values():
        assert values["fake_to_student_loss"] == pytest.approx(values["fake_loss"] / values["loss"], rel=1e-4)
