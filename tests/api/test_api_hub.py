"""Teachers of the hub: registered at a commit, opened by the workers, and a sentence for what goes wrong."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_fixtures import Server
from hub_mirror import Mirror, Repository, ask, mirror
from pydantic import SecretStr
from tiny_stable_diffusion import TINY

from service.errors import TeacherInvalid
from service.hub import FIRST_BYTES, Hub
from service.inspection import inspect
from service.sources import hub_id, url_of
from service.storage import Storage
from service.stored_folder import StoredFolder
from service.teachers import look
from workers.artifact import load_student
from workers.identity import HubCopy
from workers.progress import Progress
from workers.store import StoreLost, local_folder

NAME = "org/tiny.sd"
UNET = "unet/diffusion_pytorch_model.safetensors"
BESIDE = ("unet/diffusion_pytorch_model.bin", "v1-5.ckpt", "v1-5-pruned.safetensors", "pipeline.py", "README.md")
VARIANT = "unet/diffusion_pytorch_model.fp16.safetensors"
TOKEN = "hf_a_token_of_tests"


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pipeline as people publish one: pickles, code, checkpoints and variants beside it."""
    folder = tmp_path_factory.mktemp("published")
    TINY["stable-diffusion-1"].make().save_pretrained(folder)
    for name in BESIDE:
        (folder / name).write_bytes(b"\x80\x04")
    shutil.copy(folder / UNET, folder / VARIANT)
    return folder


@pytest.fixture
def published(saved: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(saved, tmp_path / "published"))


