"""Who runs next: the planner's promises, over random clusters and queues."""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.admission import Plan, Promised, Scene, Share, Waiting, plan, why
from service.room import Machine, Room, Shape, pack, place

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
ONE = Shape(1, 1, 0)
GPU = Shape(1, 1, 1)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def waits(id: str, shape: Shape = GPU, priority: int = 0, project: str = "p", seconds: float = 1) -> Waiting:
    return Waiting(id, project, priority, shape, ago(seconds))


def runs(
    id: str, shape: Shape = GPU, priority: int = 0, project: str = "p", seconds: float = 1, **state: bool
) -> Promised:
    return Promised(id, project, priority, shape, ago(seconds), **state)


def scene(
    *promised: Promised,
    machines: Sequence[Machine] = (Machine(8, 4),),
    shares: dict[str, Share] | None = None,
    max_running: int = 100,
    preemption: bool = True,
    replicas: Sequence[Shape] = (),
) -> Scene:
    return Scene(NOW, machines, promised, replicas, shares or {}, max_running, preemption, reserve_after=600)


# random worlds

shapes = st.builds(
    Shape, st.integers(1, 4), st.sampled_from([0.1, 0.5, 1.0, 2.0, 3.0]), st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.0])
)
projects = st.sampled_from("pqr")
priorities = st.integers(-2, 2)
limits = st.builds(
    Share,
    weight=st.sampled_from([0.5, 1.0, 3.0]),
    max_jobs=st.none() | st.integers(0, 4),
    max_gpus=st.none() | st.sampled_from([0.0, 1.0, 2.5, 6.0]),
    max_gpu_hours=st.none() | st.just(10.0),
    gpu_hours=st.sampled_from([0.0, 9.9, 10.0]),
)


@st.composite
def worlds(draw: st.DrawFn, machines: int = 3) -> tuple[Scene, list[Waiting]]:
    nodes = draw(st.lists(st.builds(Machine, st.integers(0, 8), st.integers(0, 4)), min_size=1, max_size=machines))
    shares = draw(st.dictionaries(projects, limits))
    empty = scene(machines=nodes, shares=shares, max_running=draw(st.integers(1, 12)))
    ages = st.sampled_from([0.0, 5.0, 599.0, 600.0, 9000.0])
    # What is promised was admitted once, so it is within the capacity.
    first = draw(st.lists(st.builds(waits, st.just(""), shapes, priorities, projects, ages), max_size=12))
    first = [replace(job, id=f"a{i:02}") for i, job in enumerate(first)]
    admitted = set(plan(empty, first).admit)
    state = st.fixed_dictionaries({"leaving": st.booleans(), "movable": st.booleans()})
    promised = [
        runs(job.id, job.shape, job.priority, job.project, draw(ages), **draw(state))
        for job in first
        if job.id in admitted
    ]
    queue = draw(st.lists(st.builds(waits, st.just(""), shapes, priorities, projects, ages), max_size=12))
    queue = [replace(job, id=f"b{i:02}") for i, job in enumerate(queue)]
    return replace(empty, promised=promised, preemption=draw(st.booleans())), queue


def after(world: Scene, queue: Sequence[Waiting], found: Plan) -> list[Promised]:
    """What is promised once the plan is done."""
    by_id = {job.id: job for job in queue}
    new = (by_id[one] for one in found.admit)
    return [*world.promised, *(runs(job.id, job.shape, job.priority, job.project, 0) for job in new)]


def within(world: Scene, promised: Sequence[Promised]) -> bool:
    """Sums alone: a condition that no packing can escape."""
    cpus = sum(job.shape.total_cpus for job in promised) <= sum(one.cpus for one in world.machines) + 1e-6
    gpus = sum(job.shape.total_gpus for job in promised) <= sum(one.gpus for one in world.machines) + 1e-6
    if not (cpus and gpus and len(promised) <= world.max_running):
        return False
    jobs = Counter(job.project for job in promised)
    used: defaultdict[str, float] = defaultdict(float)
    for job in promised:
        used[job.project] += job.shape.total_gpus
    return all(
        (share.max_jobs is None or jobs[project] <= share.max_jobs)
        and (share.max_gpus is None or used[project] <= share.max_gpus + 1e-6)
        for project, share in world.shares.items()
    )


