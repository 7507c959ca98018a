"""The tables of an uplink and their section of the summary: each attempt, and what became of each satellite."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from isl_emu.files import read_json
from isl_emu.parts.finished_run import FinishedRun, Row
from isl_emu.parts.serving.who_serves import SERVING
from isl_emu.parts.uplink.plan import FILE, HELD, UNSERVED
from isl_emu.runs.journal import read_journal
from isl_emu.tables.planned_paths import PlannedPaths
from isl_emu.tables.schema import COUNT, FLAG, NS, PATH, TEXT, column, schema
from isl_emu.tables.text import INDENT, counted, facts, share, table, three_digits, time_text, wrapped
from isl_emu.units import NS_PER_S

TRANSFERS = schema(
    column("source", TEXT, "", "node that sends"),
    column("destination", TEXT, "", "satellite that receives"),
    column("kind", TEXT, "", "uplink from a station; ring, tree or swarm between satellites"),
    column("t_start_ns", NS, "ns", "when it asked for the first bytes"),
    column("t_end_ns", NS, "ns", "when it ended, whatever the outcome"),
    column("resumed_from_byte", NS, "byte", "how much of the file the destination had before"),
    column("received_byte", NS, "byte", "how much of the file came, without headers"),
    column("goodput_bit_s", NS, "bit/s", "received_byte over the time of the attempt"),
    column("outcome", TEXT, "", "completed, stalled, moved_on, corrupt, broken, refused, unreachable or unfinished"),
    column("error", TEXT, "", "one sentence when there is something to say"),
    column("digest_ok", FLAG, "", "no piece had another SHA-256 than it must; null if nothing came"),
    column("tries", COUNT, "attempts", "this one, and those in vain since the last from the same source"),
    column("path_at_start", PATH, "", "planned path when it began, node names; null when there was none"),
    column("hops_at_start", COUNT, "links", "links on path_at_start"),
    column("handovers", COUNT, "changes", "how often the planned path changed meanwhile"),
    column("contacts", COUNT, "contacts", "contacts of the station that it used; null between satellites"),
    column("capacity_byte", NS, "byte", "what the slowest link of the planned path could carry meanwhile"),
)

DELIVERIES = schema(
    column("satellite", TEXT, "", "satellite that was to get the file"),
    column("kind", TEXT, "", "how: uplink, ring, tree or swarm"),
    column("size_byte", NS, "byte", "size of the file"),
    column("received_byte", NS, "byte", "how much came, with what was refused"),
    column("contacts", COUNT, "contacts", "contacts of the stations that it used; null for the others"),
    column("t_planned_ns", NS, "ns", "when the planned rates alone would have had it up; null for the others"),
    column("t_held_ns", NS, "ns", "when all of it was there and verified"),
    column("t_serving_ns", NS, "ns", "when the satellite's model server was healthy"),
    column("error", TEXT, "", "why it does not serve at the end of the run"),
)


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


Rows = Sequence[Mapping[str, Any]]
SATELLITES_SHOWN = 24  # the rest is in deliveries.parquet


def uplink_section(deliveries: Rows, transfers: Rows) -> Iterator[str]:
    """How the file came up, who got it from whom, and when each served."""
    yield f"MODEL UPLINK  {_megabyte(deliveries[0]['size_byte'])} to {counted(len(deliveries), 'satellite')}"
    yield from wrapped(INDENT, serving_facts(deliveries))
    lasers = [item for item in transfers if item["kind"] != "uplink"]
    received = sum(item["received_byte"] for item in lasers)
    carried = sum(item["received_byte"] * (item["hops_at_start"] or 0) for item in lasers)
    for row in deliveries:
        if row["kind"] == "uplink":
            yield from wrapped(INDENT, from_ground(row, [item for item in transfers if item["kind"] == "uplink"]))
    yield from wrapped(
        INDENT, facts(f"between satellites: {_megabyte(received)} received", f"{_megabyte(carried)} over all links")
    )
    shown = deliveries[:SATELLITES_SHOWN]
    yield from table(DELIVERY_HEADER, [delivery_line(row, transfers) for row in shown], left=3)
    if len(deliveries) > len(shown):
        yield f"{INDENT}... and {len(deliveries) - len(shown)} more in deliveries.parquet"
    for row in deliveries:
        if row["error"]:
            yield from wrapped(f"{INDENT}{row['satellite']} does not serve: ", row["error"])


def serving_facts(deliveries: Rows) -> str:
    """How many satellites serve, and since when."""
    serving = sorted(row["t_serving_ns"] for row in deliveries if row["t_serving_ns"] is not None)
    if not serving:
        return "no satellite served"
    everyone = f"all {len(serving)}" if len(serving) == len(deliveries) else f"{len(serving)} of {len(deliveries)}"
    first, last = time_text(serving[0]), time_text(serving[-1])
    return facts(f"first satellite serves at {first}", f"{everyone} serve at {last}")


def from_ground(row: Mapping[str, Any], attempts: Rows) -> str:
    """How the file came up to one satellite, by the stations' attempts."""
    stations = list(dict.fromkeys(item["source"] for item in attempts))
    if not stations:
        return f"ground to {row['satellite']}: no station reached it"
    received, capacity = (sum(item[key] for item in attempts) for key in ("received_byte", "capacity_byte"))
    planned = row["t_planned_ns"]
    return f"{', '.join(stations)} to {row['satellite']}: " + facts(
        _megabyte(received),
        counted(len(attempts), "attempt"),
        f"resumed {counted(sum(item['resumed_from_byte'] > 0 for item in attempts), 'time')}",
        counted(row["contacts"], "contact"),
        f"goodput {_rate(_goodput_bit_s(attempts))}",
        f"{share(received / capacity)} of what the planned links carry meanwhile" if capacity else None,
        "planned rates not enough in this run" if planned is None else f"planned rates alone: {time_text(planned)}",
    )


DELIVERY_HEADER = ("satellite", "by", "from", "attempts", "received", "goodput", "hops", "has it", "serves")


def delivery_line(row: Mapping[str, Any], transfers: Rows) -> tuple[str, ...]:
    """What `DELIVERY_HEADER` names, of one satellite."""
    own = [item for item in transfers if item["destination"] == row["satellite"]]
    sources = list(dict.fromkeys(item["source"] for item in own if item["received_byte"]))
    hops = sorted({item["hops_at_start"] for item in own if item["hops_at_start"] is not None})
    return (
        row["satellite"],
        row["kind"],
        ", ".join(sources[:3]) + (" ..." if len(sources) > 3 else ""),
        str(sum(item["tries"] for item in own)),
        _megabyte(row["received_byte"]),
        _rate(_goodput_bit_s(own)),
        "-" if not hops else str(hops[0]) if len(hops) == 1 else f"{hops[0]}-{hops[-1]}",
        time_text(row["t_held_ns"]),
        time_text(row["t_serving_ns"]),
    )


def _goodput_bit_s(attempts: Rows) -> float:
    """All that came, over the time in which any of the attempts was under way."""
    busy_ns = until_ns = 0
    for start_ns, end_ns in sorted((item["t_start_ns"], item["t_end_ns"]) for item in attempts):
        busy_ns += max(0, end_ns - max(start_ns, until_ns))
        until_ns = max(until_ns, end_ns)
    return sum(item["received_byte"] for item in attempts) * 8 * NS_PER_S / busy_ns if busy_ns else 0.0


def _megabyte(size_byte: int) -> str:
    return f"{three_digits(size_byte / 1e6)} MB"


def _rate(rate_bit_s: float) -> str:
    return f"{three_digits(rate_bit_s / 1e6)} Mbit/s"
