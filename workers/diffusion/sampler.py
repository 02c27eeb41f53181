"""How a student is run: few steps, a seed per image, and the diffusers scheduler that does the same.

The kinds:
- `ddim`: deterministic steps on evenly spaced times; `DDIMScheduler` with trailing spacing.
- `ancestral`: the same times, by draws from the posterior (arXiv:2006.11239, algorithm 2); `DDPMScheduler`.
- `renoise`: predict the clean image, add fresh noise, repeat (arXiv:2303.01469, algorithm 1); `LCMScheduler`.
- `gamma`: a deterministic step to below the next time, and fresh noise back up to it (arXiv:2402.19159, section 4.3);
  `TCDScheduler`, on the times of `renoise`.

On a rectified flow the steps are even in sigma, whatever the shift of the teacher: the one grid that all of diffusers'
pipelines can be brought to by the scheduler's config alone. There `ddim` is `FlowMatchEulerDiscreteScheduler` and
`renoise` is `FlowMatchLCMScheduler`, which takes the network's x0 as it is; the other kinds have no stock scheduler.

Under EDM's preconditioning `ddim` is `EDMEulerScheduler`, whose Euler step in sigma is the same step. Its grid ends at
sigma_min, which is set to where the last of a student's own number of steps starts. No stock scheduler adds noise
between the steps of such a network: `renoise` is one step, where it is `ddim`, and the other kinds have none.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from workers.diffusion.paths import EDM, Path, RectifiedFlow, expand
from workers.diffusion.solver import jump, posterior
from workers.diffusion.timesteps import even_grid
from workers.models.denoiser import Denoiser

SamplerKind = Literal["ddim", "ancestral", "renoise", "gamma"]

LCM_GRID = 50
"""Times that LCMScheduler picks from; 1000 timesteps in 50 parts start at the very last one."""
LCM_TIMESTEP_SCALING = 10.0
LCM_SIGMA_DATA = 0.5
GAMMA = 0.3
"""Share of a `gamma` step's timestep that is covered by fresh noise; the value of TCDScheduler that pipelines use."""

FLOW_SCHEDULERS: dict[SamplerKind, str] = {
    "ddim": "FlowMatchEulerDiscreteScheduler",
    "renoise": "FlowMatchLCMScheduler",
}

SCHEDULER_KINDS: dict[str, SamplerKind] = {
    "DDIMScheduler": "ddim",
    "DDPMScheduler": "ancestral",
    "LCMScheduler": "renoise",
    "TCDScheduler": "gamma",
    **{name: kind for kind, name in FLOW_SCHEDULERS.items()},
}

EDM_SCHEDULER = "EDMEulerScheduler"

_NOISE_SCHEDULE = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "rescale_betas_zero_snr",
)

_PRECONDITIONING = ("sigma_data", "prediction_type")


