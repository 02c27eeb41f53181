"""Students with fewer channels or blocks than their teacher: what they keep, how they train, and what is exported."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel
from pydantic import ValidationError
from rows import ROWS
from torch import Tensor

from service.errors import TeacherInvalid
from service.methods import METHODS
from service.methods.base import FeatureSettings
from service.spec import JobSpec
from service.status import Wish
from workers import artifact, finish, stages
from workers.data.source import Batch
from workers.diffusion.sampler import SamplerSpec
from workers.methods.registry import REGISTRY
from workers.models.mixture import MlpDenoiser, six_modes
from workers.models.smaller import smaller
from workers.models.unet2d import UNetDenoiser, load_teacher
from workers.randomness import BatchRng
from workers.templates.regression import Regression

TEACHER = Path(stages.__file__).parent / "assets" / "digits" / "teacher"
HALF = {"student_width": 0.5, "batch_size": 4}


def unet(channels: tuple[int, ...] = (16, 32), blocks: int = 2, attention: bool = False) -> UNet2DModel:
    torch.manual_seed(0)
    kind = "AttnDownBlock2D" if attention else "DownBlock2D"
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=channels,
        layers_per_block=blocks,
        norm_num_groups=8,
        down_block_types=tuple([kind] * len(channels)),
        up_block_types=tuple([kind.replace("Down", "Up")] * len(channels)),
    )


@pytest.mark.parametrize("attention", [False, True])
def test_with_fewer_blocks_those_that_are_left_keep_their_weights(attention: bool) -> None:
    large = unet(blocks=3, attention=attention)
    small = smaller(large, 1, 0.5)
    assert small.config.layers_per_block == 2
    theirs, own = large.state_dict(), small.state_dict()
    assert torch.equal(own["down_blocks.0.resnets.1.conv1.weight"], theirs["down_blocks.0.resnets.1.conv1.weight"])
    for last in ("up_blocks.0.resnets.{}.conv1.weight", "up_blocks.1.resnets.{}.norm1.bias"):
        assert torch.equal(own[last.format(2)], theirs[last.format(3)]), "the last block stays the last"
        assert torch.equal(own[last.format(1)], theirs[last.format(1)])
    x = torch.randn(2, 1, 8, 8)
    assert small(x, 10, return_dict=False)[0].shape == x.shape


def test_with_fewer_channels_the_first_ones_are_a_start() -> None:
    large = unet()
    small = smaller(large, 0.5, 1)
    assert tuple(small.config.block_out_channels) == (8, 16)
    assert torch.equal(small.conv_in.weight, large.conv_in.weight[:8])
    assert torch.equal(small.conv_out.weight, large.conv_out.weight[:, :8])
    assert small.num_parameters() < large.num_parameters() / 3


@pytest.mark.parametrize(
    ("channels", "blocks", "width", "depth", "message"),
    [
        ((8, 8), 1, 0.5, 1, "leaves none of the .8, 8. channels out, since they go by 8"),
        ((16, 32), 1, 1, 0.5, "leaves no block out, since each resolution has 1: use 1$"),
        ((16, 32), 2, 1, 0.9, "use 1, or a smaller share"),
    ],
)
def test_where_nothing_can_be_left_out_it_says_so(
    channels: tuple[int, ...], blocks: int, width: float, depth: float, message: str
) -> None:
    with pytest.raises(TeacherInvalid, match=message):
        smaller(unet(channels, blocks), width, depth)


@pytest.mark.parametrize("kind", REGISTRY)
def test_every_method_trains_a_smaller_student(kind: str) -> None:
    torch.manual_seed(0)
    settings = METHODS[kind].model_validate(
        {"kind": kind, **ROWS[kind].short, "batch_size": 16, "guidance_scale": 1, "student_width": 0.5}
    )
    teacher = six_modes(MlpDenoiser(width=32))
    method = stages.build(settings, teacher)
    assert method.student.feature_channels == (16, 16)
    for turn, role in enumerate(method.turns(0)):
        rng = BatchRng(0, 0, 0, turn, batch_size=16)
        noise = rng.normal((2,)) if method.data_need == "pairs" else None
        batch = None if method.data_need == "none" else Batch(rng.normal((2,)), None, noise)
        method.loss(role, batch, 0, rng).loss.backward()
    method.after_step()
    assert all(p.grad is not None for p in method.student.parameters())


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []
    monkeypatch.setattr(finish, "export", lambda _, network, *rest, **more: calls.append((network().unet, *rest)))
    return calls


def job(*methods: dict[str, Any]) -> JobSpec:
    fields = {"teacher": "digits", "preview_every": 3, "checkpoint_every": 2, "evaluation": {"teacher_steps": 2}}
    return JobSpec.model_validate({**fields, "stages": [{"method": m} for m in methods]})


CHAIN = (
    {"kind": "progressive", "first_steps": 2, "rung_iterations": 1, "feature_weight": 0.5, **HALF},
    {"kind": "dmd2", "iterations": 2, "fake_updates": 1, "batch_size": 4},
)


def test_a_chain_goes_on_with_the_smaller_student(exported: list[Any], local_host: Any, tmp_path: Path) -> None:
    stages.run(job(*CHAIN), TEACHER, local_host())
    assert [tuple(network.config.block_out_channels) for network, *_ in exported] == [(8, 16)] * 3
    whole = [network.state_dict() for network, *_ in exported]
    exported.clear()

    host = local_host(tmp_path)
    for stop in (1, 5):
        host.stop_at, host.stop_wish = stop, Wish.PAUSE
        assert stages.run(job(*CHAIN), TEACHER, host).step == stop
    host.stop_at = None
    stages.run(job(*CHAIN), TEACHER, host)
    for (network, *_), theirs in zip(exported, whole, strict=True):
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in network.state_dict().items())


def test_a_smaller_student_is_a_folder_of_its_own_size(tmp_path: Path) -> None:
    teacher = artifact.load_student(TEACHER)
    small = teacher.denoiser.smaller(0.5, 1)
    assert isinstance(small, UNetDenoiser)
    sampler = SamplerSpec.on(small.path, "ddim", [2])
    teacher.write_student(tmp_path, small, sampler)
    opened = artifact.open_model(tmp_path, (2,))
    assert opened.parameters == small.unet.num_parameters() < teacher.parameters / 3
    finish.check_same_images(finish.drawn_by(small, sampler, 32, opened.device), opened)


def features(weight: float) -> Regression[Any]:
    torch.manual_seed(0)
    settings = METHODS["reflow"].model_validate({"kind": "reflow", "feature_weight": weight, "student_width": 0.5})
    teacher = load_teacher(TEACHER).requires_grad_(True)
    method = stages.build(settings, teacher)
    assert isinstance(method, Regression)
    return method


def step(method: Regression[Any]) -> dict[str, Tensor]:
    rng = BatchRng(0, batch_size=8)
    batch = Batch(rng.normal((1, 8, 8)), torch.arange(8), rng.normal((1, 8, 8)))
    out = method.loss("student", batch, 0, rng)
    out.loss.backward()
    return out.logs | {"loss": out.loss.detach()}


def test_the_teachers_features_are_learnt_through_a_projection() -> None:
    plain, method = features(0), features(2)
    without, seen = step(plain), step(method)
    torch.testing.assert_close(seen["loss"], without["loss"] + 2 * seen["feature_loss"])
    assert all(p.grad is not None for p in method.projection.parameters())
    assert {id(p) for p in method.projection.parameters()} <= {id(p) for p in method.trainable["student"].parameters()}
    assert all(p.grad is None for p in method.teacher.parameters())
    assert isinstance(method.student, UNetDenoiser)
    moved = method.student.unet.mid_block.resnets[0].conv1.weight.grad
    assert not torch.equal(moved, plain.student.unet.mid_block.resnets[0].conv1.weight.grad)  # type: ignore[union-attr]


def test_features_that_agree_are_no_loss() -> None:
    method = features(1)
    x = torch.randn(4, 1, 8, 8)
    t, labels = torch.full((4,), 0.5, dtype=torch.float64), torch.arange(4)
    at: Any = type("At", (), {"x": x, "t": t, "labels": labels})
    method.student, method.projection = method.teacher, torch.nn.Identity()
    assert method.feature_distance(at).tolist() == [0] * 4


def test_only_where_the_student_regresses_are_features_offered() -> None:
    for kind, settings in METHODS.items():
        if issubclass(settings, FeatureSettings):
            assert issubclass(REGISTRY[kind], Regression)
            assert not REGISTRY[kind].make_student.__qualname__.startswith("KnowsTarget")
    with pytest.raises(ValidationError, match="feature_weight"):
        METHODS["dmd2"].model_validate({"kind": "dmd2", "feature_weight": 1})
