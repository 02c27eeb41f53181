"""Teachers: diffusers folders that were checked, without running anything of theirs, before any job may name them."""

import difflib
import hashlib
import importlib.util
import json
import math
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from sqlalchemy import ColumnElement, bindparam, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from service.db import insert_once
from service.errors import Conflict, InvalidRequest, NotFound, Pointer, TeacherInvalid
from service.ids import is_id, new_id
from service.noise_schedule import NO_SIGNAL, last_alpha
from service.storage import Storage
from service.tables import Job, Teacher

BUILTIN = "builtin:digits"
SHARED = ""
"""The project of teachers that every project may use."""
JOBS = "jobs"
"""The store's folder in which each job has its own, by id."""
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
HEADER_LIMIT = 10_000_000
"""Bytes of a safetensors header; the largest published UNets need under one megabyte."""


@dataclass(frozen=True)
class Facts:
    """What a teacher's folder says of itself."""

    pipeline: str
    scheduler: str
    prediction_type: str
    image_size: list[int]
    num_classes: int | None
    parameters: int
    sha256: str


def inspect(store: Storage, folder: str) -> Facts:
    """Read a diffusers folder's JSON files and weight headers. TeacherInvalid names the file and the fix.

    Reads all weights once, for their hash; loads and runs nothing.
    """
    try:
        store.url_of(folder)
        folder = str(PurePosixPath(folder))
        if not store.is_folder(folder):
            _refuse(f"'{folder}' is not a folder in the store; put the teacher there and give its path.")
        files = [path.removeprefix(f"{folder}/") for path in store.files(folder)]
    except InvalidRequest as error:
        raise TeacherInvalid(error.detail, [Pointer("/source", error.detail)]) from error
    for file in files:
        if file.endswith(PICKLES):
            _refuse(f"{file} is a pickle, which can run code when it is loaded: convert it to safetensors, remove it.")
        if file.endswith(".py"):
            _refuse(f"{file} is code, which a teacher may not bring: remove it.")
    index = _json(store, folder, files, "model_index.json", "save the teacher with pipeline.save_pretrained(folder)")
    unet = _json(store, folder, files, "unet/config.json", "save it with unet.save_pretrained(folder/unet)")
    scheduler = _json(
        store, folder, files, "scheduler/scheduler_config.json", "save the teacher's noise schedule beside its unet"
    )
    if unet.get("_class_name") != "UNet2DModel":
        _refuse(f"unet/config.json is of class {unet.get('_class_name')!r}; only UNet2DModel teachers are supported.")
    prediction_type = scheduler.get("prediction_type", "epsilon")
    if prediction_type not in PREDICTION_TYPES:
        known = ", ".join(PREDICTION_TYPES)
        _refuse(f"scheduler/scheduler_config.json has prediction_type {prediction_type!r}; known are {known}.")
    if prediction_type == "epsilon":
        _refuse_without_signal(scheduler)
    weights = sorted(file for file in files if file.startswith("unet/") and file.endswith(".safetensors"))
    if not weights:
        _refuse("unet/ holds no .safetensors file: save the weights with safe_serialization=True.")
    shapes: dict[str, list[int]] = {}
    digest = hashlib.sha256()
    for file in weights:
        shapes |= _read_weights(store, f"{folder}/{file}", file, digest)
    return Facts(
        pipeline=str(index.get("_class_name", "")),
        scheduler=str(scheduler.get("_class_name", "")),
        prediction_type=prediction_type,
        image_size=_image_size(unet),
        num_classes=_num_classes(unet, shapes),
        parameters=sum(math.prod(shape) for shape in shapes.values()),
        sha256=digest.hexdigest(),
    )


def inspect_builtin() -> Facts:
    """The digits teacher that ships with the workers, found without importing them."""
    spec = importlib.util.find_spec("workers")
    if spec is None or not spec.submodule_search_locations:
        raise TeacherInvalid(f"{BUILTIN} ships in the package `workers`, which is not installed.")
    assets = Path(next(iter(spec.submodule_search_locations))) / "assets" / "digits"
    return inspect(Storage(f"file://{assets}"), "teacher")


async def check_source(session: AsyncSession, project_id: str, source: str) -> None:
    """TeacherInvalid for what jobs of other projects left in the store: to this project, it is not there."""
    top, *rest = PurePosixPath(source).parts or (".",)
    if top == JOBS:
        job_id = rest[0] if rest and is_id(rest[0], "job") else ""
        owner = await session.scalar(select(Job.project_id).where(Job.id == job_id))
        if owner != project_id:
            _refuse(f"'{source}' is not a folder in the store; put the teacher there and give its path.")


async def register(
    session: AsyncSession, project_id: str, name: str, source: str, facts: Facts, now: datetime
) -> Teacher:
    """Store a teacher that was inspected. Conflict when the name is taken."""
    if await session.scalar(select(Teacher.id).where(_visible(project_id), Teacher.name == name)) is not None:
        raise Conflict(f"There is a teacher called '{name}' already; choose another name.")
    teacher = Teacher(
        id=new_id("tea"), project_id=project_id, name=name, source=source, created_at=now, **asdict(facts)
    )
    session.add(teacher)
    await session.flush()
    return teacher


async def ensure_builtin(session: AsyncSession, facts: Facts, now: datetime) -> None:
    """Register the digits teacher for every project; at a later start, its figures follow the installed version."""
    row = {
        "id": new_id("tea"),
        "project_id": SHARED,
        "name": "digits",
        "source": BUILTIN,
        "created_at": now,
        **asdict(facts),
    }
    await insert_once(session, Teacher, [row], ["project_id", "name"], update=list(asdict(facts)))


