"""Every error becomes problem+json (RFC 9457); below `/v1/images` and `/v1/models`, OpenAI's own error body."""

import json
import re
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from api.pointers import pointers
from api.schemas import Problem
from service.errors import FewstepError, InProgress, InvalidRequest, NotReady, Pointer, TooLarge

MEDIA_TYPE = "application/problem+json"
log = structlog.get_logger(__name__)


def declared(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entry of a route's error answers, for its `responses`: its own, and those that every route can give.

    Those are about the key (401), what it may do (403), the project that it names (404), and the request's form.
    """
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    every = sorted({400, 401, 403, 404, 413, 422, *statuses})
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in every}


def answer(request: Request, error: FewstepError) -> Response:
    """The error as the body that this part of the API promises."""
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
    if error.status == 405:
        headers["Allow"] = _allowed(request)
    if isinstance(error, NotReady | InProgress):
        headers["Retry-After"] = "1"
    if request.url.path.startswith(("/v1/images", "/v1/models")):
        body: dict[str, Any] = {"error": _openai(error)}
        return _Json(body, error.status, headers)
    problem = Problem(
        title=error.title,
        status=error.status,
        detail=error.detail,
        code=error.code,
        request_id=getattr(request.state, "request_id", ""),
        errors=[{"pointer": entry.pointer, "detail": entry.detail} for entry in error.pointers],
    )
    return _Json(problem.model_dump(), error.status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Register the handlers. Anything unexpected is answered by `api.middleware`, which knows the request's id."""

    async def own(request: Request, error: Exception) -> Response:
        assert isinstance(error, FewstepError)
        if error.status >= 500:
            log.warning("request.refused", path=request.url.path, code=error.code, error=repr(error.__cause__))
        return answer(request, error)

    async def validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return answer(
            request, _invalid(pointers(error.errors(), error.body, _body_schema(request), _document(request)))
        )

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return answer(request, _from_http(request, error))

    app.add_exception_handler(FewstepError, own)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(HTTPException, http)


class _Json(JSONResponse):
    """Escapes everything outside ASCII, since a request may hold text that UTF-8 cannot carry back."""

    def __init__(
        self, body: Any, status: int, headers: dict[str, str] | None = None, media_type: str = "application/json"
    ) -> None:
        super().__init__(body, status, headers, media_type)

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode("ascii")


def _openai(error: FewstepError) -> dict[str, Any]:
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    param = error.pointers[0].pointer.lstrip("/") if error.pointers else None
    return {"message": error.detail, "type": kind, "param": param, "code": error.code}


def _invalid(found: list[Pointer]) -> InvalidRequest:
    first = found[0]
    more = f" ({len(found) - 1} more in `errors`)" if len(found) > 1 else ""
    return InvalidRequest(f"{first.pointer or 'The body'}: {first.detail}{more}", found)


def _from_http(request: Request, error: HTTPException) -> FewstepError:
    """What the framework itself refuses."""
    if error.status_code == 413:
        return TooLarge(str(error.detail))
    details = {
        404: f"There is nothing at {request.url.path}; /docs lists every route.",
        405: f"{request.url.path} does not take {request.method}; it takes {_allowed(request)}.",
    }
    known = error.status_code == 404 and _operations(request)  # a GET that only the dashboard's route would take
    status = HTTPStatus(405 if known else error.status_code)
    problem = FewstepError(details.get(status, str(error.detail)))
    problem.status, problem.title = status.value, status.phrase
    problem.code = status.phrase.lower().replace(" ", "_")
    return problem


def _document(request: Request) -> dict[str, Any]:
    app: FastAPI = request.app
    return app.openapi()


def _operations(request: Request) -> dict[str, Any]:
    """What the OpenAPI document says of the path that was asked, by method."""
    paths: dict[str, dict[str, Any]] = _document(request)["paths"]
    route = getattr(request.scope.get("route"), "path", "")
    if route in paths:
        return paths[route]
    matching = (one for one in paths if re.fullmatch(re.sub(r"{[^/]+}", "[^/]+", one), request.url.path))
    return paths.get(next(matching, ""), {})


def _allowed(request: Request) -> str:
    return ", ".join(sorted(method.upper() for method in _operations(request))) or "GET"


def _body_schema(request: Request) -> dict[str, Any]:
    """The schema of the body that this route takes, from the OpenAPI document; empty when it takes none."""
    operation = _operations(request).get(request.method.lower(), {})
    schema: dict[str, Any] = (
        operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    )
    return schema
