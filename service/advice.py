"""What to change in a spec that asks for more memory than a device has, the mildest first; each change leaves it valid.

First come the changes after which the same is learnt; low-rank updates are the last resort.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import ValidationError

from service.memory import Costs, peak
from service.methods.base import MethodSettings
from service.spec import JobSpec

ADAPTER = 64
"""The rank that is advised, where weights have as many."""


@dataclass(frozen=True)
class Advice:
    """Changes of the spec, in its own words, and the bytes that a worker would need with all of them."""

    changes: tuple[str, ...]
    total: int


@dataclass(frozen=True)
class Changed:
    """A spec, and what was changed to come to it."""

    change: str
    spec: JobSpec


Kind = Callable[[JobSpec, Costs], Iterator[Changed]]
"""The ways to make a change, the mildest first; none where the spec has it already, or cannot have it."""


def advice(spec: JobSpec, costs: Costs, limit: int) -> list[Advice]:
    """Changes each of which brings the job below `limit` bytes; where none does alone, a combination that does.

    Empty where it fits as it is. Where nothing makes it fit, what together saves most, with its total.
    """
    if peak(spec, costs).total <= limit:
        return []
    alone = [_together([kind], spec, costs, limit) for kind in KINDS]
    if fitting := [one for one in alone if one.total <= limit]:
        return fitting
    needed = sorted(KINDS, key=lambda kind: kind is _micro_batches)  # of which then no more are taken than it needs
    for kind in reversed(KINDS):
        without = [other for other in needed if other is not kind]
        if _together(without, spec, costs, limit).total <= limit:
            needed = without
    return [_together(needed, spec, costs, limit)]


def _together(kinds: Sequence[Kind], spec: JobSpec, costs: Costs, limit: int) -> Advice:
    """One after the other until it fits, each as mild as it can be, and none that saves nothing."""
    changes: list[str] = []
    now, total = spec, peak(spec, costs).total
    for kind in kinds:
        best: Changed | None = None
        for way in kind(now, costs) if total > limit else ():
            if total > limit and (needs := peak(way.spec, costs).total) < total:
                best, total = way, needs
        if best:
            now, changes = best.spec, [*changes, best.change]
    return Advice(tuple(changes), total)


def _offload(spec: JobSpec, costs: Costs) -> Iterator[Changed]:
    if not spec.compute.offload:
        yield from _computed(spec, "compute.offload true", {"offload": True})


def _micro_batches(spec: JobSpec, costs: Costs) -> Iterator[Changed]:
    """Doubled as long as it can be, and at last one image to a part."""
    methods = [stage.method for stage in spec.chain()]
    parts = min(method.micro_batches for method in methods)
    whole = max(method.batch_size // spec.resources.workers for method in methods)
    while parts < whole:
        parts = min(2 * parts, whole)
        yield from _in_stages(spec, f"micro_batches {parts}", partial(_in_parts, parts))


def _in_parts(parts: int, method: MethodSettings) -> dict[str, Any]:
    return {"micro_batches": parts} if method.micro_batches < parts else {}


def _bf16(spec: JobSpec, costs: Costs) -> Iterator[Changed]:
    if spec.compute.precision == "fp32":
        yield from _computed(spec, "compute.precision bf16", {"precision": "bf16"})


def _blocks_again(spec: JobSpec, costs: Costs) -> Iterator[Changed]:
    if not spec.compute.activation_checkpointing:
        yield from _computed(spec, "compute.activation_checkpointing true", {"activation_checkpointing": True})


def _fsdp(spec: JobSpec, costs: Costs) -> Iterator[Changed]:
    if spec.compute.strategy == "ddp" and spec.resources.workers > 1:
        yield from _computed(spec, "compute.strategy fsdp", {"strategy": "fsdp"})


def _low_rank(spec: JobSpec, costs: Costs) -> Iterator[Changed]:
    rank = min(ADAPTER, costs.footprint.highest_rank)
    names = {name for stage in spec.chain() for name in _whole(stage.method)}
    if rank and names:
        what = " and ".join(f"{name} {rank}" for name in sorted(names, reverse=True))
        yield from _in_stages(spec, what, lambda method: dict.fromkeys(_whole(method), rank))


KINDS: tuple[Kind, ...] = (_offload, _micro_batches, _bf16, _blocks_again, _fsdp, _low_rank)


def _whole(method: MethodSettings) -> list[str]:
    """The fields that would turn what is trained whole into low-rank updates."""
    names = [name for name in type(method).model_fields if name.endswith("lora_rank")]
    return [name for name in names if getattr(method, name) == 0]


def _computed(spec: JobSpec, change: str, settings: dict[str, Any]) -> Iterator[Changed]:
    told = spec.model_dump()
    yield from _valid(change, told | {"compute": told["compute"] | settings})


def _in_stages(spec: JobSpec, change: str, of: Callable[[MethodSettings], dict[str, Any]]) -> Iterator[Changed]:
    """`change` in every stage that can take the settings `of` its method; it says which, where some cannot."""
    now, where = spec.resolved(), list[str]()
    for i, stage in enumerate(spec.chain()):
        told = now.model_dump()
        told["stages"][i]["method"] |= of(stage.method)
        for changed in _valid(change, told) if of(stage.method) else ():
            now, where = changed.spec, [*where, str(i)]
    if len(where) == len(spec.chain()):
        yield Changed(change, now)
    elif where:
        yield Changed(f"{change} in stage {' and '.join(where)}", now)


def _valid(change: str, told: dict[str, Any]) -> Iterator[Changed]:
    try:
        yield Changed(change, JobSpec.model_validate(told))
    except ValidationError:
        return  # such as a method that cannot be run this way
