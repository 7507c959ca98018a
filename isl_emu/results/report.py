"""The report of a run: one HTML file that needs no network and no script, and the same figures as files for papers.

What the run carried, each part tells in its own chapters; here is what every run has. Whatever the run folder holds of
others' texts (answers, prompts, names) is escaped, and the page forbids itself all but its own style and pictures.
"""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined

from isl_emu.errors import ScenarioError
from isl_emu.files import read_json, write_whole
from isl_emu.linkplan.contacts import KindTerms, find_contacts, terms_of_kinds
from isl_emu.linkplan.plan import LinkKind, LinkPlan
from isl_emu.linkplan.plan_file import KIND_NAMES, read_plan
from isl_emu.parts.finished_run import ConcludedRun
from isl_emu.parts.registry import PARTS
from isl_emu.planned import PlannedNetwork
from isl_emu.results.link_load import links_chapter
from isl_emu.results.path_changes import path_changes_chapter
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import INCIDENTS_JOURNAL
from isl_emu.scenario.parse import load_scenario
from isl_emu.show.chapter import Chapter, DataTable, Picture, Preformatted
from isl_emu.show.gantt import draw_gantt
from isl_emu.show.ground_map import draw_map
from isl_emu.show.style import check_formats, encoded, paper
from isl_emu.tables.planned_paths import HopDelays
from isl_emu.tables.text import counted, facts, share, time_text
from isl_emu.units import DURATION_NS, NS_PER_S, format_quantity

REPORT = "report.html"  # in the run folder
ROWS = 20  # of a table of the machine's
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")  # also what turns text around


def read_concluded(path: Path) -> ConcludedRun:
    """The run in a folder.

    Raises:
        ScenarioError: it holds no finished run, or something that is none of its files.
    """
    folder = RunFolder(path.absolute())
    if not (folder.fidelity.is_file() and folder.plan.is_file() and folder.scenario.is_file()):
        raise ScenarioError(
            f"{path}: holds no results of a finished run, but a report is of those; name the folder that `--out` named"
        )
    folder.check_plain()
    return ConcludedRun(folder, load_scenario(folder.scenario), read_plan(folder.plan))


def write_report(run: ConcludedRun, path: Path | None = None) -> Path:
    """Write the report, by default into the run folder.

    Raises:
        ScenarioError: it cannot be written there.
    """
    target = path or run.folder.path / REPORT
    try:
        write_whole(target, report_html(run))
    except OSError as error:
        raise ScenarioError(
            f"{target}: cannot be written ({error.strerror}), but a report is a file; name another with --out"
        ) from None
    return target


