"""Questions: users at ground stations ask the model servers of satellites, and read their answers token by token."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from isl_emu.errors import IslEmuError
from isl_emu.files import write_json
from isl_emu.linkplan.contacts import find_contacts
from isl_emu.linkplan.plan import LinkKind, LinkPlan
from isl_emu.partition.load import Flow
from isl_emu.parts.activity import Activity, RunProcess
from isl_emu.parts.finished_run import ConcludedRun, FinishedRun, Row
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.part import EVERY_NODE_UP_TO, Crossing, Event, Part, Preparation, Source, Traffic, bulk_packet_byte
from isl_emu.parts.questions import asking
from isl_emu.parts.questions.asking import Asking
from isl_emu.parts.questions.conversations import Conversation, read_conversations
from isl_emu.parts.questions.expected_moves import Changes, expected_moves, expected_tokens, sent_byte_per_token
from isl_emu.parts.questions.figures import read_serving_figures, slices
from isl_emu.parts.questions.requests import PlannedRequest, check_fit, plan_requests, read_asked
from isl_emu.parts.questions.results import (
    ATTEMPTS,
    POLLS,
    REQUESTS,
    SLICES,
    add_recomputed,
    answers_section,
    attempt_row,
    outcome,
    questions_section,
    request_row,
    unrecorded_requests,
)
from isl_emu.parts.questions.traces import read_trace
from isl_emu.parts.questions.users import plan_users
from isl_emu.parts.serving.busy import AnsweringTimes, service_span
from isl_emu.parts.serving.kinds import kind_of
from isl_emu.parts.serving.who_serves import servers_known_down
from isl_emu.progress import Steps
from isl_emu.routing.outlook import NOBODY, UNREACHED_NS, plan_outlook
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import (
    REQUESTS_JOURNAL,
    SERVERS_JOURNAL,
    Journal,
    count_all,
    read_journal,
    rewrite_journal,
)
from isl_emu.runs.merging import Records, merged_rows
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.questions import MOVE, USERS, Questions
from isl_emu.scenario.user_functions import planning_function
from isl_emu.show.chapter import Chapter
from isl_emu.units import NS_PER_S

FIGURES = "serving.json"  # in the run folder
SLICES_TABLE = "serving_slices"
WAYS = ("path_at_send", "path_at_finish")  # columns
QUESTION_PACKETS, TOKEN_PACKETS = 6, 2  # which both programs work on: the connection, headers; a token as an event


def _by_id(parts: Sequence[Records]) -> Records:
    """What all stations ask, as it was planned; a guest that died early still has the others' as well."""
    return sorted(merged_rows(parts, "id", {}), key=lambda record: record["id"])


