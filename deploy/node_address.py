"""Keeps Ray Serve's replicas from listening on every interface.

Each replica opens a gRPC port without authentication, on all addresses, and has no option for it. Others reach it at
the node's own address, so that is where it needs to listen: loopback when the whole cluster is one machine.
"""

from typing import Any

import ray
from ray.serve._private import replica

_add_port = replica.add_port_to_grpc_server


def listen_there_only() -> None:
    """To be called while a deployment is constructed, which is before Ray Serve 2.60 opens its port."""
    replica.add_port_to_grpc_server = _add_at_node_address


def _add_at_node_address(server: Any, address: str) -> int:
    port: int = _add_port(server, address.replace("[::]", ray.util.get_node_ip_address()))
    return port
