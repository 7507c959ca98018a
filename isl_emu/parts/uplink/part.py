"""Uplink: the weights of a model on their way from ground stations into orbit, and on between satellites."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from isl_emu.errors import WorkloadError
from isl_emu.files import write_json
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.parts.activity import Activity
from isl_emu.parts.finished_run import ConcludedRun, FinishedRun
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.part import Event, Need, Part, Preparation, Source, Traffic, transfer_events
from isl_emu.parts.serving.model_file import MIB, resolve_model
from isl_emu.parts.serving.who_serves import SERVING
from isl_emu.parts.uplink.plan import ATTEMPTS, FILE, HELD
from isl_emu.parts.uplink.planning import plan_transfer
from isl_emu.parts.uplink.results import DELIVERIES, TRANSFERS, delivery_rows, transfer_rows, uplink_section
from isl_emu.parts.uplink.start import UplinkActivity, group_of, start_transfer_nodes
from isl_emu.progress import Steps
from isl_emu.routing.paths import PathFinder
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import count_all
from isl_emu.scenario.model import Scenario
from isl_emu.show.chapter import Chapter

RECEIVER_BYTE = 128 * MIB  # the most; with the buffers of many connections
RECEIVER_EXPECTED_BYTE = 48 * MIB  # measured: 40 MB, Python and aiohttp mostly


class UplinkPart(Part):
    key = "uplink"
    tables = {"transfers": TRANSFERS, "deliveries": DELIVERIES}
    watched, watched_live = (ATTEMPTS,), (ATTEMPTS,)

    def endpoints(self, scenario: Scenario, plan: LinkPlan) -> Iterable[str]:
        return scenario.uplinked_satellites

    def needs(self, scenario: Scenario) -> Iterable[Need]:
        """Receiving takes no CPU time beside what the satellite has for serving, which comes later."""
        for name in scenario.uplinked_satellites:
            yield Need(name, 0.0, RECEIVER_BYTE, RECEIVER_EXPECTED_BYTE, (_model(scenario, name),))

    def traffic(self, scenario: Scenario) -> Iterable[Traffic]:
        """A file that cannot be read is told of by the run."""
        names = scenario.uplinked_satellites
        with suppress(WorkloadError):
            if names:
                yield Traffic("uplink", byte=len(names) * _model(scenario, names[0]).stat().st_size)

    def prepare(self, source: Source, place: str) -> Preparation:
        if not source.scenario.uplink:
            return Preparation()

        def leave(folder: RunFolder, steps: Steps) -> None:
            """Plan how the weights come up and who passes them on, and write it where the nodes find it."""
            scenario = source.scenario
            file = _model(scenario, scenario.uplinked_satellites[0])
            with steps.step(f"planning the uplink of {file.name}"):
                transfer = plan_transfer(scenario, source.plan, PathFinder(source.plan, source.routes), file)
            write_json(folder.journal / FILE, transfer.to_json())
            if transfer.planned_end_ns is None:
                steps.note(
                    f"Warning: uplink: {file.name} has {transfer.manifest.size_byte:,} bytes, but at the planned rates "
                    "not all of them come up in this run; lengthen time.duration, or raise the stations' uplink"
                )

        return Preparation(leave=leave)

    def one_guest(self, source: Source) -> Iterable[str]:
        return ()

    def together(self, scenario: Scenario) -> Iterable[Sequence[str]]:
        """All of its nodes write into files of one journal, by which servers are started too."""
        if scenario.uplink:
            yield (*scenario.uplinked_satellites, *scenario.uplink_stations)

    def start(self, live: LiveRun) -> Iterable[Activity]:
        if live.scenario.uplink and live.is_here(live.scenario.uplinked_satellites[0]):
            yield UplinkActivity(live, start_transfer_nodes(live))

    def status(self, *journals: Path) -> Iterable[str]:
        if (journals[0] / FILE).exists():
            held, serving = count_all(journals, f"{HELD}.jsonl"), count_all(journals, SERVING)
            yield f"satellites that got their model: {held}; that serve: {serving}"

    def conclude(self, run: FinishedRun) -> None:
        if (run.folder.journal / FILE).exists():
            attempts = run.journal(ATTEMPTS)
            transfers = transfer_rows(attempts.records, run.paths)
            run.write("transfers", TRANSFERS, transfers, attempts.lost_lines)
            run.write("deliveries", DELIVERIES, delivery_rows(run, transfers))

    def sections(self, run: FinishedRun, figures: Mapping[str, Any]) -> Iterator[Iterable[str]]:
        if deliveries := run.rows("deliveries"):
            yield uplink_section(deliveries, run.rows("transfers"))

    def events(self, table: str, row: Mapping[str, Any]) -> Iterable[Event]:
        ends, times_ns = (row["source"], row["destination"]), (row["t_start_ns"], row["t_end_ns"])
        return transfer_events(
            row["kind"], f"{' - '.join(ends)} {times_ns[0]}", ends, times_ns, row.get("path_at_start")
        )

    def chapters(self, run: ConcludedRun) -> Iterator[Chapter]:
        from isl_emu.parts.uplink.chapters import uplink_chapter  # which draws; that is slow to import

        return uplink_chapter(run)

    def ways(self, run: ConcludedRun) -> Iterable[Sequence[str]]:
        return (row["path_at_start"] for row in run.rows("transfers") if row["path_at_start"])


def _model(scenario: Scenario, satellite: str) -> Path:
    """The file that a satellite gets: what its group serves."""
    return resolve_model(group_of(scenario, satellite).model)
