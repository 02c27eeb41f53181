"""The loop: exact resume, exact step counts, workers and micro-batches that equal one, divergence named."""

import json
import math
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from rows import ROWS
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from service.methods import METHODS
from service.methods.base import MethodSettings
from service.methods.consistency import ConsistencySettings
from service.status import Reason, Wish
from workers.data.source import ImageSource
from workers.methods.base import LossOut
from workers.methods.registry import REGISTRY
from workers.models.low_rank import summed
from workers.models.mixture import MlpDenoiser, six_modes
from workers.optim import schedule
from workers.state import State, read, write
from workers.trainer import Cadence, Diverged, Trainer

every_method = pytest.mark.parametrize("kind", REGISTRY)


def settings(kind: str, **changes: Any) -> MethodSettings:
    return METHODS[kind](**(ROWS[kind].short | {"batch_size": 16} | changes))


def trainer(kind: str, host: Any, state: State, every: int = 100, **changes: Any) -> Trainer:
    torch.manual_seed(0)
    teacher = six_modes(MlpDenoiser(width=32))
    rng = torch.Generator().manual_seed(1)
    images = ImageSource(teacher.sample(256, rng), None, torch.randn(256, 2, generator=rng))
    method = REGISTRY[kind](settings(kind, **changes), teacher, teacher)
    return Trainer(method, None if method.data_need == "none" else images, host, state, Cadence(every, 100), seed=7)


def low_rank(kind: str) -> dict[str, Any]:
    """Settings that make low-rank updates of all that can be."""
    return {name: 4 for name in METHODS[kind].model_fields if name.endswith("lora_rank")}


def weights(state: State) -> list[Tensor]:
    return [tensor for student in state.finished for _, tensor in sorted(student.weights.items())]


@every_method
@pytest.mark.parametrize(("stop", "low"), [(1, False), (4, False), (6, False), (4, True)])
def test_a_stopped_and_resumed_run_is_bit_identical(
    kind: str, stop: int, low: bool, tmp_path: Path, local_host: Any
) -> None:
    changes = low_rank(kind) if low else {}
    whole_host, whole = local_host(), State()
    assert trainer(kind, whole_host, whole, **changes).run() is None

    host = local_host(tmp_path)
    host.stop_at = stop
    assert trainer(kind, host, State(), every=5, **changes).run() is Wish.PAUSE
    assert max(host.steps) == stop
    host.stop_at = None
    with host.latest_checkpoint() as checkpoint:
        resumed = read(checkpoint)
    assert resumed.step == stop
    assert trainer(kind, host, resumed, every=5, **changes).run() is None

    assert [s.label for s in resumed.finished] == [s.label for s in whole.finished]
    for a, b in zip(weights(resumed), weights(whole), strict=True):
        assert torch.equal(a, b)
    losses = [{k: v for k, v in values.items() if k != "images_per_second"} for values in whole_host.steps.values()]
    again = [{k: v for k, v in values.items() if k != "images_per_second"} for values in host.steps.values()]
    assert losses == again


@every_method
def test_a_run_takes_exactly_the_steps_asked_for_and_reports_each_once(kind: str, local_host: Any) -> None:
    host, state = local_host(), State()
    trainer(kind, host, state, every=5).run()
    total = settings(kind).total_steps()
    assert list(host.steps) == list(range(1, total + 1))
    assert state.step == total
    assert host.saved == [s for s in range(5, total, 5)] + ([] if total in host.saved[:-1] else [total])
    for values in host.steps.values():
        assert {"loss", "grad_norm", "learning_rate", "images_per_second"} <= values.keys()
        assert all(math.isfinite(value) for value in values.values())


@every_method
def test_each_segment_leaves_the_students_that_the_settings_promise(kind: str, local_host: Any) -> None:
    state = State()
    trainer(kind, local_host(), state).run()
    promised = settings(kind).student_steps()
    assert [list(student.sampler.steps) for student in state.finished] == promised
    assert [student.label for student in state.finished] == [f"{kind}-{steps[0]}" for steps in promised]


def test_a_finished_student_leaves_the_device(local_host: Any) -> None:
    """Beside it are those of a checkpoint, which are read on the CPU."""
    state = State()
    job = trainer("consistency", local_host(), state, **low_rank("consistency"))
    with FakeTensorMode(allow_non_fake_inputs=True):  # tensors of a GPU without one, and without their numbers
        for module in job.average.modules():
            for name, weight in module.named_parameters(recurse=False):
                setattr(module, name, torch.nn.Parameter(torch.empty(weight.shape, device="cuda")))
        job._finish(0, 0.0)
        (student,) = state.finished
        assert {weight.device.type for weight in job.average.state_dict().values()} == {"cuda"}
        assert {weight.device.type for weight in student.weights.values()} == {"cpu"}
        read_again = {name: torch.zeros(weight.shape) for name, weight in student.weights.items()}
        assert {weight.device.type for weight in summed([read_again, student.weights]).values()} == {"cpu"}


