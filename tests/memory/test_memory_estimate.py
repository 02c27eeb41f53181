"""The estimate against the measured peak, and what is advised where a job does not fit."""

import math
from pathlib import Path

import pytest
import torch
from measured import measure, measure_whole
from peak import Peak
from specs import CHEAP, JOBS, SAVING, WHOLE, Job, title

from workers import trainer

WITHIN = 0.15


@pytest.mark.parametrize(
    "job",
    [
        pytest.param(job, id=title(*job), marks=[] if i in CHEAP else [pytest.mark.slow])
        for i, job in enumerate(JOBS + SAVING)
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_the_estimate_is_near_the_measured_peak(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "LARGEST_SAMPLE", math.inf)  # random weights make samples of any size
    row = measure(*job, tmp_path)
    print(row)
    assert abs(row.error) < WITHIN
    fixed = row.estimate.weights + row.estimate.optimizer
    assert 0.1 < fixed / row.measured < 0.9, "both weights and activations have to matter, or nothing is shown"


@pytest.mark.parametrize(
    ("job", "captions"),
    [pytest.param(job, captions, id=title(*job)) for job, captions in WHOLE],
)
@pytest.mark.filterwarnings("ignore")
def test_the_estimate_is_near_the_measured_peak_of_a_whole_job(
    job: Job, captions: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "LARGEST_SAMPLE", math.inf)
    rows = measure_whole(*job, tmp_path, captions)
    for row in rows:
        print(row)
    assert max(abs(row.error) for row in rows) < WITHIN


def test_the_peak_is_of_what_is_alive_at_once() -> None:
    start = torch.nn.Linear(10, 10)
    with Peak([start]) as peak:
        first = torch.zeros(1000)
        view = first[:10]
        del first
        other = view + 1
        assert peak.now == 440 + 4000 + 40
        del view
        assert peak.now == 440 + 40
        del other
    assert (peak.now, peak.highest) == (440, 440 + 4000 + 40)
