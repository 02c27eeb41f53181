"""Features are those of the models as transformers runs them; folders that hold none are refused with a sentence."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_features import save_clip, save_dino
from torch.nn.functional import interpolate
from transformers import AutoImageProcessor, CLIPModel, CLIPProcessor, Dinov2Model

from service.errors import DataInvalid
from workers.evaluate import figures
from workers.evaluate.evaluator import digits_evaluator
from workers.evaluate.features import Clip, Dino, Inception, open_features
from workers.evaluate.inception import Average, inception
from workers.grid import to_pil

PROMPTS = ["a cat", "two dogs", "a boat at sea", "the sun"]


def images(count: int, channels: int = 3, side: int = 24) -> torch.Tensor:
    """Four quarters each, of random colours."""
    quarters = torch.rand(count, channels, 2, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return interpolate(quarters, size=(side, side + 8))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_dino(tmp_path_factory.mktemp("dino"))


@pytest.fixture(scope="module")
def inception_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inception")
    (folder / "config.json").write_text(json.dumps({"model_type": "inception_v3_fid"}))
    torch.manual_seed(8)
    network = inception()
    save_file(network.state_dict() | {"fc.weight": torch.zeros(1008, 2048)}, folder / "model.safetensors")
    return folder


def test_clip_scores_are_those_of_plain_transformers(clip: Path) -> None:
    ours, asked = open_features(clip, "clip"), images(4)
    assert isinstance(ours, Clip)
    model, processor = CLIPModel.from_pretrained(clip), CLIPProcessor.from_pretrained(clip)
    told = processor(
        text=PROMPTS, images=[to_pil(x) for x in asked], return_tensors="pt", padding="max_length", max_length=12
    )
    with torch.no_grad():
        out = model(**told)
    cosines = (out.image_embeds * out.text_embeds).sum(1)
    assert cosines.min() < -0.01 < 0.01 < cosines.max(), "or the clamp would not be tried"
    expected = (100 * cosines).clamp_min(0).mean().item()
    assert figures.clip_score(ours(asked), ours.text(PROMPTS)) == pytest.approx(expected, abs=1e-3)


def test_a_prompt_that_is_too_long_is_cut(clip: Path) -> None:
    ours = Clip(clip)
    whole, cut = ours.text(["a" * 300, "a" * 10])
    torch.testing.assert_close(whole.norm(), cut.norm(), atol=1, rtol=0)


def test_dino_features_are_those_of_plain_transformers(dino: Path) -> None:
    ours, asked = open_features(dino, "dino"), images(3)
    assert isinstance(ours, Dino)
    model, prepare = Dinov2Model.from_pretrained(dino), AutoImageProcessor.from_pretrained(dino, backend="pil")
    with torch.no_grad():
        expected = model(**prepare([to_pil(x) for x in asked], return_tensors="pt")).pooler_output
    torch.testing.assert_close(ours(asked), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["clip", "dino"])
def test_grey_images_and_parts_change_nothing(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, grey = open_features(request.getfixturevalue(kind), kind), images(5, channels=1)
    whole = ours(grey)
    torch.testing.assert_close(ours(grey.expand(-1, 3, -1, -1)), whole)
    monkeypatch.setattr("workers.evaluate.features.AT_ONCE", 2)
    torch.testing.assert_close(ours(grey), whole, atol=1e-5, rtol=0)


def test_inception_has_the_weights_of_the_published_one(inception_folder: Path) -> None:
    """27,161,264 less the classifier's 2,049,000 and its helper's 3,326,696, under the published names."""
    network = inception()
    state = network.state_dict()
    assert sum(weight.numel() for weight in network.parameters()) == 21_785_568
    assert len(state) == 94 * 6
    assert state["Mixed_6b.branch7x7dbl_4.conv.weight"].shape == (128, 128, 7, 1)
    assert state["Mixed_7c.branch3x3dbl_3b.bn.running_var"].shape == (384,)
    found = Inception(inception_folder)(images(2, channels=1, side=8))
    assert found.shape == (2, 2048)
    assert found.isfinite().all()
    assert not torch.equal(found[0], found[1])


def test_inceptions_averages_leave_the_padding_out() -> None:
    ones = torch.ones(1, 2, 5, 5)
    assert torch.equal(Average()(ones), ones)


def test_identities_follow_the_weights(clip: Path, dino: Path, tmp_path: Path) -> None:
    other = save_clip(tmp_path)
    assert Clip(clip).identity == Clip(other).identity
    weights = load_file(other / "model.safetensors")
    weights["visual_projection.weight"] += 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    assert len({Clip(clip).identity, Clip(other).identity, Dino(dino).identity}) == 3


def test_digits_are_judged_in_given_features_as_well(clip: Path) -> None:
    plain, ours = digits_evaluator(), digits_evaluator(features=Clip(clip))
    assert ours.identity.startswith(f"{plain.identity}-clip-")
    labels = torch.arange(200) % 10
    noise = torch.randn(200, 1, 8, 8, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    a, b = plain.judge(noise, labels, 0.0), ours.judge(noise, labels, 0.0)
    assert a.frechet != b.frechet
    assert (a.accuracy, a.diversity, a.cmmd) == (b.accuracy, b.diversity, None)
    assert b.cmmd is not None
    held_out = ours.judge(ours.held_out.thumbnails, ours.held_out_labels, 0.0)
    assert held_out.cmmd == pytest.approx(0, abs=1e-9)
    assert b.cmmd > 1e-3


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def other_kind(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "t5"}))


def no_kind(folder: Path) -> None:
    (folder / "config.json").write_text("[]")


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def truncated(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def half_of_the_weights(folder: Path) -> None:
    weights = {k: v for k, v in load_file(folder / "model.safetensors").items() if not k.startswith("text_model")}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def without_preparation(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (without_config, "'models/x' has no config.json; give the path of a folder that has config.json, model.safe"),
        (other_kind, "'models/x' holds a model of type 't5'; features are taken from clip, dinov2, inception_v3_fid"),
        (no_kind, "the config.json of 'models/x' names no model_type"),
        (without_weights, "does not open as clip, which needs config.json, model.safetensors"),
        (pickled, "does not open as clip, which needs config.json, model.safetensors"),
        (truncated, "does not open as clip"),
        (half_of_the_weights, "weights are missing, such as text_model"),
        (without_preparation, "and preprocessor_config.json and its tokenizer"),
    ],
)
def test_a_folder_that_holds_no_features_is_refused(
    spoil: Callable[[Path], None], sentence: str, tmp_path: Path
) -> None:
    spoil(save_clip(tmp_path))
    with pytest.raises(DataInvalid) as refusal:
        open_features(tmp_path, "models/x")
    assert sentence in refusal.value.detail
    assert refusal.value.detail.startswith("evaluation.features: ")


def test_an_inception_with_other_weights_is_refused(inception_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((inception_folder / "config.json").read_text())
    weights = load_file(inception_folder / "model.safetensors")
    del weights["Mixed_5b.branch1x1.conv.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(DataInvalid, match=r"Mixed_5b\.branch1x1"):
        open_features(tmp_path, "models/inception")


def test_cmmd_is_the_sum_over_pairs() -> None:
    rng = torch.Generator().manual_seed(4)
    a, b = (torch.randn(n, 3, generator=rng, dtype=torch.float64) for n in (6, 5))

    def k(x: torch.Tensor, y: torch.Tensor) -> float:
        return math.exp(-float((x / x.norm() - y / y.norm()).square().sum()) / (2 * 10**2))

    mean = lambda xs, ys: sum(k(x, y) for x in xs for y in ys) / (len(xs) * len(ys))  # noqa: E731
    expected = 1000 * (mean(a, a) + mean(b, b) - 2 * mean(a, b))
    assert figures.cmmd(a, b) == pytest.approx(expected, rel=1e-9)
    assert figures.cmmd(a, 7 * a) == pytest.approx(0, abs=1e-9)


def test_the_clip_score_counts_opposites_as_nought() -> None:
    x = torch.eye(3)
    assert figures.clip_score(x, 5 * x) == pytest.approx(100)
    assert figures.clip_score(x, -x) == 0
    assert figures.clip_score(torch.cat([x, x]), torch.cat([x, -x])) == pytest.approx(50)


def test_the_angle_of_the_same_features_is_nought_exactly() -> None:
    x = torch.randn(50, 7, generator=torch.Generator().manual_seed(5))
    assert figures.angle(x, x) == 0
    assert figures.angle(x, 3 * x) == pytest.approx(0, abs=1e-12)
    assert figures.angle(x, -x) == pytest.approx(2)
    assert figures.angle(torch.eye(4), torch.eye(4).roll(1, 0)) == pytest.approx(1)


def test_figures_of_large_sets_are_taken_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = torch.Generator().manual_seed(6)
    x, y = torch.randn(40, 5, generator=rng), torch.randn(30, 5, generator=rng) + 0.5
    labels_x, labels_y = torch.arange(40) % 4, torch.arange(30) % 3

    def all_of_them() -> list[float]:
        return [
            figures.kernel_distance(x, labels_x, y, labels_y),
            figures.kernel_distance(x, torch.arange(40), y, labels_y),
            figures.cmmd(x, y),
            figures.coverage(x, y),
            figures.coverage(y, x),
            figures.spread(x, labels_x),
            figures.nearest(x, y),
        ]

    whole = all_of_them()
    monkeypatch.setattr(figures, "ROWS", 7)
    assert all_of_them() == pytest.approx(whole, rel=1e-6)
