"""The summary of a run for readers: plain text, at most 100 columns, the verdict in its first and its last line."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow.parquet as pq
from rich.text import Text

from isl_emu.results.distribution import Distribution
from isl_emu.results.fidelity import Fidelity
from isl_emu.results.folder import RunFolder
from isl_emu.scenario.model import Scenario
from isl_emu.units import DURATION_NS, NS_PER_S, format_quantity

WIDTH = 100
QUESTIONS_SHOWN = 20  # the rest is in requests.parquet
INDENT = "  "
_UNBROKEN = "\u00a0"  # a space at which no line is broken; written as a plain one

Rows = Sequence[Mapping[str, Any]]


def render(folder: RunFolder, scenario: Scenario, fidelity: Fidelity, provenance: Mapping[str, Any]) -> str:
    """The text of summary.txt, from the tables of a run folder; what the scenario does not have is left out."""
    requests = pq.read_table(folder.table("requests")).to_pylist()
    probes = pq.read_table(folder.table("probes")).to_pylist()
    lines = [verdict_line(fidelity), "", *_heading(scenario, provenance)]
    if requests:
        lines += ["", *_questions(requests, set(scenario.station_names)), "", *_latencies(requests, scenario)]
    if probes:
        lines += ["", *_delays(probes)]
    lines += ["", *_machine(fidelity), ""]
    if fidelity.reasons:
        lines += ["WHY IT IS INVALID", *(line for reason in fidelity.reasons for line in _wrapped("- ", reason)), ""]
    return "\n".join(line.rstrip() for line in [*lines, verdict_line(fidelity)]) + "\n"


def styled(summary: str) -> Text:
    """The same text with colours, for a terminal."""
    text = Text(summary)
    text.highlight_regex(r"(?m)^VALID.*$", "bold green")
    text.highlight_regex(r"(?m)^INVALID.*$", "bold red")
    text.highlight_regex(r"(?m)^(?!IN|VALID)[A-Z]{3}[A-Z ]+(?=$| {2}|:)", "bold cyan")
    text.highlight_regex(r"(?m)^ +[QA]  .*$", "bright_white")
    text.highlight_regex(r"(?m)^ +(unreachable|path_lost|timed_out|refused|failed|unfinished)\b", "yellow")
    text.highlight_regex(r"═", "cyan")
    return text


def verdict_line(fidelity: Fidelity) -> str:
    """The verdict in one line."""
    if fidelity.valid:
        return "VALID: the machine kept up with the plan"
    reasons = "1 reason" if len(fidelity.reasons) == 1 else f"{len(fidelity.reasons)} reasons"
    return f"INVALID: do not trust these figures; {reasons} at the end"


def _heading(scenario: Scenario, provenance: Mapping[str, Any]) -> Iterator[str]:
    yield from _wrapped("", f"{scenario.name}: {scenario.description}".rstrip(": "))
    facts = _facts(
        f"{_count(len(scenario.satellite_names), 'satellite')}, "
        f"{_count(len(scenario.station_names), 'ground station')}",
        f"{format_quantity(scenario.time.duration_ns, DURATION_NS)} from {scenario.time.start:%Y-%m-%d %H:%M:%S} UTC",
        f"step {format_quantity(scenario.time.step_ns, DURATION_NS)}",
        f"rates x {scenario.rate_scale:g}",
        *(
            [f"SLOW MOTION x {scenario.time.slowdown:g}, all figures in emulated time"]
            if scenario.time.slowdown > 1
            else []
        ),
        f"seed {scenario.seed}",
        f"plan {str(provenance.get('plan_sha256'))[:12]}",
    )
    yield from _wrapped("", facts)
    if place := provenance.get("place"):
        yield from _wrapped("", f"ran in the {place['kind']}: {place['reason']}")


def _questions(requests: Rows, stations: set[str]) -> Iterator[str]:
    yield "QUESTIONS AND ANSWERS  (═ laser, ╌ radio to or from the ground)"
    for row in requests[:QUESTIONS_SHOWN]:
        yield from _question(row, stations)
    if len(requests) > QUESTIONS_SHOWN:
        yield f"{INDENT}... and {len(requests) - QUESTIONS_SHOWN} more in requests.parquet"


def _question(row: Mapping[str, Any], stations: set[str]) -> Iterator[str]:
    yield from _wrapped(f"{INDENT}{row['id']:<4}", _way(row, stations))
    yield from _wrapped(f"{INDENT * 3}Q  ", row["question"] or "")
    yield from _wrapped(f"{INDENT * 3}A  ", " ".join((row["answer"] or "").split()))
    yield from _wrapped(INDENT * 3, _ending(row))


def _way(row: Mapping[str, Any], stations: set[str]) -> str:
    if not row["path_at_send"]:
        return f"{row['station']} → {row['satellite'] or 'no satellite'}"
    changes = _count(row["handovers"], "path change") + " meanwhile" if row["handovers"] else None
    rtt = f"planned RTT {time_text(row['planned_rtt_at_send_ns'])}"
    return f"{path_text(row['path_at_send'], stations)} · {_facts(_count(row['hops_at_send'], 'hop'), rtt, changes)}"


def _ending(row: Mapping[str, Any]) -> str:
    if row["outcome"] != "completed":
        return f"{row['outcome']}: {row['error']}" if row["error"] else row["outcome"]
    network, tokens = row["network_ratio"], row["answer_tokens"]
    return _facts(
        "completed",
        f"TTFT {time_text(row['ttft_ns'])}",
        f"E2E {time_text(row['e2e_ns'])}",
        None if network is None else f"network {time_text(row['network_ns'])} ({_share(network)})",
        None if tokens is None else _count(tokens, "token"),
    )


def path_text(path: Sequence[str], stations: set[str]) -> str:
    """A path with a sign for the kind of each link: "gs-berlin ╌ p00s01 ═ p00s02"."""
    text = path[0]
    for before, after in zip(path, path[1:], strict=False):
        text += f" {'╌' if {before, after} & stations else '═'} {after}"
    return text


def _latencies(requests: Rows, scenario: Scenario) -> Iterator[str]:
    done = [row for row in requests if row["outcome"] == "completed"]
    gaps = [gap for row in done for gap in row["itl_ns"] or ()]
    yield f"ANSWERS  {_outcomes(requests)}"
    if scenario.questions:
        met = sum(bool(row["deadline_met"]) for row in requests)
        deadline = format_quantity(scenario.questions.deadline_ns, DURATION_NS)
        yield f"{INDENT}{met} of {len(requests)} within the deadline of {deadline}{_throughput(done)}"
    table = [
        ("TTFT", "time to first token", *_times(row["ttft_ns"] for row in done)),
        ("ITL", "gap between two tokens", *_times(gaps)),
        ("TPOT", "mean gap of an answer", *_times(row["tpot_ns"] for row in done)),
        ("E2E", "question out to answer in", *_times(row["e2e_ns"] for row in done)),
        ("network", "E2E less the server's own time", *_times(row["network_ns"] for row in done)),
        ("", "its share of E2E", *_shares(row["network_ratio"] for row in done)),
    ]
    yield from _table(("", "", "p50", "p90", "p99"), table, left=2)


def _outcomes(requests: Rows) -> str:
    counts = Counter(row["outcome"] for row in requests).most_common()
    return f"{_count(len(requests), 'question')}: " + ", ".join(f"{count} {outcome}" for outcome, count in counts)


def _throughput(done: Rows) -> str:
    tokens = sum(row["answer_tokens"] or 0 for row in done)
    if not tokens:
        return ""
    span_ns = max(row["t_finish_ns"] for row in done) - min(row["t_send_ns"] for row in done)
    return f" · output token throughput {tokens * NS_PER_S / span_ns:.1f} tokens/s"


def _delays(probes: Rows) -> Iterator[str]:
    yield "DELAY THERE AND BACK  (medians of the probes; those during a change are left out)"
    pairs: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in probes:
        pairs.setdefault((row["a"], row["b"]), []).append(row)
    header = ("pair", "hops", "planned", "measured", "off by", "p95", "probes", "lost", "no path")
    yield from _table(header, [_delay_row(pair, rows) for pair, rows in pairs.items()], left=1)


def _delay_row(pair: tuple[str, str], rows: Rows) -> tuple[str, ...]:
    steady = [row for row in rows if not row["straddles_change"]]
    good = [row for row in steady if row["error_ns"] is not None]
    error = Distribution.of(abs(row["error_ns"]) for row in good)
    hops = sorted({row["hops"] for row in good})
    return (
        f"{pair[0]} - {pair[1]}",
        "-" if not hops else str(hops[0]) if len(hops) == 1 else f"{hops[0]}-{hops[-1]}",
        time_text(Distribution.of(row["planned_rtt_ns"] for row in good).p50),
        time_text(Distribution.of(row["rtt_ns"] for row in good).p50),
        time_text(error.p50),
        time_text(error.p95),
        str(len(steady)),
        str(sum(row["rtt_ns"] is None and row["planned_rtt_ns"] is not None for row in steady)),
        str(sum(row["planned_rtt_ns"] is None for row in steady)),
    )


def _machine(fidelity: Fidelity) -> Iterator[str]:
    yield "MACHINE"
    yield from _table(("", ""), list(_machine_facts(fidelity)), left=2)


def _machine_facts(fidelity: Fidelity) -> Iterator[tuple[str, str]]:
    replay, cpu, calibration, probes = fidelity.replay, fidelity.cpu, fidelity.calibration, fidelity.probes
    instants = f"{replay.applied_instants} of {replay.planned_instants} instants applied"
    yield "changes", f"{_punctuality(replay.lateness_ns)} · {instants}"
    differing = max(replay.mismatches, fidelity.readback_mismatches or 0)
    if fidelity.readback_mismatches is not None or differing:
        yield "kernel", f"{_count(differing, 'setting')} not as planned when read back"
    if calibration.bias_ns is not None:
        left = f"; {time_text(calibration.residue_ns)} left" if calibration.residue_ns is not None else ""
        yield "netem", f"adds {time_text(calibration.bias_ns)} by itself, which is taken off{left}"
    if probes.sent:
        error = probes.error_per_hop_ns
        yield "probes", f"off by {time_text(error.p50)} a hop (p50), {time_text(error.p95)} (p95)"
    if cpu.samples:
        crowded = f" · {_count(cpu.crowded_answers, 'answer')} short of CPU" if cpu.crowded_answers else ""
        busy = f"{_share(cpu.busy_mean_ratio)} busy, saturated for {_share(cpu.saturated_ratio)} of the time"
        yield "CPU", busy + crowded
        yield "wake-ups", _punctuality(cpu.wakeup_lateness_ns)
    if fidelity.dropped_packets is not None:
        yield "links", f"{_count(fidelity.dropped_packets, 'packet')} dropped: link down, planned loss, or queue full"
    if fidelity.journal_lines_lost:
        yield "journal", f"{_count(fidelity.journal_lines_lost, 'torn line')} left out"


def _punctuality(lateness: Distribution) -> str:
    return f"late by {time_text(lateness.p50)} (p50), {time_text(lateness.p99)} (p99), {time_text(lateness.max)} (max)"


def time_text(value_ns: float | None) -> str:
    """A time with three digits in the unit that suits it; "-" where there is none."""
    if value_ns is None:
        return "-"
    for size_ns, unit in ((NS_PER_S, "s"), (1_000_000, "ms")):
        if abs(value_ns) >= 0.9995 * size_ns:
            return f"{_three_digits(value_ns / size_ns)} {unit}"
    return f"{value_ns / 1000:.0f} us"


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 9.995 else f"{value:.1f}" if abs(value) < 99.95 else f"{value:.0f}"


def _share(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.0%}" if ratio >= 0.1 or ratio == 0 else f"{ratio:.1%}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _times(values: Iterable[float | None]) -> tuple[str, str, str]:
    spread = Distribution.of(values)
    return time_text(spread.p50), time_text(spread.p90), time_text(spread.p99)


def _shares(values: Iterable[float | None]) -> tuple[str, str, str]:
    spread = Distribution.of(values)
    return _share(spread.p50), _share(spread.p90), _share(spread.p99)


def _wrapped(prefix: str, text: str) -> list[str]:
    indents = {"initial_indent": prefix, "subsequent_indent": " " * len(prefix)}
    lines = textwrap.wrap(text, WIDTH, break_on_hyphens=False, **indents)
    return [line.replace(_UNBROKEN, " ") for line in lines]


def _facts(*facts: str | None) -> str:
    """Facts that are not None, as one text that only breaks between them."""
    return " · ".join(fact.replace(" ", _UNBROKEN) for fact in facts if fact)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> Iterator[str]:
    """Aligned columns: the first `left` ones to the left, the others to the right; an empty header is left out."""
    shown = [header, *rows] if any(header) else rows
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        cells = [cell.ljust(width) for cell, width in zip(row[:left], widths, strict=False)]
        cells += [cell.rjust(width) for cell, width in zip(row[left:], widths[left:], strict=True)]
        yield INDENT + "  ".join(cells)
