"""The settings of every distillation method: what a user may write under `method`, with tested defaults.

Adding a method is one file here, one file of the same name in `workers/methods/`, and one line in each registry.
"""

from typing import Annotated

from pydantic import Field

from service.methods.base import MethodSettings
from service.methods.consistency import ConsistencySettings
from service.methods.dmd2 import DMD2Settings
from service.methods.progressive import ProgressiveSettings

__all__ = ["METHODS", "ConsistencySettings", "DMD2Settings", "Method", "MethodSettings", "ProgressiveSettings"]

Method = Annotated[
    ProgressiveSettings | ConsistencySettings | DMD2Settings,
    Field(discriminator="kind"),
]

METHODS: dict[str, type[MethodSettings]] = {
    "progressive": ProgressiveSettings,
    "consistency": ConsistencySettings,
    "dmd2": DMD2Settings,
}
