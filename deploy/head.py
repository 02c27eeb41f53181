"""A Ray head for one machine: loopback only, token authentication, no telemetry."""

import hashlib
import json
import os
import random
import secrets
import socket
import sys
import tempfile
from pathlib import Path

READY = "Ray runtime started"
"""What `ray start` prints when jobs can run; its HTTP API answers earlier than that."""

PORTS = ("gcs", "dashboard", "agent", "client")


class Head:
    """What one home's head needs: ports, token and folders. They stay the same over restarts."""

    def __init__(self, home: Path) -> None:
        self.token = _secret(home / "ray_token")
        self.ports = _free_ports(home / "ray_ports.json")
        # Ray puts unix sockets below its folder, and their paths must be shorter than 108 bytes.
        name = hashlib.sha256(str(home).encode()).hexdigest()[:8]
        self.folder = Path(tempfile.gettempdir()) / f"fewstep-{os.getuid()}-{name}"
        self.folder.mkdir(mode=0o700, exist_ok=True)
        if self.folder.stat().st_uid != os.getuid():
            raise PermissionError(f"{self.folder} belongs to another user; remove it")

    @property
    def dashboard_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['dashboard']}"

    def env(self) -> dict[str, str]:
        """The head's environment, which drivers, workers and replicas inherit."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        return {
            **kept,
            # Ray listens on every interface unless it believes that clusters are not supported here.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
            "RAY_SCHEDULER_EVENTS": "0",
            "RAY_SERVE_DEFAULT_HTTP_HOST": "127.0.0.1",
            "RAY_DEDUP_LOGS": "0",
            "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
            # `exec python` in a job's entry point means this interpreter.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PYTHONUNBUFFERED": "1",
        }

    def command(self) -> list[str]:
        options = {
            "node-ip-address": "127.0.0.1",
            "port": self.ports["gcs"],
            "include-dashboard": "true",
            "dashboard-host": "127.0.0.1",
            "dashboard-port": self.ports["dashboard"],
            "dashboard-agent-listen-port": self.ports["agent"],
            "ray-client-server-port": self.ports["client"],
            "min-worker-port": 0,
            "max-worker-port": 0,
            "num-cpus": max(4, os.cpu_count() or 1),  # a logical figure: small machines share their cores
            "object-store-memory": 128 * 1024**2,
            "temp-dir": self.folder,
        }
        start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
        return start + [f"--{name}={value}" for name, value in options.items()]


def _secret(path: Path) -> str:
    if not path.exists():
        new = path.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_text(secrets.token_hex(32))
        new.replace(path)
    return path.read_text()


def _free_ports(path: Path) -> dict[str, int]:
    """The ports that `path` remembers, if all are free, or new ones."""
    ports: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
    if set(ports) != set(PORTS) or not all(port_is_free("127.0.0.1", port) for port in ports.values()):
        # Below the range from which systems number outgoing connections, so that they stay free between restarts.
        candidates = random.sample(range(20_000, 32_000), 200)
        ports = dict(zip(PORTS, (port for port in candidates if port_is_free("127.0.0.1", port)), strict=False))
        path.write_text(json.dumps(ports))
    return ports


def port_is_free(host: str, port: int) -> bool:
    """Whether this process could listen there now."""
    try:
        socket.create_server((host, port)).close()
    except OSError:
        return False
    return True
