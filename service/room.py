"""What is free on the machines of the cluster, and whether a gang of workers fits into it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

EPSILON = 1e-9
"""Fractions of a CPU or GPU are summed in floats."""


class Machine(NamedTuple):
    """A node of the cluster."""

    cpus: float
    gpus: float


class Shape(NamedTuple):
    """A gang: so many workers, each with so many CPUs and GPUs of one machine."""

    workers: int
    cpus: float
    gpus: float

    @property
    def total_cpus(self) -> float:
        return self.workers * self.cpus

    @property
    def total_gpus(self) -> float:
        return self.workers * self.gpus


Placement = dict[int, int]
"""Workers by the index of their machine."""


@dataclass
class Room:
    """CPUs and GPUs that are promised to nobody, of each machine and in all.

    Small machines come first, so that CPU jobs leave those with GPUs alone. The sums may be below zero: what was
    promised on a machine that is lost stays promised until its job is known to be gone.
    """

    cpus: list[float]
    gpus: list[float]
    all_cpus: float
    all_gpus: float

    @classmethod
    def of(cls, machines: Iterable[Machine]) -> Self:
        ordered = sorted(machines, key=lambda machine: (machine.gpus, machine.cpus))
        cpus, gpus = [machine.cpus for machine in ordered], [machine.gpus for machine in ordered]
        return cls(cpus, gpus, sum(cpus), sum(gpus))

    def copy(self) -> "Room":
        return Room(self.cpus.copy(), self.gpus.copy(), self.all_cpus, self.all_gpus)

    def holds(self, machine: int, shape: Shape) -> int:
        """How many such workers fit on one machine."""
        count = float(shape.workers)
        if shape.cpus > 0:
            count = min(count, (self.cpus[machine] + EPSILON) // shape.cpus)
        if shape.gpus > 0:
            count = min(count, (self.gpus[machine] + EPSILON) // shape.gpus)
        return max(0, int(count))

    def is_enough(self, shape: Shape) -> bool:
        """Whether the sums suffice for the whole gang."""
        cpus_suffice = shape.cpus == 0 or shape.total_cpus <= self.all_cpus + EPSILON
        gpus_suffice = shape.gpus == 0 or shape.total_gpus <= self.all_gpus + EPSILON
        return cpus_suffice and gpus_suffice

    def take(self, shape: Shape, placement: Placement, sign: int = 1) -> None:
        """Promise it to a gang. Workers that `placement` leaves out are taken off the sums alone."""
        for machine, count in placement.items():
            self.cpus[machine] -= sign * count * shape.cpus
            self.gpus[machine] -= sign * count * shape.gpus
        self.all_cpus -= sign * shape.total_cpus
        self.all_gpus -= sign * shape.total_gpus

    def give(self, shape: Shape, placement: Placement) -> None:
        """Undo `take`."""
        self.take(shape, placement, sign=-1)

    def capacity(self, shape: Shape) -> int:
        """How many such workers fit on all machines together, up to the gang's own number."""
        return min(shape.workers, sum(self.holds(machine, shape) for machine in range(len(self.cpus))))


def place(shape: Shape, *rooms: Room) -> Placement | None:
    """Machines for every worker of a gang that have room in each of `rooms`; None when there are too few."""
    if not all(room.is_enough(shape) for room in rooms):
        return None
    placement: Placement = {}
    left = shape.workers
    for machine in range(len(rooms[0].cpus)):
        count = min(left, *(room.holds(machine, shape) for room in rooms))
        if count:
            placement[machine] = count
            left -= count
            if not left:
                return placement
    return None


def pack(shapes: Sequence[Shape], room: Room) -> list[Placement]:
    """Take what was promised out of `room`, the largest workers first, each on the first machine that holds it."""
    placements: list[Placement] = [{} for _ in shapes]
    starts: dict[tuple[float, float], int] = {}  # machines before it are too full for such workers
    for i in sorted(range(len(shapes)), key=lambda i: (shapes[i].gpus, shapes[i].cpus), reverse=True):
        shape, left = shapes[i], shapes[i].workers
        machine = starts.get(shape[1:], 0)
        while left and machine < len(room.cpus):
            count = min(left, room.holds(machine, shape))
            if count:
                placements[i][machine] = count
                room.take(Shape(count, shape.cpus, shape.gpus), {machine: count})
                left -= count
            if left:
                machine += 1
        starts[shape[1:]] = machine
        if left:
            room.take(Shape(left, shape.cpus, shape.gpus), {})
    return placements