class QuestionsPart(Part):
    key = "questions"
    lines = {asking.POLLS_JOURNAL: POLLS}
    tables = {REQUESTS_JOURNAL: REQUESTS, asking.ATTEMPTS_JOURNAL: ATTEMPTS, SLICES_TABLE: SLICES}
    merges = {asking.PLANNED_JOURNAL: _by_id}
    watched = REQUESTS_JOURNAL, asking.POLLS_JOURNAL
    watched_live = asking.ASKED_JOURNAL, REQUESTS_JOURNAL, asking.POLLS_JOURNAL

    def endpoints(self, scenario: Scenario, plan: LinkPlan) -> Iterable[str]:
        return asked_satellites(scenario, plan)

    def traffic(self, scenario: Scenario) -> Iterable[Traffic]:
        """As many as are expected, before any is drawn; a trace that cannot be read is told of by the run."""
        questions, stations, duration_ns = scenario.questions, len(scenario.asking_stations), scenario.time.duration_ns
        if questions is None:
            return
        end_ns = duration_ns if questions.stop_after_ns is None else min(questions.stop_after_ns, duration_ns)
        asked = questions.expected(stations, duration_ns)
        conversations: tuple[Conversation, ...] = ()
        if questions.conversations:
            with suppress(IslEmuError):
                conversations = read_conversations(questions.conversations)
        if conversations and questions.arrivals != USERS:
            asked *= fmean(len(one.turns) for one in conversations)
        tokens = asked * questions.max_answer_tokens
        if questions.trace:
            with suppress(IslEmuError):
                traced = read_trace(questions.trace, end_ns - questions.start_after_ns)
                asked, tokens = len(traced), sum(request.answer_tokens for request in traced)
        yield Traffic("questions", QUESTION_PACKETS * asked + TOKEN_PACKETS * tokens)
        if questions.context == MOVE:
            moved = expected_tokens(scenario, questions, asked, conversations)
            yield Traffic("contexts that move", byte=moved * sent_byte_per_token(scenario), scaled=True)
        if questions.poll_interval_ns:
            polls = stations * questions.candidates * duration_ns / questions.poll_interval_ns
            yield Traffic("polls", QUESTION_PACKETS * polls)

    def checks(self, scenario: Scenario) -> Iterable[Callable[[], object]]:
        if questions := scenario.questions:
            yield partial(_own_policy, questions)
            yield lambda: none_asked(planned_requests(scenario, questions, scenario.serving_satellites))

    def prepare(self, source: Source, place: str) -> Preparation:
        scenario, questions = source.scenario, source.scenario.questions
        if questions is None:
            return Preparation()
        _own_policy(questions)  # so that an error comes now
        satellites = asked_satellites(scenario, source.plan)
        requests = planned_requests(scenario, questions, satellites)
        inputs = tuple(Path(name) for name in questions.files)
        seen = (Path.cwd(),) if ":" in questions.target else ()  # where the client finds a user's function
        return Preparation(inputs=inputs, seen=seen, leave=partial(_leave, source, satellites, requests))

    def together(self, scenario: Scenario) -> Iterable[Sequence[str]]:
        """Who asks apart has a process for each guest, which knows nothing of the others."""
        questions = scenario.questions
        if questions and (questions.poll_interval_ns or ":" in questions.target):
            yield scenario.asking_stations

    def one_guest(self, source: Source) -> Iterable[str]:
        return ()

    def flows(self, source: Source) -> Iterable[Flow]:
        """By the questions that are drawn; who is chosen only when they are sent is expected to be the nearest then."""
        scenario, plan = source.scenario, source.plan
        if (questions := scenario.questions) is None:
            return
        satellites, packets = asked_satellites(scenario, plan), defaultdict[tuple[str, str], float](float)
        near, changes = _nearest(source, satellites) if questions.decides_live else ({}, {})
        requests = planned_requests(scenario, questions, satellites)
        for request in requests:
            asked = {request.satellite: 1.0} if request.satellite else near[request.station]
            for satellite, share in asked.items():
                packets[request.station, satellite] += share * (QUESTION_PACKETS + TOKEN_PACKETS * request.max_tokens)
        if questions.poll_interval_ns:
            polls = questions.candidates * plan.grid.duration_ns / questions.poll_interval_ns
            for station, shares in near.items():
                for satellite, share in shares.items():
                    packets[station, satellite] += share * polls * QUESTION_PACKETS
        for (station, satellite), sent in packets.items():
            yield Flow(station, satellite, sent / 2)
            yield Flow(satellite, station, sent / 2)
        if questions.context == MOVE:
            byte = sent_byte_per_token(scenario) / bulk_packet_byte(scenario)
            for (holder, next_one), tokens in expected_moves(requests, changes, plan.grid.duration_ns).items():
                yield Flow(holder, next_one, tokens * byte)

    def start(self, live: LiveRun) -> Iterable[Activity]:
        if live.scenario.questions is None:
            return
        if live.portion.count > 1:
            _keep_those_here(live)
        if any(map(live.is_here, live.scenario.asking_stations)):
            yield RunProcess("client", ["isl_emu.parts.questions.client"], live.folder.journal)

    def progress(self, *journals: Path) -> str | None:
        asked = count_all(journals, f"{asking.PLANNED_JOURNAL}.jsonl")
        done = count_all(journals, f"{REQUESTS_JOURNAL}.jsonl")
        return f"{done} of {asked} questions done" if asked else None

    def status(self, *journals: Path) -> Iterable[str]:
        return filter(None, [self.progress(*journals)])

    def conclude(self, run: FinishedRun) -> None:
        attempts, requests = run.journal(asking.ATTEMPTS_JOURNAL), run.journal(REQUESTS_JOURNAL)
        tried = sorted(attempts.records, key=lambda record: (record["id"], record["attempt"]))
        outcomes = ({**record, "outcome": outcome(record, run.paths)} for record in tried)
        attempt_rows = [attempt_row(record, run.paths) for record in outcomes]
        run.write(asking.ATTEMPTS_JOURNAL, ATTEMPTS, attempt_rows, attempts.lost_lines)
        rows = _request_rows(requests.records, run)
        laser_byte, events = Counter[int](), dict[int, set[int]]()
        for attempt in attempt_rows:
            laser_byte[attempt["id"]] += attempt["laser_byte"]
            way = attempt["station"], attempt["satellite"], attempt["t_send_ns"], attempt["t_finish_ns"]
            events.setdefault(attempt["id"], set()).update(run.faults.in_the_way(*way))
        for row in rows:
            row["laser_byte"] = laser_byte.get(row["id"])
            row["faults"] = list(dict.fromkeys(map(run.faults.name, sorted(events.get(row["id"], ())))))
        run.write(REQUESTS_JOURNAL, REQUESTS, rows, requests.lost_lines)
        if questions := run.scenario.questions:
            write_json(run.folder.path / FIGURES, read_serving_figures(run))
            if questions.slice_ns is not None:
                run.write(SLICES_TABLE, SLICES, slices(run.rows(REQUESTS_JOURNAL), questions))

    def sections(self, run: FinishedRun, figures: Mapping[str, Any]) -> Iterator[Iterable[str]]:
        if requests := run.rows(REQUESTS_JOURNAL):
            yield questions_section(requests, set(run.scenario.station_names))
            yield answers_section(requests, run.scenario)

    def chapters(self, run: ConcludedRun) -> Iterator[Chapter]:
        from isl_emu.parts.questions.chapters import questions_chapter  # which draws; that is slow to import

        return questions_chapter(run)

    def ways(self, run: ConcludedRun) -> Iterable[Sequence[str]]:
        return (row[key] for row in run.rows(REQUESTS_JOURNAL) for key in WAYS if row[key])

    def crossings(self, run: ConcludedRun) -> Iterable[Crossing]:
        """The words of answers, as they came."""
        for row in run.rows(REQUESTS_JOURNAL):
            if row["t_first_ns"] is not None:
                for t_ns in accumulate(row["itl_ns"] or (), initial=row["t_first_ns"]):
                    yield Crossing(row["satellite"], row["station"], None, t_ns)

    def events(self, table: str, row: Mapping[str, Any]) -> Iterable[Event]:
        if table == asking.POLLS_JOURNAL:
            return _poll_events(row)
        sent_ns = row["t_send_ns"] if row["t_last_send_ns"] is None else row["t_last_send_ns"]
        times_ns = {"asked": sent_ns, "first_token": row["t_first_ns"]}
        return (*_question_events(row, times_ns), *_end_events(row))

    def live_events(self, journal: str, record: Mapping[str, Any]) -> Iterable[Event]:
        """Of a question that is still open, the journal of what was asked tells."""
        if journal == asking.ASKED_JOURNAL:
            return _question_events(record, {record["phase"]: record["t_ns"]})
        return _poll_events(record) if journal == asking.POLLS_JOURNAL else _end_events(record)


