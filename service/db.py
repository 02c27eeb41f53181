"""The database: connections, transactions, the clock and the schema's revision.

`read()` and `write()` are the only ways to a session, and each is one transaction: the caller's block commits by ending
well and rolls back by raising. Nobody below commits.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, event, func, make_url, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from service.columns import Row
from service.settings import Settings

_WRITES = "fewstep_writes"


class SchemaMismatch(Exception):
    """The database's schema is not the one that this version works with; the message says what to do."""


class Database:
    """One engine, on SQLite or PostgreSQL. SQLite serves one control-plane process, PostgreSQL any number."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite and self.url.database:
            Path(self.url.database).parent.mkdir(parents=True, exist_ok=True)
        self._engine = create_async_engine(self.url, pool_pre_ping=not self.is_sqlite)
        self._writer = self._engine.execution_options(**{_WRITES: True})
        # SQLite has one writer; waiting here is fair and wakes at once, where its busy handler sleeps and retries.
        self._one_writer = asyncio.Lock() if self.is_sqlite else nullcontext()
        if self.is_sqlite:
            event.listen(self._engine.sync_engine, "connect", _prepare_sqlite)
            event.listen(self._engine.sync_engine, "begin", _begin_sqlite)

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
        """The clock that all processes share: the database's, or this machine's where SQLite allows one process."""
        if self.is_sqlite:
            return datetime.now(UTC)
        now: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
        return now.astimezone(UTC)

    async def exclusive(self, session: AsyncSession, name: str) -> None:
        """Keep other writers out of the section called `name` until this transaction ends."""
        if not self.is_sqlite:
            await session.execute(select(func.pg_advisory_xact_lock(zlib.crc32(name.encode()))))

    async def revision(self) -> str | None:
        """The schema revision that the database is at; None when it is empty."""
        async with self._engine.connect() as connection:
            return await connection.run_sync(_current_revision)

    async def upgrade(self) -> None:
        """Bring the schema to the newest revision."""
        engine = create_async_engine(self.url, execution_options={_WRITES: True})
        if self.is_sqlite:  # where a table is changed by making it anew, which references to it would forbid
            event.listen(engine.sync_engine, "connect", partial(_prepare_sqlite, references=False))
            event.listen(engine.sync_engine, "begin", _begin_sqlite)
        async with engine.connect() as connection:
            await connection.run_sync(_check_known)
            await connection.run_sync(lambda sync: command.upgrade(_alembic(sync), "head"))
            if self.is_sqlite and (broken := (await connection.exec_driver_sql("PRAGMA foreign_key_check")).all()):
                raise SchemaMismatch(f"The upgrade left rows that refer to nothing, and was undone: {broken[:5]}")
            await connection.commit()
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
    build = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    statement = build(table)
    if update:
        changes = {name: statement.excluded[name] for name in update}
        statement = statement.on_conflict_do_update(index_elements=unique, set_=changes)
    else:
        statement = statement.on_conflict_do_nothing(index_elements=unique)
    await session.execute(statement, rows)


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


def _prepare_sqlite(connection: Any, _record: object, *, references: bool = True) -> None:
    connection.isolation_level = None  # transactions are begun by `_begin_sqlite`, not by the driver
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=30000", f"foreign_keys={references:d}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
