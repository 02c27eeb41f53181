"""The audit log: whoever changes it afterwards is found out."""

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest
from service_fixtures import ClockedDatabase
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from service import audit
from service.audit import Head, Verdict
from service.db import insert_together
from service.housekeeping import Housekeeping
from service.tables import AuditEntry

Tamper = Callable[[AsyncSession], Awaitable[object]]


async def record(db: ClockedDatabase, *targets: str) -> None:
    for target in targets:
        async with db.write() as session:
            entry = audit.row(
                project_id="prj_a",
                key_id="key_a",
                action="job.submit",
                target=target,
                data={"weight": 0.1, "name": "é"},
                request_id="req",
                now=await db.now(session),
            )
            await insert_together(session, [entry])


async def seal(db: ClockedDatabase) -> int:
    async with db.write() as session:
        return await audit.seal(session, await db.now(session))


async def verify(db: ClockedDatabase, kept: Head | None = None) -> Verdict:
    async with db.read() as session:
        return await audit.verify(session, kept)


async def entry(session: AsyncSession, seq: int) -> AuditEntry:
    return (await session.execute(select(AuditEntry).where(AuditEntry.seq == seq))).scalar_one()


async def test_a_sealed_log_is_intact_and_grows(db: ClockedDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "BATCH", 3)
    assert await verify(db) == Verdict(Head(), unsealed=0)
    await record(db, *"abcde")
    assert (await verify(db)).unsealed == 5
    assert [await seal(db), await seal(db), await seal(db)] == [3, 2, 0]
    first = await verify(db)
    assert (first.head.seq, first.unsealed, first.problem) == (5, 0, None)
    await record(db, *"fgh")
    house = Housekeeping(db, lease_seconds=15)
    await house.tick()
    second = await verify(db, first.head)
    assert (second.head.seq, second.unsealed, second.problem) == (8, 0, None)
    async with db.read() as session:
        assert [row.target for row in await audit.page(session, limit=10)] == list("hgfedcba")


async def edit(session: AsyncSession, **values: object) -> None:
    await session.execute(update(AuditEntry).where(AuditEntry.seq == 3).values(**values))


async def exchange(session: AsyncSession) -> None:
    second, third = await entry(session, 2), await entry(session, 3)
    contents = [{name: getattr(row, name) for name in ("target", "at", "data")} for row in (second, third)]
    await session.execute(update(AuditEntry).where(AuditEntry.id == second.id).values(contents[1]))
    await session.execute(update(AuditEntry).where(AuditEntry.id == third.id).values(contents[0]))


async def renumber(session: AsyncSession) -> None:
    ids = [(await entry(session, seq)).id for seq in (2, 3)]
    for seq, row_id in zip((99, 2, 3), (ids[0], ids[1], ids[0]), strict=True):
        await session.execute(update(AuditEntry).where(AuditEntry.id == row_id).values(seq=seq))


async def put_in(session: AsyncSession) -> None:
    """Between two entries, with hashes that are right for itself."""
    for seq in (5, 4):
        await session.execute(update(AuditEntry).where(AuditEntry.seq == seq).values(seq=seq + 1))
    before = await entry(session, 3)
    names = [column.key for column in AuditEntry.__table__.columns]
    copy = AuditEntry(**{name: getattr(before, name) for name in names})
    copy.id, copy.target = "aud_made_up", "never"
    sha256 = audit._digest(copy, 4, str(before.sha256))
    values = {name: getattr(copy, name) for name in names} | {"seq": 4, "previous": before.sha256, "sha256": sha256}
    await session.execute(insert(AuditEntry).values(values))


TAMPERINGS: dict[str, tuple[Tamper, int, str]] = {
    "target": (lambda session: edit(session, target="other"), 2, "Entry 3 .* was edited"),
    "action": (lambda session: edit(session, action="job.cancel"), 2, "Entry 3 .* was edited"),
    "key": (lambda session: edit(session, key_id=None), 2, "Entry 3 .* was edited"),
    "project": (lambda session: edit(session, project_id="prj_b"), 2, "Entry 3 .* was edited"),
    "request": (lambda session: edit(session, request_id="other"), 2, "Entry 3 .* was edited"),
    "data": (lambda session: edit(session, data={"weight": 0.2, "name": "é"}), 2, "Entry 3 .* was edited"),
    "id": (lambda session: edit(session, id="aud_other"), 2, "Entry 3 .* was edited"),
    "hash": (lambda session: edit(session, sha256="0" * 64), 2, "Entry 3 .* was edited"),
    "deleted": (
        lambda session: session.execute(delete(AuditEntry).where(AuditEntry.seq == 3)),
        2,
        "Entry 3 is missing",
    ),
    "first": (lambda session: session.execute(delete(AuditEntry).where(AuditEntry.seq == 1)), 0, "Entry 1 is missing"),
    "exchanged": (exchange, 1, "Entry 2 .* was edited"),
    "renumbered": (renumber, 1, "Entry 2 .* does not follow entry 1"),
    "put in": (put_in, 4, "Entry 5 .* does not follow entry 4"),
}


@pytest.mark.parametrize("tampering", TAMPERINGS)
async def test_tampering_is_found_at_its_place(db: ClockedDatabase, tampering: str) -> None:
    tamper, good, problem = TAMPERINGS[tampering]
    await record(db, *"abcde")
    await seal(db)
    async with db.write() as session:
        await tamper(session)
    found = await verify(db)
    assert found.head.seq == good
    assert found.problem is not None
    assert re.search(problem, found.problem), found.problem


async def test_a_cut_or_rewritten_log_does_not_fit_the_head_that_was_kept(db: ClockedDatabase) -> None:
    await record(db, *"abcde")
    await seal(db)
    kept = (await verify(db)).head
    async with db.write() as session:
        await session.execute(delete(AuditEntry).where(AuditEntry.seq > 3))
    assert (await verify(db)).problem is None  # nothing in the log itself can tell
    assert "ends at entry 3, and entry 5 was kept" in str((await verify(db, kept)).problem)
    await record(db, "x", "y", "z")
    await seal(db)
    assert (await verify(db)).problem is None
    found = await verify(db, kept)
    assert "was written anew" in str(found.problem)
    assert found.head.seq == 4


async def test_many_sealers_make_one_chain(db: ClockedDatabase) -> None:
    await record(db, *"abcdefghij")
    sealed = await asyncio.gather(*(seal(db) for _ in range(4)), record(db, "k", "l"))
    assert sum(count or 0 for count in sealed) >= 10
    await seal(db)
    found = await verify(db)
    assert (found.head.seq, found.unsealed, found.problem) == (12, 0, None)


async def test_one_process_keeps_house_at_a_time(db: ClockedDatabase) -> None:
    first, second = Housekeeping(db, lease_seconds=15), Housekeeping(db, lease_seconds=15)
    await first.tick()
    await record(db, "a")
    await second.tick()
    assert (await verify(db)).unsealed == 1
    await first.release()
    await second.tick()
    assert (await verify(db)).unsealed == 0
