"""A plan, or a power balance, in words and columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isl_emu.arrays import Floats
from isl_emu.energy.balance import FleetBalance
from isl_emu.linkplan.contacts import find_contacts, terms_of_kinds
from isl_emu.linkplan.plan import LinkKind, LinkPlan, NodeKind
from isl_emu.linkplan.plan_file import KIND_NAMES
from isl_emu.linkplan.step_check import step_sentences
from isl_emu.planned import PlannedNetwork
from isl_emu.scenario.quantities import ZERO_CELSIUS_K
from isl_emu.show.measures import degrees
from isl_emu.units import DURATION_NS, NS_PER_MS, NS_PER_S, format_quantity, format_rate

ROWS_SHOWN = 40
BIT_PER_GBIT = 1e9


def summary(plan: PlannedNetwork) -> str:
    """Nodes, links, ground contacts, faults and what the time step does, as plain text that ends with a newline."""
    degree, step = degrees(plan.link_plan), step_sentences(plan.step_check, plan.link_plan)
    links = f"links of a satellite: {degree.mean.mean():.2f} on average, {degree.least.min()} to {degree.most.max()}"
    grid, kinds = plan.link_plan.grid, plan.link_plan.nodes.kind
    satellites = int((kinds == NodeKind.SATELLITE).sum())
    links_of = plan.link_plan.links
    laser, lines = int(links_of.laser.sum()), int((links_of.kind == LinkKind.TERRESTRIAL).sum())
    places = int((kinds == NodeKind.PLACE).sum())
    head = [
        plan.scenario.name + (f": {plan.scenario.description}" if plan.scenario.description else ""),
        f"{satellites} satellites, {len(kinds) - satellites - places} stations, {laser} laser links, "
        f"{len(links_of.a) - laser - lines} ground links"
        + (f", {places} places, {lines} terrestrial lines" if places or lines else ""),
        f"{grid.count} instants from {grid.start:%Y-%m-%d %H:%M:%S} UTC, "
        f"{format_quantity(grid.step_ns, DURATION_NS)} apart",
    ]
    parts = [head, _kinds(plan), _ground_contacts(plan), _faults(plan), [links], step]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _kinds(plan: PlannedNetwork) -> list[str]:
    """One line for each kind of link."""
    links, contacts = plan.link_plan.links, find_contacts(plan.link_plan)
    rows = []
    for value, found in sorted(terms_of_kinds(plan.link_plan).items()):
        rows.append(
            (
                KIND_NAMES[value],
                str((links.kind == value).sum()),
                str((links.kind[contacts.link] == value).sum()),
                _span(found.up.min(), found.up.max(), "g"),
                _span(found.delay_ns[0] / NS_PER_MS, found.delay_ns[1] / NS_PER_MS, ".3f"),
                _span(found.rate_bit_s[0] / BIT_PER_GBIT, found.rate_bit_s[1] / BIT_PER_GBIT, ".4g"),
                f"{found.loss_sum / found.up.sum():.2g}",
            )
        )
    heads = ("links", "count", "contacts", "up at once", "delay (ms)", "rate a to b (Gbit/s)", "mean loss")
    return columns(heads, rows) if rows else ["no link is ever up"]


def _ground_contacts(plan: PlannedNetwork) -> list[str]:
    """The first contacts of the stations, by station and time."""
    links, names = plan.link_plan.links, plan.nodes
    contacts = find_contacts(plan.link_plan)
    ground = np.flatnonzero(links.kind[contacts.link] == LinkKind.GROUND)
    if not len(ground):
        return []
    order = ground[np.lexsort((contacts.start_ns[ground], links.b[contacts.link[ground]]))]
    rows = [
        (
            names[links.b[contacts.link[at]]],
            names[links.a[contacts.link[at]]],
            f"{contacts.start_ns[at] / NS_PER_S:g}",
            f"{contacts.end_ns[at] / NS_PER_S:g}",
            _delays(plan.link_plan, int(contacts.link[at]), contacts.start_ns[at], contacts.end_ns[at]),
        )
        for at in order[:ROWS_SHOWN].tolist()
    ]
    lines = columns(("station", "satellite", "from (s)", "to (s)", "delay (ms)"), rows)
    rest = len(order) - len(rows)
    return [*lines, f"... and {rest} more; `isl-emu export --format csv` lists all"] if rest else lines


def _delays(plan: LinkPlan, link: int, start_ns: int, end_ns: int) -> str:
    """The delays of a link during a contact, in ms."""
    k = np.arange(start_ns // plan.grid.step_ns, end_ns // plan.grid.step_ns)
    delay_ns = plan.rows_over(k, [link])[0].delay_ns
    return _span(delay_ns.min() / NS_PER_MS, delay_ns.max() / NS_PER_MS, ".3f")


def _faults(plan: PlannedNetwork) -> list[str]:
    """One line for each fault: what it does to how many things, how often, when, and when that is known."""
    faults, step_s, rows = plan.link_plan.faults, plan.link_plan.grid.step_ns / NS_PER_S, []
    for number, fault in enumerate(plan.scenario.fault):
        own = (faults.fault == number) & (faults.k_from < faults.k_until)
        k_from, k_until = faults.k_from[own], faults.k_until[own]
        hit = len(np.unique(faults.target[own]))
        thing = "links" if fault.thing == "terminals" else fault.thing
        times = (f"{k_from.min() * step_s:g}", f"{k_until.max() * step_s:g}") if hit else ("-", "-")
        mean = f"{(k_until - k_from).mean() * step_s:.3g}" if hit and not fault.momentary else "-"
        rows.append((fault.name, fault.effect, f"{hit} {thing}", str(int(own.sum())), *times, mean, fault.known))
    heads = ("fault", "effect", "hits", "times", "from (s)", "to (s)", "mean (s)", "known")
    return columns(heads, rows) if rows else []


def _span(low: float, high: float, form: str) -> str:
    shown = f"{low:{form}}", f"{high:{form}}"
    return shown[0] if shown[0] == shown[1] else f"{shown[0]} - {shown[1]}"


def columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table without a frame: first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *rows)]
    padded = (
        [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:]))]
        for first, *others in (heads, *rows)
    )
    return ["  ".join(cells).rstrip() for cells in padded]


def balance_text(balance: FleetBalance) -> str:
    """Satellites by shell, and what the constellation can compute; ends with a newline."""
    heads = (
        "satellites", "", "in shadow", "charge", "hottest", "slowed", "off",
        "pace", "sustainable", "allowed", "computers", "unmet",
    )  # fmt: skip
    rows = [_row(label, numbers, balance) for label, numbers in balance.parts.items()]
    grid, scenario = balance.grid, balance.scenario
    duration, step = (format_quantity(value, DURATION_NS) for value in (grid.duration_ns, grid.step_ns))
    head = [
        scenario.name + (f": {scenario.description}" if scenario.description else ""),
        f"{duration} from {grid.start:%Y-%m-%d %H:%M:%S} UTC in steps of {step}; "
        f"every computer is wanted for {balance.demand_ratio:.0%} of its full work",
    ]
    return "\n".join([*head, "", *columns(heads, rows), "", *_constellation(balance)]) + "\n"


def _row(label: str, numbers: np.ndarray, balance: FleetBalance) -> tuple[str, ...]:
    table = balance.satellites.take(numbers).to_pydict()

    def mean(name: str) -> str:
        values = [value for value in table[name] if value is not None]
        return f"{np.mean(values):.1%}" if values else "-"

    slowed = [limited - off for limited, off in zip(table["limited_ratio"], table["off_ratio"]) if off is not None]
    return (
        label,
        str(len(numbers)),
        mean("eclipse_ratio"),
        f"{min(table['charge_min_ratio']):.0%}",
        f"{max(table['temperature_max_k']) - ZERO_CELSIUS_K:.0f} degC",
        f"{np.mean(slowed):.1%}" if slowed else "-",
        mean("off_ratio"),
        mean("pace_ratio"),
        mean("sustainable_ratio"),
        format_rate(_allowed_flop_s(balance)[numbers].sum(), "FLOPS"),
        format_rate(sum(table["board_w"]), "W"),
        format_rate(sum(table["unmet_w"]), "W"),
    )


def _allowed_flop_s(balance: FleetBalance) -> np.ndarray:
    """What each may do on average, shape (N,)."""
    allowed_flop_s: Floats = balance.series.pace_ratio.mean(axis=0, dtype=float) * balance.flop_s
    return allowed_flop_s


def _constellation(balance: FleetBalance) -> list[str]:
    """What all computers together could do, may do, and do for a joule."""
    flop_s, boards = balance.flop_s, balance.scenario.boards
    if not flop_s.any():
        return ["no satellite with power computes"]
    int8_ops_s = sum(boards[name].int8_ops_s for name in balance.names if name in boards)
    allowed_flop_s = _allowed_flop_s(balance).sum()
    used = np.minimum(balance.series.pace_ratio, balance.demand_ratio).mean(axis=0, dtype=float) @ flop_s
    board_w = balance.series.board_w.mean(axis=0, dtype=float).sum()
    hours = balance.grid.duration_ns / NS_PER_S / 3600
    efficiency = f", {format_rate(used / board_w, 'FLOP/J')}" if board_w else ""
    return [
        f"available {format_rate(flop_s.sum(), 'FLOPS')} (16 bits), {format_rate(int8_ops_s, 'OPS')} (8 bits)",
        f"allowed   {format_rate(allowed_flop_s, 'FLOPS')} ({allowed_flop_s / flop_s.sum():.1%})",
        f"used      {format_rate(used, 'FLOPS')} with {format_rate(board_w * hours, 'Wh')}{efficiency}",
    ]
