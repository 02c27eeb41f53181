"""Train the digits teacher and the classifier that judges its students: `python -m workers.pretrain`.

Takes about four minutes on one core. The output is what `workers/assets/digits` ships; a run on another machine or
another torch differs in the last digits of the weights, not in quality.
"""

import argparse
import copy
import math
from collections.abc import Iterable
from pathlib import Path

import torch
from diffusers import ConsistencyModelPipeline, DDIMScheduler, UNet2DModel
from rich.console import Console
from rich.progress import track
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from workers.artifact import load_student
from workers.data.digits import NUM_CLASSES, load_digits
from workers.evaluate.classifier import DigitClassifier, save_classifier
from workers.evaluate.evaluator import digits_evaluator

NULL_CLASS = NUM_CLASSES
FEATURE_SPREAD = 100.0  # total variance of the training part's features: a Fréchet distance of 1 is one per cent of it
ASSETS = Path(__file__).parent / "assets" / "digits"


def digits_unet() -> UNet2DModel:
    """An untrained class-conditional U-Net for 8×8 digits; label 10 stands for "no class"."""
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        add_attention=False,
        norm_num_groups=8,
        num_class_embeds=NUM_CLASSES + 1,
    )


def digits_scheduler() -> DDIMScheduler:
    """The teacher's path (cosine, v-prediction) and its own sampler: DDIM from pure noise down to the clean image."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


def cosine(optimizer: torch.optim.Optimizer, iterations: int) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: 0.5 * (1 + math.cos(math.pi * i / iterations)))


def train_classifier(iterations: int, seed: int) -> DigitClassifier:
    """Cross-entropy on the training part, each image shifted by up to a pixel and slightly noised."""
    digits, rng = load_digits(), seeded(seed)
    classifier = DigitClassifier().train()
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = cosine(optimizer, iterations)
    for _ in bar(iterations, "classifier"):
        pick = torch.randint(len(digits.train_images), (64,), generator=rng)
        images = digits.train_images[pick]
        row, column = torch.randint(3, (2,), generator=rng).tolist()
        images = functional.pad(images, (1, 1, 1, 1), value=-1.0)[:, :, row : row + 8, column : column + 8]
        images = images + 0.1 * torch.randn(images.shape, generator=rng)
        loss = functional.cross_entropy(classifier(images), digits.train_labels[pick])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    classifier.eval()
    with torch.no_grad():
        spread = torch.var(classifier.features(digits.train_images), dim=0).sum().item()
        classifier.scale_features(math.sqrt(FEATURE_SPREAD / spread))
    return classifier


def train_teacher(iterations: int, seed: int) -> UNet2DModel:
    """v-prediction (arXiv:2202.00512, appendix D) with a tenth of the labels dropped; returns the averaged weights."""
    digits, rng = load_digits(), seeded(seed)
    unet, scheduler = digits_unet().train(), digits_scheduler()
    averaged = AveragedModel(unet, multi_avg_fn=get_ema_multi_avg_fn(0.995))
    optimizer = torch.optim.AdamW(unet.parameters(), lr=2e-3)
    schedule = cosine(optimizer, iterations)
    for _ in bar(iterations, "teacher"):
        pick = torch.randint(len(digits.train_images), (64,), generator=rng)
        x0, labels = digits.train_images[pick], digits.train_labels[pick].clone()
        labels[torch.rand(64, generator=rng) < 0.1] = NULL_CLASS
        noise = torch.randn(x0.shape, generator=rng)
        t = torch.randint(scheduler.config.num_train_timesteps, (64,), generator=rng)
        v = unet(scheduler.add_noise(x0, noise, t), t, class_labels=labels).sample
        loss = functional.mse_loss(v, scheduler.get_velocity(x0, noise, t))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        averaged.update_parameters(unet)
    return copy.deepcopy(averaged.module).eval()


def seeded(seed: int) -> torch.Generator:
    """A generator for data and noise; the global one, which initial weights and dropout use, is seeded as well."""
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


def bar(iterations: int, name: str) -> Iterable[int]:
    return track(range(iterations), description=f"training the {name}", console=Console(stderr=True))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ASSETS, help="folder to write (default: %(default)s)")
    parser.add_argument("--teacher-iterations", type=int, default=4000)
    parser.add_argument("--classifier-iterations", type=int, default=1500)
    parser.add_argument("--samples", type=int, default=1000, help="images per row of the figures printed at the end")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    arguments.output.mkdir(parents=True, exist_ok=True)

    classifier = train_classifier(arguments.classifier_iterations, arguments.seed)
    save_classifier(classifier, arguments.output / "classifier.safetensors")
    unet = train_teacher(arguments.teacher_iterations, arguments.seed)
    teacher = ConsistencyModelPipeline(unet, digits_scheduler())
    teacher.save_pretrained(arguments.output / "teacher", safe_serialization=True)

    evaluator = digits_evaluator(classifier=arguments.output / "classifier.safetensors")
    for steps in (50, 4, 2, 1):
        figures = evaluator.figures(load_student(arguments.output / "teacher").generate, steps, arguments.samples)
        Console().print(f"teacher at {steps}:", figures.model_dump())


if __name__ == "__main__":
    main()
