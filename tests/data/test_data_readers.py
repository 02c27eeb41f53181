"""Every format gives the same samples; what is broken is refused in a sentence that says what to do."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import SIDE, captions, image_folder, noise_png, on_disk, png, prompt_file, table, tars, write_rows, write_tar
from PIL import Image

from service.errors import DataInvalid
from workers.data import huggingface
from workers.data.dataset import look
from workers.data.images import json_rows, rows_of
from workers.data.pixels import pixels
from workers.data.sample import Corrupt, Reader
from workers.data.webdataset import WebDataset, index

COUNT = 5
TOLD = captions(COUNT)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface, "TABLES", tmp_path / "tables")


def parquet(folder: Path, count: int, told: list[str]) -> Path:
    """In the layout of the hub, a split beside it that is not for training."""
    (folder / "data").mkdir(parents=True)
    table(count, told).to_parquet(str(folder / "data" / "train-00000-of-00001.parquet"))
    table(2, ["no", "no"]).to_parquet(str(folder / "data" / "test-00000-of-00001.parquet"))
    return folder


def both_splits(folder: Path, count: int, told: list[str]) -> Path:
    splits = {"test": table(2, ["no", "no"]), "train": table(count, told)}
    datasets.DatasetDict(splits).save_to_disk(str(folder))
    return folder


FORMATS: dict[str, tuple[str, Callable[[Path, int, list[str]], Path]]] = {
    "jsonl": ("images", image_folder),
    "csv": ("images", lambda folder, count, told: image_folder(folder, count, told, "csv")),
    "webdataset": ("webdataset", lambda folder, count, told: tars(folder, count, 2, told)),
    "save_to_disk": ("huggingface", on_disk),
    "splits": ("huggingface", both_splits),
    "parquet": ("huggingface", parquet),
    "prompts": ("prompts", lambda folder, _, told: prompt_file(folder / "prompts.txt", told)),
}


def samples(reader: Reader) -> list[tuple[bytes | None, str | None, str | None]]:
    return [(s.image, s.caption, s.label) for s in (reader.read(i) for i in range(len(reader)))]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_images_and_their_captions(name: str, tmp_path: Path) -> None:
    format, make = FORMATS[name]
    dataset = look(make(tmp_path / "data", COUNT, TOLD))
    assert (dataset.order.format, dataset.order.content, dataset.order.samples) == (format, "captions", COUNT)
    reader = dataset.reader()
    images = [None if format == "prompts" else png(i) for i in range(COUNT)]
    assert samples(reader) == [(image, text, None) for image, text in zip(images, TOLD, strict=True)]
    assert len({reader.key(i) for i in range(COUNT)}) == COUNT


def test_sub_folders_are_classes_and_one_alone_is_none(tmp_path: Path) -> None:
    for i, name in enumerate(["cat", "dog", "cat"]):
        (tmp_path / "two" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "two" / name / f"{i}.png").write_bytes(png(i))
    dataset = look(tmp_path / "two")
    assert dataset.order.content == "classes"
    assert dataset.reader().classes() == ["cat", "dog"]
    assert [label for _, _, label in samples(dataset.reader())] == ["cat", "cat", "dog"]
    image_folder(tmp_path / "one" / "images", 2)
    assert look(tmp_path / "one").order.content == "nothing"


def test_classes_are_read_from_tars_and_from_a_column_of_labels(tmp_path: Path) -> None:
    members = [("a/0.png", png(0)), ("a/0.cls", b"cat\n"), ("a/1.PNG", png(1)), ("a/1.json", b'{"label": "dog"}')]
    write_tar(tmp_path / "tars" / "0.tar", members)
    reader = look(tmp_path / "tars").reader()
    assert samples(reader) == [(png(0), None, "cat"), (png(1), None, "dog")]
    assert reader.classes() == ["cat", "dog"]
    labels = table(3).add_column("label", [1, 0, 1])
    labels.cast_column("label", datasets.ClassLabel(names=["x", "y"])).save_to_disk(str(tmp_path / "disk"))
    assert [label for _, _, label in samples(look(tmp_path / "disk").reader())] == ["1", "0", "1"]


def test_what_is_said_in_a_tars_json_is_a_caption(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [("0.webp", b"w"), ("0.json", b'{"caption": " a cat "}'), ("0.pkl", b"never read")])
    assert samples(look(tmp_path).reader()) == [(b"w", "a cat", None)]


def test_of_several_captions_the_first_is_taken(tmp_path: Path) -> None:
    several = [["", "a red square", "a square"], ["two squares"], [], [["deep"]], [{"no": "text"}]]
    rows = [{"file_name": f"{i:03}.png", "text": captions} for i, captions in enumerate(several)]
    write_rows(image_folder(tmp_path / "folder", 5) / "metadata.jsonl", rows)
    said = ["a red square", "two squares", None, "deep", None]
    assert [caption for _, caption, _ in samples(look(tmp_path / "folder").reader())] == said
    table(3).add_column("caption", several[:3]).save_to_disk(str(tmp_path / "disk"))
    assert [caption for _, caption, _ in samples(look(tmp_path / "disk").reader())] == said[:3]


def test_a_sample_without_an_image_or_with_a_broken_word_is_corrupt(tmp_path: Path) -> None:
    members = [("0.txt", b"alone"), ("1.png", b""), ("1.txt", b"\xff"), ("2.jpg", b""), ("2.json", b"{")]
    write_tar(tmp_path / "0.tar", members)
    reader = WebDataset(tmp_path)
    for i, why in enumerate(["no image", "cannot be read", "cannot be read"]):
        with pytest.raises(Corrupt, match=why):
            reader.read(i)


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="./\0", exclude_categories=["Cs", "Cc"]), min_size=1)


@given(
    st.dictionaries(st.tuples(NAMES, st.sampled_from([".jpg", ".txt", ".cls", ".seg.png"])), st.binary(max_size=1500))
)
def test_the_index_of_a_tar_finds_every_member(
    tmp_path_factory: pytest.TempPathFactory, members: dict[tuple[str, str], bytes]
) -> None:
    tar = tmp_path_factory.mktemp("tar") / "0.tar"
    write_tar(tar, [(f"d/{stem}{suffix}", content) for (stem, suffix), content in members.items()])
    content = tar.read_bytes()
    found = {
        (stem.removeprefix("d/"), suffix): content[place.offset : place.offset + place.size]
        for stem, places in index(tar).items()
        for suffix, place in places.items()
    }
    assert found == members


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_tar_that_is_cut_off_anywhere_is_refused(share: float, tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "0.tar", [(f"{i}.png", bytes(700)) for i in range(10)])
    content = tar.read_bytes()
    end = 10 * (512 + 1024)  # after which there is the mark of the end, and padding
    for cut in (int(share * end), 512 * int(share * end / 512), end):
        tar.write_bytes(content[:cut])
        with pytest.raises(DataInvalid, match=r"0\.tar.*copy it again"):
            look(tmp_path)


def test_what_is_no_tar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(DataInvalid, match=r"0\.tar is no whole tar"):
        look(tmp_path)


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]))
FILES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1)


@given(st.dictionaries(FILES, TEXTS, min_size=1), st.sampled_from(["jsonl", "csv"]))
def test_metadata_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, told: dict[str, str], kind: str
) -> None:
    file = tmp_path_factory.mktemp("metadata") / f"metadata.{kind}"
    write_rows(file, [{"file_name": name, "text": text} for name, text in told.items()])
    assert {name: row["text"] for name, row in rows_of(file).items()} == told


@given(st.text() | st.lists(st.sampled_from(["{}", '{"a": 1}', "", " ", "[]", "{"])).map("\n".join))
def test_any_text_is_rows_or_refused(text: str) -> None:
    lines = [line for line in text.split("\n") if line.strip()]
    if all(is_object(line) for line in lines):
        assert len(json_rows("metadata.jsonl", text)) == len(lines)
    else:
        with pytest.raises(DataInvalid, match=r"line \d+ of metadata\.jsonl"):
            json_rows("metadata.jsonl", text)


def is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        (["000.png", "001.png"], "2 rows, and the folder has 3 images: no row for 002.png"),
        (["000.png", "001.png", "002.png", "7.png"], "no image for 7.png"),
        (["000.png", "001.png", "001.png"], "two rows for 001.png"),
        (["000.png", "001.png", ""], "row 3 of metadata.jsonl has no file_name"),
        (["000.png", "001.png", "../002.png"], "no image for"),
    ],
)
def test_a_metadata_file_that_does_not_match_the_images_is_refused(rows: list[str], named: str, tmp_path: Path) -> None:
    image_folder(tmp_path / "data", 3)
    write_rows(tmp_path / "data" / "metadata.jsonl", [{"file_name": name, "text": "t"} for name in rows])
    with pytest.raises(DataInvalid, match=named):
        look(tmp_path / "data")


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"notes.md": b"x"}, "holds no dataset"),
        ({"prompts.txt": b"\n \n"}, "holds no prompts"),
        ({"prompts.txt": b"\xff\xfe"}, "not UTF-8"),
        ({"part.parquet": b"nonsense"}, "does not open as a Hugging Face dataset"),
        ({"metadata.jsonl": b"{", "0.png": b""}, "line 1 of metadata.jsonl is not JSON"),
        ({"metadata.jsonl": b"[]", "0.png": b""}, "no JSON object"),
    ],
)
def test_what_is_no_dataset_is_refused(files: dict[str, bytes], named: str, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataInvalid, match=named):
        look(tmp_path)


def test_no_images_are_refused_by_number(tmp_path: Path) -> None:
    write_tar(tmp_path / "tars" / "0.tar", [("0.txt", b"a")])
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(str(tmp_path / "disk"))
    for folder in ("tars", "disk"):
        with pytest.raises(DataInvalid, match="0 images"):
            look(tmp_path / folder)


def test_prompts_of_json_lines(tmp_path: Path) -> None:
    rows: list[Any] = [{"prompt": "a"}, {"text": "b", "id": 3}, {"id": 4}, 5]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n{\n")
    reader = look(tmp_path / "p.jsonl").reader()
    assert [reader.read(i).caption for i in (0, 1)] == ["a", "b"]
    for i in (2, 3, 4):
        with pytest.raises(Corrupt):
            reader.read(i)
    assert reader.key(4) == "p.jsonl, line 5"


def test_a_file_that_changed_makes_another_dataset(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "data", 3, captions(3))
    before = look(folder).identity
    assert look(folder).identity == before
    (folder / "001.png").write_bytes(png(9))
    changed = look(folder).identity
    assert changed != before
    (folder / "001.png").rename(folder / "004.png")
    write_rows(folder / "metadata.jsonl", [{"file_name": f"00{i}.png", "text": "t"} for i in (0, 2, 4)])
    assert look(folder).identity not in (before, changed)


def test_pixels_are_scaled_and_cropped_to_the_centre() -> None:
    wide = pixels(png(5, 3 * SIDE, SIDE), 3, [(SIDE, SIDE)])
    assert wide.shape == (3, SIDE, SIDE)
    assert wide.unique().tolist() == pytest.approx([15 / 127.5 - 1])
    assert pixels(png(85, SIDE, SIDE, "L"), 3, [(4, 6)]).unique().tolist() == [1.0]
    assert pixels(png(0, 2 * SIDE, SIDE), 1, [(4, 4)]).unique().tolist() == [-1.0]


def test_what_is_transparent_is_white() -> None:
    stream = io.BytesIO()
    Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0)).save(stream, "PNG")
    assert pixels(stream.getvalue(), 3, [(SIDE, SIDE)]).unique().tolist() == [1.0]


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_images_of_16_bits_keep_their_greys(channels: int) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.linspace(0, 65535, SIDE * SIDE).astype(np.uint16).reshape(SIDE, SIDE)).save(stream, "PNG")
    greys = pixels(stream.getvalue(), channels, [(SIDE, SIDE)])
    assert greys[0].flatten().tolist() == pytest.approx(np.linspace(-1, 1, SIDE * SIDE).tolist(), abs=1 / 255)


def numbers(mode: str) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (SIDE, SIDE), 1).save(stream, "TIFF")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (numbers("I"), "numbers of 32 bits"),
        (numbers("F"), "numbers of 32 bits"),
        (b"", "cannot be decoded"),
        (b"GIF89a nonsense", "cannot be decoded"),
        (noise_png(1, SIDE, SIDE)[:120], "cannot be decoded"),
        (png(1, 1, 1), "1 by 1 pixels"),
        (png(1, 40, 1), "40 by 1 pixels"),
        (png(1, 4, 4), "4 by 4 pixels, where 64 by 64"),
    ],
)
def test_an_image_that_shows_nothing_is_corrupt(content: bytes, why: str) -> None:
    with pytest.raises(Corrupt, match=why):
        pixels(content, 3, [(64, 64) if "4 by 4" in why else (SIDE, SIDE)])
