"""Low-rank updates: they start as no change, train alone on weights that all networks share, and merge at export."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from learning import learn
from pydantic import ValidationError
from rows import ROWS
from test_core_sampler import small_folder
from torch import Tensor, nn

from service.errors import TeacherInvalid
from service.methods import METHODS
from service.methods.guidance import GuidanceSettings
from service.methods.lcm import LCMSettings
from service.methods.tract import TractSettings
from service.spec import JobSpec
from service.status import Wish
from workers import finish, shard, stages
from workers.data.source import ImageSource
from workers.live import collect
from workers.methods.guidance import Guidance
from workers.methods.lcm import LCM
from workers.models.low_rank import A, B, merged, only_updates, summed, updated_layers
from workers.models.unet2d import UNetDenoiser, load_teacher
from workers.state import State
from workers.templates.scores import ScoreMatching
from workers.trainer import Cadence, Trainer

X = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
T = torch.tensor([0.2, 0.6, 1.0], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 2])
DMD2 = {"kind": "dmd2", "iterations": 2, "steps": 2, "fake_updates": 1, "gan_weight": 0.1, "guidance_scale": 2}
IMAGES = ImageSource(torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 4)


@pytest.fixture
def teacher(tmp_path: Path) -> UNetDenoiser:
    return load_teacher(small_folder(tmp_path))


def moved(network: Any) -> Any:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network


@torch.no_grad()
def answer(network: Any) -> Tensor:
    return network.raw(X, T, LABELS)


def numbers(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def held(*modules: nn.Module) -> int:
    """Bytes of all parameters and buffers, each storage once."""
    tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    return sum({tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}.values())


def trainer(settings: Any, teacher: UNetDenoiser, host: Any, images: ImageSource | None = IMAGES) -> Trainer:
    torch.manual_seed(0)
    method = stages.build(settings, teacher)
    return Trainer(method, images if method.data_need == "images" else None, host, State(), Cadence(100, 100), seed=0)


def settings(**fields: Any) -> Any:
    return METHODS[fields["kind"]].model_validate({"batch_size": 4, **fields})


def test_a_new_update_changes_nothing_and_is_all_the_state_there_is(teacher: UNetDenoiser) -> None:
    student = teacher.with_low_rank(2)
    torch.testing.assert_close(answer(student), answer(teacher), rtol=0, atol=1e-6)
    assert student.state_dict().keys() == dict(student.named_parameters()).keys()
    assert only_updates(student.state_dict())
    changed = {f"{layer}.weight" for layer in updated_layers(student.state_dict())}
    whole = {name for name, tensor in teacher.state_dict().items() if name.endswith("weight") and tensor.ndim > 1}
    assert whole - changed == {
        "unet.class_embedding.weight",
        "unet.time_embedding.linear_1.weight",
        "unet.time_embedding.linear_2.weight",
    }


def test_what_updates_of_one_network_are_added_to_is_brought_to_a_device_once(teacher: UNetDenoiser) -> None:
    student, fake = teacher.with_low_rank(2), teacher.with_low_rank(3).trainable_copy()
    average = student.frozen_copy()
    shard._bring_constants([student, average, fake], torch.device("meta"))
    for name, weight in student.named_buffers():
        assert weight.is_meta
        assert dict(average.named_buffers())[name] is dict(fake.named_buffers())[name] is weight


def test_updates_merged_are_a_stock_network_with_the_same_answers(teacher: UNetDenoiser) -> None:
    student = moved(teacher.with_low_rank(2))
    plain = merged(teacher.frozen_copy(), student.state_dict())
    assert plain.state_dict().keys() == teacher.state_dict().keys()
    torch.testing.assert_close(answer(plain), answer(student), rtol=0, atol=1e-5)
    assert (answer(plain) - answer(teacher)).abs().max() > 0.05
    with pytest.raises(RuntimeError, match=r"unet\.nothing"):
        merged(teacher.frozen_copy(), student.state_dict() | {"unet.nothing": torch.ones(1)})


def test_updates_one_after_another_are_one_of_their_ranks_together(teacher: UNetDenoiser) -> None:
    first = moved(teacher.with_low_rank(2))
    between = merged(teacher.frozen_copy(), first.state_dict())
    second = moved(between.with_low_rank(3, ["conv1", "conv_in"]))
    both = summed([first.state_dict(), second.state_dict()])
    assert {len(tensor) for name, tensor in both.items() if name.endswith(A)} == {5}
    assert {tensor.shape[1] for name, tensor in both.items() if name.endswith(B)} == {5}
    torch.testing.assert_close(answer(merged(teacher.frozen_copy(), both)), answer(second), rtol=0, atol=1e-5)


def test_a_job_holds_the_teachers_weights_once(teacher: UNetDenoiser, local_host: Any) -> None:
    whole = trainer(settings(**DMD2), teacher, local_host())
    low = trainer(settings(**DMD2, lora_rank=2, fake_lora_rank=2), teacher, local_host())
    lcm = trainer(settings(kind="lcm", iterations=1, lora_rank=2), teacher, local_host())
    base = held(teacher)

    def of(run: Trainer) -> int:
        return held(teacher, run.average, *run.method.trainable.values(), *run.method.followers.values())

    assert of(whole) > 3.9 * base
    ufogen = trainer(settings(kind="ufogen", iterations=1, lora_rank=2, critic_lora_rank=2), teacher, local_host())
    for run in (low, lcm, ufogen):
        own = {id(p): p for module in run._modules().values() for p in module.parameters()}
        assert of(run) - base <= 4 * numbers(own.values()) + 100, "only parameters are added, and a few scalars"
    assert of(lcm) < 2.2 * base, "with rank 2 of 4 to 8 channels: student, average and target"


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_job_holds_the_teachers_weights_once_however_they_lie(
    teacher: UNetDenoiser, channels_last: bool, local_host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []

    def kept(method: Any, *rest: Any) -> Any:
        made.append(method)
        return SimpleNamespace(run=lambda: Wish.PAUSE)

    monkeypatch.setattr(stages, "Trainer", kept)
    monkeypatch.setattr(stages, "image_source", lambda teacher: IMAGES)
    method = {"kind": "lcm", "iterations": 1, "batch_size": 4, "lora_rank": 1}
    spec = JobSpec.model_validate({"teacher": "t", "method": method, "compute": {"channels_last": channels_last}})
    stages.train(spec, teacher, local_host(), State())
    (method,) = made
    weight = method.student.unet.mid_block.resnets[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) is channels_last
    assert held(teacher, method.student, method.reference) < 1.4 * held(teacher)


@pytest.mark.parametrize("stage", [DMD2, {"kind": "tract", "phase_iterations": 1}], ids=["dmd2", "tract"])
def test_the_shared_weights_stay_as_they_are(teacher: UNetDenoiser, stage: dict[str, Any], local_host: Any) -> None:
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    start = answer(teacher)
    more = {"fake_lora_rank": 2} if stage["kind"] == "dmd2" else {}
    run = trainer(settings(**stage, **more, lora_rank=2), teacher, local_host())
    run.run()
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert not torch.equal(answer(run.method.student), start)
    assert all(only_updates(student.weights) for student in run.state.finished)
    if isinstance(run.method, ScoreMatching):
        whole = {name for name in run.method.fake.state_dict() if not name.endswith((A, B))}
        assert whole == {"unet.class_embedding.weight"}, "what tells the exits apart is new, and trained whole"


def test_a_checkpoint_grows_with_the_rank_and_not_with_the_network(teacher: UNetDenoiser, local_host: Any) -> None:
    def saved(rank: int) -> int:
        run = trainer(settings(kind="consistency", iterations=1, lora_rank=rank), teacher, local_host())
        run.run()
        live = collect(run._modules(), run.optimizers)
        return numbers(live.values()) + numbers(run.state.finished[0].weights.values())

    whole, one, two = saved(0), saved(1), saved(2)
    assert one < two < 2 * one + 100
    assert one < whole / 7, "of layers of 8 channels; those of published networks have hundreds"


def test_a_student_with_one_scale_to_learn_is_told_nothing(teacher: UNetDenoiser) -> None:
    for method in (
        LCM(LCMSettings(guidance_scale=2), teacher, teacher),
        Guidance(GuidanceSettings(low_guidance=2, high_guidance=2, guidance_scale=2), teacher, teacher),
    ):
        assert not method.student.knows_target
        ((_, network),) = method.students(0, method.student)
        assert network is method.student
        assert not method.settings.own_network()
    assert LCM(LCMSettings(guidance_spread=1), teacher, teacher).student.knows_target
    assert LCMSettings(guidance_spread=1).own_network()


def test_a_told_student_leaves_its_updates_and_the_layer_that_it_is_folded_into(teacher: UNetDenoiser) -> None:
    method = LCM(LCMSettings(lora_rank=2, guidance_spread=0.5), teacher, teacher)
    student = moved(method.student)
    ((spec, network),) = method.students(0, student)
    learnt = network.state_dict()
    folded = {f"unet.time_embedding.linear_2.{name}" for name in ("weight", "bias")}
    assert {name for name in learnt if not name.endswith((A, B))} <= folded
    plain = merged(teacher.frozen_copy(), learnt)
    t = torch.tensor([spec.times(4)[1][0]] * 3, dtype=torch.float64)
    told = student.raw(X, t, LABELS, torch.full_like(t, 0.5))
    torch.testing.assert_close(plain.raw(X, t, LABELS), told, rtol=0, atol=1e-4)
    assert (teacher.raw(X, t, LABELS) - told).abs().max() > 0.05
    with pytest.raises(TeacherInvalid, match="must leave out linear_1 and linear_2"):
        LCM(LCMSettings(lora_rank=2, guidance_spread=0.5, lora_targets=["linear_1"]), teacher, teacher)


def test_a_chain_of_updates_starts_from_the_merged_network_and_leaves_one_update(
    teacher: UNetDenoiser, tmp_path: Path, local_host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported: list[Any] = []
    monkeypatch.setattr(finish, "export", lambda _, network, *rest, lora, **more: exported.append((network(), lora)))
    starts: list[Tensor] = []
    honest = stages.build

    def build(settings: Any, teacher: Any, start: Any = None) -> Any:
        method = honest(settings, teacher, start)
        starts.append(answer(method.student))
        return method

    monkeypatch.setattr(stages, "build", build)
    low = {"batch_size": 4, "lora_rank": 2, "learning_rate": 0.01}
    chain = [
        {"kind": "reflow", "iterations": 2, "pairs": 4, "pair_steps": 1, **low},
        {"kind": "progressive", "first_steps": 2, "rung_iterations": 2, **low, "lora_rank": 1},
        {"kind": "dmd2", "iterations": 2, "batch_size": 4},
    ]
    spec = JobSpec.model_validate({"teacher": "t", "stages": [{"method": m} for m in chain], "preview_every": 100})
    monkeypatch.setattr(stages, "image_source", lambda teacher: IMAGES)
    stages.run(spec, tmp_path, local_host())
    (reflow, first), (_, second), (progressive, third), (_, last) = exported
    torch.testing.assert_close(starts[1], answer(reflow), rtol=0, atol=1e-5)
    torch.testing.assert_close(starts[2], answer(progressive), rtol=0, atol=1e-5)
    ranks = [{len(tensor) for name, tensor in update.items() if name.endswith(A)} for update in (first, second, third)]
    assert ranks == [{2}, {3}, {3}]
    for network, update in exported[:3]:
        torch.testing.assert_close(answer(merged(teacher.frozen_copy(), update)), answer(network), rtol=0, atol=1e-5)
    assert last is None, "the last stage trained whole weights"


@pytest.mark.parametrize(
    ("rank", "targets", "message"),
    [
        (9, None, "rank of 9 is above 8"),
        (2, ["to_q"], r"\['to_q'\] name no linear or convolutional layer.*conv_in.*time_emb_proj"),
        (2, ["norm1"], "name no linear or convolutional layer"),
        (2, ["conv1", "to_q"], r"\['to_q'\] name no linear"),
    ],
)
def test_updates_that_fit_no_layer_are_refused(
    teacher: UNetDenoiser, rank: int, targets: list[str] | None, message: str
) -> None:
    with pytest.raises(TeacherInvalid, match=message):
        stages.build(settings(kind="consistency", lora_rank=rank, lora_targets=targets), teacher)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "kd", "lora_targets": ["to_q"]}, "set lora_rank above 0"),
        ({"kind": "dmd2", "lora_targets": ["to_q"]}, "set fake_lora_rank or lora_rank above 0|set lora_rank or fake"),
        ({"kind": "kd", "lora_rank": 4, "student_width": 0.5}, "cannot make up for what a smaller student leaves out"),
        ({"kind": "kd", "lora_rank": 4, "lora_targets": []}, "lora_targets"),
    ],
)
def test_settings_that_ask_for_no_update_or_too_much_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        METHODS[fields["kind"]].model_validate(fields)


def test_every_method_offers_low_rank_students() -> None:
    assert all("lora_rank" in settings.model_fields for settings in METHODS.values())
    assert TractSettings(lora_rank=4, lora_targets=["to_q"]).lora_targets == ["to_q"]


@pytest.mark.slow
def test_a_low_rank_student_learns_the_mixture_as_a_whole_one_does(
    mixture: Any, mixture_points: ImageSource, local_host: Any
) -> None:
    assert ROWS["lcm"].mixture is not None
    settings, steps, bar = ROWS["lcm"].mixture
    row = replace(ROWS["lcm"], mixture=(settings.model_copy(update={"lora_rank": 32}), steps, bar))
    learnt = learn("lcm", row, mixture, mixture_points, local_host())
    print(f"energy distance {learnt.distance:.4f}, bar {learnt.bar}")
    assert learnt.distance < learnt.bar
