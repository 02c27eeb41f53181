"""API keys and the artifact store."""

import io
import stat
import zipfile
from pathlib import Path

import pytest
from service_fixtures import ClockedDatabase
from sqlalchemy import select

from service import auth
from service.errors import InvalidRequest, NotFound, Unauthorized
from service.projects import DEFAULT
from service.status import Role
from service.storage import Storage
from service.tables import ApiKey


async def test_the_first_key_is_private_and_stored_as_a_hash(db: ClockedDatabase, tmp_path: Path) -> None:
    file = tmp_path / "home" / "api_key"
    async with db.write() as session:
        assert await auth.ensure_first_key(session, file, await db.now(session))
        assert not await auth.ensure_first_key(session, file, await db.now(session))
        key = file.read_text().strip()
        row = (await session.scalars(select(ApiKey))).one()
    assert await auth.Keyring(db).check(key) == auth.Caller(row.id, DEFAULT, Role.ADMIN)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert key not in str(vars(row))
    for wrong in ("", key[:-1], key + "x", key.upper(), row.sha256, "ü\ud800"):
        with pytest.raises(Unauthorized):
            await auth.Keyring(db).check(wrong)


async def test_a_key_that_the_operator_left_is_taken(db: ClockedDatabase, tmp_path: Path) -> None:
    (tmp_path / "api_key").write_text("chosen-by-hand\n")
    async with db.write() as session:
        await auth.ensure_first_key(session, tmp_path / "api_key", await db.now(session))
    assert (await auth.Keyring(db).check("chosen-by-hand")).role is Role.ADMIN


async def test_a_revoked_key_opens_nothing(db: ClockedDatabase, tmp_path: Path) -> None:
    async with db.write() as session:
        await auth.ensure_first_key(session, tmp_path / "api_key", await db.now(session))
        (await session.scalars(select(ApiKey))).one().revoked_at = await db.now(session)
    with pytest.raises(Unauthorized):
        await auth.Keyring(db).check((tmp_path / "api_key").read_text().strip())


OUTSIDE = ["", "/", "/etc/passwd", "..", "a/../../b", "a\\b", "a\0b", "s3://bucket/x", "out/secret", "loop"]


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_path_leads_out_of_the_store(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").write_text("x")
    store = Storage(f"file://{tmp_path}/store")
    (tmp_path / "store" / "out").symlink_to(tmp_path)
    (tmp_path / "store" / "loop").symlink_to("/")
    for ask in (store.read, store.exists, store.is_folder, store.files, store.size, store.url_of):
        with pytest.raises(InvalidRequest, match="outside the store"):
            ask(path)


def test_a_zip_is_made_while_it_is_sent(tmp_path: Path) -> None:
    store = Storage(f"file://{tmp_path}")
    files = {"a.json": b"{}", "deep/er/weights": bytes(5_000_000), "empty": b""}
    for name, content in files.items():
        (tmp_path / "student" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "student" / name).write_bytes(content)
    pieces = list(store.zip("student"))
    assert max(len(piece) for piece in pieces) < 1_100_000
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == files
    with pytest.raises(NotFound):
        store.read("nothing")


def test_any_file_system_will_do() -> None:
    store = Storage("memory://store")
    store._fs.pipe("/store/jobs/x/a.png", b"png")
    assert store.read("jobs/x/a.png") == b"png"
    assert store.files("jobs") == ["jobs/x/a.png"]
    assert store.is_folder("jobs/x")
    assert store.url_of("jobs/x") == "memory://store/jobs/x"
