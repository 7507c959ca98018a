"""The summary of a run for readers: plain text, at most 100 columns, the verdict in its first and its last line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.text import Text

from isl_emu.errors import visible
from isl_emu.parts.finished_run import FinishedRun, Rows
from isl_emu.parts.registry import PARTS
from isl_emu.results.fidelity import Fidelity
from isl_emu.runs.journal import DROPS_JOURNAL
from isl_emu.scenario.model import Scenario
from isl_emu.tables.text import Distribution, counted, facts, share, table, time_text, wrapped
from isl_emu.units import DURATION_NS, NS_PER_S, format_quantity

MOST_DROPPING = 3  # link ends, in the summary; all are in drops.parquet
MOST_TOLD = 20  # interventions
FILES_NAMED = 3  # of those that are lost, of each node; execution in provenance.json has more


def render(run: FinishedRun, fidelity: Fidelity, provenance: Mapping[str, Any]) -> str:
    """The text of summary.txt, from the tables of a run; what it does not have is left out."""
    lines = [verdict_line(fidelity), "", *_heading(run.scenario, provenance), *_course(fidelity)]
    for part in PARTS:
        for section in part.sections(run, fidelity.parts):
            lines += ["", *section]
    if files := list(_files(run)):
        lines += ["", "FILES", *table(("", ""), files, left=2)]
    lines += ["", "MACHINE", *table(("", ""), list(_machine_facts(fidelity, run.rows(DROPS_JOURNAL))), left=2), ""]
    if fidelity.interventions:
        told = fidelity.interventions[:MOST_TOLD]
        more = len(fidelity.interventions) - len(told)
        lines += ["INTERVENTIONS", *(line for one in told for line in wrapped("- ", one))]
        lines += [*([f"- and {more} more in incidents.parquet"] if more else []), ""]
    if fidelity.reasons:
        lines += ["WHY IT IS INVALID", *(line for reason in fidelity.reasons for line in wrapped("- ", reason)), ""]
    return "\n".join(line.rstrip() for line in [*lines, verdict_line(fidelity)]) + "\n"


def _files(run: FinishedRun) -> Iterator[tuple[str, str]]:
    """What programs have written, by node: where it is kept, or that it went with the run."""
    for folder in sorted(run.folder.files_of("any").parent.glob("*")):
        if folder.is_symlink():  # a program's, to wherever
            continue
        sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
        if sizes:  # not those that were made as folders of programs alone
            yield folder.name, f"{counted(len(sizes), 'file')}, {sum(sizes):,} bytes, in files/{folder.name}"
    for node, lost in (run.execution.lost_files if run.execution else {}).items():
        named, count = lost["paths"][:FILES_NAMED], lost["count"]
        rest = f" and {count - len(named)} more" if count > len(named) else ""
        yield node, f"LOST with the run, as not in $ISL_EMU_OUT: {', '.join(named)}{rest}"


def _course(fidelity: Fidelity) -> Iterator[str]:
    """What was not as planned beforehand, by the user's wish."""
    if fidelity.ended_early:
        yield (
            f"ended by its user at {time_text(fidelity.ended_ns)} of {time_text(fidelity.duration_ns)}: "
            "all figures are up to there"
        )
    if fidelity.pauses:
        stood = [f"at {time_text(pause['t_ns'])} for {time_text(pause['lasted_ns'])}" for pause in fidelity.pauses]
        yield from wrapped("", f"paused {', '.join(stood)}; emulated time stood meanwhile")


def styled(summary: str) -> Text:
    """The same text with colours, for a terminal."""
    text = Text(visible(summary))
    text.highlight_regex(r"(?m)^VALID.*$", "bold green")
    text.highlight_regex(r"(?m)^INVALID.*$", "bold red")
    text.highlight_regex(r"(?m)^INTERVENED.*$", "bold yellow")
    text.highlight_regex(r"(?m)^(?!INV|INTERVENED|VALID)[A-Z]{3}[A-Z ]+(?=$| {2}|:)", "bold cyan")
    text.highlight_regex(r"(?m)^ +[QA]  .*$", "bright_white")
    text.highlight_regex(r"(?m)^ +(unreachable|path_lost|timed_out|refused|unavailable|failed|unfinished)\b", "yellow")
    text.highlight_regex(r"═", "cyan")
    return text


