"""The dashboard's built files, served beside the API."""

from pathlib import Path

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, PlainTextResponse, Response

DIST = Path(__file__).parent / "dashboard" / "dist"
NOT_BUILT = "The dashboard is not built. Run `make setup`, or use the API below /v1 (see /docs).\n"


def mount(app: FastAPI, dist: Path = DIST) -> None:
    """Every GET that no route takes: a file of the dashboard, or its page, which finds its own way from the path."""

    @app.get("/{path:path}", include_in_schema=False)
    async def get_page(path: str, request: Request) -> Response:
        if path.startswith("v1/"):
            raise HTTPException(404)
        if not (dist / "index.html").is_file():
            return PlainTextResponse(NOT_BUILT, 503)
        file = (dist / path).resolve() if "\0" not in path else dist
        if path and file.is_relative_to(dist.resolve()) and file.is_file():
            keep = "public, max-age=31536000, immutable" if path.startswith("assets/") else "no-cache"
            return FileResponse(file, headers={"Cache-Control": keep})
        if path.startswith("assets/"):
            raise HTTPException(404)
        return FileResponse(dist / "index.html", headers={"Cache-Control": "no-cache"})
