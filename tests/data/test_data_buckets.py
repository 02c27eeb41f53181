"""Images of several sizes: which there are, who comes to which, and that each is seen once a pass all the same."""

import json
import math
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made import captions, pixel_teacher, png, write_rows
from tiny_all import TINY

from service.errors import DataInvalid, TeacherInvalid
from service.methods import METHODS
from service.spec import JobSpec
from workers import finish, stages, trainer
from workers.artifact import load_student
from workers.data.buckets import nearest, sizes
from workers.data.chunks import Chunks
from workers.data.dataset import look
from workers.data.encode import encode
from workers.data.pixels import pixels
from workers.data.source import Batch, StoredSource
from workers.models.backbone import Backbone
from workers.pipeline_model import PipelineModel
from workers.randomness import BatchRng
from workers.run import FolderHost
from workers.state import read

SDXL = {
    *((512, 2048), (512, 1984), (512, 1920), (512, 1856), (576, 1792), (576, 1728), (576, 1664), (640, 1600)),
    *((640, 1536), (704, 1472), (704, 1408), (704, 1344), (768, 1344), (768, 1280), (832, 1216), (832, 1152)),
    *((896, 1152), (896, 1088), (960, 1088), (960, 1024), (1024, 1024)),
}
"""The sizes of arXiv:2307.01952, appendix I, that are not taller than wide."""
WIDE, TALL, SQUARE = (12, 20), (20, 12), (16, 16)
"""Height and width of the three sizes of the tiny SDXL."""
SHAPES = [WIDE, SQUARE, WIDE, TALL, WIDE, SQUARE, TALL]
COUNT, BATCH, STEPS, EVERY = len(SHAPES), 2, 11, 4


def test_sizes_are_those_of_sdxl_up_to_two_to_one() -> None:
    found = sizes((1024, 1024), 8)
    assert {tuple(sorted(size)) for size in found} < SDXL
    assert found[0] == (1024, 1024)
    assert len(found) == len(set(found)) == 13
    assert max(found) == (1408, 704)
    assert sizes((512, 512), 64) == [(512, 512), (448, 576), (576, 448), (384, 640), (640, 384)]
    assert sizes((16, 16), 4) == [SQUARE, WIDE, TALL]


@given(st.integers(1, 64), st.integers(1, 64), st.sampled_from([1, 8, 32, 64]))
def test_no_size_is_larger_than_the_teachers_own_and_all_fit_its_network(
    height: int, width: int, multiple: int
) -> None:
    own = (height * multiple, width * multiple)
    found = sizes(own, multiple)
    assert found[0] == own
    for one in found[1:]:
        assert math.prod(one) <= math.prod(own)
        assert max(one) <= 2 * min(one)
        assert one[0] % multiple == one[1] % multiple == 0
        assert one[::-1] in found


def test_an_image_comes_to_the_size_of_nearest_proportions() -> None:
    found = sizes((1024, 1024), 64)
    assert nearest((500, 500), found) == (1024, 1024)
    assert nearest((2000, 3000), found) == (832, 1216)
    assert nearest((3000, 2000), found) == (1216, 832)
    assert nearest((100, 1000), found) == (704, 1408)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.integers(1, 3), st.sampled_from([1, 2, 4]))
