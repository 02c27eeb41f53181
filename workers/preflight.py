"""Before the first step: does the teacher answer as its folder says? A wrong one is refused in a second, not in a day.

What a network predicts shows in its answers, whatever it was trained on. In pure noise an epsilon network gives the
noise back, a velocity eps - x0 most of it, and v and x0 networks nothing of it; where there is almost no noise, an x0
network gives its input back, and no other does. That it predicts v shows in images that were drawn by v: noised, they
are found again. Under EDM's preconditioning all that can be wrong is the sign of the answer; with the right one, a
network finds the noise in its own samples. An untrained network shows nothing of all this; it is warned about and let
through.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from service.errors import DataInvalid, TeacherInvalid
from service.families import EDM_PREDICTIONS
from workers import trainer
from workers.diffusion.convert import Prediction, form
from workers.diffusion.guidance import unguided
from workers.diffusion.paths import AnglePath, RectifiedFlow, expand
from workers.diffusion.sampler import SamplerSpec, draw, sample, seeded
from workers.families.edm import EDM
from workers.host import Host
from workers.models.codec import Coder
from workers.models.denoiser import Denoiser
from workers.models.stock import PREDICTION_TYPES

COUNT = 8
"""Images that are looked at."""
STEPS = 8
"""Of sampling, where images have to be drawn by v."""
LOW, MIDDLE = 0.1, 0.5
"""Angles of the noise: atan(sigma/alpha)."""
CLEAR, FOUND, OPPOSED = 0.95, 0.7, -0.5
"""Correlations. A trained network's are 0.99, 0.9 and -0.87; those of random ones stay below 0.5 and above -0.3."""
SAME = 1e-5
"""Relative difference of answers below which guidance does nothing."""
LIMIT = 1.05
"""Images lie in [-1, 1]; a resized one overshoots by a little."""
OTHER_TYPE = (
    "the scheduler says {}, but the network answers as {} does: set prediction_type to {!r} in "
    "scheduler/scheduler_config.json and register the teacher again"
)
UNTRAINED = "the network answers as no trained one does, so its prediction type cannot be checked"
GUIDED_TWICE = (
    "the network has guidance built in, and is told a scale of {:g} as its pipeline tells it; guidance_scale {:g} "
    "leads on from there, away from the empty prompt: 1 is usual with such a network"
)
NAMES = {prediction: name for name, prediction in PREDICTION_TYPES.items()}


@torch.no_grad()
def check(
    teacher: Denoiser, guidance_scales: Sequence[float], drawn: Tensor, images: Tensor, host: Host, codec: Coder | None
) -> None:
    """Refuse a teacher that cannot be what its folder says, warn of one that looks untrained, log the figures.

    Args:
        guidance_scales: of the job's stages.
        drawn: what the teacher has sampled, [B, ...], not clipped.
        images: of `drawn`, in [-1, 1] where a VAE has decoded them.

    Raises:
        TeacherInvalid: with what is wrong, and the fix.
    """
    network, scale = unguided(teacher), max(guidance_scales)
    pure, clean = _answers(network, host.device)
    said = [f"answer to noise correlates {pure:.2f} with it, to a clean image {clean:.2f}"]
    warnings = []
    if isinstance(network.path, RectifiedFlow):
        _refuse_other_than_flow(pure, clean)
    elif isinstance(network, EDM):
        if not _sign_is_seen(network, drawn):
            warnings.append(UNTRAINED)
    elif isinstance(network.path, AnglePath) and network.prediction in NAMES:
        seen = _prediction(network, pure, clean, drawn)
        if seen is None:
            warnings.append(UNTRAINED)
        elif seen != network.prediction:
            raise TeacherInvalid(OTHER_TYPE.format(NAMES[network.prediction], NAMES[seen], NAMES[seen]))
    if network.null_label is not None:
        difference = _guidance(network, host.device)
        said.append(f"a label changes it by {difference:.2g}")
        if scale != 1 and difference < SAME:
            raise TeacherInvalid(
                f"guidance_scale is {scale:g}, but the network answers alike with a label and with none, so guidance "
                "does nothing: set it to 1, or use a teacher that was trained with labels left out now and then"
            )
    if network.embedded_guidance is not None and scale != 1:
        warnings.append(GUIDED_TWICE.format(network.embedded_guidance, scale))
    said.append(_samples(drawn, images, scale, codec))
    if codec is not None:
        error, spread = _round_trip(codec, images[:2])
        said.append(f"VAE loses {error:.2g} of an image, latents' deviation {spread:.2g}")
        if error > 0.5:
            warnings.append("the VAE does not give images back: are its weights those of this teacher?")
        if not 0.3 < spread < 3:
            warnings.append("latents' deviation should be about 1: look at scaling_factor in vae/config.json")
    host.log("warning" if warnings else "info", f"Preflight: {'; '.join(said + warnings)}.")


