"""What an error says of the platform: that the database is full, that it is away, or neither."""

import errno
import sqlite3

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.errors import DatabaseUnavailable, NotReady, StorageFull

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SQLITE_AWAY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
POSTGRES_FULL = "53100"
POSTGRES_AWAY = ("08", "53", "57", "25006")
"""How SQLSTATEs begin: connection lost, too few resources, operator intervened, read-only after a fail-over."""

_FULL = "The database has no space left, so nothing was stored; make room on its disk, then send the same again."
_AWAY = "The database cannot be reached; nothing was stored, send the same again in a moment."


def is_full(error: BaseException) -> bool:
    """Whether a file could not be written for want of space."""
    return isinstance(error, OSError) and error.errno in FULL


def of_database(error: BaseException) -> NotReady | None:
    """The database's error as what the user is told of it; None when the error is another one."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    state = str(getattr(cause, "sqlstate", None) or "")
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
    if state == POSTGRES_FULL or code == sqlite3.SQLITE_FULL or is_full(cause):
        return StorageFull(_FULL)
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    away = state.startswith(POSTGRES_AWAY) or code in SQLITE_AWAY
    if lost or away or isinstance(cause, PoolTimeout | OSError):  # a connection that was never made is an OSError
        return DatabaseUnavailable(_AWAY)
    return None
