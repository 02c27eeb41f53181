"""Networks split between two workers: the same numbers as whole ones, and checkpoints that move between both."""

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny_sd3
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from diffusers import DDPMScheduler, UNet2DModel
from safetensors import safe_open
from torch import Tensor

from service.methods import METHODS
from service.spec import Compute, JobSpec
from service.status import Wish
from workers import stages
from workers.data.source import ImageSource
from workers.diffusion.guidance import guided
from workers.diffusion.paths import VPDiscrete
from workers.families.sd3 import SD3
from workers.methods.registry import REGISTRY
from workers.models.denoiser import Denoiser
from workers.models.unet2d import UNetDenoiser
from workers.rows import own
from workers.state import State, read
from workers.trainer import Cadence, Trainer

SHORT: dict[str, Any] = {"batch_size": 4, "learning_rate": 1e-4, "iterations": 4}
CONSISTENCY = {"kind": "consistency", **SHORT}
DMD2 = {"kind": "dmd2", "steps": 2, "fake_updates": 1, "gan_weight": 0.1, "fake_learning_rate": 1e-4, **SHORT}
LADD = {"kind": "ladd", "critic_updates": 1, "critic_learning_rate": 1e-4, **SHORT}
CHAIN = [
    {"kind": "progressive", "first_steps": 2, "rung_iterations": 2, "batch_size": 4, "learning_rate": 1e-4},
    {"kind": "meanflow", "iterations": 2, "batch_size": 4, "learning_rate": 1e-4, "velocity": "data"},
]
"""Two students in one stage, then one that is told a second time and folded into the teacher's format."""


class Alone:
    """The host of one worker, on a folder of all of them."""

    device = torch.device("cpu")

    def __init__(self, folder: Path, rank: int, world_size: int, stop_at: int | None = None) -> None:
        self.folder, self.rank, self.world_size, self.stop_at = folder, rank, world_size, stop_at
        self.steps: dict[int, dict[str, float]] = {}
        self.samples: list[tuple[int, str]] = []

    def phase(self, phase: str) -> None:
        pass

    def log(self, level: str, message: str) -> None:
        pass

    def metrics(self, step: int, stage: int, values: dict[str, float]) -> None:
        self.steps[step] = values

    def sample(self, step: int, stage: int, role: str, sampling_steps: int, png: bytes) -> None:
        self.samples.append((step, role))

    def save_checkpoint(self, step: int, folder: Path) -> None:
        shutil.copytree(folder, self.folder / f"{step:08d}", dirs_exist_ok=True)
        if dist.is_initialized():
            dist.barrier()

    @contextmanager
    def latest_checkpoint(self) -> Iterator[Path | None]:
        yield max(self.folder.glob("0*"), default=None)

    def wish(self) -> Wish:
        return Wish.PAUSE if self.stop_at is not None and max(self.steps, default=0) >= self.stop_at else Wish.RUN


def unet() -> Denoiser:
    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        num_class_embeds=11,
    )
    return UNetDenoiser(network, VPDiscrete(DDPMScheduler().alphas_cumprod), "v").eval().requires_grad_(False)


def sd3() -> Denoiser:
    return SD3.of(tiny_sd3.sd3(), [f"prompt {letter}" for letter in "abcdefghij"]).eval().requires_grad_(False)


TEACHERS: dict[str, Callable[[], Denoiser]] = {"unet": unet, "sd3": sd3}
CASES = {
    "unet, dmd2": ("unet", DMD2),
    "sd3, consistency": ("sd3", CONSISTENCY),
    "unet, consistency": ("unet", CONSISTENCY),
    "sd3, dmd2": ("sd3", DMD2),
    "sd3, ladd": ("sd3", LADD),
    "unet, low-rank dmd2": ("unet", DMD2 | {"lora_rank": 2, "fake_lora_rank": 2}),
    "sd3, low-rank consistency": ("sd3", CONSISTENCY | {"lora_rank": 2}),
}
ALWAYS, BY_HAND = list(CASES)[:1], list(CASES)[1:]


