"""Every method by the `kind` that a spec names."""

from typing import Any

from workers.methods.add import ADD
from workers.methods.ayf import AYF
from workers.methods.base import Method
from workers.methods.boot import Boot
from workers.methods.consistency import Consistency
from workers.methods.ct import CT
from workers.methods.ctm import CTM
from workers.methods.diff_instruct import DiffInstruct
from workers.methods.dmd import DMD
from workers.methods.dmd2 import DMD2
from workers.methods.ect import ECT
from workers.methods.emd import EMDistillation
from workers.methods.f_distill import FDistill
from workers.methods.flowdreamer import FlowDreamer
from workers.methods.guidance import Guidance
from workers.methods.ict import ICT
from workers.methods.instaflow import InstaFlow
from workers.methods.kd import KD
from workers.methods.ladd import LADD
from workers.methods.lcm import LCM
from workers.methods.lightning import Lightning
from workers.methods.meanflow import MeanFlow
from workers.methods.moment_matching import MomentMatching
from workers.methods.pcm import PCM
from workers.methods.perflow import PeRFlow
from workers.methods.progressive import Progressive
from workers.methods.reflow import Reflow
from workers.methods.scm import SCM
from workers.methods.scot import SCoT
from workers.methods.sdi import SDI
from workers.methods.sds import SDS
from workers.methods.shortcut import Shortcut
from workers.methods.sid import SiD
from workers.methods.sida import SiDA
from workers.methods.slimflow import SlimFlow
from workers.methods.snapfusion import SnapFusion
from workers.methods.swiftbrush import SwiftBrush
from workers.methods.tcd import TCD
from workers.methods.tract import Tract
from workers.methods.ufogen import UFOGen
from workers.methods.vsd import VSD

REGISTRY: dict[str, type[Method[Any]]] = {
    "progressive": Progressive,
    "kd": KD,
    "guidance": Guidance,
    "snapfusion": SnapFusion,
    "tract": Tract,
    "boot": Boot,
    "sds": SDS,
    "vsd": VSD,
    "sdi": SDI,
    "diff_instruct": DiffInstruct,
    "swiftbrush": SwiftBrush,
    "dmd": DMD,
    "dmd2": DMD2,
    "f_distill": FDistill,
    "moment_matching": MomentMatching,
    "emd": EMDistillation,
    "sid": SiD,
    "sida": SiDA,
    "consistency": Consistency,
    "ct": CT,
    "ict": ICT,
    "ect": ECT,
    "lcm": LCM,
    "tcd": TCD,
    "pcm": PCM,
    "ctm": CTM,
    "scm": SCM,
    "reflow": Reflow,
    "instaflow": InstaFlow,
    "slimflow": SlimFlow,
    "perflow": PeRFlow,
    "flowdreamer": FlowDreamer,
    "shortcut": Shortcut,
    "scot": SCoT,
    "meanflow": MeanFlow,
    "ayf": AYF,
    "add": ADD,
    "ladd": LADD,
    "ufogen": UFOGen,
    "lightning": Lightning,
}
