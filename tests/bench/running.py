"""A platform for a benchmark: `python -m deploy.local` in a home of its own."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def platform() -> Iterator[dict[str, Any]]:
    """The content of its `up.json`."""
    with tempfile.TemporaryDirectory() as home:
        values = {"HOME": home, "PORT": str(free_port()), "GATEWAY_PORT": str(free_port())}
        env = os.environ | {f"FEWSTEP_{name}": value for name, value in values.items()}
        process = subprocess.Popen([sys.executable, "-m", "deploy.local", "--json"], env=env, stdout=subprocess.PIPE)
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()
            process.wait(60)
