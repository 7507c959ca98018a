"""The table of probes, the verdict on it, and its section of the summary: what was measured, what the plan says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from isl_emu.parts.finished_run import Row, Rows
from isl_emu.parts.probes.packets import FRAME_BYTE
from isl_emu.parts.probes.traffic import OwnTraffic
from isl_emu.scenario.model import Scenario
from isl_emu.tables.found_ways import FoundWays
from isl_emu.tables.planned_paths import PlannedPaths
from isl_emu.tables.schema import COUNT, FLAG, NS, PATH, TEXT, column, schema
from isl_emu.tables.text import Distribution, beyond, table, time_text

UNSAID = "no node said why, so a link or a program in a node dropped them; see the packets dropped"
RESOLUTION_NS = 1  # of the clock, in exact time
MOST_WAYS_TOLD = 3  # of those that probes took and should not have taken

PROBES = schema(
    column("a", TEXT, "", "node that sends the probe"),
    column("b", TEXT, "", "node that receives it"),
    column("seq", COUNT, "", "number of the probe within its direction"),
    column("t_send_ns", NS, "ns", "when the first link got it"),
    column("delay_ns", NS, "ns", "measured one-way delay; null when lost (it did not arrive within 3 s)"),
    column("lost_by", TEXT, "", "why it was lost, where a node told the sender; null when it arrived, or nobody said"),
    column("hops_seen", COUNT, "links", "links that it crossed, by its TTL; null with srv6 or mpls, that hide it"),
    column("path", PATH, "", "planned path from a to b when it was sent, node names; null when there was none"),
    column("hops", COUNT, "links", "links on path"),
    column("hops_least", COUNT, "links", "the fewest on any path that the probe may take (several by ecmp)"),
    column("hops_most", COUNT, "links", "the most"),
    column("planned_delay_ns", NS, "ns", "planned propagation delay of path when it was sent"),
    column("planned_delay_most_ns", NS, "ns", "the same of the longest path that the probe may take (ecmp)"),
    column("planned_serialisation_ns", NS, "ns", "time to put the probe on all links of path, at the shaped rates"),
    column("error_ns", NS, "ns", "delay - planned_delay - planned_serialisation; by ecmp 0 up to the longest path"),
    column("queued_most_ns", NS, "ns", "what else left the links on its way meanwhile, at their rates; null when lost"),
    column("excess_ns", NS, "ns", "error beyond -jitter to queued_most + jitter: what nothing in the plan explains"),
    column(
        "cut", FLAG, "", "by a fault that those who route did not know, its way was cut, or loses all: it is to be lost"
    ),
    column("jitter_ns", NS, "ns", "how far faults with jitter may take it from the planned delay"),
    column("straddles_change", FLAG, "", "a change of its path, or by somebody, was made while it was on its way"),
)


def probe_rows(
    records: Sequence[Mapping[str, Any]],
    paths: PlannedPaths,
    samples: Sequence[Row],
    disturbed: Sequence[tuple[int, float]] = (),
    found: FoundWays | None = None,
) -> list[Row]:
    """A journal's probes with what the plan says about their way, and with what else was on it.

    Args:
        disturbed: from when to when somebody had changed the network.
        found: the ways that packets took, where others than the plan make the routes.
        samples: how many bytes had left the link ends on their ways, from the journal of `traffic`.
    """
    if found is None:
        rows = [probe_row(record, paths, disturbed) for record in records]
        ways = [_frames(row, paths) for row in rows]
    else:
        taken = [found_row(record, paths, found, disturbed) for record in records]
        rows, ways = [row for row, _ in taken], [dict.fromkeys(ends, FRAME_BYTE) for _, ends in taken]
    own = OwnTraffic(samples, zip((row["t_send_ns"] for row in rows), ways, strict=True))
    for row, way in zip(rows, ways, strict=True):
        if row.get("error_ns") is not None:
            send_ns, error_ns = row["t_send_ns"], row["error_ns"]
            byte = {end: own.other_byte(end, send_ns, send_ns + row["delay_ns"]) for end in way}
            row["queued_most_ns"] = paths.holding_ns(byte, paths.instant(send_ns))
            most_ns = row["queued_most_ns"] + row["jitter_ns"]
            row["excess_ns"] = error_ns - min(max(error_ns, -row["jitter_ns"]), most_ns)
    return rows


def _frames(row: Row, paths: PlannedPaths) -> dict[int, int]:
    """The link ends that may have sent a probe on its planned way, and how long its frame was there."""
    k = paths.instant(row["t_send_ns"])
    if paths.forwarding == "addresses":
        return dict.fromkeys(paths.ends(row["a"], row["b"], k) if row["hops"] else (), FRAME_BYTE)
    way = paths.at(row["a"], row["b"], k)
    return dict(zip(paths.ends_of(way), paths.frames_byte(way, FRAME_BYTE), strict=True)) if way else {}


def probe_row(record: Mapping[str, Any], paths: PlannedPaths, disturbed: Sequence[tuple[int, float]] = ()) -> Row:
    """A journal's probe with what the plan says about its way at the time it was sent, and if it was `disturbed`."""
    a, b, send_ns, delay_ns = record["a"], record["b"], record["t_send_ns"], record.get("delay_ns")
    k = paths.instant(send_ns)
    way, bounds = paths.at(a, b, k), paths.extent(a, b, k)
    row: Row = {**record, "path": paths.names(way), "hops": None if way is None else way.hops}
    if paths.forwarding != "addresses":
        row["hops_seen"] = None  # what counts links is the TTL of the headers that name the way, and these are gone
    expected_ns = 0
    if way and bounds:
        row["cut"], row["jitter_ns"] = paths.dead(a, b, k), paths.jitter_ns(a, b, k)
        row["hops_least"], row["hops_most"] = bounds.hops_least, bounds.hops_most
        row["planned_delay_ns"], row["planned_delay_most_ns"] = bounds.delay_least_ns, bounds.delay_most_ns
        row["planned_serialisation_ns"] = paths.serialisation_ns(way, k, FRAME_BYTE)
        expected_ns = row["planned_delay_ns"] + row["planned_serialisation_ns"]
        spread_ns = bounds.delay_most_ns - bounds.delay_least_ns
        if delay_ns is not None:  # how far it is from those that are planned, which lie in the spread
            excess_ns = delay_ns - expected_ns
            row["error_ns"] = excess_ns - min(max(excess_ns, 0), spread_ns)
    end_ns = send_ns + (delay_ns or expected_ns)
    by_somebody = any(send_ns < until_ns and from_ns < end_ns for from_ns, until_ns in disturbed)
    row["straddles_change"] = by_somebody or paths.straddles_change(a, b, send_ns, end_ns)
    return row


