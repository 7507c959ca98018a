"""The sections on questions and answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from isl_emu.parts.questions.figures import Rates, completed
from isl_emu.scenario.model import Scenario
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

QUESTIONS_SHOWN = 20  # the rest is in requests.parquet

Rows = Sequence[Mapping[str, Any]]


def questions_section(requests: Rows, stations: set[str]) -> Iterator[str]:
    yield "QUESTIONS AND ANSWERS  (═ laser, ╌ radio to or from the ground)"
    for row in requests[:QUESTIONS_SHOWN]:
        yield from _question(row, stations)
    if len(requests) > QUESTIONS_SHOWN:
        yield f"{INDENT}... and {len(requests) - QUESTIONS_SHOWN} more in requests.parquet"


def _question(row: Mapping[str, Any], stations: set[str]) -> Iterator[str]:
    yield from wrapped(f"{INDENT}{row['id']:<4}", _way(row, stations))
    yield from wrapped(f"{INDENT * 3}Q  ", row["question"] or "")
    yield from wrapped(f"{INDENT * 3}A  ", " ".join((row["answer"] or "").split()))
    yield from wrapped(INDENT * 3, _ending(row))


def _way(row: Mapping[str, Any], stations: set[str]) -> str:
    if not row["path_at_send"]:
        return f"{row['station']} → {row['satellite'] or 'no satellite'}"
    changes = counted(row["handovers"], "path change") + " meanwhile" if row["handovers"] else None
    rtt = f"planned RTT {time_text(row['planned_rtt_at_send_ns'])}"
    return f"{path_text(row['path_at_send'], stations)} · {facts(counted(row['hops_at_send'], 'hop'), rtt, changes)}"


def _ending(row: Mapping[str, Any]) -> str:
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
    done = completed(requests)
    yield f"ANSWERS  {_outcomes(requests)}"
    more = sum(max(0, (row["attempts"] or 0) - 1) for row in requests)
    again = f"{counted(more, 'further attempt')} after a first one failed" if more else ""
    for line in (_deadline(requests, scenario), _goodput(requests, scenario), again, _carried(requests)):
        yield from wrapped(INDENT, line)
    stalls = [gap for row in done for gap in row["handover_itl_ns"] or ()]
    rows = [
        ("TTFT", "time to first token", *times(row["ttft_ns"] for row in done)),
        ("ITL", "gap between two tokens", *times(gap for row in done for gap in row["itl_ns"] or ())),
        *([("", "those when the path changed", *times(stalls))] if stalls else ()),
        ("TPOT", "mean gap of an answer", *times(row["tpot_ns"] for row in done)),
        ("E2E", "question out to answer in", *times(row["e2e_ns"] for row in done)),
        ("network", "E2E less the server's own time", *times(row["network_ns"] for row in done)),
        ("", "its share of E2E", *shares(row["network_ratio"] for row in done)),
    ]
    yield from table(("", "", "p50", "p90", "p95", "p99"), rows, left=2)


def _deadline(requests: Rows, scenario: Scenario) -> str:
    """How many kept the deadline, and how much was served."""
    if scenario.questions is None:
        return ""
    met, rates = sum(bool(row["deadline_met"]) for row in requests), Rates.of(requests)
    deadline = format_quantity(scenario.questions.deadline_ns, DURATION_NS)
    tokens = rates.output_tokens_per_s
    return facts(
        f"{met} of {len(requests)} within the deadline of {deadline}",
        None if not tokens else f"output token throughput {tokens:.1f} tokens/s",
    )


def _goodput(requests: Rows, scenario: Scenario) -> str:
    """How many kept the service levels, where the scenario has some."""
    if scenario.questions is None or scenario.questions.slo is None:
        return ""
    slo, met, goodput = scenario.questions.slo, sum(bool(row["slo_met"]) for row in requests), Rates.of(requests)
    levels = {"TTFT": slo.ttft_ns, "TPOT": slo.tpot_ns, "E2E": slo.e2e_ns}
    asked = ", ".join(f"{name} {format_quantity(level, DURATION_NS)}" for name, level in levels.items() if level)
    rate = f"goodput {three_digits(goodput.goodput_per_s or 0.0)} requests/s"
    return facts(rate, f"{met} of {len(requests)} within {asked}")


def _carried(requests: Rows) -> str:
    """What the network carried."""
    up, down, lasers = (sum(row[key] or 0 for row in requests) for key in ("sent_byte", "received_byte", "laser_byte"))
    return facts(f"{size_text(up)} sent", f"{size_text(down)} received", f"{size_text(lasers)} on lasers") if up else ""


def _outcomes(requests: Rows) -> str:
    counts = Counter(row["outcome"] for row in requests).most_common()
    return f"{counted(len(requests), 'question')}: " + ", ".join(f"{count} {outcome}" for outcome, count in counts)
