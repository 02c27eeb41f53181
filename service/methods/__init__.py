"""The settings of every distillation method: what a user may write under `method`, with tested defaults.

Adding a method is one file here, one file of the same name in `workers/methods/`, and one line in each registry.
"""

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from service.methods.add import ADDSettings
from service.methods.ayf import AYFSettings
from service.methods.base import MethodSettings
from service.methods.boot import BootSettings
from service.methods.consistency import ConsistencySettings
from service.methods.ct import CTSettings
from service.methods.ctm import CTMSettings
from service.methods.diff_instruct import DiffInstructSettings
from service.methods.dmd import DMDSettings
from service.methods.dmd2 import DMD2Settings
from service.methods.ect import ECTSettings
from service.methods.emd import EMDSettings
from service.methods.f_distill import FDistillSettings
from service.methods.flowdreamer import FlowDreamerSettings
from service.methods.guidance import GuidanceSettings
from service.methods.ict import ICTSettings
from service.methods.instaflow import InstaFlowSettings
from service.methods.kd import KDSettings
from service.methods.ladd import LADDSettings
from service.methods.lcm import LCMSettings
from service.methods.lightning import LightningSettings
from service.methods.meanflow import MeanFlowSettings
from service.methods.moment_matching import MomentMatchingSettings
from service.methods.pcm import PCMSettings
from service.methods.perflow import PeRFlowSettings
from service.methods.progressive import ProgressiveSettings
from service.methods.reflow import ReflowSettings
from service.methods.scm import SCMSettings
from service.methods.scot import SCoTSettings
from service.methods.sdi import SDISettings
from service.methods.sds import SDSSettings
from service.methods.shortcut import ShortcutSettings
from service.methods.sid import SiDSettings
from service.methods.sida import SiDASettings
from service.methods.slimflow import SlimFlowSettings
from service.methods.snapfusion import SnapFusionSettings
from service.methods.swiftbrush import SwiftBrushSettings
from service.methods.tcd import TCDSettings
from service.methods.tract import TractSettings
from service.methods.ufogen import UFOGenSettings
from service.methods.vsd import VSDSettings

METHODS: dict[str, type[MethodSettings]] = {
    method.model_fields["kind"].default: method
    for method in (
        ProgressiveSettings,
        KDSettings,
        GuidanceSettings,
        SnapFusionSettings,
        TractSettings,
        BootSettings,
        SDSSettings,
        VSDSettings,
        SDISettings,
        DiffInstructSettings,
        SwiftBrushSettings,
        DMDSettings,
        DMD2Settings,
        FDistillSettings,
        MomentMatchingSettings,
        EMDSettings,
        SiDSettings,
        SiDASettings,
        ConsistencySettings,
        CTSettings,
        ICTSettings,
        ECTSettings,
        LCMSettings,
        TCDSettings,
        PCMSettings,
        CTMSettings,
        SCMSettings,
        ReflowSettings,
        InstaFlowSettings,
        SlimFlowSettings,
        PeRFlowSettings,
        FlowDreamerSettings,
        ShortcutSettings,
        SCoTSettings,
        MeanFlowSettings,
        AYFSettings,
        ADDSettings,
        LADDSettings,
        UFOGenSettings,
        LightningSettings,
    )
}
"""By `kind`, in the survey's order: fidelity, trajectory, adversarial."""

if TYPE_CHECKING:
    Method = MethodSettings
else:
    Method = Annotated[Union[tuple(METHODS.values())], Field(discriminator="kind")]  # noqa: UP007
