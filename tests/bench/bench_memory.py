"""What jobs were estimated to need, and the peak of their tensors, measured while they train on a CPU.

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

from measured import measure  # noqa: E402
from specs import JOBS, SAVING, title  # noqa: E402

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
    for job in [job for job in JOBS + SAVING if not words or any(word in title(*job) for word in words)]:
        with tempfile.TemporaryDirectory() as folder:
            row = measure(*job, Path(folder))
        numbers = [f"{number / MB:.1f}" for number in (*astuple(row.estimate), row.estimate.total, row.measured)]
        out.add_row(row.name, *numbers, f"{row.error:+.1%}")
    Console(width=150).print("Peak memory in MB, estimated and measured", out, sep="\n")


if __name__ == "__main__":
    main()
