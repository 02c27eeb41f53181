"""`fewstep up` as a process: it starts, survives the death of its parts, and leaves nothing behind."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from pydantic import SecretStr

from deploy.child import Session, survivors
from deploy.head import Head
from service.cluster import ClusterUnavailable, RayCluster
from service.settings import Settings

pytestmark = pytest.mark.ray


def processes_of(home: Path) -> list[psutil.Process]:
    """Everything that works for this home."""
    file = home / "sessions.json"
    sessions = [Session(**session) for session in json.loads(file.read_text())] if file.exists() else []
    return survivors([f"ray:{home}", f"control-plane:{home}"], sessions)


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("home")
    yield home
    for process in processes_of(home):
        process.kill()
    shutil.rmtree(Head(home).folder)


@pytest.fixture(scope="module")
def process(home: Path, launch) -> Iterator[subprocess.Popen[bytes]]:
    """A platform of its own, since these tests kill parts of it."""
    launched = launch(home)
    launched.wait_until_up()
    process = launched.process
    yield process
    if process.poll() is None:
        process.kill()
        process.wait()


def healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", trust_env=False).is_success
    except httpx.TransportError:
        return False


def test_it_listens_on_loopback_alone(home: Path, process: subprocess.Popen[bytes]) -> None:
    numbers = {child.pid for child in processes_of(home)} | {process.pid}
    listening = [c for c in psutil.net_connections("inet") if c.pid in numbers and c.status == psutil.CONN_LISTEN]
    assert len(listening) >= 4
    addresses = {connection.laddr.ip.removeprefix("::ffff:") for connection in listening}
    assert addresses <= {"127.0.0.1", "::1"}


def test_secrets_are_readable_by_their_owner_alone(home: Path, process: subprocess.Popen[bytes]) -> None:
    for name in ("api_key", "ray_token"):
        assert (home / name).stat().st_mode & 0o077 == 0
    output = (home / "up.log").read_text()
    assert output.count((home / "api_key").read_text().strip()) == 2, "in the dashboard's address and by itself"
    assert (home / "ray_token").read_text() not in output


def test_a_second_one_says_who_holds_the_home(home: Path, process: subprocess.Popen[bytes], launch) -> None:
    before = len((home / "up.log").read_bytes())
    second = launch(home)
    assert second.process.wait(30) == 1
    assert f"in use by process {process.pid}" in (home / "up.log").read_text()[before:].replace("\n", " ")


def test_a_killed_control_plane_comes_back_at_its_address(home: Path, process: subprocess.Popen[bytes]) -> None:
    state = json.loads((home / "up.json").read_text())
    os.kill(state["pids"]["control-plane"], signal.SIGKILL)
    wait_for(lambda: json.loads((home / "up.json").read_text())["pids"] != state["pids"], 10)
    wait_for(lambda: healthy(state["url"]), 60)
    assert process.poll() is None


async def test_a_killed_ray_head_comes_back_with_its_address_and_token(
    home: Path, process: subprocess.Popen[bytes]
) -> None:
    state = json.loads((home / "up.json").read_text())
    os.kill(state["pids"]["ray"], signal.SIGKILL)
    wait_for(lambda: json.loads((home / "up.json").read_text())["pids"] != state["pids"], 30)
    token = SecretStr((home / "ray_token").read_text())
    ray = RayCluster(Settings(ray_dashboard_url=state["ray_url"], ray_token=token))
    deadline = time.monotonic() + 90
    while True:
        try:
            assert await ray.jobs() == {}
        except ClusterUnavailable:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        else:
            break
    await ray.close()


def test_killed_it_leaves_nothing_for_long_and_the_next_start_works(
    home: Path, process: subprocess.Popen[bytes], launch
) -> None:
    process.kill()
    process.wait()
    next_one = launch(home)  # at once: what the dead one has left is ended first
    try:
        state = next_one.wait_until_up()
        assert healthy(state["url"])
        assert len([p for p in processes_of(home) if "raylet" in p.name()]) == 1
    finally:
        started = time.monotonic()
        next_one.process.send_signal(signal.SIGINT)
        assert next_one.process.wait(30) == 0
    assert time.monotonic() - started < 15
    assert processes_of(home) == []
    assert not (home / "up.json").exists()
