"""The reporter against a control plane that loses answers, restarts and changes its mind."""

import json
import threading
import time
from collections.abc import Callable

import httpx
import pytest

from service.observations import AttemptOrder, LogLine, Metrics
from service.spec import JobSpec
from service.status import Wish
from workers.report import BATCH_BYTES, Attempt, Fenced, Refused, Reporter

ENV = {"FEWSTEP_URL": "http://control-plane/", "FEWSTEP_ATTEMPT_ID": "att_1", "FEWSTEP_ATTEMPT_TOKEN": "secret"}


class ControlPlane:
    """Stores observations by number, as the real one does; `mishap` decides what goes wrong with a request."""

    def __init__(self) -> None:
        self.stored: list[dict[str, object]] = []
        self.wish = Wish.RUN
        self.requests: list[httpx.Request] = []
        self.mishap: Callable[[int], int | Exception | None] = lambda _request: None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        mishap = self.mishap(len(self.requests))
        if isinstance(mishap, httpx.ConnectError):
            raise mishap
        if isinstance(mishap, int):
            return httpx.Response(mishap, json={"code": "some_code"})
        if request.method == "GET":
            return httpx.Response(200, content=self.order().model_dump_json())
        for seen in json.loads(request.content)["observations"]:
            if seen["seq"] == len(self.stored) + 1:
                self.stored.append(seen)
            else:
                assert seen["seq"] <= len(self.stored), "a gap"
        if mishap is not None:  # stored, but the answer is lost
            raise mishap
        return httpx.Response(200, json={"acknowledged": len(self.stored), "wish": self.wish})

    def order(self) -> AttemptOrder:
        return AttemptOrder(
            attempt_id="att_1",
            job_id="job_1",
            number=1,
            spec=JobSpec.model_validate({"teacher": "digits", "method": {"kind": "dmd2"}}),
            teacher="digits",
            teacher_source="builtin:digits",
            teacher_sha256="0" * 64,
            store="file:///nowhere",
            folder="jobs/job_1",
            acknowledged=len(self.stored),
            wish=self.wish,
        )

    def attempt(self) -> Attempt:
        return Attempt(ENV, httpx.MockTransport(self))

    def reporter(self) -> Reporter:
        return Reporter(self.attempt(), self.order(), interval=0.01)


@pytest.fixture
def plane() -> ControlPlane:
    return ControlPlane()


def test_everything_arrives_once_and_in_order_whatever_the_network_does(plane: ControlPlane) -> None:
    def mishap(request: int) -> int | Exception | None:
        lost_answer, away = httpx.ReadTimeout("lost"), httpx.ConnectError("away")
        return {0: lost_answer, 1: away, 2: 503, 3: None, 4: lost_answer}.get(request % 6)

    plane.mishap = mishap
    reporter = plane.reporter()
    for step in range(1, 301):
        reporter.add(Metrics, step=step, stage=0, values={"loss": 1 / step})
        if step % 50 == 0:
            time.sleep(0.02)
    reporter.flush(timeout=30)
    assert [seen["step"] for seen in plane.stored] == list(range(1, 301))


def test_a_new_process_of_the_same_attempt_counts_on(plane: ControlPlane) -> None:
    first = plane.reporter()
    first.add(LogLine, message="one")
    first.flush(timeout=5)
    second = Reporter(plane.attempt(), plane.attempt().order(), interval=0.01)
    second.add(LogLine, message="two")
    second.flush(timeout=5)
    assert [seen["seq"] for seen in plane.stored] == [1, 2]


def test_an_order_is_waited_for(plane: ControlPlane) -> None:
    plane.mishap = lambda request: httpx.ConnectError("away") if request < 3 else None
    assert plane.attempt().order().job_id == "job_1"
    assert plane.requests[-1].headers["Authorization"] == "Bearer secret"
    assert str(plane.requests[-1].url) == "http://control-plane/v1/attempts/att_1"


def wait_for_another_wish(reporter: Reporter) -> None:
    deadline = time.monotonic() + 5
    while reporter.wish() is Wish.RUN and time.monotonic() < deadline:
        time.sleep(0.01)


def test_an_idle_reporter_learns_of_a_wish(plane: ControlPlane) -> None:
    reporter = plane.reporter()
    assert reporter.wish() is Wish.RUN
    plane.wish = Wish.CANCEL
    wait_for_another_wish(reporter)
    assert reporter.wish() is Wish.CANCEL


@pytest.mark.parametrize(("status", "error"), [(409, Fenced), (401, Fenced), (404, Fenced), (422, Refused)])
def test_an_unwanted_attempt_hears_it_at_its_next_question(
    plane: ControlPlane, status: int, error: type[Exception]
) -> None:
    plane.mishap = lambda _request: status
    reporter = plane.reporter()
    reporter.add(LogLine, message="too late")
    with pytest.raises(error):
        reporter.flush(timeout=5)
    reporter.add(LogLine, message="training goes on until it asks")
    with pytest.raises(error):
        reporter.wish()


def test_what_is_said_after_the_attempt_was_refused_does_not_count_as_stored(plane: ControlPlane) -> None:
    plane.mishap = lambda _request: 409
    reporter = plane.reporter()
    with pytest.raises(Fenced):
        wait_for_another_wish(reporter)
    reporter.add(LogLine, message="done")
    with pytest.raises(Fenced):
        reporter.flush(timeout=5)
    assert plane.stored == []


def test_flush_returns_although_the_attempt_is_closed_right_after_its_last_word(plane: ControlPlane) -> None:
    plane.mishap = lambda _request: 409 if plane.stored else None
    reporter = plane.reporter()
    reporter.add(LogLine, message="done")
    reporter.flush(timeout=5)
    time.sleep(0.05)
    reporter.flush(timeout=5)


def test_flush_waits_for_a_control_plane_that_is_away(plane: ControlPlane) -> None:
    away = threading.Event()
    plane.mishap = lambda _request: None if away.is_set() else httpx.ConnectError("away")
    reporter = plane.reporter()
    reporter.add(LogLine, message="waits")
    with pytest.raises(TimeoutError):
        reporter.flush(timeout=0.2)
    away.set()
    reporter.flush(timeout=10)
    assert len(plane.stored) == 1


def test_reports_stay_small(plane: ControlPlane) -> None:
    plane.mishap = lambda request: httpx.ConnectError("away") if request < 3 else None
    reporter = plane.reporter()
    for _ in range(700):
        reporter.add(LogLine, message="x" * 4000)
    reporter.flush(timeout=20)
    assert len(plane.stored) == 700
    assert max(len(request.content) for request in plane.requests) < BATCH_BYTES + 5000


def test_what_is_not_a_number_is_sent_as_null(plane: ControlPlane) -> None:
    reporter = plane.reporter()
    reporter.add(Metrics, step=1, stage=0, values={"loss": float("nan"), "grad_norm": 1.0})
    reporter.flush(timeout=5)
    assert plane.stored[0]["values"] == {"loss": None, "grad_norm": 1.0}
