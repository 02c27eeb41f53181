"""The recipes that ship for the digits: every chain is a job that runs, from its first stage to its last student."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from rows import ROWS

from service.spec import JobSpec
from workers import finish, stages

TEACHER = Path(stages.__file__).parent / "assets" / "digits" / "teacher"
RECIPES = sorted(
    path
    for path in (Path(stages.__file__).parent / "recipes").glob("*.yaml")
    if yaml.safe_load(path.read_text())["teacher"] == "digits"
)
EXPECTED = {
    "guidance-progressive": ["guidance", "progressive"],
    "hyper": ["consistency", "dmd2"],
    "lightning": ["progressive", "lightning"],
    "warm-dmd2": ["kd", "dmd2"],
}


def test_the_recipes_are_those_of_the_literature() -> None:
    found = {path.stem: yaml.safe_load(path.read_text()) for path in RECIPES}
    assert {name: [stage["method"]["kind"] for stage in spec["stages"]] for name, spec in found.items()} == EXPECTED
    assert all(spec["name"] == name for name, spec in found.items())


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs_from_end_to_end(recipe: Path, local_host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every stage made short, and its students kept instead of judged."""
    students: list[Any] = []
    monkeypatch.setattr(finish, "export", lambda _, network, *rest, **more: students.append((network().unet, *rest)))
    spec = yaml.safe_load(recipe.read_text())
    for stage in spec["stages"]:
        pairs = {"pairs": 16, "pair_steps": 2} if stage["method"]["kind"] == "kd" else {}
        stage["method"] |= ROWS[stage["method"]["kind"]].short | {"batch_size": 4} | pairs
    job = JobSpec.model_validate(spec)
    host = local_host()
    outcome = stages.run(job, TEACHER, host)
    assert outcome == stages.Outcome(None, job.total_steps())
    assert {stage for stage in range(len(job.chain()))} == {args[4] for args in students}
