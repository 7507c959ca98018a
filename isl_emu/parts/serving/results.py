"""The table of model servers, and the section that says which are real, and whose pace the others have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from isl_emu.parts.serving.kinds import KINDS, kind_of
from isl_emu.scenario.compute import Compute
from isl_emu.tables.schema import COUNT, RATIO, TEXT, column, schema
from isl_emu.tables.text import INDENT, counted, table

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


def servers_section(
    servers: Sequence[Mapping[str, Any]], groups: Sequence[Compute], pace: Mapping[str, Any]
) -> Iterator[str]:
    yield "SERVERS"
    rows = [
        (
            row["server"],
            counted(row["satellites"], "satellite"),
            row["model"],
            row["board"] or "-",
            kind_of(groups[row["group"]]).pace_text(row),
        )
        for row in servers
    ]
    yield from table(("", "", "model", "board", "decodes at"), rows, left=5)
    if any(groups[row["group"]].traits.llama and row["paced_as"] and row["got_tokens_s"] is None for row in servers):
        yield f"{INDENT}the words are those of the files; prompts and tokens take that pace's time, not this machine's"
    for kind in KINDS.values():
        yield from (f"{INDENT}{line}" for line in kind.pace_lines(pace))
