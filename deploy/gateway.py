"""The inference gateway: the OpenAI images API over every endpoint, in one Ray Serve deployment.

It listens on a port of its own instead of Serve's proxy's, gathers the requests of a model into batches, and calls a
replica once per batch. What it has no room for it refuses before Serve hears of it.
"""

import asyncio
import hashlib
import hmac
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from pydantic import ValidationError
from ray import serve
from ray.exceptions import RayActorError, RayError
from ray.serve.handle import DeploymentHandle
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from deploy.asked import Asked, Refusal, Routed, resolve
from deploy.batching import Batcher, Full
from deploy.node_address import listen_there_only
from service.images import Image, ImagesAnswer, ImagesRequest, ModelList

log = logging.getLogger("ray.serve")

MAX_BODY = 100_000
ANSWER_SECONDS = 120
LOADING_SECONDS = 5
"""How long requests wait for a model that is being loaded."""

BATCH_TRIES = 3

Key = tuple[bool, int, float | None]
"""teacher, steps, guidance scale: what the images of a batch have in common."""
Connect = Callable[[str], Awaitable[DeploymentHandle]]
"""From an application's name to its replica; KeyError while there is none."""
Item = tuple[int | str | None, int]
"""What is asked for (see `Asked.subject`), and the seed."""


async def _replica_of(app: str) -> DeploymentHandle:
    return await asyncio.to_thread(serve.get_deployment_handle, "Replica", app)


class Model:
    """One endpoint as the gateway holds it: where it is, whether it is up, and who waits for it."""

    def __init__(self, routed: Routed, connect: Connect, max_batch: int, in_flight: int) -> None:
        self.routed = routed
        self._connect = connect
        self.batcher: Batcher[Key, Item, str] = Batcher(self._generate, max_batch, in_flight)
        self._up = asyncio.create_task(self._wait())

    def close(self) -> None:
        """Take no more interest in it."""
        self._up.cancel()

    async def _wait(self) -> DeploymentHandle:
        while True:
            try:
                handle = await self._connect(self.routed.app)
                await handle.ready.remote()
            except (KeyError, RayError):  # not there yet, or started again; Serve tells the control plane why
                await asyncio.sleep(0.5)
            else:
                return handle

    async def _generate(self, key: Key, items: list[Item]) -> list[str]:
        try:
            handle = await asyncio.wait_for(asyncio.shield(self._up), LOADING_SECONDS)
        except TimeoutError:
            message = f"{self.routed.name} is still being loaded; try again soon"
            raise Refusal(503, "model_loading", message, retry_after=2) from None
        teacher, steps, guidance = key
        asked = None if self.routed.unconditional else [subject for subject, _ in items]
        seeds = [seed for _, seed in items]
        for last in (False,) * (BATCH_TRIES - 1) + (True,):
            try:
                images: list[str] = await handle.generate.remote(teacher, asked, seeds, steps, guidance)
            except RayActorError as error:  # the replica died; the same seeds give the same images at another
                log.warning("a batch of %s is lost: %s", self.routed.name, error)
                if last:
                    raise
            else:
                return images
        raise AssertionError("unreachable")


