"""A real Ray head of a test's own, and the processes that it runs."""

import os
import shutil
import signal
import time
from pathlib import Path

import psutil

from deploy.child import Child, end, survivors
from deploy.head import READY, Head


class RealRay:
    """A head on this machine; killed and started again, it keeps its address and token and forgets its jobs."""

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.head = Head(home)
        self.url = self.head.dashboard_url
        self.token = self.head.token

    def __enter__(self) -> "RealRay":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.child.terminate()
        self.child.wait(10)
        end(self._left(), grace=0.5)
        shutil.rmtree(self.head.folder, ignore_errors=True)

    def start(self, seconds: float = 120) -> None:
        """Return when jobs can run."""
        self.child = Child(f"ray:{self.home}", self.head.command(), self.head.env(), self.home / "ray.log")
        deadline = time.monotonic() + seconds
        while READY not in self.child.output():
            if self.child.exit_status() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the head did not start:\n{self.child.output()[-2000:]}")
            time.sleep(0.1)

    def lose_head(self) -> None:
        """SIGKILL the head, and start it again when all that it left is gone."""
        os.kill(self.child.pid, signal.SIGKILL)
        self.child.wait(10)
        end(self._left(), grace=1)
        self.start()

    def _left(self) -> list[psutil.Process]:
        return survivors([self.child.mark], [self.child.session])

    def drivers(self) -> dict[str, psutil.Process]:
        """Live driver processes by attempt id."""
        return self._of_attempts("workers.driver")

    def workers(self) -> dict[str, psutil.Process]:
        """One live training worker process by attempt id."""
        return self._of_attempts("RayTrainWorker")

    def _of_attempts(self, title: str) -> dict[str, psutil.Process]:
        """Of this head alone: other platforms may run on the machine."""
        found = {}
        for process in self._left():
            try:
                if title in " ".join(process.cmdline()):
                    found[process.environ()["FEWSTEP_ATTEMPT_ID"]] = process
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess, KeyError):
                continue
        return found