def test_a_batch_is_of_one_group_and_each_pass_sees_each_sample_once(groups: list[int], each: int, shares: int) -> None:
    size, told = each * shares, tuple(groups)
    starts = [sum(groups[:i]) for i in range(len(groups))]
    passes = [sum(-(-number * n // size) for n in groups) for number in range(4)]
    seen: list[list[int]] = [[] for _ in groups]
    for step in range(passes[-1]):
        whole = BatchRng(5, 1, step, 0, batch_size=size).places(told)
        parts = [BatchRng(5, 1, step, 0, batch_size=size, share=i, shares=shares).places(told) for i in range(shares)]
        assert torch.equal(torch.cat(parts), whole)
        (group,) = {max(i for i, start in enumerate(starts) if start <= place) for place in whole.tolist()}
        seen[group] += whole.tolist()
        if step + 1 in passes:
            times = Counter(chain.from_iterable(seen))
            assert min(times[place] for place in range(sum(groups))) >= passes.index(step + 1)
            assert all(len(one) < passes.index(step + 1) * n + size for one, n in zip(seen, groups, strict=True))
    for places, start, n in zip(seen, starts, groups, strict=True):
        for first in range(0, 3 * n, n):
            assert sorted(places[first : first + n]) == list(range(start, start + n))


def test_groups_take_turns_in_an_order_of_their_own_each_pass() -> None:
    def turns(step: int) -> tuple[bool, ...]:
        return tuple(bool(BatchRng(0, 0, s, 0, batch_size=2).places((16, 16))[0] < 16) for s in range(step, step + 16))

    first, second = turns(0), turns(16)
    assert sum(first) == sum(second) == 8
    assert first != second
    assert first not in ((True,) * 8 + (False,) * 8, (False,) * 8 + (True,) * 8)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdxl")
    TINY["sdxl"].make().save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of three proportions, each with a caption of its own."""
    folder = tmp_path_factory.mktemp("data")
    for i, (height, width) in enumerate(SHAPES):
        (folder / f"{i:03}.png").write_bytes(png(i, 2 * width, 2 * height))
    told = captions(COUNT)
    write_rows(folder / "metadata.jsonl", [{"file_name": f"{i:03}.png", "text": told[i]} for i in range(COUNT)])
    return folder


def test_an_image_is_encoded_at_its_size_and_stays_with_its_caption(
    teacher: Path, folder: Path, tmp_path: Path
) -> None:
    model = load_student(teacher)
    assert isinstance(model, PipelineModel)
    chunks = encode(look(folder), model, FolderHost(tmp_path, torch.device("cpu")), True, "teacher", buckets=True)
    assert isinstance(chunks, Chunks)
    assert chunks.sizes == {"12x20": 2, "16x16": 2, "20x12": 3}  # as one says it: width by height
    assert sorted(chunks.captions) == captions(COUNT)
    for place, caption in enumerate(chunks.captions):
        i = captions(COUNT).index(caption)
        rows = chunks.rows(torch.tensor([place]), chunks.names)
        image = pixels((folder / f"{i:03}.png").read_bytes(), 3, [SHAPES[i]])
        assert rows["images"].shape[-2:] == (SHAPES[i][0] // 2, SHAPES[i][1] // 2)
        torch.testing.assert_close(rows["images"], model.encode(image[None]), atol=1e-5, rtol=0)
        for name, row in model.encode_prompts([caption]).items():
            torch.testing.assert_close(rows[f"row.{name}"], row, atol=1e-5, rtol=0)


def test_workers_draw_together_what_one_draws(teacher: Path, folder: Path, tmp_path: Path) -> None:
    host = FolderHost(tmp_path, torch.device("cpu"))
    chunks = encode(look(folder), load_student(teacher), host, True, "teacher", buckets=True)
    assert isinstance(chunks, Chunks)
    source = StoredSource(chunks, captions=True)
    for step in range(8):
        whole = source.batch(BatchRng(3, 0, step, batch_size=4))
        for workers in (2, 4):
            parts = [source.batch(BatchRng(3, 0, step, batch_size=4, share=i, shares=workers)) for i in range(workers)]
            assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
            assert torch.equal(torch.cat([part.labels for part in parts if part.labels is not None]), whole.labels)


def test_a_teacher_of_one_size_and_a_job_without_images_are_refused(
    teacher: Path, folder: Path, tmp_path: Path
) -> None:
    host = FolderHost(tmp_path / "run", torch.device("cpu"))
    grey = load_student(pixel_teacher(tmp_path / "grey", COUNT))
    (folder_of_classes := tmp_path / "classes").mkdir()
    (folder_of_classes / "0.png").write_bytes(png(0))
    write_rows(folder_of_classes / "metadata.jsonl", [{"file_name": "0.png", "label": "0"}])
    with pytest.raises(TeacherInvalid, match=r"images of 8 by 8 pixels alone: set aspect_buckets to false"):
        encode(look(folder_of_classes), grey, host, True, "teacher", buckets=True)
    spec = job() | {"method": {"kind": "dmd2", "iterations": 1, "steps": 1, "batch_size": 2}}
    with pytest.raises(DataInvalid, match="set it to false"):
        stages.run(JobSpec.model_validate(spec), teacher, host, look(folder))


WITH_IMAGES: list[dict[str, Any]] = [
    *(
        {"kind": kind}
        for kind, m in METHODS.items()
        if m(kind=kind).data() == "images" and not m(kind=kind).own_network()
    ),
    {"kind": "dmd2", "gan_weight": 0.1, "r1_weight": 0.1},
    {"kind": "ladd", "real": "images", "r1_weight": 0.1},
    {"kind": "pcm", "gan_weight": 0.1},
]


@pytest.mark.parametrize("told", WITH_IMAGES, ids=lambda told: "-".join(map(str, told.values())))
def test_methods_work_at_the_size_of_the_batch(told: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """All that any network is asked about is as large as the images."""
    asked: set[tuple[int, ...]] = set()
    raw = Backbone.raw

    def watched(self: Backbone, x: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        asked.add(tuple(x.shape[1:]))
        return raw(self, x, *rest, **named)

    monkeypatch.setattr(Backbone, "raw", watched)
    tiny = TINY["stable-diffusion-1"]
    denoiser = tiny.family.of(tiny.make(), ["a cat", "a dog"]).eval().requires_grad_(False)
    settings: Any = METHODS[told["kind"]](**{"batch_size": 4} | told)
    method = stages.build(settings, denoiser)
    shape = (4, 6, 10)
    for segment in {0, len(method.segments()) - 1}:
        for role in method.trainable:
            rng = BatchRng(0, segment, batch_size=4)
            batch = Batch(rng.normal(shape), torch.tensor([0, 1, 0, 1]))
            assert method.loss(role, batch, segment, rng).loss.isfinite()
    assert asked == {shape}


def job() -> dict[str, Any]:
    return {
        "teacher": "sdxl",
        "aspect_buckets": True,
        "method": {"kind": "lcm", "iterations": STEPS, "batch_size": BATCH, "guidance_scale": 2.0, "skip": 200},
        "checkpoint_every": EVERY,
        "preview_every": 1000,
        "evaluation": {"teacher_steps": 1},
    }


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


def test_a_job_killed_within_a_pass_ends_as_an_unbroken_one(
    teacher: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four batches of sizes with 3, 2 and 2 images make a pass, then two of one of them and one of each other."""
    seen: list[tuple[tuple[int, ...], list[int]]] = []
    drawn = StoredSource.batch

    def watched(self: StoredSource, rng: BatchRng) -> Batch:
        batch = drawn(self, rng)
        assert batch.labels is not None
        seen.append((tuple(batch.images.shape[-2:]), batch.labels.tolist()))
        return batch

    monkeypatch.setattr(StoredSource, "batch", watched)
    monkeypatch.setattr(trainer, "LARGEST_SAMPLE", math.inf)  # random weights make samples of any size
    monkeypatch.setattr(finish, "export", lambda *_, **__: None)
    spec = JobSpec.model_validate(job())
    stages.run(spec, teacher, FolderHost(tmp_path / "whole", torch.device("cpu")), look(folder))
    whole = list(seen)
    assert len(whole) == STEPS
    assert {size for size, _ in whole} == {(height // 2, width // 2) for height, width in SHAPES}
    times = Counter(chain.from_iterable(labels for _, labels in whole))
    assert sorted(times) == list(range(COUNT))
    assert max(times.values()) - min(times.values()) <= 1

    seen.clear()
    with pytest.raises(Killed):
        stages.run(spec, teacher, Dying(tmp_path / "killed", EVERY + 2), look(folder))
    del seen[EVERY:]  # what came after the checkpoint is lost, and done again
    stages.run(spec, teacher, Dying(tmp_path / "killed"), look(folder))
    assert seen == whole
    ends = [read(tmp_path / run / "checkpoints" / f"{STEPS:08d}") for run in ("whole", "killed")]
    assert all(torch.equal(tensor, ends[1].live[name]) for name, tensor in ends[0].live.items())
    weights = [end.finished[0].weights for end in ends]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert all(math.isfinite(row["loss"]) for row in rows)
