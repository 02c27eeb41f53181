"""Datasets of the hub: registered at a commit, read by the workers, and a sentence for what goes wrong."""

from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import pytest
import torch
from api_fixtures import Server
from hub_mirror import Mirror, Repository, ask, mirror
from made import captions, image_folder, noise_png, on_disk, pixel_teacher, prompt_file, table, tars
from pydantic import SecretStr

from service import hub_data
from service.dataset_folder import Facts, StoredData
from service.dataset_inspection import inspect
from service.datasets import look
from service.errors import DataInvalid, HubUnavailable
from service.hub import Hub
from service.observations import DatasetOrder
from service.sources import DATA
from service.storage import Storage
from workers.artifact import load_student
from workers.data import huggingface
from workers.data.chunks import Chunks
from workers.data.dataset import Dataset
from workers.data.encode import encode
from workers.data.source import StoredSource
from workers.randomness import BatchRng
from workers.run import FolderHost
from workers.store import StoreLost, local_folder

NAME, COUNT = "datasets/org/tiny.data", 6
TOLD = captions(COUNT)
TOKEN = "hf_a_token_of_tests"
SHARDS = [f"data/train-0000{i}-of-00002.parquet" for i in (0, 1)]
TEST = "data/test-00000-of-00001.parquet"
BESIDE = ("load.py", "model.pkl", "assets/preview.png", "README.md", ".gitattributes")


