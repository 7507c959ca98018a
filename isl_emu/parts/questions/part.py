"""Questions: users at ground stations ask the model servers of satellites, and read their answers token by token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from isl_emu.files import write_json
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.parts.activity import Activity, RunProcess
from isl_emu.parts.finished_run import FinishedRun, Row
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.part import Part, Preparation
from isl_emu.parts.questions import asking
from isl_emu.parts.questions.asking import Asking
from isl_emu.parts.questions.figures import read_serving_figures
from isl_emu.parts.questions.policies import policy_of
from isl_emu.parts.questions.requests import PlannedRequest, asked_satellites, check_fit, plan_requests, read_asked
from isl_emu.parts.questions.results import (
    ATTEMPTS,
    POLLS,
    REQUESTS,
    answers_section,
    attempt_row,
    outcome,
    questions_section,
    request_row,
    unrecorded_requests,
)
from isl_emu.parts.serving.busy import AnsweringTimes, service_span
from isl_emu.parts.source import Source
from isl_emu.progress import Steps
from isl_emu.routing.outlook import plan_outlook
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import Journal, count_lines, read_journal
from isl_emu.scenario.model import Scenario

FIGURES = "serving.json"  # in the run folder


class QuestionsPart(Part):
    key = "questions"
    lines = {"polls": POLLS}
    tables = {"requests": REQUESTS, "attempts": ATTEMPTS}

    def endpoints(self, scenario: Scenario, plan: LinkPlan) -> Iterable[str]:
        return asked_satellites(scenario, plan)

    def prepare(self, source: Source, place: str) -> Preparation:
        scenario, questions = source.scenario, source.scenario.questions
        if questions is None:
            return Preparation()
        policy_of(questions.target)  # so that an error comes now
        duration_ns, rng = scenario.time.grid.duration_ns, np.random.default_rng(scenario.seed)
        asked, satellites = read_asked(questions, duration_ns), asked_satellites(scenario, source.plan)
        requests = plan_requests(questions, scenario.users_by_station, satellites, duration_ns, rng, asked)
        check_fit(requests, scenario.least_context_tokens)
        inputs = tuple(Path(name) for name in questions.files)
        return Preparation(inputs=inputs, leave=partial(_leave, source, satellites, requests))

    def start(self, live: LiveRun) -> Iterable[Activity]:
        if live.scenario.questions:
            yield RunProcess("client", ["isl_emu.parts.questions.client"], live.folder.journal)

    def progress(self, journal: Path) -> str | None:
        asked = count_lines(journal / asking.PLANNED)
        return f"{count_lines(journal / asking.REQUESTS)} of {asked} questions done" if asked else None

    def status(self, journal: Path) -> Iterable[str]:
        return filter(None, [self.progress(journal)])

    def conclude(self, run: FinishedRun) -> None:
        attempts, requests = (read_journal(run.folder.journal / name) for name in (asking.ATTEMPTS, asking.REQUESTS))
        outcomes = ({**record, "outcome": outcome(record, run.paths)} for record in attempts.records)
        attempt_rows = [attempt_row(record, run.paths) for record in outcomes]
        run.write("attempts", ATTEMPTS, attempt_rows, attempts.lost_lines)
        rows = _request_rows(requests.records, run)
        laser_byte: Counter[int] = Counter()
        for attempt in attempt_rows:
            laser_byte[attempt["id"]] += attempt["laser_byte"]
        for row in rows:
            row["laser_byte"] = laser_byte.get(row["id"])
        run.write("requests", REQUESTS, rows, requests.lost_lines)
        if run.scenario.questions:
            write_json(run.folder.path / FIGURES, read_serving_figures(run))

    def sections(self, run: FinishedRun, figures: Mapping[str, Any]) -> Iterator[Iterable[str]]:
        if requests := run.rows("requests"):
            yield questions_section(requests, set(run.scenario.station_names))
            yield answers_section(requests, run.scenario)


def _leave(
    source: Source, satellites: Sequence[str], requests: Sequence[PlannedRequest], folder: RunFolder, steps: Steps
) -> None:
    """Write what is asked, and how, where the client finds it."""
    questions = source.scenario.questions
    assert questions is not None
    with Journal(folder.journal / asking.PLANNED) as journal:
        for request in requests:
            journal.append(request.to_json())
    Asking.of(questions, satellites).write(folder.journal)
    if questions.decides_live:
        stations = tuple(source.scenario.users_by_station)
        plan_outlook(source.plan, source.routes, stations, satellites).save(folder.journal / asking.OUTLOOK)


def _request_rows(recorded: Sequence[Row], run: FinishedRun) -> list[Row]:
    """One row for each request that was due before the end of the run."""
    scenario, questions = run.scenario, run.scenario.questions
    if questions is None:
        return []
    planned = read_journal(run.folder.journal / asking.PLANNED).records
    records = [*recorded, *unrecorded_requests(planned, recorded)]
    records = [record for record in records if record["t_due_ns"] < run.ended_ns]
    answering = AnsweringTimes(records)
    records.sort(key=lambda record: record["id"])
    rows = [request_row(record, run.paths, questions) for record in records]
    for row in rows:
        span, satellite = service_span(row), row["satellite"]
        group = scenario.compute_of(satellite) if satellite else None
        row["server"] = group.server if group else "split" if satellite else None
        row["satellites_answering"] = answering.mean_count(*span) if span else None
    return rows
