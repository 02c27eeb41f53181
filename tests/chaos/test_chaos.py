"""60 kills against the fake cluster: the short form of `make chaos`."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parent / "run.py"
LEASE = 8
"""Seconds: longer than by default, since other tests run beside this one; recovery must take less than two leases."""


@pytest.mark.timeout(600)
def test_sixty_kills_lose_double_and_strand_nothing() -> None:
    command = [sys.executable, str(RUN), "--seed", "7", "--kills", "60", "--cluster", "fake", "--lease", str(LEASE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=590)
    assert done.returncode == 0, done.stdout + done.stderr
    killed = re.search(r"killed: (\d+) ", done.stdout)
    assert killed is not None
    assert int(killed[1]) >= 60
    named = re.search(r"at named points: (\d+) kills at (\d+) points", done.stdout)
    assert named is not None
    assert int(named[1]) >= 10, "a good part of the kills must be at named points"
    assert int(named[2]) >= 5, "and not all at the same"
