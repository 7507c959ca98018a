"""The table of captures: what each file has of each link end, and what of it was missed; its section and verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from isl_emu.parts.captures.recording import JOURNAL
from isl_emu.parts.captures.specification import FOLDER
from isl_emu.parts.finished_run import FinishedRun, Row, Rows
from isl_emu.show.chapter import Chapter, DataTable
from isl_emu.tables.schema import NS, TEXT, column, schema
from isl_emu.tables.text import size_text, table, time_text

MOST_SHOWN = 20  # in the summary; all are in the table
HEADER = ("capture", "file", "link end", "packets", "size", "from", "until", "missed")

CAPTURES = schema(
    column("capture", TEXT, "", "name of the capture in the scenario; `by-hand` for those of `isl-emu capture`"),
    column("file", TEXT, "", "in the folder of results; null where it has made room for newer ones, or is elsewhere"),
    column("node", TEXT, "", "node at this end of the link"),
    column("peer", TEXT, "", "node at the other end"),
    column("packets", NS, "packets", "that were sent or have arrived at this end, and are in the file"),
    column("byte", NS, "bytes", "that these have, with Ethernet headers, also where less of them is kept"),
    column("dropped", NS, "packets", "missed, as they came faster than they were taken"),
    column("t_first_ns", NS, "ns", "when the first of them was sent or arrived; null without any"),
    column("t_last_ns", NS, "ns", "when the last of them was sent or arrived; null without any"),
)


def capture_rows(run: FinishedRun) -> list[Row]:
    """A row for each link end in each file, in the order of the scenario's captures; last those made by hand."""
    rows, places = [], {capture.name: place for place, capture in enumerate(run.scenario.capture)}
    for record in run.journal(JOURNAL).records:
        if "lost_tap" not in record:
            there = record["file"] and (run.folder.path / FOLDER / record["file"]).is_file()
            rows.append({**record, "file": f"{FOLDER}/{record['file']}" if there else None})
    return sorted(rows, key=lambda row: places.get(row["capture"], len(places)))


def capture_reasons(run: FinishedRun, rows: Rows) -> Iterator[str]:
    """Why captures are not to be trusted."""
    if missed := sum(row["dropped"] for row in rows):
        yield (
            f"captures: {missed:,} packets were missed, but what is captured is to be whole; give a filter, or capture "
            "in exact time"
        )
    for record in run.journal(JOURNAL).records:
        if node := record.get("lost_tap"):
            yield (
                f"captures: what {node} sends was no longer seen at the end, but it is captured; leave its tap and its "
                "filters alone"
            )
    wanted = {capture.name for capture in run.scenario.capture} - {row["capture"] for row in rows}
    for name in sorted(wanted) if run.execution and not run.execution.error else ():
        yield f"captures: {name} has no complete file, but it is asked for; see whether the capturer was killed"


def captures_section(rows: Rows) -> Iterator[str]:
    yield "CAPTURES  (in captures/: Wireshark reads them; times are the scenario's UTC)"
    yield from table(HEADER, [_line(row) for row in rows[:MOST_SHOWN]], left=3)
    if len(rows) > MOST_SHOWN:
        yield f"  ... and {len(rows) - MOST_SHOWN} more in captures.parquet"


def captures_chapter(rows: Rows) -> Chapter:
    """What was captured, for the report."""
    rest = f"{len(rows) - MOST_SHOWN} more are in captures.parquet" if len(rows) > MOST_SHOWN else ""
    shown = DataTable(
        "Files in the folder captures, for Wireshark", HEADER, [_line(row) for row in rows[:MOST_SHOWN]], 3, rest
    )
    return Chapter("Captures", [shown], network=True)


def _line(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        row["capture"],
        (row["file"] or "-").removeprefix(f"{FOLDER}/"),
        f"{row['node']} - {row['peer']}",
        f"{row['packets']:,}",
        size_text(row["byte"]),
        time_text(row["t_first_ns"]),
        time_text(row["t_last_ns"]),
        f"{row['dropped']:,}",
    )
