"""What a spec would cost, before anything is stored."""

from dataclasses import dataclass

from service import memory
from service.advice import Advice, advice
from service.footprint import Footprint
from service.memory import Costs, Memory, Phase
from service.settings import Settings
from service.spec import JobSpec
from service.tables import Dataset, Teacher

GIB = 2**30


@dataclass(frozen=True)
class Estimate:
    """Of one worker.

    Attributes:
        memory: bytes at the peak.
        phase: when that is.
        step_flops: of the longest kind of step.
        step_seconds: at the speed that devices are said to have; None where none is said.
        advice: changes that would make it fit, a sentence each, or one that says that nothing would;
            empty where it fits, and where no size is said.
    """

    memory: Memory
    phase: Phase
    step_flops: int
    step_seconds: float | None
    advice: list[str]


def estimate(spec: JobSpec, teacher: Teacher, dataset: Dataset | None, settings: Settings) -> Estimate | None:
    """None for a teacher that was registered before its network's footprint was looked for.

    Args:
        dataset: that the spec names.
    """
    if teacher.footprint is None:
        return None
    captions = dataset.samples if teacher.text and dataset else 0
    conditions = captions or len(spec.prompts or ()) if teacher.text else teacher.num_classes
    costs = Costs(teacher.parameters, Footprint(**teacher.footprint), conditions, captions=captions > 0)
    flops, phases = memory.flops(spec, costs), memory.phases(spec, costs)
    phase = max(phases, key=lambda phase: phases[phase].total)
    limit = round(settings.device_memory_gib * GIB)
    return Estimate(
        memory=phases[phase],
        phase=phase,
        step_flops=flops,
        step_seconds=flops / (settings.device_tflops * 1e12) if settings.device_tflops else None,
        advice=[_sentence(one, limit) for one in advice(spec, costs, limit)] if limit else [],
    )


def _sentence(one: Advice, limit: int) -> str:
    *others, last = one.changes or ("nothing changed",)
    what = f"{', '.join(others)} and {last}" if others else last
    needs, device = f"{one.total / GIB:.3g} GiB", f"the {limit / GIB:.3g} GiB of a device"
    if one.total <= limit:
        return f"with {what} it takes {needs}"
    return f"nothing that a spec can change makes it fit into {device}: with {what} it still takes {needs}"
