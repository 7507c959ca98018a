"""What a scenario says about which satellites are linked must agree with which satellites there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from isl_emu.scenario.model import Scenario


def laser_contradictions(scenario: Scenario) -> Iterator[str]:
    """One sentence for each laser pair or inter-shell table that does not fit the shells."""
    shell_of = {name: shell.name for shell, names in scenario.satellites_by_shell for name in names}
    for index, shell in enumerate(scenario.shell):
        where = f"shell[{index}].lasers"
        yield from _pair_problems(where, shell.lasers.pairs, shell_of, {shell.name})
        if shell.lasers.cross_seam and shell.lasers.topology not in ("+grid", "nearest"):
            yield f'{where}.cross_seam is true, but only "+grid" and "nearest" know a seam; remove it'
    for index, table in enumerate(scenario.inter_shell):
        yield from _between_problems(f"inter_shell[{index}]", table.between, scenario)
        yield from _pair_problems(f"inter_shell[{index}]", table.pairs, shell_of, set(table.between))
    joined = Counter(frozenset(table.between) for table in scenario.inter_shell)
    for between, count in joined.items():
        if count > 1:
            names = " and ".join(sorted(between))
            yield f"inter_shell joins {names} {count} times, but one table describes their links; merge them"


def _between_problems(where: str, between: tuple[str, str], scenario: Scenario) -> Iterator[str]:
    shells = {shell.name: shell for shell in scenario.shell}
    if between[0] == between[1]:
        yield f"{where}.between names {between[0]!r} twice, but it joins two shells; name another"
    for name in dict.fromkeys(between):
        if name not in shells:
            yield f"{where}.between names {name!r}, but there is no such shell; choose one of {', '.join(shells)}"
        elif not shells[name].lasers.terminal:
            yield f"{where}.between names {name!r}, but that shell has no terminals to point; add a terminal table"


def _pair_problems(
    where: str, pairs: Sequence[tuple[str, str]], shell_of: dict[str, str], joined: set[str]
) -> Iterator[str]:
    seen: set[frozenset[str]] = set()
    for index, pair in enumerate(pairs):
        here = f"{where}.pairs[{index}]"
        strangers = [name for name in pair if name not in shell_of]
        yield from (
            f"{here} names {name!r}, but there is no such satellite; choose an existing one" for name in strangers
        )
        if pair[0] == pair[1]:
            yield f"{here} names {pair[0]!r} twice, but a link has two ends; name another"
        elif not strangers and {shell_of[name] for name in pair} != joined:
            yield f"{here} joins other shells than {' and '.join(sorted(joined))}; choose satellites of these"
        elif frozenset(pair) in seen:
            yield f"{here} repeats an earlier pair, but a pair has one link; remove it"
        seen.add(frozenset(pair))