MANY = settings(max_examples=100, deadline=None)


@MANY
@given(worlds())
def test_never_more_is_promised_than_there_is(world: tuple[Scene, list[Waiting]]) -> None:
    here, queue = world
    found = plan(here, queue)
    assert len(found.admit) == len(set(found.admit))
    for n in range(1, len(found.admit) + 1):  # nor on the way there
        assert within(here, after(here, queue, Plan(found.admit[:n])))
    shares = {job.id: here.shares.get(job.project) for job in queue if job.shape.gpus}
    spent = [one for one, share in shares.items() if share and share.max_gpu_hours and share.gpu_hours >= 10]
    assert not set(spent) & set(found.admit)


@MANY
@given(worlds())
def test_every_gang_has_machines_for_all_its_workers(world: tuple[Scene, list[Waiting]]) -> None:
    here, queue = world
    room = Room.of(here.machines)
    placed = pack([job.shape for job in here.promised], room)
    assert all(sum(one.values()) == job.shape.workers for one, job in zip(placed, here.promised, strict=True))
    by_id = {job.id: job for job in queue}
    for one in plan(replace(here, preemption=False), queue).admit:
        shape = by_id[one].shape
        placement = place(shape, room)
        if placement is None:  # another placement of those before it was chosen, beside a freed machine
            assert any(job.leaving for job in here.promised)
            return
        assert sum(placement.values()) == shape.workers
        room.take(shape, placement)
        assert min([*room.cpus, *room.gpus]) > -1e-6


@MANY
@given(worlds(machines=1))
def test_no_lower_priority_starts_while_a_higher_one_that_fits_waits(world: tuple[Scene, list[Waiting]]) -> None:
    """With one machine the sums say exactly what fits. Nobody leaves, so nothing is kept for anybody."""
    here, queue = world
    here = replace(here, preemption=False, promised=[replace(one, leaving=False) for one in here.promised])
    queue = [replace(job, since=NOW) for job in queue]
    admitted = set(plan(here, queue).admit)
    for job in queue:
        share = here.shares.get(job.project, Share())
        spent = job.shape.gpus and share.max_gpu_hours is not None and share.gpu_hours >= share.max_gpu_hours
        overtaken = [one.id for one in queue if one.id in admitted and one.priority < job.priority]
        if job.id in admitted or spent or not overtaken:
            continue
        before = [one.id for one in queue if one.id in admitted and one.priority >= job.priority]
        assert not within(here, after(here, queue, Plan([*before, job.id])))


@MANY
@given(worlds())
def test_victims_are_lower_movable_and_all_needed(world: tuple[Scene, list[Waiting]]) -> None:
    here, queue = world
    here = replace(here, preemption=True)
    by_id = {job.id: job for job in here.promised}
    for job in queue:  # one at a time, so that the victims are its own
        found = plan(here, [job])
        for one in found.preempt:
            victim = by_id[one]
            assert victim.priority < job.priority
            assert victim.movable
            assert not victim.leaving
        if found.preempt:
            assert not found.admit
            gone = [one for one in here.promised if one.leaving or one.id in found.preempt]
            left = [replace(one, leaving=one in gone) for one in here.promised]
            assert not plan(replace(here, promised=left), [job]).preempt  # they will do
            for spared in found.preempt:
                fewer = [replace(one, leaving=one in gone and one.id != spared, movable=False) for one in left]
                alone = replace(here, promised=[one for one in fewer if not one.leaving])
                assert plan(alone, [job]).admit == [] or len(here.machines) > 1
    assert plan(replace(here, preemption=False), queue).preempt == []


@MANY
@given(worlds(), st.randoms(use_true_random=False))
def test_the_plan_does_not_depend_on_the_order_of_rows(
    world: tuple[Scene, list[Waiting]], chance: random.Random
) -> None:
    here, queue = world
    found = plan(here, queue)
    again = [*queue]
    chance.shuffle(again)
    assert plan(here, again) == found


@MANY
@given(worlds())
def test_who_fits_an_idle_cluster_alone_starts_and_why_agrees(world: tuple[Scene, list[Waiting]]) -> None:
    here, queue = world
    for job in queue:
        starts = plan(replace(here, preemption=False), [job]).admit == [job.id]
        clauses = why(here, job)
        assert starts == (clauses == []) or any(one.leaving for one in here.promised)