class Api:
    """The ASGI application and its routing table."""

    def __init__(self, key_sha256: str | None, open: bool) -> None:
        self.models: dict[str, Model] = {}
        self._key_sha256 = key_sha256
        self._open = open
        self.asgi = Starlette(
            routes=[
                Route("/healthz", self.health),
                Route("/v1/models", self.list_models),
                Route("/v1/images/generations", self.generate, methods=["POST"]),
            ],
            exception_handlers={Refusal: _refused, HTTPException: _not_here, ClientDisconnect: _gone},
        )

    async def health(self, _request: Request) -> Response:
        return Response('{"status":"ok"}', media_type="application/json")

    async def list_models(self, request: Request) -> Response:
        self._check_key(request)
        cards = [card for model in self.models.values() for card in model.routed.cards()]
        return Response(ModelList(data=cards).model_dump_json(), media_type="application/json")

    async def generate(self, request: Request) -> Response:
        started = time.monotonic()
        self._check_key(request)
        body = await _body(request)
        try:
            wanted = ImagesRequest.model_validate_json(body)
        except ValidationError as error:
            raise _invalid(error) from None
        model, teacher = self._find(wanted.model)
        asked = resolve(wanted, model.routed, teacher)
        try:
            images = await _unless_gone(request, self._images(model, asked))
        except Full as full:
            message = f"{wanted.model} has all the requests that it can hold; try again in {full.retry_after} s"
            raise Refusal(429, "overloaded", message, retry_after=full.retry_after) from None
        answer = ImagesAnswer(
            created=int(time.time()),
            data=[Image(b64_json=png, seed=seed) for png, seed in zip(images, asked.seeds, strict=True)],
            model=wanted.model,
            num_inference_steps=asked.steps,
            duration_ms=round(1000 * (time.monotonic() - started), 3),
        )
        return Response(answer.model_dump_json(), media_type="application/json")

    def _check_key(self, request: Request) -> None:
        if self._key_sha256 is None and self._open:
            return
        given = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
        if self._key_sha256 is None or not hmac.compare_digest(hashlib.sha256(given).hexdigest(), self._key_sha256):
            raise Refusal(401, "invalid_api_key", "send the gateway's key (FEWSTEP_GATEWAY_KEY) as bearer token")

    def _find(self, name: str) -> tuple[Model, bool]:
        endpoint, _, teacher = name.partition(":")
        model = self.models.get(endpoint)
        if model is None or name not in (card.id for card in model.routed.cards()):
            raise Refusal(404, "model_not_found", f"there is no model '{name[:80]}'; see GET /v1/models", "model")
        return model, bool(teacher)

    async def _images(self, model: Model, asked: Asked) -> list[str]:
        key = (asked.teacher, asked.steps, asked.guidance)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await model.batcher.submit(key, [(asked.subject, seed) for seed in asked.seeds])
        except TimeoutError:
            raise Refusal(504, "timeout", f"no images within {ANSWER_SECONDS} s", retry_after=5) from None
        except (Full, Refusal):
            raise
        except Exception as error:
            log.exception("generation failed")
            raise Refusal(500, "generation_failed", f"the model failed: {type(error).__name__}") from None


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise Refusal(413, "body_too_large", f"the body is larger than {MAX_BODY} bytes")
    return bytes(body)


async def _unless_gone(request: Request, work: Any) -> list[str]:
    """The images, unless the client leaves first: then nobody needs them and they leave the queue."""
    images = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())  # after the body, the only message is the disconnect
    try:
        await asyncio.wait((images, gone), return_when=asyncio.FIRST_COMPLETED)
        if not images.done():
            raise ClientDisconnect
        result: list[str] = images.result()
        return result
    finally:
        images.cancel()
        gone.cancel()


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return Response(error.json(), error.status, headers, "application/json")


async def _not_here(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path[:80]}: {error.detail}"
    return await _refused(request, Refusal(error.status_code, error.detail.lower().replace(" ", "_"), message))


async def _gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it


def _invalid(error: ValidationError) -> Refusal:
    first = error.errors(include_url=False, include_context=False)[0]
    param = ".".join(map(str, first["loc"])) or None
    return Refusal(400, "invalid_value", f"{param or 'body'}: {first['msg']}", param)


class Gateway:
    """The deployment. Its routing table is Serve's `user_config`, so a new endpoint does not start it anew."""

    def __init__(
        self, host: str, port: int, key_sha256: str | None, open: bool, max_batch: int, in_flight: int
    ) -> None:
        listen_there_only()
        self._where = host, port
        self._limits = max_batch, in_flight
        self._api = Api(key_sha256, open)
        self._server: asyncio.Task[None] | None = None

    async def reconfigure(self, config: dict[str, Any]) -> None:
        """Take over the routing table; what stays as it was keeps its queue."""
        wanted = {routed.name: routed for routed in map(Routed.model_validate, config["models"])}
        old, models = self._api.models, {}
        for name, routed in wanted.items():
            if name in old and old[name].routed == routed:
                models[name] = old[name]
            else:
                models[name] = Model(routed, _replica_of, *self._limits)
        self._api.models = models
        for name, model in old.items():
            if models.get(name) is not model:
                model.close()
        if self._server is None:
            listener = socket.create_server(self._where, backlog=1024)
            # asyncio does it only for sockets that it made itself; without it every answer waits 40 ms for an ACK.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            config_ = uvicorn.Config(self._api.asgi, access_log=False, log_level="warning", lifespan="off")
            self._server = asyncio.create_task(uvicorn.Server(config_).serve([listener]))

    async def check_health(self) -> None:
        """Serve starts the gateway anew when this raises."""
        if self._server is not None and self._server.done():
            raise RuntimeError("the gateway's HTTP server has ended")


def build(args: dict[str, Any]) -> serve.Application:
    """Serve's import path; `args` are those of `Gateway`."""
    return serve.deployment(Gateway).bind(**args)