def _question_events(row: Mapping[str, Any], times_ns: Mapping[str, int | None]) -> Iterator[Event]:
    """That a question was asked, and answered with a first word; the way back of an answer is that of its question."""
    for phase, t_ns in times_ns.items():
        if t_ns is not None and row["satellite"] is not None:
            yield {**_question(row, t_ns, phase), "text": row.get("question")}


def _end_events(row: Mapping[str, Any]) -> Iterator[Event]:
    """What became of a question in the end."""
    if (t_ns := row.get("t_finish_ns")) is not None:
        phase = "done" if row["outcome"] == "completed" else "failed"
        answer, ttft_ns, e2e_ns = row.get("answer"), row.get("ttft_ns"), row.get("e2e_ns")
        waits = {"ttft_s": ttft_ns and ttft_ns / NS_PER_S, "e2e_s": e2e_ns and e2e_ns / NS_PER_S}
        told = {"text": row.get("question"), "answer": answer, "outcome": row["outcome"], "error": row.get("error")}
        yield {**_question(row, t_ns, phase), **told, **waits}


def _question(row: Mapping[str, Any], t_ns: int, phase: str) -> Event:
    ends = {"from": row["station"], "to": row["satellite"], "path": row.get("path_at_send")}
    return {"t_s": t_ns / NS_PER_S, "type": "question", "id": row["id"], **ends, "phase": phase}


