"""From a folder of an EDM network to its students', which plain diffusers' ConsistencyModelPipeline runs."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny_edm
import torch
from diffusers import ConsistencyModelPipeline, EDMEulerScheduler
from PIL import Image

from service.errors import TeacherInvalid
from service.spec import JobSpec
from workers import stages, trainer
from workers.artifact import Student, load_student
from workers.data.dataset import Dataset, look
from workers.diffusion.sampler import SamplerSpec, sample, seeded
from workers.families.edm import EDM, open_edm
from workers.run import FolderHost

SHORT = {"iterations": 2, "batch_size": 4}
METHODS: list[tuple[dict[str, Any], list[int]]] = [
    ({"kind": "ect", "parts": 2, **SHORT}, [1]),
    ({"kind": "consistency", "grid_steps": 4, **SHORT}, [1]),
    ({"kind": "dmd2", "fake_updates": 1, "guidance_scale": 2.0, **SHORT}, [1]),
    ({"kind": "progressive", "first_steps": 4, "rung_iterations": 1, "batch_size": 4}, [4, 2, 1]),
    ({"kind": "ctm", "grid_steps": 4, **SHORT, "batch_size": 16}, [4, 2, 1]),
    ({"kind": "kd", "pairs": 8, "pair_steps": 2, "student_width": 0.5, **SHORT}, [1]),
]
"""With the steps of their students."""
ALWAYS = ("ect", "dmd2", "progressive")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Four of each class."""
    folder = tmp_path_factory.mktemp("images")
    rng = torch.Generator().manual_seed(0)
    for i in range(4 * tiny_edm.CLASSES):
        pixels = torch.randint(256, (8, 8, 3), generator=rng, dtype=torch.uint8)
        (folder / str(i % tiny_edm.CLASSES)).mkdir(exist_ok=True)
        Image.fromarray(pixels.numpy()).save(folder / str(i % tiny_edm.CLASSES) / f"{i}.png")
    return look(folder)


@pytest.mark.parametrize(
    ("method", "steps"),
    [pytest.param(*m, id=m[0]["kind"], marks=[] if m[0]["kind"] in ALWAYS else pytest.mark.slow) for m in METHODS],
)
def test_a_teachers_folder_becomes_a_students(
    method: dict[str, Any], steps: list[int], images: Dataset, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(trainer, "LARGEST_SAMPLE", math.inf)  # random weights make samples of any size
    tiny_edm.edm().save_pretrained(tmp_path / "teacher", safe_serialization=True)
    evaluation = {"samples": 100, "teacher_steps": 4}
    spec = {"teacher": "edm", "method": method, "preview_every": 1, "checkpoint_every": 1, "evaluation": evaluation}
    job = JobSpec.model_validate(spec)
    outcome = stages.run(job, tmp_path / "teacher", FolderHost(tmp_path / "run", torch.device("cpu")), images)
    assert outcome == stages.Outcome(None, job.total_steps())
    for n in steps:
        folder = tmp_path / "run" / "students" / f"{method['kind']}-{n}"
        assert json.loads(folder.with_suffix(".json").read_text())["steps"] == [n]
        assert "ConsistencyModelPipeline.from_pretrained" in (folder / "README.md").read_text()
        student = load_student(folder)
        plain = ConsistencyModelPipeline.from_pretrained(folder, use_safetensors=True)
        plain.set_progress_bar_config(disable=True)
        assert isinstance(plain.scheduler, EDMEulerScheduler)
        theirs = plain(3, [0, 1, 2], n, generator=seeded(range(3)), output_type="pt").images
        ours = student.generate(torch.arange(3), range(3), n)
        assert ours.std() > 0.1
        torch.testing.assert_close(ours / 2 + 0.5, theirs, atol=1e-4, rtol=0)


def test_a_teacher_takes_the_steps_that_its_students_will(tmp_path: Path) -> None:
    tiny_edm.edm("v_prediction").save_pretrained(tmp_path, safe_serialization=True)
    model = load_student(tmp_path)
    assert isinstance(model, Student)
    for steps in (1, 2, 3, 8):
        spec = SamplerSpec.on(model.denoiser.path, "ddim", [steps])
        ours = sample(model.denoiser, spec, steps, torch.arange(3), seeded(range(3))).clamp(-1, 1)
        torch.testing.assert_close(model.generate(torch.arange(3), range(3), steps), ours, atol=1e-4, rtol=0)


def test_the_grid_of_a_student_is_that_of_its_scheduler() -> None:
    path: Any = EDM.of(tiny_edm.edm()).path
    for steps in (1, 2, 3, 4, 10):
        spec = SamplerSpec.on(path, "ddim", [steps])
        _, config = spec.scheduler_config({"sigma_data": 0.5, "prediction_type": "epsilon", "sigma_min": 0.1})
        scheduler = EDMEulerScheduler(**config)
        scheduler.set_timesteps(steps)
        starts = torch.tensor([t for t, _ in spec.times(steps)], dtype=torch.float64)
        torch.testing.assert_close(torch.tan(path.angle(starts)), scheduler.sigmas[:-1].double(), rtol=1e-4, atol=0)
        torch.testing.assert_close(path.t_to_model(starts), scheduler.timesteps.double(), rtol=0, atol=1e-5)
        assert scheduler.sigmas[-1] == spec.times(steps)[-1][1] == 0


def test_what_it_predicts_is_exact_for_a_gaussian() -> None:
    """Images of mean 0 and deviation sigma_data are answered by F = 0."""
    denoiser = EDM.of(tiny_edm.edm())
    with torch.no_grad():
        for parameter in denoiser.unet.conv_out.parameters():
            parameter.zero_()
    x, t = torch.randn(5, *denoiser.shape), torch.tensor([0.0, 0.01, 0.3, 0.7, 1.0], dtype=torch.float64)
    path, labels = denoiser.path, torch.zeros(5, dtype=torch.int64)
    alpha, sigma = (f(t).reshape(-1, 1, 1, 1).float() for f in (path.alpha, path.sigma))
    x0 = 0.25 * alpha / (0.25 * alpha**2 + sigma**2) * x
    torch.testing.assert_close(denoiser.predict(x, t, labels), x0)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    tiny_edm.edm().save_pretrained(tmp_path, safe_serialization=True)
    config = json.loads((tmp_path / "unet" / "config.json").read_text())
    (tmp_path / "unet" / "config.json").write_text(json.dumps(config | {"sample_size": None}))
    with pytest.raises(TeacherInvalid, match="must name its sample_size"):
        open_edm(tmp_path)
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(TeacherInvalid, match="does not load as a ConsistencyModelPipeline"):
        open_edm(tmp_path)
