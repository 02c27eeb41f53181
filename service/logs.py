"""Logs: structured lines on standard error, with the ids of the request or job that they are about.

Whoever binds `request_id`, `job_id` or `attempt_id` (structlog.contextvars) has them on every line logged inside.
"""

import logging
import re
import sys
from collections.abc import Sequence
from typing import Any

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from service.settings import redacted

_SECRET = re.compile(r"(?i)(^|_)(authorization|token|secret|password|key)$")
_SERVER = ("uvicorn", "uvicorn.error")


def configure_logging(more: Sequence[Processor] = ()) -> None:
    """One line for each event: for people on a terminal, JSON everywhere else; other libraries' warnings as well.

    `more` adds to each event, before it is written.
    """
    terminal = sys.stderr.isatty()
    about: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        *more,
        _without_secrets,
    ]
    written: list[Processor] = [
        *([] if terminal else [structlog.processors.format_exc_info]),
        structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer(),
    ]
    structlog.configure(
        processors=[*about, *written],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    foreign = structlog.stdlib.ProcessorFormatter(processors=[meta, *written], foreign_pre_chain=about)
    root = logging.getLogger()
    for handler in [one for one in root.handlers if isinstance(one, _Lines)]:
        root.removeHandler(handler)
    root.addHandler(_Lines(foreign))
    for name in _SERVER:  # the server's own handlers write plain text
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    access = logging.getLogger("uvicorn.access")  # says less than our own line for each request
    access.handlers.clear()
    access.propagate = False


class _Lines(logging.StreamHandler[Any]):
    """What other libraries log, in our form."""

    def __init__(self, form: logging.Formatter) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(form)


def _without_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """The last line of defence: nothing should log a secret, and what is called like one is starred."""
    for name, value in event.items():
        if _SECRET.search(name):
            event[name] = "***"
        elif isinstance(value, str) and "://" in value:
            event[name] = redacted(value)
    return event
