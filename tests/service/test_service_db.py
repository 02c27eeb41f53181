"""The schema and its transactions, on both databases."""

import asyncio

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from service_fixtures import ClockedDatabase
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError

from service.columns import Row
from service.db import Database, SchemaMismatch, head_revision, insert_once
from service.ids import is_id, new_id
from service.platform_tables import Secret
from service.tables import Teacher

OUTLIVED = {"idempotency_keys"}
"""Tables that the code before this version still uses while both run; a later migration drops them."""


async def test_the_migrations_lead_to_the_tables(db: ClockedDatabase) -> None:
    async with db.read() as session:
        connection = await session.connection()
        # Defaults that only the code of an older version needs are the database's alone.
        options = {"compare_type": True, "include_name": lambda name, kind, _: kind != "table" or name not in OUTLIVED}
        found = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync, opts=options), Row.metadata)
        )
        assert found == []
        names = await connection.run_sync(lambda sync: set(inspect(sync).get_table_names()))
    assert names == {*Row.metadata.tables, *OUTLIVED, "alembic_version"}


async def test_a_schema_from_the_future_is_refused(db: ClockedDatabase) -> None:
    async with db.write() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaMismatch, match="9999"):
        await db.open()
    with pytest.raises(SchemaMismatch, match="9999"):
        await db.upgrade()


async def test_an_empty_postgres_is_not_migrated_behind_the_operators_back(db: ClockedDatabase) -> None:
    assert await db.revision() == head_revision()
    if db.is_sqlite:
        return
    async with db.write() as session:
        await session.execute(text("DELETE FROM alembic_version"))
    with pytest.raises(SchemaMismatch, match="fewstep db upgrade"):
        await db.open()


async def test_upgrading_twice_changes_nothing(db: ClockedDatabase) -> None:
    await db.upgrade()
    assert await db.revision() == head_revision()


async def test_the_database_itself_refuses_an_unknown_status(db: ClockedDatabase, digits: object) -> None:
    insert = """
        INSERT INTO jobs (id, teacher_id, teacher, methods, spec, max_failures, total_steps, created_at, wish,
            wished_at, retries_asked, status, reason, detail, attempt, failures, losses, retries_done, updated_at,
            step, last_event, last_log)
        VALUES ('job_x', (SELECT id FROM teachers), 'digits', ' dmd2 ', '{}', 0, 1, '2026-01-01', 'run',
            '2026-01-01', 0, 'asleep', 'submitted', '', 0, 0, 0, 0, '2026-01-01', 0, 0, 0)
    """
    with pytest.raises(IntegrityError, match=r"(?i)check"):
        async with db.write() as session:
            await session.execute(text(insert))
    async with db.write() as session:
        await session.execute(text(insert.replace("asleep", "queued")))


async def test_what_was_there_before_there_were_families(db: ClockedDatabase) -> None:
    """Rows as code of revision 0002 writes them; the same defaults fill those that the migration finds."""
    insert = """
        INSERT INTO teachers (id, name, source, pipeline, scheduler, prediction_type, image_size, parameters, sha256,
            created_at)
        VALUES ('tea_x', 'digits', '', '', '', '', '[1, 8, 8]', 1, '', '2026-01-01')
    """
    async with db.write() as session:
        await session.execute(text(insert))
    async with db.read() as session:
        found = await session.get_one(Teacher, "tea_x")
    assert (found.family, found.text) == ("unet2d", False)


async def test_foreign_keys_hold(db: ClockedDatabase) -> None:
    with pytest.raises(IntegrityError):
        async with db.write() as session:
            await session.execute(text("INSERT INTO checkpoints VALUES ('job_none', 1, '2026-01-01', 1, 'path', 1)"))


async def test_a_failed_block_leaves_nothing(db: ClockedDatabase) -> None:
    async def write() -> None:
        async with db.write() as session:
            session.add(Secret(name="a", value="b"))
            await session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await write()
    async with db.read() as session:
        assert await session.get(Secret, "a") is None


async def test_insert_once_leaves_or_updates(db: ClockedDatabase) -> None:
    async with db.write() as session:
        for value in ("first", "second"):
            await insert_once(session, Secret, [{"name": "kept", "value": value}], ["name"])
            await insert_once(session, Secret, [{"name": "new", "value": value}], ["name"], update=["value"])
    async with db.read() as session:
        kept, new = await session.get(Secret, "kept"), await session.get(Secret, "new")
    assert kept is not None
    assert new is not None
    assert (kept.value, new.value) == ("first", "second")


async def test_many_writers_lose_no_update(db: ClockedDatabase) -> None:
    other = Database(db.url.render_as_string(hide_password=False))
    async with db.write() as session:
        session.add(Secret(name="count", value="0"))

    async def add(database: Database) -> None:
        async with database.write() as session:
            await database.exclusive(session, "count")
            value = (await session.execute(text("SELECT value FROM secrets WHERE name = 'count'"))).scalar_one()
            await session.execute(text(f"UPDATE secrets SET value = '{int(value) + 1}' WHERE name = 'count'"))

    await asyncio.gather(*(add(database) for _ in range(10) for database in (db, other)))
    await other.close()
    async with db.read() as session:
        assert (await session.execute(text("SELECT value FROM secrets WHERE name = 'count'"))).scalar_one() == "20"


def test_ids_sort_by_birth_and_carry_their_prefix() -> None:
    made = [new_id("job") for _ in range(1000)]
    assert made == sorted(set(made))
    assert all(is_id(one, "job") for one in made)
    assert not is_id(made[0], "stu")
    assert not is_id("job_", "job")
    assert not is_id(made[0] + "\0", "job")