# by name


def test_no_head_of_line_blocking() -> None:
    big, small = waits("1", Shape(4, 1, 1), seconds=60), waits("2")
    assert plan(scene(runs("0")), [big, small]).admit == ["2"]


def test_a_gang_is_not_starved_for_ever() -> None:
    """One-GPU jobs of others keep coming, each as long as two rounds; the gang needs the whole machine."""

    def started_in_round(reserved_from: float) -> int | None:
        gang = waits("0", Shape(4, 1, 1))
        running: list[Promised] = [runs(f"s{i}", project=f"q{i}") for i in range(4)]
        ends = {job.id: i % 2 for i, job in enumerate(running)}
        for number in range(30):
            running = [job for job in running if ends[job.id] != number]
            old = replace(gang, since=ago(900 if number >= reserved_from else 1))
            small = [waits(f"s{number}-{i}", project=f"q{i}") for i in range(4)]
            admitted = plan(scene(*running), [old, *small]).admit
            if gang.id in admitted:
                return number
            ends |= {one: number + 2 for one in admitted}
            running += [runs(job.id, project=job.project) for job in small if job.id in admitted]
        return None

    assert started_in_round(reserved_from=99) is None
    assert started_in_round(reserved_from=3) in (4, 5)


def test_a_gang_that_lacks_gpus_holds_back_no_cpu_job_and_one_that_never_fits_nobody() -> None:
    old = waits("0", Shape(4, 1, 1), seconds=700)
    assert plan(scene(runs("r")), [old, waits("1"), waits("2", ONE)]).admit == ["2"]
    never = waits("0", Shape(1, 1, 8), seconds=700)
    assert plan(scene(runs("r")), [never, waits("1"), waits("2", ONE)]).admit == ["1", "2"]
    assert plan(scene(runs("r")), [old, waits("1", priority=1)]).admit == ["1"]  # only its like and below


def test_a_project_at_its_quota_holds_back_only_itself() -> None:
    shares = {"p": Share(max_gpus=2)}
    old = waits("0", Shape(2, 1, 1), seconds=700)
    queue = [old, waits("1"), waits("2", ONE), waits("3", project="q")]
    assert plan(scene(runs("r"), shares=shares), queue).admit == ["3", "2"]


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, 3.0), (1.0, 2.0, 3.0)])
def test_fair_shares_converge_to_the_weights(weights: tuple[float, ...]) -> None:
    chance = random.Random(0)
    shares = {f"p{i}": Share(weight=weight) for i, weight in enumerate(weights)}
    machines = [Machine(12, 12)] * 4
    running: list[Promised] = []
    held: Counter[str] = Counter()
    number = 0
    for turn in range(400):
        running = [job for job in running if chance.random() > 0.2]
        queue = []
        for project in shares:
            for _ in range(20):
                number += 1
                queue.append(waits(f"{number:06}", Shape(chance.choice([1, 1, 2]), 1, 1), project=project))
        by_id = {job.id: job for job in queue}
        found = plan(scene(*running, machines=machines, shares=shares), queue)
        running += [runs(one, by_id[one].shape, project=by_id[one].project) for one in found.admit]
        if turn >= 50:
            for job in running:
                held[job.project] += job.shape.workers
    for project, share in shares.items():
        assert held[project] / held.total() == pytest.approx(share.weight / sum(weights), abs=0.02)


def test_within_a_share_the_longest_waiting_goes_first_and_in_a_project_the_oldest() -> None:
    queue = [
        waits("1", project="p", seconds=5),
        waits("2", project="q", seconds=9),
        waits("3", project="q", seconds=99),
    ]
    assert plan(scene(max_running=2), queue).admit == ["2", "1"]


def test_higher_priority_goes_first_whatever_the_shares() -> None:
    queue = [waits("1", project="q", seconds=99), waits("2", priority=1)]
    assert plan(scene(runs("r", Shape(3, 1, 1))), queue).admit == ["2"]


def test_a_project_that_used_up_its_gpu_hours_has_cpus_left() -> None:
    shares = {"p": Share(max_gpu_hours=10, gpu_hours=10)}
    assert plan(scene(shares=shares), [waits("1"), waits("2", ONE), waits("3", project="q")]).admit == ["2", "3"]


