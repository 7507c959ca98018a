"""The tables of questions, of the attempts to have them answered and of polls, and their sections of the summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

from isl_emu.parts.questions.figures import Concurrency, Contexts, PromptTokens, Rates, by_group, completed, measured
from isl_emu.routing.paths import NodePath
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.questions import Questions
from isl_emu.tables.planned_paths import PlannedPaths
from isl_emu.tables.schema import COUNT, FLAG, NS, PATH, RATIO, TEXT, TIMES, column, schema
from isl_emu.tables.text import (
    INDENT,
    counted,
    facts,
    share,
    shares,
    size_text,
    table,
    three_digits,
    time_text,
    times,
    wrapped,
)
from isl_emu.units import DURATION_NS, format_quantity

FAILURES = ("unreachable", "path_lost", "timed_out", "refused", "unavailable", "failed")  # of a question

REQUESTS = schema(
    column("id", COUNT, "", "number of the planned request: by due time, or turn by turn"),
    column("station", TEXT, "", "ground station that asks"),
    column("user", COUNT, "", "closed-loop user who asks, counted over all stations; null with other arrivals"),
    column("conversation", COUNT, "", "which conversation of the run it belongs to, from 0; null without"),
    column("conversation_id", TEXT, "", "the conversation's id in its file, or its number there, from 1; null without"),
    column("turn", COUNT, "", "which question of its conversation, or else of its user, it is, from 0; null without"),
    column("think_ns", NS, "ns", "how long the user was to think after the question before; null of the first"),
    column("satellite", TEXT, "", "satellite whose model server is asked; null when none was reachable"),
    column("server", TEXT, "", "its server: real, throttled, modelled, external or split; null when none was asked"),
    column("paced_as", TEXT, "", "whose pace the server had: a model on a board, or a stated rate; null for its own"),
    column("question", TEXT, "", "what was asked"),
    column("answer", TEXT, "", "what came back, as far as it came"),
    column("outcome", TEXT, "", f"completed, {', '.join(FAILURES)} or unfinished"),
    column("error", TEXT, "", "one sentence when the outcome is not completed; else null"),
    column("t_due_ns", NS, "ns", "when the arrival process wanted it sent"),
    column("warm_up", FLAG, "", "due in the warm-up, so it counts in no figure"),
    column("t_send_ns", NS, "ns", "when it was sent"),
    column("t_last_send_ns", NS, "ns", "when the attempt that counts, the last one, was sent"),
    column("t_first_ns", NS, "ns", "when the first token of the answer arrived; null if none did"),
    column("t_finish_ns", NS, "ns", "when it ended, whatever the outcome"),
    column("attempts", COUNT, "attempts", "how often it was sent"),
    column("ttft_ns", NS, "ns", "TTFT, time to first token: t_first - t_send; null without one"),
    column("itl_ns", TIMES, "ns", "ITL, inter-token latencies: the gaps between consecutive tokens"),
    column("tpot_ns", NS, "ns", "TPOT, time per output token: (e2e - ttft) / (answer_tokens - 1); null below two"),
    column("e2e_ns", NS, "ns", "E2E request latency: t_finish - t_send; null if it did not end"),
    column("prompt_tokens", COUNT, "tokens", "length of the prompt, as the server counted it; null if it did not say"),
    column("cached_tokens", COUNT, "tokens", "of it, what the server had still known; null if it did not say"),
    column("context_from", TEXT, "", "satellite that had read the turn before, if it is another; null otherwise"),
    column("moved_tokens", COUNT, "tokens", "of cached_tokens, what came from there; null if none were wanted"),
    column(
        "moved_byte",
        NS,
        "byte",
        "size of these tokens' keys and values; what is sent is less by rate_scale; null if none were wanted",
    ),  # fmt: skip
    column("move_ns", NS, "ns", "for how long the server waited for them; null as well"),
    column("recomputed_tokens", COUNT, "tokens", "of the turn before's prompt, what was not cached; null if not known"),
    column("answer_tokens", COUNT, "tokens", "length of the answer"),
    column("server_prompt_ns", NS, "ns", "the server's own time for the prompt; null if it did not say"),
    column("server_predict_ns", NS, "ns", "the server's own time for the answer; null if it did not say"),
    column(
        "network_ns",
        NS,
        "ns",
        "e2e - server_prompt - server_predict: network, waiting for the server; null without one",
    ),
    column("network_ratio", RATIO, "ratio", "network_ns / e2e_ns; null as well"),
    column("deadline_met", FLAG, "", "completed, and e2e within the scenario's deadline"),
    column("slo_met", FLAG, "", "completed, and within all service levels of the scenario; null if it has none"),
    column("path_at_send", PATH, "", "planned path from station to satellite at t_last_send, node names"),
    column("path_at_finish", PATH, "", "the same when it ended"),
    column("hops_at_send", COUNT, "links", "links on path_at_send"),
    column("hops_at_finish", COUNT, "links", "links on path_at_finish"),
    column("planned_rtt_at_send_ns", NS, "ns", "planned propagation delay there and back at t_last_send"),
    column("handovers", COUNT, "changes", "how often the planned path changed between t_last_send and t_finish"),
    column("handover_itl_ns", TIMES, "ns", "those of itl_ns during which the path back changed"),
    column("t_handover_itl_ns", TIMES, "ns", "when each of those ended"),
    column("sent_byte", NS, "byte", "IP packets sent by the station, by TCP's own counts, all attempts"),
    column("received_byte", NS, "byte", "IP packets that came to the station"),
    column("laser_byte", NS, "byte", "both, each times the lasers on its path"),
    column(
        "satellites_answering",
        RATIO,
        "satellites",
        "mean number that answered meanwhile, itself included; null if it did not",
    ),
    column("faults", PATH, "", "names of the faults that were in the way of its attempts; see faults.parquet"),
)

ATTEMPTS = schema(
    column("id", COUNT, "", "number of the request"),
    column("attempt", COUNT, "", "1 for the first"),
    column("station", TEXT, "", "ground station that asks"),
    column("satellite", TEXT, "", "satellite that is asked; null when none that serves was reachable"),
    column("t_send_ns", NS, "ns", "when it was sent"),
    column("t_first_ns", NS, "ns", "when the first token arrived; null if none did"),
    column("t_finish_ns", NS, "ns", "when it ended, whatever the outcome"),
    column("outcome", TEXT, "", "as of a request"),
    column("error", TEXT, "", "one sentence when the outcome is not completed; else null"),
    column("answer_tokens", COUNT, "tokens", "how many came"),
    column("sent_byte", NS, "byte", "IP packets sent by the station, by TCP's own counts"),
    column("received_byte", NS, "byte", "IP packets that came to the station"),
    column("laser_byte", NS, "byte", "both, each times the lasers on its path"),
)

SLICES = schema(
    column("t_ns", NS, "ns", "begin of the slice"),
    column("t_end_ns", NS, "ns", "its end"),
    column("warm_up", FLAG, "", "it begins in the warm-up"),
    column("requests", COUNT, "questions", "due in it"),
    column("completed", COUNT, "questions", "of those, answered whole, whenever that was"),
    column("deadline_met", COUNT, "questions", "of those, within the deadline"),
    column("ttft_p50_ns", RATIO, "ns", "TTFT of those completed, median; null without any"),
    column("ttft_p99_ns", RATIO, "ns", "its 99th percentile"),
    column("e2e_p50_ns", RATIO, "ns", "E2E of those completed, median"),
    column("e2e_p99_ns", RATIO, "ns", "its 99th percentile"),
    column("answers", COUNT, "answers", "completed in it, whenever they were asked for"),
    column("output_tokens_per_s", RATIO, "tokens/s", "of these answers, over the slice"),
    column("goodput_per_s", RATIO, "requests/s", "those within all service levels; null if there are none"),
)

POLLS = schema(
    column("station", TEXT, "", "ground station that asks for the length of a queue"),
    column("satellite", TEXT, "", "satellite whose server is asked"),
    column("t_send_ns", NS, "ns", "when it was sent; negative before the start"),
    column("rtt_ns", NS, "ns", "until the answer was there; null when none came, or one without a queue"),
    column("queue", RATIO, "requests", "requests that the server works on or keeps waiting"),
    column("sent_byte", NS, "byte", "IP packets sent by the station, by TCP's own counts"),
    column("received_byte", NS, "byte", "IP packets that came to the station"),
)


Row = dict[str, Any]


def request_row(record: Mapping[str, Any], paths: PlannedPaths, questions: Questions) -> Row:
    """A journal's request with the columns that follow from it and from the plan."""
    record = {**record, "outcome": outcome(record, paths)}
    e2e_ns, ttft_ns, tokens = record.get("e2e_ns"), record.get("ttft_ns"), record.get("answer_tokens")
    prompt_ns, predict_ns = record.get("server_prompt_ns"), record.get("server_predict_ns")
    row: Row = {**record, "tpot_ns": None, "network_ns": None, "network_ratio": None}
    row["warm_up"] = record["t_due_ns"] < questions.warm_up_ns
    if e2e_ns is not None and ttft_ns is not None and tokens and tokens > 1:
        row["tpot_ns"] = (e2e_ns - ttft_ns) // (tokens - 1)
    if e2e_ns and prompt_ns is not None and predict_ns is not None:
        row["network_ns"] = e2e_ns - prompt_ns - predict_ns
        row["network_ratio"] = row["network_ns"] / e2e_ns
    done = record["outcome"] == "completed"
    row["deadline_met"] = done and e2e_ns is not None and e2e_ns <= questions.deadline_ns
    row |= _path_columns(record, paths)
    if (slo := questions.slo) is None:
        return {**row, "slo_met": None}
    levels = {"ttft_ns": slo.ttft_ns, "tpot_ns": slo.tpot_ns, "e2e_ns": slo.e2e_ns}
    kept = (row.get(name) is None or row[name] <= level for name, level in levels.items() if level is not None)
    return {**row, "slo_met": done and all(kept)}


