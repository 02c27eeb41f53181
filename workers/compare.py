"""Put a teacher and its students side by side: `python -m workers.compare --out grid.png TEACHER:50 STUDENT:1 ...`.

Each argument is a diffusers folder (or `builtin:digits`) and the number of sampling steps. Rows share their seeds.
"""

import argparse
from pathlib import Path

import torch

from workers.artifact import load_student
from workers.grid import grid_png
from workers.store import local_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="+", help="FOLDER:STEPS, from the top row to the bottom row")
    parser.add_argument("--out", type=Path, required=True, help="the PNG")
    parser.add_argument("--columns", type=int, default=20, help="images per row")
    parser.add_argument("--seed", type=int, default=0, help="column i uses seed + i")
    options = parser.parse_args()

    rows, labels = [], []
    for row in options.rows:
        folder, _, steps = row.rpartition(":")
        model = load_student(local_folder(folder))
        classes = torch.arange(options.columns) % model.num_classes if model.num_classes else None
        seeds = [options.seed + i for i in range(options.columns)]
        rows.append(model.generate(classes, seeds, int(steps)))
        name = "teacher" if folder.startswith("builtin:") else Path(folder).name.removesuffix(f"-{steps}")
        labels.append(f"{name}, {steps} step{'s' if int(steps) > 1 else ''}")
    options.out.write_bytes(grid_png(rows, labels=labels))


if __name__ == "__main__":
    main()
