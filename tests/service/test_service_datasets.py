"""What is found in a dataset's folder: each format's facts, and a sentence for everything that is wrong."""

import io
import json
import tarfile
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.columnar import NotColumnar, arrow_rows, parquet_table
from service.dataset_folder import Facts, StoredData
from service.dataset_inspection import inspect
from service.errors import DataInvalid
from service.storage import Storage

Files = dict[str, bytes]
FEATURES = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
SPOKEN = {"img": {"dtype": "binary", "_type": "Value"}, "text": {"dtype": "string", "_type": "Value"}}
ROWS = pa.table({"image": [{"bytes": b"1", "path": "a.png"}] * 5, "label": [0, 1, 0, 1, 1]})
CAPTIONED = pa.table({"img": [b"1", b"2"], "text": ["a", "b"]})


def tar(*members: tuple[str, bytes], mode: str = "w") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode, format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
        for name, content in members:
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    return file.getvalue()


def parquet(table: pa.Table, features: dict[str, Any] | None = None) -> bytes:
    file = io.BytesIO()
    told = {} if features is None else {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(told), file)
    return file.getvalue()


def arrow(table: pa.Table, rows_of_a_batch: int = 2) -> bytes:
    file = io.BytesIO()
    with pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table, rows_of_a_batch)
    return file.getvalue()


def saved(at: str = "", features: Any = FEATURES, **data: bytes) -> Files:
    """As `save_to_disk` writes it."""
    of_its_format = {"_format_columns": None, "_format_kwargs": {}, "_format_type": None, "_output_all_columns": False}
    state = {"_data_files": [{"filename": f"{name}.arrow"} for name in data], "_fingerprint": "0", "_split": None}
    files = {f"{at}{name}.arrow": content for name, content in data.items()}
    about = {"dataset_info.json": {"features": features}, "state.json": state | of_its_format}
    return files | {f"{at}{name}": json.dumps(content).encode() for name, content in about.items()}


