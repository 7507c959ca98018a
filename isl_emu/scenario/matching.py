"""Lists of satellites in a scenario: node names, and shell-style patterns of them such as ``sso-p0*``.

One that begins with ``!`` takes out again what it matches.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import AfterValidator

PATTERN = re.compile(r"!?[a-z0-9*?\[\]!-]{1,64}")
WILD = re.compile(r"[*?\[]")


def _pattern(text: str) -> str:
    if not PATTERN.fullmatch(text):
        raise ValueError(f"is {text!r}, but it must be a node name, or a pattern of letters, digits, - * ? [ and ]")
    return text


NodePattern = Annotated[str, AfterValidator(_pattern)]
Satellites = Literal["all"] | tuple[NodePattern, ...]  # how a scenario's key names satellites


def matching(patterns: Literal["all"] | Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """The names that a pattern matches, each once and in their own order; a pattern without any is passed over."""
    if patterns == "all":
        return tuple(names)
    taken_out = _matcher([pattern[1:] for pattern in patterns if pattern.startswith("!")])
    matched = _matcher([pattern for pattern in patterns if not pattern.startswith("!")])
    return tuple(name for name in names if matched(name) and not taken_out(name))


def _matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    exact = {pattern for pattern in patterns if not WILD.search(pattern)}
    wild = [pattern for pattern in patterns if WILD.search(pattern)]
    return lambda name: name in exact or any(fnmatchcase(name, pattern) for pattern in wild)


def unmatched(where: str, patterns: Literal["all"] | Sequence[str], names: Collection[str]) -> Iterator[str]:
    """A sentence for each pattern that matches no satellite.

    Args:
        where: the scenario's key that has them.
    """
    for pattern in () if patterns == "all" else (pattern.removeprefix("!") for pattern in patterns):
        if WILD.search(pattern) and not any(fnmatchcase(name, pattern) for name in names):
            yield f"{where} has {pattern!r}, but it matches no satellite; `isl-emu check` lists their names"
        elif not WILD.search(pattern) and pattern not in names:
            close = difflib.get_close_matches(pattern, names, n=1)
            hint = f"did you mean {close[0]}?" if close else "choose an existing one"
            yield f"{where} names {pattern!r}, but there is no such satellite; {hint}"