def add_recomputed(rows: Sequence[Row]) -> None:
    """Give each turn what was computed again in it: of the last prompt of its conversation that a server has read.

    Args:
        rows: of requests, complete otherwise.
    """
    read: dict[int, int] = {}  # tokens of that prompt, by conversation
    for row in sorted(rows, key=lambda row: row.get("turn") or 0):
        talk, tokens, cached = row.get("conversation"), row.get("prompt_tokens"), row.get("cached_tokens")
        before = None if talk is None else read.get(talk)
        row["recomputed_tokens"] = None if before is None or cached is None else max(0, before - cached)
        if talk is not None and tokens is not None:
            read[talk] = tokens


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
        gaps = _gaps_at_handover(record, paths)
        row["handover_itl_ns"] = [gap_ns for _, gap_ns in gaps]
        row["t_handover_itl_ns"] = [t_ns for t_ns, _ in gaps]
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


def _gaps_at_handover(record: Mapping[str, Any], paths: PlannedPaths) -> list[tuple[int, int]]:
    """The inter-token latencies of an answer during which its path changed: when each ended, and how long it was, ns.

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
        (later, later - earlier)
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
    kept = ("id", "station", "user", "conversation", "conversation_id", "turn", "satellite", "question", "t_due_ns")
    error = "request: it left no record, but every request leaves one when it ends; the client was stopped first"
    return [
        {**{key: record.get(key) for key in kept}, "outcome": "unfinished", "error": error}
        for record in planned
        if record["id"] not in known and record.get("after") is None
    ]


QUESTIONS_SHOWN, TEXT_SHOWN = 20, 400  # that many, and signs of each; the rest is in requests.parquet

Rows = Sequence[Mapping[str, Any]]


def questions_section(requests: Rows, stations: set[str]) -> Iterator[str]:
    yield "QUESTIONS AND ANSWERS  (═ laser, ╌ radio to or from the ground)"
    for row in requests[:QUESTIONS_SHOWN]:
        way = f"{row['station']} → {row['satellite'] or 'no satellite'}"
        if row["path_at_send"]:
            way = f"{path_text(row['path_at_send'], stations)} · {way_facts(row)}"
        yield from wrapped(f"{INDENT}{row['id']:<4}", way)
        for sign, text in (("Q", row["question"]), ("A", row["answer"])):
            line = " ".join((text or "").split())
            line = line if len(line) <= TEXT_SHOWN else f"{line[:TEXT_SHOWN]} ..."
            yield from wrapped(f"{INDENT * 3}{sign}  ", line)
        yield from wrapped(INDENT * 3, ending(row))
        if row["faults"]:
            yield from wrapped(INDENT * 3, f"in its way: {', '.join(row['faults'])}")
    if len(requests) > QUESTIONS_SHOWN:
        yield f"{INDENT}... and {len(requests) - QUESTIONS_SHOWN} more in requests.parquet"


def way_facts(row: Mapping[str, Any]) -> str:
    """Of a question that had a path: its hops, planned RTT, and how often it changed."""
    changes = counted(row["handovers"], "path change") + " meanwhile" if row["handovers"] else None
    rtt = f"planned RTT {time_text(row['planned_rtt_at_send_ns'])}"
    return facts(counted(row["hops_at_send"], "hop"), rtt, changes)


def ending(row: Mapping[str, Any]) -> str:
    """What became of a question, and how long that took."""
    if row["outcome"] != "completed":
        return f"{row['outcome']}: {row['error']}" if row["error"] else row["outcome"]
    network, tokens = row["network_ratio"], row["answer_tokens"]
    return facts(
        "completed",
        f"TTFT {time_text(row['ttft_ns'])}",
        f"E2E {time_text(row['e2e_ns'])}",
        None if network is None else f"network {time_text(row['network_ns'])} ({share(network)})",
        None if tokens is None else counted(tokens, "token"),
    )


def path_text(path: Sequence[str], stations: set[str]) -> str:
    """A path with a sign for the kind of each link: "gs-berlin ╌ p00s01 ═ p00s02"."""
    text = path[0]
    for before, after in zip(path, path[1:], strict=False):
        text += f" {'╌' if {before, after} & stations else '═'} {after}"
    return text


def answers_section(requests: Rows, scenario: Scenario) -> Iterator[str]:
    asked, requests = len(requests), measured(requests)
    done = completed(requests)
    counts = Counter(row["outcome"] for row in requests).most_common()
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in counts)
    yield f"ANSWERS  {counted(len(requests), 'question')}: {outcomes}"
    if asked > len(requests):
        yield from wrapped(INDENT, warm_up_text(asked - len(requests), scenario))
    more = sum(max(0, (row["attempts"] or 0) - 1) for row in requests)
    again = f"{counted(more, 'further attempt')} after a first one failed" if more else ""
    up, down, lasers = (sum(row[key] or 0 for row in requests) for key in ("sent_byte", "received_byte", "laser_byte"))
    carried = facts(f"{size_text(up)} sent", f"{size_text(down)} received", f"{size_text(lasers)} on lasers")
    lines = *levels_kept(requests, scenario.questions), *prompts_read(requests, scenario)
    for line in (*lines, again, carried if up else ""):
        yield from wrapped(INDENT, line)
    yield from table(("", "", "p50", "p90", "p95", "p99"), latency_rows(done), left=2)


def warm_up_text(count: int, scenario: Scenario) -> str:
    """What is said of questions that figures leave out."""
    assert scenario.questions is not None
    length = format_quantity(scenario.questions.warm_up_ns, DURATION_NS)
    return f"{counted(count, 'further question')} due in the warm-up of {length} count in no figure"


def latency_rows(done: Rows) -> list[tuple[str, ...]]:
    """Each latency of completed answers, what it is, and its percentiles."""
    stalls = [gap for row in done for gap in row["handover_itl_ns"] or ()]
    return [
        ("TTFT", "time to first token", *times(row["ttft_ns"] for row in done)),
        ("ITL", "gap between two tokens", *times(gap for row in done for gap in row["itl_ns"] or ())),
        *([("", "those when the path changed", *times(stalls))] if stalls else ()),
        ("TPOT", "mean gap of an answer", *times(row["tpot_ns"] for row in done)),
        ("E2E", "question out to answer in", *times(row["e2e_ns"] for row in done)),
        ("network", "E2E less the server's own time", *times(row["network_ns"] for row in done)),
        ("", "its share of E2E", *shares(row["network_ratio"] for row in done)),
    ]


def levels_kept(requests: Rows, questions: Questions | None) -> Iterator[str]:
    """How many kept the deadline, and how much was served; likewise the service levels, where there are some."""
    if questions is None:
        return
    met, rates = sum(bool(row["deadline_met"]) for row in requests), Rates.of(requests)
    tokens = rates.output_tokens_per_s
    yield facts(
        f"{met} of {len(requests)} within the deadline of {format_quantity(questions.deadline_ns, DURATION_NS)}",
        None if not tokens else f"output token throughput {tokens:.1f} tokens/s",
    )
    if (slo := questions.slo) is not None:
        met = sum(bool(row["slo_met"]) for row in requests)
        levels = {"TTFT": slo.ttft_ns, "TPOT": slo.tpot_ns, "E2E": slo.e2e_ns}
        asked = ", ".join(f"{name} {format_quantity(level, DURATION_NS)}" for name, level in levels.items() if level)
        rate = f"goodput {three_digits(rates.goodput_per_s or 0.0)} requests/s"
        yield facts(rate, f"{met} of {len(requests)} within {asked}")
    if (found := Concurrency.of(requests)) is not None:
        cycle = f"{time_text(found.wait_ns)} for an answer + {time_text(found.think_ns)} of thinking"
        by_law = three_digits(found.by_littles_law)
        yield (
            f"concurrency {three_digits(found.in_flight)} of {counted(found.users, 'user')}; by Little's law "
            f"{three_digits(found.questions_per_s)} questions/s x ({cycle}) = {by_law} users"
        )
    if (contexts := Contexts.of(requests)) is not None:
        yield _contexts_text(contexts)


def prompts_read(requests: Rows, scenario: Scenario) -> Iterator[str]:
    """What servers had still known of prompts, and what they computed; of each group, where several told it."""
    groups = {f"group {name}": PromptTokens.of(rows) for name, rows in by_group(requests, scenario).items()}
    told = {name: found for name, found in groups.items() if found is not None}
    for name, found in {"": PromptTokens.of(requests), **(told if len(told) > 1 else {})}.items():
        if found is not None:
            cached = f"{found.cached} cached ({share(found.cached / max(found.tokens, 1))})"
            begin = f"{name}: " if name else ""
            yield facts(f"{begin}prompts of {counted(found.tokens, 'token')}", cached, f"{found.computed} computed")


def _contexts_text(contexts: Contexts) -> str:
    """What became of conversations that went on at another satellite."""
    waits = f"median wait {time_text(contexts.move_ns.p50)}"
    moved = f"in {contexts.moved} their context moved ({size_text(contexts.moved_byte)}, {waits})"
    return facts(
        f"{counted(contexts.changes, 'turn')} at another satellite than the one before",
        moved if contexts.moved else None,
        f"in {contexts.lost} it could not" if contexts.lost else None,
        f"{counted(contexts.recomputed_tokens, 'token')} of earlier prompts computed again",
    )
