"""What the commands of `fewstep` share: the client, errors as one sentence, and JSON for programs."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer
from pydantic import BaseModel

from api.client import Client, ServerError
from api.render import console
from service.settings import Settings, WrongSetting, load

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@contextmanager
def server() -> Iterator[Client]:
    """A client whose errors end the command with one sentence."""
    try:
        with Client() as client:
            yield client
    except (ServerError, TimeoutError, WrongSetting) as error:
        fail(str(error))


def operator_settings() -> Settings:
    """The settings; wrong ones end the command with one sentence."""
    try:
        return load()
    except WrongSetting as error:
        fail(str(error))


def fail(message: str) -> NoReturn:
    console.print(f"[red]error[/] {message}", soft_wrap=True, highlight=False)
    raise typer.Exit(1)


def print_json(value: BaseModel | Iterable[BaseModel] | dict[str, Any]) -> None:
    if isinstance(value, BaseModel):
        data: Any = value.model_dump(mode="json")
    elif isinstance(value, dict):
        data = value
    else:
        data = [entry.model_dump(mode="json") for entry in value]
    sys.stdout.write(json.dumps(data, indent=2) + "\n")
