"""Hand-overs of conversations: the KV cache of one moves from a satellite to another over the lasers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from isl_emu.files import read_json, write_json
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.parts.activity import Activity, RunProcess
from isl_emu.parts.finished_run import ConcludedRun, FinishedRun
from isl_emu.parts.kv_handover.results import JOURNAL, KV_HANDOVERS, kv_chapter, kv_section
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.part import CpuUse, Event, Pace, Part, Source, Spells, shares_of_a_cpu, transfer_events
from isl_emu.parts.serving.model_server import SLOT_FOLDER
from isl_emu.runs.endpoints import FIRST_CACHE_PORT
from isl_emu.runs.journal import SERVERS_JOURNAL, count_all
from isl_emu.scenario.compute import BUNDLED, BUNDLED_MODEL
from isl_emu.scenario.model import Scenario
from isl_emu.show.chapter import Chapter

PLANNED = "kv_planned.json"  # in a run's journal: how many handovers


class KvHandoverPart(Part):
    key = "kv_handover"
    lines = {JOURNAL: KV_HANDOVERS}
    orders = {JOURNAL: ("t_due_ns", "source", "target")}
    watched, watched_live = (JOURNAL,), (JOURNAL,)

    def endpoints(self, scenario: Scenario, plan: LinkPlan) -> Iterable[str]:
        return (name for handover in scenario.kv_handover for name in (handover.source, handover.target))

    def real_time(self, scenario: Scenario) -> Iterable[str]:
        """Servers at their board's pace compute in its time, but a cache is that of the model whose words are real."""
        for name in (name for handover in scenario.kv_handover for name in (handover.source, handover.target)):
            group = scenario.compute_of(name)
            own = BUNDLED_MODEL if group and group.model == BUNDLED else None
            if group and group.pace_model not in (None, own):
                yield (
                    f"kv_handover moves the cache of {group.model}, but {name} computes at the pace of "
                    f"{group.pace_model}, whose cache has another size; remove pace_model"
                )

    def one_guest(self, source: Source) -> Iterable[str]:
        return ()

    def together(self, scenario: Scenario) -> Iterable[Sequence[str]]:
        """One process reads the files of both containers."""
        return ((handover.source, handover.target) for handover in scenario.kv_handover)

    def start(self, live: LiveRun) -> Iterable[Activity]:
        here = [(n, one) for n, one in enumerate(live.scenario.kv_handover) if live.is_here(one.source)]
        if planned := sum(len(handover.tokens) for _, handover in here):
            write_json(live.folder.journal / PLANNED, {"handovers": planned})
        for number, handover in here:
            words = ["isl_emu.parts.kv_handover.handover", "--port", str(FIRST_CACHE_PORT + number)]
            for name in (handover.source, handover.target):  # a container's files, as its machine sees them
                words += ["--end", name, f"/proc/{live.containers[name].pid}/root{SLOT_FOLDER}"]
            for due, tokens in enumerate(handover.tokens):
                words += ["--due", str(handover.start_ns + due * handover.interval_ns), str(tokens)]
            yield RunProcess(f"kv-handover-{number}", words, live.folder.journal)

    def status(self, *journals: Path) -> Iterable[str]:
        if planned := [found["handovers"] for journal in journals if (found := read_json(journal / PLANNED))]:
            done = count_all(journals, f"{JOURNAL}.jsonl")
            yield f"handovers of conversations that are over: {done} of {sum(planned)}"

    def cpu_use(self, run: FinishedRun, pace: Pace) -> Iterable[CpuUse]:
        """Its server has one thread, at the source while the prompt is computed, then at the target twice."""
        if not (rows := run.rows(JOURNAL)):
            return
        scenario, found = run.scenario, {row["group"]: row["cpus"] for row in run.rows(SERVERS_JOURNAL)}
        cpus: dict[str, float] = {}
        for name in {name for handover in scenario.kv_handover for name in (handover.source, handover.target)}:
            group = scenario.compute_of(name)
            assert group is not None, "the scenario was checked: both ends of a handover serve"
            cpus[name] = found.get(scenario.compute.index(group)) or group.cpus  # what was found to give its pace
        share = shares_of_a_cpu(cpus, pace, scenario.time.slowdown)
        spells = []
        for row in rows:
            times_ns = row["computing_ns"] or ()
            for place, span in enumerate(zip(times_ns[0::2], times_ns[1::2], strict=True)):
                spells.append((*span, share(row["target" if place else "source"], *span)))
        yield Spells(spells)

    def sections(self, run: FinishedRun, figures: Mapping[str, Any]) -> Iterator[Iterable[str]]:
        if rows := run.rows(JOURNAL):
            yield kv_section(rows)

    def events(self, table: str, row: Mapping[str, Any]) -> Iterable[Event]:
        """The way of the cache, after its conversation was computed and it was saved."""
        if row["t_ns"] is None or row["transfer_ns"] is None:
            return ()
        ends, begun_ns = (row["source"], row["target"]), row["t_ns"] + row["prefill_ns"] + row["save_ns"]
        times_ns = begun_ns, begun_ns + row["transfer_ns"]
        return transfer_events("kv", f"{' - '.join(ends)} {row['t_due_ns']}", ends, times_ns, None)

    def chapters(self, run: ConcludedRun) -> Iterator[Chapter]:
        return kv_chapter(run.rows(JOURNAL))
