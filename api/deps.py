"""What routes ask for: the services behind them, who is asking, pages, and writes, which are audited and done once."""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Query, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel
from pydantic_core import to_json
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from api.schemas import SHOWN_ONCE, Page
from api.stream import Watch
from service import attempts, audit, idempotency
from service.auth import Caller, Keyring
from service.cluster import Cluster
from service.db import Database, NewRow, insert_together, is_duplicate
from service.errors import Conflict, Forbidden, InProgress, Unauthorized
from service.hub import Hub
from service.meters import Meters
from service.reconcile import Reconciler
from service.settings import Settings
from service.status import Role
from service.storage import Storage


@dataclass
class Services:
    """Everything behind the routes; made at start, closed at the end."""

    settings: Settings
    db: Database
    store: Storage
    hub: Hub
    cluster: Cluster
    keyring: Keyring
    watch: Watch
    reconciler: Reconciler
    meters: Meters
    attempt_key: bytes = b""


async def services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


Behind = Annotated[Services, Depends(services)]

_bearer = HTTPBearer(auto_error=False, description="An API key; the first one is in $FEWSTEP_HOME/api_key.")
_attempt_bearer = HTTPBearer(auto_error=False, scheme_name="AttemptToken", description="The attempt's own token.")
_Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
_AttemptCredentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_attempt_bearer)]


_ActIn = Annotated[str | None, Header(description="An admin's key acts in this project, by name or id.")]


async def anyone() -> None:
    """A route that everybody may ask says so by depending on this."""


async def authenticate(request: Request, credentials: _Credentials, fewstep_project: _ActIn = None) -> Caller:
    """Whose API key asks, and in which project. Unauthorized, Forbidden, NotFound."""
    if credentials is None:
        raise Unauthorized("Send an API key as 'Authorization: Bearer <key>'; the first is in $FEWSTEP_HOME/api_key.")
    behind = await services(request)
    return await behind.keyring.check(credentials.credentials, fewstep_project)


async def attempt_token(attempt_id: str, behind: Behind, credentials: _AttemptCredentials) -> str:
    """The id of the attempt that asks, by its own token. Unauthorized."""
    if credentials is None:
        raise Unauthorized("Send the attempt's token as 'Authorization: Bearer <token>'.")
    attempts.check_token(behind.attempt_key, attempt_id, credentials.credentials)
    return attempt_id


class Needs:
    """A route's demand: an API key of at least this role. The OpenAPI document says so as `x-role`."""

    def __init__(self, role: Role) -> None:
        self.role = role

    async def __call__(self, caller: Annotated[Caller, Depends(authenticate)]) -> Caller:
        """The caller. Forbidden."""
        roles = list(Role)
        if roles.index(caller.role) < roles.index(self.role):
            raise Forbidden(f"This needs a key with the role {self.role}, and yours is a {caller.role}'s.")
        return caller


Viewer = Annotated[Caller, Depends(Needs(Role.VIEWER))]
Member = Annotated[Caller, Depends(Needs(Role.MEMBER))]
Admin = Annotated[Caller, Depends(Needs(Role.ADMIN))]
AttemptId = Annotated[str, Depends(attempt_token)]


def role_of(route: APIRoute) -> str | None:
    """Who may ask a route, from its own dependencies: none, attempt, viewer, member, admin. None: it does not say."""
    asked = list(_calls(route.dependant))
    needed = [call.role for call in asked if isinstance(call, Needs)]
    if needed:
        return max(needed, key=list(Role).index).value
    return "attempt" if attempt_token in asked else "none" if anyone in asked else None


def _calls(dependant: Dependant) -> Iterator[object]:
    for inner in dependant.dependencies:
        yield inner.call
        yield from _calls(inner)


Limit = Annotated[int, Query(ge=1, le=1000, description="Entries of a page at most.")]
After = Annotated[str | None, Query(max_length=200, pattern=r"^[a-z0-9_]+$", description="The `next` of a page.")]
AfterNumber = Annotated[int, Query(ge=0, le=2**53, description="Only entries with a greater number.")]

Row = TypeVar("Row")
View = TypeVar("View", bound=BaseModel)


def page(rows: Sequence[Row], limit: int, view: Callable[[Row], View], key: Callable[[Row], Any]) -> Page[View]:
    """A page of the first `limit` of `rows`; a row beyond them says that more follow."""
    shown = rows[:limit]
    more = len(rows) > limit
    return Page(data=[view(row) for row in shown], has_more=more, next=str(key(shown[-1])) if more else None)


