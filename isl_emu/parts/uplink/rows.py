"""The tables of an uplink: each attempt with the planned path that it used, and what became of each satellite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from isl_emu.files import read_json
from isl_emu.parts.finished_run import FinishedRun, Row
from isl_emu.parts.serving.who_serves import SERVING
from isl_emu.parts.uplink.plan import FILE, HELD, UNSERVED
from isl_emu.runs.journal import read_journal
from isl_emu.tables.planned_paths import PlannedPaths
from isl_emu.units import NS_PER_S


def transfer_rows(records: Iterable[Mapping[str, Any]], paths: PlannedPaths) -> list[Row]:
    """The attempts in the order of their beginnings, with what follows from them and from the plan."""
    rows = []
    for record in sorted(records, key=lambda record: record["t_start_ns"]):
        ends, times = (record["source"], record["destination"]), (record["t_start_ns"], record["t_end_ns"])
        lasted_ns, received_bit = times[1] - times[0], 8 * record["received_byte"]
        names = paths.names(paths.at(*ends, paths.instant(times[0])))
        found = {
            "goodput_bit_s": round(received_bit * NS_PER_S / lasted_ns) if lasted_ns > 0 else 0,
            "path_at_start": names,
            "hops_at_start": None if names is None else len(names) - 1,
            "handovers": paths.changes_between(*ends, *times),
            "contacts": len(_contacts(record, paths)) if record["kind"] == "uplink" else None,
            "capacity_byte": paths.capacity_byte(*ends, *times),
        }
        rows.append({**record, **found})
    return rows


def _contacts(attempt: Mapping[str, Any], paths: PlannedPaths) -> set[tuple[int, int]]:
    """The contacts of the station that an attempt used, each as its ground link and its first instant."""
    instants = range(paths.instant(attempt["t_start_ns"]), paths.instant(attempt["t_end_ns"]) + 1)
    planned = [paths.at(attempt["source"], attempt["destination"], k) for k in range(instants.stop)]
    links = [path.links[0] if path else None for path in planned]
    contacts, first = set(), 0
    for k, link in enumerate(links):
        if k and link != links[k - 1]:
            first = k
        if link is not None and k in instants:
            contacts.add((link, first))
    return contacts


def delivery_rows(run: FinishedRun, transfers: Sequence[Mapping[str, Any]]) -> list[Row]:
    """One row for each satellite that was to get the file."""
    plan, paths = read_json(run.folder.journal / FILE) or {}, run.paths
    held = {record["satellite"]: record["t_ns"] for record in run.journal(HELD).records}
    serving = {record["satellite"]: record["t_ns"] for record in read_journal(run.folder.journal / SERVING).records}
    failed = {record["satellite"]: record["error"] for record in run.journal(UNSERVED).records}
    size_byte = plan["manifest"]["size_byte"]
    rows = []
    for name, receiver in plan["receivers"].items():
        own = [row for row in transfers if row["destination"] == name]
        received_byte, uplink = sum(row["received_byte"] for row in own), receiver["kind"] == "uplink"
        row = {
            "satellite": name,
            "kind": receiver["kind"],
            "size_byte": size_byte,
            "received_byte": received_byte,
            "contacts": len(set().union(*(_contacts(row, paths) for row in own))) if uplink else None,
            "t_planned_ns": plan["planned_end_ns"] if uplink else None,
            "t_held_ns": held.get(name),
            "t_serving_ns": serving.get(name),
        }
        rows.append({**row, "error": None if name in serving else failed.get(name) or _reason(row, own)})
    return rows


def _reason(row: Row, own: Sequence[Mapping[str, Any]]) -> str:
    """Why a satellite does not serve that has not reported anything itself."""
    if row["t_held_ns"] is not None:
        return "its server was still loading the model when the run ended"
    had = f"it had {row['received_byte']:,} of {row['size_byte']:,} bytes when the run ended"
    if not own:
        return f"{had}; no source had the file for it"
    last = max(own, key=lambda attempt: attempt["t_end_ns"])
    why = f": {last['error']}" if last["error"] else ""
    return f"{had}; its last attempt, from {last['source']}, was {last['outcome']}{why}"
