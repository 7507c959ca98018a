"""The section on the satellites' servers: which are real, and whose pace the others have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from isl_emu.parts.serving.kinds import KINDS, kind_of
from isl_emu.scenario.compute import Compute
from isl_emu.tables.text import INDENT, counted, table


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
