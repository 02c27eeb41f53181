"""What the platform shows of itself: health, metrics, logs, traces and settings; and what it answers when it cannot."""

import asyncio
import io
import json
import logging
import re
import subprocess
import sys
import time
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_fixtures import SPEC, Server
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import select
from typer.testing import CliRunner

from api.cli import app as cli
from service import tracing
from service.logs import configure_logging
from service.meters import LIVE, Meters
from service.settings import Settings, WrongSetting, load, redacted, shown
from service.status import Reason, Status
from service.storage import Storage
from service.tables import Job
from workers.report import Attempt as AttemptClient

WORDS = {
    "status": {*(s.value for s in LIVE), *map(str, range(200, 600))},
    "to": {s.value for s in Status},
    "reason": {r.value for r in Reason},
    "method": {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"},
    "outcome": {"delivered", "failed", "dead"},
}


async def series(server: Server) -> dict[str, Any]:
    text = (await server.http.get("/metrics")).text
    return {family.name: family for family in text_string_to_metric_families(text)}


async def test_metrics_count_a_jobs_life_and_no_label_is_an_id(server: Server) -> None:
    job = await server.submit()
    repeat = {"Idempotency-Key": "once"}
    for _ in range(2):
        await server.http.post("/v1/jobs", json=SPEC, headers=repeat)
    await server.http.get(f"/v1/jobs/{job['id']}")
    await server.http.request("F00", "/nowhere/job_123")
    await server.tick()
    found = await series(server)
    values = {
        (sample.name, *sorted(sample.labels.items())): sample.value for one in found.values() for sample in one.samples
    }
    moved = "fewstep_job_transitions_total"
    assert values[moved, ("reason", "submitted"), ("to", "queued")] == 2  # a repeat is no second job
    assert values[moved, ("reason", "dispatched"), ("to", "starting")] == 2
    assert values[("fewstep_queue_wait_seconds_count",)] == 2
    assert values["fewstep_jobs", ("status", "starting")] == 2
    assert values[("fewstep_reconcile_tick_seconds_count",)] >= 1
    assert {
        "fewstep_queue_oldest_seconds",
        "fewstep_reconcile_lag_seconds",
        "fewstep_lease_expiries",
        "fewstep_event_loop_lag_seconds",
        "fewstep_gpu_seconds",
        "fewstep_webhook_attempts",
        "fewstep_sse_clients",
        "fewstep_http_requests",
        "fewstep_http_request_seconds",
    } <= set(found)
    routes = {*server.app.openapi()["paths"], "/metrics", "/{path:path}", "other"}
    for family in found.values():
        for sample in family.samples:
            for label, value in sample.labels.items():
                if label == "route":
                    assert value in routes, sample
                elif label != "le":
                    assert value in WORDS[label], sample


async def test_the_event_loops_lag_is_measured() -> None:
    meters = Meters()
    watch = asyncio.create_task(meters.watch_loop())
    await asyncio.sleep(0.05)
    time.sleep(0.6)  # somebody blocks the loop
    await asyncio.sleep(0.3)
    watch.cancel()
    assert (meters.registry.get_sample_value("fewstep_event_loop_lag_seconds_sum") or 0) > 0.2


async def test_streams_are_counted_while_they_are_open(server: Server) -> None:
    job = await server.submit()
    gauge = server.behind.meters.registry.get_sample_value
    async with asyncio.timeout(20):
        headers = {"Accept": "text/event-stream"}
        reading = asyncio.create_task(server.http.get(f"/v1/jobs/{job['id']}/events", headers=headers))
        while gauge("fewstep_sse_clients") != 1:
            await asyncio.sleep(0.02)
        await server.http.post(f"/v1/jobs/{job['id']}/cancel")
        await server.tick()
        await reading
    assert gauge("fewstep_sse_clients") == 0


async def test_without_the_database_the_process_is_alive_and_says_what_is_wrong(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone:
        def __getattr__(self, name: str) -> Any:
            raise ConnectionRefusedError(111, "refused")

    monkeypatch.setattr(server.behind, "db", Gone())
    took = []
    for _ in range(10):
        start = time.perf_counter()
        assert (await server.http.get("/healthz")).status_code == 200
        took.append(time.perf_counter() - start)
    assert min(took) < 0.1  # on a machine that is busy with other tests
    ready = await server.http.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["checks"]["database"].startswith("unreachable")
    assert ready.json()["checks"]["store"] == "ok"
    refused = await server.http.post("/v1/jobs", json=SPEC)
    assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")
    assert refused.headers["retry-after"]
    assert refused.headers["content-type"] == "application/problem+json"
    assert (await server.http.get("/metrics")).status_code == 200  # stale, but there


async def test_readiness_waits_for_nobody(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never() -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr("api.health.PATIENCE", 0.2)
    monkeypatch.setattr(server.behind.db, "revision", never)
    monkeypatch.setattr(server.behind.cluster, "jobs", never)
    monkeypatch.setattr(server.behind, "store", Storage("memory://nowhere"))
    start = time.perf_counter()
    ready = await server.http.get("/readyz")
    assert time.perf_counter() - start < 3
    checks = ready.json()["checks"]
    assert checks["database"] == checks["cluster"] == "no answer within 0.2 s"
    assert ready.status_code == 503


async def test_a_store_that_fails_is_a_503_that_says_so(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("500 from S3")

    monkeypatch.setattr(server.behind.store._fs, "isdir", broken)
    answer = await server.http.post("/v1/teachers", json={"name": "mine", "source": "teachers/mine"})
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
    assert "try again" in answer.json()["detail"]


@pytest.fixture
def lines() -> Any:
    """What is logged, line by line as JSON."""
    written = io.StringIO()
    with redirect_stderr(written):
        configure_logging()
        yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]
    configure_logging()


async def test_every_line_of_a_request_has_its_id_and_of_a_job_the_jobs(lines: Any, server: Server) -> None:
    answer = await server.http.post("/v1/jobs", json=SPEC, headers={"X-Request-Id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    strange = await server.http.get("/v1/nothing", headers={"X-Request-Id": "a b\tc"})
    assert strange.headers["x-request-id"].startswith("req_")
    await server.tick()
    await server.tick()
    logging.getLogger("some.library").warning("it happened at %s", "http://u:pw@host/x")
    found = lines()
    asked = [line for line in found if line["event"] == "request"]
    assert all(line["request_id"] for line in asked)
    assert "mine-1" in {line["request_id"] for line in asked}
    about = [line for line in found if line["event"].startswith("reconcile.") and "submission_id" in line]
    assert about
    job = answer.json()["id"]
    assert all(line["job_id"] == job and line["attempt_id"].startswith("att_") for line in about)
    (foreign,) = [line for line in found if line["event"].startswith("it happened")]
    assert "pw" not in foreign["event"]


async def test_secrets_are_never_logged(lines: Any, server: Server) -> None:
    key = server.http.headers["authorization"].removeprefix("Bearer ")
    job = await server.submit()
    await server.tick()
    async with await server.attempt(job["id"]) as attempt:
        token = attempt.headers["authorization"].removeprefix("Bearer ")
        await attempt.get("")
        await attempt.post("/reports", json={"observations": [{"seq": 5}]})
    wrong = {"Authorization": "Bearer fsk_wrong-but-secret"}
    await server.http.get("/v1/jobs", headers=wrong)
    await server.http.get("/v1/jobs", params={"teacher": "x" * 500})
    text = json.dumps(lines())
    assert len(text) > 200
    assert not [secret for secret in (key, token, "wrong-but-secret") if secret in text]


PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_a_trace_reaches_from_the_submit_into_the_job(server: Server) -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    provider, spans = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    before = trace._TRACER_PROVIDER
    trace._TRACER_PROVIDER = provider
    try:
        await server.http.post("/v1/jobs", json=SPEC)
        await server.tick()
        async with await server.attempt((await server.http.get("/v1/jobs")).json()["data"][0]["id"]) as attempt:
            failed = {"seq": 1, "at": time.time(), "type": "failure", "reason": "training_error", "message": "x"}
            await attempt.post("/reports", json={"observations": [failed]})
        await server.tick()
    finally:
        trace._TRACER_PROVIDER = before
    by_name = {span.name: span for span in spans.get_finished_spans() if span.name.startswith("job.")}
    assert set(by_name) == {"job.submit", "job.dispatch", "job.attempt"}
    assert len({span.context.trace_id for span in by_name.values()}) == 1
    env = server.cluster.started[0].env
    assert env["TRACEPARENT"].split("-")[1] == f"{by_name['job.submit'].context.trace_id:032x}"
    asked: list[httpx.Request] = []
    transport = httpx.MockTransport(lambda request: asked.append(request) or httpx.Response(503))
    AttemptClient(env, transport).report(b"{}")
    assert asked[0].headers["traceparent"] == env["TRACEPARENT"]


@pytest.mark.parametrize("given", [PARENT, "junk", "00-" + "0" * 32 + "-b7ad6b7169203331-01"])
async def test_without_the_extra_a_callers_trace_is_passed_on(
    given: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "INSTALLED", False)
    await server.http.post("/v1/jobs", json=SPEC, headers={"traceparent": given})
    await server.tick()
    expected = PARENT if given == PARENT else None
    async with server.behind.db.read() as session:
        assert await session.scalar(select(Job.traceparent)) == expected
    assert server.cluster.started[0].env.get("TRACEPARENT") == expected


def test_traces_are_sent_only_where_the_operator_says_where() -> None:
    assert not tracing.wanted({})
    assert tracing.wanted({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"})
    assert not tracing.wanted({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"})


def test_the_api_starts_without_the_extra() -> None:
    code = (
        "import sys; sys.modules['opentelemetry.exporter'] = None; import api.app, service.tracing as t;"
        "assert not t.INSTALLED and not t.set_up(); t.traceparent(); print('fine')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.strip() == "fine", done.stderr


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for name in __import__("os").environ if name.startswith("FEWSTEP_")]:
        monkeypatch.delenv(name)
    return monkeypatch


def test_settings_come_from_variables_and_files(no_variables: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql+asyncpg://me:s3cret@db/fewstep\n")
    (tmp_path / "key").write_text("gate")
    no_variables.setenv("FEWSTEP_DATABASE_URL_FILE", str(tmp_path / "url"))
    no_variables.setenv("FEWSTEP_GATEWAY_KEY_FILE", str(tmp_path / "key"))
    no_variables.setenv("FEWSTEP_RAY_TOKEN", "ray-secret")
    no_variables.setenv("FEWSTEP_URL", "http://x")  # a client's
    settings = load()
    assert settings.database_url.endswith("s3cret@db/fewstep")
    assert settings.gateway_key.get_secret_value() == "gate"
    found = {one.name: one for one in shown(settings)}
    assert len(found) == len(Settings.model_fields)
    assert found["FEWSTEP_DATABASE_URL"].source == f"file {tmp_path / 'url'}"
    assert found["FEWSTEP_RAY_TOKEN"].source == "environment FEWSTEP_RAY_TOKEN"
    assert found["FEWSTEP_PORT"].source == "default"
    printed = CliRunner().invoke(cli, ["settings"]).output
    assert "postgresql+asyncpg://me:***@db/fewstep" in printed
    assert not [secret for secret in ("s3cret", "gate\n", "ray-secret") if secret in printed]


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"FEWSTEP_PROT": "1"}, "FEWSTEP_PROT: no such setting; did you mean FEWSTEP_PORT?"),
        ({"FEWSTEP_PORT": "1", "FEWSTEP_PORT_FILE": "/x"}, "FEWSTEP_PORT and FEWSTEP_PORT_FILE are both set"),
        ({"FEWSTEP_RAY_TOKEN_FILE": "/not/there"}, "FEWSTEP_RAY_TOKEN_FILE names /not/there, which cannot be read"),
        ({"FEWSTEP_PORT": "http"}, "FEWSTEP_PORT: Input should be a valid integer"),
    ],
)
def test_wrong_settings_are_named(variables: dict[str, str], says: str, no_variables: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        no_variables.setenv(name, value)
    with pytest.raises(WrongSetting, match=re.escape(says)):
        load()
    assert CliRunner().invoke(cli, ["settings"]).exit_code == 1


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://me:p@ss/w:rd@db/x", "postgresql://me:***@db/x"),
        ("postgresql://db/x?user=me&password=abc&ssl=1", "postgresql://db/x?user=me&password=***&ssl=1"),
        ("http://127.0.0.1:8265", "http://127.0.0.1:8265"),
    ],
)
def test_passwords_in_urls_are_starred(url: str, expected: str) -> None:
    assert redacted(url) == expected