def check_images(images: Tensor, shape: tuple[int, ...]) -> None:
    """DataInvalid for training images [B, C, H, W] that are not of `shape`, not in [-1, 1], or all of one colour."""
    if tuple(images.shape[1:]) != shape:
        raise DataInvalid(f"the training images are {list(images.shape[1:])}, where the teacher makes {list(shape)}")
    low, high = images.amin().item(), images.amax().item()
    if not -LIMIT <= low <= high <= LIMIT:  # not a number is outside
        raise DataInvalid(f"the training images lie in [{low:.3g}, {high:.3g}], not in [-1, 1]: scale them")
    if (images.flatten(1).std(dim=1) == 0).all():
        raise DataInvalid("every training image is of one colour: look at how the files are decoded")


def _correlation(one: Tensor, other: Tensor) -> float:
    one, other = one.double().flatten(), other.double().flatten()
    one, other = one - one.mean(), other - other.mean()
    return float(one @ other / (one.norm() * other.norm()).clamp(min=1e-12))


def _at(network: Denoiser, angle: float, count: int) -> Tensor:
    return network.path.t_of_angle(torch.full((count,), angle, dtype=torch.float64))


def _labels(network: Denoiser, device: torch.device, count: int = COUNT) -> Tensor | None:
    return None if network.num_classes is None else torch.arange(count, device=device) % network.num_classes


