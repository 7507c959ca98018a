"""What belongs at a place of a scenario: every list and table shows an example that its own key takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel, ConfigDict, TypeAdapter

from isl_emu.files import tomllib
from isl_emu.scenario.entries import as_toml, fields_of, is_record, keys_of, members_of, place_of
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.parse import _tuples
from isl_emu.validate.measured import Cases


def keys_with_lists(record: type[BaseModel], place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The places of all lists and tables that have no keys of their own."""
    for key, kind in fields_of(record):
        for member in members_of(kind):
            inner = get_args(member)[0] if get_origin(member) is tuple else member
            if is_record(inner):
                number = (0,) if get_origin(member) is tuple else ()
                yield from keys_with_lists(inner, (*place, key, *number))
            elif get_origin(member) in (tuple, dict):
                yield (*place, key)


PLACES = [(record, place) for record in (Scenario, Cases) for place in keys_with_lists(record)]


@pytest.mark.parametrize(
    ("record", "place"),
    PLACES,
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else value.__name__,
)
def test_every_list_and_table_has_an_example_that_it_takes(record, place):
    _, kind, example = place_of(place, record)
    written = tomllib.loads(f"example = {as_toml(example)}")["example"]
    TypeAdapter(kind, config=ConfigDict(strict=True)).validate_python(_tuples(written))


def test_all_lists_are_looked_at():
    assert {("questions", "ramp"), ("node", 0, "sysctls"), ("shell", 0, "lasers", "budget", "rates")} < {
        place for _, place in PLACES
    }


@pytest.mark.parametrize(
    ("location", "place", "example"),
    [
        (("questions", "ramp"), "questions.ramp", [["0 s", 0.0], ["60 s", 1.0]]),
        (("questions", "ramp", 7, 1), "questions.ramp[7][1]", 1.0),
        (("questions", "users", "dict[...]", "gs-a"), "questions.users.gs-a", None),
        (("questions", "stations", "function-after[...]", 0), "questions.stations[0]", "gs-berlin"),
        (("shell", 2, "lasers", "pairs", 0), "shell[2].lasers.pairs[0]", ["p00s00", "p00s01"]),
        (("shell", 0, "unheard", "of"), "shell[0].unheard.of", None),
    ],
)
def test_a_place_is_written_as_in_the_file(location, place, example):
    found, _, shown = place_of(location, Scenario)
    assert (found, shown) == (place, example)


def test_keys_are_those_of_a_table_or_of_each_in_a_list():
    def keys(*location: Any) -> list[str]:
        return keys_of(place_of(location, Scenario)[1])

    assert keys("hardware") == keys("hardware", 3) == ["address", "interface", "node"]
    assert "code" in keys("shell", 0)
    assert keys("questions", "ramp") == []
