"""The digits evaluator cannot be talked into praise: what is good, what is fake, and which figure says so."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from service.observations import Figures
from workers import pretrain
from workers.artifact import load_student
from workers.data.digits import load_digits
from workers.evaluate.evaluator import (
    balanced_labels,
    digits_evaluator,
    draw,
    image_seed,
    judges_digits,
    small_pixels,
)
from workers.evaluate.figures import frechet_distance

DIGITS = load_digits()
LABELS = torch.arange(1000) % 10


@pytest.fixture(scope="module")
def evaluator():
    return digits_evaluator()


def passes(figures: Figures, reference: Figures) -> bool:
    """The bars that a one-step student has to clear, all together."""
    return (
        figures.frechet <= 1.6 * reference.frechet
        and figures.recall >= 0.68
        and figures.diversity >= 0.78
        and 0.85 <= figures.nearest_neighbour_ratio <= 1.15
    )


@pytest.fixture(scope="module")
def teacher_at_50(evaluator) -> Figures:
    return evaluator.figures(load_student(pretrain.ASSETS / "teacher").generate, 50, 1000)


def test_the_split_is_stratified_and_scaled() -> None:
    assert DIGITS.train_images.shape == (1257, 1, 8, 8)
    assert DIGITS.test_images.shape == (540, 1, 8, 8)
    assert DIGITS.train_images.dtype == torch.float32
    assert DIGITS.train_images.aminmax() == (-1, 1)
    assert DIGITS.train_labels.dtype == torch.int64
    share = DIGITS.train_labels.bincount() / 1257 - DIGITS.test_labels.bincount() / 540
    assert share.abs().max() < 0.005
    rows = {tuple(image.flatten().tolist()) for image in DIGITS.train_images}
    assert not any(tuple(image.flatten().tolist()) in rows for image in DIGITS.test_images)


def test_the_classifier_knows_held_out_digits(evaluator) -> None:
    assert evaluator.eye.logits is not None
    right = evaluator.eye.logits(DIGITS.test_images).argmax(1) == DIGITS.test_labels
    assert right.double().mean() > 0.99
    assert torch.var(evaluator.eye.features(DIGITS.train_images), dim=0).sum().item() == pytest.approx(100, rel=1e-3)


def test_real_against_real_is_the_floor(evaluator) -> None:
    features = evaluator.eye.features(torch.cat([DIGITS.train_images, DIGITS.test_images]))
    labels = torch.cat([DIGITS.train_labels, DIGITS.test_labels])
    distances = []
    for seed in range(10):
        a, b = train_test_split(range(1797), test_size=540, stratify=labels, random_state=seed)
        distances.append(frechet_distance(features[a], features[b]))
    floor = torch.tensor(distances)
    assert 0.25 < floor.mean() < 0.5
    assert floor.std() < 0.1


def test_the_shipped_teacher_is_good_at_fifty_steps(teacher_at_50: Figures) -> None:
    assert teacher_at_50.frechet < 0.65
    assert abs(teacher_at_50.kernel) < 0.05
    assert teacher_at_50.accuracy is not None
    assert teacher_at_50.accuracy > 0.98
    assert teacher_at_50.precision > 0.85
    assert teacher_at_50.recall > 0.8
    assert 0.85 < teacher_at_50.diversity < 1.1
    assert 0.9 < teacher_at_50.nearest_neighbour_ratio < 1.1
    assert passes(teacher_at_50, teacher_at_50)


def test_the_teacher_gets_worse_with_fewer_steps(evaluator, teacher_at_50: Figures) -> None:
    teacher = load_student(pretrain.ASSETS / "teacher")
    at = {n: evaluator.figures(teacher.generate, n, 1000) for n in (4, 2, 1)}
    assert teacher_at_50.frechet < at[4].frechet < at[2].frechet < at[1].frechet
    assert teacher_at_50.recall > at[4].recall > at[2].recall > at[1].recall
    assert not any(passes(figures, teacher_at_50) for figures in at.values())


def test_class_means_look_perfect_to_accuracy_and_precision_alone(evaluator, teacher_at_50: Figures) -> None:
    means = torch.stack([DIGITS.train_images[DIGITS.train_labels == i].mean(0) for i in range(10)])
    figures = evaluator.judge(means[LABELS], LABELS, 0.0)
    assert (figures.accuracy, figures.precision) == (1.0, 1.0)
    assert figures.frechet > 5
    assert figures.recall == 0
    assert figures.diversity == pytest.approx(0, abs=1e-6)
    assert not passes(figures, teacher_at_50)


@pytest.mark.parametrize("jitter", [0.0, 0.05])
def test_copied_training_images_are_caught_by_the_nearest_neighbour_alone(
    evaluator, teacher_at_50: Figures, jitter: float
) -> None:
    pick = torch.cat([torch.nonzero(DIGITS.train_labels == i)[:100, 0] for i in range(10)])
    noise = jitter * torch.randn(1000, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    copies = (DIGITS.train_images[pick] + noise).clamp(-1, 1)
    figures = evaluator.judge(copies, DIGITS.train_labels[pick], 0.0)
    assert figures.frechet < 0.5
    assert figures.recall > 0.8
    assert figures.diversity > 0.9
    assert figures.nearest_neighbour_ratio < 0.2
    assert not passes(figures, teacher_at_50)
    assert passes(figures.model_copy(update={"nearest_neighbour_ratio": 1.0}), teacher_at_50)


def test_noise_is_far_from_everything(evaluator, teacher_at_50: Figures) -> None:
    noise = torch.randn(1000, 1, 8, 8, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    figures = evaluator.judge(noise, LABELS, 0.0)
    assert figures.frechet > 30
    assert figures.kernel > 2
    assert figures.accuracy is not None
    assert figures.accuracy < 0.2
    assert figures.diversity > 1.5
    assert figures.nearest_neighbour_ratio > 3
    assert not passes(figures, teacher_at_50)


def test_a_dropped_class_is_caught(evaluator, teacher_at_50: Figures) -> None:
    """A generator that knows nine digits and answers the tenth class with another one."""
    labels = torch.where(LABELS == 4, 9, LABELS)
    picks = torch.cat([torch.nonzero(DIGITS.test_labels == label)[i % 50] for i, label in enumerate(labels.tolist())])
    figures = evaluator.judge(DIGITS.test_images[picks], LABELS, 0.0)
    assert figures.frechet > 3 * teacher_at_50.frechet
    assert figures.accuracy is not None
    assert figures.accuracy < 0.91


def test_an_unconditional_model_is_judged_without_accuracy(evaluator) -> None:
    unconditional = digits_evaluator(num_classes=None)
    assert unconditional.identity == evaluator.identity
    images = DIGITS.train_images[:1000]
    figures = unconditional.figures(lambda labels, seeds, steps: images[[s % 1000 for s in seeds]], 1, 1000, seed=0)
    assert figures.accuracy is None
    assert figures.frechet < 0.6
    assert figures.diversity == pytest.approx(1, abs=0.05)
    assert judges_digits((1, 8, 8), None)
    assert judges_digits((1, 8, 8), 10)
    assert not judges_digits((1, 8, 8), 3)
    assert not judges_digits((3, 32, 32), 10)


def test_images_do_not_depend_on_how_they_are_batched() -> None:
    generate = load_student(pretrain.ASSETS / "teacher").generate

    def drawn(samples: int, seed: int, batch: int = 250) -> torch.Tensor:
        return torch.cat(list(draw(generate, balanced_labels(samples, 10), 2, samples, seed, batch)))

    whole = drawn(60, seed=3, batch=60)
    torch.testing.assert_close(drawn(60, seed=3, batch=7), whole, atol=1e-5, rtol=0)
    assert not torch.allclose(drawn(60, seed=4), whole, atol=0.1)
    # The first images of a larger set are the same ones: a worker's share can be drawn alone.
    torch.testing.assert_close(drawn(100, seed=3)[:60], whole, atol=1e-5, rtol=0)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), samples=st.integers(1, 3000), num_classes=st.integers(1, 40))
def test_sets_are_balanced_and_seeds_are_their_own(seed: int, samples: int, num_classes: int) -> None:
    labels = balanced_labels(samples, num_classes)
    assert labels is not None
    assert labels.bincount(minlength=num_classes).unique().tolist() == [math.ceil(samples / num_classes)]
    seeds = {image_seed(seed, i) for i in range(samples)}
    assert len(seeds) == samples
    assert max(seeds) < 2**32
    assert image_seed(seed, 0) != image_seed(seed + 1, 0)
    assert balanced_labels(samples, None) is None


def test_fallback_features_are_small() -> None:
    assert small_pixels(torch.zeros(2, 3, 64, 32)).shape == (2, 192)
    image = torch.arange(12.0).reshape(1, 1, 3, 4)
    assert torch.equal(small_pixels(image), image.flatten(1))


def test_the_command_that_made_the_assets_makes_them_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--teacher-iterations", "3", "--classifier-iterations", "3", "--samples", "20"]
    pretrain.main([*arguments, "--output", str(tmp_path / "a")])
    assert "frechet" in capsys.readouterr().out
    model = load_student(tmp_path / "a" / "teacher")
    assert (model.num_classes, model.image_size, model.parameters) == (10, (1, 8, 8), 160_401)
    assert (
        digits_evaluator(classifier=tmp_path / "a" / "classifier.safetensors").identity != digits_evaluator().identity
    )
    pretrain.main([*arguments, "--output", str(tmp_path / "b")])
    for name in ("classifier.safetensors", "teacher/unet/diffusion_pytorch_model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_assets_are_small() -> None:
    assert sum(file.stat().st_size for file in pretrain.ASSETS.rglob("*") if file.is_file()) < 4_000_000
