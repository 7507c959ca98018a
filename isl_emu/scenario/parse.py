"""Scenario text in, frozen records out; every problem is reported at once, each with its place in the file.

Files that a scenario names are read, and what is in them takes their place. So a resolved scenario needs no file:
`isl-emu check` prints it, plans carry it, and it replays on another machine."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tomli_w
from pydantic import BaseModel, ValidationError

from isl_emu.errors import PROBLEMS_SHOWN, ScenarioError, first_of
from isl_emu.files import encoding_of, read_stream, read_whole, tomllib, why_unread
from isl_emu.scenario.compute import loads_file
from isl_emu.scenario.entries import as_toml, keys_of, place_of
from isl_emu.scenario.model import Scenario, contradictions
from isl_emu.scenario.omm import read_omm
from isl_emu.scenario.quantities import NAME_LENGTH, OF_THE_MACHINE
from isl_emu.scenario.settings import set_key
from isl_emu.scenario.space import Shell
from isl_emu.scenario.tle import ELEMENT_COLUMNS, catalogue_number, read_tles, tle_epoch
from isl_emu.units import SHOWN

Kind = TypeVar("Kind", bound=BaseModel)
MU_KM3_S2, EARTH_EQUATOR_KM = 398_600.8, 6_378.135  # WGS72, as in SGP4
DEEPEST = 32  # parts of a dotted key
TOO_DEEP = re.compile(
    rf"""(?:^|[\[{{,])[ \t]*(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){{{DEEPEST - 1}}}""", re.MULTILINE
)


def load_scenario(path: Path, start: datetime | None = None) -> Scenario:
    """The scenario in the TOML file at `path`, resolved: the files that it names are read and their content is in it.

    Args:
        path: of a file, or the name of a shipped scenario; a file of that name, with or without .toml, goes before it.
        start: instead of what the scenario says; of elements in files those nearest to it are taken.

    Raises:
        ScenarioError: a file cannot be read, is no TOML, or breaks a rule; all problems at once.
    """
    try:
        path = _found(path)
        text = _unified(read_whole(path))
    except (OSError, ValueError) as error:  # also a path that can be none
        raise ScenarioError(
            f"{path}: cannot be read ({why_unread(error)}), but a scenario is a file of TOML; name one, or one "
            "that `isl-emu scenarios` lists, such as "
            f"{path.stem if path.stem in shipped_scenarios() else 'three-body'}"
        ) from None
    return _resolved_scenario(text, str(path), path.parent, start)


def read_scenario(descriptor: int, source: str) -> Scenario:
    """The same of the TOML that somebody writes into a pipe; the files that it names are from the current folder.

    Args:
        source: names it in error messages.

    Raises:
        ScenarioError: it cannot be read, or not in time, is no TOML, or breaks a rule.
    """
    try:
        text = _unified(read_stream(descriptor))
    except (OSError, ValueError) as error:
        raise ScenarioError(
            f"{source}: cannot be read ({why_unread(error)}), but a scenario is TOML from a file or a pipe; write it "
            "into a file and name that"
        ) from None
    return _resolved_scenario(text, source, Path.cwd(), None)


def _unified(data: bytes) -> str:
    return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def _resolved_scenario(text: str, source: str, folder: Path, start: datetime | None) -> Scenario:
    try:
        scenario = resolve_files(_valid(text, source, start), folder)
    except ScenarioError as error:
        prefix = f"{source}: "
        raise ScenarioError(*(prefix + problem.removeprefix(prefix) for problem in error.problems)) from None
    return _consistent(scenario, source)


def shipped_scenarios() -> dict[str, Path]:
    """The scenarios that come with isl-emu, by name."""
    found = {path.stem: path for path in (Path(__file__).parents[1] / "topologies").glob("*.toml")}
    return dict(sorted(found.items()))


def _found(path: Path) -> Path:
    """Where a scenario is: the file itself, or for a name alone that of the current folder, or the shipped one."""
    if path.exists() or path.suffix or len(path.parts) != 1:
        return path
    own = path.with_suffix(".toml")
    return own if own.is_file() else shipped_scenarios().get(path.name, path)


def parse_scenario(text: str, source: str) -> Scenario:
    """The scenario that `text` describes; `source` names it in error messages.

    No file is read: where the scenario names one, its satellites are missing until `resolve_files`.
    """
    return _consistent(_valid(text, source), source)


def _valid(text: str, source: str, start: datetime | None = None) -> Scenario:
    """The scenario of a text, perhaps with another start, whose parts, each by itself, keep the rules."""
    table = tables_of(text, source)
    if start is not None and isinstance(table.get("time"), dict):
        table["time"]["start"] = start
    return record_of(Scenario, table, source)


def tables_of(text: str, source: str) -> dict[str, Any]:
    """The tables of a text of TOML.

    Raises:
        ScenarioError: it is none. `source` names the file.
    """
    if TOO_DEEP.search(text):  # which takes a reader of TOML very long
        raise ScenarioError(f"{source}: has a key of {DEEPEST} parts or more, but no key is so deep; write it flat")
    try:
        tables: dict[str, Any] = tomllib.loads(text)
    except RecursionError:
        raise ScenarioError(f"{source}: is nested too deeply, but no key is so deep; write it flat") from None
    except ValueError as error:  # also numbers of thousands of digits
        if leap := re.search(r"[\dT: -]*\d:[0-5]\d:60\S*", text):
            raise ScenarioError(
                f"{source}: has the leap second {leap[0].strip()}, but times are counted without; write the second "
                "before or after it"
            ) from None
        raise ScenarioError(
            f"{source}: is not valid TOML ({error}), but a scenario is TOML; correct it there"
        ) from None
    return tables


def record_of(kind: type[Kind], table: dict[str, Any], source: str) -> Kind:
    """The record that a table of TOML makes, whose parts, each by itself, keep the rules.

    Raises:
        ScenarioError: it breaks a rule; all problems at once. `source` names the file.
    """
    try:
        return kind.model_validate(_tuples(table))
    except RecursionError:
        raise ScenarioError(f"{source}: is nested too deeply, but no key is so deep; write it flat") from None
    except ValidationError as error:
        found = error.errors(include_url=False)
        unknown = [item for item in found if item["type"] == "extra_forbidden"]
        several = len(unknown) > PROBLEMS_SHOWN
        told = [item for item in found if not (several and item["type"] == "extra_forbidden")]
        places = [place_of(item["loc"], kind)[0] for item in told]
        own = [item for item, place in zip(told, places) if not _follows_from_another(item, place, places)]
        problems = _joined(_sentence(item, kind) for item in own)
        if several:
            names = ", ".join(_shown(place_of(item["loc"], kind)[0]) for item in unknown[:3])
            problems = [
                f"has {len(unknown):,} unknown keys, such as {names}, but none are allowed; remove them",
                *problems,
            ]
        raise ScenarioError(*(f"{source}: {problem}" for problem in first_of(problems))) from None


def _consistent(scenario: Scenario, source: str) -> Scenario:
    """The same scenario, once its parts are known to agree; while satellites are missing that cannot be known."""
    if scenario.resolved and (problems := list(contradictions(scenario))):
        raise ScenarioError(*(f"{source}: {problem}" for problem in first_of(problems)))
    return scenario


def format_scenario(scenario: Scenario) -> str:
    """The scenario as TOML with every default written out; `parse_scenario` turns it back into an equal one.

    Of faults, terminals and a ground network nothing is written where there are none, so that plans without stay those
    of versions that knew none.
    """
    exclude = {key for key in ("fault", "place", "terminals", "terrestrial") if not getattr(scenario, key)}
    return tomli_w.dumps(scenario.model_dump(by_alias=True, exclude_none=True, exclude=exclude))


def with_changes(scenario: Scenario, **changes: Any) -> Scenario:
    """A copy with top-level fields replaced, checked again; values are given as in TOML (`time={"duration": "60 s"}`).

    Tables are merged into the existing ones, key by key; where there are several, as of `compute`, into each of them.
    None takes a key or a whole table away. A model goes to the groups that load one. `model`, which is no field, goes
    to all that loads a file of weights. What is no name is the path of a single key (``{"compute[0].board": ...}``).

    Raises:
        ScenarioError: a table that the scenario has not, a value that breaks a rule, or another start where elements
            were chosen for this one.
    """
    table = tomllib.loads(format_scenario(scenario))
    if (model := changes.pop("model", None)) is not None:
        loading = [*filter(_loads_file, table.get("compute", [])), *table.get("split", [])]
        if not loading:
            raise ScenarioError(
                "option: model is set, but nothing in the scenario loads a file of weights; add a real [[compute]] "
                "group, or a [[split]]"
            )
        for item in loading:
            item["model"] = model
    for key, value in changes.items():
        top = re.split(r"[.\[]", key)[0]
        if top not in Scenario.model_fields:
            raise ScenarioError(f"option: {top} is not a known key{_allowed_keys((top,), Scenario)}")
        if key != top:
            set_key(table, key, value)
            continue
        old = table.get(key)
        if isinstance(value, dict) and not old:
            name = next(iter(value), "")
            raise ScenarioError(f"option: {key}.{name} is set, but the scenario has no [{key}]; add it there")
        if isinstance(value, dict) and not isinstance(old, (dict, list)):
            raise ScenarioError(f"option: {key} is {_shown(repr(value))}, but it is no table; give one value")
        table[key] = _merged(key, old, value) if isinstance(value, dict) else value
    try:
        text = tomli_w.dumps(_without_none(table))
    except TypeError as error:
        raise ScenarioError(
            f"option: {_shown(repr(changes))} cannot be written as TOML ({error}), but scenarios are TOML; give "
            "what it has"
        ) from None
    changed = parse_scenario(text, "option")
    if changed.time.start != scenario.time.start and (
        chosen := [shell.name for shell in scenario.shell if shell.left_out]
    ):
        raise ScenarioError(
            f"option: time.start is {changed.time.start:%Y-%m-%dT%H:%M:%SZ}, but of the elements in the file of shell "
            f"{chosen[0]} those nearest to {scenario.time.start:%Y-%m-%dT%H:%M:%SZ} were taken when it was read; "
            "plan from the scenario's path, which reads it anew"
        )
    return changed


def _without_none(value: Any) -> Any:
    """A value as TOML has it, at every depth without keys that are None; numpy's numbers are plain ones."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_without_none(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _merged(key: str, old: Any, new: dict[str, Any]) -> Any:
    """A table, or each of several, with the keys of another in place of its own."""
    if isinstance(old, dict):
        return {**old, **new}
    is_model = key == "compute" and "model" in new
    changed = [not is_model or _loads_file(item) for item in old]
    if not any(changed):
        raise ScenarioError("option: compute.model is set, but no [[compute]] group loads a model; add a real one")
    return [{**item, **new} if change else item for item, change in zip(old, changed, strict=True)]


def _loads_file(group: dict[str, Any]) -> bool:
    """Whether the servers of a `[[compute]]` group load a file of weights."""
    return loads_file(group["server"], group.get("command"))


def _tuples(value: Any) -> Any:
    """TOML's lists as tuples, at every depth: records are immutable.

    A whole number beyond 64 bits, which TOML does not have, is made text, so that whoever reads it refuses it.
    """
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return f"{value:.3e}, beyond 64 bits" if abs(value) < 10**300 else "beyond 64 bits"
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _sentence(error: Any, kind: type[BaseModel]) -> str:
    """One problem that pydantic found, in our words."""
    place, belongs, example = place_of(error["loc"], kind)
    where = _shown(place)
    if error["type"] == "extra_forbidden":
        return f"{where} is not a known key{_allowed_keys(error['loc'], kind)}"
    if error["type"] == "missing":
        return f"{where} is missing, but it is required; add it"
    if error["type"] == "too_short":
        return f"{where} has {_items(error)}, but it needs {error['ctx']['min_length']}; add one"
    if error["type"] == "too_long":
        return f"{where} has {_items(error)}, but the most are {error['ctx']['max_length']:,}; take some away"
    if error["type"] == "value_error":
        text = str(error["ctx"]["error"])
        return f"{where} {text}" if text.startswith(("is ", "has ")) else f"{where}: {text}"
    rule = error["msg"].replace("Input should be", "it should be").replace("String should", "it should")
    rule = re.sub("a valid (dictionary|tuple).*", lambda of: _table_or_list(of[1], place, belongs, example), rule)
    found = _shown(repr(_lists(error["input"])))
    if error["type"] == "string_type":
        return f"{where} is {found}, but it should be text; write it in quotes"
    return f"{where} is {found}, but {rule[0].lower()}{rule[1:]}; correct it"


def _items(error: Any) -> str:
    """How many a list has that is too short or too long."""
    return "1 item" if len(error["input"]) == 1 else f"{len(error['input']):,} items"


def _table_or_list(kind: str, place: str, belongs: Any, example: Any) -> str:
    """What pydantic calls a valid dictionary or tuple: with the keys of its tables, or else an example of the whole."""
    one, tables = kind == "dictionary", re.sub(r"\[\d+\]", "", place)
    if keys := ", ".join(keys_of(belongs)):
        return f"a table with keys among {keys}" if one else f"tables [[{tables}]], each with keys among {keys}"
    return ("a table" if one else "a list") + (f" such as {as_toml(example)}" if example else "")


def _lists(value: Any) -> Any:
    """Lists again of what `_tuples` made of them."""
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [*map(_lists, value)] if isinstance(value, tuple) else value


def _shown(found: object) -> str:
    """What was found, as far as somebody reads it."""
    text = str(found)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _joined(sentences: Iterable[str]) -> list[str]:
    """The alternatives that one value fails, which pydantic reports one by one, in one sentence."""
    rules: dict[str, list[str]] = {}
    remedies: dict[str, str] = {}
    for sentence in sentences:
        found, but, rest = sentence.partition(", but ")
        rule, semicolon, remedy = rest.rpartition("; ") if "; " in rest else (rest, "", "")
        rules.setdefault(found + but, []).append(rule)
        remedies[found + but] = semicolon + remedy
    return [found + ", or ".join(dict.fromkeys(rule)) + remedies[found] for found, rule in rules.items()]


def _follows_from_another(error: Any, place: str, places: list[str]) -> bool:
    """Whether other problems, at these places, say it all: what has wrong items is not too short, or not a word."""
    if error["type"] == "too_short":
        return bool(len(error["input"]) >= error["ctx"]["min_length"])
    return error["type"] == "literal_error" and any(other.startswith((f"{place}[", f"{place}.")) for other in places)


def _allowed_keys(location: tuple[Any, ...], kind: type[BaseModel]) -> str:
    keys = keys_of(place_of(location[:-1], kind)[1])
    close = difflib.get_close_matches(str(location[-1]), keys, n=1)
    hint = f"did you mean {close[0]}?" if close else "correct or remove it"
    return f", but only these are: {', '.join(keys)}; {hint}" if keys else f", but none is; {hint}"


def resolve_files(scenario: Scenario, folder: Path) -> Scenario:
    """The scenario with the satellites of its TLE and OMM files in it, and with the whole paths of its other files.

    Args:
        folder: where relative paths begin, that of the scenario's own file.

    Raises:
        ScenarioError: a file cannot be read or is damaged; all such problems at once.
    """
    shells: list[Shell] = []
    problems: list[str] = []
    try:
        scenario = _with_absolute_paths(scenario, folder)
    except ScenarioError as error:
        problems.extend(error.problems)
    for shell in scenario.shell:
        try:
            shells.append(shell if shell.resolved else _resolved(shell, folder, scenario.time.start))
        except ScenarioError as error:
            problems.extend(error.problems)
    if problems:
        raise ScenarioError(*problems)
    return scenario.model_copy(update={"shell": tuple(shells)})


def _with_absolute_paths(scenario: Scenario, folder: Path) -> Scenario:
    """The scenario with whole paths of its prompts, conversations and traces, which are read when a run begins."""
    questions = scenario.questions
    if questions is None:
        return scenario
    changes: dict[str, Any] = {}
    if questions.prompt_file != "bundled":
        changes["prompt_file"] = _absolute(questions.prompt_file, folder, "questions.prompt_file")
    if questions.conversations:
        changes["conversations"] = _absolute(questions.conversations, folder, "questions.conversations")
    if questions.trace:
        file = _absolute(questions.trace.file, folder, "questions.trace.file")
        changes["trace"] = questions.trace.model_copy(update={"file": file})
    return scenario.model_copy(update={"questions": questions.model_copy(update=changes)})


def _absolute(name: str, folder: Path, where: str) -> str:
    path = (folder / name).absolute()
    if not Path(name).is_absolute() and not path.is_file():
        raise ScenarioError(f"{where} is {name!r}, but there is no file {path}; correct it")
    return str(path)


def safe_name(name: str, number: str) -> str:
    """A node name made of the name of a satellite: lower-case letters, digits and hyphens, at most 32 of them.

    Args:
        name: as in a catalogue, such as "ISS (ZARYA)"; may be empty.
        number: its catalogue number, for a satellite without a usable name.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not plain:
        plain = f"sat-{number.lower()}"
    elif not plain[0].isalpha():
        plain = f"sat-{plain}"
    return plain[:NAME_LENGTH].rstrip("-")


def unique_names(labels: Sequence[tuple[str, str]]) -> list[str]:
    """A safe name for each (name, number); one that an earlier satellite or the machine has gets its number too, then
    is counted.
    """
    taken = dict.fromkeys(OF_THE_MACHINE)
    for name, number in labels:
        taken[next(candidate for candidate in _candidates(name, number) if candidate not in taken)] = None
    return list(taken)[len(OF_THE_MACHINE) :]


def _candidates(name: str, number: str) -> Iterator[str]:
    """Names for one satellite, the best first, without end."""
    safe = safe_name(name, number)
    yield safe
    yield _with_suffix(safe, safe_name("", number).removeprefix("sat-"))
    for again in count(2):
        yield _with_suffix(safe, str(again))


def _with_suffix(name: str, suffix: str) -> str:
    return f"{name[: NAME_LENGTH - 1 - len(suffix)].rstrip('-')}-{suffix}"


def _resolved(shell: Shell, folder: Path, start: datetime) -> Shell:
    """The shell with its file's satellites; of those that are in it twice, as they are nearest to the start."""
    kind, name = ("tle", shell.tle) if shell.tle is not None else ("omm", str(shell.omm))
    where = f"shell {shell.name}: {kind} file {folder / name}"
    try:
        data = read_whole(folder / name)
        try:
            text = data.decode(encoding_of(data))
        except UnicodeDecodeError:
            text = data.decode("latin-1")  # only names have letters that ASCII has not
        if kind == "omm":
            found = read_omm(text)
        else:
            found = [(tle.name, catalogue_number(tle.lines), {"tle": tle.lines}) for tle in read_tles(text)]
    except OSError as error:
        raise ScenarioError(
            f"{where} cannot be read ({why_unread(error)}), but the shell's satellites are in it; give its path from "
            "the scenario's folder"
        ) from None
    except ValueError as problem:
        raise ScenarioError(f"{where}: {problem}") from None
    kept, left_out = _nearest(found, start)
    if shell.altitude_between_km:
        low_km, high_km = shell.altitude_between_km
        kept = [item for item in kept if low_km <= _mean_altitude_km(item[2]) <= high_km]
        if not kept:
            raise ScenarioError(
                f"{where}: none of its {len(found)} satellites is between {low_km:g} and {high_km:g} km high, but the "
                "shell's are; correct altitude_between"
            )
    names = unique_names([(name, number) for name, number, _ in kept])
    satellites = tuple({"name": name, **table} for name, (_, _, table) in zip(names, kept))
    rest = {
        key: value
        for key, value in shell.model_dump(by_alias=True, exclude_none=True).items()
        if key not in (kind, "altitude_between")
    }
    try:
        return Shell.model_validate({**rest, "satellite": satellites, "left_out": left_out})
    except ValidationError as error:
        raise ScenarioError(*first_of(f"{where}: {_damage(item, names)}" for item in error.errors())) from None


def _mean_altitude_km(table: dict[str, Any]) -> float:
    """The semi-major axis of a satellite of a file, by its mean motion (Kepler's), less the equator's radius."""
    written = table["tle"][1][ELEMENT_COLUMNS["mean motion"]] if "tle" in table else table["mean_motion"].split()[0]
    rad_s = float(written) * 2 * math.pi / 86_400
    return float((MU_KM3_S2 / rad_s**2) ** (1 / 3)) - EARTH_EQUATOR_KM


def _nearest(
    found: Sequence[tuple[str, str, dict[str, Any]]], start: datetime
) -> tuple[list[tuple[str, str, dict[str, Any]]], tuple[str, ...]]:
    """Of each object, by name and number, the elements whose epoch is nearest to the start; and what is left out.

    Different elements of one epoch are different satellites, as in generated sets that number none.
    """

    def epoch(table: dict[str, Any]) -> datetime:
        return tle_epoch(table["tle"]) if "tle" in table else table["epoch"]

    nearest: dict[tuple[str, str], datetime] = {}
    for name, number, table in found:
        known = nearest.setdefault((name, number), epoch(table))
        nearest[name, number] = min(known, epoch(table), key=lambda moment: (abs(moment - start), moment))
    kept: list[tuple[str, str, dict[str, Any]]] = []
    left_out, seen = [], set[str]()
    for name, number, table in found:
        if (label := repr((name, number, table))) not in seen and epoch(table) == nearest[name, number]:
            kept.append((name, number, table))
        else:
            left_out.append(f"{f'{name} ({number})' if name else number} of {epoch(table):%Y-%m-%dT%H:%M:%SZ}")
        seen.add(label)
    return kept, tuple(left_out)


def _damage(error: Any, names: Sequence[str]) -> str:
    """A problem with one of the satellites, which it names."""
    place = [part for part in error["loc"] if isinstance(part, (str, int))]
    if error["type"] == "value_error":
        reason = str(error["ctx"]["error"])
    else:
        reason = f"is {_shown(repr(error['input']))}, but {error['msg'][0].lower()}{error['msg'][1:]}; fetch it again"
    if len(place) > 1 and isinstance(place[1], int):
        return f"satellite {names[place[1]]}: {' '.join(str(part) for part in place[2:3])} {reason}"
    return reason
