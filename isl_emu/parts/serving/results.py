"""The table of model servers, and the section that says which are real, and whose pace the others have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from isl_emu.parts.serving.kinds import KINDS, kind_of
from isl_emu.scenario.compute import Compute
from isl_emu.show.chapter import Chapter, DataTable
from isl_emu.tables.schema import COUNT, RATIO, TEXT, column, schema
from isl_emu.tables.text import INDENT, counted, table

Rows = Sequence[Mapping[str, Any]]

SERVERS = schema(
    column("group", COUNT, "", "number of the group in the scenario's compute"),
    column("server", TEXT, "", "kind of its servers: real, throttled, modelled or external"),
    column("satellites", COUNT, "satellites", "how many are in it"),
    column("model", TEXT, "", "what they serve: a file's name, a modelled model, or where an external one is"),
    column("board", TEXT, "", "the computer that they stand for; null when the scenario names none"),
    column("decode_tokens_s", RATIO, "tokens/s", "wanted decoding pace of one answer; null when it is its own"),
    column("paced_as", TEXT, "", "whose pace that is: a model on a board, or a stated rate; null when it is its own"),
    column("native_tokens_s", RATIO, "tokens/s", "decoding pace here with a whole core; null when not measured"),
    column("got_tokens_s", RATIO, "tokens/s", "decoding pace before the run with `cpus`; null when not measured"),
    column("cpus", RATIO, "CPUs", "share of a core that each server gets at the scenario's pace; null without any"),
)


SERVERS_HEADER = ("", "", "model", "board", "decodes at")
NOT_THIS_MACHINE = "The words are those of the files; prompts and tokens take that pace's time, not this machine's"


def servers_section(servers: Rows, groups: Sequence[Compute], pace: Mapping[str, Any]) -> Iterator[str]:
    yield "SERVERS"
    yield from table(SERVERS_HEADER, _lines(servers, groups), left=5)
    if _own_words(servers, groups):
        yield f"{INDENT}{NOT_THIS_MACHINE[0].lower()}{NOT_THIS_MACHINE[1:]}"
    for kind in KINDS.values():
        yield from (f"{INDENT}{line}" for line in kind.pace_lines(pace))


def servers_chapter(servers: Rows, groups: Sequence[Compute]) -> Iterator[Chapter]:
    """Nothing for a run without model servers."""
    if servers:
        kinds = DataTable("Who answers, and at whose pace", SERVERS_HEADER, _lines(servers, groups), left=5)
        yield Chapter(
            "Model servers",
            [
                kinds,
                *([f"{NOT_THIS_MACHINE}."] if _own_words(servers, groups) else []),
            ],
        )


def _lines(servers: Rows, groups: Sequence[Compute]) -> list[tuple[str, ...]]:
    """What `SERVERS_HEADER` names, of each group."""
    return [
        (
            row["server"],
            counted(row["satellites"], "satellite"),
            row["model"],
            row["board"] or "-",
            kind_of(groups[row["group"]]).pace_text(row),
        )
        for row in servers
    ]


def _own_words(servers: Rows, groups: Sequence[Compute]) -> bool:
    """Whether some have the words of a model here and the pace of another one elsewhere."""
    return any(groups[row["group"]].traits.llama and row["paced_as"] and row["got_tokens_s"] is None for row in servers)
