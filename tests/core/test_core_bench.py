"""The training core's benchmark runs without a GPU, on tiny networks, and its figures agree with one another."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCH = Path(__file__).parents[1] / "bench"
CPU = torch.device("cpu")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCH)
    return importlib.import_module("bench_core")


def test_a_tiny_job_is_timed_counted_and_shown(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["bench_core.py", "--tiny", "--job", "ect-cifar", "--steps", "1"])
    assert bench.main() == 0
    title, header, row = (line for line in capsys.readouterr().out.splitlines() if line.strip())
    assert "1.04 million parameters, batch of 32, bf16, CPU" in title
    assert "IMAGES/S" in header
    compiled, milliseconds, speed = row.split()[:3]
    assert compiled == "no"
    assert float(speed) == pytest.approx(32 / (float(milliseconds) / 1e3), rel=0.05)
    assert row.rstrip().endswith("–"), "the share of an unknown device's peak"


@pytest.mark.parametrize(
    ("name", "near"), [("ect-cifar", 0.1), ("lcm-lora-sdxl", 0.1), ("dmd2-sdxl", 0.1), ("dmd2-sd3.5", 0.15)]
)
def test_the_estimated_arithmetic_is_near_what_is_counted(bench: ModuleType, name: str, near: float) -> None:
    job = bench.JOBS[name]
    assert bench.estimate(job, True).flops == pytest.approx(bench.count(job, True, CPU), rel=near)


@pytest.mark.parametrize(
    ("name", "millions"),
    [("lcm-lora-sdxl", 2567), ("dmd2-sdxl", 2567), ("dmd2-sd3.5", 2243), ("ect-cifar", 55.7)],
)
def test_networks_have_the_published_sizes(bench: ModuleType, name: str, millions: float) -> None:
    made = bench.JOBS[name].teacher(False, torch.device("meta"))
    assert made.parameters / 1e6 == pytest.approx(millions, rel=1e-3)
    assert bench.estimate(bench.JOBS[name], False).memory.total > 4 * made.parameters


def test_without_a_gpu_it_says_so(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["bench_core.py"])
    assert bench.main() == 2
    assert "run with --tiny on a CPU" in capsys.readouterr().err


def test_a_job_that_fails_is_shown_and_the_others_go_on(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> None:
        raise torch.OutOfMemoryError("too large")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(bench, "count", fails)
    monkeypatch.setattr(sys, "argv", ["bench_core.py", "--tiny", "--job", "ect-cifar", "--job", "lcm-lora-sdxl"])
    assert bench.main() == 1
    shown = capsys.readouterr()
    assert shown.err.count("OutOfMemoryError: too large") == 2
    assert "lcm-lora-sdxl" in shown.out


def test_the_peak_of_a_device_is_found_by_its_name(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H100 PCIe": 756e12, "NVIDIA A100-SXM4-80GB": 312e12, "T4": None}
    for name, flops in names.items():
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda name=name: name)
        assert bench.peak_flops(torch.device("cuda")) == flops
    assert bench.peak_flops(CPU) is None