def _poll_events(row: Mapping[str, Any]) -> Iterator[Event]:
    """How long a server's queue is, when a station heard of it."""
    if row["rtt_ns"] is not None and row["queue"] is not None:
        t_s = (row["t_send_ns"] + row["rtt_ns"]) / NS_PER_S
        yield {"t_s": t_s, "type": "server", "node": row["satellite"], "queue": row["queue"]}


def _own_policy(questions: Questions) -> None:
    """Import the function that chooses whom to ask, if it is the user's own."""
    if ":" in questions.target:
        planning_function(questions.target, "questions.target", 1)


def planned_requests(scenario: Scenario, questions: Questions, satellites: Sequence[str]) -> list[PlannedRequest]:
    """All requests of a scenario, by its seed.

    Raises:
        ScenarioError: a file of prompts, conversations or a trace cannot be used, or a request does not fit into the
            model's context.
    """
    duration_ns, rng = scenario.time.grid.duration_ns, np.random.default_rng(scenario.seed)
    asked = read_asked(questions, duration_ns)
    plan = plan_users if questions.arrivals == USERS else plan_requests
    requests = plan(questions, scenario.users_by_station, satellites, duration_ns, rng, asked)
    check_fit(requests, scenario.least_context_tokens)
    return requests


def none_asked(requests: Sequence[PlannedRequest]) -> str | None:
    """A warning, if there are none."""
    if requests:
        return None
    return (
        "questions: none is asked in this run; lengthen time.duration, or see when they arrive, and which of a trace "
        "were answered and come after questions.trace.offset"
    )


def _leave(
    source: Source, satellites: Sequence[str], requests: Sequence[PlannedRequest], folder: RunFolder, steps: Steps
) -> None:
    """Write what is asked, and how, where the client finds it."""
    questions = source.scenario.questions
    assert questions is not None
    if warning := none_asked(requests):
        steps.note(f"Warning: {warning}")
    with Journal(folder.journal / f"{asking.PLANNED_JOURNAL}.jsonl") as journal:
        for request in requests:
            journal.append(request.to_json())
    Asking.of(questions, satellites, servers_known_down(source.plan)).write(folder.journal)
    if questions.decides_live:
        stations = tuple(source.scenario.users_by_station)
        plan_outlook(source.plan, source.routes, stations, satellites).save(folder.journal / asking.OUTLOOK)


def _keep_those_here(live: LiveRun) -> None:
    """What a guest of several asks: what its own stations do, for the file that was left is that of all of them."""
    path = live.folder.journal / f"{asking.PLANNED_JOURNAL}.jsonl"
    rewrite_journal(path, [record for record in read_journal(path).records if live.is_here(record["station"])])


