"""API keys: made, listed and revoked by administrators, for any project."""

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from api import problems
from api.deps import Admin, After, Behind, Creating, Limit, Made, Writing, page
from api.schemas import KeyCreate, KeyView, NewKey, Page
from service import auth, projects
from service.errors import InvalidRequest, Pointer

router = APIRouter(prefix="/v1/keys", tags=["keys"])


@router.post("", status_code=201, response_model=NewKey, responses=problems.declared(409))
async def create_key(body: KeyCreate, caller: Admin, create: Creating) -> Response:
    """Make a key. It is shown in this answer alone: not even a repeat with the same Idempotency-Key shows it again."""

    async def make(session: AsyncSession, now: datetime) -> Made:
        project = await projects.find(session, caller.project_id if body.project is None else body.project)
        if project is None:
            detail = "There is no such project; GET /v1/projects lists them."
            raise InvalidRequest(detail, [Pointer("/project", detail)])
        expires_in = None if body.expires_in_days is None else timedelta(days=body.expires_in_days)
        row, key = await auth.create(session, project.id, body.name, body.role, expires_in, now)
        return Made(f"/v1/keys/{row.id}", NewKey(key=key, **KeyView.model_validate(row).model_dump()))

    return await create(201, make, **body.model_dump(mode="json"))


@router.get("", responses=problems.declared())
async def list_keys(
    caller: Admin,
    behind: Behind,
    limit: Limit = 20,
    after: After = None,
    project: Annotated[str | None, Query(max_length=200, description="Only this project's, by name or id.")] = None,
) -> Page[KeyView]:
    """Keys of every project, the newest first, with those that are over."""
    async with behind.db.read() as session:
        only = None if project is None else (await projects.get(session, project)).id
        rows = await auth.page(session, project_id=only, limit=limit, after=after)
    return page(rows, limit, KeyView.model_validate, lambda row: row.id)


@router.delete("/{key_id}", responses=problems.declared(409))
async def revoke_key(key_id: str, caller: Admin, write: Writing) -> KeyView:
    """End a key, within a second. 409 for the last administrator's key that never expires."""
    async with write(key_id) as (session, now):
        revoked = await auth.revoke(session, key_id, now)
    write.behind.keyring.forget()
    return KeyView.model_validate(revoked)
