"""Child processes that die with their parent, and the search for those that did not."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

PR_SET_PDEATHSIG = 1
MARK = "FEWSTEP_SUPERVISED"
"""Environment variable that a child's descendants inherit: the child's mark."""


@dataclass(frozen=True)
class Session:
    """A process session, known by its leader: members keep its number when the leader is gone."""

    pid: int
    started: float

    def reused(self) -> bool:
        """Whether the number belongs to another leader by now."""
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started) > 1
        except psutil.NoSuchProcess:
            return False


class Child:
    """A process in a session of its own, whose output goes to a log file."""

    def __init__(self, mark: str, command: list[str], env: dict[str, str], log: Path) -> None:
        self.mark = mark
        self.log = log
        self.started = time.monotonic()
        with log.open("ab") as out:
            self.log_start = out.tell()
            self._process = subprocess.Popen(
                command,
                env={**env, MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a terminal's Ctrl-C is the supervisor's alone
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        self.pid = self._process.pid
        self.session = Session(self.pid, psutil.Process(self.pid).create_time())

    def exit_status(self) -> int | None:
        """The exit status, None while it runs."""
        return self._process.poll()

    def output(self) -> str:
        """What this process has written so far."""
        with self.log.open("rb") as file:
            file.seek(self.log_start)
            return file.read().decode(errors="replace")

    def terminate(self) -> None:
        """Ask it to end."""
        if self.exit_status() is None:
            self._process.terminate()

    def wait(self, seconds: float) -> bool:
        """Whether it ended within `seconds`."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True


def survivors(marks: Iterable[str], sessions: Iterable[Session]) -> list[psutil.Process]:
    """Processes that carry one of the marks or belong to one of the sessions.

    Either alone would miss some: Ray's workers overwrite their environment when they set their title, and its drivers
    leave the session.
    """
    wanted, numbers = set(marks), {session.pid for session in sessions if not session.reused()}
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if os.getsid(process.pid) in numbers or process.environ().get(MARK) in wanted:
                found.append(process)
        except (psutil.Error, OSError):
            continue  # it ended meanwhile, or belongs to another user
    return found


def end(processes: list[psutil.Process], grace: float) -> None:
    """SIGTERM, `grace` seconds of patience, SIGKILL."""
    for process in processes:
        _signal(process, signal.SIGTERM)
    _, alive = psutil.wait_procs(processes, timeout=grace)
    for process in alive:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=5)


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _die_with_parent() -> None:
    # SIGTERM, not SIGKILL: `ray start` takes its daemons with it when it is asked to end.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
