import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")

OpenPage = Callable[[str, int], Page]


@pytest.fixture(scope="module")  # while it is open, Playwright's event loop keeps asyncio tests from running
def chromium() -> Iterator[Browser]:
    executable = next((found for name in CHROMIUM_NAMES if (found := shutil.which(name))), None)
    assert executable, "Chromium is needed: install your system's package 'chromium'"
    assert (ROOT / "api/dashboard/dist/index.html").is_file(), "The dashboard is not built: run 'make setup'"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def screenshots() -> Path:
    folder = ROOT / "tests" / "screenshots"
    folder.mkdir(exist_ok=True)
    return folder


def leaves_home(url: str) -> bool:
    return not url.startswith(("http://127.0.0.1:", "data:", "blob:"))


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[OpenPage]:
    """`open_page(theme, width)`: a page of its own; nothing that it complains about on its console is forgiven."""
    complaints: list[str] = []
    foreign: list[str] = []
    contexts = []

    def make(theme: str, width: int) -> Page:
        height = 844 if width < 500 else 900
        context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=theme)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: foreign.append(request.url) if leaves_home(request.url) else None)
        return page

    yield make
    for context in contexts:
        context.close()
    assert foreign == [], "the dashboard asks other hosts than its own"
    # Chromium itself logs every answer of 401 and 422; the pages show these in words.
    assert [c for c in complaints if "a status of 401" not in c and "a status of 422" not in c] == []
