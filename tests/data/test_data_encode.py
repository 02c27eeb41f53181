"""What a dataset is encoded to, once: equal to what the pipeline itself gives, kept, resumed, shared between ranks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from made import captions, image_folder, noise_png, pixel_teacher, png, prompt_file, tars, write_rows, write_tar
from tiny_all import TINY

from service.errors import DataInvalid
from service.status import Wish
from workers import progress
from workers.artifact import Student, load_student
from workers.data import encode as encoding
from workers.data.chunks import Chunks
from workers.data.dataset import Dataset, look
from workers.data.encode import CaptionRows, encode
from workers.data.pixels import pixels
from workers.families.registry import FAMILIES
from workers.models.conditions import StoredConditions
from workers.pipeline_model import PipelineModel
from workers.run import FolderHost

COUNT = 7
TOLD = captions(COUNT)


class Host(FolderHost):
    """Keeps its log, counts what it makes, and stops when asked."""

    def __init__(self, folder: Path, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(folder, torch.device("cpu"))
        self.rank, self.world_size = rank, world_size
        self.lines: list[tuple[str, str]] = []
        self.made: list[str] = []
        self.phases: list[str] = []
        self.wishes: Iterator[Wish] = iter(())

    def log(self, level: Any, message: str) -> None:
        self.lines.append((level, message))

    def phase(self, phase: Any) -> None:
        self.phases.append(phase)

    def wish(self) -> Wish:
        return next(self.wishes, Wish.RUN)

    def cached_file(self, key: str, write: Any) -> Path:
        def counted(file: Path) -> None:
            self.made.append(key.split()[-1])
            write(file)

        return super().cached_file(key, counted)


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> PipelineModel:
    folder = tmp_path_factory.mktemp("sdxl")
    TINY["sdxl"].make().save_pretrained(folder, safe_serialization=True)
    model = load_student(folder)
    assert isinstance(model, PipelineModel)
    return model


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Student:
    """Grey, 8 by 8 pixels, ten classes."""
    model = load_student(pixel_teacher(tmp_path_factory.mktemp("digits"), 10))
    assert isinstance(model, Student)
    return model


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "CHUNK", 3)


def encoded(dataset: Dataset, model: Any, host: Host, images: bool = True) -> Chunks:
    found = encode(dataset, model, host, images, "teacher")
    assert isinstance(found, Chunks)
    return found


def everything(chunks: Chunks) -> dict[str, torch.Tensor]:
    return chunks.rows(torch.arange(len(chunks)), chunks.names)


def same(one: Chunks, other: Chunks) -> bool:
    a, b = everything(one), everything(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_latents_and_rows_are_those_of_the_pipeline(sdxl: PipelineModel, tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "data", COUNT, TOLD)
    (folder / "002.png").write_bytes(noise_png(2, 24, 20))
    chunks = encoded(look(folder), sdxl, Host(tmp_path / "run"))
    rows = everything(chunks)
    assert chunks.captions == TOLD
    for i in range(COUNT):
        image = pixels((folder / f"{i:03}.png").read_bytes(), 3, [sdxl.image_size[1:]])
        torch.testing.assert_close(rows["images"][i : i + 1], sdxl.encode(image[None]), atol=1e-5, rtol=0)
    assert (sdxl.decode(rows["images"]).shape[1:]) == sdxl.image_size
    for name, row in sdxl.family.encode(sdxl.pipe, TOLD).items():
        torch.testing.assert_close(rows[f"row.{name}"], row, atol=1e-5, rtol=0)


TEXT = [name for name, tiny in TINY.items() if tiny.family.pipeline.__name__ in FAMILIES and name != "dit"]


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n == "sdxl" else pytest.mark.slow) for n in TEXT])
def test_stored_conditions_are_those_in_memory(name: str, tmp_path: Path) -> None:
    TINY[name].make().save_pretrained(tmp_path / "teacher", safe_serialization=True)
    model = load_student(tmp_path / "teacher")
    assert isinstance(model, PipelineModel)
    prompts = look(prompt_file(tmp_path / "data" / "prompts.txt", TOLD))
    model.tell(CaptionRows(encoded(prompts, model, Host(tmp_path / "run"), images=False)), TOLD)
    stored, held = model.denoiser.conditions, model.family.encoded(model.pipe, TOLD)
    assert isinstance(stored, StoredConditions)
    assert model.num_classes == model.denoiser.null_label == COUNT
    assert stored.prompts == held.prompts == COUNT
    for labels in ([4, 0, 4], [4, 0, 4, COUNT, COUNT, COUNT], [COUNT, COUNT], [6], [0, 1, 2, 3, 4, 5, 6, 7]):
        asked = torch.tensor(labels)
        found, wanted = stored(asked), held(asked)
        assert found.keys() == wanted.keys()
        for name in wanted:
            torch.testing.assert_close(found[name], wanted[name], atol=1e-5, rtol=0)


def test_a_step_reads_its_rows_once_however_often_it_asks(sdxl: PipelineModel, tmp_path: Path) -> None:
    prompts = look(prompt_file(tmp_path / "data" / "prompts.txt", TOLD))
    table = CaptionRows(encoded(prompts, sdxl, Host(tmp_path / "run"), images=False))
    asked: list[list[int]] = []

    class Counted:
        def __len__(self) -> int:
            return len(table)

        def rows(self, places: torch.Tensor, names: Any) -> dict[str, torch.Tensor]:
            asked.append(places.tolist())
            return table.rows(places, names)

    stored = StoredConditions(Counted(), sdxl.family.null(sdxl.pipe))
    for labels in ([3, 1], [1, 3, COUNT, COUNT], [1, 1, 3, 3], [COUNT, 3, 1]):
        stored(torch.tensor(labels))
    assert asked == [[1, 3]]


def test_chunks_are_made_once_and_go_on_where_they_were_stopped(digits: Student, tmp_path: Path) -> None:
    dataset = look(classes(tmp_path / "data"))
    host = Host(tmp_path / "run")
    host.wishes = iter([Wish.RUN, Wish.RUN, Wish.PAUSE])
    assert encode(dataset, digits, host, True, "teacher") is Wish.PAUSE
    assert host.made == ["chunk=0", "chunk=1"]
    stopped = encoded(dataset, digits, host)
    assert host.made == ["chunk=0", "chunk=1", "chunk=2"]
    unbroken = Host(tmp_path / "other run")
    assert same(encoded(dataset, digits, unbroken), stopped)
    assert same(encoded(dataset, digits, host), stopped)
    assert len(host.made) == 3, "nothing was made again"
    (tmp_path / "data" / "0.tar").unlink()
    write_tar(tmp_path / "data" / "0.tar", [("0.png", png(1)), ("0.cls", b"2")])
    assert len(encoded(look(tmp_path / "data"), digits, host)) == 1
    assert len(host.made) == 4, "another dataset is another chunk"


def test_a_chunk_that_takes_long_shows_life(digits: Student, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "ENCODED_AT_ONCE", 1)
    dataset = look(classes(tmp_path / "data"))
    hosts = [Host(tmp_path / "quick"), Host(tmp_path / "long")]
    encode(dataset, digits, hosts[0], True, "teacher")
    assert hosts[0].phases == []
    monkeypatch.setattr(progress, "SIGN_SECONDS", 0.0)
    encode(dataset, digits, hosts[1], True, "teacher")
    assert len(hosts[1].phases) > COUNT


def test_two_ranks_make_what_one_makes_each_its_share(digits: Student, tmp_path: Path) -> None:
    dataset = look(classes(tmp_path / "data"))
    one = encoded(dataset, digits, Host(tmp_path / "one"))
    other, first = Host(tmp_path / "two", 1, 2), Host(tmp_path / "two", 0, 2)
    both = encoded(dataset, digits, other)  # which reads what rank 0 would have made in the meantime
    assert other.made[0] == "chunk=1"
    assert same(both, one)
    assert same(encoded(dataset, digits, first), one)
    assert not first.made


def classes(folder: Path) -> Path:
    members = [(f"{i}.png", png(i)) for i in range(COUNT)] + [(f"{i}.cls", str(9 - i).encode()) for i in range(COUNT)]
    write_tar(folder / "0.tar", members)
    return folder


def test_images_become_grey_and_classes_numbers(digits: Student, tmp_path: Path) -> None:
    rows = everything(encoded(look(classes(tmp_path / "data")), digits, Host(tmp_path / "run")))
    assert rows["labels"].tolist() == [9, 8, 7, 6, 5, 4, 3]
    assert rows["images"].shape == (COUNT, 1, 8, 8)
    assert rows["images"][2].unique().tolist() == pytest.approx([6 / 127.5 - 1])
    for i, name in enumerate(["b", "a", "b"]):
        (tmp_path / "named" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "named" / name / f"{i}.png").write_bytes(png(i))
    rows = everything(encoded(look(tmp_path / "named"), digits, Host(tmp_path / "run")))
    assert rows["labels"].tolist() == [0, 1, 1]


def test_corrupt_samples_are_left_out_counted_and_named(sdxl: PipelineModel, tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "data", COUNT, [*TOLD[:-1], " "])
    for i, content in enumerate([b"", png(1)[:30], png(2, 1, 1)]):
        (folder / f"00{i}.png").write_bytes(content)  # all of the first chunk
    host = Host(tmp_path / "run")
    dataset = look(folder)
    chunks = encoded(dataset, sdxl, host)
    assert chunks.captions == TOLD[3:6]
    assert len(chunks) == len(everything(chunks)["images"]) == 3
    told = [message for level, message in host.lines if level == "warning"]
    assert len(told) == 1
    assert told[0].startswith("4 of the dataset's 7 samples are left out: 000.png (it cannot be decoded")
    assert "002.png (it has 1 by 1 pixels" in told[0]
    assert "006.png (it has no caption)" in told[0]
    encoded(dataset, sdxl, host)
    assert [message for level, message in host.lines if level == "warning"] == told * 2, "who resumes is told again"


def test_many_corrupt_samples_are_named_up_to_a_few(digits: Student, tmp_path: Path) -> None:
    write_tar(tmp_path / "data" / "0.tar", [(f"{i}.png", b"") for i in range(20)] + [("0.cls", b"1")])
    with pytest.raises(DataInvalid, match=r"none of the dataset's 20 samples can be used: 0\.tar/0 .* and 15 more"):
        encode(look(tmp_path / "data"), digits, Host(tmp_path / "run"), True, "teacher")


def refusal(folder: Path, model: Any, host: Host) -> str:
    with pytest.raises(DataInvalid) as caught:
        encode(look(folder), model, host, True, "teacher")
    return caught.value.detail


def test_a_dataset_that_does_not_suit_the_teacher_is_refused(
    sdxl: PipelineModel, digits: Student, tmp_path: Path
) -> None:
    host = Host(tmp_path / "run")
    assert "has no captions" in refusal(tars(tmp_path / "bare", 2, 2), sdxl, host)
    assert "has no classes" in refusal(tmp_path / "bare", digits, host)
    assert "prompts alone" in refusal(prompt_file(tmp_path / "prompts" / "p.txt", TOLD), sdxl, host)
    write_tar(tmp_path / "many" / "0.tar", [("0.png", png(0)), ("0.cls", b"10")])
    assert "class '10' has number 10, and the teacher knows 0 to 9" in refusal(tmp_path / "many", digits, host)
    folder = image_folder(tmp_path / "one", 2)
    write_rows(folder / "metadata.csv", [{"file_name": f"00{i}.png", "label": i} for i in range(2)])
    assert encoded(look(folder), digits, host).rows(torch.arange(2), ["labels"])["labels"].tolist() == [0, 1]