@dataclass(frozen=True)
class SamplerSpec:
    """Args:
    kind: see above.
    steps: the numbers of steps that the student is made for, its own first.
    num_train_timesteps: of the teacher's scheduler: times are (timestep + 1)/num_train_timesteps.
    shift: of a rectified flow's path, whose times these are; None elsewhere.
    sigma_max: of EDM's path; None elsewhere.
    """

    kind: SamplerKind
    steps: tuple[int, ...]
    num_train_timesteps: int = 1000
    shift: float | None = None
    sigma_max: float | None = None

    @classmethod
    def on(cls, path: Path, kind: SamplerKind, steps: Sequence[int]) -> "SamplerSpec":
        """For a network on `path`. On a rectified flow, and on EDM's path, a student has its own number of steps alone.

        Raises:
            ValueError: no scheduler of diffusers runs such a student.
        """
        if isinstance(path, EDM):
            return cls(kind, tuple(steps[:1]), path.timesteps, sigma_max=path.sigma_max)
        if isinstance(path, RectifiedFlow):
            return cls(kind, tuple(steps[:1]), path.timesteps, path.shift)
        return cls(kind, tuple(steps), path.timesteps)

    def __post_init__(self) -> None:
        if self.shift is not None and self.kind not in FLOW_SCHEDULERS:
            raise ValueError(
                f"no scheduler of diffusers takes {self.kind} steps on a rectified flow; it has {list(FLOW_SCHEDULERS)}"
            )
        one_step = self.kind == "renoise" and self.steps == (1,)
        if self.sigma_max is not None and self.kind != "ddim" and not one_step:
            raise ValueError(
                f"no scheduler of diffusers takes {self.kind} steps under EDM's preconditioning; it has ddim, and "
                "renoise for one step"
            )
        longest = min(LCM_GRID, self.num_train_timesteps) if self._on_lcm_grid else self.num_train_timesteps
        if not self.steps or not all(1 <= n <= longest for n in self.steps):
            raise ValueError(f"a {self.kind} sampler takes 1 to {longest} steps, not {list(self.steps)}")

    @property
    def _on_lcm_grid(self) -> bool:
        return self.kind in ("renoise", "gamma")

    def timesteps(self, steps: int) -> list[int]:
        """Falling timesteps, as the diffusers scheduler sets them for `steps` steps."""
        if not self._on_lcm_grid:
            ratio = self.num_train_timesteps / steps
            return [round(self.num_train_timesteps - i * ratio) - 1 for i in range(steps)]
        grid = min(LCM_GRID, self.num_train_timesteps)
        stride = self.num_train_timesteps // grid
        return [(grid - math.floor(i * grid / steps)) * stride - 1 for i in range(steps)]

    def times(self, steps: int) -> list[tuple[float, float]]:
        """(t, s) of each step: from time t, by a jump to s or by renoising to s; the last s is 0.

        Of `gamma` the last s is timestep 0, where TCDScheduler ends.
        """
        if self.shift is not None:
            grid = RectifiedFlow(self.shift).t_of_sigma(torch.linspace(1, 0, steps + 1, dtype=torch.float64)).tolist()
            return list(pairwise(grid))
        if self.sigma_max is not None:
            return list(pairwise(even_grid(steps).tolist()))
        starts = self.timesteps(steps)
        if self.kind == "ddim":  # DDIMScheduler steps by N // steps, which is not always its own next timestep
            ends = [max(start - self.num_train_timesteps // steps, -1) for start in starts]
        else:
            ends = [*starts[1:], 0 if self.kind == "gamma" else -1]
        n = self.num_train_timesteps
        return [((start + 1) / n, (end + 1) / n) for start, end in zip(starts, ends, strict=True)]

    def below(self, s: Tensor) -> Tensor:
        """Times [B] to which a `gamma` step jumps, before noise takes it back up to s [B]; a whole timestep, too."""
        timestep = torch.round(s * self.num_train_timesteps) - 1
        return (torch.floor((1 - GAMMA) * timestep.float()).to(s) + 1) / self.num_train_timesteps

    def scheduler_config(self, teacher: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The diffusers scheduler that runs this sampler: its class name and config.

        Args:
            teacher: config of the teacher's scheduler; its noise schedule and prediction type are kept.
        """
        if self.shift is not None:
            end = 1 / self.steps[0] if self.steps[0] > 1 else None  # for pipelines that leave the sigmas to it
            return FLOW_SCHEDULERS[self.kind], {"num_train_timesteps": 1000, "shift": 1.0, "shift_terminal": end}
        if self.sigma_max is not None:
            last = torch.tensor(1 / self.steps[0], dtype=torch.float64)
            config = {"sigma_min": EDM.sigmas(last, self.sigma_max).item(), "sigma_max": self.sigma_max, "rho": EDM.rho}
            return EDM_SCHEDULER, config | {key: teacher[key] for key in _PRECONDITIONING if key in teacher}
        config = {key: teacher[key] for key in _NOISE_SCHEDULE if key in teacher}
        config |= {"clip_sample": False, "thresholding": False, "set_alpha_to_one": True}
        if self.kind == "ddim":
            return "DDIMScheduler", config | {"timestep_spacing": "trailing", "steps_offset": 0}
        if self.kind == "ancestral":
            del config["set_alpha_to_one"]  # it has no other way
            return "DDPMScheduler", config | {"timestep_spacing": "trailing", "variance_type": "fixed_small"}
        config["original_inference_steps"] = min(LCM_GRID, self.num_train_timesteps)
        if self.kind == "gamma":
            return "TCDScheduler", config
        return "LCMScheduler", config | {"timestep_scaling": LCM_TIMESTEP_SCALING}


def boundary_scales(t: Tensor, num_train_timesteps: int = 1000) -> tuple[Tensor, Tensor]:
    """c_skip, c_out [B] of a consistency function f = c_skip x + c_out x0, with f(x, 0) = x (arXiv:2310.04378, eq. 9).

    As LCMScheduler has them: functions of the timestep, N t - 1 and never below 0.
    """
    scaled = (t * num_train_timesteps - 1).clamp(min=0) * LCM_TIMESTEP_SCALING
    norm = scaled**2 + LCM_SIGMA_DATA**2
    return LCM_SIGMA_DATA**2 / norm, scaled / norm.sqrt()


def consistency_function(x: Tensor, x0: Tensor, t: Tensor, path: Path) -> Tensor:
    """f(x, t), given the network's x0 there; on a flow and on EDM's path that is x0 itself, which is x at t = 0."""
    if isinstance(path, RectifiedFlow | EDM):
        return x0
    c_skip, c_out = boundary_scales(t, path.timesteps)
    return expand(c_skip, x) * x + expand(c_out, x) * x0


def draw(shape: tuple[int, ...], generators: Sequence[torch.Generator], device: torch.device | None = None) -> Tensor:
    """N(0, 1) [len(generators), *shape]: image i from generator i alone, as diffusers draws from a list of them."""
    return torch.cat([torch.randn(1, *shape, generator=g, device=g.device) for g in generators]).to(device)


def seeded(seeds: Sequence[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    spec: SamplerSpec,
    steps: int,
    labels: Tensor | None,
    generators: Sequence[torch.Generator],
    device: torch.device | None = None,
) -> Tensor:
    """Images [B, C, H, W] in about [-1, 1], not clipped; image i depends on generators[i] and labels[i] alone."""
    path = denoiser.path
    x = draw(denoiser.shape, generators, device)
    for i, (now, then) in enumerate(spec.times(steps), start=1):
        t = torch.full((len(x),), now, dtype=torch.float64)
        s = torch.full((len(x),), then, dtype=torch.float64)
        x0 = denoiser.predict(x, t, labels, s=s if denoiser.knows_target else None)
        if spec.kind == "ddim":
            x = jump(x, x0, t, s, path)
            continue
        if spec.kind == "ancestral":
            x = posterior(x, x0, draw(denoiser.shape, generators, device), t, s, path)
            continue
        if spec.kind == "gamma":
            low = spec.below(s)
            x = jump(x, x0, t, low, path)
            if i < steps:
                x = path.add_more_noise(x, draw(denoiser.shape, generators, device), low, s)
            continue
        x = consistency_function(x, x0, t, path)
        if then > 0:
            x = path.add_noise(x, draw(denoiser.shape, generators, device), s)
    return x
