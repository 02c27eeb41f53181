"""The audit log: what was done with which key, and whether the log is as it was written."""

from typing import Annotated

from fastapi import APIRouter, Query

from api import problems
from api.deps import Admin, After, Behind, Limit, page
from api.schemas import AuditView, ChainView, Page
from service import audit

router = APIRouter(prefix="/v1/audit", tags=["audit"])

Id = Annotated[str | None, Query(max_length=200, pattern=r"^[A-Za-z0-9._-]+$")]


@router.get("", responses=problems.declared())
async def list_audit(
    caller: Admin,
    behind: Behind,
    limit: Limit = 20,
    after: After = None,
    project_id: Id = None,
    key_id: Id = None,
    target: Id = None,
) -> Page[AuditView]:
    """What was written with every key of every project, the newest first."""
    async with behind.db.read() as session:
        rows = await audit.page(session, limit=limit, after=after, project_id=project_id, key_id=key_id, target=target)
    return page(rows, limit, AuditView.model_validate, lambda row: row.id)


@router.get("/verify", responses=problems.declared())
async def verify_audit(
    caller: Admin,
    behind: Behind,
    head: Annotated[
        str | None,
        Query(pattern=r"^[0-9]{1,15}:[0-9a-f]{64}$", description="`seq:sha256` of an earlier check, kept elsewhere."),
    ] = None,
) -> ChainView:
    """Recompute the log's hash chain from its start. `head` shows whether its end was cut off or written anew."""
    kept = None
    if head is not None:
        seq, _, sha256 = head.partition(":")
        kept = audit.Head(int(seq), sha256)
    async with behind.db.read() as session:
        found = await audit.verify(session, kept)
    return ChainView(
        intact=found.problem is None,
        seq=found.head.seq,
        sha256=found.head.sha256,
        unsealed=found.unsealed,
        problem=found.problem,
    )
