"""The product's own processes, real ones, that can be told to die by SIGKILL at a named point.

Every transaction is two points, named after the function that runs it ("before commit", "after commit"), and so is
every call that changes something on the cluster. Nothing in the product knows of it: the doors to the database and to
Ray are replaced by subclasses when the process starts. Processes come from a fork server that has everything imported.
"""

import asyncio
import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg  # noqa: F401  it would be imported at the first connection, in each process anew
import sqlalchemy.dialects.postgresql.asyncpg  # noqa: F401
import uvicorn
from sqlalchemy.ext.asyncio import AsyncSession

import api.app
import service.reconcile
from service.cluster import RayCluster, RayJob
from service.db import Database
from service.logs import configure_logging
from service.settings import Settings

_server = multiprocessing.get_context("forkserver")
_trap: "Trap"

ANY, DIED_AT = "*", "died at "

AT_START = "_lifespan"
"""Points with this in their name are passed only when a process starts."""


class Trap:
    """Where a process is to die; both sides of the fork see it. `file` keeps the points that it has passed so far."""

    def __init__(self, file: Path) -> None:
        self._armed = _server.RawArray("c", 200)  # without a lock, which a killed process would keep
        self._working = _server.RawValue("b", 0)
        self._passed: set[str] = set()
        self._file = file

    def arm(self, point: str) -> None:
        """Let it die at `point`."""
        self._armed.value = point.encode()

    def arm_any(self, after: int) -> None:
        """Let it die at whatever point comes after `after` others."""
        self._armed.value = f"{ANY}{after}".encode()

    def disarm(self) -> str | None:
        """The point at which it has died, if it has died at one."""
        said = self._armed.value.decode()
        self._armed.value = b""
        return said.removeprefix(DIED_AT) if said.startswith(DIED_AT) else None

    def pass_by(self, point: str) -> None:
        """The process is at `point` now."""
        if point not in self._passed:
            self._passed.add(point)
            with self._file.open("a") as file:
                file.write(point + "\n")
        armed = self._armed.value.decode()
        if armed.startswith(ANY) and armed != f"{ANY}0":
            self._armed.value = f"{ANY}{int(armed.removeprefix(ANY)) - 1}".encode()
        elif armed in (point, f"{ANY}0"):
            self._armed.value = f"{DIED_AT}{point}".encode()
            os.kill(os.getpid(), signal.SIGKILL)

    def work(self, working: bool) -> None:
        """The process has looked at Ray in this life, as every reconciler does at first."""
        self._working.value = working

    def working(self) -> bool:
        return bool(self._working.value)

    def known(self) -> list[str]:
        """The points that the process has passed so far, in this life or an earlier one."""
        return sorted(set(self._file.read_text().split("\n")) - {""}) if self._file.exists() else []


class TrappedDatabase(Database):
    def write(self) -> AbstractAsyncContextManager[AsyncSession]:
        return self._named(sys._getframe(1).f_code.co_qualname)

    @asynccontextmanager
    async def _named(self, caller: str) -> AsyncIterator[AsyncSession]:
        async with super().write() as session:
            yield session
            _trap.pass_by(f"before commit of {caller}")
        _trap.pass_by(f"after commit of {caller}")


class TrappedCluster(RayCluster):
    async def jobs(self) -> dict[str, RayJob]:
        _trap.work(True)
        return await super().jobs()

    async def submit(self, submission_id: str, env: dict[str, str]) -> None:
        _trap.pass_by("before submit to Ray")
        await super().submit(submission_id, env)
        _trap.pass_by("after submit to Ray")

    async def stop(self, submission_id: str) -> None:
        _trap.pass_by("before stop at Ray")
        await super().stop(submission_id)
        _trap.pass_by("after stop at Ray")


def serve(settings: Settings, trap: Trap, log: Path) -> None:
    """An API process, with its reconciler inside."""
    _prepare(trap, log)
    api.app.Database = TrappedDatabase  # type: ignore[misc]
    app = api.app.create_app(settings, TrappedCluster(settings))
    uvicorn.run(app, host=settings.host, port=settings.port, log_level="warning", access_log=False)


def reconcile(settings: Settings, trap: Trap, log: Path) -> None:
    """A process that only reconciles."""
    _prepare(trap, log)
    configure_logging()
    service.reconcile.Database = TrappedDatabase  # type: ignore[misc]
    service.reconcile.RayCluster = TrappedCluster  # type: ignore[misc]
    asyncio.run(service.reconcile.main(settings))


def _prepare(trap: Trap, log: Path) -> None:
    global _trap
    _trap = trap
    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(out, 1)
    os.dup2(out, 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the harness's alone


class Plane:
    """One process of the control plane, started again at the same address as often as it is killed."""

    def __init__(self, name: str, target: Any, settings: Settings, folder: Path) -> None:
        self.name = name
        self.settings = settings
        self.trap = Trap(folder / f"{name}.points")
        self._target = target
        self._log = folder / f"{name}.log"
        self._process: Any = None

    def start(self) -> None:
        self.trap.work(False)
        self.started = time.monotonic()
        self._process = _server.Process(target=self._target, args=(self.settings, self.trap, self._log))
        self._process.start()

    def kill(self) -> None:
        self._process.kill()

    def dead(self) -> bool:
        return not self._process.is_alive()

    def up(self) -> bool:
        """Whether it lives, and works already."""
        return self.trap.working() and not self.dead()

    async def dies(self, seconds: float) -> bool:
        """Whether it is dead within `seconds`."""
        return await _within(seconds, self.dead)

    async def comes_up(self, seconds: float) -> bool:
        """Whether it works within `seconds`."""
        return await _within(seconds, self.up)

    def end(self) -> None:
        with contextlib.suppress(AttributeError):
            self._process.kill()
            self._process.join()


async def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True


def preload(path: list[str]) -> None:
    """Have the fork server import this module, found in `path`, before it forks anything."""
    os.environ["PYTHONPATH"] = os.pathsep.join([*path, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    _server.set_forkserver_preload(["control_plane"])
