"""A pipeline's folder opened for sampling: a teacher of one of the families, or a student of it."""

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from service.errors import TeacherInvalid
from workers.diffusion.guidance import guided
from workers.diffusion.sampler import GAMMA, SCHEDULER_KINDS, SamplerSpec, draw, sample, seeded
from workers.diffusion.solver import solve
from workers.diffusion.timesteps import even_grid
from workers.models.backbone import Backbone
from workers.models.codec import Codec
from workers.models.conditions import Conditions, Rows, StoredConditions
from workers.models.denoiser import Denoiser

REMEMBERED = 128
"""Prompts whose encodings are kept; one takes a few MB with the largest encoders."""
LORA = "pytorch_lora_weights.safetensors"
"""As diffusers calls it."""


class PipelineModel:
    """A student with the steps it is made for, or a teacher with any. It has the interface of `artifact.Student`.

    Our own sampler runs it, so that an image depends on its own seed alone; some pipelines hand no generator to their
    scheduler. What plain diffusers makes of the folder is `plain`.

    Args:
        steps: empty for a teacher.
        prompts: what labels stand for, or the first of them do, where it takes text. They are encoded on the device.
        offload: whether what encodes prompts and decodes latents is on the device only while it is needed.
    """

    batch = 8
    """Images to make at once."""

    def __init__(
        self,
        family: type[Backbone],
        folder: Path,
        steps: tuple[int, ...],
        prompts: Sequence[str],
        device: torch.device | str = "cpu",
        offload: bool = False,
    ) -> None:
        self.family, self.folder, self.steps, self.offload = family, folder, steps, offload
        absent = {part: None for part in family.optional if not (folder / part).is_dir()} | dict.fromkeys(family.unused)
        try:
            self.pipe: Any = family.pipeline.from_pretrained(
                folder,
                torch_dtype=torch.float32,  # else text encoders have the precision that they were saved with
                use_safetensors=True,
                local_files_only=True,
                **absent,
            )
        except (ValueError, OSError, RuntimeError, KeyError, TypeError, NotImplementedError) as error:
            raise TeacherInvalid(f"the folder does not load as a {family.pipeline.__name__}: {error}") from error
        self.pipe.set_progress_bar_config(disable=True)
        self.prompts = tuple(prompts)
        parts = self.pipe.components.items()
        self.helpers = [part for name, part in parts if isinstance(part, nn.Module) and name != family.part]
        self.device = torch.device(device)
        self.pipe.to(self.device)
        self.denoiser = family.of(self.pipe, list(prompts) or [""]).eval().requires_grad_(False)
        self.text = self.denoiser.conditions is not None
        self._codec = Codec(self.pipe.vae)
        self.scheduler = self.pipe.scheduler
        self.num_classes = self.denoiser.num_classes
        _, height, width = self.denoiser.shape
        factor = self.pipe.vae_scale_factor if hasattr(self.pipe, "vae_scale_factor") else self._codec.factor
        self.image_size: tuple[int, ...] = (3, height * factor, width * factor)
        self._remembered: OrderedDict[str | None, dict[str, Tensor]] = OrderedDict()
        self.to(self.device)
        self.sampler = None
        if steps:
            self.sampler = SamplerSpec.on(self.denoiser.path, SCHEDULER_KINDS[type(self.scheduler).__name__], steps)

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.denoiser.network.parameters())

    @property
    def loads_lora(self) -> bool:
        """Whether the pipeline's class can load low-rank updates, and save them."""
        return hasattr(self.pipe, "load_lora_weights")

    def to(self, device: torch.device | str) -> "PipelineModel":
        """All of it; where it is to `offload`, the network alone."""
        self.device = torch.device(device)
        self.pipe.to(self.device)
        self.denoiser.to(self.device)
        self._away(self.helpers)
        return self

    def tell(self, table: Rows, prompts: Sequence[str]) -> None:
        """Let label i stand for row i of an encoded dataset.

        Args:
            prompts: of the first rows.
        """
        with self.ready(), torch.no_grad():
            null = self.family.null(self.pipe)
        self.denoiser = self.denoiser.told(StoredConditions(table, null))
        self.num_classes, self.prompts = self.denoiser.num_classes, tuple(prompts)

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Rows of prompts [B, ...], see `Backbone.encode`. Within `ready`."""
        return self.family.encode(self.pipe, prompts)

    def ready(self) -> AbstractContextManager[None]:
        """Within, all that encodes is on the device; it is brought there once."""
        return self._here(self.helpers)

    @contextmanager
    def _here(self, helpers: Sequence[nn.Module]) -> Iterator[None]:
        """On the device for as long as they are needed."""
        for helper in helpers:
            helper.to(self.device)
        try:
            yield
        finally:
            self._away(helpers)

    def _away(self, helpers: Sequence[nn.Module]) -> None:
        if self.offload:
            for helper in helpers:
                helper.to("cpu")

    def encode(self, images: Tensor) -> Tensor:
        """Latents of images [B, 3, H, W] in [-1, 1]."""
        with self._here([self._codec.vae]):
            return self._codec.encode(images)

    def decode(self, latents: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [-1, 1]."""
        with self._here([self._codec.vae]):
            return self._codec.decode(latents)

    def generate(
        self, asked: Tensor | Sequence[str] | None, seeds: Sequence[int], steps: int, guidance: float | None = None
    ) -> Tensor:
        """Images float32 [B, 3, H, W] in [-1, 1].

        Args:
            asked: prompts; or labels int64 [B], which are classes or stand for the prompts that it was opened with.
            seeds, steps, guidance: as in `artifact.Student.generate`.
        """
        if asked is None or len(asked) != len(seeds):
            raise ValueError(f"give one {'prompt' if self.text else 'label'} for each of the {len(seeds)} seeds")
        if self.steps and steps not in self.steps:
            raise ValueError(f"this student is made for {list(self.steps)} steps, not {steps}")
        if self.steps and guidance not in (None, 1):
            raise ValueError("guidance is for teachers: a student has it built in")
        denoiser, labels = self._told(asked)
        return self.decode(self._sample(denoiser, labels.to(self.device), seeds, steps, guidance or 1.0))

    def _told(self, asked: Tensor | Sequence[str]) -> tuple[Backbone, Tensor]:
        """The denoiser that knows what is asked for, and the labels by which."""
        if isinstance(asked, Tensor):
            return self.denoiser, asked
        if not self.text:
            raise ValueError(f"this model has {self.num_classes} classes and takes no prompts: give labels")
        prompts = sorted(set(asked))
        rows = [self._encoded(prompt) for prompt in prompts]
        rows.append(rows[0] if self.steps else self._encoded(None))  # nothing leads a student away from anything
        conditions = Conditions({name: torch.cat([row[name] for row in rows]) for name in rows[0]})
        labels = torch.tensor([prompts.index(prompt) for prompt in asked])
        return self.denoiser.told(conditions.to(self.device)), labels

    @torch.no_grad()
    def _encoded(self, prompt: str | None) -> dict[str, Tensor]:
        """The row of a prompt, or of no prompt; the last ones asked for are remembered."""
        if prompt not in self._remembered:
            with self.ready():
                found = self.family.null(self.pipe) if prompt is None else self.family.encode(self.pipe, [prompt])
            self._remembered[prompt] = {name: row.cpu() for name, row in found.items()}
            while len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
        else:
            self._remembered.move_to_end(prompt)
        return self._remembered[prompt]

    @torch.inference_mode()
    def _sample(self, denoiser: Backbone, labels: Tensor, seeds: Sequence[int], steps: int, guidance: float) -> Tensor:
        if self.sampler is not None:
            return sample(denoiser, self.sampler, steps, labels, seeded(seeds), self.device)
        teacher, path = guided(denoiser, guidance), denoiser.path
        noise = draw(denoiser.shape, seeded(seeds), self.device)
        return solve(lambda x, t: teacher.predict(x, t, labels), noise, even_grid(steps), path)

    def write_student(self, folder: Path, network: Denoiser, sampler: SamplerSpec) -> None:
        """The whole pipeline with another network and its scheduler, in safetensors alone."""
        assert isinstance(network, Backbone)
        pipe = copy.copy(self.pipe)  # with its settings, such as what the empty prompt is
        pipe.register_modules(**{self.family.part: network.network, "scheduler": self._scheduler_of(sampler)})
        for part, kind in self.family.unused.items():
            if (self.folder / part).is_dir():
                own = kind.from_pretrained(self.folder / part, use_safetensors=True, local_files_only=True)
                pipe.register_modules(**{part: own})
        pipe.save_pretrained(folder, safe_serialization=True)

    def _scheduler_of(self, sampler: SamplerSpec) -> Any:
        """With which this pipeline runs a student of that sampler."""
        name, config = sampler.scheduler_config(dict(self.scheduler.config))
        return getattr(diffusers, name).from_config(config)

    def write_lora(self, folder: Path, update: Mapping[str, Tensor]) -> None:
        """A low-rank update of the teacher's network alone, in one file that `load_lora_weights` and common tools read.

        Args:
            update: as `low_rank.summed` gives it.
        """
        part = self.family.part
        layers = {
            name.removeprefix("network.").replace(".default.", "."): tensor.cpu().contiguous()
            for name, tensor in update.items()
        }
        if self.loads_lora:
            self.pipe.save_lora_weights(folder, **{f"{part}_lora_layers": layers}, safe_serialization=True)
        else:  # the same, for a class that cannot load it by itself
            named = {f"{part}.{name}": tensor for name, tensor in layers.items()}
            save_file(named, folder / LORA, metadata={"format": "pt"})

    @contextmanager
    def as_student(self, folder: Path, sampler: SamplerSpec) -> Iterator[None]:
        """Within, `plain` is of this pipeline with the scheduler and the low-rank update of the student in `folder`."""
        own = self.pipe
        self.pipe = copy.copy(own)
        self.pipe.register_modules(scheduler=self._scheduler_of(sampler))
        try:
            self.pipe.load_lora_weights(folder, weight_name=LORA, local_files_only=True)
            yield
        finally:
            self.pipe.unload_lora_weights()
            self.pipe = own

    def plain_call(self, sampler: SamplerSpec) -> tuple[str, dict[str, Any]]:
        """The pipeline's class, and the arguments with which it runs the student."""
        eta = {"eta": GAMMA} if sampler.kind == "gamma" else {}
        return self.family.pipeline.__name__, self.family.plain_arguments | eta

    def plain(self, prompts: Sequence[Any], seeds: Sequence[int], steps: int) -> Tensor:
        """What plain diffusers makes of the opened folder: images [B, 3, H, W] in [-1, 1]."""
        with torch.no_grad(), self._here(self.helpers):
            return self.family.plain(self.pipe, list(prompts), seeded(seeds), steps, self.image_size)
