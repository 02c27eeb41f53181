"""A mirror of the hub in its layout, on a port of this machine: folders served as repositories."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import huggingface_hub
import pytest

from workers import hub

LARGE = (".safetensors", ".parquet", ".tar")
"""Files that are large ones to git, whatever their size."""


@dataclass
class Repository:
    """A folder as a repository with one commit on its main branch; `gated` is the token that may read its files."""

    folder: Path
    gated: str | None = None

    @property
    def commit(self) -> str:
        """Of the files as they are now."""
        digest = hashlib.sha1()
        for name in self.files():
            digest.update(name.encode() + (self.folder / name).read_bytes())
        return digest.hexdigest()

    def files(self) -> list[str]:
        return sorted(file.relative_to(self.folder).as_posix() for file in self.folder.rglob("*") if file.is_file())

    def entry(self, name: str) -> dict[str, Any]:
        """What the hub says of one file."""
        content = (self.folder / name).read_bytes()
        said: dict[str, Any] = {"size": len(content), "oid": hashlib.sha1(content).hexdigest()}
        if name.endswith(LARGE):
            said["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return said


@dataclass
class Mirror:
    """The mirror's address, its repositories by name ("datasets/org/name" are datasets), and what it was asked for."""

    url: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)
    """By file: bytes that were given out."""
    broken: bool = False
    whole: bool = False
    """Whether it answers a range with the whole file, as some do."""


@contextmanager
def mirror() -> Iterator[Mirror]:
    """Serve until the block is left."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    served = Mirror(f"http://127.0.0.1:{server.server_address[1]}")
    server.mirror = served  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ask(served: Mirror, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers in this process ask the mirror, without a token, and keep what they get in `folder`."""
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(folder / "none"))
    monkeypatch.setattr(hub, "LINKS", folder / "links")
    monkeypatch.delenv("HF_TOKEN", raising=False)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        mirror: Mirror = self.server.mirror  # type: ignore[attr-defined]
        url = urlsplit(self.path)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        if mirror.broken:
            return self._send(507)  # one that clients do not try again
        api = parts[0] == "api"
        parts = parts[1:] if api else parts
        dataset = parts[0] == "datasets"
        parts = parts[1:] if api or dataset else parts
        name = ("datasets/" if dataset else "") + "/".join(parts[:2])
        repository = mirror.repositories.get(name)
        if repository is None:
            return self._send(401, {"X-Error-Code": "RepoNotFound"})
        what, revision, *rest = parts[2:] or ("revision", "main")
        if revision not in ("main", "v1/fine", repository.commit):
            return self._send(404, {"X-Error-Code": "RevisionNotFound"})
        if api and what == "revision":
            asked = parse_qs(url.query)
            self._send_json(self._info(name, repository, blobs="blobs" in asked))
        elif api and what == "tree":
            self._send_json([{"type": "file", "path": file, **repository.entry(file)} for file in repository.files()])
        elif repository.gated and self.headers.get("Authorization") != f"Bearer {repository.gated}":
            self._send(401, {"X-Error-Code": "GatedRepo", "X-Error-Message": f"Access to {name} is restricted."})
        elif "/".join(rest) not in repository.files():
            self._send(404, {"X-Error-Code": "EntryNotFound"})
        else:
            self._send_file(mirror, repository, "/".join(rest))

    @staticmethod
    def _info(name: str, repository: Repository, blobs: bool) -> dict[str, Any]:
        siblings: list[dict[str, Any]] = []
        for file in repository.files():
            entry = repository.entry(file)
            large = entry.pop("lfs", None)
            said = {"size": entry["size"], "blobId": entry["oid"]}
            said |= {"lfs": {"sha256": large["oid"], "size": large["size"], "pointerSize": 130}} if large else {}
            siblings.append({"rfilename": file, **(said if blobs else {})})
        return {"id": name, "modelId": name, "sha": repository.commit, "private": False, "siblings": siblings}

    def _send_json(self, content: Any) -> None:
        self._send(200, {"Content-Type": "application/json"}, json.dumps(content).encode())

    def _send_file(self, mirror: Mirror, repository: Repository, file: str) -> None:
        content, entry = (repository.folder / file).read_bytes(), repository.entry(file)
        headers = {"ETag": f'"{entry.get("lfs", entry)["oid"]}"', "X-Repo-Commit": repository.commit}
        status, asked = 200, self.headers.get("Range")
        if asked and not mirror.whole:
            start, _, end = asked.removeprefix("bytes=").partition("-")
            total, status = len(content), 206
            content = content[int(start) : int(end) + 1 if end else None]
            headers["Content-Range"] = f"bytes {start}-{int(start) + len(content) - 1}/{total}"
        if self.command == "GET":
            mirror.read[file] = mirror.read.get(file, 0) + len(content)
        self._send(status, headers, content)

    def _send(self, status: int, headers: dict[str, str] | None = None, content: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)
