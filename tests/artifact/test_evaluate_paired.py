"""Teacher and student on the same prompts and seeds; images looked at as they come; the whole way of a text teacher."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_all import TINY
from tiny_features import save_clip
from torch import Tensor
from torch.nn.functional import interpolate

from service.errors import DataInvalid
from service.observations import Figures
from service.spec import JobSpec
from workers import finish, stages, trainer
from workers.artifact import load_student
from workers.evaluate import evaluator as module
from workers.evaluate.evaluator import Eye, draw, small_pixels, teacher_evaluator
from workers.evaluate.features import Clip
from workers.evaluate.paired import PAIRS, Paired, questions
from workers.run import FolderHost

PROMPTS = ["a cat", "two dogs", "a boat at sea", "the sun"]
HELD_OUT = ["a bird", "an owl in a tree"]
NONE = Figures(
    frechet=0, kernel=0, accuracy=None, precision=0, recall=0, diversity=0, nearest_neighbour_ratio=0, ms_per_image=0
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher and a model that gives features."""
    folder = tmp_path_factory.mktemp("store")
    save_clip(folder / "models" / "clip")
    TINY["stable-diffusion-1"].make().save_pretrained(folder / "teacher", safe_serialization=True)
    return folder


def coloured(seeds: Sequence[int]) -> Tensor:
    """An image [3, 16, 16] of four quarters for each seed."""
    quarters = [torch.rand(3, 2, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1 for seed in seeds]
    return interpolate(torch.stack(quarters), size=(16, 16))


def job(**more: Any) -> JobSpec:
    return JobSpec.model_validate({"teacher": "t", "method": {"kind": "dmd2"}, **more})


def test_it_is_asked_for_held_out_prompts_else_the_jobs_else_classes() -> None:
    asked, texts = questions(HELD_OUT, PROMPTS, 4)
    assert asked == texts
    assert len(texts) == PAIRS
    assert texts[:3] == ("a bird", "an owl in a tree", "a bird")
    asked, texts = questions(None, PROMPTS, 3)
    assert isinstance(asked, Tensor)
    assert asked.bincount().tolist() == [34, 34, 34]
    assert texts[:4] == ("a cat", "two dogs", "a boat at sea", "a cat")
    asked, texts = questions(None, (), 1000)
    assert isinstance(asked, Tensor)
    assert (len(asked), texts) == (1000, ())
    assert questions(None, (), None) == (None, ())


def test_the_teacher_agrees_with_itself_exactly_and_a_student_the_less_the_further_it_is(store: Path) -> None:
    asked, texts = questions(None, PROMPTS, 4)

    def sampler(offset: float) -> module.Generate:
        return lambda _, seeds, steps: (coloured(seeds) + offset).clamp(-1, 1)

    for features in (None, Clip(store / "models" / "clip")):
        paired = Paired.of(sampler(0.0), 8, asked, texts, features)
        found = [paired.complete(NONE, sampler(offset), 1).agreement for offset in (0.0, 0.2, 0.5)]
        assert found[0] == 0
        assert found[1] is not None
        assert found[2] is not None
        assert 0 < found[1] < found[2]
    shifted = Paired.of(lambda _, seeds, steps: torch.zeros(len(seeds), 1, 8, 8), 8, None, ())
    assert shifted.complete(NONE, lambda _, seeds, steps: torch.full((len(seeds), 1, 8, 8), 0.25), 1) == (
        NONE.model_copy(update={"agreement": 0.25})
    )


def test_other_seeds_or_prompts_than_the_teachers_are_noticed() -> None:
    asked, texts = questions(None, PROMPTS, 4)
    paired = Paired.of(lambda _, seeds, steps: coloured(seeds), 8, asked, texts)
    elsewhere = paired.complete(NONE, lambda _, seeds, steps: coloured([seed + 1 for seed in seeds]), 8)
    assert elsewhere.agreement is not None
    assert elsewhere.agreement > 0.3
    other = Paired.of(lambda _, seeds, steps: coloured(seeds), 8, *questions(None, PROMPTS[::-1], 4))
    assert other.identity != paired.identity


def test_shuffled_prompts_lower_the_clip_score(store: Path) -> None:
    """A sampler that answers each prompt with the image, of many, that shows it best."""
    clip = Clip(store / "models" / "clip")
    candidates = coloured(range(400))
    normal = torch.nn.functional.normalize
    cosines = normal(clip.text(PROMPTS)) @ normal(clip(candidates)).T
    best = dict(zip(PROMPTS, (cosines - cosines.mean(0)).argmax(1).tolist(), strict=True))
    asked, texts = questions(PROMPTS, PROMPTS, 4)

    def rigged(asked: Any, seeds: list[int], steps: int) -> Tensor:
        return torch.stack([candidates[best[prompt]] for prompt in asked])

    paired = Paired.of(rigged, 1, asked, texts, clip)
    shuffled = dataclasses.replace(paired, texts=texts[1:] + texts[:1])
    right, wrong = (one.complete(NONE, rigged, 1).clip_score for one in (paired, shuffled))
    assert right is not None
    assert wrong is not None
    assert right > wrong + 5


def test_images_are_looked_at_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    side, counts = 64, []
    monkeypatch.setattr(module, "LOOKED_AT", 3 * side * side * 20)

    def generate(asked: Any, seeds: list[int], steps: int) -> Tensor:
        return interpolate(coloured(seeds), size=(side, side))

    def features(images: Tensor) -> Tensor:
        counts.append(len(images))
        return small_pixels(images)

    seen = Eye("counted", features).look(draw(generate, None, 1, 100, 0, batch=8))
    assert counts == [24, 24, 24, 24, 4]
    whole = torch.cat(list(draw(generate, None, 1, 100, 0)))
    assert torch.equal(seen.features, small_pixels(whole))
    assert seen.thumbnails.shape == (100, 3, 32, 32)
    torch.testing.assert_close(interpolate(seen.thumbnails, size=(side, side)), whole)
    assert seen.classes is None


def test_the_teachers_own_images_are_drawn_once(store: Path) -> None:
    kept: dict[str, dict[str, Tensor]] = {}
    drawn = []

    def generate(asked: Any, seeds: list[int], steps: int) -> Tensor:
        drawn.append(len(seeds))
        return coloured(seeds)

    def keep(key: str, make: Any) -> dict[str, Tensor]:
        if key not in kept:
            kept[key] = make()
        return kept[key]

    evaluators = [teacher_evaluator(generate, 4, 2, 100, keep=keep) for _ in range(2)]
    assert sum(drawn) == 200
    assert evaluators[0].figures(generate, 1, 100).frechet == evaluators[1].figures(generate, 1, 100).frechet
    in_clip = teacher_evaluator(generate, 4, 2, 100, features=Clip(store / "models" / "clip"), keep=keep)
    assert len(kept) == 2
    assert in_clip.identity.startswith(f"{evaluators[0].identity}-clip-")


def test_a_text_teachers_student_is_judged_in_clips_features_on_held_out_prompts(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "LARGEST_SAMPLE", math.inf)  # random weights make samples of any size
    monkeypatch.chdir(store)
    spec = job(
        prompts=PROMPTS,
        method={"kind": "dmd2", "iterations": 2, "steps": 2, "batch_size": 2, "fake_updates": 1, "guidance_scale": 2.0},
        evaluation={"samples": 100, "teacher_steps": 3, "features": "models/clip", "prompts": HELD_OUT},
    )
    stages.run(spec, store / "teacher", FolderHost(tmp_path, torch.device("cpu")))
    folder = next((tmp_path / "students").glob("dmd2-*.json")).with_suffix("")
    record = json.loads(folder.with_suffix(".json").read_text())
    student, reference = record["figures"]["2"], record["teacher_figures"]["3"]
    assert reference["agreement"] == 0
    assert 0 < student["agreement"] < 2
    for found in (student, reference):
        assert 0 <= found["clip_score"] <= 100
        assert found["cmmd"] is not None
    card = (folder / "README.md").read_text()
    assert "| CMMD ↓ | CLIP score ↑ | agreement ↓ |" in card
    assert f"| teacher, 3 | {reference['frechet']:.2f} " in card
    assert "accuracy" not in card
    evaluation = json.loads((folder / "manifest.json").read_text())["evaluation"]
    assert evaluation["evaluator"].startswith("teacher-v2-3-clip-")
    assert load_student(folder).text


def test_features_that_do_not_open_stop_a_job_before_its_first_step(store: Path, tmp_path: Path) -> None:
    spec = job(prompts=PROMPTS, evaluation={"features": "models/none"})
    with pytest.raises(DataInvalid, match="there is no folder models/none; put the model there"):
        stages.run(spec, store / "teacher", FolderHost(tmp_path, torch.device("cpu")))
    assert not (tmp_path / "metrics.jsonl").exists()
    assert finish.opened_features(job(), FolderHost(tmp_path, torch.device("cpu"))) is None


@pytest.mark.parametrize("path", ["/etc", "../x", "a/../../x", "jobs/job_1/students", "s3://x/y", ""])
def test_features_are_named_by_a_path_inside_the_store(path: str) -> None:
    with pytest.raises(ValueError, match="features"):
        job(evaluation={"features": path})
