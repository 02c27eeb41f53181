"""Who runs next, and who makes room: a pure function of the queue, of what is promised already, and of the machines.

Two accounts are kept. `now` is what is free at this moment; `soon` is the same once all who were asked to leave have
left, less what is set aside for those who wait for it. A job is admitted only into what is free in both, so that nobody
slips into a place that is being freed for another.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from service.room import EPSILON, Machine, Placement, Room, Shape, pack, place


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job in the queue. `since`: when it came there last."""

    id: str
    project: str
    priority: int
    shape: Shape
    since: datetime


@dataclass(frozen=True, slots=True)
class Promised:
    """A job on the cluster. `leaving`: it was asked to stop; `movable`: it may be asked to make room."""

    id: str
    project: str
    priority: int
    shape: Shape
    since: datetime
    leaving: bool = False
    movable: bool = True


@dataclass(frozen=True, slots=True)
class Share:
    """What a project may have; None is no limit. `gpu_hours` were used in the last 30 days."""

    weight: float = 1.0
    max_jobs: int | None = None
    max_gpus: float | None = None
    max_gpu_hours: float | None = None
    gpu_hours: float = 0.0


UNLIMITED = Share()


@dataclass(frozen=True)
class Scene:
    """Everything that admission decides on, but the queue."""

    now: datetime
    machines: Sequence[Machine]
    promised: Sequence[Promised]
    replicas: Sequence[Shape]
    shares: Mapping[str, Share]
    max_running: int
    preemption: bool
    reserve_after: float


@dataclass
class Plan:
    """Ids of the jobs to be started, in order, and of those to be asked to make room."""

    admit: list[str] = field(default_factory=list)
    preempt: list[str] = field(default_factory=list)


@dataclass
class Books:
    """What is left of all that jobs compete for: room, places, and the quotas of their projects."""

    shares: Mapping[str, Share]
    room: Room
    places: int
    jobs: defaultdict[str, int]
    gpus: defaultdict[str, float]

    def copy(self) -> "Books":
        return Books(self.shares, self.room.copy(), self.places, self.jobs.copy(), self.gpus.copy())

    def share(self, project: str) -> Share:
        return self.shares.get(project, UNLIMITED)

    def allows_job(self, project: str) -> bool:
        limit = self.share(project).max_jobs
        return limit is None or self.jobs[project] < limit

    def allows_gpus(self, project: str, shape: Shape) -> bool:
        limit = self.share(project).max_gpus
        return limit is None or not shape.gpus or self.gpus[project] + shape.total_gpus <= limit + EPSILON

    def allows(self, job: Waiting) -> bool:
        """Whether a place and the project's quota are left for it; its room is another question."""
        return self.places > 0 and self.allows_job(job.project) and self.allows_gpus(job.project, job.shape)

    def take(self, job: Waiting | Promised, placement: Placement, sign: int = 1) -> None:
        self.room.take(job.shape, placement, sign)
        self._count(job, sign)

    def give(self, job: Waiting | Promised, placement: Placement) -> None:
        self.take(job, placement, sign=-1)

    def _count(self, job: Waiting | Promised, sign: int) -> None:
        self.places -= sign
        self.jobs[job.project] += sign
        self.gpus[job.project] += sign * job.shape.total_gpus


def find(job: Waiting, *books: Books) -> Placement | None:
    """A placement of the whole gang that every one of `books` has room, a place and quota for; or None."""
    return place(job.shape, *(book.room for book in books)) if all(book.allows(job) for book in books) else None


def out_of_hours(job: Waiting, share: Share) -> bool:
    """Whether the project has used up its GPU-hours. They are looked at when a job starts, not while it runs."""
    return bool(job.shape.gpus) and share.max_gpu_hours is not None and share.gpu_hours >= share.max_gpu_hours


def plan(scene: Scene, queue: Sequence[Waiting]) -> Plan:
    """Who starts now and who makes room, in one pass over the queue: O(candidates × machines), and the same each time.

    In turn: higher priority first; then the project with the least dominant share for its weight; then who waits
    longest. Within a project the oldest id of a priority goes first. Whoever does not fit is passed over.
    """
    return _Round(scene).run(queue)


