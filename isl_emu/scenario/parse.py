"""Scenario text in, frozen records out; every problem is reported at once, each with its place in the file."""

from __future__ import annotations

import difflib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import tomli_w
from pydantic import BaseModel, ValidationError

from isl_emu.errors import ScenarioError
from isl_emu.scenario.compute import LOADING
from isl_emu.scenario.kv_handover import kv_contradictions
from isl_emu.scenario.laser_pairs import laser_contradictions
from isl_emu.scenario.matching import matching, unmatched
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.power_groups import power_contradictions
from isl_emu.scenario.quantities import NAME_LENGTH
from isl_emu.scenario.questions import POLICIES
from isl_emu.scenario.resolve import resolve_files
from isl_emu.scenario.split import split_contradictions
from isl_emu.scenario.training import training_contradictions
from isl_emu.scenario.uplink import uplink_contradictions

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def load_scenario(path: Path) -> Scenario:
    """The scenario in the TOML file at `path`, resolved: the files that it names are read and their content is in it.

    Raises:
        ScenarioError: a file cannot be read, is no TOML, or breaks a rule; all problems at once.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ScenarioError(
            f"{path}: cannot be read ({reason}); name a TOML scenario, such as topologies/three-body.toml"
        ) from None
    try:
        scenario = resolve_files(_valid(text, str(path)), path.parent)
    except ScenarioError as error:
        prefix = f"{path}: "
        raise ScenarioError(*(prefix + problem.removeprefix(prefix) for problem in error.problems)) from None
    return _consistent(scenario, str(path))


def parse_scenario(text: str, source: str) -> Scenario:
    """The scenario that `text` describes; `source` names it in error messages.

    No file is read: where the scenario names one, its satellites are missing until `resolve_files`.
    """
    return _consistent(_valid(text, source), source)


def _valid(text: str, source: str) -> Scenario:
    """The scenario of a text whose parts, each by itself, keep the rules."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"{source}: is not valid TOML: {error}") from None
    try:
        return Scenario.model_validate(_tuples(table))
    except ValidationError as error:
        problems = _joined(_sentence(item) for item in error.errors() if not _follows_from_another(item))
        raise ScenarioError(*(f"{source}: {problem}" for problem in problems)) from None


def _consistent(scenario: Scenario, source: str) -> Scenario:
    """The same scenario, once its parts are known to agree; while satellites are missing that cannot be known."""
    if scenario.resolved and (problems := list(_contradictions(scenario))):
        raise ScenarioError(*(f"{source}: {problem}" for problem in problems))
    return scenario


def format_scenario(scenario: Scenario) -> str:
    """The scenario as TOML with every default written out; `parse_scenario` turns it back into an equal one."""
    return tomli_w.dumps(scenario.model_dump(by_alias=True, exclude_none=True))


def with_changes(scenario: Scenario, **changes: Any) -> Scenario:
    """A copy with top-level fields replaced, checked again; values are given as in TOML (`time={"duration": "60 s"}`).

    Tables are merged into the existing ones, key by key; where there are several, as of `compute`, into each of them.
    A model goes to the groups that load one.
    """
    table = tomllib.loads(format_scenario(scenario))
    for key, value in changes.items():
        if isinstance(value, dict) and not table.get(key):
            name = next(iter(value))
            raise ScenarioError(f"option: {key}.{name} is set, but the scenario has no [{key}]; add it there")
        table[key] = _merged(key, table[key], value) if isinstance(value, dict) else value
    return parse_scenario(tomli_w.dumps(table), "option")


def _merged(key: str, old: Any, new: dict[str, Any]) -> Any:
    """A table, or each of several, with the keys of another in place of its own."""
    if isinstance(old, dict):
        return {**old, **new}
    loads = key == "compute" and "model" in new
    changed = [not loads or item["server"] in LOADING or "{model}" in item.get("command", "") for item in old]
    if not any(changed):
        raise ScenarioError("option: compute.model is set, but no [[compute]] group loads a model; add a real one")
    return [{**item, **new} if change else item for item, change in zip(old, changed, strict=True)]


def _tuples(value: Any) -> Any:
    """TOML's lists as tuples, at every depth: records are immutable."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _sentence(error: Any) -> str:
    """One problem that pydantic found, in our words."""
    where = _place(error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{where} is not a known key{_allowed_keys(error['loc'])}"
    if error["type"] == "missing":
        return f"{where} is missing, but it is required; add it"
    if error["type"] == "too_short":
        return f"{where} has {error['ctx']['actual_length']} items, but it needs {error['ctx']['min_length']}; add one"
    if error["type"] == "value_error":
        text = str(error["ctx"]["error"])
        return f"{where} {text}" if text.startswith(("is ", "has ")) else f"{where}: {text}"
    rule = error["msg"].replace("Input should be", "it should be").replace("String should", "it should")
    return f"{where} is {error['input']!r}, but {rule[0].lower()}{rule[1:]}"


def _joined(sentences: Iterable[str]) -> list[str]:
    """The alternatives that one value fails, which pydantic reports one by one, in one sentence."""
    rules: dict[str, list[str]] = {}
    for sentence in sentences:
        found, but, rule = sentence.partition(", but ")
        rules.setdefault(found + but, []).append(rule)
    return [found + ", or ".join(rule) for found, rule in rules.items()]


def _place(location: tuple[Any, ...]) -> str:
    """`shell[0].altitude` for ("shell", 0, "altitude"); names of alternatives that pydantic adds are left out."""
    place = ""
    for part in location:
        if isinstance(part, int):
            place += f"[{part}]"
        elif not any(mark in part for mark in "[(-"):
            place += f".{part}" if place else part
    return place


def _follows_from_another(error: Any) -> bool:
    """A list whose only items are wrong is not also too short."""
    return error["type"] == "too_short" and len(error["input"]) >= error["ctx"]["min_length"]


def _allowed_keys(location: tuple[Any, ...]) -> str:
    record: Any = Scenario
    for part in location[:-1]:
        if isinstance(part, str) and record is not None:
            record = _record_in(record, part)
    fields = [field.alias or name for name, field in record.model_fields.items()] if record else []
    keys = sorted([*fields, *getattr(record, "SHORTHANDS", ())])
    close = difflib.get_close_matches(str(location[-1]), keys, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f", but only these are: {', '.join(keys)}{hint}" if keys else hint


def _record_in(record: type[BaseModel], key: str) -> type[BaseModel] | None:
    """The record class that the field written as `key` holds, alone or in a tuple or union."""
    for name, field in record.model_fields.items():
        if (field.alias or name) == key:
            candidates = [field.annotation, *get_args(field.annotation)]
            return next((item for item in candidates if isinstance(item, type) and issubclass(item, BaseModel)), None)
    return None


def _contradictions(scenario: Scenario) -> Iterator[str]:
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


def _pair_contradictions(
    where: str, what: str, pairs: tuple[tuple[str, str], ...], nodes: set[str]
) -> Iterator[str]:
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