def parquet(folder: Path) -> Path:
    """As `push_to_hub` lays it out, two classes of noise, and beside it what is never fetched."""
    content = {"image": [{"bytes": noise_png(i, 200, 200), "path": None} for i in range(COUNT)], "label": [0, 1] * 3}
    about = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = datasets.Dataset.from_dict(content, about)
    for name in (*SHARDS, TEST, *BESIDE):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    for i, shard in enumerate(SHARDS):
        rows.shard(2, i).to_parquet(str(folder / shard))
    rows.to_parquet(str(folder / TEST))
    for name in BESIDE:
        (folder / name).write_bytes(b"\x80\x04")
    return folder


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A mirror that control plane and workers ask; the workers' caches are the test's own."""
    with mirror() as running:
        ask(running, tmp_path, monkeypatch)
        monkeypatch.setattr(huggingface, "TABLES", tmp_path / "tables")
        yield running


@pytest.fixture
def published(served: Mirror, tmp_path: Path) -> Path:
    folder = parquet(tmp_path / "published")
    served.repositories[NAME] = Repository(folder)
    return folder


def source(served: Mirror, name: str = NAME) -> str:
    return f"hf://{name}@{served.repositories[name].commit}"


def seen(url: str, asked: str, token: str = "") -> tuple[str, Facts]:
    return look(Storage("memory://hub"), Hub(url, SecretStr(token)), asked)


def refusal(url: str, asked: str, token: str = "") -> str:
    with pytest.raises(DataInvalid) as found:
        seen(url, asked, token)
    (pointer,) = found.value.pointers
    assert (pointer.pointer, pointer.detail) == ("/source", found.value.detail)
    return found.value.detail


def fetched(asked: str, facts: Facts) -> Dataset:
    """As the training function opens what was ordered."""
    order = DatasetOrder(source=asked, format=facts.format, content=facts.content, samples=facts.samples)
    return Dataset(order, local_folder(asked, DATA[facts.format]))


@pytest.mark.parametrize("revision", ["", "@main", "@v1/fine"])
async def test_a_dataset_of_the_hub_is_registered_at_its_commit(
    server: Server, served: Mirror, published: Path, teacher_files: Callable[..., dict[str, bytes]], revision: str
) -> None:
    server.behind.hub = Hub(served.url, SecretStr(""))
    answer = await server.http.post("/v1/datasets", json={"name": "pets", "source": f"hf://{NAME}{revision}"})
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["source"] == source(served)
    assert (made["format"], made["content"], made["samples"]) == ("huggingface", "classes", COUNT)
    assert made["classes"] == ["cat", "dog"]
    assert made["bytes"] == sum((published / name).stat().st_size for name in (*SHARDS, TEST))
    for path, content in teacher_files(sample_size=32, num_class_embeds=None).items():
        server.write(f"teachers/plain/{path}", content)
    await server.http.post("/v1/teachers", json={"name": "plain", "source": "teachers/plain"})
    job = await server.submit(teacher="plain", data="pets")
    await server.tick()
    async with await server.attempt(job["id"]) as attempt:
        assert (await attempt.get("")).json()["dataset"]["source"] == source(served)


async def test_a_hub_that_does_not_answer(server: Server, served: Mirror, published: Path) -> None:
    asked = {"name": "pets", "source": f"hf://{NAME}"}
    server.behind.hub = Hub("http://127.0.0.1:9", SecretStr(""))
    answer = await server.http.post("/v1/datasets", json=asked)
    assert (answer.status_code, answer.json()["code"]) == (503, "hub_unavailable")
    assert "FEWSTEP_HUB_ENDPOINT" in answer.json()["detail"]
    server.behind.hub = Hub(served.url, SecretStr(""))
    found = hub_data.HubData(server.behind.hub, hub_data.HubId("org/tiny.data", None, "dataset"))
    served.broken = True
    with pytest.raises(HubUnavailable, match="status 507"):
        inspect(found)


def test_only_footers_of_the_split_for_training_are_read(served: Mirror, published: Path) -> None:
    seen(served.url, f"hf://{NAME}")
    sizes = {name: (published / name).stat().st_size for name in SHARDS}
    assert all(count < sizes[name] / 4 for name, count in served.read.items() if name in SHARDS)
    assert set(SHARDS) <= served.read.keys() <= {*SHARDS, TEST}
    assert served.read.get(TEST, 0) <= 1


FORMATS: dict[str, Callable[[Path], Path]] = {
    "images": lambda folder: image_folder(folder, COUNT, TOLD),
    "csv": lambda folder: image_folder(folder, COUNT, TOLD, "csv"),
    "webdataset": lambda folder: tars(folder, COUNT, 2, TOLD),
    "save_to_disk": lambda folder: on_disk(folder, COUNT, TOLD),
    "parquet": lambda folder: (folder.mkdir(), table(COUNT, TOLD).to_parquet(str(folder / "0000.parquet")), folder)[2],
    "prompts": lambda folder: prompt_file(folder / "prompts.txt", TOLD).parent,
}


@pytest.mark.parametrize("whole", [False, True], ids=["ranges", "whole"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_what_it_would_be_in_the_store(name: str, whole: bool, served: Mirror, tmp_path: Path) -> None:
    folder = FORMATS[name](tmp_path / "data")
    if name == "images":
        (folder / "000.png").rename(folder / "000.PNG")
        metadata = folder / "metadata.jsonl"
        metadata.write_text(metadata.read_text().replace("000.png", "000.PNG"))
    wanted = inspect(StoredData(Storage(tmp_path.as_uri()), "data"))
    (folder / "load.py").write_text("raise SystemExit")
    served.repositories[NAME], served.whole = Repository(folder), whole
    kept, facts = seen(served.url, f"hf://{NAME}")
    assert (kept, facts) == (source(served), wanted)
    here, there = Dataset(fetched(kept, facts).order, folder).reader(), fetched(kept, facts).reader()
    assert len(there) == COUNT
    assert [there.read(i) for i in range(COUNT)] == [here.read(i) for i in range(COUNT)]
    assert "load.py" not in served.read


def test_the_workers_learn_from_what_was_registered(served: Mirror, published: Path, tmp_path: Path) -> None:
    kept, facts = seen(served.url, f"hf://{NAME}")
    served.read.clear()
    dataset = fetched(kept, facts)
    assert served.read.keys() == {*SHARDS, TEST}
    assert {file.relative_to(dataset.folder).as_posix() for file in dataset.folder.rglob("*.*")} == {*SHARDS, TEST}
    model = load_student(pixel_teacher(tmp_path / "teacher", 2))
    chunks = encode(dataset, model, FolderHost(tmp_path / "run", torch.device("cpu")), True, "teacher")
    assert isinstance(chunks, Chunks)
    batch = StoredSource(chunks, captions=False).batch(BatchRng(0, 0, 0, 0, batch_size=COUNT))
    assert batch.images.shape == (COUNT, 1, 8, 8)
    assert batch.labels is not None
    assert sorted(batch.labels.tolist()) == [0, 0, 0, 1, 1, 1]
    asked = dict(served.read)
    again = fetched(kept, facts)
    assert (again.folder, again.identity) == (dataset.folder, dataset.identity)
    assert served.read == asked, "a commit that is in the cache is not fetched again"


def test_datasets_that_cannot_be_had(served: Mirror, published: Path) -> None:
    closed = "datasets/org/closed"
    served.repositories[closed] = Repository(published, gated=TOKEN)
    for token in ("", "hf_wrong" + TOKEN):
        said = refusal(served.url, f"hf://{closed}", token)
        assert f"org/closed is gated: accept its conditions at {served.url}/{closed}" in said
        assert "FEWSTEP_HUB_TOKEN" in said
        assert TOKEN not in said
    assert seen(served.url, f"hf://{closed}", TOKEN)[1].samples == COUNT
    assert f"There is no {served.url}/datasets/org/none" in refusal(served.url, "hf://datasets/org/none")
    assert "has no revision 'v9'" in refusal(served.url, f"hf://{NAME}@v9")
    for asked in ("hf://org/tiny.data", "hf://datasets/alone", "s3://bucket/data"):
        assert "hf://datasets/org/name@revision" in refusal(served.url, asked)


def test_a_gated_folder_of_images_is_refused_though_none_need_be_read(served: Mirror, tmp_path: Path) -> None:
    served.repositories[NAME] = Repository(image_folder(tmp_path / "data", 2), gated=TOKEN)
    assert "is gated" in refusal(served.url, f"hf://{NAME}")
    assert seen(served.url, f"hf://{NAME}", TOKEN)[1].samples == 2


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (
            {"load.py": b"", "data.pkl": b""},
            "There are 0 images, but data.pkl, load.py: pickles and code are not opened",
        ),
        ({"README.md": b""}, "There are 0 images, but README.md."),
        ({"train.zip": b""}, "train.zip is compressed"),
        ({"0.tar": b"a.png".ljust(512, b"\0")}, "0.tar"),
        ({"train.parquet": b"PAR1"}, "train.parquet is no Parquet file, or is cut off"),
        ({"0.tar": b"", "0.parquet": b""}, "several kinds of data, such as 0.tar and 0.parquet"),
        ({"0.arrow": b"1"}, "dataset_info.json is missing"),
    ],
)
def test_what_a_published_dataset_may_lack(
    files: dict[str, bytes], sentence: str, served: Mirror, tmp_path: Path
) -> None:
    for name, content in files.items():
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / name).write_bytes(content)
    served.repositories[NAME] = Repository(tmp_path / "data")
    assert sentence in refusal(served.url, f"hf://{NAME}")


def test_tars_that_would_take_too_long_are_refused(
    served: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.repositories[NAME] = Repository(tars(tmp_path / "data", COUNT, 2))
    size = sum(file.stat().st_size for file in (tmp_path / "data").iterdir())
    monkeypatch.setattr(hub_data, "WALK_LIMIT", size)
    assert seen(served.url, f"hf://{NAME}")[1].samples == COUNT
    monkeypatch.setattr(hub_data, "WALK_LIMIT", size - 1)
    assert f"hf://{NAME}@refs/convert/parquet" in refusal(served.url, f"hf://{NAME}")


def test_a_file_of_many_pieces(served: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tars(tmp_path / "data", COUNT, COUNT, TOLD)
    served.repositories[NAME] = Repository(folder)
    monkeypatch.setattr(hub_data, "PIECE", 700)
    assert seen(served.url, f"hf://{NAME}")[1] == inspect(StoredData(Storage(tmp_path.as_uri()), "data"))


def test_what_workers_say_of_a_hub_that_refuses(
    served: Mirror, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = "datasets/org/closed"
    served.repositories[closed] = Repository(published, gated=TOKEN)
    with pytest.raises(DataInvalid, match="set HF_TOKEN in the cluster's environment"):
        local_folder(source(served, closed), DATA["huggingface"])
    with pytest.raises(DataInvalid, match=r"datasets/org/none@0+ is no longer on the hub"):
        local_folder("hf://datasets/org/none@" + "0" * 40, DATA["huggingface"])
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert (local_folder(source(served, closed), DATA["huggingface"]) / SHARDS[0]).is_file()
    served.broken = True
    with pytest.raises(StoreLost, match="org/other"):
        local_folder("hf://datasets/org/other@" + "0" * 40, DATA["huggingface"])
