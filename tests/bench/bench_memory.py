"""What jobs were estimated to need, and the peak of their tensors, measured on a CPU: while they train, and whole.

`python tests/bench/bench_memory.py [WORD ...]`, the jobs with any of the words in their titles; all without. Estimates
are from the shapes of the weights alone, before anything runs.
"""

import argparse
import logging
import math
import sys
import tempfile
import warnings
from dataclasses import astuple
from pathlib import Path

import torch
from rich.console import Console

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "memory"), str(TESTS / "families")]

from measured import measure, measure_whole  # noqa: E402
from specs import JOBS, SAVING, WHOLE, Job, title  # noqa: E402

from api.render import table  # noqa: E402
from workers import trainer  # noqa: E402

MB = 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="WORD")
    words = parser.parse_args().words
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    trainer.LARGEST_SAMPLE = math.inf  # random weights make samples of any size
    out = table("JOB", "WEIGHTS", "OPTIMIZER", "GRADIENTS", "ACTIVATIONS", "ENCODERS", "SUM", "MEASURED", "ERROR")

    def wanted(job: Job) -> bool:
        return not words or any(word in title(*job) for word in words)

    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(*job, Path(folder) / f"{i}") for i, job in enumerate(JOBS + SAVING) if wanted(job)]
        for i, (job, captions) in enumerate(WHOLE):
            rows += measure_whole(*job, Path(folder) / f"whole-{i}", captions) if wanted(job) else []
    for row in rows:
        numbers = [f"{number / MB:.1f}" for number in (*astuple(row.estimate), row.estimate.total, row.measured)]
        out.add_row(row.name, *numbers, f"{row.error:+.1%}")
    Console(width=150).print("Peak memory in MB, estimated and measured", out, sep="\n")


if __name__ == "__main__":
    main()
