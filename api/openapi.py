"""Prints the OpenAPI document, from which the dashboard's types are made: `python -m api.openapi`."""

import json
import sys
import tempfile
from pathlib import Path

from api.app import create_app
from service.settings import Settings


def document() -> str:
    """The document as it is checked in: indented, keys in the order of the code."""
    with tempfile.TemporaryDirectory() as home:
        return json.dumps(create_app(Settings(home=Path(home))).openapi(), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
