"""All parts that a run can carry, in the order in which the summary tells of them."""

from __future__ import annotations

from collections.abc import Sequence

from isl_emu.parts.kv_handover.part import KvHandoverPart
from isl_emu.parts.part import Part
from isl_emu.parts.power.part import PowerPart
from isl_emu.parts.probes.part import ProbesPart
from isl_emu.parts.programs.part import ProgramsPart
from isl_emu.parts.questions.part import QuestionsPart
from isl_emu.parts.serving.part import ServingPart
from isl_emu.parts.split.part import SplitPart
from isl_emu.parts.training.part import TrainingPart
from isl_emu.parts.uplink.part import UplinkPart

PARTS: Sequence[Part] = (
    QuestionsPart(),
    ServingPart(),
    SplitPart(),
    KvHandoverPart(),
    UplinkPart(),
    ProbesPart(),
    PowerPart(),
    ProgramsPart(),
    TrainingPart(),
)
