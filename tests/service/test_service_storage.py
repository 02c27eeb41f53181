"""The artifact store on S3, over HTTP: read by the control plane, written by jobs, and failing in every way."""

import io
import socket
import tarfile
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
from s3fs import S3FileSystem

from service import storage
from service.dataset_folder import StoredData
from service.dataset_inspection import inspect
from service.errors import DataInvalid, NotFound, StoreUnavailable
from service.storage import Storage
from workers import fetch, machine
from workers import store as job_store
from workers.store import Store, StoreLost, local_folder


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from moto.server import ThreadedMotoServer
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Point the standard variables at an S3 endpoint; its connections are not kept for the next test."""

    def point(url: str) -> None:
        for name, value in {"ENDPOINT_URL": url, "ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        S3FileSystem.clear_instance_cache()

    yield point
    S3FileSystem.clear_instance_cache()


@pytest.fixture
def bucket(s3_server: str, at: Callable[[str], None], request: pytest.FixtureRequest) -> str:
    at(s3_server)
    url = f"s3://{request.node.name.replace('_', '-')[:60]}/store"
    Storage(url).create()
    return url


def test_datasets_are_looked_at_where_there_are_no_folders(bucket: str) -> None:
    """Text is read line by line, tars from header to header, both in the pieces that S3 gives."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in (("0.png", bytes(700_000)), ("0.cls", b"2")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    store = Store(bucket)
    store.put(file.getvalue(), "data/tars/0.tar")
    store.put(file.getvalue()[:600_000], "data/cut/0.tar")
    store.put(b"a fox\n" * 100_000, "data/prompts/p.txt")
    assert inspect(StoredData(Storage(bucket), "data/tars")).classes == ["0", "1", "2"]
    assert inspect(StoredData(Storage(bucket), "data/prompts")).samples == 100_000
    with pytest.raises(DataInvalid, match="ends too early"):
        inspect(StoredData(Storage(bucket), "data/cut"))


def test_what_a_job_writes_the_control_plane_reads(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "FETCHED", tmp_path / "fetched")
    monkeypatch.setattr(fetch, "PIECE", 1_000_000)
    student = tmp_path / "student"
    (student / "unet").mkdir(parents=True)
    (student / "unet" / "weights.safetensors").write_bytes(bytes(3_000_000))
    (student / "model_index.json").write_text("{}")
    written, read = Store(bucket), Storage(bucket)
    assert not read.is_folder("students/a")
    written.put_folder(student, "students/a")
    written.put(b"png", "jobs/x/s.png")
    assert written.json("cache/k.json") is None
    written.put_json({"n": 1}, "cache/k.json")
    assert written.json("cache/k.json") == {"n": 1}
    assert read.exists("students/a/model_index.json")
    assert read.is_folder("students/a")
    assert read.files("students/a") == ["students/a/model_index.json", "students/a/unet/weights.safetensors"]
    assert read.sizes("students/a") == {"model_index.json": 2, "unet/weights.safetensors": 3_000_000}
    assert read.size("students/a/unet/weights.safetensors") == 3_000_000
    assert read.read("jobs/x/s.png") == b"png"
    with zipfile.ZipFile(io.BytesIO(b"".join(read.zip("students/a")))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["model_index.json", "unet/weights.safetensors"]
    folder = local_folder(f"{bucket}/students/a")
    assert sorted(p.name for p in folder.rglob("*") if p.is_file()) == ["model_index.json", "weights.safetensors"]
    assert (folder / "unet/weights.safetensors").read_bytes() == bytes(3_000_000)
    assert local_folder(f"{bucket}/students/a") == folder, "fetched once"
    read.check()
    with pytest.raises(NotFound):
        read.read("nothing/there")


def test_a_missing_bucket_is_said(s3_server: str, at: Callable[[str], None]) -> None:
    at(s3_server)
    with pytest.raises((StoreUnavailable, NotFound)):
        Storage("s3://not-made").check()
    with pytest.raises(StoreLost):
        Store("s3://not-made").put(b"x", "a")


@pytest.fixture
def answers_500(at: Callable[[str], None]) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def _fail(self) -> None:
            self.send_response(500)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _fail

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    at(f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()


@pytest.fixture
def hangs(at: Callable[[str], None]) -> Iterator[None]:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:  # connects, and never answers
        at(f"http://127.0.0.1:{silent.getsockname()[1]}")
        yield


@pytest.mark.parametrize("fault", ["answers_500", "hangs"])
def test_a_store_that_fails_is_given_up_in_time(
    fault: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    request.getfixturevalue(fault)
    for options in (storage.S3, job_store.S3):
        quick = {**options["config_kwargs"], "read_timeout": 0.2, "connect_timeout": 0.2}
        monkeypatch.setitem(options, "config_kwargs", quick)
    monkeypatch.setattr(S3FileSystem, "retries", 2)
    monkeypatch.setattr(job_store, "FIRST_SECONDS", 1.0)
    read = Storage("s3://bucket/store")
    for ask in (read.read, read.is_folder, read.exists, read.files, read.size):
        with pytest.raises(StoreUnavailable, match="try again"):
            ask("jobs/x/s.png")
    with pytest.raises(StoreUnavailable):
        read.check()
    written = Store("s3://bucket/store")
    with pytest.raises(StoreLost):
        written.put(b"png", "jobs/x/s.png")
    (tmp_path / "weights").write_bytes(b"x")
    with pytest.raises(StoreLost):
        written.put_folder(tmp_path, "students/a")
    with pytest.raises(StoreLost):
        written.json("cache/k.json")
    with pytest.raises(StoreLost):
        local_folder("s3://bucket/store/teachers/mine")


def test_the_bounds_on_a_hanging_store_are_what_readiness_and_readers_expect() -> None:
    assert storage.S3["config_kwargs"]["read_timeout"] * storage.S3_TRIES <= 10
    assert job_store.S3["config_kwargs"]["read_timeout"] * 5 <= 150


class FullFileSystem(fsspec.implementations.local.LocalFileSystem):
    """A disk with room for so many bytes."""

    protocol = "fulldisk"
    cachable = False
    room = 0

    def put_file(self, lpath: str, rpath: str, **options: object) -> None:  # type: ignore[override]
        size = Path(lpath).stat().st_size
        if size > self.room:
            Path(rpath).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        FullFileSystem.room -= size
        super().put_file(lpath, rpath, **options)


def test_a_full_disk_loses_the_folder_and_leaves_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, store = tmp_path / "student", Store(f"file://{tmp_path}/store")
    source.mkdir()
    for n in range(3):
        (source / f"{n}.safetensors").write_bytes(bytes(100))
    store.fs = FullFileSystem(auto_mkdir=True)
    monkeypatch.setattr(FullFileSystem, "room", 150)
    with pytest.raises(StoreLost, match="no space left in the store; make room"):
        store.put_folder(source, "students/a")
    assert not (tmp_path / "store/students/a").exists()
    monkeypatch.setattr(FullFileSystem, "room", 10_000)
    store.put_folder(source, "students/a")
    assert len(list((tmp_path / "store/students/a").iterdir())) == 3


def test_a_file_that_does_not_fit_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(f"file://{tmp_path}")
    store.put(b"old", "cache/k.json")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StoreLost, match="no space left"):
        store.put(b"new", "cache/k.json")
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["k.json"]
    assert (tmp_path / "cache/k.json").read_bytes() == b"old"
