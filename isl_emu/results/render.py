"""The summary of a run for readers: plain text, at most 100 columns, the verdict in its first and its last line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow.parquet as pq
from rich.text import Text

from isl_emu.parts.kv_handover.report import kv_section
from isl_emu.parts.power.report import energy_section
from isl_emu.parts.power.totals import energy_totals, read_energy_table
from isl_emu.parts.probes.report import delays_section
from isl_emu.parts.programs.report import programs_section
from isl_emu.parts.questions.report import answers_section, questions_section
from isl_emu.parts.serving.report import servers_section
from isl_emu.parts.split.report import split_section
from isl_emu.parts.training.report import training_section
from isl_emu.parts.uplink.report import uplink_section
from isl_emu.results.fidelity import Fidelity
from isl_emu.results.machine_section import machine_section
from isl_emu.runs.folder import RunFolder
from isl_emu.scenario.model import Scenario
from isl_emu.tables.text import counted, facts, time_text, wrapped
from isl_emu.units import DURATION_NS, format_quantity


def render(folder: RunFolder, scenario: Scenario, fidelity: Fidelity, provenance: Mapping[str, Any]) -> str:
    """The text of summary.txt, from the tables of a run folder; what the scenario does not have is left out."""
    requests = pq.read_table(folder.table("requests")).to_pylist()
    probes = pq.read_table(folder.table("probes")).to_pylist()
    lines = [verdict_line(fidelity), "", *_heading(scenario, provenance), *_course(fidelity)]
    if requests:
        lines += ["", *questions_section(requests, set(scenario.station_names))]
        lines += ["", *answers_section(requests, scenario)]
    if servers := _rows(folder, "servers"):
        lines += ["", *servers_section(servers, fidelity)]
    if split := _rows(folder, "split"):
        lines += ["", *split_section(split)]
    if handovers := _rows(folder, "kv_handovers"):
        lines += ["", *kv_section(handovers)]
    if deliveries := _rows(folder, "deliveries"):
        lines += ["", *uplink_section(deliveries, _rows(folder, "transfers"))]
    if probes:
        lines += ["", *delays_section(probes)]
    if (energy := read_energy_table(folder.table("energy"))) is not None:
        lines += ["", *energy_section(energy_totals(energy, requests, scenario))]
    if scenario.program or scenario.workload:
        lines += ["", *programs_section(*_own_traffic(folder, scenario))]
    if (trained := folder.table("training")).exists():
        lines += ["", *training_section(pq.read_table(trained).to_pylist())]
    lines += ["", *machine_section(fidelity), ""]
    if fidelity.reasons:
        lines += ["WHY IT IS INVALID", *(line for reason in fidelity.reasons for line in wrapped("- ", reason)), ""]
    return "\n".join(line.rstrip() for line in [*lines, verdict_line(fidelity)]) + "\n"


def _rows(folder: RunFolder, name: str) -> list[dict[str, Any]]:
    """The rows of a table that not every run has."""
    path = folder.table(name)
    return pq.read_table(path).to_pylist() if path.exists() else []


def _own_traffic(folder: RunFolder, scenario: Scenario) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The programs' records, and how many rows each workload has."""
    programs, tables = folder.table("programs"), {item.name: folder.table(item.name) for item in scenario.workload}
    rows = {name: pq.read_metadata(path).num_rows if path.exists() else 0 for name, path in tables.items()}
    return pq.read_table(programs).to_pylist() if programs.exists() else [], rows


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
    text = Text(summary)
    text.highlight_regex(r"(?m)^VALID.*$", "bold green")
    text.highlight_regex(r"(?m)^INVALID.*$", "bold red")
    text.highlight_regex(r"(?m)^(?!IN|VALID)[A-Z]{3}[A-Z ]+(?=$| {2}|:)", "bold cyan")
    text.highlight_regex(r"(?m)^ +[QA]  .*$", "bright_white")
    text.highlight_regex(r"(?m)^ +(unreachable|path_lost|timed_out|refused|unavailable|failed|unfinished)\b", "yellow")
    text.highlight_regex(r"═", "cyan")
    return text


def verdict_line(fidelity: Fidelity) -> str:
    """The verdict in one line."""
    if fidelity.valid:
        until = f" until its user ended the run at {time_text(fidelity.ended_ns)}" if fidelity.ended_early else ""
        return f"VALID: the machine kept up with the plan{until}"
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
        yield from wrapped("", f"ran in the {place['kind']}: {place['reason']}")