def found_row(
    record: Mapping[str, Any], paths: PlannedPaths, found: FoundWays, disturbed: Sequence[tuple[int, float]] = ()
) -> tuple[Row, Collection[int]]:
    """A journal's probe with the way that all nodes' routes gave it when it was sent, and the link ends on that.

    What the plan says is then of that way: its delay, its links that are down. A route that changed meanwhile is a
    change.
    """
    a, b, send_ns, delay_ns = record["a"], record["b"], record["t_send_ns"], record.get("delay_ns")
    k, way = paths.instant(send_ns), found.path(a, b, send_ns)
    row: Row = {**record, "path": paths.names(way), "hops": None if way is None else way.hops}
    end_ns, ends = send_ns + (delay_ns or 0), list[int]()
    if way is not None:
        row["hops_least"] = row["hops_most"] = way.hops
        row["planned_delay_ns"] = row["planned_delay_most_ns"] = way.delay_ns
        row["cut"], row["jitter_ns"], row["planned_serialisation_ns"] = True, 0, 0
        if not way.cut:
            ends = paths.ends_of(way)
            row["cut"], row["jitter_ns"] = paths.loses(way.links, k), paths.jitter_of(way.links, k)
            row["planned_serialisation_ns"] = paths.serialisation_ns(way, k, FRAME_BYTE)
        expected_ns = way.delay_ns + row["planned_serialisation_ns"]
        if delay_ns is not None and not way.cut:
            row["error_ns"] = delay_ns - expected_ns
        end_ns = send_ns + (delay_ns or expected_ns)
    by_somebody = any(send_ns < until_ns and from_ns < end_ns for from_ns, until_ns in disturbed)
    row["straddles_change"] = by_somebody or found.unsure(a, b, way, send_ns, end_ns)
    return row, ends


