"""Routes that are left to programs in the nodes: FRR's daemons where a scenario wants them, and what all of them do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from isl_emu.errors import ScenarioError
from isl_emu.parts.activity import Activity
from isl_emu.parts.finished_run import ConcludedRun, FinishedRun
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.part import Need, Part, Preparation, Source, Traffic
from isl_emu.parts.routing.frr import Daemons, check_frr
from isl_emu.parts.routing.hints import Hints
from isl_emu.parts.routing.observer import CONTROL_JOURNAL, RouteObserver
from isl_emu.parts.routing.results import (
    CONVERGENCE,
    OUTAGES,
    Convergence,
    Reach,
    convergence_section,
    link_delays_ns,
    lost_probes,
)
from isl_emu.routing.forwarding import read_routes
from isl_emu.routing.shortest import NO_ROUTE
from isl_emu.routing.source_routes import check_headers
from isl_emu.runs.merging import Records, merged_rows
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.routing import RoutingDaemon
from isl_emu.show.chapter import Chapter
from isl_emu.tables.found_ways import JOURNAL, ROUTES, TABLE, FoundWays, merged_changes
from isl_emu.units import NS_PER_S

EXPECTED_BYTE = 24 << 20  # of a node's daemons: measured, docs/routing.md
SETTLING_DEADS = 10  # so many dead intervals the daemons have before instant 0 to find all routes, and as many seconds
LOOK_S = 0.25


def _control_of_all(parts: Sequence[Records]) -> Records:
    """Each guest counts what its own nodes send."""
    return sorted(merged_rows(parts, "k", {"packets": sum, "byte": sum}), key=lambda record: record["k"])


class RoutingPart(Part):
    key = "routing"
    tables = {"convergence": CONVERGENCE, "outages": OUTAGES, TABLE: ROUTES}
    merges = {JOURNAL: merged_changes, CONTROL_JOURNAL: _control_of_all}

    def needs(self, scenario: Scenario) -> Iterable[Need]:
        if daemon := scenario.routing.daemon:
            for name in scenario.node_names:
                yield Need(name, 0.0, daemon.memory_byte, EXPECTED_BYTE)

    def traffic(self, scenario: Scenario) -> Iterable[Traffic]:
        if daemon := scenario.routing.daemon:
            links = 2 * len(scenario.satellite_names)  # of a grid; each has two ends
            yield Traffic("routing daemons", 2 * links * scenario.time.duration_ns / daemon.hello_ns)

    def checks(self, scenario: Scenario) -> Iterable[Callable[[], object]]:
        if scenario.routing.daemon:
            yield partial(check_frr, scenario.routing.daemon.protocol)

    def prepare(self, source: Source, place: str) -> Preparation:
        if source.scenario.routing.daemon:
            check_frr(source.scenario.routing.daemon.protocol)
        if source.scenario.routing.forwarding != "addresses":
            if source.scenario.beyond:
                raise ScenarioError(
                    f'routing.forwarding is "{source.scenario.routing.forwarding}", which leads to nodes alone, but '
                    'networks are behind some (way_out, hardware); leave these out, or use forwarding = "addresses"'
                )
            check_headers(source.plan, source.routes, source.scenario.routing.forwarding)
        return Preparation()

    def one_guest(self, source: Source) -> Iterable[str]:
        scenario = source.scenario
        drawing = scenario.visited_nodes, scenario.kv_handover, scenario.split, scenario.training
        if scenario.routing.policy == "ecmp" and any(drawing):
            yield 'routing.policy is "ecmp", which spreads the connections of programs by ports that each kernel draws'

    def start(self, live: LiveRun) -> Iterable[Activity]:
        routing = live.scenario.routing
        if routing.policy == "none":
            observer = RouteObserver(live, routing.daemon.protocol if routing.daemon else None)
            yield observer
            if routing.daemon:
                with live.phase("routing", f"{routing.daemon.protocol} finds its routes"):
                    yield Daemons(live, routing.daemon)
                    _await_routes(live, observer, routing.daemon)
                if routing.daemon.hint_ns:
                    yield Hints(live, routing.daemon)

    def conclude(self, run: FinishedRun) -> None:
        if run.scenario.routing.policy != "none":
            return
        heard = run.journal(JOURNAL)
        sent = {row["k"]: (row["packets"], row["byte"]) for row in run.journal(CONTROL_JOURNAL).records}
        probes = run.journal("probes")
        lost = lost_probes([row for row in probes.records if _planned(run, row)])
        found = Convergence(run.plan, run.routes, FoundWays(run.plan, heard.records), run.ended_ns, sent, lost)
        found.run()
        run.write("convergence", CONVERGENCE, found.rows, heard.lost_lines)
        run.write("outages", OUTAGES, found.outages, heard.lost_lines)
        run.write(TABLE, ROUTES, heard.records, heard.lost_lines)

    def sections(self, run: FinishedRun, figures: Mapping[str, Any]) -> Iterator[Iterable[str]]:
        if rows := run.rows("convergence"):
            daemon = run.scenario.routing.daemon
            yield convergence_section(rows, daemon.protocol if daemon else None)

    def chapters(self, run: ConcludedRun) -> Iterator[Chapter]:
        from isl_emu.parts.routing.chapters import convergence_chapter  # which draws; that is slow to import

        return convergence_chapter(run)


def _planned(run: FinishedRun, probe: Mapping[str, Any]) -> bool:
    """Whether the plan's own routes had a way for a probe when it was sent."""
    return run.paths.at(probe["a"], probe["b"], run.paths.instant(probe["t_send_ns"])) is not None


def _await_routes(live: LiveRun, observer: RouteObserver, daemon: RoutingDaemon) -> None:
    """Wait until all pairs that the plan joins at instant 0 have a working route, or as long as daemons may need.

    A guest that shares the run knows the routes of its own nodes: there each of these is to have one.
    """
    routes, reach, planned = read_routes(live.folder.routes, live.plan), Reach(live.plan), Reach(live.plan)
    changes = routes.changes(0)
    planned.hops[changes.destination, changes.node] = changes.link
    planned.links(link_delays_ns(live.plan, 0))
    joined, here = planned.delay_ns >= 0, live.portion.here
    patience_s = SETTLING_DEADS * (daemon.dead_ns / NS_PER_S + 1)
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        reach.hops[:] = observer.next_hops.T
        reach.links(link_delays_ns(live.plan, 0))
        found = reach.delay_ns >= 0 if here.all() else (reach.hops != NO_ROUTE) | ~here
        if np.all(found | ~joined):
            return
        time.sleep(LOOK_S)
