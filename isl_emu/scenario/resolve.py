"""Files that a scenario names are read, and what is in them takes their place; what results stands for itself.

A resolved scenario needs no file: `isl-emu check` prints it, plans carry it, and it replays on another machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from isl_emu.errors import ScenarioError
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.omm import read_omm
from isl_emu.scenario.quantities import NAME_LENGTH
from isl_emu.scenario.space import Shell
from isl_emu.scenario.tle import catalogue_number, read_tles


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
            shells.append(shell if shell.resolved else _resolved(shell, folder))
        except ScenarioError as error:
            problems.extend(error.problems)
    if problems:
        raise ScenarioError(*problems)
    return scenario.model_copy(update={"shell": tuple(shells)})


def _with_absolute_paths(scenario: Scenario, folder: Path) -> Scenario:
    """The scenario with the whole paths of its files of prompts and of traces, which are read when a run begins."""
    questions = scenario.questions
    if questions is None:
        return scenario
    changes: dict[str, Any] = {}
    if questions.prompt_file != "bundled":
        changes["prompt_file"] = _absolute(questions.prompt_file, folder, "questions.prompt_file")
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
    """A safe name for each (name, number); one that an earlier satellite has gets its number too, then is counted."""
    taken: dict[str, None] = {}
    for name, number in labels:
        taken[next(candidate for candidate in _candidates(name, number) if candidate not in taken)] = None
    return list(taken)


def _candidates(name: str, number: str) -> Iterator[str]:
    """Names for one satellite, the best first, without end."""
    safe = safe_name(name, number)
    yield safe
    yield _with_suffix(safe, safe_name("", number).removeprefix("sat-"))
    for again in count(2):
        yield _with_suffix(safe, str(again))


def _with_suffix(name: str, suffix: str) -> str:
    return f"{name[: NAME_LENGTH - 1 - len(suffix)].rstrip('-')}-{suffix}"


def _resolved(shell: Shell, folder: Path) -> Shell:
    """The shell with its file's satellites."""
    kind, name = ("tle", shell.tle) if shell.tle is not None else ("omm", str(shell.omm))
    where = f"shell {shell.name}: {kind} file {folder / name}"
    try:
        text = (folder / name).read_text(encoding="utf-8")
        if kind == "omm":
            found = read_omm(text)
        else:
            found = [(tle.name, catalogue_number(tle.lines), {"tle": tle.lines}) for tle in read_tles(text)]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ScenarioError(f"{where} cannot be read ({reason}); give its path from the scenario's folder") from None
    except ValueError as error:
        raise ScenarioError(f"{where}: {error}") from None
    names = unique_names([(name, number) for name, number, _ in found])
    satellites = tuple({"name": name, **table} for name, (_, _, table) in zip(names, found))
    rest = {key: value for key, value in shell.model_dump(by_alias=True, exclude_none=True).items() if key != kind}
    try:
        return Shell.model_validate({**rest, "satellite": satellites})
    except ValidationError as error:
        raise ScenarioError(*(f"{where}: {_sentence(item, names)}" for item in error.errors())) from None


def _sentence(error: Any, names: Sequence[str]) -> str:
    """A problem with one of the satellites, which it names."""
    place = [part for part in error["loc"] if isinstance(part, (str, int))]
    reason = str(error["ctx"]["error"]) if error["type"] == "value_error" else f"{error['msg']} ({error['input']!r})"
    if len(place) > 1 and isinstance(place[1], int):
        return f"satellite {names[place[1]]}: {' '.join(str(part) for part in place[2:3])} {reason}"
    return reason