def lines(*rows: dict[str, Any]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


PAIRED = tar(("a.jpg", b"1"), ("a.txt", b"a fox"), ("b.jpg", b"2"), ("b.json", b'{"caption": "a hen", "label": "x"}'))
CAPTIONS = lines({"file_name": "a.png", "text": "a fox"}, {"file_name": "./b.png", "text": "a hen"})
CSV = b'\xef\xbb\xbffile_name,text\r\na.png,"a fox, red"\r\nb.png,a hen\r\n'
CUT = PAIRED[: PAIRED.index(b"a hen")]

GOOD: list[tuple[Files, Facts]] = [
    ({"a.png": b"12", "b.JPG": b"3", ".DS_Store": b"4"}, Facts("images", "nothing", 2, 3)),
    ({"all/a.png": b"1", "all/b.webp": b"2"}, Facts("images", "nothing", 2, 2)),
    ({"cat/a.png": b"1", "dog/a.png": b"2"}, Facts("images", "classes", 2, 2, ["cat", "dog"])),
    ({"train/1/a.png": b"1", "train/3/a.png": b"2"}, Facts("images", "classes", 2, 2, ["0", "1", "2", "3"])),
    ({"a.png": b"1", "b.png": b"2", "metadata.jsonl": CAPTIONS}, Facts("images", "captions", 2, 2 + len(CAPTIONS))),
    ({"a.png": b"1", "b.png": b"2", "metadata.csv": CSV}, Facts("images", "captions", 2, 2 + len(CSV))),
    (
        {"in/a.png": b"1", "in/metadata.csv": b"file_name,label\na.png,dog"},
        Facts("images", "classes", 1, 26, ["dog"]),
    ),
    ({"0.tar": PAIRED}, Facts("webdataset", "captions", 2, len(PAIRED), ["x"])),
    ({"0.tar": tar(("d/x.png", b"1"), ("d/y.png", b"2"), ("d/x.txt", b""))}, Facts("webdataset", "nothing", 2, 10240)),
    (
        {"0.tar": tar(("a.png", b"1"), ("a.cls", b"0\n")), "1.tar": tar(("a.cls", b"2"), ("a.png", b"1"))},
        Facts("webdataset", "classes", 2, 20480, ["0", "1", "2"]),
    ),
    ({"0.tar": tar(("a.png", b""), ("a.json", b"{"), ("b.json", b"[]"))}, Facts("webdataset", "nothing", 1, 10240)),
    ({"fox.txt": b"a fox\n\n a hen \r\n"}, Facts("prompts", "captions", 2, 16)),
    ({"fox.jsonl": b'{"prompt": "a fox"}', "hen.txt": b"a hen"}, Facts("prompts", "captions", 2, 24)),
]
SAVED: list[tuple[Files, str, int, list[str] | None]] = [
    (saved(one=arrow(ROWS), two=arrow(ROWS, 1)), "classes", 10, ["cat", "dog"]),
    ({**saved("train/", one=arrow(ROWS)), **saved("test/", one=arrow(ROWS)), "dataset_dict.json":
        b'{"splits": ["test", "train"]}'}, "classes", 5, ["cat", "dog"]),
    (saved(features=SPOKEN, one=arrow(CAPTIONED)), "captions", 2, None),
    ({"data/train-0.parquet": parquet(ROWS, FEATURES), "data/test-0.parquet": parquet(ROWS)}, "classes", 5,
        ["cat", "dog"]),
    ({"a.parquet": parquet(ROWS), "b.parquet": parquet(ROWS)}, "nothing", 10, None),
    ({"a.parquet": parquet(CAPTIONED)}, "captions", 2, None),
]  # fmt: skip

BAD: list[tuple[Files, str]] = [
    ({}, "There are 0 images, and no other files."),
    ({"a.heic": b"1"}, "There are 0 images, but a.heic."),
    ({"shards.tar.gz": b"1"}, "shards.tar.gz is compressed: unpack it"),
    ({"metadata.jsonl": CAPTIONS}, "It has captions and 0 images"),
    ({"a.png": b"1", "0.tar": PAIRED}, "several kinds of data, such as 0.tar and a.png"),
    ({"a.png": b"1", "model.pkl": b"1"}, "model.pkl is a pickle, which can run code"),
    ({"a.png": b"1", "load.py": b"1"}, "load.py is code"),
    ({"a.png": b"1", "b.png": b"2", "c.png": b"3", "metadata.jsonl": CAPTIONS},
        "metadata.jsonl has 2 lines for 3 images (no line for c.png)"),
    ({"a.png": b"1", "metadata.jsonl": CAPTIONS}, "2 lines for 1 images (no image for b.png)"),
    ({"a.png": b"1", "metadata.jsonl": CAPTIONS + b"\n" + CAPTIONS}, "names a.png twice"),
    ({"a.png": b"1", "metadata.jsonl": b'{"text": "a"}'}, "has no file_name in entry 1"),
    ({"a.png": b"1", "metadata.jsonl": b'{"file_name": "a.png"}'}, "neither caption nor text"),
    ({"a.png": b"1", "metadata.jsonl": b"[1]"}, "Line 1 of metadata.jsonl does not hold a JSON object"),
    ({"a.png": b"1", "metadata.jsonl": b"\xff"}, "is not text in UTF-8"),
    ({"a.png": b"1", "metadata.csv": b'file_name\n"a'}, "metadata.csv is not valid CSV"),
    ({"a.png": b"1", "a.txt": b"a fox"}, "a.txt looks like a caption"),
    ({"a.png": b"1", "cat/b.png": b"2"}, "a.png lie beside the folders of the classes"),
    ({"0/a.png": b"1", "99999/a.png": b"2"}, "a class number 99999, where 9,999 is the last"),
    ({"0.tar": CUT}, "0.tar ends too early"),
    ({"0.tar": PAIRED[:-10000].rstrip(b"\0")}, "copy it again"),
    ({"0.tar": b""}, "0.tar ends too early (empty file)"),
    ({"0.tar": tar(("a.png", Random(0).randbytes(999)), mode="w:gz")}, "0.tar is not a tar without compression"),
    ({"0.tar": tar(("a.png", b"1"), ("a.pyd", b"1"))}, "0.tar holds a.pyd, a pickle"),
    ({"0.tar": tar(("a.txt", b"1"))}, "There are 0 images in its tars"),
    ({"p.txt": b"\n \n"}, "p.txt holds no prompts"),
    ({"p.txt": b"fox\n" + b"a" * 2001}, "Line 2 of p.txt has 2,001 characters: a prompt has 2,000 at most"),
    ({"p.txt": b"a" * 100_001}, "p.txt has over 100,000 characters in line 1"),
    ({"p.jsonl": b'{"prompt": ""}'}, "Line 1 of p.jsonl has no prompt"),
    ({"p.jsonl": b"[" * 90_000}, "Line 1 of p.jsonl is not valid JSON"),
    ({"a.parquet": parquet(ROWS)[:-3]}, "a.parquet is no Parquet file, or is cut off: copy it again"),
    ({"a.parquet": parquet(ROWS), "b.parquet": parquet(CAPTIONED)}, "b.parquet has other columns than a.parquet"),
    ({"a.parquet": parquet(CAPTIONED.select(["text"]))}, "It has no column of images, but text"),
    ({"a.parquet": parquet(ROWS.slice(0, 0))}, "It has 0 rows"),
    (saved(one=arrow(ROWS)[:-9]), "one.arrow is no stream of Arrow, or is cut off: copy it again"),
    (saved(one=b"ARROW1\0\0\0\0"), "one.arrow is no stream of Arrow"),
    ({**saved(one=arrow(ROWS), two=b""), "two.arrow": arrow(ROWS), "dataset_info.json": b"{"}, "is not valid JSON"),
    ({name: content for name, content in saved(one=arrow(ROWS), two=arrow(ROWS)).items() if name != "two.arrow"},
        "state.json names two.arrow, which is not there"),
    ({"a/one.arrow": b"", "dataset_dict.json": b'{"splits": ["a", "b"]}'}, "has no split called train"),
    ({"one.arrow": arrow(ROWS)}, "dataset_info.json is missing"),
]  # fmt: skip


def found(root: Path, files: Files) -> Facts:
    (root / "data").mkdir(parents=True)
    for name, content in files.items():
        file = root / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return inspect(StoredData(Storage(root.as_uri()), "data"))


@pytest.mark.parametrize(("files", "facts"), GOOD)
def test_the_facts_of_every_format(files: Files, facts: Facts, tmp_path: Path) -> None:
    assert found(tmp_path, files) == facts


@pytest.mark.parametrize(("files", "content", "samples", "classes"), SAVED)
def test_the_facts_of_a_hugging_face_dataset(
    files: Files, content: str, samples: int, classes: list[str] | None, tmp_path: Path
) -> None:
    size = sum(map(len, files.values()))
    assert found(tmp_path, files) == Facts("huggingface", content, samples, size, classes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("files", "sentence"), BAD)
def test_what_is_wrong_is_said_in_a_sentence(files: Files, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(DataInvalid) as refused:
        found(tmp_path, files)
    (error,) = refused.value.pointers
    assert (error.pointer, error.detail) == ("/source", refused.value.detail)
    assert sentence in error.detail


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("nothing", "'nothing' is not a folder in the store"),
        ("a.txt", "put it into a folder of its own"),
        ("../a", "outside the store"),
    ],
)
def test_what_is_no_folder_of_the_store(path: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a fox")
    with pytest.raises(DataInvalid, match=sentence):
        StoredData(Storage(tmp_path.as_uri()), path)


def test_a_store_without_folders() -> None:
    """As S3 has none: its paths are prefixes."""
    store = Storage("memory://store")
    store._fs.pipe({"/store/data/cat/a.png": b"12", "/store/data/dog/a.png": b"3", "/store/data2/b.png": b"4"})
    assert inspect(StoredData(store, "data")) == Facts("images", "classes", 2, 3, ["cat", "dog"])


names = st.lists(
    st.text("ab/é", min_size=1, max_size=4).map(lambda s: s.strip("/") or "c"), unique=True, min_size=1, max_size=5
)


@settings(max_examples=60, deadline=None)
@given(st.data(), names, st.sets(st.sampled_from([".png", ".txt", ".cls"])))
def test_a_tar_that_is_cut_off_anywhere_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, stems: list[str], suffixes: set[str]
) -> None:
    content = {".cls": b"7"}
    suffixes = suffixes | {".jpg"}
    whole = tar(*((f"{stem}/x{end}", content.get(end, b"1" * 600)) for stem in stems for end in sorted(suffixes)))
    assert found(tmp_path_factory.mktemp("whole"), {"0.tar": whole}).samples == len(stems)
    end = -(-len(whole.rstrip(b"\0")) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    cut = data.draw(st.integers(0, end + tarfile.BLOCKSIZE - 1))
    with pytest.raises(DataInvalid, match="copy it again"):
        found(tmp_path_factory.mktemp("cut"), {"0.tar": whole[:cut]})


tables = st.lists(
    st.sampled_from(
        [
            pa.array([{"bytes": b"1", "path": {"a": "b"}}] * 3),
            pa.array([[1, 2], [], None]),
            pa.array([{"a": [{"b": 1}]}] * 3),
            pa.array(["x", None, "y"]),
        ]
    ),
    min_size=1,
    max_size=6,
).map(lambda columns: pa.table(columns, names=[f"column {i}" for i in range(len(columns))]))


@settings(max_examples=100, deadline=None)
@given(tables, st.data())
def test_footers_and_messages_are_read_as_their_library_writes_them(table: pa.Table, data: st.DataObject) -> None:
    """Whole, and cut off anywhere."""
    file, stream = parquet(table, {"é": 1}), arrow(table)
    seen = parquet_table(io.BytesIO(file))
    assert (seen.rows, seen.columns) == (table.num_rows, table.column_names)
    assert json.loads(seen.metadata["huggingface"]) == {"info": {"features": {"é": 1}}}
    assert arrow_rows(io.BytesIO(stream)) == table.num_rows
    for whole, read in ((file, parquet_table), (stream, arrow_rows)):
        cut = data.draw(st.integers(0, len(whole) - 1))
        with pytest.raises(NotColumnar):
            read(io.BytesIO(whole[:cut]))  # type: ignore[operator]