class _Round:
    """The state of one pass."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.plan = Plan()
        self.empty = Room.of(scene.machines)
        pack(scene.replicas, self.empty)
        room = Room.of(scene.machines)
        shapes = [*scene.replicas, *(job.shape for job in scene.promised)]
        placements = pack(shapes, room)[len(scene.replicas) :]
        self.placed = {job.id: placement for job, placement in zip(scene.promised, placements, strict=True)}
        self.now = Books(scene.shares, room, scene.max_running, defaultdict(int), defaultdict(float))
        self.used: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
        for job in scene.promised:
            self.now._count(job, 1)
            self._use(job)
        self.soon = self.now.copy()
        for job in scene.promised:
            if job.leaving:
                self.soon.give(job, self.placed[job.id])
        movable = (job for job in scene.promised if job.movable and not job.leaving)
        # Who makes room: the lowest priority first, then the newest, which has the least to lose.
        self.movable = sorted(movable, key=lambda job: (-job.priority, job.since, job.id), reverse=True)
        self.refused: set[tuple[str, Shape]] = set()
        self.held: set[str] = set()
        self.capacity = (self.empty.all_cpus, self.empty.all_gpus, float(scene.max_running))

    def run(self, queue: Sequence[Waiting]) -> Plan:
        for job in self._in_turn(queue):
            if out_of_hours(job, self.now.share(job.project)) or self._is_held(job):
                continue
            if (job.project, job.shape) in self.refused:
                self._pass_over(job)
            elif (placement := find(job, self.now, self.soon)) is not None:
                self.now.take(job, placement)
                self._set_aside(job, placement)
                self.plan.admit.append(job.id)
            elif (placement := find(job, self.soon) or self._make_room(job)) is not None:
                self._set_aside(job, placement)
            else:
                # What it lacks only gets scarcer in this pass, for its like and for those of lower priority.
                self.refused.add((job.project, job.shape))
                self._pass_over(job)
        return self.plan

    def _in_turn(self, queue: Sequence[Waiting]) -> Iterator[Waiting]:
        lines: defaultdict[str, list[Waiting]] = defaultdict(list)
        for job in sorted(queue, key=lambda job: (-job.priority, job.id), reverse=True):
            lines[job.project].append(job)

        def head(project: str) -> tuple[int, float, datetime, str]:
            job = lines[project][-1]
            return -job.priority, self._dominant_share(project), job.since, job.id

        heap = [(*head(project), project) for project in lines]
        heapq.heapify(heap)
        while heap:
            project = heapq.heappop(heap)[-1]
            yield lines[project].pop()
            if lines[project]:
                heapq.heappush(heap, (*head(project), project))

    def _dominant_share(self, project: str) -> float:
        """The greatest part of the cluster's CPUs, GPUs or places that the project has, for its weight."""
        weight = self.now.share(project).weight
        used = zip(self.used[project], self.capacity, strict=True)
        most = max((use / all_ for use, all_ in used if all_ > 0), default=0.0)
        return most / weight if weight > 0 else float("inf")

    def _use(self, job: Waiting | Promised) -> None:
        used = self.used[job.project]
        for i, amount in enumerate((job.shape.total_cpus, job.shape.total_gpus, 1)):
            used[i] += amount

    def _set_aside(self, job: Waiting, placement: Placement) -> None:
        self.soon.take(job, placement)
        self._use(job)

    def _make_room(self, job: Waiting) -> Placement | None:
        """Ask as few as will do, all of lower priority, to leave for `job`; None when even all of them would not do."""
        lower = [one for one in self.movable if one.priority < job.priority] if self.scene.preemption else []
        if not lower:
            return None
        without = self.soon.copy()
        for one in lower:
            without.give(one, self.placed[one.id])
        if find(job, without) is None:
            return None
        for one in reversed(lower):
            without.take(one, self.placed[one.id])
            if find(job, without) is None:
                without.give(one, self.placed[one.id])
                self.soon.give(one, self.placed[one.id])
                self.movable.remove(one)
                self.plan.preempt.append(one.id)
        return find(job, self.soon)

    def _pass_over(self, job: Waiting) -> None:
        """Once it has waited long, nobody behind it may take what it lacks, if that is something it can ever have."""
        overdue = self.scene.now - job.since >= timedelta(seconds=self.scene.reserve_after)
        if not overdue or not self._could_ever_run(job):
            return
        if not self.soon.allows_gpus(job.project, job.shape):
            self.held.add(f"gpus of {job.project}")
        elif self.soon.places <= 0:
            self.held.add("places")
        elif self.soon.allows_job(job.project):
            self.held |= _lacking(job.shape, self.soon.room)

    def _could_ever_run(self, job: Waiting) -> bool:
        limit = self.now.share(job.project).max_gpus
        within = limit is None or job.shape.total_gpus <= limit + EPSILON
        return within and place(job.shape, self.empty) is not None

    def _is_held(self, job: Waiting) -> bool:
        if not self.held:
            return False
        takes_gpus = bool(job.shape.gpus) and not self.held.isdisjoint(("gpus", f"gpus of {job.project}"))
        return takes_gpus or "places" in self.held or ("cpus" in self.held and job.shape.cpus > 0)


