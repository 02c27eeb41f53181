"""Runs without Ray to compare with."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture
def unbroken_weights(tmp_path: Path) -> Callable[[dict[str, Any]], dict[int, bytes]]:
    """spec -> the weight files of its students by sampling steps, trained in one go in one process."""

    def run(spec: dict[str, Any]) -> dict[int, bytes]:
        out = tmp_path / "unbroken"
        if not out.exists():
            (tmp_path / "job.yaml").write_text(yaml.safe_dump(spec))
            command = [sys.executable, "-m", "workers.run", str(tmp_path / "job.yaml"), "--out", str(out)]
            subprocess.run(command, check=True, timeout=600)
        files = out.glob("students/*/unet/diffusion_pytorch_model.safetensors")
        return {int(path.parents[1].name.rsplit("-", 1)[1]): path.read_bytes() for path in files}

    return run
