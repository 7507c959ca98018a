"""How fast the sky is planned: positions against SGP4 alone and against Skyfield's objects, terminals against a loop
over links, and whole plans by size.

    .venv/bin/python tests/benchmarks/bench_sky.py [--rounds 5] [--duration 600s] [--many] [SCENARIO ...]

All ways of one round are measured one after the other in one process; a ratio is the median over the rounds, so a
machine that is busy with something else for a while does not decide. Each plan is made in a process of its own, whose
peak memory the kernel tells, once in one thread and once in as many as there are CPUs. Scenarios given are planned
beside the built-in ones, and with --many three shells of 10,000.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from rich.console import Console
from rich.table import Table
from sgp4.api import WGS72, Satrec, SatrecArray
from skyfield.api import EarthSatellite, load

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from isl_emu.geometry.elements import Elements, constellation_elements  # noqa: E402
from isl_emu.geometry.orbits import propagate  # noqa: E402
from isl_emu.linkplan import acquisition, terminals  # noqa: E402
from isl_emu.linkplan.build import plan_links  # noqa: E402
from isl_emu.parts.registry import active_endpoints  # noqa: E402
from isl_emu.planned import in_threads  # noqa: E402
from isl_emu.routing.forwarding import plan_routes  # noqa: E402
from isl_emu.scenario.parse import format_scenario, load_scenario, parse_scenario, with_changes  # noqa: E402
from isl_emu.units import NS_PER_S  # noqa: E402
from tests.assigning import assigned_in_turn  # noqa: E402
from tests.scenarios import head, shell, station  # noqa: E402

INSTANTS = 180  # at 1 s
OBJECTS = 40  # satellites that the slow ways are measured with, and
OBJECT_INSTANTS = 10  # instants; their cost per position does not depend on either
FEW_S = 20  # of plans whose links get their terminals one by one
MANY = 10_000  # satellites, whose plan takes minutes
LASERS = """
topology = "+grid"
max_range = "5000 km"
sun_exclusion = "3 deg"
max_angular_rate = "1 deg/s"
polar_cutoff = "75 deg"
[[shell.lasers.terminal]]
mounts = ["fore", "aft", "port", "starboard", "zenith", "nadir"]
field_of_regard = "70 deg"
slew_rate = "2 deg/s"
acquisition = "12 s"
"""
BETWEEN_SHELLS = """
[[inter_shell]]
between = ["s0", "s1"]
topology = "nearest"
max_range = "3000 km"
[[inter_shell]]
between = ["s1", "s2"]
topology = "nearest"
max_range = "3000 km"
"""
# total, planes, pattern, altitude, inclination of each shell
BUILT_IN = {
    "66": [(66, 6, "star", "780 km", "86.4 deg")],
    "1156": [(1156, 34, "delta", "630 km", "51.9 deg")],
    "2800": [
        (1000, 25, "delta", "550 km", "sun-synchronous"),
        (1000, 40, "delta", "800 km", "sun-synchronous"),
        (800, 20, "delta", "950 km", "35 deg"),
    ],
    "30000": [
        (10000, 100, "delta", "550 km", "53 deg"),
        (10000, 100, "delta", "570 km", "70 deg"),
        (10000, 100, "delta", "590 km", "43 deg"),
    ],
}


def scenario_text(name: str) -> str:
    """A built-in scenario: shells with lasers that are constrained and acquire, eight stations, 10 minutes at 1 s."""
    shells = "".join(
        shell(
            total, planes, 1, name=f"s{number}", pattern=pattern, altitude=altitude, inclination=inclination, lasers={}
        )
        + LASERS
        for number, (total, planes, pattern, altitude, inclination) in enumerate(BUILT_IN[name])
    )
    places = [{"latitude": f"{60 - 15 * number} deg", "longitude": f"{number * 45 - 170} deg"} for number in range(8)]
    stations = "".join(
        station(f"gs-{number}", min_elevation="25 deg", antennas=2, **place) for number, place in enumerate(places)
    )
    between = BETWEEN_SHELLS if len(BUILT_IN[name]) > 1 else ""
    return head(f"bench-{name}", duration="600 s") + shells + between + stations


def seconds(action: Callable[[], object]) -> float:
    """How much processor time an action takes; all have one thread, and waiting for other processes is not theirs."""
    begun = time.process_time()
    action()
    return time.process_time() - begun


def satrecs(elements: Elements, count: int) -> list[Satrec]:
    """The same satellites without our propagation."""
    made, day = [], (elements.epoch - datetime(1949, 12, 31, tzinfo=timezone.utc)) / timedelta(days=1)
    columns = (
        elements.eccentricity,
        elements.arg_perigee_rad,
        elements.inclination_rad,
        elements.mean_anomaly_rad,
        elements.mean_motion_rad_min,
        elements.raan_rad,
    )
    for row in zip(*(column[:count].tolist() for column in columns), strict=True):
        satrec = Satrec()
        satrec.sgp4init(WGS72, "i", 1, day, 0.0, 0.0, 0.0, *row)
        made.append(satrec)
    return made


class Positions:
    """The ways to the positions of 2,800 satellites; each measures itself in satellite-epochs per second."""

    def __init__(self) -> None:
        self._scenario = parse_scenario(scenario_text("2800"), "built-in")
        self._start = self._scenario.time.start
        self._elements = constellation_elements(self._scenario)
        self._satrecs = satrecs(self._elements, len(self._elements.names))
        self._array = SatrecArray(self._satrecs)
        self._timescale = load.timescale(builtin=True)
        self._objects = [EarthSatellite.from_satrec(one, self._timescale) for one in self._satrecs[:OBJECTS]]

    def array_alone(self) -> float:
        """`SatrecArray.sgp4` on satellites made before, as the sgp4 package hands them out."""
        day = self._satrecs[0].jdsatepoch
        fractions = self._satrecs[0].jdsatepochF + np.arange(INSTANTS) / 86_400
        took_s = seconds(lambda: self._array.sgp4(np.full(INSTANTS, day), fractions))
        return len(self._satrecs) * INSTANTS / took_s

    def ours(self) -> float:
        """`propagate` from elements to checked positions, ordered by instant."""
        took_s = seconds(lambda: propagate(self._elements, self._start, np.arange(INSTANTS) * NS_PER_S))
        return len(self._satrecs) * INSTANTS / took_s

    def objects_over_instants(self) -> float:
        """Skyfield, each object once over an array of times."""
        times = self._timescale.utc(2026, 3, 20, 14, 0, np.arange(INSTANTS))
        took_s = seconds(lambda: [one.at(times).position.km for one in self._objects])
        return OBJECTS * INSTANTS / took_s

    def object_by_object(self) -> float:
        """Skyfield, each object at each instant: the loop of StarryNet, Celestial and others."""
        times = [self._timescale.utc(2026, 3, 20, 14, 0, k) for k in range(OBJECT_INSTANTS)]
        took_s = seconds(lambda: [[one.at(t).position.km for one in self._objects] for t in times])
        return OBJECTS * OBJECT_INSTANTS / took_s


def positions(rounds: int) -> Table:
    """Satellite-epochs a second by each way, and as a ratio to SGP4 alone."""
    ways = Positions()
    names = {
        "SatrecArray alone": ways.array_alone,
        "isl-emu": ways.ours,
        "Skyfield, object by object, all instants at once": ways.objects_over_instants,
        "Skyfield, object by object, instant by instant": ways.object_by_object,
    }
    found = [{name: measure() for name, measure in names.items()} for _ in range(rounds)]
    table = Table("positions by", "satellite-epochs/s", "x SatrecArray alone", "range", title="Positions")
    for name in names:
        ratios = [one[name] / one["SatrecArray alone"] for one in found]
        span = f"{min(ratios):.2g} to {max(ratios):.2g}"
        rate = statistics.median(one[name] for one in found)
        table.add_row(name, f"{rate:,.0f}", f"{statistics.median(ratios):.2g}", span)
    return table


def assignments(rounds: int) -> Table:
    """Plans whose terminals are given to links in rounds of array operations, and link by link."""

    def planned_s(assign: Callable[..., Any]) -> tuple[float, str]:
        with patch.object(acquisition, "assign", assign):
            digests = list[str]()
            took_s = seconds(lambda: digests.append(plan_links(scenario, "").digest()))
        return took_s, digests[0]

    table = Table("satellites", "isl-emu", "link by link", "x", "range", title=f"Plans of {FEW_S} s with terminals")
    for name in ("1156", "2800"):
        scenario = with_changes(parse_scenario(scenario_text(name), "built-in"), time={"duration": f"{FEW_S} s"})
        found = [(planned_s(terminals.assign), planned_s(assigned_in_turn)) for _ in range(rounds)]
        assert len({digest for both in found for _, digest in both}) == 1, f"{name}: the loop makes another plan"
        ratios = [in_turn_s / ours_s for (ours_s, _), (in_turn_s, _) in found]
        ours_s, in_turn_s = (statistics.median(both[way][0] for both in found) for way in (0, 1))
        span = f"{min(ratios):.2g} to {max(ratios):.2g}"
        table.add_row(name, f"{ours_s:.2f} s", f"{in_turn_s:.2f} s", f"{statistics.median(ratios):.2g}", span)
    return table


def plan_once(source: str, duration: str, threads: int) -> dict[str, float | str]:
    """Plan one scenario in this process, and tell what it took.

    Args:
        threads: in which what depends on no other instant is computed; 0 for none but this one.
    """
    path = Path(source)
    scenario = parse_scenario(scenario_text(source), "built-in") if source in BUILT_IN else load_scenario(path)
    scenario = with_changes(scenario, time={"duration": duration})
    plan_s = -time.perf_counter()
    plan = plan_links(scenario, format_scenario(scenario), partial(in_threads, threads) if threads else map)
    plan_s += time.perf_counter()
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    routes_s = seconds(lambda: plan_routes(plan, scenario.routing, active_endpoints(scenario, plan)))
    return {
        "name": scenario.name,
        "satellites": len(scenario.satellite_names),
        "instants": plan.grid.count,
        "rows": len(plan.row_link),
        "digest": plan.digest(),
        "plan_s": plan_s,
        "routes_s": routes_s,
        "peak_mib": peak_mib,
        "peak_with_routes_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def plans(sources: list[str], duration: str) -> Table:
    """Time and peak memory of whole plans, each in a process of its own."""
    threads = len(os.sched_getaffinity(0))
    heads = "scenario", "satellites", "instants", "rows", "plan", "peak", f"{threads} threads", "x", "peak"
    table = Table(*heads, "routes", "peak", title="Plans, in one thread and in several")
    for source in sources:
        command = [sys.executable, __file__, "--one", source, "--duration", duration, "--threads"]
        found, several = (
            json.loads(subprocess.run([*command, str(count)], check=True, capture_output=True, text=True).stdout)
            for count in (0, threads)
        )
        assert several["digest"] == found["digest"], f"{source}: threads make another plan"
        table.add_row(
            found["name"],
            *(f"{found[column]:,}" for column in ("satellites", "instants", "rows")),
            f"{found['plan_s']:.2f} s",
            f"{found['peak_mib']:,.0f} MiB",
            f"{several['plan_s']:.2f} s",
            f"{found['plan_s'] / several['plan_s']:.2f}",
            f"{several['peak_mib']:,.0f} MiB",
            f"{found['routes_s']:.2f} s",
            f"{found['peak_with_routes_mib']:,.0f} MiB",
        )
    return table


def machine() -> str:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    load_1, *_ = os.getloadavg()
    return (
        f"{os.cpu_count()} x {model}, Linux {platform.release()}, Python {platform.python_version()}, "
        f"numpy {np.__version__}; load {load_1:.1f} at the start"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", help="scenario files to plan beside the built-in ones")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration", default="600s", help="of each plan")
    parser.add_argument("--many", action="store_true", help="plan 30,000 satellites too")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=0, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(plan_once(chosen.one, chosen.duration, chosen.threads)))
        return
    console = Console(width=140)
    console.print(machine())
    few = [name for name in BUILT_IN if int(name) < MANY or chosen.many]
    tables = plans([*few, *chosen.scenarios], chosen.duration), assignments(chosen.rounds), positions(chosen.rounds)
    for table in tables:
        console.print(table)


if __name__ == "__main__":
    main()