def _raw(network: Denoiser, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
    """TeacherInvalid where the answer is not of the image's shape, or not finite."""
    answer = network.raw(x, t, labels)
    if answer.shape != x.shape:
        raise TeacherInvalid(f"the network answers {list(answer.shape[1:])} to an image of {list(x.shape[1:])}")
    if not bool(answer.isfinite().all()):
        raise TeacherInvalid("the network's answer is not finite: its weights are damaged, or too large")
    return answer


def _answers(network: Denoiser, device: torch.device) -> tuple[float, float]:
    """How much the network's answers are its inputs: to pure noise, and to a smooth image almost without noise."""
    labels = _labels(network, device)
    noise = draw(network.shape, seeded(range(COUNT)), device)
    t = torch.full((COUNT,), network.path.t_max, dtype=torch.float64)
    scaled = network.path.add_noise(torch.zeros_like(noise), noise, t)
    pure = _correlation(_raw(network, scaled, t, labels), scaled)
    smooth = draw(network.shape, seeded(range(COUNT, 2 * COUNT)), device)
    if len(network.shape) == 3:
        smooth = interpolate(smooth[..., :2, :2], size=network.shape[1:], mode="bicubic")
    t = _at(network, LOW, COUNT)
    almost = network.path.add_noise(smooth / smooth.std(), noise, t)
    return pure, _correlation(_raw(network, almost, t, labels), almost)


def _refuse_other_than_flow(pure: float, clean: float) -> None:
    if pure < OPPOSED:
        raise TeacherInvalid(
            "the network answers x0 - eps, where the pipeline of this family takes eps - x0: it was trained with the "
            "other sign; negate the weights and the bias of its last layer and save it again"
        )
    if clean > CLEAR:
        raise TeacherInvalid(
            "the network answers with the image itself, where the pipeline of this family takes the velocity eps - x0: "
            "these are not the weights of this pipeline"
        )


def _prediction(network: Denoiser, pure: float, clean: float, drawn: Tensor) -> Prediction | None:
    """What the network clearly predicts; None where that is not clear."""
    if pure > CLEAR:
        return "eps"
    if clean > CLEAR:
        return "x0"
    if network.prediction != "v":
        other = copy.copy(network)
        other.prediction = "v"
        device = drawn.device
        spec = SamplerSpec.on(network.path, "ddim", [STEPS])
        drawn = sample(other, spec, STEPS, _labels(network, device), seeded(range(COUNT)), device)
    return "v" if _found_again(network, drawn[:COUNT]) > FOUND else None


def _found_again(network: Denoiser, images: Tensor) -> float:
    """How much the answer is v, for images with noise; they are those of the first labels."""
    t = _at(network, MIDDLE, len(images))
    noise = draw(network.shape, seeded(range(len(images))), images.device).flip(0)  # not what they were drawn from
    x = network.path.add_noise(images, noise, t)
    of_images, of_noise = form("v", t, network.path)
    expected = expand(of_images, x) * images + expand(of_noise, x) * noise
    return _correlation(_raw(network, x, t, _labels(network, images.device, len(images))), expected)


def _sign_is_seen(network: EDM, drawn: Tensor) -> bool:
    """Whether the network's answer clearly has the sign that its scheduler says. TeacherInvalid: it has the other."""
    if _noise_found(network, drawn[:COUNT]) > FOUND:
        return True
    other = copy.copy(network)
    other.sign = -network.sign
    spec, device = SamplerSpec.on(network.path, "ddim", [STEPS]), drawn.device
    if _noise_found(other, sample(other, spec, STEPS, _labels(network, device), seeded(range(COUNT)), device)) > FOUND:
        says, answers = EDM_PREDICTIONS if network.sign > 0 else reversed(EDM_PREDICTIONS)
        raise TeacherInvalid(OTHER_TYPE.format(says, answers, answers))
    return False


def _noise_found(network: Denoiser, images: Tensor) -> float:
    """How much the noise that the network sees in images with a little of it is what there is."""
    t = _at(network, LOW, len(images))
    noise = draw(network.shape, seeded(range(len(images))), images.device).flip(0)  # not what they were drawn from
    x = network.path.add_noise(images, noise, t)
    return _correlation(network.predict(x, t, _labels(network, images.device, len(images)), "eps"), noise)


def _guidance(network: Denoiser, device: torch.device) -> float:
    """The largest relative difference between the answers to a label and to none, over the first labels."""
    labels = _labels(network, device)
    assert labels is not None
    x = draw(network.shape, seeded(range(COUNT)), device)
    t = _at(network, MIDDLE, COUNT)
    told = _raw(network, x, t, labels)
    untold = _raw(network, x, t, torch.full_like(labels, network.null_label or 0))
    return float((told - untold).abs().max() / untold.abs().max().clamp(min=1e-12))


def _samples(drawn: Tensor, images: Tensor, scale: float, codec: Coder | None) -> str:
    """What the teacher's samples are like. TeacherInvalid where they are no images."""
    size = drawn.square().mean().sqrt().item()
    hint = ", or guidance_scale is too high" if scale > 1 else ""
    if not size <= trainer.LARGEST_SAMPLE:  # not a number is no size
        raise TeacherInvalid(
            f"the teacher's samples have a size of {size:.3g}, where images are about 1: its scheduler does not fit "
            f"its network{hint}"
        )
    lost = (images.abs() >= 1 if codec is not None else images.abs() > 1.5).float().mean().item()
    if lost > 0.99:
        raise TeacherInvalid(
            f"{lost:.0%} of the pixels of the teacher's samples are black or white: its scheduler does not fit its "
            f"network{hint}"
        )
    return f"samples of size {size:.2f}, {lost:.0%} saturated"


def _round_trip(codec: Coder, images: Tensor) -> tuple[float, float]:
    """Relative error of images that were encoded and decoded, and the standard deviation of their latents."""
    latents = codec.encode(images)
    error = (codec.decode(latents) - images).norm() / (images - images.mean()).norm().clamp(min=1e-12)
    return error.item(), latents.std().item()
