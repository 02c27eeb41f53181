"""A student's folder gives the trained network's images, in Fewstep and in plain diffusers."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from service.observations import Figures, StudentExported
from service.spec import JobSpec
from workers import artifact, finish
from workers.diffusion.sampler import SamplerSpec, sample, seeded

PLAIN_DIFFUSERS = """
import json, os, re, sys
import torch
from diffusers import ConsistencyModelPipeline

out = {}
for request in json.load(sys.stdin):
    pipeline = ConsistencyModelPipeline.from_pretrained(request["folder"], use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    for steps in request["steps"]:
        images = pipeline(
            batch_size=len(request["seeds"]),
            class_labels=request["labels"],
            num_inference_steps=steps,
            generator=[torch.Generator().manual_seed(seed) for seed in request["seeds"]],
            output_type="pt",
        ).images * 2 - 1
        out[request["folder"] + f":{steps}"] = images.tolist()
    os.chdir(request["folder"])
    exec(request["readme"], {})
ours = {"workers", "service", "deploy", "api"}
assert not ours & {name.split(".")[0] for name in sys.modules}, "only diffusers and torch may be needed"
print(json.dumps(out))
"""

SEEDS, LABELS = [3, 2**40 + 1, 77, 0, 5], [0, 9, 4, 4, 1]


def readme_code(folder: Path) -> str:
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 1
    return blocks[0]


def test_plain_diffusers_gives_the_trained_networks_images_and_the_readme_runs(
    exported: Any, exported_large: Any, tmp_path: Path
) -> None:
    requests, networks = [], {}
    for source, labels in ((exported, LABELS), (exported_large, None)):
        for label, sampler in source.samplers.items():
            folder = shutil.copytree(source.folder(label), tmp_path / label)
            networks[str(folder)] = (source.networks[label], sampler, labels)
            code = readme_code(folder)
            requests.append(
                {"folder": str(folder), "steps": sampler.steps, "seeds": SEEDS, "labels": labels, "readme": code}
            )
    ran = subprocess.run(
        [sys.executable, "-c", PLAIN_DIFFUSERS],
        input=json.dumps(requests),
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    images = json.loads(ran.stdout.splitlines()[-1])
    assert len(images) == 8
    for name, theirs in images.items():
        folder, steps = name.rsplit(":", 1)
        network, sampler, labels = networks[folder]
        label_tensor = None if labels is None else torch.tensor(labels)
        trained = sample(network, sampler, int(steps), label_tensor, seeded(SEEDS)).clamp(-1, 1)
        assert trained.std() > 0.1
        assert (trained - torch.tensor(theirs)).abs().max() <= 1e-4, name
        assert (Path(folder) / "image.png").stat().st_size > 0  # what the README's code saves
        ours = artifact.open_model(Path(folder), sampler.steps).generate(label_tensor, SEEDS, int(steps))
        assert (ours - torch.tensor(theirs)).abs().max() <= 1e-5


def test_a_batch_of_mixed_requests_equals_the_requests_one_by_one(exported: Any) -> None:
    student = artifact.load_student(exported.folder("consistency-1"))
    labels = torch.tensor(LABELS)
    together = student.generate(labels, SEEDS, 4)
    alone = torch.cat([student.generate(labels[i : i + 1], [seed], 4) for i, seed in enumerate(SEEDS)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert not torch.allclose(together[2], together[3], atol=1e-2), "one label, two seeds: two images"


def test_the_record_is_what_the_control_plane_takes(exported: Any, exported_large: Any) -> None:
    for source in (exported, exported_large):
        for label, record in source.host.records.items():
            seen = StudentExported(seq=1, at=0.0, path=f"jobs/{label}", grid=f"jobs/{label}.png", **record)
            folder = source.folder(label)
            assert seen.sha256 == artifact.file_sha256(folder / "manifest.json")
            assert seen.bytes == sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            assert set(seen.figures) == set(source.samplers[label].steps)
            assert set(seen.teacher_figures) == {*seen.steps, 5 if source is exported else 3}
            assert seen.figures[seen.steps[0]].ms_per_image > 0
            assert json.dumps(record)
    assert exported.host.records["progressive-4"]["image_size"] == [1, 8, 8]
    assert exported.host.records["progressive-4"]["num_classes"] == 10
    assert exported_large.host.records["dmd2-1"]["num_classes"] is None


def test_the_manifest_tells_the_lineage(exported: Any, teacher: Path) -> None:
    manifest = artifact.read_manifest(exported.folder("consistency-1"))
    assert manifest is not None
    assert manifest["sampler"] == {"kind": "renoise", "steps": [1, 2, 4]}
    assert manifest["lineage"]["teacher_sha256"] == artifact.folder_sha256(teacher)
    assert JobSpec.model_validate(manifest["spec"]).teacher == "tiny"
    assert set(manifest["files"]) == {
        "README.md",
        "grid.png",
        "model_index.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    }


def test_the_model_card_has_front_matter_and_both_sides_figures(exported: Any) -> None:
    card = (exported.folder("consistency-1") / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "diffusers"
    for row in ("| teacher, 5 |", "| teacher, 1 |", "| **student, 4** |", "| **student, 2** |", "| **student, 1** |"):
        assert row in body
    assert "in 1, 2 or 4 steps" in body


def test_a_teachers_figures_are_taken_once_for_all_students(exported: Any) -> None:
    made = exported.host.made
    assert len(made) == len(set(made)) == 4  # at 5, 4, 2 and 1 steps, whichever student asks
    assert exported.host.phases == ["evaluating", "exporting"] * len(exported.samplers)


def test_what_another_machine_took_of_a_teacher_is_not_taken_for_ones_own(
    tmp_path: Path, exported: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, found = type(exported.host)(tmp_path), exported.host.records["progressive-1"]["teacher_figures"][1]
    times = iter((7.0, 9.0))

    def kept() -> float:
        taken = lambda *_: Figures.model_validate(found | {"ms_per_image": next(times)})  # noqa: E731
        judge: Any = SimpleNamespace(identity="eye", figures=taken, complete=lambda figures, *_: figures)
        return finish.kept_figures(host, judge, judge, lambda *_: torch.zeros(0), 1, 100, "teacher").ms_per_image

    assert (kept(), kept()) == (7.0, 7.0)
    monkeypatch.setattr(finish, "device_name", lambda device: "another GPU")
    assert kept() == 9.0


def test_an_unknown_teacher_is_judged_against_its_own_samples(exported_large: Any) -> None:
    manifest = artifact.read_manifest(exported_large.folder("dmd2-1"))
    assert manifest is not None
    assert manifest["evaluation"]["evaluator"].startswith("teacher-")
    record = exported_large.host.records["dmd2-1"]
    assert record["figures"][1]["accuracy"] is None
    reference = record["teacher_figures"][3]
    assert reference["frechet"] < record["figures"][1]["frechet"], "the teacher is nearer to itself"


@pytest.mark.parametrize("wrong", [{"timestep_spacing": "leading"}, {"prediction_type": "epsilon"}])
def test_a_folder_that_gives_other_images_is_not_exported(
    exported: Any, teacher: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str], tmp_path: Path
) -> None:
    right = SamplerSpec.scheduler_config

    def planted(self: SamplerSpec, config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        name, made = right(self, config)
        return name, made | wrong

    monkeypatch.setattr(SamplerSpec, "scheduler_config", planted)
    network, host = exported.networks["progressive-4"], type(exported.host)(tmp_path)
    spec = JobSpec.model_validate({"teacher": "tiny", "method": {"kind": "progressive"}})
    sampler, model = SamplerSpec("ddim", (4,)), artifact.load_student(teacher)
    with pytest.raises(finish.ExportMismatch, match="at 4 steps"):
        finish.export(model, lambda: network, sampler, "progressive", "wrong", 0, spec, host, 1.0)
    assert host.records == {}


def test_the_guidance_that_a_student_learnt_is_the_last_that_a_stage_set() -> None:
    def chain(*scales: float) -> JobSpec:
        return JobSpec.model_validate(
            {"teacher": "t", "stages": [{"method": {"kind": "dmd2", "guidance_scale": g}} for g in scales]}
        )

    assert finish.learnt_guidance(chain(1.0), 0) == 1.0
    assert finish.learnt_guidance(chain(1.5, 1.0), 1) == 1.5
    assert finish.learnt_guidance(chain(1.0, 2.0), 0) == 1.0
    assert finish.learnt_guidance(chain(1.5, 2.0), 1) == 2.0