def trainer(case: str, host: Any, state: State, strategy: str, **compute: Any) -> Trainer:
    name, method = CASES[case]
    teacher = TEACHERS[name]()
    rng = torch.Generator().manual_seed(1)
    images = ImageSource(torch.randn(16, *teacher.shape, generator=rng), torch.arange(16) % 10)
    torch.manual_seed(2)
    settings = METHODS[method["kind"]](**method)
    built = REGISTRY[settings.kind](settings, guided(teacher, 2.0), teacher)
    return Trainer(built, images, host, state, Cadence(2, 100), 7, None, Compute(strategy=strategy, **compute))


def run(case: str, strategy: str, folder: Path, rank: int = 0, world_size: int = 1, stop: int | None = None) -> None:
    """From where `folder` stands to the end, or to step `stop`; what it comes to is in the folder afterwards."""
    host = Alone(folder, rank, world_size, stop)
    with host.latest_checkpoint() as checkpoint:
        state = read(checkpoint) if checkpoint else State()
    trained = trainer(case, host, state, strategy)
    assert trained.run() is (None if stop is None else Wish.PAUSE)
    if rank == 0:
        (folder / f"losses-{stop}.json").write_text(json.dumps([values["loss"] for values in host.steps.values()]))
    if strategy == "fsdp" and world_size == 2:
        for network in (trained.method.student, trained.average, trained.method.teacher):
            parameters = list(network.parameters())
            held = sum(own(parameter).numel() for parameter in parameters)
            assert held < 0.65 * sum(parameter.numel() for parameter in parameters), "each worker holds about a half"


def chain(host: Alone) -> State:
    compute, resources = {"strategy": "fsdp"}, {"workers": host.world_size}
    spec = JobSpec.model_validate(
        {
            "teacher": "digits",
            "stages": [{"method": method} for method in CHAIN],
            "compute": compute,
            "resources": resources,
            "preview_every": 3,
            "evaluation": {"teacher_steps": 2},
        }
    )
    state = State()
    assert stages.train(spec, unet(), host, state) is None  # type: ignore[arg-type]
    return state


def worker(rank: int, port: int, folder: str, cases: list[str]) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    for case in cases:
        at = Path(folder) / case
        run(case, "ddp", at / "two whole", rank, 2)
        run(case, "fsdp", at / "two split", rank, 2)
        run(case, "fsdp", at / "two, split, stopped", rank, 2, stop=2)
        if rank == 0:
            shutil.copytree(at / "two, split, stopped", at / "one from two")
        dist.barrier()
        run(case, "fsdp", at / "two, split, stopped", rank, 2)
        run(case, "fsdp", at / "two from one", rank, 2)
    host = Alone(Path(folder) / "chain", rank, 2)
    chain(host)
    if rank == 0:
        (Path(folder) / "chain.json").write_text(json.dumps({"steps": host.steps, "samples": host.samples}))
    assert rank == 0 or not host.samples
    dist.destroy_process_group()


def spread(folder: Path, cases: list[str]) -> Path:
    """Run every case in every way, each in a folder of its own."""
    for case in cases:
        run(case, "ddp", folder / case / "one")
        run(case, "ddp", folder / case / "two from one", stop=2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, (port, str(folder), cases), nprocs=2)
    for case in cases:
        run(case, "ddp", folder / case / "one from two")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return spread(tmp_path_factory.mktemp("shard"), ALWAYS)


def end(folder: Path) -> dict[str, Tensor]:
    """Students' weights and all that was still changing."""
    state = read(folder / "00000004")
    finished = {f"finished {i} {k}": v for i, student in enumerate(state.finished) for k, v in student.weights.items()}
    assert finished
    return dict(state.live) | finished


def losses(folder: Path, stop: int | None = None) -> list[float]:
    return list(json.loads((folder / f"losses-{stop}.json").read_text()))


def same(a: Path, b: Path, tolerance: float) -> None:
    """All that two runs came to is the same within `tolerance`."""
    found, expected = end(a), end(b)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=tolerance, msg=f"{name}, {a}")