def write_figures(run: ConcludedRun, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write the report's pictures as files, in each of the formats "png", "svg" and "pdf".

    Raises:
        ScenarioError: a format that is none, or the folder cannot be written.
    """
    check_formats(formats)
    pictures = [item for chapter in chapters(run) for item in chapter.items if isinstance(item, Picture)]
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for picture in pictures:
            with paper():
                figure = picture.draw()
                for form in formats:
                    written.append(folder / f"{picture.name}.{form}")
                    written[-1].write_bytes(encoded(figure, picture.name, form))
    except OSError as error:
        raise ScenarioError(
            f"{folder}: cannot be written ({error.strerror}), but figures are files in it; name another folder"
        ) from None
    return written


def report_html(run: ConcludedRun) -> str:
    """The page."""
    fidelity = read_json(run.folder.fidelity) or {}
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"printable": printable, "kind": lambda item: type(item).__name__, "svg": svg_url}
    template = environment.from_string((files("isl_emu.results") / "report.html").read_text(encoding="utf-8"))
    page: str = template.render(
        name=run.scenario.name,
        description=run.scenario.description,
        verdict=_verdict(fidelity),
        reasons=[*fidelity.get("reasons", ()), *fidelity.get("interventions", ())],
        facts=list(_facts(run, fidelity)),
        chapters=chapters(run),
    )
    return page


def printable(text: str) -> str:
    """Text without what is no character, and what would turn the text around it about."""
    return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text.replace("\N{NO-BREAK SPACE}", " "))


def svg_url(picture: Picture) -> str:
    """A picture as the address of an image that is the picture itself; no script in it would run."""
    with paper():
        return "data:image/svg+xml;base64," + base64.b64encode(encoded(picture.draw(), picture.name, "svg")).decode()


def chapters(run: ConcludedRun) -> list[Chapter]:
    """All chapters: the network, what it carried, and how far to trust and how to repeat it."""
    of_parts = [chapter for part in PARTS for chapter in part.chapters(run)]
    fidelity, provenance = read_json(run.folder.fidelity) or {}, read_json(run.folder.provenance) or {}
    return [
        _scenario_chapter(run),
        *(chapter for chapter in of_parts if chapter.network),
        *path_changes_chapter(run),
        links_chapter(run, fidelity),
        *(chapter for chapter in of_parts if not chapter.network),
        *_incidents_chapters(run),
        _machine_chapter(fidelity),
        _provenance_chapter(run, provenance),
    ]


def _verdict(fidelity: Mapping[str, Any]) -> tuple[str, str]:
    """The verdict as a word, and what it means."""
    exact = fidelity.get("clock") == "exact"
    clock = "Exact time: a virtual clock, which no load of the machine distorts." if exact else "Real time."
    if fidelity.get("verdict") == "valid":
        return "valid", clock if exact else f"{clock} The machine kept up with the plan."
    if not fidelity.get("reasons"):
        return "intervened", f"{clock} The machine kept up with the plan, but somebody changed the network."
    return "invalid", f"{clock} Do not trust these figures."


def _facts(run: ConcludedRun, fidelity: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    scenario, ended_ns = run.scenario, fidelity.get("ended_ns")
    lasted = format_quantity(scenario.time.duration_ns, DURATION_NS)
    if ended_ns is not None and ended_ns < scenario.time.duration_ns:
        lasted = f"{time_text(ended_ns)} of {lasted}, ended by its user"
    yield "satellites", f"{len(scenario.satellite_names):,}"
    yield "ground stations", f"{len(scenario.station_names):,}"
    yield "emulated time", lasted
    yield "step", format_quantity(scenario.time.step_ns, DURATION_NS)
    yield "rates", "as planned" if scenario.rate_scale == 1 else f"planned x {scenario.rate_scale:g}"
    if scenario.time.slowdown > 1:
        yield "slow motion", f"x {scenario.time.slowdown:g}"
    yield "seed", str(scenario.seed)


def _scenario_chapter(run: ConcludedRun) -> Chapter:
    plan, planned = run.plan, PlannedNetwork(run.plan, run.scenario)
    used = _used_links(run)
    up_now = set(plan.snapshot(0).link.tolist()) & used
    contacts = find_contacts(plan)
    ground = int(np.count_nonzero(plan.links.kind[contacts.link] == LinkKind.GROUND))
    lasers = int(np.count_nonzero(plan.links.laser))
    start = f"{plan.grid.start:%Y-%m-%d %H:%M:%S} UTC"
    carried = (
        f"Broad and blue: the {len(up_now)} of {counted(len(used), 'link')} on ways that packets took."
        if up_now
        else "No ways of packets are recorded."
    )
    return Chapter(
        "The network",
        [
            " ".join(_sentences(run)),
            Picture(
                "map",
                partial(draw_map, planned, 0, used),
                f"Satellites, stations and links at {start}, with ground tracks. {carried}",
                f"World map with {counted(len(run.scenario.satellite_names), 'satellite')} and "
                f"{counted(len(run.scenario.station_names), 'station')}: {', '.join(run.scenario.station_names[:12])}.",
            ),
            Picture(
                "contacts",
                partial(draw_gantt, planned),
                "Contacts over time: each station's with satellites, a lane for each antenna in use, and the lasers "
                "that come and go.",
                f"Bars over time: {counted(ground, 'ground contact')}, {counted(lasers, 'laser link')}.",
            ),
        ],
    )


def _sentences(run: ConcludedRun) -> Iterator[str]:
    """The scenario in words."""
    scenario, plan = run.scenario, run.plan
    names = ", ".join(scenario.station_names[:8]) + (" and others" if len(scenario.station_names) > 8 else "")
    stations = f" and {counted(len(scenario.station_names), 'ground station')} ({names})" if names else ""
    yield f"{counted(len(scenario.satellite_names), 'satellite')} in {counted(len(scenario.shell), 'shell')}{stations}."
    for kind, terms in sorted(terms_of_kinds(plan).items()):
        yield _kind_sentence(plan, kind, terms)
    yield (
        f"The plan has {counted(plan.grid.count, 'instant')}, {format_quantity(plan.grid.step_ns, DURATION_NS)} apart, "
        f"from {plan.grid.start:%Y-%m-%d %H:%M:%S} UTC; packets go by the policy {scenario.routing.policy}."
    )


def _kind_sentence(plan: LinkPlan, kind: int, terms: KindTerms) -> str:
    others = {LinkKind.GROUND: "ground links", LinkKind.TERRESTRIAL: "terrestrial lines"}
    what = others.get(LinkKind(kind), f"{KIND_NAMES[kind]} lasers")
    least, most = (time_text(int(delay_ns)) for delay_ns in terms.delay_ns)
    rates = sorted({f"{rate / 1e9:.3g}" for rate in terms.rate_bit_s}, key=float)
    return (
        f"{int(np.count_nonzero(plan.links.kind == kind)):,} {what}: delay "
        f"{least if least == most else f'{least} to {most}'}, rate {' to '.join(rates)} Gbit/s."
    )


def _used_links(run: ConcludedRun) -> set[int]:
    """The numbers of the links on the ways that packets took."""
    hops, found = HopDelays(run.plan), set()
    for way in {tuple(way) for part in PARTS for way in part.ways(run)}:
        found |= {link for a, b in zip(way, way[1:], strict=False) if (link := hops.link(a, b)) is not None}
    return found


def _incidents_chapters(run: ConcludedRun) -> Iterator[Chapter]:
    if not (rows := run.rows(INCIDENTS_JOURNAL)):
        return
    lines = [
        (
            f"{row['t_ns'] / NS_PER_S:.3f} s",
            row["kind"],
            row["node"] or "-",
            row["what"],
            row["cause"],
            "-" if row["t_end_ns"] is None else f"{row['t_end_ns'] / NS_PER_S:.3f} s",
        )
        for row in rows[:ROWS]
    ]
    header = ("at", "kind", "node", "what", "cause", "put right")
    rest = f"{len(rows) - ROWS} more are in incidents.parquet" if len(rows) > ROWS else ""
    yield Chapter("What nobody planned", [DataTable("Deaths and interventions", header, lines, left=5, rest=rest)])


def _machine_chapter(fidelity: Mapping[str, Any]) -> Chapter:
    replay, cpu = fidelity.get("replay", {}), fidelity.get("cpu", {})
    lateness = replay.get("lateness_ns", {})
    rows = [
        ("instants applied", f"{replay.get('applied_instants')} of {replay.get('planned_instants')}"),
        ("changes late by", facts(*(f"{time_text(lateness.get(key))} ({key})" for key in ("p50", "p99", "max")))),
        ("settings not as planned when read back", _known(fidelity.get("readback_mismatches"))),
        ("torn lines of journals", _known(fidelity.get("journal_lines_lost"))),
    ]
    if (bias_ns := (fidelity.get("calibration") or {}).get("bias_ns")) is not None:
        rows.append(("netem adds by itself, taken off", time_text(bias_ns)))
    if fidelity.get("clock") != "exact":
        rows.append(("CPU busy", share(cpu.get("busy_mean_ratio"))))
        rows.append(("CPU saturated", f"{share(cpu.get('saturated_ratio'))} of the time"))
    return Chapter("How true the run was", [DataTable("What the verdict rests on", ("figure", "value"), rows, left=2)])


def _known(count: int | None) -> str:
    return "not known" if count is None else f"{count:,}"


def _provenance_chapter(run: ConcludedRun, record: Mapping[str, Any]) -> Chapter:
    place, versions = record.get("place") or {}, record.get("versions") or {}
    kernel, machine = place.get("kernel") or {}, record.get("machine") or {}
    command = record.get("command") or []
    again = f"isl-emu run {shlex.quote(str(run.folder.path / 'scenario.toml'))} --clock {place.get('clock', 'auto')}"
    rows = [
        ("command", shlex.join(["isl-emu", *command[1:]]) if command else "not known"),
        ("started, finished", f"{record.get('started_utc')}, {record.get('finished_utc')}"),
        ("ran in", f"the {place.get('kind')}: {place.get('reason')}"),
        ("kernel", kernel.get("release") or machine.get("release") or machine.get("kernel") or "not known"),
        ("plan, SHA-256", record.get("plan_sha256") or "not known"),
        ("scenario.toml, SHA-256", record.get("scenario_sha256") or "not known"),
        ("commit", record.get("git_commit") or "not of a checkout"),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items() if version)),
        *(
            ("file read", f"{one['file']}, {one['size_byte']:,} bytes, SHA-256 {one['sha256']}")
            for one in (*(record.get("models") or ()), *(record.get("inputs") or ()))
        ),
    ]
    summary = run.folder.summary.read_text(errors="replace") if run.folder.summary.is_file() else "it is not there"
    return Chapter(
        "Provenance, and how to repeat it",
        [
            DataTable("What the run was made with; all of it is in provenance.json", ("", ""), rows, left=2),
            Preformatted("To repeat it: equal plans have equal digests, and in exact time equal tables", again),
            Preformatted("The summary of the run, summary.txt", summary),
        ],
    )
