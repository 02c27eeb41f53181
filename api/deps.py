"""What routes ask for: the services behind them, who is asking, pages, and creates that may be repeated."""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CollectorRegistry, Gauge
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import JSONResponse

from api.schemas import Page
from service import attempts, auth, idempotency
from service.auth import Caller
from service.cluster import Cluster
from service.db import Database
from service.errors import Forbidden, Unauthorized
from service.reconcile import Reconciler
from service.settings import Settings
from service.status import Role
from service.storage import Storage


class Gauges:
    """Prometheus series that are set when they are read."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.jobs = Gauge("fewstep_jobs", "Jobs by status.", ["status"], registry=registry)
        self.lag = Gauge("fewstep_reconcile_lag_seconds", "Since the reconciler's last look.", registry=registry)
        self.tick = Gauge("fewstep_reconcile_tick_seconds", "How long that look took.", registry=registry)


@dataclass
class Services:
    """Everything behind the routes; made at start, closed at the end."""

    settings: Settings
    db: Database
    store: Storage
    cluster: Cluster
    reconciler: Reconciler
    registry: CollectorRegistry
    gauges: Gauges
    attempt_key: bytes = b""


def services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


Behind = Annotated[Services, Depends(services)]

_bearer = HTTPBearer(auto_error=False, description="An API key; the first one is in $FEWSTEP_HOME/api_key.")
_attempt_bearer = HTTPBearer(auto_error=False, scheme_name="AttemptToken", description="The attempt's own token.")
_Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
_AttemptCredentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_attempt_bearer)]


async def authenticate(behind: Behind, credentials: _Credentials) -> Caller:
    """Whose API key asks. Unauthorized."""
    if credentials is None:
        raise Unauthorized("Send an API key as 'Authorization: Bearer <key>'; the first is in $FEWSTEP_HOME/api_key.")
    async with behind.db.read() as session:
        return await auth.check(session, credentials.credentials)


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

    def __call__(self, caller: Annotated[Caller, Depends(authenticate)]) -> Caller:
        """The caller. Forbidden."""
        roles = list(Role)
        if roles.index(caller.role) < roles.index(self.role):
            raise Forbidden(f"This needs a key with the role {self.role}, and yours is a {caller.role}'s.")
        return caller


Viewer = Annotated[Caller, Depends(Needs(Role.VIEWER))]
Member = Annotated[Caller, Depends(Needs(Role.MEMBER))]
Admin = Annotated[Caller, Depends(Needs(Role.ADMIN))]
AttemptId = Annotated[str, Depends(attempt_token)]

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


Made = tuple[str, BaseModel]
Make = Callable[[AsyncSession, datetime], Awaitable[Made]]


class Create:
    """One create, in one transaction, answered 201 or 202 with `Location`; repeated under one key, done once."""

    def __init__(
        self,
        request: Request,
        behind: Behind,
        caller: Annotated[Caller, Depends(authenticate)],
        idempotency_key: Annotated[
            str | None,
            Header(
                pattern=r"^[!-~]{1,200}$",
                description="A text of your choice; a repeat with the same key and body gets the first one's answer.",
            ),
        ] = None,
    ) -> None:
        self._request = request
        self._behind = behind
        self._caller = caller
        self._key = idempotency_key

    async def __call__(self, status: int, make: Make) -> JSONResponse:
        """`make` creates in the session that it is given, and returns the new thing's path and view."""
        async with self._behind.db.write() as session:
            now = await self._behind.db.now(session)
            stored = await self._reserved(session, now)
            if stored is not None:
                return _created(status, stored, replayed=True)
            location, view = await make(session, now)
            answer = {"location": location, "body": view.model_dump(mode="json")}
            if self._key is not None:
                await idempotency.remember(session, self._caller.project_id, self._key, answer)
        self._behind.reconciler.nudge()
        return _created(status, answer)

    async def _reserved(self, session: AsyncSession, now: datetime) -> Any | None:
        if self._key is None:
            return None
        url = f"{self._request.method} {self._request.url.path}\n".encode()
        digest = hashlib.sha256(url + await self._request.body()).hexdigest()
        return await idempotency.reserve(session, self._caller.project_id, self._key, digest, now)


def _created(status: int, answer: Any, *, replayed: bool = False) -> JSONResponse:
    headers = {"Location": answer["location"], **({"Idempotency-Replayed": "true"} if replayed else {})}
    return JSONResponse(answer["body"], status, headers)
