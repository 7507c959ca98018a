"""All parts that a run can carry, in the order in which the summary tells of them, and where they need routes to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.parts.captures.part import CapturesPart
from isl_emu.parts.faults.part import FaultsPart
from isl_emu.parts.hardware.part import HardwarePart
from isl_emu.parts.kv_handover.part import KvHandoverPart
from isl_emu.parts.metadata.part import MetadataPart
from isl_emu.parts.nodes.part import NodesPart
from isl_emu.parts.observation.part import ObservationPart
from isl_emu.parts.part import EVERY_NODE_UP_TO, Part
from isl_emu.parts.power.part import PowerPart
from isl_emu.parts.probes.part import ProbesPart
from isl_emu.parts.programs.part import ProgramsPart
from isl_emu.parts.questions.part import QuestionsPart
from isl_emu.parts.routing.part import RoutingPart
from isl_emu.parts.serving.part import ServingPart
from isl_emu.parts.split.part import SplitPart
from isl_emu.parts.substrate.part import SubstratePart
from isl_emu.parts.training.part import TrainingPart
from isl_emu.parts.uplink.part import UplinkPart
from isl_emu.parts.way_out.part import WayOutPart
from isl_emu.scenario.model import Scenario

PARTS: Sequence[Part] = (
    NodesPart(),  # first: nothing runs in a node yet
    WayOutPart(),
    HardwarePart(),
    RoutingPart(),  # first: what others send before instant 0 needs routes
    QuestionsPart(),
    ServingPart(),
    SplitPart(),
    KvHandoverPart(),
    UplinkPart(),
    ObservationPart(),
    ProbesPart(),
    PowerPart(),
    MetadataPart(),
    ProgramsPart(),
    CapturesPart(),
    TrainingPart(),
    SubstratePart(),
    FaultsPart(),  # last: what the others run is known to it by then
)


def active_endpoints(scenario: Scenario, plan: LinkPlan) -> np.ndarray:
    """The destinations of a run: all nodes of a small network, and those with traffic of a large one.

    Traffic have the stations, both ends of every pair with disjoint paths, and the endpoints of all parts. Other
    satellites of a large network forward, and can be reached by their neighbours only.

    Returns:
        Node indices in rising order, int64, shape (D,).
    """
    names = plan.nodes.names
    if len(names) <= EVERY_NODE_UP_TO:
        return np.arange(len(names))
    disjoint = scenario.routing.disjoint
    active = {*scenario.station_names, *(name for pair in (disjoint.pairs if disjoint else ()) for name in pair)}
    for part in PARTS:
        active.update(part.endpoints(scenario, plan))
    return np.array([node for node, name in enumerate(names) if name in active], dtype=np.int64)
