"""Servers at a board's pace: what each of a group is, and the one process that serves them all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from isl_emu.parts.activity import Service
from isl_emu.parts.finished_run import FinishedRun
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.part import Pace
from isl_emu.parts.serving.board_pace import group_roofline, pace_name, wanted_tokens_s
from isl_emu.parts.serving.modelled_specification import PACE, Specification, write_specifications
from isl_emu.parts.serving.server_kind import Facts, PaceJudgement, ServerGroup, ServerKind, Started
from isl_emu.runs.endpoints import MODEL_PORT
from isl_emu.runs.journal import read_journal
from isl_emu.runs.merging import Records
from isl_emu.scenario.compute import Compute
from isl_emu.scenario.models import MODELS
from isl_emu.tables.text import beyond, time_text


def pace_facts(group: Compute) -> Facts:
    """What records say of a group's pace."""
    return {"decode_tokens_s": wanted_tokens_s(group), "paced_as": pace_name(group)}


def specifications(live: LiveRun, group: ServerGroup, words_port: int | None = None) -> list[Specification]:
    """One for each satellite of a group.

    Args:
        words_port: where a real server of theirs listens, if their words are real.
    """
    compute = group.compute
    shared: dict[str, Any] = {"port": MODEL_PORT, "slots": compute.board_slots, "words_port": words_port}
    shared |= {"context_tokens": compute.context_tokens, "rate_scale": live.scenario.rate_scale}
    if compute.decode_tokens_s is not None:
        shared |= {"board": "", "model": "", "bits": 0, "decode_tokens_s": compute.decode_tokens_s}
    else:
        roofline = group_roofline(compute)
        shape = None if roofline.model == MODELS.get(roofline.model.name) else roofline.model
        shared |= {"board": roofline.board.name, "model": roofline.model.name, "bits": roofline.bits, "shape": shape}
    nodes = map(live.net.get, group.satellites)
    return [Specification(node.name, node.netns_path, node.address, **shared) for node in nodes]


def start_board_servers(live: LiveRun, specs: Sequence[Specification]) -> Service:
    """Start the process that serves all of them; it listens when this returns."""
    journal = live.folder.journal
    write_specifications(specs, journal)
    words = ["isl_emu.parts.serving.modelled_server", "--journal", str(journal)]
    with live.phase("servers", f"serving at a board's pace on {len(specs)} satellites"):
        return Service("modelled-servers", words, journal, live.undo)


LATE = ("late_p50_ns", "late_p99_ns", "late_max_ns")


def paces(parts: Sequence[Records]) -> Records:
    """How late the tokens of several kernels' servers were, as one: no less than any of them."""
    said = [record for part in parts for record in part]
    if not said:
        return ()
    late = {key: max((one[key] for one in said if one.get(key) is not None), default=None) for key in LATE}
    return [{**said[0], **late, "steps": sum(one.get("steps", 0) for one in said)}]


class ModelledServers(ServerKind):
    """They take no CPU to speak of, so a constellation may have thousands of them."""

    key = "modelled"
    few = False

    def facts(self, group: Compute) -> Facts:
        return {"model": group.roofline.model.name, **pace_facts(group)}

    def real_time(self, group: Compute) -> None:
        """They have their board's pace by any clock."""

    def start(self, live: LiveRun, groups: Sequence[ServerGroup]) -> Started:
        specs = [spec for group in groups for spec in specifications(live, group)]
        return Started([self.facts(group.compute) for group in groups], specifications=specs)

    def judge(self, run: FinishedRun, pace: Pace) -> PaceJudgement:
        said = next(iter(read_journal(run.folder.journal / PACE).records), {})
        figures, late_ns = {"steps": said.get("steps", 0), **{key: said.get(key) for key in LATE}}, said.get(LATE[1])
        if late_ns is None:
            return PaceJudgement(figures)
        if run.execution is not None and run.execution.clock == "exact":
            reason = (
                f"servers at a board's pace: a token was late by {said[LATE[2]]:.0f} ns, but none may be late in exact "
                "time; report it as a fault of isl-emu"
            )
            return PaceJudgement(figures, (reason,) if said[LATE[2]] else ())
        limit_ns = run.scenario.fidelity.token_lateness_p99_ns
        what = "servers at a board's pace: the 99th percentile of how late tokens were"
        reason = beyond(what, late_ns, limit_ns, "ask fewer questions at once, or use slow motion")
        return PaceJudgement(figures, (reason,) if late_ns > limit_ns else ())

    def pace_lines(self, figures: Facts) -> Iterator[str]:
        if figures["steps"]:
            p50, p99 = (time_text(figures[key]) for key in LATE[:2])
            yield f"tokens at a board's pace late by {p50} (p50), {p99} (p99)"