def verdict_line(fidelity: Fidelity) -> str:
    """The verdict in one line."""
    if fidelity.valid:
        until = f" until its user ended the run at {time_text(fidelity.ended_ns)}" if fidelity.ended_early else ""
        what = "in exact time" if fidelity.clock == "exact" else "the machine kept up with the plan"
        return f"VALID: {what}{until}"
    if not fidelity.reasons:
        return (
            "INTERVENED: the machine kept up with the plan, but somebody changed the network; "
            f"{counted(len(fidelity.interventions), 'intervention')} below"
        )
    reasons = "1 reason" if len(fidelity.reasons) == 1 else f"{len(fidelity.reasons)} reasons"
    return f"INVALID: do not trust these figures; {reasons} at the end"


def _heading(scenario: Scenario, provenance: Mapping[str, Any]) -> Iterator[str]:
    yield from wrapped("", f"{scenario.name}: {scenario.description}".rstrip(": "))
    line = facts(
        f"{counted(len(scenario.satellite_names), 'satellite')}, "
        f"{counted(len(scenario.station_names), 'ground station')}",
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
    yield from wrapped("", line)
    if place := provenance.get("place"):
        kernel = place.get("kernel") or {}
        digest = f" · sha256 {kernel['sha256'][:12]}" if kernel.get("sha256") else ""
        yield from wrapped("", f"ran in the {place['kind']}: {place['reason']}{digest}")


CAUSES = {
    "down": "link down",
    "fault": "cut by a fault or by hand",
    "full": "queue full",
    "lost": "planned loss",
    "unclear": "link down or queue full",
}


def _dropped(row: Mapping[str, Any]) -> int:
    """How many packets a link end has dropped."""
    return sum(row[cause] for cause in CAUSES)


def _causes(drops: Rows) -> str:
    """Why packets were dropped, and how many each."""
    counts = {text: sum(row[cause] for row in drops) for cause, text in CAUSES.items()}
    known = ", ".join(f"{count:,} {text}" for text, count in counts.items() if count)
    return f": {known}" if known else ""


def _machine_facts(fidelity: Fidelity, drops: Rows) -> Iterator[tuple[str, str]]:
    """What the verdict rests on."""
    replay, cpu, calibration = fidelity.replay, fidelity.cpu, fidelity.calibration
    instants = f"{replay.applied_instants} of {replay.planned_instants} instants applied"
    yield "changes", f"{_punctuality(replay.lateness_ns)} · {instants}"
    differing = max(replay.mismatches, fidelity.readback_mismatches or 0)
    if fidelity.readback_mismatches is not None or differing:
        yield "kernel", f"{counted(differing, 'setting')} not as planned when read back"
    if calibration.bias_ns is not None:
        left = f"; {time_text(calibration.residue_ns)} left" if calibration.residue_ns is not None else ""
        yield "netem", f"adds {time_text(calibration.bias_ns)} by itself, which is taken off{left}"
    yield from fidelity.machine
    if fidelity.clock == "exact":
        yield "CPU", "computing takes no time, so its load is not judged"
    elif cpu.samples:
        crowded = f" · {counted(cpu.crowded_answers, 'answer')} short of CPU" if cpu.crowded_answers else ""
        busy = f"{share(cpu.busy_mean_ratio)} busy, saturated for {share(cpu.saturated_ratio)} of the time"
        yield "CPU", busy + crowded
        yield "wake-ups", _punctuality(cpu.wakeup_lateness_ns)
    if (waited := fidelity.surroundings.guest_waiting_mean_ratio) is not None:
        yield "outside", f"others had the guest's CPU when it wanted to run for {share(waited)} of the time"
    if fidelity.dropped_packets is not None:
        marked = f" · {fidelity.marked_packets:,} marked by managed queues" if fidelity.marked_packets else ""
        yield "links", f"{counted(fidelity.dropped_packets, 'packet')} dropped{_causes(drops)}{marked}"
        for row in sorted(drops, key=_dropped, reverse=True)[:MOST_DROPPING]:
            yield "", f"{row['node']} → {row['peer']}: {counted(_dropped(row), 'packet')}{_causes([row])}"
        if fidelity.carried_packets is not None and fidelity.ended_ns:
            a_second = fidelity.carried_packets * NS_PER_S / fidelity.ended_ns
            yield (
                "",
                f"{fidelity.carried_packets:,} packets carried, counted at each hop; {a_second:,.0f} per emulated s",
            )
    if fidelity.journal_lines_lost:
        yield "journal", f"{counted(fidelity.journal_lines_lost, 'torn line')} left out"


def _punctuality(lateness: Distribution) -> str:
    return f"late by {time_text(lateness.p50)} (p50), {time_text(lateness.p99)} (p99), {time_text(lateness.max)} (max)"
