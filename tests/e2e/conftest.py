"""Runs without Ray to compare with."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture
def unbroken_weights() -> Callable[[dict[str, Any], Path], dict[int, bytes]]:
    """(spec, scratch folder) -> its students' weight files by sampling steps, trained in one go in one process."""

    def run(spec: dict[str, Any], folder: Path) -> dict[int, bytes]:
        (folder / "job.yaml").write_text(yaml.safe_dump(spec))
        command = [sys.executable, "-m", "workers.run", str(folder / "job.yaml"), "--out", str(folder / "unbroken")]
        subprocess.run(command, check=True, timeout=600)
        files = folder.glob("unbroken/students/*/unet/diffusion_pytorch_model.safetensors")
        return {int(path.parents[1].name.rsplit("-", 1)[1]): path.read_bytes() for path in files}

    return run