@every_method
def test_micro_batches_equal_the_whole_batch(kind: str, local_host: Any) -> None:
    whole, parts = State(), State()
    trainer(kind, local_host(), whole, learning_rate=1e-4).run()
    trainer(kind, local_host(), parts, learning_rate=1e-4, micro_batches=4).run()
    for a, b in zip(weights(parts), weights(whole), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


RUNS: dict[str, tuple[str, dict[str, Any]]] = {kind: (kind, {}) for kind in REGISTRY}
RUNS |= {f"{kind}-low-rank": (kind, low_rank(kind)) for kind in ("lcm", "dmd2", "progressive")}


def worker(rank: int, world_size: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=world_size)
    for name, (kind, changes) in RUNS.items():
        host, state = Silent(rank, world_size), State()
        trainer(kind, host, state, learning_rate=1e-4, **changes).run()
        write(state, Path(folder) / f"{name}-{rank}")
        (Path(folder) / f"{name}-{rank}.json").write_text(json.dumps(host.losses))
    dist.destroy_process_group()


class Silent:
    """A host in a process of its own."""

    device = torch.device("cpu")

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank, self.world_size = rank, world_size
        self.losses: list[float] = []

    def metrics(self, step: int, stage: int, values: dict[str, float]) -> None:
        self.losses.append(values["loss"])

    def save_checkpoint(self, step: int, folder: Path) -> None:
        pass

    def wish(self) -> Wish:
        return Wish.RUN


def test_two_workers_equal_one(tmp_path: Path, local_host: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, (2, port, str(tmp_path)), nprocs=2)
    wrong = []
    for name, (kind, changes) in RUNS.items():
        host, one = local_host(), State()
        trainer(kind, host, one, learning_rate=1e-4, **changes).run()
        two, other = read(tmp_path / f"{name}-0"), read(tmp_path / f"{name}-1")
        losses = json.loads((tmp_path / f"{name}-0.json").read_text())
        if any(not torch.equal(a, c) for a, c in zip(weights(two), weights(other), strict=True)):
            wrong.append(f"{name}: the ranks drifted apart")
        elif any((a - b).abs().max() > 1e-5 for a, b in zip(weights(two), weights(one), strict=True)):
            wrong.append(f"{name}: two workers' weights are not one's")
        elif losses != pytest.approx([values["loss"] for values in host.steps.values()], abs=1e-5):
            wrong.append(f"{name}: two workers' losses are not one's")
    assert not wrong


def test_a_loss_that_is_not_finite_stops_with_step_and_tensor_named(local_host: Any) -> None:
    run = trainer("consistency", local_host(), State())
    honest = run.method.loss

    def broken(role: str, batch: Any, segment: int, rng: Any) -> LossOut:
        out = honest(role, batch, segment, rng)
        return out if run.state.step < 4 else LossOut(out.loss * math.nan)

    run.method.loss = broken  # type: ignore[method-assign]
    with pytest.raises(Diverged, match="step 5: the loss of the student is not finite") as caught:
        run.run()
    assert caught.value.reason is Reason.DIVERGED
    assert list(run.host.steps) == [1, 2, 3, 4]  # type: ignore[attr-defined]


def test_a_gradient_that_is_not_finite_is_named(local_host: Any) -> None:
    run = trainer("consistency", local_host(), State())
    first = next(run.method.student.parameters())
    first.register_hook(lambda grad: grad * math.inf)
    with pytest.raises(Diverged, match=r"step 1: the gradient of net\.0\.weight of the student"):
        run.run()


def test_gradients_are_clipped_to_the_norm_asked_for(local_host: Any) -> None:
    run = trainer("consistency", local_host(), State(), max_grad_norm=1e-4, iterations=1)
    run.run()
    total = torch.stack([p.grad.norm() for p in run.method.student.parameters() if p.grad is not None]).norm()
    assert total.item() == pytest.approx(1e-4, rel=1e-2)
    assert run.host.steps[1]["grad_norm"] > 1e-3  # type: ignore[attr-defined]


def test_a_half_written_state_is_no_state(tmp_path: Path) -> None:
    write(State(step=3, live={"net/x": torch.ones(2)}), tmp_path)
    assert torch.equal(read(tmp_path).live["net/x"], torch.ones(2))
    (tmp_path / "state.json").unlink()
    with pytest.raises(FileNotFoundError):
        read(tmp_path)


def test_a_state_of_another_format_is_refused(tmp_path: Path) -> None:
    write(State(), tmp_path)
    meta = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps(meta | {"format": 0}))
    with pytest.raises(ValueError, match="format 0"):
        read(tmp_path)


def test_the_learning_rate_warms_up_and_falls_to_nothing() -> None:
    rates = [schedule(i, 500) for i in range(500)]
    assert rates[0] < 0.2
    assert max(rates) == 1
    assert rates[-1] < 1e-4
    assert schedule(0, 1) == 0.5
    assert rates[20:] == sorted(rates[20:], reverse=True)


def test_settings_are_those_of_the_registry() -> None:
    assert METHODS.keys() == REGISTRY.keys()
    for kind, method in METHODS.items():
        assert method.model_fields["kind"].default == kind
    assert isinstance(settings("consistency"), ConsistencySettings)