def _lacking(shape: Shape, room: Room) -> set[str]:
    """Of what there is too little for the gang; of both, when only both together are too little."""
    cpus, gpus = shape._replace(gpus=0.0), shape._replace(cpus=0.0)
    lacking = {kind for kind, part in (("cpus", cpus), ("gpus", gpus)) if place(part, room) is None}
    return lacking or {"cpus", "gpus"}


def why(scene: Scene, job: Waiting) -> list[str]:
    """What keeps a job in the queue, as far as quotas and machines go; one clause each, empty when nothing does."""
    if not scene.machines:
        return ["the cluster has not been seen yet"]
    books = _Round(scene)
    return [*_quota_clauses(job, books.now), *_room_clauses(job, scene, books)]


def _quota_clauses(job: Waiting, now: Books) -> Iterator[str]:
    share = now.share(job.project)
    if out_of_hours(job, share):
        yield (f"project has used {share.gpu_hours:.1f} of {share.max_gpu_hours:g} GPU-hours of the last 30 days")
    if not now.allows_gpus(job.project, job.shape):
        used = f"{now.gpus[job.project]:g} of {share.max_gpus:g} GPUs in use"
        yield f"project quota: {used}, it needs {job.shape.total_gpus:g}"
    if not now.allows_job(job.project):
        yield f"project quota: {now.jobs[job.project]} of {share.max_jobs} jobs on the cluster"


def _room_clauses(job: Waiting, scene: Scene, books: _Round) -> Iterator[str]:
    shape, now, soon = job.shape, books.now.room, books.soon.room
    kinds = (
        ("GPU", shape.gpus, shape.total_gpus, now.all_gpus, soon.all_gpus, max(one.gpus for one in scene.machines)),
        ("CPU", shape.cpus, shape.total_cpus, now.all_cpus, soon.all_cpus, max(one.cpus for one in scene.machines)),
    )
    told = False
    for kind, each, needed, free, free_soon, largest in kinds:
        if each > largest + EPSILON:
            told = True
            yield f"needs {each:g} {_plural(kind, each)} on one machine, the largest has {largest:g}"
        elif each and needed > free + EPSILON:
            told = True
            freed = f", {round(free_soon - free, 3):g} being freed" if free_soon > free + EPSILON else ""
            yield f"needs {needed:g} {_plural(kind, needed)}, {max(0.0, round(free, 3)):g} free{freed}"
    if not told and place(shape, now) is None:
        parts = f"{shape.cpus:g} {_plural('CPU', shape.cpus)}"
        parts += f" and {shape.gpus:g} {_plural('GPU', shape.gpus)}" if shape.gpus else ""
        workers = f"{shape.workers} {_plural('worker', shape.workers)} of {parts}"
        yield f"needs {workers}, the machines have room for {now.capacity(shape)}"
    if books.now.places <= 0:
        yield f"{scene.max_running - books.now.places} of {scene.max_running} jobs are on the cluster"


def _plural(word: str, number: float) -> str:
    return word if number == 1 else f"{word}s"
