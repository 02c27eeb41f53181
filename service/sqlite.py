"""SQLite's manners: its settings, its transactions, and statements that run where they are asked for.

aiosqlite hands each call to a thread, four calls to a statement, and the way there and back takes ten times as long as
what SQLite does there: a submission spent four fifths of its time on it. So a statement runs at once, in the event
loop, which it holds up for microseconds. What may wait for the disk or for another process, a commit and the begin of a
write, goes to the thread.
"""

import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any

import aiosqlite
from sqlalchemy import Connection

WRITES = "fewstep_writes"
"""Execution option of connections whose transactions write."""

_BEGIN_WRITE = "BEGIN IMMEDIATE"


class DirectConnection(aiosqlite.Connection):
    """Runs in the event loop whatever does not wait."""

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        connection = self._conn
        if fn == connection.commit or fn == connection.close or _BEGIN_WRITE in args[:1]:
            return await super()._execute(fn, *args, **kwargs)  # type: ignore[no-untyped-call]
        return fn(*args, **kwargs)


def connect(*args: Any, **kwargs: Any) -> DirectConnection:
    """What SQLAlchemy awaits to get a connection."""
    return DirectConnection(partial(sqlite3.connect, *args, **{**kwargs, "check_same_thread": False}), 64)


def prepare(connection: Any, _record: object, *, references: bool = True) -> None:
    """Settings of a new connection. `synchronous=FULL`: what was answered outlives a power cut."""
    connection.isolation_level = None  # transactions are begun by `begin`, not by the driver
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000", f"foreign_keys={references:d}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def begin(connection: Connection) -> None:
    """A transaction that writes takes its turn at once, not at its first write."""
    connection.exec_driver_sql(_BEGIN_WRITE if connection.get_execution_options().get(WRITES) else "BEGIN")