def check_equal(at: Path) -> None:
    for other in ("two whole", "one"):
        assert losses(at / "two split") == pytest.approx(losses(at / other), abs=1e-4)
        same(at / "two split", at / other, 1e-4)


def check_resumed(at: Path) -> None:
    assert losses(at / "two, split, stopped", 2) + losses(at / "two, split, stopped") == losses(at / "two split")
    same(at / "two, split, stopped", at / "two split", 0)


def check_moved(at: Path) -> None:
    for moved in ("one from two", "two from one"):
        assert losses(at / moved) == pytest.approx(losses(at / "one")[2:], abs=1e-4)
        same(at / moved, at / "one", 1e-4)


@pytest.mark.parametrize("case", ALWAYS)
def test_split_networks_equal_whole_ones_and_one_worker(case: str, folder: Path) -> None:
    check_equal(folder / case)


@pytest.mark.parametrize("case", ALWAYS)
def test_a_split_checkpoint_resumes_bit_for_bit_on_as_many_workers(case: str, folder: Path) -> None:
    check_resumed(folder / case)


@pytest.mark.parametrize("case", ALWAYS)
def test_a_checkpoint_moves_between_split_and_whole_and_other_numbers_of_workers(case: str, folder: Path) -> None:
    check_moved(folder / case)


@pytest.mark.slow
def test_all_of_it_holds_for_other_networks_and_methods(tmp_path: Path) -> None:
    spread(tmp_path, BY_HAND)
    for case in BY_HAND:
        check_equal(tmp_path / case)
        check_resumed(tmp_path / case)
        check_moved(tmp_path / case)


def test_every_worker_writes_its_own_half_of_a_checkpoint(folder: Path) -> None:
    checkpoint = folder / "unet, dmd2" / "two split" / "00000002"
    assert sorted(path.name for path in checkpoint.iterdir()) == [
        "state.1.safetensors",
        "state.json",
        "state.safetensors",
    ]
    first, second = (checkpoint / name for name in ("state.safetensors", "state.1.safetensors"))
    assert second.stat().st_size > 0.8 * first.stat().st_size
    for kind in ("net/student/", "net/fake/", "net/average/", "optimizer/student/", "optimizer/fake/"):
        with safe_open(second, framework="pt") as file:
            assert any(key.startswith(f"live/{kind}") for key in file.keys())  # noqa: SIM118  safe_open is no mapping
    second.rename(second.with_suffix(".away"))
    with pytest.raises(FileNotFoundError):
        read(checkpoint)
    second.with_suffix(".away").rename(second)
    assert read(checkpoint).step == 2


def test_only_the_rows_that_are_asked_for_are_read(folder: Path) -> None:
    saved = read(folder / "unet, dmd2" / "two split" / "00000002").live
    name = "net/student/unet.conv_in.weight"
    for start, stop in [(0, 8), (0, 3), (3, 5), (5, 8), (8, 8)]:
        assert torch.equal(saved.rows(name, start, stop), saved[name][start:stop])  # type: ignore[attr-defined]


def test_previews_and_students_of_split_networks_are_those_of_whole_ones(folder: Path, tmp_path: Path) -> None:
    """Through two stages, with weights that are folded into others at the end."""
    host = Alone(tmp_path, 0, 1)
    whole = chain(host)
    told = json.loads((folder / "chain.json").read_text())
    assert [tuple(sample) for sample in told["samples"]] == host.samples
    assert host.samples[:2] == [(0, "teacher"), (0, "student")]
    assert host.samples[-1] == (max(host.steps), "student")
    for step, values in host.steps.items():
        split = told["steps"][str(step)]
        assert split.keys() == values.keys()
        for name in values.keys() & {"loss", "sample_size", "sample_saturation", "sample_diversity"}:
            assert split[name] == pytest.approx(values[name], abs=1e-3), (step, name)
    split_state = read(max((folder / "chain").glob("0*")))
    assert [student.label for student in split_state.finished] == [student.label for student in whole.finished]
    for a, b in zip(split_state.finished, whole.finished, strict=True):
        for name, tensor in b.weights.items():
            torch.testing.assert_close(a.weights[name], tensor, rtol=0, atol=1e-4)
