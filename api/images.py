"""The playground's way to the gateway: the OpenAI images API, passed on as it is."""

from typing import Any

import httpx
from fastapi import APIRouter, Request
from starlette.responses import Response

from api.deps import Behind, Member, Viewer
from service import endpoints
from service.errors import NotReady
from service.images import ImagesAnswer, ImagesRequest, ModelList, endpoint_of

OPENAI_ERROR: dict[str, Any] = {
    "description": "OpenAI's error body.",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["error"],
                "properties": {
                    "error": {
                        "type": "object",
                        "required": ["message", "type", "param", "code"],
                        "properties": {
                            "message": {"type": "string"},
                            "type": {"type": "string"},
                            "param": {"type": ["string", "null"]},
                            "code": {"type": ["string", "null"]},
                        },
                    }
                },
            }
        }
    },
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: OPENAI_ERROR for status in (400, 401, 403, 404, 413, 422, 429, 500, 503)
}

router = APIRouter(prefix="/v1", tags=["images"])


@router.post("/images/generations", response_model=ImagesAnswer, responses=ERRORS)
async def generate_images(body: ImagesRequest, caller: Member, behind: Behind, request: Request) -> Response:
    """Generate images with an endpoint of the project; the same as asking the endpoint's own URL."""
    async with behind.db.read() as session:
        await endpoints.get(session, caller.project_id, endpoint_of(body.model))
    return await _pass_on(request, body.model_dump_json(exclude_unset=True).encode())


@router.get("/models", response_model=ModelList, responses=ERRORS)
async def list_models(caller: Viewer, behind: Behind, request: Request) -> Response:
    """What can be generated with: the project's endpoints, and the teachers that are served beside them."""
    answer = await _pass_on(request, b"")
    if answer.status_code != 200:
        return answer
    served = ModelList.model_validate_json(bytes(answer.body))
    async with behind.db.read() as session:
        mine = await endpoints.names(session, caller.project_id)
    models = [model for model in served.data if endpoint_of(model.id) in mine]
    return Response(ModelList(data=models).model_dump_json(), media_type="application/json")


async def _pass_on(request: Request, body: bytes) -> Response:
    gateway: httpx.AsyncClient = request.app.state.gateway
    headers = {"Content-Type": "application/json"} if body else {}
    try:
        answer = await gateway.request(request.method, request.url.path, content=body, headers=headers)
    except httpx.TransportError as error:
        raise NotReady("The gateway does not answer; an endpoint has to be ready before images can be made.") from error
    if answer.status_code >= 500 and not answer.headers.get("content-type", "").startswith("application/json"):
        raise NotReady(f"The gateway answered {answer.status_code}; try again in a moment.")
    kept = {name: value for name, value in answer.headers.items() if name in ("content-type", "retry-after")}
    return Response(answer.content, answer.status_code, kept)