@dataclass(frozen=True)
class ProbeFidelity:
    """Measured against planned one-way delays; errors are absolute, over probes that do not straddle a change.

    Errors are those that the run's own traffic does not explain; what it may explain is the time in queues.
    """

    sent: int
    arrived: int
    lost: int  # though a path was planned that no fault had cut, and no change was under way
    cut: int  # lost or to be lost, as a fault had cut their planned path
    without_path: int  # none was planned, so it is not expected to arrive
    straddling: int
    strayed: int  # crossed another number of links than planned, or arrived without a planned path
    strayed_by: Mapping[str, int]  # what those did, and how often
    silent_pairs: tuple[str, ...]  # directions of whose probes with a planned path none arrived
    lost_by: Mapping[str, Mapping[str, int]]  # of directions with a planned path: what nodes said of lost probes
    error_ns: Distribution
    error_per_hop_ns: Distribution
    signed_error_p50_ns: float | None
    queued_ns: Distribution


def probe_fidelity(probes: Rows) -> ProbeFidelity:
    """The errors of the probes that say something: arrived, with a planned path that did not change meanwhile."""
    steady = [row for row in probes if not row["straddles_change"]]
    planned = [row for row in steady if row["planned_delay_ns"] is not None]
    routed = [row for row in planned if not row["cut"]]
    good = [row for row in routed if row["error_ns"] is not None]
    heard = {(row["a"], row["b"]) for row in routed if row["delay_ns"] is not None}
    asked = dict.fromkeys((row["a"], row["b"]) for row in routed)
    return ProbeFidelity(
        sent=len(probes),
        arrived=sum(row["delay_ns"] is not None for row in probes),
        lost=len(routed) - len(good),
        cut=len(planned) - len(routed),
        without_path=len(steady) - len(planned),
        straddling=len(probes) - len(steady),
        strayed=sum(_strayed(row) for row in steady),
        strayed_by=dict(
            Counter(  # a plain one: asdict makes no Counter again
                f"{row['a']} to {row['b']} over {row['hops_seen']} instead of {row['hops'] or 'none'}"
                for row in steady
                if _strayed(row)
            )
        ),
        silent_pairs=tuple(f"{a} to {b}" for a, b in asked if (a, b) not in heard),
        lost_by={f"{a} to {b}": dict(told) for a, b in asked if (told := _told(routed, a, b))},
        error_ns=Distribution.of(abs(row["excess_ns"]) for row in good),
        error_per_hop_ns=Distribution.of(abs(row["excess_ns"]) / row["hops"] for row in good),
        signed_error_p50_ns=Distribution.of(row["excess_ns"] for row in good).p50,
        queued_ns=Distribution.of(row["error_ns"] - row["excess_ns"] for row in good),
    )


def _told(probes: Rows, a: str, b: str) -> Counter[str]:
    """What nodes said of a direction's lost probes, and how often."""
    return Counter(row["lost_by"] for row in probes if (row["a"], row["b"]) == (a, b) and row["lost_by"])


def _strayed(probe: Mapping[str, Any]) -> bool:
    if probe["hops_seen"] is None:
        return False
    return probe["hops"] is None or not probe["hops_least"] <= probe["hops_seen"] <= probe["hops_most"]


