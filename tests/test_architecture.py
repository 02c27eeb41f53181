"""Rules of the code base that no linter knows."""

import re
import tomllib
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
SOURCES = [
    path
    for top in ("service", "workers", "api", "deploy", "tests")
    for pattern in ("*.py", "*.ts", "*.tsx", "*.css")
    for path in (ROOT / top).rglob(pattern)
    if not {"node_modules", "dist"} & set(path.parts)
]


def test_no_file_is_longer_than_400_lines() -> None:
    assert len(SOURCES) > 50
    generated = {ROOT / "api/dashboard/src/api/schema.d.ts"}
    long = {str(p.relative_to(ROOT)): n for p in SOURCES if (n := len(p.read_text().splitlines())) > 400}
    assert not {path: n for path, n in long.items() if ROOT / path not in generated}


def test_the_readme_names_every_make_target_that_it_explains() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z]+)`", (ROOT / "README.md").read_text()))
    assert named <= targets
    assert {"demo", "up", "test", "bench"} <= named


def test_the_readme_lists_the_registered_methods() -> None:
    from api.readme import TABLE, methods_table

    found = TABLE.search((ROOT / "README.md").read_text())
    assert found is not None
    assert found.group() == methods_table(), "python -m api.readme writes it anew"


def test_methods_are_small_files_that_do_not_know_each_other() -> None:
    from service.methods import METHODS

    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (apart,) = (contract for contract in contracts if contract["name"] == "Methods do not import each other")
    assert apart["modules"] == [f"workers.methods.{kind}" for kind in METHODS]
    lines = [len((ROOT / f"workers/methods/{kind}.py").read_text().splitlines()) for kind in METHODS]
    assert median(lines) <= 120


def test_nothing_reaches_out_at_run_time() -> None:
    """The built pages load nothing from elsewhere: no CDN, no fonts, no analytics."""
    sources = [*ROOT.glob("api/dashboard/src/**/*.ts*"), *ROOT.glob("api/dashboard/*.html")]
    assert sources
    for path in sources:
        assert not re.search(r"(src|href|url)\s*[=(]\s*[\"']?https?://", path.read_text()), path
