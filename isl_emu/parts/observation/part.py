"""Earth observation: images that satellites take, look at in orbit, and answer to the ground."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from isl_emu.errors import WorkloadError
from isl_emu.files import read_whole, why_unread, write_whole
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.parts.activity import Activity, RunProcess
from isl_emu.parts.finished_run import ConcludedRun, FinishedRun
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.observation.exposures import exposures
from isl_emu.parts.observation.observe import EXPOSURES, JOURNAL, analyst_log, image_file
from isl_emu.parts.observation.results import OBSERVATIONS, TABLE, observation_rows, observation_section
from isl_emu.parts.part import (
    CpuUse,
    Event,
    Need,
    Pace,
    Part,
    Preparation,
    Source,
    Spells,
    Traffic,
    files_named,
    shares_of_a_cpu,
    transfer_events,
)
from isl_emu.parts.serving.modelled_state import OBSERVED, ModelledState
from isl_emu.progress import Steps
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import joined, read_latest
from isl_emu.runs.process import Watched, kill, last_line, module_command
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.observation import MIB, Observation
from isl_emu.scenario.user_functions import planning_function
from isl_emu.show.chapter import Chapter
from isl_emu.tables.text import counted

PROCESS_BYTE = 200 * MIB  # Python, numpy, the plan, and images on their way
ANALYST_BYTE = 64 * MIB  # expected of a program of which nothing is known


class ObservationPart(Part):
    key = "observation"
    tables = {TABLE: OBSERVATIONS}
    watched = (TABLE,)

    def endpoints(self, scenario: Scenario, plan: LinkPlan) -> Iterable[str]:
        return _taking_part(scenario)

    def needs(self, scenario: Scenario) -> Iterable[Need]:
        for one in scenario.observation:
            if one.command:
                expected_byte = min(one.memory_byte, ANALYST_BYTE)
                visible = (Path.cwd(), *files_named(_here(one.command)))
                for name in one.computers(scenario.satellite_names):
                    yield Need(name, one.cpus, one.memory_byte, expected_byte, visible)

    def own_byte(self, scenario: Scenario) -> int:
        return PROCESS_BYTE if scenario.observation else 0

    def real_time(self, scenario: Scenario) -> Iterable[str]:
        for one in scenario.observation:
            if one.command and not one.states_time:
                yield (
                    f"observation.command: what {one.name}'s program computes would take no time; add compute_time, or "
                    "model and board for as long as it takes there"
                )

    def checks(self, scenario: Scenario) -> Iterable[Callable[[], object]]:
        for number, one in enumerate(scenario.observation):
            yield partial(_checked, number, one)

    def traffic(self, scenario: Scenario) -> Iterable[Traffic]:
        for number, one in enumerate(scenario.observation):
            size_byte = one.size_byte * scenario.rate_scale if one.size_byte else 0.0
            yield Traffic(f"observation {one.name}", byte=size_byte * len(exposures(scenario, number)), scaled=True)

    def prepare(self, source: Source, place: str) -> Preparation:
        scenario = source.scenario
        if not scenario.observation:
            return Preparation()
        contents = {n: content for n, one in enumerate(scenario.observation) if (content := _checked(n, one))}
        images = [image for number in range(len(scenario.observation)) for image in exposures(scenario, number)]

        def leave(folder: RunFolder, steps: Steps) -> None:
            """Leave when images are taken, and the real ones."""
            write_whole(folder.journal / EXPOSURES, json.dumps([asdict(image) for image in images]))
            for number, content in contents.items():
                image_file(folder.journal, number).write_bytes(content)
            if not images:
                steps.note(
                    "Warning: observation: no satellite takes an image in this run; lengthen time.duration, or "
                    "widen over"
                )

        inputs = tuple(Path(one.file) for one in scenario.observation if one.file)
        seen = (Path.cwd(),) if any(":" in one.placement for one in scenario.observation) else ()
        return Preparation(inputs=inputs, seen=seen, leave=leave)

    def one_guest(self, source: Source) -> Iterable[str]:
        return ()

    def together(self, scenario: Scenario) -> Iterable[Sequence[str]]:
        """One process sees to all images, in all nodes that they and their answers come from or go to."""
        if scenario.observation:
            yield (*dict.fromkeys(_taking_part(scenario)), *scenario.station_names)

    def start(self, live: LiveRun) -> Iterable[Activity]:
        scenario, names = live.scenario, live.scenario.satellite_names
        if not any(live.is_here(group[0]) for group in self.together(scenario)):
            return
        if scenario.power:
            waiting = (one for one in scenario.observation if live.exact or not one.command)
            computers = list(dict.fromkeys(name for one in waiting for name in one.computers(names)))
            ModelledState.create(live.folder.journal / OBSERVED, computers)
        for number, one in enumerate(scenario.observation):
            if one.command:
                with live.phase("observation", f"starting what looks at the images of {one.name}"):
                    for name in one.computers(names):
                        _start_analyst(live, name, number, _here(one.command))
        yield RunProcess("observation", ["isl_emu.parts.observation.observe"], live.folder.journal)

    def status(self, *journals: Path) -> Iterable[str]:
        if found := [one for journal in journals for one in joined(read_latest(journal / f"{JOURNAL}.jsonl"))]:
            down = sum("t_answer_there_ns" in one for one in found)
            yield f"observation: {counted(len(found), 'image')} taken, {down} answered on the ground"

    def conclude(self, run: FinishedRun) -> None:
        if run.scenario.observation:
            journal = run.journal(JOURNAL)
            run.write(TABLE, OBSERVATIONS, observation_rows(journal.records, run), journal.lost_lines)

    def cpu_use(self, run: FinishedRun, pace: Pace) -> Iterable[CpuUse]:
        """Of programs; what is modelled computes nothing."""
        scenario = run.scenario
        programs = {one.name: one.cpus for one in scenario.observation if one.command}
        spells = []
        for row in run.rows(TABLE):
            if row["observation"] in programs and row["t_begun_ns"] is not None and row["t_analysed_ns"] is not None:
                share = shares_of_a_cpu({row["analyst"]: programs[row["observation"]]}, pace, scenario.time.slowdown)
                span_ns = row["t_begun_ns"], row["t_analysed_ns"]
                spells.append((*span_ns, share(row["analyst"], *span_ns)))
        yield Spells(spells)

    def sections(self, run: FinishedRun, figures: Mapping[str, Any]) -> Iterator[Iterable[str]]:
        if run.scenario.observation:
            yield observation_section(run.scenario, run.rows(TABLE))

    def events(self, table: str, row: Mapping[str, Any]) -> Iterable[Event]:
        """The ways of the image, and of the answer."""
        name = f"{row['observation']} {row['number']}"
        if row["t_image_sent_ns"] is not None:
            ends, times_ns = (row["satellite"], row["analyst"]), (row["t_image_sent_ns"], row["t_image_there_ns"])
            yield from transfer_events("image", name, ends, times_ns, row["image_path"])
        if row["t_answer_there_ns"] is not None:
            ends = row["analyst"] or row["satellite"], row["station"]
            times_ns = row["t_answer_sent_ns"], row["t_answer_there_ns"]
            yield from transfer_events("answer", name, ends, times_ns, row["answer_path"])

    def chapters(self, run: ConcludedRun) -> Iterator[Chapter]:
        from isl_emu.parts.observation.chapters import observation_chapter  # which draws; that is slow to import

        return observation_chapter(run)

    def ways(self, run: ConcludedRun) -> Iterable[Sequence[str]]:
        return (row[key] for row in run.rows(TABLE) for key in ("image_path", "answer_path") if row[key])


def _taking_part(scenario: Scenario) -> Iterator[str]:
    """The satellites that take images or look at them; some more than once."""
    names = scenario.satellite_names
    return (name for one in scenario.observation for name in (*one.observers(names), *one.computers(names)))


def _checked(number: int, one: Observation) -> bytes | None:
    """The real image of an observation, if it has one; its own function is one.

    Raises:
        WorkloadError: the file cannot be read, or is empty.
    """
    if ":" in one.placement:
        planning_function(one.placement, f"observation[{number}].placement", 1)
    if one.file is None:
        return None
    try:
        content = read_whole(Path(one.file))
    except OSError as error:
        raise WorkloadError(
            f"observation[{number}].file: {one.file} cannot be read ({why_unread(error)}), but it is the image; name "
            "another"
        ) from None
    if not content:
        raise WorkloadError(f"observation[{number}].file: {one.file} is empty, but it is the image; name another")
    return content


def _here(command: Sequence[str]) -> list[str]:
    """A command whose words that name files below the current folder are whole paths."""
    return [str(Path(word).absolute()) if "/" in word and Path(word).is_file() else word for word in command]


def _start_analyst(live: LiveRun, name: str, number: int, command: Sequence[str]) -> None:
    """Start what looks at images in a satellite's container, and wait until it listens.

    Raises:
        WorkloadError: it does not start.
    """
    container, log = live.containers[name], live.folder.journal / analyst_log(number, name)
    words = module_command("isl_emu.parts.observation.analyst", "--number", str(number), "--", *command)
    with log.open("wb") as messages:
        process = container.popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=messages)
    live.undo.callback(kill, [process])
    assert process.stdout is not None, "it is a pipe"
    live.undo.callback(process.stdout.close)
    if not process.stdout.readline():
        raise WorkloadError(
            f"observation[{number}].command: what looks at images on {name} did not start ({last_line(log)}), but it "
            f"listens before the run; see journal/{log.name}"
        )
    live.watch.add(Watched(process, "what looks at images", name, log, container.oom_kills))
