"""Traces with OpenTelemetry, where the extra `fewstep[otel]` is installed and OTEL_EXPORTER_OTLP_ENDPOINT is set.

A trace reaches from the submission into the job: the submission's W3C `traceparent` is stored with the job, put into
the job's environment as TRACEPARENT, and sent with each of its reports. That much holds without the extra too, so that
a caller's trace is not broken where Fewstep itself does not trace.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from importlib.util import find_spec
from typing import Any

from structlog.types import EventDict, WrappedLogger

try:
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    INSTALLED = find_spec("opentelemetry.instrumentation.fastapi") is not None
except ImportError:
    INSTALLED = False

HEADER = "traceparent"
VARIABLE = "TRACEPARENT"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

About = Mapping[str, str | int | float]
"""A span's attributes."""

_FORM = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def wanted(env: Mapping[str, str] = os.environ) -> bool:
    """Whether the operator asks for traces, and the extra is there to make them."""
    off = env.get("OTEL_SDK_DISABLED", "").lower() == "true"
    return INSTALLED and not off and any(env.get(name) for name in ENDPOINTS)


def set_up() -> bool:
    """Send spans where the OTEL_* variables say; whether they are sent. Called once in a process."""
    if not wanted():
        return False
    named = Resource.create({} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: "fewstep"})
    provider = TracerProvider(resource=named)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return True


@contextmanager
def span(name: str, parent: str | None = None, about: About | None = None) -> Iterator[None]:
    """A span around the block, below `parent` (a traceparent) or else below the current span."""
    if not INSTALLED:
        yield
        return
    with trace.get_tracer("fewstep").start_as_current_span(name, _context(parent), attributes=about):
        yield


def record(name: str, parent: str | None, start: datetime, end: datetime, about: About) -> None:
    """A span of something that is over."""
    if not INSTALLED:
        return
    made = trace.get_tracer("fewstep").start_span(name, _context(parent), attributes=about, start_time=_ns(start))
    made.end(_ns(end))


def traceparent(given: str | None = None) -> str | None:
    """The current span, as others are told of it; where there is none, what was `given`, if it is well-formed."""
    if INSTALLED:
        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier)
        if HEADER in carrier:
            return carrier[HEADER]
    return given if given is not None and _FORM.fullmatch(given) else None


def log_ids(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Add the current span's ids to a log line."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event.update(trace_id=f"{context.trace_id:032x}", span_id=f"{context.span_id:016x}")
    return event


def _context(parent: str | None) -> Any:
    return TraceContextTextMapPropagator().extract({HEADER: parent}) if parent else None


def _ns(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000_000)
