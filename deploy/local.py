"""The whole platform on one machine: a Ray head and the control plane, kept alive as child processes.

`python -m deploy.local` is what `fewstep up` runs. While the platform is ready, `up.json` under home says where it is.
"""

import argparse
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Any, TextIO

import httpx
from pydantic import SecretStr
from rich.console import Console

from deploy.child import Child, Session, end, survivors
from deploy.head import READY, Head, port_is_free
from service.settings import PREFIX, Settings, WrongSetting, load, variable_of

State = dict[str, Any]
"""The content of `up.json`: pid, url, gateway_url, ray_url, api_key_file and the children's pids."""

APP = "api.app:create_app"
START_SECONDS = 180
STOP_SECONDS = 8
"""Patience with children that were asked to end; a Ray head needs two to six seconds."""


class CannotStart(Exception):
    """Why the platform did not come up, and what to do."""


class Platform:
    """The supervisor of one home's processes."""

    def __init__(
        self, settings: Settings, say: Callable[[str], None], ready: Callable[[State], None], app: str = APP
    ) -> None:
        self.home = settings.resolved_home()
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "logs").mkdir(exist_ok=True)
        self.settings = settings
        self.say = say
        self.ready = ready
        self.app = app
        self.children: dict[str, Child] = {}
        self.stop = Event()

    def run(self) -> None:
        """Start everything, keep it alive until `stop` is set, stop everything."""
        with _only_one(self.home):
            self._end_stale()
            for port, name in ((self.settings.port, "PORT"), (self.settings.gateway_port, "GATEWAY_PORT")):
                if not port_is_free(self.settings.host, port):
                    raise CannotStart(f"port {port} is taken; choose another with FEWSTEP_{name}")
            self.head = Head(self.home)
            try:
                self._start()
                self._keep_alive()
            finally:
                self._state_file.unlink(missing_ok=True)
                self._stop_all()

    @property
    def _state_file(self) -> Path:
        return self.home / "up.json"

    def _start(self) -> None:
        started = time.monotonic()
        self._spawn_ray()
        self._spawn_control_plane()
        self.say("Starting Ray and the control plane …")
        while not self.stop.is_set():
            for name, child in self.children.items():
                if child.exit_status() is not None:
                    tail = "\n".join(child.output().splitlines()[-20:])
                    raise CannotStart(f"{name} ended while it was starting; its last lines ({child.log}):\n{tail}")
            if READY in self.children["ray"].output() and self._answers():
                self.say(f"Ready after {time.monotonic() - started:.0f} s.")
                self.ready(self._write_state())
                return
            if time.monotonic() - started > START_SECONDS:
                raise CannotStart(f"not ready within {START_SECONDS} s; the logs are in {self.home / 'logs'}")
            self.stop.wait(0.2)

    def _keep_alive(self) -> None:
        spawn = {"ray": self._spawn_ray, "control-plane": self._spawn_control_plane}
        quick_deaths = 0
        while not self.stop.wait(0.1):
            for name, child in list(self.children.items()):
                if child.exit_status() is None:
                    continue
                quick_deaths = quick_deaths + 1 if time.monotonic() - child.started < 10 else 0
                self.say(f"{name} ended with status {child.exit_status()}; starting it again (log: {child.log})")
                end(survivors([child.mark], [child.session]), grace=1)
                if self.stop.wait(min(10, max(0, quick_deaths - 1))):
                    return
                spawn[name]()
                self._write_state()

    def _stop_all(self) -> None:
        if not self.children:
            return
        self.say("Stopping …")
        for child in self.children.values():
            child.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for child in self.children.values():
            child.wait(max(0.0, deadline - time.monotonic()))
        children = self.children.values()
        end(survivors([c.mark for c in children], [c.session for c in children]), grace=0.5)
        self._sessions_file.unlink(missing_ok=True)
        self.say("Stopped; nothing is lost, the next start goes on from here.")

    def _spawn_ray(self) -> None:
        self._spawn("ray", self.head.command(), self.head.env() | self._hub())

    def _hub(self) -> dict[str, str]:
        """Which hub the cluster's side of jobs asks, and with which token, in the hub's own variables."""
        token = self.settings.hub_token.get_secret_value()
        return {"HF_ENDPOINT": self.settings.hub_endpoint} | ({"HF_TOKEN": token} if token else {})

    def _spawn_control_plane(self) -> None:
        settings = self.settings.model_copy(
            update={
                "home": self.home,
                "ray_dashboard_url": self.head.dashboard_url,
                "ray_token": SecretStr(self.head.token),
            }
        )
        values = {
            variable_of(name): value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            for name, value in settings
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        listen = [f"--host={settings.host}", f"--port={settings.port}"]
        quiet = ["--no-access-log", "--log-level=warning", "--timeout-graceful-shutdown=3"]
        command = [sys.executable, "-m", "uvicorn", "--factory", self.app, *listen, *quiet]
        self._spawn("control-plane", command, {**inherited, **values, "PYTHONUNBUFFERED": "1"})

    def _spawn(self, name: str, command: list[str], env: dict[str, str]) -> None:
        log = self.home / "logs" / f"{name}.log"
        self.children[name] = Child(f"{name}:{self.home}", command, env, log)
        sessions = [asdict(child.session) for child in self.children.values()]
        self._sessions_file.write_text(json.dumps(sessions))

    @property
    def _sessions_file(self) -> Path:
        return self.home / "sessions.json"

    def _end_stale(self) -> None:
        """End what a supervisor that was killed has left running."""
        known = json.loads(self._sessions_file.read_text()) if self._sessions_file.exists() else []
        marks = [f"{name}:{self.home}" for name in ("ray", "control-plane")]
        stale = survivors(marks, [Session(**session) for session in known])
        if stale:
            self.say(f"Ending {len(stale)} processes that the last run has left …")
            end(stale, grace=STOP_SECONDS)
        self._state_file.unlink(missing_ok=True)

    def _answers(self) -> bool:
        try:
            answer = httpx.get(f"{self.settings.resolved_public_url()}/healthz", timeout=2, trust_env=False)
        except httpx.HTTPError:
            return False
        return answer.is_success

    def _write_state(self) -> State:
        state = {
            "pid": os.getpid(),
            "url": self.settings.resolved_public_url(),
            "gateway_url": self.settings.resolved_gateway_url(),
            "ray_url": self.head.dashboard_url,
            "api_key_file": str(self.settings.api_key_file()),
            "pids": {name: child.pid for name, child in self.children.items()},
        }
        new = self._state_file.with_suffix(".new")
        new.write_text(json.dumps(state))
        new.replace(self._state_file)
        return state


@contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """Hold the home's lock, which the system releases however the process ends."""
    with (home / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotStart(
                f"{home} is in use by process {_read(lock)}; stop it first, or set FEWSTEP_HOME"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _read(file: TextIO) -> str:
    file.seek(0)
    return file.read() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(prog="fewstep up", description="Run the platform on this machine.")
    parser.add_argument("--json", action="store_true", help="print one line of JSON to stdout when ready")
    as_json: bool = parser.parse_args().json
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)

    def ready(state: State) -> None:
        key = Path(state["api_key_file"]).read_text().strip()
        if as_json:
            sys.stdout.write(json.dumps(state) + "\n")
            sys.stdout.flush()
        console.print(f"Dashboard  {state['url']}/#key={key}")
        console.print(f"API key    {key}  (kept in {state['api_key_file']})")
        console.print("Ctrl-C stops everything.")

    try:
        platform = Platform(load(), console.print, ready)

        def stop(_number: int, _frame: FrameType | None) -> None:
            platform.stop.set()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, stop)
        platform.run()
    except (CannotStart, WrongSetting) as error:
        console.print(str(error), style="red", markup=False)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
