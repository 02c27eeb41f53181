"""Every method with its defaults on the digits teacher: one table, one seed, one core and at most 150 s for each.

`make methods`, or `python tests/bench/bench_methods.py --only kd,reflow --out FOLDER`. Each student lies in
`FOLDER/<method>-<steps>` as a plain diffusers folder, its figures in `FOLDER/<method>.json`, the table in `methods.md`.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as xml
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bars import STEPS, figures, made_for, reference, verdict
from rich.console import Console
from rich.progress import Progress

from api.render import table
from service.methods import METHODS

ROOT = Path(__file__).parents[2]
BUDGET = 150.0
COLUMNS = ("METHOD", "ORACLE", "MIXTURE", "FD 1", "FD 2", "FD 4", "RECALL 1", "RECALL 2", "RECALL 4", "ACCURACY")
COLUMNS += ("DIVERSITY", "F / B", "CPU S", "LINES", "BAR")
LEGEND = """ORACLE: tests of the method on closed forms that pass, planted faults included.
MIXTURE: energy distance of one step in the plane, and its bar.
FD: Fréchet distance over the teacher's at 50 steps. ACCURACY, DIVERSITY: the worst over the steps. F / B: forwards and
backwards of a whole batch per step of the student. CPU S: of the training. LINES: of the method's file."""


def prove(out: Path) -> None:
    """Run the tests on closed forms; their report is `oracle.xml`."""
    report = out / "oracle.xml"
    tests = [str(path) for path in (ROOT / "tests/core").glob("test_core_*.py")]
    tests = [path for path in tests if not re.search("trainer|stages|recipes|mixture", path)]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", f"--junitxml={report}", *tests]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True)


def proofs(out: Path) -> Counter[str]:
    """How many of those tests each method passes; a negative number of those that it fails, if any."""
    good: Counter[str] = Counter()
    bad: Counter[str] = Counter()
    for case in xml.parse(out / "oracle.xml").iter("testcase"):
        for kind in METHODS:
            if re.search(rf"(?<![a-z]){kind}(?![a-z0-9])", case.get("name", "")):
                failed = case.find("failure") is not None or case.find("error") is not None
                (bad if failed else good)[kind] += 1
    return Counter({kind: -bad[kind] or good[kind] for kind in METHODS})


def run(kind: str, out: Path) -> dict[str, Any]:
    """What one_method.py finds, in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, Path(__file__).parent / "one_method.py", kind, out]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        return {"kind": kind, "error": done.stderr.strip().splitlines()[-1]}
    found: dict[str, Any] = json.loads((out / f"{kind}.json").read_text())
    return found


def cells(row: dict[str, Any], oracle: int | None) -> list[str]:
    kind = row["kind"]
    if "error" in row:
        return [kind, row["error"]]
    by_steps = {n: figures(row["students"], n) for n in STEPS}
    every = list(made_for(row["students"]).values())
    mixture, method = row["mixture"], METHODS[kind]
    missed = verdict(kind, row["students"], row["teacher_at_4"])
    if row["seconds"] > BUDGET:
        missed.append(f"{row['seconds']:.0f} s > {BUDGET:.0f} s")
    if mixture and mixture["distance"] >= mixture["bar"]:
        missed.append("mixture")
    return [
        kind,
        "" if oracle is None else f"✔ {oracle}" if oracle > 0 else f"✘ {-oracle}",
        f"{mixture['distance']:.4f} ({mixture['bar']:g})" if mixture else "–",
        *("–" if f is None else f"{f['frechet'] / reference(row['students']):.2f}" for f in by_steps.values()),
        *("–" if f is None else f"{f['recall']:.2f}" for f in by_steps.values()),
        f"{min(f['accuracy'] for f in every):.3f}",
        f"{min(f['diversity'] for f in every):.2f}",
        f"{method.forwards:g} / {method.backwards:g}",
        f"{row['seconds']:.0f}",
        str(len((ROOT / f"workers/methods/{kind}.py").read_text().splitlines())),
        "✔" if not missed else "✘ " + "; ".join(missed) + (f". {method.known_limit}" if method.known_limit else ""),
    ]


def run_all(kinds: list[str], options: argparse.Namespace, console: Console) -> list[dict[str, Any]]:
    with Progress(console=console) as progress, ThreadPoolExecutor(options.processes) as pool:
        task = progress.add_task("methods", total=len(kinds))
        if not options.only:
            pool.submit(prove, options.out)

        def one(kind: str) -> dict[str, Any]:
            row = run(kind, options.out)
            progress.console.print("  ".join(cells(row, None)), markup=False, highlight=False)
            progress.advance(task)
            return row

        return list(pool.map(one, kinds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="kinds, separated by commas; their closed forms are then left to pytest")
    parser.add_argument("--out", type=Path, default=Path("demo/methods"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--print", action="store_true", help="run nothing: print the table of the rows in the folder")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    kinds = options.only.split(",") if options.only else list(METHODS)
    started = time.monotonic()
    console = Console(width=max(200, Console().width))
    if options.print:
        rows = [json.loads((options.out / f"{kind}.json").read_text()) for kind in kinds]
    else:
        rows = run_all(kinds, options, console)
    oracle: Counter[str] = Counter() if options.only else proofs(options.out)
    lines = [cells(row, oracle.get(row["kind"])) for row in rows]
    out = table(*COLUMNS)
    for line in lines:
        out.add_row(*line)
    console.print(out)
    console.print(LEGEND)
    text = [" | ".join(line) for line in (COLUMNS, ["---"] * len(COLUMNS), *lines)]
    (options.out / "methods.md").write_text("".join(f"| {line} |\n" for line in text) + f"\n{LEGEND}\n")
    median = sorted(int(line[13]) for line in lines if len(line) > 2)[len(lines) // 2] if lines else 0
    console.print(
        f"{len(rows)} methods in {time.monotonic() - started:.0f} s, files of {median} lines in the middle; "
        f"the students lie in {options.out}"
    )
    sys.exit(any(line[-1] != "✔" for line in lines))


if __name__ == "__main__":
    main()
