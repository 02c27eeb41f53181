"""The distillation methods that this server knows, each with the JSON Schema that forms and docs are made from."""

from fastapi import APIRouter

from api import problems
from api.deps import Viewer
from api.schemas import MethodView, Page
from service.errors import NotFound
from service.methods import METHODS

router = APIRouter(prefix="/v1/methods", tags=["methods"])


@router.get("", responses=problems.declared())
async def list_methods(_caller: Viewer) -> Page[MethodView]:
    """Every method."""
    return Page(data=[view(kind) for kind in METHODS], has_more=False, next=None)


@router.get("/{kind}", responses=problems.declared(404))
async def get_method(kind: str, _caller: Viewer) -> MethodView:
    """One method."""
    if kind not in METHODS:
        raise NotFound(f"There is no such method; known are: {', '.join(METHODS)}.")
    return view(kind)


def view(kind: str) -> MethodView:
    """What is told of a method."""
    method = METHODS[kind]
    return MethodView(
        kind=kind,
        title=method.title,
        family=method.family,
        paper=method.paper,
        data_need=method.data_need,
        summary=method.summary,
        known_limit=method.known_limit,
        forwards=method.forwards,
        backwards=method.backwards,
        json_schema=method.model_json_schema(),
    )
