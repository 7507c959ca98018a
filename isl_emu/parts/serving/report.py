"""The section on the satellites' servers: which are real, and whose pace the others have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from isl_emu.parts.serving.pace import PaceFidelity
from isl_emu.tables.text import INDENT, counted, table, time_text

TOKENS_S = ".3g"


def servers_section(servers: Sequence[Mapping[str, Any]], pace: PaceFidelity) -> Iterator[str]:
    yield "SERVERS"
    rows = [
        (row["server"], counted(row["satellites"], "satellite"), row["model"], row["board"] or "-", _pace(row))
        for row in servers
    ]
    yield from table(("", "", "model", "board", "decodes at"), rows, left=5)
    if pace.steps:
        late = f"{time_text(pace.late_p50_ns)} (p50), {time_text(pace.late_p99_ns)} (p99)"
        yield f"{INDENT}modelled tokens late by {late}"
    if pace.throttled_ratio is not None:
        yield f"{INDENT}throttled answers at {pace.throttled_ratio:.2f} times the wanted pace (median)"


def _pace(row: Mapping[str, Any]) -> str:
    if row["decode_tokens_s"] is None:
        return "its own pace"
    pace = f"{row['decode_tokens_s']:{TOKENS_S}} tokens/s"
    return f"{pace}, by {row['cpus']:.2g} of a core" if row["server"] == "throttled" else pace
