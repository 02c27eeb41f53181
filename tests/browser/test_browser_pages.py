"""Every page of the dashboard against an API from memory: themes, widths, accessibility, and what each control does."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / "api/dashboard/node_modules/axe-core/axe.min.js"
OpenPage = Callable[[str, int], Page]

PAGES = {
    "jobs": ("/jobs", "halving-then-matching"),
    "job-running": ("/jobs/job_01jd0088", "Gradient norm"),
    "job-succeeded": ("/jobs/job_01jd0083", "Gradient norm"),
    "job-failed": ("/jobs/job_01jd0084", "Gradient norm"),
    "submit": ("/jobs/new", "training steps"),
    "clone": ("/jobs/new?from=job_01jd0089", "Memory per worker"),
    "students": ("/students", "consistency-1-2-4"),
    "student": ("/students/stu_cd", "Without Fewstep"),
    "endpoints": ("/endpoints", "The replica died while loading"),
    "playground": ("/playground?endpoint=digits-any&seed=3", "Generate"),
    "methods": ("/methods", "rung_iterations"),
    "teachers": ("/teachers", "v_prediction"),
    "datasets": ("/datasets", "25,000"),
    "webhooks": ("/webhooks", "No answer within 10 seconds."),
    "not-found": ("/no/such/page", "No page has this address."),
}


DRAWN = "!document.querySelector('.pixels .wait') && [...document.images].every(i => i.complete)"
"""No picture is still to come."""


@pytest.fixture(scope="module")
def fake() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    app = ["--app-dir", str(Path(__file__).parent), "fake_api:app"]
    server = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", *app, "--port", str(port), "--log-level", "warning"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    while True:
        assert server.poll() is None, "the fake API did not start"
        assert time.monotonic() < deadline, "the fake API does not answer"
        try:
            httpx.get(f"{url}/version", trust_env=False)
            break
        except httpx.TransportError:
            time.sleep(0.1)
    yield url
    server.terminate()
    server.wait(10)


def violations(page: Page) -> list[str]:
    """What axe finds against WCAG 2 A and AA, as one line each."""
    page.add_script_tag(path=AXE)
    found = page.evaluate(
        "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa']}).then(r => r.violations.map("
        "v => v.id + ': ' + v.nodes.map(n => n.target.join(' ') + ' ' + (n.any[0]?.message ?? '')).join(' | ')))"
    )
    return list(found)


def test_the_build_is_small_and_without_source_maps() -> None:
    files = [file for file in (ROOT / "api/dashboard/dist").rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 1_500_000
    assert [file.name for file in files if file.suffix == ".map"] == []


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pages_are_readable(fake: str, open_page: OpenPage, screenshots: Path, theme: str, width: int) -> None:
    page = open_page(theme, width)
    page.goto(f"{fake}/#key=fake-key")
    wrong = []
    for name, (path, text) in PAGES.items():
        page.goto(fake + path)
        expect(page.get_by_text(text).first).to_be_visible()
        page.wait_for_function(DRAWN)
        if name == "playground":
            page.get_by_role("button", name="Generate").click()
            expect(page.get_by_alt_text("Sample of the teacher, seed 3")).to_be_visible()
        page.screenshot(path=screenshots / f"{name}-{theme}-{width}.png", full_page=True)
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            wrong.append(f"{name} is wider than the screen")
        wrong += [f"{name}: {found}" for found in violations(page)]
    assert wrong == []


def signed_in(fake: str, open_page: OpenPage, path: str) -> Page:
    page = open_page("light", 1280)
    page.goto(f"{fake}{path}#key=fake-key")
    return page


def test_key_is_asked_for_and_kept_out_of_the_address(fake: str, open_page: OpenPage) -> None:
    page = open_page("light", 1280)
    page.goto(f"{fake}/jobs")
    page.get_by_label("Key", exact=True).fill("wrong")
    page.get_by_role("button", name="Use this key").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.get_by_label("Key", exact=True).fill("fake-key")
    page.get_by_role("button", name="Use this key").click()
    expect(page.get_by_text("halving-then-matching")).to_be_visible()
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.goto(f"{fake}/jobs#key=fake-key")
    expect(page).to_have_url(f"{fake}/jobs")


def test_filters_and_pages_live_in_the_address(fake: str, open_page: OpenPage) -> None:
    page = signed_in(fake, open_page, "/jobs")
    page.get_by_label("Status").select_option("failed")
    expect(page).to_have_url(f"{fake}/jobs?status=failed")
    expect(page.locator(".lane")).to_have_count(1)
    page.reload()
    expect(page.locator(".lane")).to_have_count(1)
    page.get_by_label("Method").select_option("dmd2")
    expect(page.get_by_text("No job matches")).to_be_visible()
    page.get_by_role("button", name="Clear the filters").click()
    page.get_by_role("button", name="Older").click()
    expect(page).to_have_url(re.compile(r"after=job_01jd00"))
    expect(page.get_by_role("button", name="Newest")).to_be_visible()


def test_theme_is_switched_and_remembered(fake: str, open_page: OpenPage) -> None:
    page = signed_in(fake, open_page, "/jobs")
    light = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    page.get_by_role("button", name="Use the dark theme").click()
    page.reload()
    expect(page.get_by_role("button", name="Use the light theme")).to_be_visible()
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") != light


def test_form_puts_errors_at_their_fields(fake: str, open_page: OpenPage) -> None:
    page = signed_in(fake, open_page, "/jobs/new?method=progressive")
    estimate = page.get_by_label("Estimate")
    expect(estimate).to_contain_text("training steps")
    first = page.get_by_label("First steps")
    first.fill("0")
    expect(page.get_by_text("This must be at least 1.")).to_be_visible()
    first.fill("6")
    method = page.get_by_label("Stage 1")
    expect(method.get_by_role("alert")).to_contain_text("times a power of two")
    expect(page.get_by_role("button", name="Submit the job")).to_be_disabled()
    first.fill("2")
    page.get_by_label("Rung iterations").fill("30")
    expect(page.get_by_role("button", name="Submit the job")).to_be_enabled()
    page.get_by_label("Name", exact=True).fill("Not A Name")
    expect(page.get_by_text("String should match pattern")).to_be_visible()


def test_stages_are_chained_submitted_and_cloned(fake: str, open_page: OpenPage) -> None:
    page = signed_in(fake, open_page, "/jobs/new?method=progressive")
    page.get_by_label("Name", exact=True).fill("a-chain")
    page.get_by_role("button", name="Add a stage").click()
    second = page.get_by_label("Stage 2")
    second.get_by_role("button", name="Distribution matching (DMD2)").click()
    second.get_by_label("GAN weight").fill("0.05")
    page.get_by_label("Seed").fill("11")
    expect(page.get_by_role("button", name="Submit the job")).to_be_enabled()
    page.get_by_role("button", name="Submit the job").click()
    expect(page).to_have_url(re.compile(r"/jobs/job_01jd0091"))
    expect(page.get_by_role("heading", name="a-chain")).to_be_visible()
    spec = page.locator(".spec pre")
    expect(spec).to_contain_text('"gan_weight": 0.05')
    page.get_by_role("button", name="Python").click()
    expect(spec).to_contain_text('"seed": 11')
    page.get_by_role("link", name="Clone with changes").click()
    expect(page.get_by_label("Stage 2").get_by_label("GAN weight")).to_have_value("0.05")
    expect(page.get_by_label("Seed")).to_have_value("11")


def test_a_dataset_is_registered_and_learnt_from(fake: str, open_page: OpenPage) -> None:
    page = signed_in(fake, open_page, "/datasets")
    form = page.get_by_role("region", name="Register a dataset")
    form.get_by_label("Name").fill("birds")
    form.get_by_label("Source").fill("birds")
    form.get_by_role("button", name="Register the dataset").click()
    expect(form.get_by_role("alert")).to_contain_text("is not a folder in the store")
    form.get_by_label("Source").fill("data/birds")
    form.get_by_role("button", name="Register the dataset").click()
    card = page.locator("article", has_text="data/birds")
    card.get_by_role("link", name="Learn from it").click()
    expect(page.get_by_label("Data", exact=True)).to_have_value("birds")
    page.get_by_role("button", name="Submit the job").click()
    expect(page.locator(".spec pre")).to_contain_text('"data": "birds"')
    page.get_by_role("link", name="Clone with changes").click()
    expect(page.get_by_label("Data", exact=True)).to_have_value("birds")


def test_job_page_lives(fake: str, open_page: OpenPage) -> None:
    page = signed_in(fake, open_page, "/jobs/job_01jd0088")
    shown = page.locator(".job-progress .figures")
    expect(shown).to_contain_text(" steps")
    before = shown.inner_text()
    expect(shown).not_to_have_text(before)
    expect(page.locator(".sample-rows .pinned [data-role=teacher] img")).to_have_count(2)
    newest = page.get_by_test_id("sample-step")
    expect(newest).to_contain_text("newest")
    page.get_by_label("Training step").fill("0")
    expect(newest).to_have_text("step 0")
    page.get_by_role("button", name="All steps").click()
    assert page.locator(".film .sample-row").count() > 5
    expect(page.get_by_role("img", name=re.compile("^Loss over steps"))).to_be_visible()
    page.get_by_label("Least level").select_option("warning")
    expect(page.locator(".log > div")).to_have_count(1)
    page.get_by_label("Least level").select_option("debug")
    page.get_by_label("Search the log").fill("step 200/")
    expect(page.locator(".log > div")).to_have_count(1)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert "teacher digits loaded" in download.value.path().read_text()
    page.get_by_role("button", name="Pause", exact=True).click()
    expect(page.get_by_role("button", name="Pausing…")).to_be_disabled()


def test_student_is_deployed_and_played_with(fake: str, open_page: OpenPage) -> None:
    page = signed_in(fake, open_page, "/students/stu_prog2")
    page.get_by_role("button", name="Deploy").click()
    page.get_by_role("dialog").get_by_label("Endpoint name").fill("two-steps")
    page.get_by_role("dialog").get_by_role("button", name="Deploy").click()
    card = page.locator("[data-endpoint=two-steps]")
    expect(card).to_contain_text("ready")
    card.get_by_role("link", name="Play").click()
    page.get_by_role("button", name="3", exact=True).click()
    page.get_by_label("Images").fill("2")
    page.get_by_role("button", name="Generate").click()
    for who in ("student", "teacher"):
        expect(page.locator(f"[data-who={who}] img")).to_have_count(2)
    expect(page.locator("[data-who=teacher]")).to_contain_text("in 50 steps")
    expect(page.locator(".strip button")).to_have_count(1)
    expect(page).to_have_url(re.compile(r"endpoint=two-steps.*class=3.*n=2"))
    page.goto(f"{fake}/endpoints")
    card.get_by_role("button", name="Delete").click()
    card.get_by_role("button", name="Delete two-steps").click()
    expect(card).to_contain_text("deleting")


def test_webhook_is_added_tried_and_replayed(fake: str, open_page: OpenPage) -> None:
    page = signed_in(fake, open_page, "/webhooks")
    chat = page.locator("[data-webhook=whk_chat]")
    rows = chat.locator(".deliveries li")
    expect(rows.first).to_have_attribute("data-delivery", "dlv_39")  # the dead come first
    expect(chat).to_contain_text("1 did not arrive")
    rows.first.get_by_role("button", name="Replay").click()
    expect(chat.locator(".deliveries .is-dead")).to_have_count(0)
    expect(chat.locator("[data-delivery=dlv_39]")).to_contain_text("not tried yet")
    form = page.get_by_role("region", name="Add a webhook")
    form.get_by_label("URL").fill("http://127.0.0.1/hook")
    form.get_by_role("button", name="Add the webhook").click()
    expect(form.get_by_role("alert")).to_contain_text("not a public address")
    form.get_by_label("URL").fill("https://example.com/new")
    form.get_by_label("job.failed").check()
    form.get_by_role("button", name="Add the webhook").click()
    secret = page.get_by_text("whsec_")
    expect(secret).to_be_visible()
    added = page.locator("article", has_text="https://example.com/new")
    expect(added).to_contain_text("job.failed")
    added.get_by_role("button", name="Send a test").click()
    expect(added.locator(".deliveries li")).to_contain_text("webhook.test")
    page.get_by_role("button", name="I have kept it").click()
    expect(secret).to_have_count(0)
    page.reload()
    expect(added).to_be_visible()
    expect(page.get_by_text("whsec_")).to_have_count(0)
    added.get_by_role("button", name="Delete").click()
    added.get_by_role("button", name="Delete this webhook").click()
    expect(added).to_have_count(0)
