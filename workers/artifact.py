"""Model folders: a student written out, and students and teachers opened for sampling.

A folder is what plain diffusers reads: `model_index.json`, `unet/` and `scheduler/`, weights in safetensors alone. A
student's folder has a `manifest.json` as well, with the SHA-256 of every other file. Nothing is ever unpickled, and no
code is taken from a folder.
"""

import hashlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EDMEulerScheduler, LCMScheduler, TCDScheduler, UNet2DModel

from workers.diffusion.paths import VPDiscrete
from workers.diffusion.sampler import SamplerSpec, draw, seeded
from workers.families.edm import is_edm, open_edm
from workers.families.registry import family_of
from workers.machine import hashed_once
from workers.models.denoiser import Denoiser
from workers.models.stock import PREDICTION_TYPES
from workers.models.unet2d import UNetDenoiser, load_teacher, scheduler_config
from workers.pipeline_model import PipelineModel
from workers.progress import Progress

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
SCHEDULERS = {s.__name__: s for s in (DDIMScheduler, DDPMScheduler, LCMScheduler, TCDScheduler, EDMEulerScheduler)}
PICKLES = {".bin", ".ckpt", ".pkl", ".pickle", ".pt", ".pth", ".joblib", ".npy", ".npz"}
CODE = {".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".sh"}


class FolderInvalid(ValueError):
    """A model folder that is not loaded, and why."""


def write_model(folder: Path, unet: UNet2DModel, sampler: SamplerSpec, teacher_scheduler: dict[str, Any]) -> None:
    """Write the diffusers part of a student's folder: it loads as a `ConsistencyModelPipeline`.

    Args:
        teacher_scheduler: config of the teacher's scheduler, whose noise schedule the student keeps.
    """
    name, config = sampler.scheduler_config(teacher_scheduler)
    unet.save_pretrained(folder / "unet", safe_serialization=True)
    SCHEDULERS[name].from_config(config).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "ConsistencyModelPipeline",
        "_diffusers_version": diffusers.__version__,
        "scheduler": ["diffusers", name],
        "unet": ["diffusers", "UNet2DModel"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def write_manifest(folder: Path, sampler: SamplerSpec, about: dict[str, Any]) -> str:
    """Seal the folder: list every file with its hash beside `about` (JSON-able). Returns the manifest's own SHA-256."""
    manifest = {
        "format": "fewstep-student",
        "format_version": FORMAT_VERSION,
        "sampler": {"kind": sampler.kind, "steps": list(sampler.steps)},
        **about,
        "files": {name: file_sha256(folder / name) for name in files_of(folder)},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return file_sha256(folder / MANIFEST)


class Student:
    """A folder opened for sampling: a student with the steps it is made for, or a teacher with any.

    A teacher is run like its own students of as many steps, whatever scheduler its folder names: by DDIM or, under
    EDM's preconditioning, by Euler steps.

    Attributes:
        scheduler: a student's; a teacher's for one step.
        steps: allowed numbers of sampling steps, the default first; empty means any (a teacher).
        num_classes: classes that may be asked for; None for an unconditional model.
        image_size: (channels, height, width).
    """

    batch = 250
    """Images to make at once."""
    text = False
    prompts: tuple[str, ...] = ()

    def __init__(
        self, folder: Path, denoiser: UNetDenoiser, scheduler: Any = None, steps: tuple[int, ...] = ()
    ) -> None:
        self.folder, self.denoiser, self.unet = folder, denoiser, denoiser.unet
        self.steps, self.scheduler = steps, scheduler or self.teachers_scheduler(1)
        self.num_classes, self.null_label = denoiser.num_classes, denoiser.null_label
        self.image_size: tuple[int, ...] = denoiser.shape
        self.device = torch.device("cpu")  # asking the network goes through all of its parameters
        self._one_at_a_time = threading.Lock()  # the scheduler keeps its place in the schedule

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.unet.parameters())

    def to(self, device: torch.device | str) -> "Student":
        self.unet.to(device)
        self.device = torch.device(device)
        return self

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """What the network sees of images: themselves."""
        return images

    def decode(self, images: torch.Tensor) -> torch.Tensor:
        """The images themselves: the network works on pixels."""
        return images

    def teachers_scheduler(self, steps: int) -> Any:
        """That of a deterministic student of a teacher's, for so many steps."""
        spec = SamplerSpec.on(self.denoiser.path, "ddim", (steps,))
        name, config = spec.scheduler_config(scheduler_config(self.folder))
        return SCHEDULERS[name].from_config(config)

    def write_student(self, folder: Path, network: Denoiser, sampler: SamplerSpec) -> None:
        """Write a student of this teacher."""
        assert isinstance(network, UNetDenoiser)
        write_model(folder, network.unet, sampler, scheduler_config(self.folder))

    @torch.inference_mode()
    def generate(
        self,
        asked: torch.Tensor | Sequence[str] | None,
        seeds: Sequence[int],
        steps: int,
        guidance: float | None = None,
    ) -> torch.Tensor:
        """Images float32 [B, C, H, W] in [-1, 1]; each depends on its own label and seed alone, not on the batch.

        Args:
            asked: labels int64 [B] in 0 … num_classes - 1; None for an unconditional model.
            seeds: B numbers; the same seed gives plain diffusers the same image.
            steps: network calls per image.
            guidance: scale g of u + g(c - u) for a teacher; a student has its guidance built in and takes None.
        """
        if not (asked is None or isinstance(asked, torch.Tensor)):
            raise ValueError("this model takes no prompts: give labels")
        labels = asked
        self._check(labels, len(seeds), steps, guidance)
        with self._one_at_a_time:
            generators = seeded(seeds)
            x = draw(self.image_size, generators, self.device)
            labels = None if labels is None else labels.to(self.device)
            guided = guidance is not None and guidance != 1
            if guided and labels is not None and self.null_label is not None:
                labels = torch.cat([labels, torch.full_like(labels, self.null_label)])
            scheduler = self.scheduler if self.steps else self.teachers_scheduler(steps)
            scheduler.set_timesteps(steps)
            x = x * scheduler.init_noise_sigma
            for t in scheduler.timesteps:
                seen = scheduler.scale_model_input(torch.cat([x, x]) if guided else x, t)
                out = self.unet(seen, t, class_labels=labels, return_dict=False)[0]
                if guidance is not None and guided:
                    conditional, unconditional = out.chunk(2)
                    out = unconditional + guidance * (conditional - unconditional)
                x = scheduler.step(out, t, x, generator=generators, return_dict=False)[0]
        return x.clamp(-1, 1)

    def _check(self, labels: torch.Tensor | None, batch: int, steps: int, guidance: float | None) -> None:
        if self.steps and steps not in self.steps:
            raise ValueError(f"this student is made for {list(self.steps)} steps, not {steps}")
        if self.steps and guidance not in (None, 1):
            raise ValueError("guidance is for teachers: a student has it built in")
        if guidance not in (None, 1) and self.null_label is None:
            raise ValueError("this model is unconditional, so there is nothing to guide to: leave guidance out")
        if labels is None and self.num_classes is not None:
            raise ValueError(f"this model has {self.num_classes} classes: give one label per image")
        if labels is not None and self.num_classes is None:
            raise ValueError("this model is unconditional: leave the labels out")
        if labels is not None and self.num_classes is not None:
            if len(labels) != batch:
                raise ValueError(f"{len(labels)} labels for {batch} seeds")
            if batch and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
                raise ValueError(f"labels must lie in 0 … {self.num_classes - 1}")


Model = Student | PipelineModel


def load_student(
    folder: Path, prompts: Sequence[str] = (), device: torch.device | str = "cpu", offload: bool = False
) -> Model:
    """Open a student's or a teacher's folder; a student's is checked against its manifest first.

    `prompts` are what labels stand for, where the model takes text; `offload` as in `PipelineModel`.

    Raises:
        FolderInvalid: pickles or code in the folder, a file missing, changed or unlisted, parts of an unknown kind.
        TeacherInvalid: a part is missing or does not load.
    """
    refuse_pickles_and_code(folder)
    manifest = read_manifest(folder)
    if manifest is not None:
        check_files(folder, manifest["files"])
        return open_model(folder, tuple(manifest["sampler"]["steps"]), prompts, device, offload)
    if (family := family_of(folder)) is not None:
        return PipelineModel(family, folder, (), prompts, device, offload)
    return Student(folder, open_edm(folder) if is_edm(folder) else load_teacher(folder)).to(device)


def open_model(
    folder: Path,
    steps: tuple[int, ...],
    prompts: Sequence[str] = (),
    device: torch.device | str = "cpu",
    offload: bool = False,
) -> Model:
    """Open the diffusers part of a student's folder; nothing is checked against a manifest."""
    if (family := family_of(folder)) is not None:
        return PipelineModel(family, folder, steps, prompts, device, offload)
    kind = json.loads((folder / "model_index.json").read_text())["scheduler"]
    if kind[0] != "diffusers" or kind[1] not in SCHEDULERS:
        raise FolderInvalid(f"model_index.json names the scheduler {kind}: expected one of {sorted(SCHEDULERS)}")
    scheduler = SCHEDULERS[kind[1]].from_pretrained(folder / "scheduler")
    if isinstance(scheduler, EDMEulerScheduler):
        return Student(folder, open_edm(folder), scheduler, steps).to(device)
    unet = UNet2DModel.from_pretrained(folder / "unet", use_safetensors=True, low_cpu_mem_usage=False)
    prediction = PREDICTION_TYPES[scheduler.config.prediction_type]
    denoiser = UNetDenoiser(unet, VPDiscrete(scheduler.alphas_cumprod), prediction).eval().requires_grad_(False)
    return Student(folder, denoiser, scheduler, steps).to(device)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """A student's manifest, or None for a folder without one."""
    file = folder / MANIFEST
    if not file.exists():
        return None
    try:
        manifest: dict[str, Any] = json.loads(file.read_text())
        version = manifest["format_version"]
        ok = manifest["format"] == "fewstep-student" and isinstance(manifest["files"], dict)
    except (ValueError, KeyError, TypeError) as error:
        raise FolderInvalid(f"{MANIFEST} is not a student's manifest: {error!r}") from error
    if not ok:
        raise FolderInvalid(f"{MANIFEST} is not a student's manifest")
    if version != FORMAT_VERSION:
        raise FolderInvalid(f"{MANIFEST} has format_version {version}; this Fewstep reads {FORMAT_VERSION}")
    return manifest


def check_files(folder: Path, listed: dict[str, str]) -> None:
    """Refuse the folder unless its files are the listed ones, byte for byte. Hidden files are left out of account."""
    found = set(files_of(folder))
    if missing := sorted(set(listed) - found):
        raise FolderInvalid(f"files are missing that {MANIFEST} lists: {', '.join(missing)}; copy the folder again")
    if unlisted := sorted(found - set(listed)):
        raise FolderInvalid(f"files are there that {MANIFEST} does not list: {', '.join(unlisted)}; remove them")
    for name, sha256 in listed.items():
        if file_sha256(folder / name) != sha256:
            raise FolderInvalid(f"{name} is not the file that {MANIFEST} lists: it was changed; copy the folder again")


def refuse_pickles_and_code(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.suffix.lower() in PICKLES:
            raise FolderInvalid(
                f"{file.relative_to(folder)} may hold a pickle, which can run code when it is read: "
                "save the weights with safe_serialization=True and remove it"
            )
        if file.suffix.lower() in CODE:
            raise FolderInvalid(f"{file.relative_to(folder)} is code, and none is taken from a model folder: remove it")


def files_of(folder: Path) -> list[str]:
    """Relative paths of all files but the manifest and hidden ones, sorted."""
    relative = (file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    return sorted(
        name.as_posix()
        for name in relative
        if name.as_posix() != MANIFEST and not any(part.startswith(".") for part in name.parts)
    )


def folder_sha256(folder: Path, progress: Progress | None = None) -> str:
    """One hash for all of a teacher's files that decide its images; a large folder is read once on each machine."""

    def line(name: str) -> str:
        sha256 = file_sha256(folder / name)
        if progress is not None:
            progress.add((folder / name).stat().st_size)
        return f"{sha256}  {name}\n"

    def read() -> str:
        names = [name for name in files_of(folder) if name.endswith((".json", ".safetensors"))]
        return hashlib.sha256("".join(map(line, names)).encode()).hexdigest()

    return hashed_once("files", folder, read)


def file_sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