class Write:
    """One write by a key: one transaction, that ends with its row of the audit log, and then a nudge."""

    def __init__(self, request: Request, behind: Services, caller: Caller) -> None:
        self.request = request
        self.behind = behind
        self.caller = caller
        self.target = ""
        self.data: dict[str, Any] = {}
        self.rows: list[NewRow] = []

    @asynccontextmanager
    async def __call__(self, target: str = "", **data: Any) -> AsyncIterator[tuple[AsyncSession, datetime]]:
        """The transaction, and its time. `target` is what the deed is done to; the block may also set it.

        The deed is named after the route: `cancel_job` is `job.cancel`. Without a target, nothing was done. What the
        block leaves in `rows` is inserted with the row of the audit log.
        """
        self.target, self.data = target, data
        try:
            async with self.behind.db.write() as session:
                now = await self.behind.db.now(session)
                yield session, now
                if self.target:
                    await insert_together(session, [*self.rows, self._deed(now)])
        except IntegrityError as error:
            if idempotency.is_taken(error):
                raise InProgress(idempotency.IN_PROGRESS) from error
            if not is_duplicate(error):
                raise
            raise Conflict("Another request made the same thing at the same moment; look, or try again.") from error
        self.behind.reconciler.nudge()

    def _deed(self, now: datetime) -> NewRow:
        verb, _, noun = self.request.scope["route"].name.partition("_")
        return audit.row(
            project_id=self.caller.project_id,
            key_id=self.caller.key_id,
            action=f"{noun}.{verb}",
            target=self.target,
            data=self.data,
            request_id=self.request.state.request_id,
            now=now,
        )


async def _write(request: Request, caller: Annotated[Caller, Depends(authenticate)]) -> Write:
    return Write(request, await services(request), caller)


Writing = Annotated[Write, Depends(_write)]
REPLAYED = "Idempotency-Replayed"
"""The header of an answer that was given before."""


@dataclass(frozen=True)
class Made:
    """Something new: its path, its view, and rows of it that are still to be stored."""

    path: str
    view: BaseModel
    rows: Sequence[NewRow] = ()


Make = Callable[[AsyncSession, datetime], Awaitable[Made]]


class Create:
    """One create, in one transaction, answered 201 or 202 with `Location`; repeated under one key, done once."""

    def __init__(self, write: Write, idempotency_key: str | None) -> None:
        self._write = write
        self._key = idempotency_key

    async def __call__(self, status: int, make: Make, **data: Any) -> Response:
        """`make` creates in the session that it is given.

        What the view marks as `ShownOnce` is null in the answer to a repeat. `data` goes to the audit log.
        """
        project_id = self._write.caller.project_id
        async with self._write(**data) as (session, now):
            digest = await self._digest() if self._key is not None else ""
            if self._key is not None:
                stored = await idempotency.claim(self._write.behind.db, session, project_id, self._key, digest, now)
                if stored is not None:
                    return _created(status, stored, replayed=True)
            made = await make(session, now)
            self._write.target = made.path.rsplit("/", 1)[1]
            self._write.rows += made.rows
            body = made.view.model_dump(mode="json")
            if self._key is not None:
                kept = {"location": made.path, "body": {**body, **_hidden(made.view)}}
                self._write.rows.append(idempotency.row(project_id, self._key, digest, kept, now))
        return _created(status, {"location": made.path, "body": body})

    async def _digest(self) -> str:
        request = self._write.request
        url = f"{request.method} {request.url.path}\n".encode()
        return hashlib.sha256(url + await request.body()).hexdigest()


_IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=r"^[!-~]{1,200}$",
        description="A text of your choice; a repeat with the same key and body gets the first one's answer.",
    ),
]


async def _create(write: Writing, idempotency_key: _IdempotencyKey = None) -> Create:
    return Create(write, idempotency_key)


Creating = Annotated[Create, Depends(_create)]  # a class that is depended on itself is made in a thread


def _hidden(view: BaseModel) -> dict[str, None]:
    return {name: None for name, field in type(view).model_fields.items() if SHOWN_ONCE in field.metadata}


def _created(status: int, answer: Any, *, replayed: bool = False) -> Response:
    headers = {"Location": answer["location"], **({REPLAYED: "true"} if replayed else {})}
    return Response(to_json(answer["body"]), status, headers, "application/json")
