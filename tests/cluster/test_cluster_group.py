"""Two ranks without Ray: a peer that failed by itself is told from a peer that died."""

import socket
import subprocess
import sys

import pytest

RANK = """
import os, signal, sys, time
from datetime import timedelta
import torch.distributed as dist
from workers.group import Group, lost_peer

rank, port, ending = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
store = dist.TCPStore("127.0.0.1", port, is_master=rank == 0, wait_for_workers=False, timeout=timedelta(seconds=60))
dist.init_process_group("gloo", store=dist.PrefixStore("ranks", store), rank=rank, world_size=2)
group = Group(rank, 2, store)
assert group.agree(10 + rank) == 10
assert group.total(10 + rank) == 21
if rank == 1:
    if ending == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    group.leave("division by zero")
    time.sleep(60)  # a rank that has failed lives on
try:
    for _ in range(1000):
        group.agree(0)
except Exception as error:
    print("lost" if lost_peer(error) else "other", group.failure())
"""


@pytest.mark.parametrize(("ending", "seen"), [("fails", "lost division by zero"), ("dies", "lost None")])
def test_what_a_rank_sees_of_its_peers_end(ending: str, seen: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), port, ending], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for rank in (0, 1)
    ]
    try:
        out, errors = ranks[0].communicate(timeout=60)
        assert out.decode().strip() == seen, errors.decode()
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()
