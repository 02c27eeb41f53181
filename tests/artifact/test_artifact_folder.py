"""What is not loaded, and how teachers are."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ConsistencyModelPipeline

from service.errors import TeacherInvalid
from workers.artifact import FolderInvalid, file_sha256, load_student

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(exported: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported.folder("progressive-4"), tmp_path / "student"))


def test_the_untouched_folder_loads_and_hidden_files_do_not_matter(folder: Path) -> None:
    (folder / ".cache").mkdir()
    (folder / ".cache" / "note").write_text("a hub client was here")
    student = load_student(folder)
    assert student.steps == (4,)
    assert student.num_classes == 10
    assert student.parameters == sum(p.numel() for p in student.unet.parameters()) > 10_000


@pytest.mark.parametrize("name", [WEIGHTS, "README.md", "scheduler/scheduler_config.json", "unet/config.json"])
def test_a_changed_file_is_refused(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(FolderInvalid, match=rf"{name} .*was changed"):
        load_student(folder)


def test_a_missing_and_an_unlisted_file_are_refused(folder: Path) -> None:
    (folder / "unet" / "extra.safetensors").write_bytes(b"")
    with pytest.raises(FolderInvalid, match=r"does not list: unet/extra\.safetensors"):
        load_student(folder)
    (folder / "unet" / "extra.safetensors").unlink()
    (folder / WEIGHTS).unlink()
    with pytest.raises(FolderInvalid, match="missing"):
        load_student(folder)


@pytest.mark.parametrize("which", ["student", "teacher"])
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("unet/diffusion_pytorch_model.bin", "pickle"),
        ("extra.PT", "pickle"),
        ("unet/.hidden.pkl", "pickle"),
        ("unet/unet.py", "code"),
        (".hooks/run.sh", "code"),
    ],
)
def test_pickles_and_code_are_refused(
    folder: Path, teacher: Path, tmp_path: Path, which: str, name: str, why: str
) -> None:
    if which == "teacher":
        folder = Path(shutil.copytree(teacher, tmp_path / "teacher"))
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(FolderInvalid, match=why):
        load_student(folder)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not a student's manifest"),
        ("[]", "not a student's manifest"),
        ('{"format": "other", "format_version": 1, "files": {}}', "not a student's manifest"),
        ('{"format": "fewstep-student", "format_version": 99, "files": {}}', "format_version 99"),
    ],
)
def test_a_broken_manifest_is_refused(folder: Path, text: str, why: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(FolderInvalid, match=why):
        load_student(folder)


def test_a_scheduler_from_elsewhere_is_refused(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace('"DDIMScheduler"', '"Evil"'))
    manifest["files"]["model_index.json"] = file_sha256(index)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(FolderInvalid, match="Evil"):
        load_student(folder)


def test_a_teacher_without_a_scheduler_is_refused(teacher: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(teacher, tmp_path / "teacher"))
    shutil.rmtree(folder / "scheduler")
    with pytest.raises(TeacherInvalid, match="scheduler"):
        load_student(folder)


def test_a_teacher_samples_as_plain_diffusers_does(teacher: Path) -> None:
    seeds, labels = [4, 5, 6], [1, 2, 3]
    model = load_student(teacher)
    assert model.steps == ()
    pipeline = ConsistencyModelPipeline.from_pretrained(teacher)
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    theirs = pipeline(3, labels, num_inference_steps=7, generator=generators, output_type="pt").images * 2 - 1
    torch.testing.assert_close(model.generate(torch.tensor(labels), seeds, 7), theirs, atol=1e-5, rtol=0)


def test_guidance_extrapolates_from_the_null_class(teacher: Path) -> None:
    model, seeds, labels = load_student(teacher), [1, 2], torch.tensor([3, 8])
    plain = model.generate(labels, seeds, 1)
    torch.testing.assert_close(model.generate(labels, seeds, 1, guidance=1.0), plain)

    model.null_label = None
    with pytest.raises(ValueError, match="unconditional"):
        model.generate(labels, seeds, 1, guidance=2.0)
    model.null_label, model.num_classes = 10, 11
    null = model.generate(torch.tensor([10, 10]), seeds, 1)
    guided = model.generate(labels, seeds, 1, guidance=1.2)
    # One DDIM step is linear in the network's output; where nothing is clipped, so are the images.
    inside = (guided.abs() < 1) & (plain.abs() < 1) & (null.abs() < 1)
    assert inside.double().mean() > 0.3
    torch.testing.assert_close(guided[inside], (null + 1.2 * (plain - null))[inside], atol=1e-4, rtol=0)
    assert (guided - plain).abs().max() > 1e-3


def test_wrong_requests_are_refused_in_words(exported: Any, exported_large: Any) -> None:
    student, labels = load_student(exported.folder("progressive-4")), torch.tensor([1, 2])
    with pytest.raises(ValueError, match=r"made for \[4\] steps, not 2"):
        student.generate(labels, [0, 1], 2)
    with pytest.raises(ValueError, match="built in"):
        student.generate(labels, [0, 1], 4, guidance=2.0)
    with pytest.raises(ValueError, match="0 … 9"):
        student.generate(torch.tensor([1, 10]), [0, 1], 4)
    with pytest.raises(ValueError, match="1 labels for 2 seeds"):
        student.generate(labels[:1], [0, 1], 4)
    with pytest.raises(ValueError, match="one label per image"):
        student.generate(None, [0, 1], 4)
    with pytest.raises(ValueError, match="unconditional"):
        load_student(exported_large.folder("dmd2-1")).generate(labels, [0, 1], 1)
