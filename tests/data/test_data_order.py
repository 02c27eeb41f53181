"""A pass over the data sees each sample once, on any number of workers, and when the job is killed on the way."""

import math
from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made import captions, image_folder, pixel_teacher, png, prompt_file, table, write_tar
from tiny_all import TINY

from service.spec import JobSpec
from workers import finish, stages, trainer
from workers.artifact import load_student
from workers.data.chunks import Chunks
from workers.data.dataset import look
from workers.data.source import Batch, StoredSource
from workers.pipeline_model import PipelineModel
from workers.randomness import BatchRng
from workers.run import FolderHost
from workers.state import read

COUNT, BATCH, STEPS, EVERY = 7, 4, 10, 4


@given(st.integers(1, 40), st.integers(1, 4), st.integers(1, 4), st.integers(0, 3))
def test_every_pass_sees_each_item_once_on_any_number_of_workers(items: int, each: int, shares: int, turn: int) -> None:
    size = each * shares
    seen: list[int] = []
    for step in range(-(-3 * items // size)):
        whole = BatchRng(5, 1, step, turn, batch_size=size).places((items,))
        parts = [
            BatchRng(5, 1, step, turn, batch_size=size, share=i, shares=shares).places((items,)) for i in range(shares)
        ]
        assert torch.equal(torch.cat(parts), whole)
        seen += whole.tolist()
    passes = [seen[start : start + items] for start in range(0, 3 * items, items)]
    assert all(sorted(one) == list(range(items)) for one in passes)
    if items > 12:
        assert passes[0] != passes[1], "each in an order of its own"


def test_the_order_is_a_function_of_seed_stage_and_turn_alone() -> None:
    def first(*key: int) -> list[int]:
        return BatchRng(*key, batch_size=32).places((1000,)).tolist()

    assert first(0, 0, 0, 0) == first(0, 0, 0, 0)
    assert len({tuple(first(*key)) for key in [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 0, 1)]}) == 4
    assert not set(first(0, 0, 0, 0)) & set(first(0, 0, 1, 0)), "a step later, the same order goes on"


def webdataset(folder: Path) -> Path:
    for tar, numbers in enumerate([range(4), range(4, COUNT)]):
        members = [
            (f"{i}{suffix}", content) for i in numbers for suffix, content in ((".png", png(i)), (".cls", b"%d" % i))
        ]
        write_tar(folder / f"{tar}.tar", members)
    return folder


def huggingface(folder: Path) -> Path:
    table(COUNT).add_column("label", list(range(COUNT))).save_to_disk(str(folder))
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of grey images and as many classes as there are samples."""
    return pixel_teacher(tmp_path_factory.mktemp("teacher"), COUNT)


class Killed(Exception):
    pass


class Dying(FolderHost):
    """Dies when a step is reported, as `kill -9` would have it: nothing is saved."""

    def __init__(self, folder: Path, dies_at: int | None = None) -> None:
        super().__init__(folder, torch.device("cpu"))
        self.dies_at = dies_at

    def metrics(self, step: int, stage: int, values: dict[str, float]) -> None:
        super().metrics(step, stage, values)
        if step == self.dies_at:
            raise Killed


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The samples of each batch that was drawn, by their classes."""
    batches: list[list[int]] = []
    drawn = StoredSource.batch

    def watched(self: StoredSource, rng: BatchRng) -> Batch:
        batch = drawn(self, rng)
        assert batch.labels is not None
        grey = ((batch.images[:, 0, 0, 0] + 1) * 127.5 / 3).round().long()
        assert torch.equal(grey, batch.labels), "an image and its class stay together"
        batches.append(batch.labels.tolist())
        return batch

    monkeypatch.setattr(StoredSource, "batch", watched)
    monkeypatch.setattr(finish, "export", lambda *_, **__: None)
    return batches


@pytest.mark.parametrize("make", [webdataset, huggingface])
def test_a_job_killed_within_a_pass_sees_each_sample_as_often_as_an_unbroken_one(
    make: Callable[[Path], Path], teacher: Path, tmp_path: Path, seen: list[list[int]]
) -> None:
    datasets.disable_progress_bars()
    spec = JobSpec.model_validate(
        {
            "teacher": "tiny",
            "method": {"kind": "consistency", "iterations": STEPS, "batch_size": BATCH},
            "checkpoint_every": EVERY,
            "preview_every": 1000,
            "evaluation": {"teacher_steps": 1},
        }
    )
    folder = make(tmp_path / "data")
    stages.run(spec, teacher, FolderHost(tmp_path / "whole", torch.device("cpu")), look(folder))
    whole = list(seen)
    times = Counter(chain.from_iterable(whole))
    assert len(whole) == STEPS
    assert sorted(times) == list(range(COUNT))
    assert max(times.values()) - min(times.values()) == 1

    seen.clear()
    with pytest.raises(Killed):
        stages.run(spec, teacher, Dying(tmp_path / "killed", EVERY + 2), look(folder))
    del seen[EVERY:]  # what came after the checkpoint is lost, and done again
    stages.run(spec, teacher, Dying(tmp_path / "killed"), look(folder))
    assert seen == whole
    ends = [read(tmp_path / run / "checkpoints" / f"{STEPS:08d}") for run in ("whole", "killed")]
    assert all(torch.equal(tensor, ends[1].live[name]) for name, tensor in ends[0].live.items())
    assert all(torch.equal(w, ends[1].finished[0].weights[n]) for n, w in ends[0].finished[0].weights.items())


def test_captions_and_images_of_ones_own_make_a_student_of_sdxl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "LARGEST_SAMPLE", math.inf)  # random weights make samples of any size
    TINY["sdxl"].make().save_pretrained(tmp_path / "teacher", safe_serialization=True)
    folder = image_folder(tmp_path / "data", 5, captions(5))
    (folder / "003.png").write_bytes(b"broken")
    spec = JobSpec.model_validate(
        {
            "teacher": "sdxl",
            "method": {"kind": "consistency", "iterations": 3, "batch_size": 2, "guidance_scale": 3.0},
            "preview_every": 3,
            "checkpoint_every": 3,
            "evaluation": {"samples": 100, "teacher_steps": 1},
        }
    )
    host = FolderHost(tmp_path / "run", torch.device("cpu"))
    stages.run(spec, tmp_path / "teacher", host, look(folder))
    (student,) = (path for path in (tmp_path / "run" / "students").iterdir() if path.is_dir())
    opened: Any = load_student(student)
    assert isinstance(opened, PipelineModel)
    assert opened.generate(["a bird"], [7], opened.steps[0]).isfinite().all()
    assert "learnt from 4 prompts" in (student / "README.md").read_text()


def test_prompts_of_a_file_are_all_asked_of_a_teacher_that_needs_no_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "LARGEST_SAMPLE", math.inf)
    monkeypatch.setattr(finish, "export", lambda teacher, *_, **__: asked.append(teacher.prompts))
    asked: list[Any] = []
    fetched: set[int] = set()
    rows = Chunks.rows

    def watched(self: Chunks, places: torch.Tensor, names: Any) -> dict[str, torch.Tensor]:
        fetched.update(places.tolist())
        return rows(self, places, names)

    monkeypatch.setattr(Chunks, "rows", watched)
    TINY["sdxl"].make().save_pretrained(tmp_path / "teacher", safe_serialization=True)
    told = captions(12)
    method = {"kind": "dmd2", "iterations": 6, "steps": 1, "batch_size": 4, "fake_updates": 1, "guidance_scale": 2.0}
    spec = {"teacher": "sdxl", "method": method, "preview_every": 1000, "evaluation": {"teacher_steps": 1}}
    host = FolderHost(tmp_path / "run", torch.device("cpu"))
    stages.run(JobSpec.model_validate(spec), tmp_path / "teacher", host, look(prompt_file(tmp_path / "p.txt", told)))
    assert fetched == set(range(12))
    assert asked == [tuple(told)]
