"""One method: `python one_method.py KIND FOLDER`. Its defaults on the digits, its row of the tests on the 2-D mixture.

See bench_methods.py.
"""

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Literal

import torch

from service.spec import JobSpec
from workers import stages
from workers.artifact import load_student
from workers.evaluate.evaluator import digits_evaluator
from workers.run import FolderHost
from workers.store import local_folder

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))
from learning import fitted_mixture, learn, training_points
from rows import ROWS


class Timed(FolderHost):
    """Notes the CPU seconds of this process until the training is over."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, torch.device("cpu"))
        self.trained = 0.0

    def phase(self, phase: Literal["starting", "training", "evaluating", "exporting"]) -> None:
        if phase == "evaluating" and not self.trained:
            self.trained = time.process_time()

    def sample(self, *_: Any) -> None:
        """Nobody looks."""


def main() -> None:
    kind, out = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    work = out / ".work" / kind
    shutil.rmtree(work, ignore_errors=True)
    spec = JobSpec.model_validate(
        {"teacher": "digits", "method": {"kind": kind}, "checkpoint_every": 1_000_000, "preview_every": 1_000_000}
    )
    host = Timed(work)
    started = time.process_time()
    stages.run(spec, local_folder("builtin:digits"), host)
    seconds = host.trained - started

    records = [json.loads(file.read_text()) for file in sorted((work / "students").glob("*.json"))]
    for record in records:
        folder = out / record["label"]
        shutil.rmtree(folder, ignore_errors=True)
        shutil.move(work / "students" / record["label"], folder)
    shutil.rmtree(work)

    guidance = spec.chain()[0].method.guidance_scale
    teacher, judge = load_student(local_folder("builtin:digits")), digits_evaluator()
    four = judge.figures(lambda labels, seeds, n: teacher.generate(labels, seeds, n, guidance), 4, 1000).model_dump()
    row = {"kind": kind, "seconds": seconds, "students": records, "teacher_at_4": four, "mixture": None}
    if ROWS[kind].mixture is not None:
        mixture = fitted_mixture()
        learnt = learn(kind, ROWS[kind], mixture, training_points(mixture), FolderHost(work, torch.device("cpu")))
        row["mixture"] = {"distance": learnt.distance, "bar": learnt.bar}
        shutil.rmtree(work)
    (out / f"{kind}.json").write_text(json.dumps(row, indent=2))


if __name__ == "__main__":
    main()
