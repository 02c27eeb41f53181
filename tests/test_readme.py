"""The README's commands and programs, run in order against a real platform."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.ray
def test_every_block_runs(platform, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "FEWSTEP_URL": platform.url,
        "FEWSTEP_API_KEY": platform.key,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    assert [language for language, _ in BLOCKS].count("sh") >= 2
    for language, text in BLOCKS:
        command = ["bash", "-euc", text] if language == "sh" else [sys.executable, "-c", text]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        if (archive := tmp_path / "student.zip").exists():
            with zipfile.ZipFile(archive) as zipped:
                zipped.extractall(tmp_path / "student")
    assert (tmp_path / "seven.png").read_bytes().startswith(b"\x89PNG")
