"""A tiny pipeline whose network was taught what noise is, so that its images are of the size of images."""

from typing import Any

import torch

from workers.diffusion.paths import expand


def trained(pipe: Any, family: Any, steps: int = 150) -> Any:
    """The pipeline of an epsilon network, after a few seconds on latents of one value each.

    Random weights give next to no noise back, so that x0 = (x - sigma eps) / alpha is many times too large.
    """
    denoiser = family.of(pipe, ["a cat", "two dogs"]).requires_grad_(True)
    known = denoiser.null_label + 1
    rng = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(denoiser.network.parameters(), lr=3e-3)
    for _ in range(steps):
        eps = torch.randn(16, *denoiser.shape, generator=rng)
        x0 = 0.5 * torch.randn(16, denoiser.shape[0], 1, 1, generator=rng).expand_as(eps)
        t = torch.rand(16, generator=rng, dtype=torch.float64) * denoiser.path.t_max
        x = expand(denoiser.path.alpha(t), x0) * x0 + expand(denoiser.path.sigma(t), eps) * eps
        labels = torch.randint(known, (16,), generator=rng)
        loss = (denoiser.predict(x, t, labels, "eps") - eps).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    denoiser.requires_grad_(False)
    return pipe
