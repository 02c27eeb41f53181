"""How the estimate moves with a job's settings, and what is advised where it does not fit."""

from dataclasses import replace
from typing import Any

import pytest

from service import memory
from service.footprint import Footprint
from service.memory import Costs, Layout, _of_stage
from service.spec import JobSpec

MILLION = 10**6
COSTS = Costs(
    MILLION,
    Footprint(
        kept=4 * MILLION,
        kept_for_weights=2 * MILLION,
        kept_for_updates=MILLION,
        kept_by_blocks=MILLION // 2,
        passing=1000,
        low_rank_weights=1000,
        low_rank_places=100,
        flops=10**9,
        prompt=50,
        encoders=2 * MILLION,
        decoding=1000,
    ),
    conditions=3,
)
KD = {"kind": "kd", "batch_size": 8, "student_width": 1}


def job(*methods: dict[str, Any], workers: int = 1) -> JobSpec:
    stages = [{"method": method} for method in methods]
    return JobSpec.model_validate({"teacher": "t", "stages": stages, "resources": {"workers": workers}})


def stage(at: Layout, **settings: Any) -> memory.Memory:
    return _of_stage(job(KD | settings).chain()[0].method, COSTS, at, 0)


def test_every_part_of_a_plain_job() -> None:
    found = memory.peak(job(KD), COSTS)
    assert found.weights == 3 * 4 * MILLION
    assert found.optimizer == 2 * 4 * MILLION
    assert found.gradients == 4 * MILLION
    assert found.activations == 8 * 4 * 6 * MILLION - 2 * MILLION  # half of the gradients are not there yet
    assert found.encoders == 4 * (2 * MILLION + 4 * 50)
    assert found.total == sum((found.weights, found.optimizer, found.gradients, found.activations, found.encoders))


def test_workers_and_parts_split_the_batch_alike() -> None:
    whole = memory.peak(job(KD), COSTS)
    parts = memory.peak(job(KD | {"micro_batches": 4}), COSTS)
    assert parts.activations == 2 * 4 * 6 * MILLION
    assert parts.weights == whole.weights
    assert memory.peak(job(KD, workers=4), COSTS).activations < whole.activations / 3
    assert memory.flops(job(KD), COSTS) == memory.flops(job(KD | {"micro_batches": 4}), COSTS) == 3 * 8 * 10**9
    assert memory.flops(job(KD, workers=4), COSTS) == 3 * 2 * 10**9


def test_a_chain_needs_what_its_largest_stage_needs_and_the_students_before_it() -> None:
    alone = memory.peak(job(KD), COSTS)
    after = memory.peak(job(KD | {"batch_size": 1}, KD), COSTS)
    assert after.weights == alone.weights + 4 * MILLION
    assert after.activations == alone.activations


def test_low_rank_updates_are_small_and_still_need_activations() -> None:
    full, low = stage(Layout(8)), stage(Layout(8, rank=10))
    assert low.optimizer == 2 * 4 * 10_000
    assert low.weights == 4 * (MILLION + 2 * 10_000)
    assert full.activations * 0.8 < low.activations < full.activations


@pytest.mark.parametrize(
    ("changed", "part", "share"),
    [
        ({"blocks_again": True}, "activations", 1 / 10),
        ({"half": True}, "activations", 0.55),
        ({"shards": 4}, "optimizer", 1 / 4),
        ({"shards": 4}, "weights", 1 / 4),
        ({"offloaded": True}, "encoders", 0.001),
    ],
)
def test_what_each_way_to_save_saves(changed: dict[str, Any], part: str, share: float) -> None:
    plain = Layout(8, passes=2)
    before, after = stage(plain), stage(replace(plain, **changed))
    assert getattr(after, part) <= share * getattr(before, part)
    assert after.total < before.total


def test_advice_names_the_mildest_change_that_fits() -> None:
    spec = job(KD)
    now = memory.peak(spec, COSTS).total
    assert memory.advice(spec, COSTS, now) == []
    (one,) = memory.advice(spec, COSTS, now - 1)
    assert one.change == "micro_batches 2"
    assert one.total == memory.peak(job(KD | {"micro_batches": 2}), COSTS).total
    (least,) = memory.advice(spec, COSTS, MILLION)
    assert least.change == "micro_batches 8"
    assert least.total > MILLION
    (adapted, *_) = [
        one for one in memory.advice(job({"kind": "lcm", "batch_size": 1}), COSTS, 50 * MILLION) if "lora" in one.change
    ]
    assert adapted.change == "lora_rank 64"
