"""Single keys of a scenario by their paths, as `--set` and sweeps name them: ``questions.mean_interval=2s``.

A path is the keys from the top of the scenario, with a number where one of several tables is meant
(``compute[1].board``); without it, all of them are. A value is written as in TOML, or as plain text where TOML would
want quotes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import tomli_w

from isl_emu.errors import ScenarioError
from isl_emu.files import tomllib

KEY = re.compile(r"([A-Za-z0-9_-]+)(?:\[(\d+)\])?")
OPEN, CLOSED, QUOTES = "[{", "]}", "\"'"


def read_setting(text: str) -> tuple[str, tuple[Any, ...]]:
    """The path and the values of ``PATH=VALUE`` or ``PATH=VALUE,VALUE,...``; an empty value, None, takes the key away.

    Raises:
        ScenarioError: it is none of the two.
    """
    path, equals, values = text.partition("=")
    if not equals or not all(KEY.fullmatch(key) for key in path.strip().split(".")):
        raise ScenarioError(
            f"--set: is {text!r}, but a key of the scenario and its value are needed; write for example "
            "--set questions.mean_interval=2s"
        )
    return path.strip(), tuple(read_value(one.strip()) for one in _pieces(values))


def _pieces(text: str) -> Iterator[str]:
    """What stands between the commas that are in no quotes, list or table."""
    depth, quote, begin = 0, "", 0
    for at, sign in enumerate(text):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in QUOTES:
            quote = sign
        elif sign in OPEN or sign in CLOSED:
            depth += 1 if sign in OPEN else -1
        elif sign == "," and depth == 0:
            yield text[begin:at]
            begin = at + 1
    yield text[begin:]


def read_value(text: str) -> Any:
    """A value as TOML has it, or the text itself; None if there is none."""
    try:
        return tomllib.loads(f"value = {text}")["value"] if text else None
    except tomllib.TOMLDecodeError:
        return text


def write_value(value: Any) -> str:
    """The text by which `read_value` gives the same value; TypeError if TOML has no such value."""
    if isinstance(value, dict):  # on one line
        return f"{{{', '.join(f'{json.dumps(key)} = {write_value(item)}' for key, item in value.items())}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(write_value, value))}]"
    return "" if value is None else tomli_w.dumps({"value": value}).removeprefix("value = ").strip()


def set_key(scenario: dict[str, Any], path: str, value: Any) -> None:
    """Set a key of a scenario, given as TOML has it, wherever its path leads; None takes it away.

    Raises:
        ScenarioError: there is no such table, or none of this number.
    """
    *way, last = path.split(".")
    tables: list[dict[str, Any]] = [scenario]
    walked = ""
    for step in way:
        walked = f"{walked}.{step}" if walked else step
        tables = [inner for table in tables for inner in _entered(table, step, walked, path, is_top=walked == step)]
    name, number = _parts(last, path)
    for table in tables:
        if number is None:
            table[name] = value
        elif not isinstance(items := table.get(name), list) or number >= len(items):
            raise ScenarioError(f"option: {path} is set, but {_size(items)}; count from 0")
        else:
            items[number] = value


def _entered(table: dict[str, Any], step: str, walked: str, path: str, *, is_top: bool) -> list[dict[str, Any]]:
    """The tables that a step of a path leads to."""
    name, number = _parts(step, path)
    if name not in table and not is_top and number is None:
        table[name] = {}
    found = table.get(name)
    if not found and is_top:
        raise ScenarioError(f"option: {path} is set, but the scenario has no [{name}]; add it there")
    if number is not None:
        if not isinstance(found, list) or number >= len(found):
            raise ScenarioError(f"option: {path} is set, but {_size(found)}; count from 0")
        found = found[number]
    inner: list[Any] = found if isinstance(found, list) else [found]
    if not all(isinstance(one, dict) for one in inner):
        raise ScenarioError(f"option: {path} is set, but {walked} is no table; end the path there")
    return inner


def _parts(step: str, path: str) -> tuple[str, int | None]:
    if not (match := KEY.fullmatch(step)):
        raise ScenarioError(f"option: {path} is set, but that is no path of keys; write for example compute[0].board")
    return match[1], None if match[2] is None else int(match[2])


def _size(found: Any) -> str:
    return f"there are only {len(found)}" if isinstance(found, list) else "there is no list"
