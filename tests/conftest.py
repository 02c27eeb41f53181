"""What tests of several parts share: one PostgreSQL server, and one running platform for those that need real parts."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from service_fixtures import postgres, sqlite_template

__all__ = ["postgres", "sqlite_template"]

# The same examples every time; `--hypothesis-profile=default` draws new ones.
settings.register_profile("fixed", derandomize=True, database=None, deadline=None)
settings.load_profile("fixed")


@dataclass(frozen=True)
class Platform:
    """A running `fewstep up` of this test run's own."""

    home: Path
    url: str
    gateway_url: str
    ray_url: str
    key: str

    @property
    def state(self) -> dict[str, Any]:
        """The present content of up.json; a restarted child has another pid there."""
        content: dict[str, Any] = json.loads((self.home / "up.json").read_text())
        return content

    @property
    def pids(self) -> dict[str, int]:
        """By child: `ray` and `control-plane`."""
        pids: dict[str, int] = self.state["pids"]
        return pids


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Launch:
    """`python -m deploy.local` as a child process, for one home on free ports."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.log = home / "up.log"
        values = {"HOME": str(home), "PORT": str(free_port()), "GATEWAY_PORT": str(free_port())}
        env = os.environ | {f"FEWSTEP_{name}": value for name, value in values.items()} | {"OMP_NUM_THREADS": "1"}
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "deploy.local"]
            self.process = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)

    def wait_until_up(self, seconds: float = 180) -> dict[str, Any]:
        """The content of up.json, once this process has written it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            if (self.home / "up.json").exists():
                state: dict[str, Any] = json.loads((self.home / "up.json").read_text())
                if state["pid"] == self.process.pid:
                    return state
            time.sleep(0.1)
        raise AssertionError(f"the platform did not come up:\n{self.log.read_text()}")


@pytest.fixture(scope="session")
def launch() -> type[Launch]:
    """`launch(home)` starts a platform of the test's own, which the test has to stop."""
    return Launch


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The platform that all tests marked `ray` share: SQLite, a local Ray, control plane and gateway on free ports."""
    home = tmp_path_factory.mktemp("platform")
    launched = Launch(home)
    try:
        state = launched.wait_until_up()
        key = Path(state["api_key_file"]).read_text().strip()
        yield Platform(home, state["url"], state["gateway_url"], state["ray_url"], key)
    finally:
        launched.process.terminate()
        launched.process.wait(60)