def probe_reasons(probes: ProbeFidelity, scenario: Scenario, exact: bool) -> Iterator[str]:
    """Why a run whose packets did not take as long as planned is invalid.

    In exact time nothing but the run's own traffic may hold a packet, and the clock's resolution is 1 ns a hop.
    """
    limits = scenario.fidelity
    if scenario.probes.pairs and not probes.sent:
        yield "probes: nothing measured the delays, but the scenario plans probes; see whether the prober was started"
    for pair in probes.silent_pairs:
        told = ", ".join(f"{count} x {why}" for why, count in probes.lost_by.get(pair, {}).items())
        yield (
            f"probes: nothing measured the delay from {pair}, but a path was planned; "
            + (f"nodes said: {told}" if told else f"{UNSAID}")
        )
    if probes.strayed:
        taken = list(probes.strayed_by.items())
        ways = ", ".join(f"{count} x {way}" for way, count in taken[:MOST_WAYS_TOLD])
        more = f" and {len(taken) - MOST_WAYS_TOLD} other ways" if len(taken) > MOST_WAYS_TOLD else ""
        yield (
            f"probes: {probes.strayed} of {probes.sent} crossed another number of links than planned, but none may "
            f"({ways}{more}); check the routes"
        )
    if exact:
        if (found_ns := probes.error_per_hop_ns.max) is not None and found_ns > RESOLUTION_NS:
            yield (
                f"probes: the largest error per hop is {found_ns:.0f} ns, but at most {RESOLUTION_NS} ns is allowed in "
                "exact time; report it as a fault of isl-emu"
            )
        return
    less_load = "lower the load, or give the run a machine of its own"
    if (found_ns := probes.error_per_hop_ns.p50) is not None and found_ns > limits.probe_error_per_hop_p50_ns:
        yield beyond("probes: the median error per hop", found_ns, limits.probe_error_per_hop_p50_ns, less_load)
    if (found_ns := probes.error_ns.p95) is not None and found_ns > limits.probe_error_p95_ns:
        yield beyond("probes: the 95th percentile of the error", found_ns, limits.probe_error_p95_ns, less_load)


DELAY_HEADER = (
    *(
        "from, to",
        "hops",
        "planned",
        "sending",
        "off by",
        "measured",
        "p95",
        "queued",
        "probes",
        "lost",
        "no path",
        "cut",
    ),
)


def delay_table(probes: Rows) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The header and a row for each direction; the last column only where faults have cut probes off."""
    shown = len(DELAY_HEADER) - (not any(row["cut"] for row in probes))
    return DELAY_HEADER[:shown], [_delay_row(pair, rows)[:shown] for pair, rows in directions(probes).items()]


def directions(probes: Rows) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """The probes of each direction, by their ends."""
    pairs: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in probes:
        pairs.setdefault((row["a"], row["b"]), []).append(row)
    return pairs


def delays_section(probes: Rows) -> Iterator[str]:
    yield "DELAY ONE WAY  (medians, none during a change; planned + sending + off by = measured; queued: p95)"
    header, rows = delay_table(probes)
    yield from table(header, rows, left=1)
    for (a, b), own in directions(probes).items():
        planned = [row for row in own if row["planned_delay_ns"] is not None and not row["straddles_change"]]
        planned = [row for row in planned if not row["cut"]]
        for why, count in _told(planned, a, b).items():
            yield f"{a} → {b}: {count} lost, {why}"


def _sum(good: Rows) -> tuple[float | None, ...]:
    """Planned propagation, time to put the probe on all links, what is beyond both, and all of it, as was measured."""
    terms = ("planned_delay_ns", "planned_serialisation_ns", "delay_ns")
    planned, sending, measured = (Distribution.of(row[term] for row in good).p50 for term in terms)
    off = None if planned is None or sending is None or measured is None else measured - planned - sending
    return planned, sending, off, measured


def _delay_row(pair: tuple[str, str], rows: Rows) -> tuple[str, ...]:
    steady = [row for row in rows if not row["straddles_change"]]
    good = [row for row in steady if row["error_ns"] is not None]
    error = Distribution.of(abs(row["excess_ns"]) for row in good)
    hops = sorted({row["hops"] for row in good})
    return (
        f"{pair[0]} → {pair[1]}",
        "-" if not hops else str(hops[0]) if len(hops) == 1 else f"{hops[0]}-{hops[-1]}",
        *map(time_text, _sum(good)),
        time_text(error.p95),
        time_text(Distribution.of(row["error_ns"] - row["excess_ns"] for row in good).p95),
        str(len(steady)),
        str(sum(row["delay_ns"] is None and row["planned_delay_ns"] is not None and not row["cut"] for row in steady)),
        str(sum(row["planned_delay_ns"] is None for row in steady)),
        str(sum(bool(row["cut"]) for row in steady)),
    )