def test_the_lowest_then_the_newest_makes_room() -> None:
    running = [
        runs("a", priority=1, seconds=1),
        runs("b", seconds=90),
        runs("c", seconds=10),
        runs("d", priority=-1, movable=False),
    ]
    assert plan(scene(*running), [waits("x", priority=5)]).preempt == ["c"]
    assert plan(scene(*running), [waits("x", Shape(3, 1, 1), 5)]).preempt == ["a", "b", "c"]
    assert plan(scene(*running), [waits("x", Shape(4, 1, 1), 5)]).preempt == []  # would not help
    assert plan(scene(*running), [waits("x", priority=0)]).preempt == []
    assert plan(scene(*running, preemption=False), [waits("x", priority=5)]).preempt == []
    assert plan(scene(*running, max_running=4, machines=[Machine(99, 99)]), [waits("x", ONE, 5)]).preempt == ["c"]


def test_a_place_that_is_being_freed_is_kept_for_whom_it_is_freed() -> None:
    running = [runs("a", Shape(2, 1, 1), leaving=True), runs("b", Shape(1, 1, 1), 9)]
    gang, small = waits("x", Shape(3, 1, 1), 5), waits("y")
    found = plan(scene(*running), [gang, small])  # one GPU is free, and the gang will need it
    assert (found.admit, found.preempt) == ([], [])
    assert plan(scene(*running), [small]).admit == ["y"]
    assert plan(scene(*running[1:]), [gang, small]).admit == ["x"]


def test_what_is_promised_on_a_lost_machine_is_not_promised_again() -> None:
    running = [runs("a", Shape(4, 1, 1))]
    assert plan(scene(*running, machines=[Machine(4, 2)]), [waits("x"), waits("y", Shape(1, 1, 0))]).admit == []
    assert plan(scene(*running, machines=[Machine(4, 2), Machine(8, 0)]), [waits("x"), waits("y", ONE)]).admit == ["y"]


def test_endpoints_take_place() -> None:
    here = scene(replicas=[Shape(3, 0.1, 1)])
    assert plan(here, [waits("1"), waits("2")]).admit == ["1"]
    old = waits("0", Shape(4, 1, 1), seconds=700)  # no end of jobs makes room for it, so it holds nobody back
    assert plan(here, [old, waits("1")]).admit == ["1"]


@pytest.mark.parametrize(
    ("here", "job", "clauses"),
    [
        (scene(machines=[]), waits("x"), ["the cluster has not been seen yet"]),
        (scene(), waits("x"), []),
        (scene(runs("a", Shape(2, 1, 1))), waits("x", Shape(4, 1, 1)), ["needs 4 GPUs, 2 free"]),
        (scene(runs("a", Shape(1, 8, 0))), waits("x", ONE), ["needs 1 CPU, 0 free"]),
        (
            scene(runs("a", Shape(2, 1, 1), leaving=True)),
            waits("x", Shape(4, 1, 1)),
            ["needs 4 GPUs, 2 free, 2 being freed"],
        ),
        (
            scene(runs("a", Shape(6, 1, 1)), machines=[Machine(64, 16)], shares={"p": Share(max_gpus=8)}),
            waits("x", Shape(4, 1, 1)),
            ["project quota: 6 of 8 GPUs in use, it needs 4"],
        ),
        (
            scene(shares={"p": Share(max_gpu_hours=100, gpu_hours=100.04)}),
            waits("x"),
            ["project has used 100.0 of 100 GPU-hours of the last 30 days"],
        ),
        (
            scene(runs("a", ONE), shares={"p": Share(max_jobs=1)}),
            waits("x"),
            ["project quota: 1 of 1 jobs on the cluster"],
        ),
        (scene(), waits("x", Shape(1, 1, 8)), ["needs 8 GPUs on one machine, the largest has 4"]),
        (
            scene(machines=[Machine(1, 4), Machine(8, 1)]),
            waits("x", Shape(2, 2, 1)),
            ["needs 2 workers of 2 CPUs and 1 GPU, the machines have room for 1"],
        ),
        (scene(runs("a", ONE), max_running=1), waits("x"), ["1 of 1 jobs are on the cluster"]),
    ],
)
def test_why_a_job_waits(here: Scene, job: Waiting, clauses: list[str]) -> None:
    assert why(here, job) == clauses
