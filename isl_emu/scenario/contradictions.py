"""Problems of a scenario that only show when its parts are seen together."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator

from isl_emu.scenario.kv_groups import kv_contradictions
from isl_emu.scenario.laser_pairs import laser_contradictions
from isl_emu.scenario.matching import matching, unmatched
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.power_groups import power_contradictions
from isl_emu.scenario.quantities import NAME_LENGTH
from isl_emu.scenario.questions import POLICIES
from isl_emu.scenario.split_groups import split_contradictions
from isl_emu.scenario.training_groups import training_contradictions
from isl_emu.scenario.uplink_receivers import uplink_contradictions


def contradictions(scenario: Scenario) -> Iterator[str]:
    """Problems that only show when the parts of a scenario are seen together."""
    yield from _repeated("shell", [shell.name for shell in scenario.shell])
    nodes = [*scenario.satellite_names, *scenario.station_names]
    yield from _repeated("node", nodes)
    for shell in _with_long_names(scenario):
        yield (
            f"shell {shell!r} makes names of satellites of more than {NAME_LENGTH} characters, but that is the most; "
            f"shorten its name"
        )
    satellites, stations = set(scenario.satellite_names), set(scenario.station_names)
    yield from _compute_contradictions(scenario)
    yield from split_contradictions(scenario)
    yield from kv_contradictions(scenario)
    yield from uplink_contradictions(scenario)
    yield from laser_contradictions(scenario)
    yield from power_contradictions(scenario)
    yield from _pair_contradictions("probes.pairs", "a probe", scenario.probes.pairs, satellites | stations)
    if disjoint := scenario.routing.disjoint:
        yield from _pair_contradictions("routing.disjoint.pairs", "a path", disjoint.pairs, satellites | stations)
        yield from _repeated("routing.disjoint: pair", [" and ".join(sorted(pair)) for pair in disjoint.pairs])
    yield from _repeated("program or workload", [item.name for item in (*scenario.program, *scenario.workload)])
    for program in scenario.program:
        yield from _unknown(f"program {program.name}: node", (program.node,), satellites | stations, "node")
        if program.at_ns >= scenario.time.duration_ns:
            yield f"program {program.name}: at is after the end of the run, so it never starts; lengthen time.duration"
    for workload in scenario.workload:
        yield from _unknown(f"workload {workload.name}: nodes", workload.nodes, satellites | stations, "node")
    if scenario.questions is not None:
        yield from _question_contradictions(scenario, stations)
    yield from training_contradictions(scenario)


def _pair_contradictions(where: str, what: str, pairs: tuple[tuple[str, str], ...], nodes: set[str]) -> Iterator[str]:
    for index, pair in enumerate(pairs):
        yield from _unknown(f"{where}[{index}]", pair, nodes, "node")
        if pair[0] == pair[1]:
            yield f"{where}[{index}] names {pair[0]!r} twice, but {what} needs two nodes; name another"


def _with_long_names(scenario: Scenario) -> list[str]:
    """The shells whose names are too long to begin a satellite's."""
    if len(scenario.shell) == 1:
        return []
    patterns = [shell for shell in scenario.shell if shell.walker]
    return [shell.name for shell in patterns if len(f"{shell.name}-{shell.local_names[-1]}") > NAME_LENGTH]


def _compute_contradictions(scenario: Scenario) -> Iterator[str]:
    several, taken = len(scenario.compute) > 1, {}
    for index, group in enumerate(scenario.compute):
        where = f"compute[{index}].satellites" if several else "compute.satellites"
        yield from unmatched(where, group.satellites, scenario.satellite_names)
        for name in matching(group.satellites, scenario.satellite_names):
            if name in taken:
                yield f"{where} has {name!r}, but {taken[name]} has it too; a satellite computes in one group"
            taken.setdefault(name, where)
    uplinked = set(scenario.uplinked_satellites)
    for group in scenario.compute:
        late = uplinked & set(matching(group.satellites, scenario.satellite_names))
        if group.server == "throttled" and late:
            yield (
                f"uplink.satellites has {min(late)!r}, but its server is throttled and measured before the run, when "
                "it has no model yet; use real servers"
            )


def _question_contradictions(scenario: Scenario, stations: set[str]) -> Iterator[str]:
    questions = scenario.questions
    assert questions is not None
    if not scenario.compute and not scenario.split:
        yield "questions is given, but no satellite runs a model; add a [compute] table"
    if not stations:
        yield "questions is given, but there is no ground station to ask them; add a [[station]]"
    yield from _unknown("questions.stations", scenario.asking_stations, stations, "ground station")
    yield from _user_contradictions(scenario)
    if ":" not in questions.target and questions.target not in {*POLICIES, *scenario.serving_satellites}:
        policies = ", ".join(f'"{policy}"' for policy in POLICIES)
        rule = f"it is {policies}, package.module:function or a computing satellite"
        yield f"questions.target is {questions.target!r}, but {rule}; {_hint(questions.target, POLICIES)}"


def _user_contradictions(scenario: Scenario) -> Iterator[str]:
    """Problems with how users are spread over the stations where questions are asked."""
    questions = scenario.questions
    assert questions is not None
    if isinstance(questions.users, dict):
        yield from _unknown("questions.users", tuple(questions.users), set(scenario.asking_stations), "asking station")
        for name in scenario.asking_stations:
            if name not in questions.users:
                yield f"questions.users leaves out {name!r}, but every asking station has a weight; add it"
    if questions.users == "population":
        for station in scenario.station:
            if station.name in scenario.asking_stations and station.population is None:
                yield (
                    f'questions.users is "population", but station {station.name} has none; give it a population, '
                    f"or a city as its site"
                )


def _repeated(what: str, names: list[str]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{what} {name!r} occurs {count} times, but names are unique; rename all but one"


def _unknown(where: str, names: tuple[str, ...], known: set[str], kind: str) -> Iterator[str]:
    for name in names:
        if name not in known:
            yield f"{where} names {name!r}, but there is no such {kind}; {_hint(name, known)}"


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else "choose an existing one"
