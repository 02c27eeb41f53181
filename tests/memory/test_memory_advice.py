"""What is advised where a job does not fit: the mildest change, a valid one, and the truth where there is none."""

from dataclasses import replace
from typing import Any

import pytest
from test_memory_model import COSTS, DMD2, KD, MILLION, job

from service import memory
from service.advice import Advice, advice
from service.methods import METHODS
from service.spec import JobSpec

MB = 4 * MILLION
LEAST = 1


def changed(spec: JobSpec, method: dict[str, Any], compute: dict[str, Any]) -> int:
    """The total with these settings in all stages."""
    told = spec.resolved().model_dump()
    for stage in told["stages"]:
        stage["method"] |= method
    return memory.peak(JobSpec.model_validate(told | {"compute": told["compute"] | compute}), COSTS).total


def test_nothing_is_advised_where_it_fits() -> None:
    spec = job(KD)
    now = memory.peak(spec, COSTS).total
    assert advice(spec, COSTS, now) == []
    assert advice(spec, COSTS, now - 1) != []


def test_each_kind_of_change_that_fits_is_named_in_its_mildest_form() -> None:
    spec = job(KD, workers=2)
    now = memory.peak(spec, COSTS).total
    assert advice(spec, COSTS, now - 1) == [
        Advice(("compute.offload true",), changed(spec, {}, {"offload": True})),
        Advice(("micro_batches 2",), changed(spec, {"micro_batches": 2}, {})),
        Advice(("compute.precision bf16",), changed(spec, {}, {"precision": "bf16"})),
        Advice(("compute.activation_checkpointing true",), changed(spec, {}, {"activation_checkpointing": True})),
        Advice(("compute.strategy fsdp",), changed(spec, {}, {"strategy": "fsdp"})),
        Advice(("lora_rank 64",), changed(spec, {"lora_rank": 64}, {})),
    ]
    low = [one.changes for one in advice(spec, COSTS, changed(spec, {"micro_batches": 4}, {}))]
    assert low[0] == ("micro_batches 4",)


def test_a_combination_has_only_what_it_needs() -> None:
    spec = job(KD, offload=True)
    (least,) = advice(spec, COSTS, LEAST)
    limit = least.total + MB
    (one,) = advice(spec, COSTS, limit)
    assert len(one.changes) > 1
    assert one.total <= limit
    for left_out in one.changes:
        told = dict(change.rsplit(" ", 1) for change in one.changes if change != left_out)
        compute = {name.removeprefix("compute."): value for name, value in told.items() if "." in name}
        method = {name: int(value) for name, value in told.items() if "." not in name}
        assert changed(spec, method, compute) > limit


def test_a_combination_learns_the_same_where_it_can() -> None:
    spec = job(KD, workers=2)
    together = {"offload": True, "activation_checkpointing": True, "strategy": "fsdp"}
    (one,) = advice(spec, COSTS, changed(spec, {}, together))
    names = ("compute.offload true", "compute.activation_checkpointing true", "compute.strategy fsdp")
    assert one == Advice(names, changed(spec, {}, together))
    (less,) = advice(spec, COSTS, one.total - MB)
    assert less.changes[-1] == "lora_rank 64"


def test_it_says_so_where_nothing_fits() -> None:
    spec = job(KD, workers=2)
    (one,) = advice(spec, COSTS, LEAST)
    assert one.total > LEAST
    done = job(
        KD | {"micro_batches": 4, "lora_rank": 64},
        workers=2,
        precision="bf16",
        activation_checkpointing=True,
        offload=True,
    )
    assert one.total <= memory.peak(done, COSTS).total
    assert advice(done, COSTS, LEAST) == [Advice((), memory.peak(done, COSTS).total)]


def test_low_rank_is_advised_of_all_that_is_trained_and_no_higher_than_weights_allow() -> None:
    small = replace(COSTS, footprint=replace(COSTS.footprint, highest_rank=32))
    spec = job(DMD2 | {"batch_size": 1}, offload=True)
    (*_, last) = advice(spec, small, 12 * MB)
    assert last.changes[0] == "lora_rank 32 and fake_lora_rank 32"


def test_a_stage_that_cannot_be_changed_is_left_out() -> None:
    spec = job(KD, KD | {"student_width": 0.5}, offload=True, precision="bf16", activation_checkpointing=True)
    names = [one.changes for one in advice(spec, COSTS, memory.peak(spec, COSTS).total - 1)]
    assert names == [("micro_batches 2",), ("lora_rank 64 in stage 0",)]


@pytest.mark.parametrize("kind", METHODS)
def test_no_change_is_advised_that_a_spec_may_not_have(kind: str) -> None:
    exact = {name: None for name in ("difference_step",) if name in METHODS[kind].model_fields}
    penalty = {"r1": "exact", "r1_weight": 1.0} if "r1" in METHODS[kind].model_fields else {}
    spec = job({"kind": kind, **exact, **penalty}, workers=4)
    (one,) = advice(spec, COSTS, LEAST)
    method = spec.chain()[0].method
    assert ("compute.strategy fsdp" in one.changes) <= (not method.second_derivative() and not method.forward_mode())
    assert ("compute.activation_checkpointing true" in one.changes) <= (not method.forward_mode())
