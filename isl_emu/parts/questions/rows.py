"""The columns that nobody measured: what the plan says about each request and probe, and what follows from both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

from isl_emu.routing.paths import NodePath
from isl_emu.scenario.questions import Questions
from isl_emu.tables.planned_paths import PlannedPaths

Row = dict[str, Any]


def request_row(record: Mapping[str, Any], paths: PlannedPaths, questions: Questions) -> Row:
    """A journal's request with the columns that follow from it and from the plan."""
    record = {**record, "outcome": outcome(record, paths)}
    row = {**record, **_latency_columns(record, questions.deadline_ns), **_path_columns(record, paths)}
    return {**row, "slo_met": _slo_met(row, questions)}


def outcome(record: Mapping[str, Any], paths: PlannedPaths) -> str:
    """What became of a request or an attempt.

    An answer that stopped coming is a lost path's fault if the plan had none meanwhile.
    """
    send_ns = _last_send_ns(record)
    if record["outcome"] != "timed_out" or send_ns is None:
        return str(record["outcome"])
    lost = paths.vanishes_between(record["station"], record["satellite"], send_ns, record["t_finish_ns"])
    return "path_lost" if lost else "timed_out"


def _last_send_ns(record: Mapping[str, Any]) -> int | None:
    """When the attempt that counts was sent."""
    sent_ns: int | None = record.get("t_last_send_ns", record.get("t_send_ns"))
    return sent_ns


def _slo_met(row: Mapping[str, Any], questions: Questions) -> bool | None:
    """Whether an answer is whole and keeps every level that the scenario asks for; None if it asks for none."""
    if questions.slo is None:
        return None
    levels = {"ttft_ns": questions.slo.ttft_ns, "tpot_ns": questions.slo.tpot_ns, "e2e_ns": questions.slo.e2e_ns}
    kept = (row.get(name) is None or row[name] <= level for name, level in levels.items() if level is not None)
    return row["outcome"] == "completed" and all(kept)


def _latency_columns(record: Mapping[str, Any], deadline_ns: int) -> Row:
    e2e_ns, ttft_ns, tokens = record.get("e2e_ns"), record.get("ttft_ns"), record.get("answer_tokens")
    prompt_ns, predict_ns = record.get("server_prompt_ns"), record.get("server_predict_ns")
    row: Row = {"tpot_ns": None, "network_ns": None, "network_ratio": None}
    if e2e_ns is not None and ttft_ns is not None and tokens and tokens > 1:
        row["tpot_ns"] = (e2e_ns - ttft_ns) // (tokens - 1)
    if e2e_ns and prompt_ns is not None and predict_ns is not None:
        row["network_ns"] = e2e_ns - prompt_ns - predict_ns
        row["network_ratio"] = row["network_ns"] / e2e_ns
    row["deadline_met"] = record["outcome"] == "completed" and e2e_ns is not None and e2e_ns <= deadline_ns
    return row


def _path_columns(record: Mapping[str, Any], paths: PlannedPaths) -> Row:
    station, satellite, send_ns = record["station"], record.get("satellite"), _last_send_ns(record)
    if satellite is None or send_ns is None:
        return {}
    k = paths.instant(send_ns)
    there, back = paths.at(station, satellite, k), paths.at(satellite, station, k)
    row: Row = {
        "path_at_send": paths.names(there),
        "hops_at_send": _hops(there),
        "planned_rtt_at_send_ns": there.delay_ns + back.delay_ns if there and back else None,
    }
    finish_ns = record.get("t_finish_ns")
    if finish_ns is not None:
        final = paths.at(station, satellite, paths.instant(finish_ns))
        row |= {"path_at_finish": paths.names(final), "hops_at_finish": _hops(final)}
        row["handovers"] = paths.changes_between(station, satellite, send_ns, finish_ns)
        row["handover_itl_ns"] = _gaps_at_handover_ns(record, paths)
    return row


def attempt_row(record: Mapping[str, Any], paths: PlannedPaths) -> Row:
    """A journal's attempt with the bytes that it put on lasers.

    The question goes over the lasers of the path at that time. The answer comes evenly from its first token to its
    end, over the lasers of the paths back meanwhile.
    """
    station, satellite, send_ns = record["station"], record["satellite"], record["t_send_ns"]
    if satellite is None:
        return {**record, "laser_byte": 0}
    out = paths.lasers(station, satellite, paths.instant(send_ns))
    first_ns = send_ns if record["t_first_ns"] is None else record["t_first_ns"]
    instants = range(paths.instant(first_ns), paths.instant(record["t_finish_ns"]) + 1)
    back = [lasers for k in instants if (lasers := paths.lasers(satellite, station, k)) is not None]
    on_the_way_back = record["received_byte"] * sum(back) / len(back) if back else 0
    return {**record, "laser_byte": round(record["sent_byte"] * (out or 0) + on_the_way_back)}


def _gaps_at_handover_ns(record: Mapping[str, Any], paths: PlannedPaths) -> list[int]:
    """The inter-token latencies of an answer during which its path changed.

    What was on its way when the path changed still arrives, so a change reaches the station up to the path's delay
    later.
    """
    first_ns, gaps_ns = record.get("t_first_ns"), record.get("itl_ns") or ()
    if first_ns is None or not gaps_ns:
        return []
    times = list(accumulate(gaps_ns, initial=first_ns))
    ends = record["satellite"], record["station"]
    changes = paths.changes(*ends, times[0], times[-1])
    return [
        later - earlier
        for earlier, later in pairwise(times)
        if any(earlier < done_ns and due_ns < later for due_ns, done_ns in changes)
    ]


def _hops(path: NodePath | None) -> int | None:
    return None if path is None else len(path.links)


def unrecorded_requests(planned: Sequence[Mapping[str, Any]], recorded: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Rows for the planned requests that left no record: the run ended before they did.

    One that waits for another's end leaves none if it never came due; nobody asked it.
    """
    known = {record["id"] for record in recorded}
    kept = ("id", "station", "satellite", "question", "t_due_ns")
    error = "request: it left no record, but every request leaves one when it ends; the client was stopped first"
    return [
        {**{key: record.get(key) for key in kept}, "outcome": "unfinished", "error": error}
        for record in planned
        if record["id"] not in known and record.get("after") is None
    ]
