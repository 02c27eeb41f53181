"""From endpoint rows to Ray Serve's declarative config: the gateway, and one application per served student.

Serve removes what a config does not name, so it is always the whole set. Endpoints reach the gateway as its
`user_config`: Serve hands a changed one to the running gateway, while changed `args` would start it anew.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from service.settings import Settings

GATEWAY = "gateway"
MAX_BATCH = 32
"""Images that a replica generates at once."""

REPLICA_CPUS = 0.1
"""A small share of a CPU, so that endpoints do not take the room of training jobs."""

ON_THE_HEAD = {"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}}
"""What the gateway asks of Ray: to be where `gateway_url` says, on a cluster of any size."""

IN_FLIGHT = 2 * MAX_BATCH
"""Images of one model that the gateway holds; the next are refused. One batch is generated while the other fills."""


@dataclass(frozen=True)
class Served:
    """One endpoint as the gateway and its replica need to know it. URLs are fsspec's; `builtin:<name>` is a teacher
    that ships with the package."""

    name: str
    app: str
    student_url: str
    teacher_source: str | None
    steps: tuple[int, ...]
    teacher_steps: int
    num_classes: int | None
    text: bool
    image_size: tuple[int, int, int]
    created: int


def serve_config(served: Sequence[Served], settings: Settings) -> dict[str, Any]:
    """The body of `PUT /api/serve/applications/`."""
    return {
        # The gateway listens by itself: a proxy of Serve's in front of it would cost as much as an image.
        "proxy_location": "Disabled",
        "http_options": {"host": "127.0.0.1"},
        "applications": [_gateway(served, settings), *(_replica(one, settings) for one in served)],
    }


def _gateway(served: Sequence[Served], settings: Settings) -> dict[str, Any]:
    key = settings.gateway_key.get_secret_value()
    models = [
        {k: v for k, v in asdict(one).items() if k not in ("student_url", "teacher_source")}
        | {"with_teacher": one.teacher_source is not None}
        for one in served
    ]
    return _application(
        GATEWAY,
        "deploy.gateway:build",
        {
            "host": settings.host,
            "port": settings.gateway_port,
            "key_sha256": hashlib.sha256(key.encode()).hexdigest() if key else None,
            "open": settings.on_loopback(),
            "max_batch": MAX_BATCH,
            "in_flight": IN_FLIGHT,
        },
        {"name": "Gateway", "user_config": {"models": models}, "ray_actor_options": ON_THE_HEAD},
    )


def _replica(one: Served, settings: Settings) -> dict[str, Any]:
    resources = {"num_cpus": REPLICA_CPUS, "num_gpus": settings.replica_gpus}
    return _application(
        one.app,
        "deploy.replica:build",
        {"student_url": one.student_url, "teacher_source": one.teacher_source, "max_batch": MAX_BATCH},
        {"name": "Replica", "num_replicas": 1, "max_ongoing_requests": 8, "ray_actor_options": resources},
    )


def _application(name: str, import_path: str, args: dict[str, Any], deployment: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "import_path": import_path,
        "route_prefix": None,
        "args": args,
        "logging_config": {"enable_access_log": False},
        "deployments": [deployment],
    }
