"""Modelled servers: real bytes at the pace of a board's roofline, those of all satellites in one process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from isl_emu.parts.activity import Service
from isl_emu.parts.finished_run import FinishedRun
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.part import Pace
from isl_emu.parts.serving.modelled_specification import PACE, Specification, write_specifications
from isl_emu.parts.serving.server_kind import Facts, PaceJudgement, ServerGroup, ServerKind, Started
from isl_emu.runs.journal import read_journal
from isl_emu.runs.ports import MODEL_PORT
from isl_emu.scenario.compute import Compute
from isl_emu.tables.text import time_text
from isl_emu.units import NS_PER_MS, NS_PER_S

LATE = ("late_p50_ns", "late_p99_ns", "late_max_ns")


class ModelledServers(ServerKind):
    """They take no CPU to speak of, so a constellation may have thousands of them."""

    key = "modelled"
    few = False

    def facts(self, group: Compute) -> Facts:
        return {"model": group.roofline.model.name, "decode_tokens_s": NS_PER_S / group.roofline.step_ns(0)}

    def start(self, live: LiveRun, groups: Sequence[ServerGroup]) -> Started:
        journal = live.folder.journal
        specs = [
            Specification(
                satellite=node.name,
                netns=node.netns_path,
                address=node.address,
                port=MODEL_PORT,
                board=group.compute.roofline.board.name,
                model=group.compute.roofline.model.name,
                bits=group.compute.roofline.bits,
                slots=group.compute.modelled_slots,
                context_tokens=group.compute.context_tokens,
            )
            for group in groups
            for node in map(live.net.get, group.satellites)
        ]
        write_specifications(specs, journal)
        words = ["isl_emu.parts.serving.modelled_server", "--journal", str(journal)]
        with live.phase("servers", f"modelling servers on {len(specs)} satellites"):
            service = Service("modelled-servers", words, journal, live.undo)
        return Started([self.facts(group.compute) for group in groups], [service])

    def judge(self, run: FinishedRun, pace: Pace) -> PaceJudgement:
        said = next(iter(read_journal(run.folder.journal / PACE).records), {})
        figures, late_ns = {"steps": said.get("steps", 0), **{key: said.get(key) for key in LATE}}, said.get(LATE[1])
        if late_ns is None:
            return PaceJudgement(figures)
        limit_ns = run.scenario.fidelity.token_lateness_p99_ns
        reason = (
            f"modelled servers: the 99th percentile of how late tokens were is {late_ns / NS_PER_MS:.3g} ms, but at "
            f"most {limit_ns / NS_PER_MS:.3g} ms is allowed; ask fewer questions at once, or use slow motion"
        )
        return PaceJudgement(figures, (reason,) if late_ns > limit_ns else ())

    def pace_lines(self, figures: Facts) -> Iterator[str]:
        if figures["steps"]:
            p50, p99 = (time_text(figures[key]) for key in LATE[:2])
            yield f"modelled tokens late by {p50} (p50), {p99} (p99)"
