"""The section on the way of the weights into orbit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from isl_emu.tables.text import INDENT, counted, facts, share, table, three_digits, time_text, wrapped
from isl_emu.units import NS_PER_S

Rows = Sequence[Mapping[str, Any]]
SATELLITES_SHOWN = 24  # the rest is in deliveries.parquet


def uplink_section(deliveries: Rows, transfers: Rows) -> Iterator[str]:
    """How the file came up, who got it from whom, and when each served."""
    serving = sorted(row["t_serving_ns"] for row in deliveries if row["t_serving_ns"] is not None)
    yield f"MODEL UPLINK  {_megabyte(deliveries[0]['size_byte'])} to {counted(len(deliveries), 'satellite')}"
    yield from wrapped(INDENT, _serving(serving, len(deliveries)))
    for row in deliveries:
        if row["kind"] == "uplink":
            yield from wrapped(INDENT, _from_ground(row, [item for item in transfers if item["kind"] == "uplink"]))
    yield from wrapped(INDENT, _lasers([item for item in transfers if item["kind"] != "uplink"]))
    header = ("satellite", "by", "from", "attempts", "received", "goodput", "hops", "has it", "serves")
    shown = deliveries[:SATELLITES_SHOWN]
    yield from table(header, [_satellite(row, transfers) for row in shown], left=3)
    if len(deliveries) > len(shown):
        yield f"{INDENT}... and {len(deliveries) - len(shown)} more in deliveries.parquet"
    for row in deliveries:
        if row["error"]:
            yield from wrapped(f"{INDENT}{row['satellite']} does not serve: ", row["error"])


def _serving(serving_ns: Sequence[int], satellites: int) -> str:
    if not serving_ns:
        return "no satellite served"
    everyone = (
        f"all {satellites} serve" if len(serving_ns) == satellites else f"{len(serving_ns)} of {satellites} serve"
    )
    return facts(f"first satellite serves at {time_text(serving_ns[0])}", f"{everyone} at {time_text(serving_ns[-1])}")


def _from_ground(row: Mapping[str, Any], attempts: Rows) -> str:
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


def _lasers(attempts: Rows) -> str:
    received = sum(item["received_byte"] for item in attempts)
    carried = sum(item["received_byte"] * (item["hops_at_start"] or 0) for item in attempts)
    return facts(f"between satellites: {_megabyte(received)} received", f"{_megabyte(carried)} over all links")


def _satellite(row: Mapping[str, Any], transfers: Rows) -> tuple[str, ...]:
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
