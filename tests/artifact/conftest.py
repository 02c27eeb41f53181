"""Tiny random teachers, and students exported from them."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ConsistencyModelPipeline, DDIMScheduler, UNet2DModel

from service.spec import JobSpec
from workers import finish
from workers.artifact import load_student
from workers.diffusion.sampler import SamplerSpec
from workers.models.unet2d import UNetDenoiser


@dataclass
class RecordingHost:
    """A host that keeps the students it is given in `root`."""

    root: Path
    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    phases: list[str] = field(default_factory=list)
    cache: dict[str, dict[str, Any]] = field(default_factory=dict)
    tensors: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)

    def phase(self, phase: str) -> None:
        self.phases.append(phase)

    def cached(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if key not in self.cache:
            self.made.append(key)
            self.cache[key] = make()
        return self.cache[key]

    def cached_tensors(self, key: str, make: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        if key not in self.tensors:
            self.tensors[key] = make()
        return self.tensors[key]

    def student(self, folder: Path, grid: bytes, record: dict[str, Any]) -> None:
        shutil.copytree(folder, self.root / record["label"])
        (self.root / f"{record['label']}.png").write_bytes(grid)
        self.records[record["label"]] = record


def tiny_unet(channels: int, size: int, embeddings: int | None, seed: int) -> UNet2DModel:
    torch.manual_seed(seed)
    return UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        add_attention=False,
        norm_num_groups=4,
        num_class_embeds=embeddings,
    ).eval()


def save_teacher(folder: Path, unet: UNet2DModel) -> Path:
    scheduler = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )
    ConsistencyModelPipeline(unet, scheduler).save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random class-conditional teacher of 8×8 grey images."""
    return save_teacher(tmp_path_factory.mktemp("teacher"), tiny_unet(1, 8, 11, seed=1))


@pytest.fixture(scope="session")
def large_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random unconditional teacher of 16×16 colour images."""
    return save_teacher(tmp_path_factory.mktemp("large"), tiny_unet(3, 16, None, seed=2))


@dataclass
class Exported:
    """What a job left: students by label, and the networks that they were made from."""

    host: RecordingHost
    networks: dict[str, UNetDenoiser]
    samplers: dict[str, SamplerSpec]

    def folder(self, label: str) -> Path:
        return self.host.root / label


SAMPLERS = {
    "progressive-4": SamplerSpec("ddim", (4,)),
    "progressive-1": SamplerSpec("ddim", (1,)),
    "moment_matching-4": SamplerSpec("ancestral", (4,)),
    "consistency-1": SamplerSpec("renoise", (1, 2, 4)),
    "tcd-4": SamplerSpec("gamma", (4,)),
}


def export_all(root: Path, teacher_folder: Path, samplers: dict[str, SamplerSpec], spec: JobSpec) -> Exported:
    host, networks = RecordingHost(root), {}
    model = load_student(teacher_folder)
    teacher = model.denoiser
    for i, (label, sampler) in enumerate(samplers.items()):
        channels, size, _ = teacher.shape
        embeddings = None if teacher.num_classes is None else teacher.num_classes + 1
        unet = tiny_unet(channels, size, embeddings, seed=10 + i)
        networks[label] = UNetDenoiser(unet, teacher.path, teacher.prediction)
        finish.export(
            model, partial(networks.__getitem__, label), sampler, label.split("-")[0], label, 0, spec, host, 12.5
        )
    return Exported(host, networks, samplers)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, teacher: Path) -> Exported:
    spec = JobSpec.model_validate(
        {
            "teacher": "tiny",
            "method": {"kind": "progressive"},
            "evaluation": {"samples": 100, "teacher_steps": 5},
        }
    )
    return export_all(tmp_path_factory.mktemp("students"), teacher, SAMPLERS, spec)


@pytest.fixture(scope="session")
def exported_large(tmp_path_factory: pytest.TempPathFactory, large_teacher: Path) -> Exported:
    spec = JobSpec.model_validate(
        {"teacher": "large", "method": {"kind": "dmd2"}, "evaluation": {"samples": 100, "teacher_steps": 3}}
    )
    return export_all(tmp_path_factory.mktemp("large"), large_teacher, {"dmd2-1": SamplerSpec("ddim", (1,))}, spec)
