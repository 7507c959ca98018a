"""All probes of a direction compared with the plan at once say what one by one says, in all columns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from isl_emu.parts.probes.compared import probe_table
from isl_emu.parts.probes.packets import FRAME_BYTE
from isl_emu.parts.probes.results import PROBES, probe_rows
from isl_emu.planned import plan_network
from isl_emu.routing.forwarding import plan_routes
from isl_emu.routing.paths import PathFinder
from isl_emu.scenario.parse import parse_scenario
from isl_emu.tables.planned_paths import PlannedPaths
from isl_emu.units import NS_PER_MS, NS_PER_S
from tests.scenarios import head, shell, station, table

LASERS = {"topology": "+grid", "rate": "1 Gbit/s"}
SKY = (
    head("probed", duration="400 s", step="5 s", rate_scale=0.01)
    + shell(66, 6, 2, pattern="star", altitude="780 km", inclination="86.4 deg", lasers=LASERS)
    + station("gs-a", latitude="20 deg", longitude="10 deg", min_elevation="8 deg")
    + station("gs-b", latitude="-10 deg", longitude="80 deg", min_elevation="30 deg", uplink="10 Mbit/s", aqm="codel")
)
FAULTS = (
    table("fault", name="gone", satellites="all", mtbf="10 min", mttr="1 min", effect="cut")
    + table("fault", name="unknown", satellites="all", mtbf="10 min", mttr="1 min", effect="cut", known="never")
    + table("fault", name="shaky", satellites="all", mtbf="5 min", mttr="1 min", effect="degrade", jitter="1 ms")
    + table("fault", name="blind", satellites="all", mtbf="20 min", mttr="1 min", effect="degrade", loss=1.0)
).replace("[fault]", "[[fault]]")
PAIRS = [("gs-a", "gs-b"), ("gs-b", "gs-a"), ("gs-a", "p00s00"), ("p00s00", "p02s05")]
OFF_NS = (0, 1, 2, 40_000, 3 * NS_PER_MS)


def _measured(paths: PlannedPaths, finder: PathFinder, count: int) -> tuple[list[Any], list[Any]]:
    """Probes twice an instant, early, late and lost, and samples of what left the ends on their ways."""
    random, records, samples = np.random.default_rng(1), [], []
    byte = dict.fromkeys(range(0, 400), 0)
    for number in range(2 * count):
        at_ns = number * 2_500_000_000
        for lag_ns, (a, b) in enumerate(PAIRS):
            send_ns = at_ns + lag_ns
            way = paths.at(a, b, paths.instant(send_ns))
            record = {"a": a, "b": b, "seq": number, "t_send_ns": send_ns, "delay_ns": None, "hops_seen": None}
            if way and random.random() < 0.9:
                more_ns = int(random.choice(OFF_NS)) + paths.serialisation_ns(way, paths.instant(send_ns), FRAME_BYTE)
                record |= {"delay_ns": way.delay_ns + more_ns, "hops_seen": way.hops}
            elif random.random() < 0.5:
                record["lost_by"] = "p00s01: no route"
            records.append(record)
        byte = {end: sent + int(random.choice((0, 0, 58, 1500, 40_000))) for end, sent in byte.items()}
        samples.append({"t_ns": at_ns + 700, "byte": {str(end): sent for end, sent in byte.items() if end % 7}})
    return records, samples


@pytest.mark.parametrize("faults", ["", FAULTS])
def test_all_at_once_is_what_one_by_one_is(faults: str) -> None:
    planned = plan_network(parse_scenario(SKY + faults, "probed"))
    plan = planned.link_plan
    finder = PathFinder(plan, plan_routes(plan, planned.scenario.routing))
    late_ns = {k: 5 * k * NS_PER_S + k % 3 * 40 * NS_PER_MS for k in range(0, plan.grid.count, 2)}
    paths = PlannedPaths(plan, finder, late_ns)
    records, samples = _measured(paths, finder, plan.grid.count)
    disturbed = [(30 * NS_PER_S, 40 * NS_PER_S), (390 * NS_PER_S, math.inf)]
    expected = pa.Table.from_pylist(probe_rows(records, paths, samples, disturbed), schema=PROBES)
    assert probe_table(records, paths, samples, disturbed).equals(expected)
    for column in ("straddles_change", "planned_delay_ns", "queued_most_ns", *(["cut", "jitter_ns"] if faults else [])):
        assert len(expected[column].unique()) > 1, f"{column} is the same for all, so this says nothing of it"
    assert expected["planned_delay_ns"].null_count
    assert probe_table([], paths, samples).equals(PROBES.empty_table())