def _request_rows(recorded: Sequence[Row], run: FinishedRun) -> list[Row]:
    """One row for each request that was due before the end of the run."""
    scenario, questions = run.scenario, run.scenario.questions
    if questions is None:
        return []
    planned = run.journal(asking.PLANNED_JOURNAL).records
    records = [*recorded, *unrecorded_requests(planned, recorded)]
    records = [record for record in records if record["t_due_ns"] < run.ended_ns]
    answering = AnsweringTimes(records)
    records.sort(key=lambda record: record["id"])
    paces = {record["group"]: record.get("paced_as") for record in run.journal(SERVERS_JOURNAL).records}
    rows = [request_row(record, run.paths, questions) for record in records]
    for row in rows:
        span, satellite = service_span(row), row["satellite"]
        group = scenario.compute_of(satellite) if satellite else None
        row["server"] = group.server if group else "split" if satellite else None
        row["paced_as"] = paces.get(scenario.compute.index(group)) if group else None
        row["satellites_answering"] = answering.mean_count(*span) if span else None
    add_recomputed(rows)
    return rows


REACH = 64  # where the scenario has no questions


def asked_satellites(scenario: Scenario, plan: LinkPlan) -> tuple[str, ...]:
    """The satellites that users may ask, in node order: all that serve; in a large network, `questions.reach` of them.

    Each needs a route on every node, and those routes change all the time: 2,400 of them on 2,800 nodes would be seven
    million.

    If more serve, these come first: one that the scenario names as the target; those whose servers are few;
    those that are linked to a station with users, the longest first. The rest are taken at even distances from all
    others, so that every shell and plane has its share.
    """
    reach = scenario.questions.reach if scenario.questions else REACH
    serving = scenario.serving_satellites
    if len(serving) <= reach or len(plan.nodes.names) <= EVERY_NODE_UP_TO:
        return serving
    target = [name for name in serving if scenario.questions and name == scenario.questions.target]
    groups = {name: scenario.compute_of(name) for name in serving}
    few = [name for name, group in groups.items() if group is None or kind_of(group).few]
    overhead = _overhead(plan, scenario.asking_stations, groups)
    first = list(dict.fromkeys([*target, *few, *overhead]))[:reach]
    others = [name for name in serving if name not in set(first)]
    at = np.linspace(0, len(others), reach - len(first), endpoint=False).astype(int)
    found = {*first, *(others[place] for place in at)}
    return tuple(name for name in serving if name in found)


def _nearest(source: Source, satellites: Sequence[str]) -> tuple[dict[str, dict[str, float]], Changes]:
    """Of each asking station those of some satellites that are nearest by the plan, each with its share of the time.

    And from which to which they change.
    """
    stations = source.scenario.asking_stations
    outlook = plan_outlook(source.plan, source.routes, stations, satellites)
    delay_ns = np.where(outlook.satellite == NOBODY, UNREACHED_NS, outlook.delay_ns)
    nearest = np.take_along_axis(outlook.satellite, delay_ns.argmin(axis=2)[..., np.newaxis], axis=2)[..., 0]
    found: dict[str, dict[str, float]] = {}
    changes: dict[str, Counter[tuple[str, str]]] = {}
    for station, ones in zip(stations, nearest.T, strict=True):
        there = ones[ones != NOBODY]
        which, counts = np.unique(there, return_counts=True)
        names = outlook.satellites[which].tolist()
        found[station] = dict(zip(names, (counts / len(ones)).tolist(), strict=True))
        change = np.flatnonzero(there[1:] != there[:-1])
        ends = (outlook.satellites[there[change + side]].tolist() for side in (0, 1))
        changes[station] = Counter(zip(*ends, strict=True))
    return found, changes


def _overhead(plan: LinkPlan, stations: Iterable[str], satellites: Container[str]) -> list[str]:
    """Those of some satellites that are linked to any of some stations, the longest first."""
    nodes = [plan.nodes.index(name) for name in stations]
    contacts, counts = find_contacts(plan), np.zeros(len(plan.nodes.names), np.int64)
    instants = (contacts.end_ns - contacts.start_ns) // plan.grid.step_ns
    for here, there in ((plan.links.a, plan.links.b), (plan.links.b, plan.links.a)):
        linked = (plan.links.kind == LinkKind.GROUND) & np.isin(there, nodes)
        own = linked[contacts.link]
        np.add.at(counts, here[contacts.link[own]], instants[own])
    ordered = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)].tolist()
    return [name for node in ordered if (name := plan.nodes.names[node]) in satellites]
