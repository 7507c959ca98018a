"""Names in a scenario: lists of satellites, and what is wrong with names that nobody has or that two have.

A list holds node names and shell-style patterns of them such as ``sso-p0*``; one that begins with ``!`` takes out again
what it matches.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
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
            yield f"{where} names {pattern!r}, but there is no such satellite; {near_name(pattern, names)}"


def unknown(where: str, names: Iterable[str], known: Collection[str], kind: str) -> Iterator[str]:
    """A sentence for each name that is none of the known ones, which are of that kind."""
    for name in names:
        if name not in known:
            yield f"{where} names {name!r}, but there is no such {kind}; {near_name(name, known)}"


def unpaired(where: str, what: str, pairs: Sequence[tuple[str, str]], nodes: Collection[str]) -> Iterator[str]:
    """A sentence for each pair, of which there is one for each `what`, that is not of two different nodes."""
    for index, pair in enumerate(pairs):
        yield from unknown(f"{where}[{index}]", pair, nodes, "node")
        if pair[0] == pair[1]:
            yield f"{where}[{index}] names {pair[0]!r} twice, but {what} needs two nodes; name another"


def repeated(what: str, names: Iterable[str]) -> Iterator[str]:
    """A sentence for each name that occurs more than once."""
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{what} {name!r} occurs {count} times, but names are unique; rename all but one"


def near_name(name: str, known: Collection[str]) -> str:
    """What to do about a name that is none of the known ones: the one that is spelled nearly so, or any."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else "choose an existing one"
