"""Every method by the `kind` that a spec names."""

from typing import Any

from workers.methods.base import Method
from workers.methods.consistency import Consistency
from workers.methods.dmd2 import DMD2
from workers.methods.progressive import Progressive

REGISTRY: dict[str, type[Method[Any]]] = {
    "progressive": Progressive,
    "consistency": Consistency,
    "dmd2": DMD2,
}
