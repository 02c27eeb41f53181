"""Rules of the code base that no linter knows."""

import re
from pathlib import Path

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
    from service.methods import METHODS

    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (arXiv:[\d.]+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert rows == [(kind, settings.family, settings.paper) for kind, settings in METHODS.items()]


def test_nothing_reaches_out_at_run_time() -> None:
    """The built pages load nothing from elsewhere: no CDN, no fonts, no analytics."""
    sources = [*ROOT.glob("api/dashboard/src/**/*.ts*"), *ROOT.glob("api/dashboard/*.html")]
    assert sources
    for path in sources:
        assert not re.search(r"(src|href|url)\s*[=(]\s*[\"']?https?://", path.read_text()), path
