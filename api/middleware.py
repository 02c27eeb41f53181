"""Around every request: its id, log line and metrics, the limit on its body, and the answer when all else fails."""

import re
import time
import uuid
from contextlib import suppress

import structlog
from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import problems
from service import outage
from service.errors import FewstepError, TooLarge
from service.meters import Meters

with suppress(ImportError):  # comes with the extra `fewstep[otel]`, see `service.tracing`
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

log = structlog.get_logger("api.request")

_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_QUIET = ("/healthz", "/readyz", "/metrics", "/assets/", "/v1/attempts/")


_UNTRACED = "//[^/]+/(healthz|readyz|metrics)$"


def trace_requests(app: FastAPI) -> None:
    """A span for each request, once `tracing.set_up` has said that there are traces."""
    FastAPIInstrumentor.instrument_app(app, excluded_urls=_UNTRACED)


class RequestMiddleware:
    """The outermost layer, so that every answer has an id, and every failure a problem+json."""

    def __init__(self, app: ASGIApp, meters: Meters) -> None:
        self._app = app
        self._meters = meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _GIVEN_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"
        scope.setdefault("state", {})["request_id"] = request_id
        start, status = time.perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
                self._count(scope, status, time.perf_counter() - start)
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, sending)
            except Exception as error:
                found = outage.of_database(error)
                if found is None:
                    log.exception("request.failed", method=scope["method"], path=scope["path"])
                else:
                    log.warning("request.refused", path=scope["path"], code=found.code, error=type(error).__name__)
                if status:  # the answer is on its way already; all that is left is to break it off
                    raise
                detail = f"Something went wrong here; the server's log has it under {request_id}."
                await problems.answer(Request(scope), found or FewstepError(detail))(scope, receive, sending)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self._meters.answered(scope["method"], route, status, seconds)
        if status >= 400 or not scope["path"].startswith(_QUIET):
            milliseconds = round(1000 * seconds, 1)
            log.info("request", method=scope["method"], path=scope["path"], status=status, ms=milliseconds)


class BodyLimitMiddleware:
    """Refuses bodies over the limit: at once when they are announced, else when they have grown too long."""

    def __init__(self, app: ASGIApp, limit: int, report_limit: int) -> None:
        self._app = app
        self._limit = limit
        self._report_limit = report_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._report_limit if scope["path"].startswith("/v1/attempts/") else self._limit
        refusal = f"The body is longer than {limit:,} bytes; send less."
        announced = Headers(scope=scope).get("content-length", "0")
        if not announced.isdecimal() or int(announced[:20]) > limit:
            await problems.answer(Request(scope), TooLarge(refusal))(scope, receive, send)
            return
        received = 0

        async def receiving() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise HTTPException(413, refusal)  # the one exception that FastAPI lets through while it reads
            return message

        await self._app(scope, receiving, send)
