"""The database: connections, transactions, the clock and the schema's revision.

`read()` and `write()` are the only ways to a session, and each is one transaction: the caller's block commits by ending
well and rolls back by raising. Nobody below commits.
"""

import asyncio
import hashlib
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, cast

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from pydantic_core import from_json, to_json
from sqlalchemy import (
    BigInteger,
    Connection,
    Engine,
    Insert,
    Select,
    Table,
    bindparam,
    event,
    func,
    insert,
    literal_column,
    make_url,
    select,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.exc import IntegrityError, InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from service import sqlite
from service.columns import Row
from service.settings import Settings

CONNECTIONS = 16
"""Of one process at most, all kept: more would not be quicker, and a new one costs as much as ten transactions."""

RESTED_SECONDS = 5.0
"""A PostgreSQL connection that lay idle for longer is tried before it is used."""

CLOCK_SECONDS = 1.0
"""How long this process counts on from what the database's clock showed."""

LATE_SECONDS = 0.02
"""An answer that took longer says what the time was, and is good for one use."""

_CLOCK = select(func.clock_timestamp())
_LOCK = select(func.pg_advisory_xact_lock(bindparam("lock", type_=BigInteger)))

TRY_LOCK = func.pg_try_advisory_xact_lock(bindparam("lock", type_=BigInteger))
"""A column of PostgreSQL's: whether the section with this number was free, and is now this transaction's."""


class SchemaMismatch(Exception):
    """The database's schema is not the one that this version works with; the message says what to do."""


class Database:
    """One engine, on SQLite or PostgreSQL. SQLite serves one control-plane process, PostgreSQL any number."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._clock = (datetime.min.replace(tzinfo=UTC), -math.inf)
        if self.is_sqlite and self.url.database:
            Path(self.url.database).parent.mkdir(parents=True, exist_ok=True)
        connect = {"async_creator_fn": sqlite.connect} if self.is_sqlite else {}
        quick: dict[str, Any] = {"json_serializer": _json, "json_deserializer": from_json}
        size: dict[str, Any] = {"pool_size": CONNECTIONS, "max_overflow": 0}
        self._engine = create_async_engine(self.url, connect_args=connect, **size, **quick)
        self._writer = self._engine.execution_options(**{sqlite.WRITES: True})
        # SQLite has one writer; waiting here is fair and wakes at once, where its busy handler sleeps and retries.
        self._one_writer = asyncio.Lock() if self.is_sqlite else nullcontext()
        if self.is_sqlite:
            event.listen(self._engine.sync_engine, "connect", sqlite.prepare)
            event.listen(self._engine.sync_engine, "begin", sqlite.begin)
        else:
            _try_rested(self._engine.sync_engine)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A transaction that only reads."""
        async with AsyncSession(self._engine, expire_on_commit=False) as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """A transaction that writes; on SQLite the only one at its time."""
        async with self._one_writer, AsyncSession(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    async def now(self, session: AsyncSession) -> datetime:
        """The clock that all processes share: the database's, or this machine's where SQLite allows one process.

        Between two questions to the database, a second apart, this process counts on by itself; it never looks at the
        machine's own time of day.
        """
        if self.is_sqlite:
            return datetime.now(UTC)
        told, at = self._clock
        if (asked := time.monotonic()) - at > CLOCK_SECONDS:
            told = (await session.execute(_CLOCK)).scalar_one().astimezone(UTC)
            at = time.monotonic()
            if at - asked < LATE_SECONDS:
                self._clock = told, at
        return told + timedelta(seconds=time.monotonic() - at)

    async def exclusive(self, session: AsyncSession, name: str) -> None:
        """Keep other writers out of the section called `name` until this transaction ends."""
        if not self.is_sqlite:
            await session.execute(_LOCK, {"lock": lock_number(name)})

    async def try_exclusive(self, session: AsyncSession, name: str) -> bool:
        """As `exclusive`, but False instead of waiting when another transaction is in the section."""
        if self.is_sqlite:
            return True
        connection = await session.connection()
        return bool((await connection.execute(select(TRY_LOCK), {"lock": lock_number(name)})).scalar_one())

    async def revision(self) -> str | None:
        """The schema revision that the database is at; None when it is empty."""
        async with self._engine.connect() as connection:
            return await connection.run_sync(_current_revision)

    async def upgrade(self) -> None:
        """Bring the schema to the newest revision."""
        engine = create_async_engine(self.url, execution_options={sqlite.WRITES: True})
        if self.is_sqlite:  # where a table is changed by making it anew, which references to it would forbid
            event.listen(engine.sync_engine, "connect", partial(sqlite.prepare, references=False))
            event.listen(engine.sync_engine, "begin", sqlite.begin)
        try:
            async with engine.connect() as connection:
                await connection.run_sync(_check_known)
                await connection.run_sync(lambda sync: command.upgrade(_alembic(sync), "head"))
                if self.is_sqlite and (broken := (await connection.exec_driver_sql("PRAGMA foreign_key_check")).all()):
                    raise SchemaMismatch(f"The upgrade left rows that refer to nothing, and was undone: {broken[:5]}")
                await connection.commit()
        finally:
            await engine.dispose()

    async def open(self) -> None:
        """Make sure of the schema: SQLite is upgraded, PostgreSQL must already be at the newest revision."""
        if self.is_sqlite:
            await self.upgrade()
        elif (revision := await self.revision()) != head_revision():
            raise SchemaMismatch(
                f"The database is at revision {revision or 'none'}, and this version needs {head_revision()}: "
                "run `fewstep db upgrade`, or start the version that fits."
            )

    async def close(self) -> None:
        await self._engine.dispose()


async def insert_once(
    session: AsyncSession,
    table: type[Row],
    rows: Sequence[dict[str, Any]],
    unique: Sequence[str],
    update: Sequence[str] = (),
) -> None:
    """Insert rows; where one with the same `unique` columns exists, leave it, or overwrite its `update` columns."""
    if not rows:
        return
    connection = await session.connection()
    statement = _insert_once(table, tuple(unique), tuple(update), connection.dialect.name == "sqlite")
    await connection.execute(statement, rows)


@cache
def _insert_once(table: type[Row], unique: tuple[str, ...], update: tuple[str, ...], on_sqlite: bool) -> Insert:
    statement = (sqlite_dialect.insert if on_sqlite else postgresql.insert)(cast(Table, table.__table__))
    if update:
        changes = {name: statement.excluded[name] for name in update}
        return statement.on_conflict_do_update(index_elements=unique, set_=changes)
    return statement.on_conflict_do_nothing(index_elements=unique)


def row_values(row: Row) -> dict[str, Any]:
    """The columns of a new object that no session need know; its table's defaults are filled in."""
    for column in row.__table__.columns:
        if column.default is not None and getattr(row, column.key) is None:
            setattr(row, column.key, column.default.arg)
    return {column.key: getattr(row, column.key) for column in row.__table__.columns}


NewRow = tuple[type[Row], dict[str, Any]]
"""A row to be inserted: its table, and all of its columns."""

TOGETHER = 12
"""Rows that one statement inserts at most: each combination of tables is a statement of its own, which is kept."""


async def insert_together(session: AsyncSession, rows: Sequence[NewRow]) -> None:
    """Insert a few rows of several tables; PostgreSQL is asked once for all of them, and not once for each table."""
    connection = await session.connection()
    if connection.dialect.name == "sqlite" or not 1 < len(rows) <= TOGETHER:
        for table, values in rows:
            await connection.execute(_insert_into(table), values)
        return
    statement = _insert_together(tuple((table, tuple(values)) for table, values in rows))
    values = {_name(i, key): value for i, (_, row) in enumerate(rows) for key, value in row.items()}
    await connection.execute(statement, values)


@lru_cache(1_000)
def _insert_together(rows: tuple[tuple[type[Row], tuple[str, ...]], ...]) -> Select[Any]:
    statement: Select[Any] = select(literal_column("1"))
    for i, (table, keys) in enumerate(rows):
        columns = cast(Table, table.__table__).columns
        values = {key: bindparam(_name(i, key), type_=columns[key].type) for key in keys}
        statement = statement.add_cte(_insert_into(table).values(values).cte(f"row_{i}"))
    return statement


def _name(i: int, key: str) -> str:
    return f"row_{i}_{key}"


@cache
def _insert_into(table: type[Row]) -> Insert:
    return insert(cast(Table, table.__table__))


def lock_number(name: str) -> int:
    """The number that PostgreSQL is to know a section by."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)


def is_duplicate(error: IntegrityError, table: type[Row] | None = None) -> bool:
    """Whether a row, of `table` if one is given, was refused because one with the same unique columns is there."""
    refused = getattr(error.orig, "sqlstate", "") == "23505" or "UNIQUE constraint failed" in str(error.orig)
    return refused and (table is None or table.__tablename__ in str(error.orig).splitlines()[0])


def upgrade(settings: Settings) -> None:
    """Bring the configured database to the newest revision: what `fewstep db upgrade` does."""

    async def run() -> None:
        db = Database(settings.resolved_database_url())
        try:
            await db.upgrade()
        finally:
            await db.close()

    asyncio.run(run())


def head_revision() -> str:
    """The newest schema revision that this version knows."""
    head = ScriptDirectory.from_config(_alembic()).get_current_head()
    assert head is not None
    return head


def _json(value: Any) -> str:
    return to_json(value).decode()


def _alembic(connection: Connection | None = None) -> Config:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


def _current_revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _check_known(connection: Connection) -> None:
    revision = _current_revision(connection)
    known = {script.revision for script in ScriptDirectory.from_config(_alembic()).walk_revisions()}
    if revision is not None and revision not in known:
        raise SchemaMismatch(
            f"The database is at revision {revision}, which this version of Fewstep does not know: start a newer one."
        )


def _try_rested(engine: Engine) -> None:
    """Hand out no connection that the server has closed. asyncio tells of most; silence, of those that rested, a ping.

    The pool's own `pre_ping` asks the server three times before each transaction, which is dearer than the transaction.
    """
    dialect = engine.dialect
    assert dialect.dbapi is not None
    failure = dialect.dbapi.Error

    def rest(_connection: object, record: Any) -> None:
        record.info["rests_since"] = time.monotonic()

    def wake(connection: Any, record: Any, _proxy: object) -> None:
        try:
            if connection.driver_connection.is_closed():
                raise InvalidatePoolError
            if time.monotonic() - record.info.get("rests_since", time.monotonic()) > RESTED_SECONDS:
                dialect.do_ping(connection)
        except failure as error:
            raise InvalidatePoolError from error

    event.listen(engine, "checkin", rest)
    event.listen(engine, "checkout", wake)
