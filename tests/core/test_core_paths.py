"""Paths, conversions and solvers against closed forms."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from workers.diffusion.convert import PREDICTIONS, convert, form
from workers.diffusion.losses import truncated_snr, v_weight
from workers.diffusion.paths import EDM, Path, RectifiedFlow, TrigFlow, VPCosine, VPDiscrete, expand
from workers.diffusion.solver import SOLVERS, invert_target, jump, solve
from workers.diffusion.timesteps import even_grid, grid_cell, karras_grid
from workers.models.mixture import MixtureDenoiser

BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
PATHS: dict[str, Path] = {
    "vp-discrete": VPDiscrete(torch.cumprod(1 - BETAS, 0)),
    "vp-cosine": VPCosine(),
    "edm": EDM(),
    "rectified-flow": RectifiedFlow(),
    "rectified-flow-shift-3": RectifiedFlow(3.0),
    "trigflow": TrigFlow(0.5),
}
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())


def inner_times(path: Path, n: int = 64) -> Tensor:
    return torch.linspace(0.0131, 0.9871, n, dtype=torch.float64) * path.t_max


@every_path
def test_derivatives_are_those_of_alpha_and_sigma(path: Path) -> None:
    t, h = inner_times(path), 1e-7 * path.t_max
    for value, slope in ((path.alpha, path.dalpha), (path.sigma, path.dsigma)):
        torch.testing.assert_close(slope(t), (value(t + h) - value(t - h)) / (2 * h), rtol=1e-4, atol=1e-5)


@every_path
def test_log_snr_falls_and_its_inverse_finds_the_time_again(path: Path) -> None:
    t = inner_times(path)
    assert bool((path.logsnr(t).diff() < 0).all())
    torch.testing.assert_close(path.t_of_logsnr(path.logsnr(t)), t, rtol=1e-9, atol=1e-9)
    ends = torch.tensor([0.0], dtype=torch.float64)
    assert path.t_of_logsnr(torch.tensor([math.inf], dtype=torch.float64)).item() == 0
    assert path.sigma(ends).item() == 0
    assert path.alpha(ends).item() == 1


def test_discrete_path_meets_the_scheduler_at_its_timesteps() -> None:
    alphas_cumprod = torch.cumprod(1 - BETAS, 0)
    path = VPDiscrete(alphas_cumprod)
    i = torch.tensor([0, 1, 499, 999])
    t = (i + 1).double() / 1000
    torch.testing.assert_close(path.alpha(t) ** 2, alphas_cumprod[i], rtol=1e-12, atol=0)
    torch.testing.assert_close(path.t_to_model(t), i.double())


def test_discrete_path_refuses_a_schedule_that_gains_signal() -> None:
    with pytest.raises(ValueError, match="fall strictly"):
        VPDiscrete(torch.tensor([0.9, 0.95, 0.5]))


@every_path
@pytest.mark.parametrize("src", PREDICTIONS)
@pytest.mark.parametrize("dst", PREDICTIONS)
def test_every_prediction_converts_into_every_other_and_back(path: Path, src: str, dst: str) -> None:
    t = inner_times(path)
    rng = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, len(t), 3, generator=rng, dtype=torch.float64)
    x = path.add_noise(x0, eps, t)
    truth = {kind: sum(expand(c, x) * y for c, y in zip(form(kind, t, path, 0.5), (x0, eps), strict=True))
             for kind in (src, dst)}  # fmt: skip
    there = convert(x, t, truth[src], src, dst, path, 0.5)
    torch.testing.assert_close(there, truth[dst], rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(convert(x, t, there, dst, src, path, 0.5), truth[src], rtol=1e-7, atol=1e-7)


def test_forms_are_the_fields_definitions() -> None:
    t = torch.tensor([0.3], dtype=torch.float64)
    for path in (PATHS["vp-cosine"], PATHS["rectified-flow"]):
        a, s = path.alpha(t).item(), path.sigma(t).item()
        assert [c.item() for c in form("score", t, path)] == pytest.approx([0, -1 / s])
        if path is PATHS["vp-cosine"]:
            assert [c.item() for c in form("v", t, path)] == pytest.approx([-s, a])
            assert [c.item() for c in form("trigF", t, path)] == pytest.approx([-s, a])
        else:
            assert [c.item() for c in form("flow", t, path)] == pytest.approx([-1, 1])


def test_conversions_that_exist_at_the_ends_are_finite_there() -> None:
    path, x, out = VPCosine(), torch.tensor([[0.7]]), torch.tensor([[0.2]])
    noise, clean = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for src in ("x0", "v"):
        for dst in ("x0", "v", "eps"):
            assert bool(convert(x, noise, out, src, dst, path).isfinite().all())
    for src in ("eps", "v"):
        for dst in ("x0", "eps", "v"):
            assert bool(convert(x, clean, out, src, dst, path).isfinite().all())


def test_weights_are_finite_where_the_signal_is_gone() -> None:
    ends = torch.tensor([0.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(v_weight(ends, VPCosine()), torch.tensor([2.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(truncated_snr(ends, VPCosine()), torch.tensor([1.0, 1.0], dtype=torch.float64))


@every_path
def test_a_query_at_equal_snr_is_the_direct_one(path: Path) -> None:
    parts = torch.tensor([0.3, 0.7]).double(), torch.tensor([[-1.0], [0.8]]).double(), torch.tensor([0.2, 0.4]).double()
    t = inner_times(path)
    x = path.add_noise(torch.randn(len(t), 1).double(), torch.randn(len(t), 1).double(), t)
    direct = MixtureDenoiser(*parts, path=path).predict(x, t, None)
    matched = MixtureDenoiser(*parts, path=VPCosine()).predict(x, t, None, path=path)
    torch.testing.assert_close(matched, direct, rtol=1e-7, atol=1e-7)
    flow = MixtureDenoiser(*parts, path=path).predict(x, t, None, want="flow")
    matched_flow = MixtureDenoiser(*parts, path=VPCosine()).predict(x, t, None, want="flow", path=path)
    torch.testing.assert_close(matched_flow, flow, rtol=1e-6, atol=1e-6)


def quantile_map(mixture: MixtureDenoiser, path: Path, x: Tensor, t: float, s: float) -> Tensor:
    """The exact flow map of a 1-D density from t to s: it keeps the quantile, F_s^-1(F_t(x))."""

    def cdf(y: Tensor, at: float) -> Tensor:
        when = torch.tensor(at, dtype=torch.float64)
        a, sigma = path.alpha(when), path.sigma(when)
        scale = torch.sqrt((a * mixture.stds) ** 2 + sigma**2)
        return (mixture.weights * torch.special.ndtr((y - a * mixture.means[:, 0]) / scale)).sum(-1, keepdim=True)

    level = cdf(x, t)
    low, high = torch.full_like(x, -20), torch.full_like(x, 20)
    for _ in range(80):
        middle = (low + high) / 2
        below = cdf(middle, s) < level
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


@pytest.mark.parametrize("name", ["vp-cosine", "rectified-flow"])
@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("euler", 1), ("heun", 2), ("dpm2", 2)])
def test_solvers_have_their_order_against_the_exact_flow_map(name: str, solver: str, order: int) -> None:
    path = PATHS[name]
    parts = (
        torch.tensor([0.35, 0.65]).double(),
        torch.tensor([[-1.0], [0.7]]).double(),
        torch.tensor([0.4, 0.5]).double(),
    )
    mixture = MixtureDenoiser(*parts, path=path)
    t, s = 0.9, 0.1
    x = torch.linspace(-1.5, 1.5, 31, dtype=torch.float64)[:, None]
    exact = quantile_map(mixture, path, x, t, s)

    def error(steps: int) -> float:
        grid = s + even_grid(steps) * (t - s)
        got = solve(lambda y, when: mixture.predict(y, when, None), x, grid, path, solver)  # type: ignore[arg-type]
        return (got - exact).square().mean().sqrt().item()

    slope = math.log2(error(32) / error(64))
    assert slope == pytest.approx(order, abs=0.2), f"errors {error(32):.2e}, {error(64):.2e}"


@pytest.mark.parametrize("solver", SOLVERS)
def test_solvers_reach_the_clean_end(solver: str) -> None:
    path = VPCosine()
    gaussian = MixtureDenoiser(torch.ones(1).double(), torch.full((1, 1), 0.5).double(), torch.tensor([0.3]).double())
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    got = solve(lambda y, t: gaussian.predict(y, t, None), x, even_grid(400), path, solver)  # type: ignore[arg-type]
    torch.testing.assert_close(got, 0.5 + 0.3 * x, rtol=0, atol=0.02)


@every_path
def test_the_inverted_target_takes_one_step_to_the_point(path: Path) -> None:
    t, s = inner_times(path)[1:], inner_times(path)[:-1]
    rng = torch.Generator().manual_seed(0)
    x_t, x_s = torch.randn(2, len(t), 2, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(jump(x_t, invert_target(x_t, x_s, t, s, path), t, s, path), x_s, rtol=1e-8, atol=1e-8)


def test_grids_fall_to_zero_and_cells_are_equally_likely() -> None:
    make: list[Callable[[], Tensor]] = [lambda: even_grid(8), lambda: karras_grid(8, 80, 0.002)]
    for grid in (m() for m in make):
        assert len(grid) == 9
        assert grid[-1] == 0
        assert bool((grid.diff() < 0).all())
    t, s = grid_cell((torch.arange(80) + 0.5).double() / 80, even_grid(8))
    assert sorted(set(t.tolist())) == [i / 8 for i in range(1, 9)]
    torch.testing.assert_close(t - s, torch.full((80,), 1 / 8, dtype=torch.float64))
