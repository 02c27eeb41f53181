"""The audit log: who did what, in the deed's own transaction, chained so that it cannot be edited unnoticed.

Writers only insert, so none waits for another. A moment later `seal` numbers the new entries 1, 2, 3 … and gives each
the SHA-256 of its content, its number and its predecessor's hash; `verify` recomputes all of it. An edit, a deletion,
an insertion or an exchange breaks the chain at its place. Whoever can rewrite the whole table can also rewrite the
chain, or cut off its end: that shows only against a head (number and hash) that was kept elsewhere.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from service.db import NewRow
from service.ids import new_id
from service.tables import AuditEntry

START = "0" * 64
"""What the first entry names as its predecessor's hash."""
BATCH = 1000


@dataclass(frozen=True)
class Head:
    """The end of the chain: the number of its last entry, and that entry's hash. 0 and `START` when it is empty."""

    seq: int = 0
    sha256: str = START


@dataclass(frozen=True)
class Verdict:
    """What a check of the chain found."""

    head: Head
    """The last entry up to which all is well."""
    unsealed: int
    """Entries that were written a moment ago and are not in the chain yet."""
    problem: str | None = None
    """What is wrong with the first bad entry, in a sentence that names it; None when nothing is."""


def row(
    *,
    project_id: str | None,
    key_id: str | None,
    action: str,
    target: str,
    data: dict[str, Any],
    request_id: str,
    now: datetime,
) -> NewRow:
    """What somebody did ('job.submit' and the job's id): to be stored in the deed's own transaction."""
    entry = {"id": new_id("aud"), "at": now, "project_id": project_id, "key_id": key_id, "action": action}
    return AuditEntry, {**entry, "target": target, "data": data, "request_id": request_id}


async def seal(session: AsyncSession, now: datetime) -> int:
    """Number and chain what was written before `now`; how many entries that were.

    Two sealers at once do no harm: the second one waits for the first one's rows, and then finds them sealed.
    """
    waiting = select(AuditEntry).where(AuditEntry.seq.is_(None), AuditEntry.at <= now).order_by(AuditEntry.id)
    rows = (await session.scalars(waiting.limit(BATCH).with_for_update())).all()
    if not rows:
        return 0
    head = await last(session)  # read after the rows are locked, so no other sealer can move it any more
    sealed: list[dict[str, Any]] = []
    for row in rows:
        seq, previous = head.seq + 1, head.sha256
        head = Head(seq, _digest(row, seq, previous))
        sealed.append({"id": row.id, "seq": seq, "previous": previous, "sha256": head.sha256})
    await session.execute(update(AuditEntry), sealed)
    return len(sealed)


async def unsealed(session: AsyncSession) -> int:
    """How many entries wait to be chained."""
    return (await session.execute(select(func.count()).where(AuditEntry.seq.is_(None)))).scalar_one()


async def last(session: AsyncSession) -> Head:
    """The end of the chain as it is stored."""
    newest = select(AuditEntry.seq, AuditEntry.sha256).where(AuditEntry.seq.is_not(None))
    row = (await session.execute(newest.order_by(AuditEntry.seq.desc()).limit(1))).one_or_none()
    return Head(int(row[0] or 0), str(row[1])) if row is not None else Head()


async def verify(session: AsyncSession, kept: Head | None = None) -> Verdict:
    """Recompute the chain from its start, and compare it with a head that was `kept` elsewhere."""
    head, problem = Head(), None
    while problem is None:
        following = select(AuditEntry).where(AuditEntry.seq > head.seq).order_by(AuditEntry.seq).limit(BATCH)
        rows = (await session.scalars(following.execution_options(populate_existing=True))).all()
        if not rows:
            break
        for row in rows:
            problem = _fault(row, head) or _unlike(kept, row)
            if problem is not None:
                break
            head = Head(head.seq + 1, str(row.sha256))
    if problem is None and kept is not None and kept.seq > head.seq:
        problem = f"The log ends at entry {head.seq}, and entry {kept.seq} was kept: its end was cut off."
    return Verdict(head, await unsealed(session), problem)


async def page(
    session: AsyncSession,
    *,
    limit: int,
    after: str | None = None,
    project_id: str | None = None,
    key_id: str | None = None,
    target: str | None = None,
) -> Sequence[AuditEntry]:
    """The newest first, starting below the id `after`; up to `limit` + 1."""
    query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit + 1)
    if after is not None:
        query = query.where(AuditEntry.id < after)
    for column, value in (
        (AuditEntry.project_id, project_id),
        (AuditEntry.key_id, key_id),
        (AuditEntry.target, target),
    ):
        if value is not None:
            query = query.where(column == value)
    return (await session.scalars(query)).all()


def _fault(row: AuditEntry, head: Head) -> str | None:
    if row.seq != head.seq + 1:
        return f"Entry {head.seq + 1} is missing; the next one is {row.seq} ({row.id})."
    if row.previous != head.sha256:
        return f"Entry {row.seq} ({row.id}) does not follow entry {head.seq}: one of them was put in or exchanged."
    if row.sha256 != _digest(row, row.seq, row.previous):
        return f"Entry {row.seq} ({row.id}) was edited: its content does not give its hash."
    return None


def _unlike(kept: Head | None, row: AuditEntry) -> str | None:
    if kept is None or row.seq != kept.seq or row.sha256 == kept.sha256:
        return None
    return f"Entry {row.seq} ({row.id}) is not the one that was kept: the log was written anew up to here."


def _digest(row: AuditEntry, seq: int, previous: str) -> str:
    content = {
        "seq": seq,
        "previous": previous,
        "id": row.id,
        "at": row.at.astimezone(UTC).isoformat(timespec="microseconds"),
        "project_id": row.project_id,
        "key_id": row.key_id,
        "action": row.action,
        "target": row.target,
        "data": row.data,
        "request_id": row.request_id,
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
