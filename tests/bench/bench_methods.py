"""Every method with its defaults on the digits teacher: one table, one seed, one core and at most 150 s for each.

`make methods`, or `python tests/bench/bench_methods.py --only kd,reflow --out FOLDER`. Each student lies in
`FOLDER/<method>-<steps>` as a plain diffusers folder, its figures in `FOLDER/<method>.json`, the table in `methods.md`.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from api.render import table
from service.methods import METHODS

BUDGET = 150.0
TEACHER_STEPS = "50"
STEPS = ("1", "2", "4")


def run(kind: str, out: Path) -> dict[str, Any]:
    """The row of one method, from a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, Path(__file__).parent / "one_method.py", kind, out]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        return {"kind": kind, "error": done.stderr.strip().splitlines()[-1]}
    row: dict[str, Any] = json.loads((out / f"{kind}.json").read_text())
    return row


def figures(row: dict[str, Any], steps: str, name: str) -> float | None:
    """Of the student that is made for so many steps; one of its own before one that also serves them."""
    students = sorted(row["students"], key=lambda s: s["steps"].index(int(steps)) if int(steps) in s["steps"] else 99)
    found = students[0]["figures"].get(steps)
    return None if found is None else found[name]


def ratio(row: dict[str, Any], steps: str) -> float | None:
    """Fréchet distance over the teacher's at 50 steps."""
    own = figures(row, steps, "frechet")
    return None if own is None else own / row["students"][0]["teacher_figures"][TEACHER_STEPS]["frechet"]


def cells(row: dict[str, Any]) -> list[str]:
    if "error" in row:
        return [row["kind"], row["error"]]

    def shown(value: float | None) -> str:
        return "–" if value is None else f"{value:.2f}"

    worst = {
        name: [v for n in STEPS if (v := figures(row, n, name)) is not None]
        for name in ("accuracy", "recall", "diversity", "nearest_neighbour_ratio")
    }
    near = worst["nearest_neighbour_ratio"]
    return [
        row["kind"],
        *(shown(ratio(row, n)) for n in STEPS),
        *(shown(figures(row, n, "recall")) for n in STEPS),
        f"{min(worst['accuracy']):.3f}",
        shown(min(worst["diversity"])),
        f"{min(near):.2f}–{max(near):.2f}",
        f"{row['seconds']:.0f}" + ("!" if row["seconds"] > BUDGET else ""),
    ]


COLUMNS = (
    *("METHOD", "FD 1", "FD 2", "FD 4", "RECALL 1", "RECALL 2", "RECALL 4"),
    *("ACCURACY", "DIVERSITY", "NEAREST", "CPU S"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(METHODS), help="kinds, separated by commas")
    parser.add_argument("--out", type=Path, default=Path("demo/methods"))
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    kinds = options.only.split(",")
    started = time.monotonic()
    console = Console(width=max(150, Console().width))
    with Progress(console=console) as progress, ThreadPoolExecutor(options.processes) as pool:
        task = progress.add_task("methods", total=len(kinds))

        def one(kind: str) -> dict[str, Any]:
            row = run(kind, options.out)
            progress.console.print("  ".join(cells(row)))
            progress.advance(task)
            return row

        rows = list(pool.map(one, kinds))
    out = table(*COLUMNS)
    for row in rows:
        out.add_row(*cells(row))
    console.print(out)
    lines = [" | ".join(c) for c in (COLUMNS, ["---"] * len(COLUMNS), *map(cells, rows))]
    (options.out / "methods.md").write_text("".join(f"| {line} |\n" for line in lines))
    console.print(f"{len(rows)} methods in {time.monotonic() - started:.0f} s; the students lie in {options.out}")
    sys.exit(any("error" in row for row in rows))


if __name__ == "__main__":
    main()
