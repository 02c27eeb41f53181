"""Figures against closed forms and known sets."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.evaluate import figures


def gaussian(mean: torch.Tensor, root: torch.Tensor, seed: int, n: int = 200) -> torch.Tensor:
    """[n, D] whose sample mean and covariance are exactly `mean` and root rootᵀ."""
    x = torch.randn(n, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x - x.mean(0)
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(x.T)), x.T, upper=False).T
    return whitened @ root.T + mean


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_frechet_of_two_gaussians_on_the_same_axes() -> None:
    a = gaussian(vector(0, 1, 2), torch.diag(vector(1, 2, 3)), 0)
    b = gaussian(vector(1, 1, 0), torch.diag(vector(2, 2, 0.5)), 1)
    expected = (1 + 0 + 4) + (1 + 0 + 2.5**2)  # squared distance of means, squared distance of standard deviations
    assert figures.frechet_distance(a, b) == pytest.approx(expected, abs=1e-9)


def test_frechet_of_two_gaussians_whose_covariances_do_not_commute() -> None:
    turn = 0.7
    rotation = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]], dtype=torch.float64)
    cov_a, root_b = torch.diag(vector(4, 1)), rotation @ torch.diag(vector(3, 0.5))
    cov_b = root_b @ root_b.T
    a, b = gaussian(vector(0, 0), torch.diag(vector(2, 1)), 2), gaussian(vector(0, 0), root_b, 3)
    # In two dimensions tr √M = √(tr M + 2 √det M).
    product = cov_a @ cov_b
    cross = math.sqrt(product.trace() + 2 * math.sqrt(torch.linalg.det(product)))
    expected = (cov_a.trace() + cov_b.trace() - 2 * cross).item()
    assert figures.frechet_distance(a, b) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), shift=st.floats(-5, 5), scale=st.floats(0.1, 5), width=st.integers(1, 6))
def test_frechet_is_a_distance_that_does_not_care_for_the_axes(
    seed: int, shift: float, scale: float, width: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    a = torch.randn(40, width, generator=rng, dtype=torch.float64)
    b = scale * torch.randn(30, width, generator=rng, dtype=torch.float64) + shift
    turned, _ = torch.linalg.qr(torch.randn(width, width, generator=rng, dtype=torch.float64))
    distance = figures.frechet_distance(a, b)
    assert figures.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert figures.frechet_distance(b, a) == pytest.approx(distance, rel=1e-6, abs=1e-9)
    assert figures.frechet_distance(a @ turned, b @ turned) == pytest.approx(distance, rel=1e-6, abs=1e-9)
    assert figures.frechet_distance(a, a + shift) == pytest.approx(width * shift**2, rel=1e-6, abs=1e-9)
    assert distance > -1e-9


def test_frechet_is_finite_for_sets_smaller_than_their_width() -> None:
    a = torch.randn(10, 64, generator=torch.Generator().manual_seed(0))
    assert figures.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert math.isfinite(figures.frechet_distance(a, -a + 1))


def test_kernel_distance_is_the_sum_over_pairs() -> None:
    rng = torch.Generator().manual_seed(4)
    a, b = torch.randn(6, 3, generator=rng), torch.randn(5, 3, generator=rng)
    one_class = lambda x: torch.zeros(len(x), dtype=torch.int64)  # noqa: E731

    def k(x: torch.Tensor, y: torch.Tensor) -> float:
        return (float(x.double() @ y.double()) / 3 + 1) ** 3

    aa = sum(k(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j) / 30
    bb = sum(k(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j) / 20
    ab = sum(k(x, y) for x in a for y in b) / 30
    assert figures.kernel_distance(a, one_class(a), b, one_class(b)) == pytest.approx(aa + bb - 2 * ab, rel=1e-9)


def test_kernel_distance_of_equal_distributions_is_zero_on_average_though_classes_are_balanced() -> None:
    rng = torch.Generator().manual_seed(5)
    labels = torch.arange(40) % 4
    centres = 3 * torch.randn(4, 5, generator=rng)

    def draw() -> torch.Tensor:
        return centres[labels] + torch.randn(40, 5, generator=rng)

    pairs = [(draw(), draw()) for _ in range(200)]
    stratified = torch.tensor([figures.kernel_distance(a, labels, b, labels) for a, b in pairs])
    plain = torch.tensor([figures.kernel_distance(a, 0 * labels, b, 0 * labels) for a, b in pairs])
    error = stratified.std() / math.sqrt(len(pairs))
    assert stratified.mean().abs() < 4 * error
    assert plain.mean() < -20 * error, "without the weights, balance looks like a negative distance"


def test_kernel_distance_takes_classes_of_a_single_image() -> None:
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(6))
    assert figures.kernel_distance(x, torch.arange(12), x + 1, torch.arange(12)) > 0


def test_coverage_on_a_line() -> None:
    covering = torch.arange(10.0)[:, None]  # with k = 3 each inner point reaches 2 away, the ends reach 3
    inside = torch.tensor([[-3.0], [4.5], [12.0]])
    outside = torch.tensor([[-3.1], [12.1], [50.0]])
    assert figures.coverage(covering, inside) == 1
    assert figures.coverage(covering, outside) == 0
    assert figures.coverage(covering, torch.cat([inside, outside])) == 0.5
    assert figures.coverage(covering, covering) == 1


def test_recall_sees_a_dropped_mode_and_precision_a_stray_one() -> None:
    rng = torch.Generator().manual_seed(7)
    left, right = torch.randn(100, 2, generator=rng), torch.randn(100, 2, generator=rng) + 100
    both = torch.cat([left, right])
    assert figures.coverage(both, left) == 1  # precision of a set without the right mode
    assert figures.coverage(left, both) == 0.5  # its recall
    stray = torch.cat([left, torch.randn(100, 2, generator=rng) - 100])
    assert figures.coverage(left, stray) == 0.5


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), factor=st.floats(0.1, 3))
def test_diversity_is_relative_and_scales(seed: int, factor: float) -> None:
    real = torch.randn(20, 1, 2, 2, generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(20) % 4
    assert figures.diversity(real, labels, real, labels) == pytest.approx(1)
    assert figures.diversity(factor * real + 1, labels, real, labels) == pytest.approx(factor, rel=1e-5)
    means = torch.stack([real[labels == label].mean(0) for label in range(4)])
    assert figures.diversity(means[labels], labels, real, labels) == pytest.approx(0, abs=1e-6)


def test_nearest_neighbour_ratio_is_nought_for_copies_and_one_for_held_out_images() -> None:
    rng = torch.Generator().manual_seed(8)
    trained_on, held_out = (torch.randn(50, 1, 2, 2, generator=rng) for _ in range(2))
    assert figures.nearest_neighbour_ratio(trained_on[:20], held_out, trained_on) == 0
    assert figures.nearest_neighbour_ratio(held_out, held_out, trained_on) == 1
    assert figures.nearest_neighbour_ratio(held_out + 100, held_out, trained_on) > 50
