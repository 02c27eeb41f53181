"""WebDataset shards: the headers of tars, and the few small members that say what a dataset is. Nothing is decoded."""

import json
import tarfile
from dataclasses import dataclass
from typing import IO

from service.data_names import CAPTION_NAMES, IMAGES, LABEL_NAMES, field
from service.dataset_folder import JSON_LIMIT, DataFolder, Facts, class_names, refuse
from service.folder import PICKLES

UNSAFE = (*PICKLES, ".pyd")
"""WebDataset's own readers unpickle `.pyd` as well."""
CUT_OFF = ("unexpected end of data", "truncated header", "empty header", "empty file")
"""As `tarfile` says it."""
COPY = "it was cut off on its way; copy it again"


@dataclass
class Sample:
    """What the members of one stem are."""

    image: bool = False
    caption: bool = False
    label: str | None = None


def shards(folder: DataFolder) -> Facts:
    """Count what the tars of a folder hold. DataInvalid names the shard and the fix."""
    images = captions = classified = 0
    labels: set[str] = set()
    for file in folder.of(".tar"):
        for sample in read_shard(folder, file):
            images += sample.image
            captions += sample.image and sample.caption
            if sample.image and sample.label is not None:
                classified += 1
                labels.add(sample.label)
    if not images:
        refuse(f"There are 0 images in its tars: pack 000.png with 000.txt or 000.cls, as {', '.join(IMAGES)}.")
    if captions:
        return Facts("webdataset", "captions", captions, folder.size, class_names(labels))
    if classified:
        return Facts("webdataset", "classes", classified, folder.size, class_names(labels))
    return Facts("webdataset", "nothing", images, folder.size)


def read_shard(folder: DataFolder, file: str) -> list[Sample]:
    """The samples of one tar: members whose paths agree up to the first dot of the file's name."""
    samples: dict[str, Sample] = {}
    with folder.open(file) as source:
        try:
            with tarfile.open(fileobj=source, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]  # or all names of a shard would be kept
                    stem, suffix = _split(member.name)
                    if suffix.endswith(UNSAFE):
                        refuse(f"{file} holds {member.name}, a pickle, which can run code: pack it without it.")
                    if member.isfile():
                        _note(samples.setdefault(stem, Sample()), suffix, tar, member)
                _check_end(tar, source, folder.files[file], file)
        except tarfile.ReadError as error:
            if str(error) in CUT_OFF:
                refuse(f"{file} ends too early ({error}): {COPY}.")
            refuse(f"{file} is not a tar without compression ({error}): pack it again with `tar -cf`.")
        except (tarfile.TarError, ValueError, OverflowError) as error:
            refuse(f"{file} has a damaged header ({error}): {COPY}.")
    return list(samples.values())


def _split(name: str) -> tuple[str, str]:
    """'a/b.c.PNG' is of the stem 'a/b' and has the suffix '.c.png'."""
    folder, slash, file = name.rpartition("/")
    stem, dot, suffix = file.partition(".")
    return folder + slash + stem, (dot + suffix).lower()


def _note(sample: Sample, suffix: str, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    """What cannot be read is left out here; the job names it, and goes on without the sample."""
    if suffix in IMAGES:
        sample.image = True
    elif suffix == ".txt":
        sample.caption = member.size > 0
    elif suffix == ".cls":
        sample.label = _text(tar, member).strip() or None
    elif suffix == ".json":
        try:
            said = json.loads(_text(tar, member))
        except (ValueError, RecursionError):
            return
        if isinstance(said, dict):
            sample.caption = sample.caption or field(said, CAPTION_NAMES) is not None
            sample.label = sample.label or field(said, LABEL_NAMES)


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    """Of a small member; empty for one that is not small."""
    source = tar.extractfile(member)
    assert source is not None, "it is a file"
    return source.read().decode(errors="replace") if member.size <= JSON_LIMIT else ""


def _check_end(tar: tarfile.TarFile, source: IO[bytes], size: int, file: str) -> None:
    """A tar ends with zeros; one that was cut off between two members looks whole without them."""
    source.seek(tar.offset)
    if size < tar.offset + tarfile.BLOCKSIZE or source.read(tarfile.BLOCKSIZE).strip(b"\0"):
        refuse(f"{file} has no end: {COPY}.")
