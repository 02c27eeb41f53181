"""Ray's Jobs and Serve REST API over the cluster from memory, as an HTTP server in a thread.

What it does is `FakeCluster`'s doing; here it gets Ray's paths, bodies and texts, and time: drivers start, run as
asyncio tasks, end by themselves and are stopped a moment after it was asked for.
"""

import asyncio
import contextlib
import importlib.util
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import uvicorn
from fake_cluster import FakeCluster, Started
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from service.cluster import ClusterUnavailable, RayStatus, ServeApp

Driver = Callable[[Started], Awaitable[int]]
"""What a driver process does; returns its exit code."""

T = TypeVar("T")

PULSE = 0.05
"""Seconds between two looks at what is pending, stopping or gone."""


class FakeRay:
    """A head at `url` that runs `driver` for every submission, in a loop of its own thread."""

    def __init__(self, driver: Driver, token: str = "", start_seconds: float = 0.1) -> None:
        self.cluster = FakeCluster()
        self.token = token
        self._driver = driver
        self._start_seconds = start_seconds
        self._demands: dict[str, float] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(self._app(), log_level="warning", lifespan="on", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._loop = asyncio.new_event_loop()
        serve = self._server.serve(sockets=[listener])
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[serve], daemon=True)

    def __enter__(self) -> "FakeRay":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()

    def do(self, deed: Callable[[FakeCluster], T]) -> T:
        """Something happens to the cluster, between two requests: `ray.do(FakeCluster.lose_head)`."""
        done: Future[T] = Future()

        def act() -> None:
            try:
                done.set_result(deed(self.cluster))
            except BaseException as error:
                done.set_exception(error)
            self._reap()

        self._loop.call_soon_threadsafe(act)
        return done.result(10)

    def alive(self) -> list[str]:
        """Submission ids of the drivers that run now, also those that no head knows any more."""
        return self.do(lambda cluster: [process.submission_id for process in cluster.started if process.alive])

    # what happens inside

    async def _pulse(self) -> None:
        while True:
            room = sum(machine.cpus for machine in self.cluster.machines)
            for process in self.cluster.known.values():
                if id(process) not in self._tasks and self._demands.get(process.submission_id, 0) <= room:
                    self._tasks[id(process)] = asyncio.create_task(self._live(process))
            self.cluster.settle_stops()
            self._reap()
            await asyncio.sleep(PULSE)

    async def _live(self, process: Started) -> None:
        await asyncio.sleep(self._start_seconds)
        if not process.alive:
            return
        process.status = RayStatus.RUNNING
        code = await self._driver(process)
        if process.alive and code == 0:
            process.status = RayStatus.SUCCEEDED
        elif process.alive:
            process.status = RayStatus.FAILED
            process.message = f"Job entrypoint command failed with exit code {code}, last available logs:\n"

    def _reap(self) -> None:
        """A process that is over does nothing any more."""
        for process in self.cluster.started:
            task = self._tasks.get(id(process))
            if task is not None and not process.alive:
                task.cancel()

    # HTTP

    def _app(self) -> FastAPI:
        @contextlib.asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            pulse = asyncio.create_task(self._pulse())
            yield
            for task in (pulse, *self._tasks.values()):
                task.cancel()
            await asyncio.gather(pulse, *self._tasks.values(), return_exceptions=True)

        app = FastAPI(lifespan=lifespan, openapi_url=None)
        app.add_exception_handler(ClusterUnavailable, lambda _, error: PlainTextResponse(str(error), 503))
        app.middleware("http")(self._check_token)
        app.add_api_route("/api/jobs/", self._list_jobs, methods=["GET"])
        app.add_api_route("/api/jobs/", self._submit, methods=["POST"])
        app.add_api_route("/api/jobs/{submission_id}/stop", self._stop, methods=["POST"])
        app.add_api_route("/api/v0/nodes", self._nodes, methods=["GET"])
        app.add_api_route("/api/serve/applications/", self._serve_apps, methods=["GET"])
        app.add_api_route("/api/serve/applications/", self._apply_serve, methods=["PUT"])
        return app

    async def _check_token(self, request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        given = request.headers.get("Authorization", "")
        if self.token and given != f"Bearer {self.token}":
            return PlainTextResponse("Unauthorized", 403 if given else 401)
        return await answer(request)

    async def _list_jobs(self) -> list[dict[str, Any]]:
        driver_of_nobody = {"type": "DRIVER", "submission_id": None, "status": "RUNNING", "message": None}
        found = (await self.cluster.jobs()).values()
        submitted = [
            {"type": "SUBMISSION", "submission_id": job.submission_id, "status": job.status, "message": job.message}
            for job in found
        ]
        return [driver_of_nobody, *submitted]

    async def _submit(self, body: dict[str, Any]) -> Response:
        name: str = body["submission_id"]
        known = name in self.cluster.known
        self._demands.setdefault(name, body.get("entrypoint_num_cpus") or 0)
        await self.cluster.submit(name, body["runtime_env"]["env_vars"])
        if known:
            error = f"ValueError: Job with submission_id {name} already exists. Please use a different submission_id."
            return PlainTextResponse(f"Request failed with status code 400: Traceback ...\n{error}", 500)
        return JSONResponse({"job_id": name, "submission_id": name})

    async def _stop(self, submission_id: str) -> Response:
        process = self.cluster.known.get(submission_id)
        stopped = process is not None and process.alive
        await self.cluster.stop(submission_id)
        if process is None:
            return PlainTextResponse(f"Job {submission_id} does not exist", 404)
        return JSONResponse({"stopped": stopped})

    async def _nodes(self) -> dict[str, Any]:
        rows = [
            {"node_id": node.id, "state": "ALIVE", "resources_total": _resources(node.cpus, node.gpus)}
            for node in await self.cluster.nodes()
        ]
        return {"result": True, "msg": "", "data": {"result": {"total": len(rows), "result": rows}}}

    async def _serve_apps(self) -> dict[str, Any]:
        apps = await self.cluster.serve_apps()
        return {"applications": {app.name: {"status": app.status, "message": app.message} for app in apps.values()}}

    async def _apply_serve(self, config: dict[str, Any]) -> None:
        await self.cluster.apply_serve(config)
        for app in config["applications"]:
            if self.cluster.apps[app["name"]].status == "DEPLOYING":
                asyncio.get_running_loop().call_later(0.2, self._deployed, app["name"], app["import_path"])

    def _deployed(self, name: str, import_path: str) -> None:
        if name not in self.cluster.apps:
            return
        try:
            found = importlib.util.find_spec(import_path.partition(":")[0]) is not None
        except ModuleNotFoundError:
            found = False
        message = "" if found else f"ModuleNotFoundError: {import_path}"
        self.cluster.apps[name] = ServeApp(name, "RUNNING" if found else "DEPLOY_FAILED", message)


def _resources(cpus: float, gpus: float) -> dict[str, float]:
    return {"CPU": cpus, **({"GPU": gpus} if gpus else {}), "memory": 1e9, "node:127.0.0.1": 1.0}
