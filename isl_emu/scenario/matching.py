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
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from isl_emu.scenario.quantities import NodeNames

PATTERN = re.compile(r"!?[a-z0-9*?\[\]!-]{1,64}")
WILD = re.compile(r"[*?\[]")


def _pattern(text: str) -> str:
    if not PATTERN.fullmatch(text):
        raise ValueError(
            f"is {text!r}, but it must be a node name, or a pattern of letters, digits, - * ? [ and ]; correct it"
        )
    return text


def _some(names: Any) -> Any:
    if names in ((), []):
        raise ValueError('is empty, but it names one at least, or is "all"; name one, or leave out the whole table')
    return names


NodePattern = Annotated[str, AfterValidator(_pattern)]
NodePatterns = Annotated[tuple[NodePattern, ...], Field(examples=[["p00s03", "p01*"]])]
Satellites = Annotated[Literal["all"] | NodePatterns, AfterValidator(_some)]  # as a scenario names them
Stations = Annotated[Literal["all"] | NodeNames, AfterValidator(_some)]


def matching(patterns: Literal["all"] | Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """The names that a pattern matches, each once and in their own order; a pattern without any is passed over."""
    if patterns == "all":
        return tuple(names)
    taken_out = _matcher([pattern[1:] for pattern in patterns if pattern.startswith("!")])
    matched = _matcher([pattern for pattern in patterns if not pattern.startswith("!")])
    return tuple(name for name in names if matched(name) and not taken_out(name))


def listed(patterns: Literal["all"] | Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """The same in the order in which the patterns name them; those of one pattern in their own order."""
    found = set(matching(patterns, names))
    patterns = ("*",) if patterns == "all" else patterns
    return tuple(dict.fromkeys(name for pattern in patterns for name in matching((pattern,), names) if name in found))


def _matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    exact = {pattern for pattern in patterns if not WILD.search(pattern)}
    wild = [pattern for pattern in patterns if WILD.search(pattern)]
    return lambda name: name in exact or any(fnmatchcase(name, pattern) for pattern in wild)


def unmatched(
    where: str, patterns: Literal["all"] | Sequence[str], names: Sequence[str], kind: str = "satellite"
) -> Iterator[str]:
    """A sentence for each pattern that matches none of the names, or one if together they leave none.

    Args:
        where: the scenario's key that has them.
        kind: what the names are of.
    """
    if patterns == "all":
        return
    every_one_known = True
    for pattern in (pattern.removeprefix("!") for pattern in patterns):
        known = any(fnmatchcase(name, pattern) for name in names) if WILD.search(pattern) else pattern in names
        every_one_known &= known
        if WILD.search(pattern) and not known:
            yield f"{where} has {pattern!r}, but it matches no {kind}; `isl-emu check` lists their names"
        elif not known:
            yield f"{where} names {pattern!r}, but there is no such {kind}; {near_name(pattern, names)}"
    if every_one_known and not matching(patterns, names):
        shown = ", ".join(map(repr, patterns)) or "no pattern"
        yield f"{where} has {shown}, but these leave no {kind}; name one, or a pattern that does not begin with !"


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
