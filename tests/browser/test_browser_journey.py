"""A user's whole way through the dashboard, on the running platform: form, job, student, endpoint, pictures."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.ray]

MS = 1000.0
START = 180 * MS
FINISH = 240 * MS
OpenPage = Callable[[str, int], Page]


def test_from_the_form_to_pictures(platform: Any, open_page: OpenPage, screenshots: Path) -> None:
    page = open_page("light", 1280)

    def keep(name: str) -> None:
        page.screenshot(path=screenshots / f"journey-{name}.png", full_page=True)

    page.goto(f"{platform.url}/#key={platform.key}")
    expect(page).to_have_url(f"{platform.url}/")
    page.get_by_role("link", name="New job").click()
    page.get_by_role("button", name="Progressive distillation").click()
    page.get_by_label("Name", exact=True).fill("journey")
    page.get_by_label("First steps").fill("3")
    expect(page.get_by_label("Stage 1").get_by_role("alert")).to_contain_text("power of two")
    keep("1-form-refuses")
    for label, value in {
        "First steps": "2",
        "Last steps": "1",
        "Rung iterations": "60",
        "Preview every": "10",
        "Checkpoint every": "40",
        "Samples": "100",
    }.items():
        page.get_by_label(label, exact=True).fill(value)
    submit = page.get_by_role("button", name="Submit the job")
    expect(submit).to_be_enabled()
    keep("2-form")
    submit.click()

    expect(page.get_by_role("heading", name="journey")).to_be_visible()
    expect(page).to_have_url(re.compile(r"/jobs/job_"))
    expect(page.locator(".status")).to_contain_text(re.compile("running|finishing|succeeded"), timeout=START)
    teacher = page.locator(".pinned [data-role=teacher] img")
    expect(teacher.first).to_be_visible(timeout=START)
    student = page.locator(".sample-rows > [data-role=student] img").first
    expect(student).to_be_visible(timeout=START)
    newest = page.get_by_test_id("sample-step")
    expect(newest).to_be_visible(timeout=START)  # there is a second grid, so there is a slider
    first_step, first_picture = newest.inner_text(), student.get_attribute("src")
    expect(newest).not_to_have_text(first_step, timeout=FINISH)
    expect(student).not_to_have_attribute("src", str(first_picture))
    expect(page.get_by_role("img", name=re.compile("^Loss over steps"))).to_be_visible()
    expect(page.locator(".log > div").first).to_be_visible()
    keep("3-job-runs")

    expect(page.locator(".status")).to_contain_text("succeeded", timeout=FINISH)
    expect(page.locator(".job-progress .big")).to_have_text("100 %")
    made = page.locator(".linked", has_text=re.compile("1$|1 ?in|-1"))
    expect(page.locator(".linked")).to_have_count(2)
    keep("4-job-succeeded")
    page.get_by_role("link", name="Jobs", exact=True).first.click()
    expect(page.locator(".lane", has_text="journey")).to_contain_text("succeeded")
    keep("5-jobs")
    page.go_back()

    made.last.get_by_role("link").click()
    expect(page.get_by_text("Without Fewstep")).to_be_visible()
    expect(page.locator(".figures-table tr.student")).to_have_count(1)
    assert page.locator(".figures-table tr.teacher").count() >= 2
    expect(page.locator(".plate img")).to_be_visible()
    keep("6-student")
    page.get_by_role("button", name="Deploy").click()
    page.get_by_role("dialog").get_by_label("Endpoint name").fill("journey-digits")
    page.get_by_role("dialog").get_by_role("button", name="Deploy").click()
    card = page.locator("[data-endpoint=journey-digits]")
    expect(card).to_contain_text("ready", timeout=START)
    keep("7-endpoints")

    card.get_by_role("link", name="Play").click()
    page.get_by_role("button", name="3", exact=True).click()
    page.get_by_label("Images").fill("4")
    page.get_by_role("button", name="Generate").click()
    for who in ("student", "teacher"):
        expect(page.locator(f"[data-who={who}] img")).to_have_count(4, timeout=60 * MS)
        sizes = page.locator(f"[data-who={who}] img").evaluate_all("images => images.map(i => i.naturalWidth)")
        assert sizes == [8, 8, 8, 8]
    again = page.locator("[data-who=student] img").first.get_attribute("src")
    page.get_by_role("button", name="Generate").click()
    expect(page.locator(".strip button")).to_have_count(2, timeout=60 * MS)
    assert page.locator("[data-who=student] img").first.get_attribute("src") == again
    keep("8-playground")

    for name, path in {"9-students": "/students", "10-methods": "/methods", "11-teachers": "/teachers"}.items():
        page.goto(platform.url + path)
        expect(page.get_by_text("digits").or_(page.get_by_text("first_steps")).first).to_be_visible()
        keep(name)

    page.goto(f"{platform.url}/endpoints")
    card.get_by_role("button", name="Delete").click()
    card.get_by_role("button", name="Delete journey-digits").click()
    expect(card).to_have_count(0, timeout=START)
