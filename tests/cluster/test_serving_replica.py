"""A replica without Ray: what it asks its models for, and the PNGs that it makes of their images."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from deploy import replica
from deploy.replica import Replica, encode


class FakeModel:
    """Black images; keeps what it was asked for."""

    def __init__(self, *, text: bool = False, num_classes: int | None = None, batch: int = 8) -> None:
        self.text, self.num_classes, self.batch = text, num_classes, batch
        self.image_size, self.steps = (3, 8, 16), (4, 2)
        self.calls: list[tuple[Any, ...]] = []

    def to(self, device: torch.device) -> "FakeModel":
        return self

    def generate(self, asked: Any, seeds: Sequence[int], steps: int, guidance: float | None = None) -> torch.Tensor:
        self.calls.append((asked.tolist() if isinstance(asked, torch.Tensor) else asked, list(seeds), steps, guidance))
        return torch.full((len(seeds), *self.image_size), -1.0)


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`serving(student, teacher)`: a replica of such models."""

    def start(student: FakeModel, teacher: FakeModel | None = None) -> Replica:
        models = {"file:///student": student, "file:///teacher": teacher}
        monkeypatch.setattr(replica, "local_folder", lambda url: url)
        monkeypatch.setattr(replica, "load_student", models.__getitem__)
        return Replica("file:///student", teacher and "file:///teacher", max_batch=3)

    monkeypatch.setattr(replica, "listen_there_only", lambda: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    return start


async def test_a_text_model_is_given_the_prompts_as_they_are(serving: Any) -> None:
    student, teacher = FakeModel(text=True), FakeModel(text=True)
    served = serving(student, teacher)
    student.calls.clear()
    assert len(await served.generate(False, ["a cat", "7"], [5, 9], 2, None)) == 2
    assert len(await served.generate(True, ["a dog"], [1], 50, 7.5)) == 1
    assert student.calls == [(["a cat", "7"], [5, 9], 2, None)]
    assert teacher.calls == [(["a dog"], [1], 50, 7.5)]


async def test_classes_and_nothing_stay_what_they_are(serving: Any) -> None:
    digits, blobs = FakeModel(num_classes=10), FakeModel()
    await serving(digits).generate(False, [7, 3], [0, 1], 4, None)
    await serving(blobs).generate(False, None, [0], 4, None)
    assert digits.calls[-1] == ([7, 3], [0, 1], 4, None)
    assert blobs.calls[-1] == (None, [0], 4, None)


@pytest.mark.parametrize(
    ("model", "kind"),
    [(FakeModel(text=True), str), (FakeModel(text=True, num_classes=2), str), (FakeModel(num_classes=10), int)],
)
def test_it_is_warm_for_one_image_and_for_a_full_batch(serving: Any, model: FakeModel, kind: type) -> None:
    serving(model)
    assert [(len(asked), seeds, steps) for asked, seeds, steps, _ in model.calls] == [(1, [0], 4), (3, [0, 1, 2], 4)]
    assert all(isinstance(one, kind) and one != "" for asked, *_ in model.calls for one in asked)


@pytest.mark.parametrize("model", [FakeModel(text=True, batch=2), FakeModel(num_classes=10, batch=2)])
async def test_a_large_model_gets_no_more_at_once_than_it_has_room_for(serving: Any, model: FakeModel) -> None:
    served = serving(model)
    assert [seeds for _, seeds, _, _ in model.calls] == [[0], [0, 1]]
    model.calls.clear()
    asked = ["a", "b", "c"] if model.text else [1, 2, 3]
    assert len(await served.generate(False, asked, [7, 8, 9], 4, None)) == 3
    assert model.calls == [(asked[:2], [7, 8], 4, None), (asked[2:], [9], 4, None)]


def test_an_unconditional_model_is_warmed_with_nothing(serving: Any) -> None:
    model = FakeModel()
    serving(model)
    assert [asked for asked, *_ in model.calls] == [None, None]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_a_png_has_the_image_bit_for_bit(channels: int, mode: str) -> None:
    values = torch.randint(256, (2, channels, 8, 16), generator=torch.Generator().manual_seed(0))
    for encoded, wanted in zip(encode(values / 127.5 - 1), values, strict=True):
        image = Image.open(io.BytesIO(base64.b64decode(encoded)))
        assert (image.format, image.mode, image.size) == ("PNG", mode, (16, 8))
        np.testing.assert_array_equal(np.asarray(image).reshape(8, 16, channels), wanted.permute(1, 2, 0).numpy())