_MINE = or_(Teacher.project_id == bindparam("project_id"), Teacher.project_id == SHARED)
_BY_ID = select(Teacher).where(_MINE, Teacher.id == bindparam("teacher"))
_BY_NAME = select(Teacher).where(_MINE, Teacher.name == bindparam("teacher"))


async def find(session: AsyncSession, project_id: str, teacher: str, pointer: str = "/teacher") -> Teacher:
    """By name or id. InvalidRequest, naming the near ones, when a request names a teacher that is not there."""
    query = _BY_ID if is_id(teacher, "tea") else _BY_NAME
    asked = {"project_id": project_id, "teacher": teacher}
    found = await session.scalar(query, asked) if "\0" not in teacher else None
    if found is None:
        names = (
            await session.scalars(select(Teacher.name).where(_visible(project_id)).order_by(Teacher.name).limit(100))
        ).all()
        near = difflib.get_close_matches(teacher, names, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        detail = f"There is no such teacher; {hint}Registered are: {', '.join(names[:10]) or 'none yet'}."
        raise InvalidRequest(detail, [Pointer(pointer, detail)])
    return found


async def get(session: AsyncSession, project_id: str, teacher: str) -> Teacher:
    """By name or id. NotFound."""
    try:
        return await find(session, project_id, teacher)
    except InvalidRequest as error:
        raise NotFound(error.detail) from error


async def page(session: AsyncSession, project_id: str, *, limit: int, after: str | None = None) -> Sequence[Teacher]:
    """The newest first, starting below the id `after`; up to `limit` + 1."""
    query = select(Teacher).where(_visible(project_id)).order_by(Teacher.id.desc()).limit(limit + 1)
    if after is not None:
        query = query.where(Teacher.id < after)
    return (await session.scalars(query)).all()


def _visible(project_id: str) -> ColumnElement[bool]:
    """The project's own teachers, and those of everybody."""
    return Teacher.project_id.in_((project_id, SHARED))


def _refuse(detail: str) -> NoReturn:
    raise TeacherInvalid(detail, [Pointer("/source", detail)])


def _refuse_without_signal(scheduler: dict[str, Any]) -> None:
    file = "scheduler/scheduler_config.json"
    try:
        left = last_alpha(scheduler)
    except (TypeError, ValueError, ArithmeticError):
        _refuse(f"{file} has a noise schedule of values that are no numbers: save it with save_pretrained().")
    if left is not None and left < NO_SIGNAL:
        _refuse(
            f"The teacher predicts epsilon, and by {file} its last timestep is pure noise, from where epsilon says "
            "nothing of the image: no few-step student can start there. Use a teacher that predicts v_prediction or "
            "sample, or one with a noise schedule that leaves some signal, such as linear or scaled_linear."
        )


def _json(store: Storage, folder: str, files: list[str], file: str, fix: str) -> dict[str, Any]:
    if file not in files:
        _refuse(f"{file} is missing: {fix}.")
    try:
        content = json.loads(store.read(f"{folder}/{file}"))
    except (ValueError, RecursionError):
        _refuse(f"{file} is not valid JSON: {fix}.")
    if not isinstance(content, dict):
        _refuse(f"{file} does not hold a JSON object: {fix}.")
    return content


def _read_weights(store: Storage, path: str, file: str, digest: Any) -> dict[str, list[int]]:
    """Shapes by tensor name, from a safetensors header; the whole file goes through `digest`."""
    with store.open(path) as source:
        start = source.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        header = source.read(length) if length <= HEADER_LIMIT else b""
        digest.update(start + header)
        payload = 0
        while chunk := source.read(1 << 20):
            digest.update(chunk)
            payload += len(chunk)
    try:
        entries = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
        shapes = {name: [int(n) for n in entry["shape"]] for name, entry in entries.items()}
        end = max(int(entry["data_offsets"][1]) for entry in entries.values())
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        _refuse(f"{file} is not a safetensors file: save the weights with safe_serialization=True.")
    if payload != end:
        _refuse(f"{file} is damaged ({payload} bytes of weights, where its header says {end}): copy it again.")
    return shapes


def _image_size(unet: dict[str, Any]) -> list[int]:
    """[channels, height, width]"""
    size, channels = unet.get("sample_size"), unet.get("in_channels")
    sides = [size, size] if isinstance(size, int) else size
    if not (isinstance(sides, list) and len(sides) == 2 and all(_is_size(side) for side in sides)):
        _refuse("unet/config.json has no sample_size: set it to the image's height, or to [height, width].")
    if not _is_size(channels) or channels != unet.get("out_channels"):
        _refuse("unet/config.json must have in_channels equal to out_channels: the image's channels.")
    return [channels, *sides]


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65_536


def _num_classes(unet: dict[str, Any], shapes: dict[str, list[int]]) -> int | None:
    """From num_class_embeds, whose last embedding stands for "no class"; the weights' shapes must agree."""
    embeddings = unet.get("num_class_embeds")
    expected = {"conv_in.weight": (1, unet["in_channels"]), "conv_out.weight": (0, unet["out_channels"])}
    if embeddings is not None:
        if not _is_size(embeddings) or embeddings < 2:
            _refuse("unet/config.json needs num_class_embeds of at least 2: the classes, and one for 'no class'.")
        expected["class_embedding.weight"] = (0, embeddings)
    for name, (axis, length) in expected.items():
        shape = shapes.get(name)
        if shape is None or len(shape) <= axis or shape[axis] != length:
            _refuse(
                f"The weights do not fit unet/config.json: {name} has shape {shape or 'none'}, and its axis {axis} "
                f"must be {length}; save config and weights together with save_pretrained()."
            )
    return None if embeddings is None else embeddings - 1