@pytest.fixture
def served(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A mirror that has it, asked by control plane and workers alike; the workers' cache is the test's own."""
    with mirror() as running:
        running.repositories[NAME] = Repository(published)
        ask(running, tmp_path, monkeypatch)
        yield running


def source(served: Mirror, name: str = NAME) -> str:
    return f"hf://{name}@{served.repositories[name].commit}"


def refusal(url: str, asked: str, token: str = "") -> str:
    with pytest.raises(TeacherInvalid) as found:
        look(Storage("memory://hub"), Hub(url, SecretStr(token)), asked)
    (pointer,) = found.value.pointers
    assert pointer.pointer == "/source"
    return found.value.detail


async def register(server: Server, asked: str) -> Any:
    return await server.http.post("/v1/teachers", json={"name": "mine", "source": asked})


@pytest.mark.parametrize("revision", ["", "@main", "@v1/fine"])
async def test_a_model_of_the_hub_is_registered_at_its_commit(server: Server, served: Mirror, revision: str) -> None:
    server.behind.hub = Hub(served.url, SecretStr(""))
    answer = await register(server, f"hf://{NAME}{revision}")
    assert answer.status_code == 201, answer.text
    teacher = answer.json()
    assert teacher["source"] == source(served)
    assert (teacher["family"], teacher["pipeline"]) == ("stable-diffusion", "StableDiffusionPipeline")
    spec = {"teacher": "mine", "prompts": ["a cat"], "method": {"kind": "dmd2", "steps": 1, "gan_weight": 0}}
    job = await server.submit(**spec)
    await server.tick()
    driver = await server.attempt(job["id"])
    order = (await driver.get("")).json()
    assert (order["teacher_source"], order["teacher_sha256"]) == (source(served), teacher["sha256"])


async def test_a_hub_that_does_not_answer(server: Server, served: Mirror) -> None:
    server.behind.hub = Hub("http://127.0.0.1:9", SecretStr(""))
    answer = await register(server, f"hf://{NAME}")
    assert (answer.status_code, answer.json()["code"]) == (503, "hub_unavailable")
    assert "FEWSTEP_HUB_ENDPOINT" in answer.json()["detail"]
    server.behind.hub, served.broken = Hub(served.url, SecretStr("")), True
    answer = await register(server, f"hf://{NAME}")
    assert (answer.status_code, answer.json()["code"]) == (503, "hub_unavailable")
    assert "status 507" in answer.json()["detail"]


def test_only_the_beginnings_of_needed_files_are_read(served: Mirror, published: Path) -> None:
    kept, facts = look(Storage("memory://hub"), Hub(served.url, SecretStr("")), f"hf://{NAME}")
    assert kept == source(served)
    assert not {*BESIDE, VARIANT} & served.read.keys()
    sizes = {name: (published / name).stat().st_size for name in served.read}
    assert sizes[UNET] > 5 * FIRST_BYTES
    assert all(count <= FIRST_BYTES for count in served.read.values())
    for name in (*BESIDE, VARIANT):
        (published / name).unlink()
    stored = inspect(StoredFolder(Storage(published.parent.as_uri()), published.name))
    assert (facts.parameters, facts.image_size) == (stored.parameters, stored.image_size)


def test_weights_of_another_commit_have_another_hash(served: Mirror, published: Path) -> None:
    hub = Hub(served.url, SecretStr(""))
    before, one = look(Storage("memory://hub"), hub, f"hf://{NAME}")
    content = bytearray((published / UNET).read_bytes())
    content[-1] ^= 1
    (published / UNET).write_bytes(content)
    after, other = look(Storage("memory://hub"), hub, f"hf://{NAME}")
    assert before != after
    assert one.sha256 != other.sha256


def test_a_header_longer_than_most_is_asked_for_again(served: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(served.url, SecretStr(""))
    _, facts = look(Storage("memory://hub"), hub, f"hf://{NAME}")
    monkeypatch.setattr("service.hub.FIRST_BYTES", 100)
    assert look(Storage("memory://hub"), hub, f"hf://{NAME}")[1] == facts


def test_models_that_cannot_be_had(served: Mirror, published: Path) -> None:
    served.repositories["org/closed"] = Repository(published, gated=TOKEN)
    gated = refusal(served.url, "hf://org/closed")
    assert f"accept its conditions at {served.url}/org/closed" in gated
    assert "FEWSTEP_HUB_TOKEN" in gated
    assert TOKEN not in refusal(served.url, "hf://org/closed", "hf_wrong" + TOKEN)
    assert look(Storage("memory://hub"), Hub(served.url, SecretStr(TOKEN)), "hf://org/closed")[1].text
    assert f"There is no {served.url}/org/none" in refusal(served.url, "hf://org/none")
    assert "has no revision 'v9'" in refusal(served.url, f"hf://{NAME}@v9")
    assert "hf://org/name@revision" in refusal(served.url, "hf://name-alone")
    assert "hf://org/name@revision" in refusal(served.url, "hf://../../etc/passwd")
    assert "hf://org/name@revision" in refusal(served.url, f"hf://datasets/{NAME}")


def test_what_a_published_model_may_lack(served: Mirror, published: Path) -> None:
    (published / UNET).unlink()
    assert f"there is {VARIANT} alone, a variant" in refusal(served.url, f"hf://{NAME}")
    (published / VARIANT).unlink()
    assert "unet/diffusion_pytorch_model.bin is a pickle" in refusal(served.url, f"hf://{NAME}")
    (published / "model_index.json").unlink()
    assert "is a checkpoint in one file" not in (said := refusal(served.url, f"hf://{NAME}"))
    assert "v1-5-pruned.safetensors is not a safetensors file" in said


def test_code_named_in_a_published_model_is_refused(served: Mirror, published: Path) -> None:
    index = json.loads((published / "model_index.json").read_text())
    (published / "model_index.json").write_text(json.dumps(index | {"unet": ["pipeline", "Mine"]}))
    assert "it may bring no code" in refusal(served.url, f"hf://{NAME}")


def test_the_workers_open_what_was_registered(served: Mirror, tmp_path: Path) -> None:
    progress = Progress()
    folder = local_folder(source(served), progress=progress)
    assert progress.done > sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    _, registered = look(Storage("memory://hub"), Hub(served.url, SecretStr("")), f"hf://{NAME}")
    assert inspect(HubCopy(folder, Progress())) == registered
    model = load_student(folder, ["a cat"])
    assert model.text
    fetched = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert not {*BESIDE, VARIANT} & fetched
    assert UNET in fetched
    assert not {*BESIDE, VARIANT} & served.read.keys()
    asked = dict(served.read)
    again = local_folder(source(served))
    assert served.read == asked, "a commit that is in the cache is not fetched again"
    (in_cache,) = (tmp_path / "cache").glob("models--*/snapshots/*")
    (in_cache / "unet/diffusion_pytorch_model.bin").write_bytes(b"\x80\x04")  # of another program
    assert load_student(local_folder(source(served)), ["a cat"]).image_size == model.image_size
    assert again == folder
    assert {file.relative_to(folder).as_posix() for file in again.rglob("*") if file.is_file()} == fetched


def test_what_workers_say_of_a_hub_that_refuses(
    served: Mirror, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.repositories["org/closed"] = Repository(published, gated=TOKEN)
    with pytest.raises(TeacherInvalid, match="set HF_TOKEN in the cluster's environment"):
        local_folder(source(served, "org/closed"))
    with pytest.raises(TeacherInvalid, match="is no longer on the hub"):
        local_folder("hf://org/none@" + "0" * 40)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert (local_folder(source(served, "org/closed")) / UNET).is_file()
    served.broken = True
    with pytest.raises(StoreLost, match="org/other"):
        local_folder("hf://org/other@" + "0" * 40)


def test_ids_of_the_hub() -> None:
    for text, repo, revision in [
        ("hf://a/b", "a/b", None),
        ("hf://a-b/c.d@refs/pr/1", "a-b/c.d", "refs/pr/1"),
        ("hf://a/b@v1.0", "a/b", "v1.0"),
        ("hf://datasets/a/b", "a/b", None),
        ("hf://datasets/a/b@refs/convert/parquet", "a/b", "refs/convert/parquet"),
    ]:
        found = hub_id(text)
        assert found is not None
        assert (found.repo, found.revision, str(found)) == (repo, revision, text)
        assert found.kind == ("dataset" if "datasets/" in text else "model")
        assert url_of(text, "s3://bucket") == text
    for text in (
        "a/b",
        "hf://a",
        "hf://a/b/c",
        "hf://a/b@",
        "hf://a/..",
        "hf://a/b@../x",
        "hf://a/b?c",
        "s3://a/b",
        "hf://datasets/a",
        "hf://datasets/datasets/a",
        "hf://datasets/a/b/c",
        "hf://datasets/a/..",
    ):
        assert hub_id(text) is None
