"""Contacts as bars over time: each station's on lanes of its own, the lasers that are not always up, and faults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isl_emu.linkplan.contacts import Contacts, find_contacts
from isl_emu.linkplan.plan import LinkKind, LinkState
from isl_emu.planned import PlannedNetwork
from isl_emu.show.style import (
    BLACK,
    CYCLE,
    DENSE,
    GREEN,
    KIND_COLOR,
    ORANGE,
    PURPLE,
    QUIET,
    SKY,
    VERMILION,
    YELLOW,
    calm,
    new_figure,
    plan_axis,
    title,
)
from isl_emu.units import NS_PER_S

LASERS_SHOWN = 30
LANES_SHOWN = 60
LANE_IN = 0.19
NEIGHBOURS = 2  # so many contacts before and after one have other colours, where there are enough
BARS = tuple(color for color in CYCLE if color != BLACK)
LIGHT = {ORANGE, SKY, PURPLE, YELLOW, GREEN}  # bars that carry black text
GETTING_READY = (LinkState.SLEWING, LinkState.ACQUIRING)
FAULTS_SHOWN = 30
CHARACTER_SHARE = 0.0115  # of the picture's width, at the size of the names in the bars


def draw_gantt(plan: PlannedNetwork) -> Figure:
    """The contacts of all stations and of the lasers that come and go, and when things are out of order."""
    contacts = find_contacts(plan.link_plan)
    lanes = _station_lanes(plan, contacts)
    # the laser links that are not up all the time, those with most contacts first
    links, duration_ns = plan.link_plan.links, plan.link_plan.grid.duration_ns
    up_ns = np.bincount(contacts.link, weights=contacts.end_ns - contacts.start_ns, minlength=len(links.a))
    count = np.bincount(contacts.link, minlength=len(links.a))
    changing = np.flatnonzero(links.laser & (up_ns < duration_ns))
    lasers: list[int] = changing[np.argsort(-count[changing], kind="stable")].tolist()
    faults = plan.link_plan.faults.names[:FAULTS_SHOWN]
    heights = [max(len(lanes[:LANES_SHOWN]), 2), max(len(lasers[:LASERS_SHOWN]), 2)]
    heights += [max(len(faults), 2)] if faults else []
    figure = new_figure(1.7 + LANE_IN * sum(heights) + 0.5 * bool(faults))
    stack = figure.subplots(len(heights), 1, sharex=True, gridspec_kw={"height_ratios": heights})
    _draw_stations(stack[0], plan, contacts, lanes)
    _draw_lasers(stack[1], plan, contacts, lasers)
    if faults:
        _draw_faults(stack[2], plan)
    plan_axis(stack[-1], plan.link_plan)
    return figure


def _station_lanes(plan: PlannedNetwork, contacts: Contacts) -> list[tuple[str, list[int]]]:
    """Each station's contacts packed into as few lanes as do not overlap: (label, contacts) from top to bottom."""
    links = plan.link_plan.links
    found: list[tuple[str, list[int]]] = []
    for station in sorted(set(links.b[links.kind == LinkKind.GROUND].tolist())):
        lanes: list[list[int]] = []
        mine = np.flatnonzero((links.kind[contacts.link] == LinkKind.GROUND) & (links.b[contacts.link] == station))
        for at in mine[np.argsort(contacts.start_ns[mine], kind="stable")].tolist():
            free = (lane for lane in lanes if contacts.end_ns[lane[-1]] <= contacts.start_ns[at])
            lane = next(free, None)
            if lane is None:
                lanes.append(lane := [])
            lane.append(at)
        found += [(plan.nodes[station] if number == 0 else "", lane) for number, lane in enumerate(lanes)]
    return found


def _draw_stations(axes: Axes, plan: PlannedNetwork, contacts: Contacts, lanes: list[tuple[str, list[int]]]) -> None:
    shown = lanes[:LANES_SHOWN]
    more = f"; {len(lanes) - len(shown)} lanes more are not shown" if len(lanes) > len(shown) else ""
    what = f"Ground contacts of {plan.scenario.name}, by station and antenna in use"
    title(axes, what, f"bars name satellites where they are long enough{more}")
    duration_s = plan.link_plan.grid.duration_ns / NS_PER_S
    colors = _colors_in_turn(plan, contacts)
    many = sum(len(lane) for _, lane in shown) > DENSE
    for row, (_, lane) in enumerate(shown):
        for at in lane:
            satellite = int(plan.link_plan.links.a[contacts.link[at]])
            color, name = colors[satellite], plan.nodes[satellite]
            start_s, end_s = contacts.start_ns[at] / NS_PER_S, contacts.end_ns[at] / NS_PER_S
            edge: dict[str, Any] = {"edgecolor": "white", "linewidth": 0.8, "rasterized": many}
            axes.barh(row, end_s - start_s, left=start_s, height=0.8, color=color, **edge)
            if (end_s - start_s) / duration_s > CHARACTER_SHARE * len(name):
                ink = "black" if color in LIGHT else "white"
                middle_s = (start_s + end_s) / 2
                axes.text(middle_s, row, name, color=ink, ha="center", va="center", fontsize=6, clip_on=True)
    for row, (label, _) in enumerate(shown):
        if label and row:
            axes.axhline(row - 0.5, color=QUIET, linewidth=0.6)
    _label_rows(axes, [label for label, _ in shown], "no station ever has a link")


def _colors_in_turn(plan: PlannedNetwork, contacts: Contacts) -> dict[int, str]:
    """A colour for each satellite: another than those have that a station sees shortly before it and after it.

    A satellite has its colour at all stations. Where no colour is left, that of the farthest neighbour serves again.
    """
    links = plan.link_plan.links
    neighbours: dict[int, list[int]] = {}  # the nearest first
    ground = np.flatnonzero(links.kind[contacts.link] == LinkKind.GROUND)
    for distance in range(1, NEIGHBOURS + 1):
        for station in np.unique(links.b[contacts.link[ground]]):
            mine = ground[links.b[contacts.link[ground]] == station]
            seen = links.a[contacts.link[mine[np.argsort(contacts.start_ns[mine], kind="stable")]]].tolist()
            for one, other in zip(seen, seen[distance:]):
                neighbours.setdefault(one, []).append(other)
                neighbours.setdefault(other, []).append(one)
    colors: dict[int, str] = {}
    for satellite in sorted(set(links.a[contacts.link[ground]].tolist())):
        around = [colors[other] for other in neighbours.get(satellite, ()) if other != satellite and other in colors]
        first = satellite % len(BARS)
        turn = (*BARS[first:], *BARS[:first])
        colors[satellite] = max(turn, key=lambda color: around.index(color) if color in around else len(around))
    return colors


def _draw_lasers(axes: Axes, plan: PlannedNetwork, contacts: Contacts, lasers: list[int]) -> None:
    links, shown = plan.link_plan.links, lasers[:LASERS_SHOWN]
    total = int(links.laser.sum())
    more = f"; {len(shown)} are shown" if len(lasers) > len(shown) else ""
    cut = LinkState.FAULT in plan.link_plan.events.state
    legend = "thin yellow bars: slewing and acquiring" + ("; thin vermilion bars: cut by a fault" if cut else "")
    title(axes, f"Laser links that come and go: {len(lasers)} of {total}{more}", legend if lasers else "")
    for row, link in enumerate(shown):
        mine = np.flatnonzero(contacts.link == link)
        start_s, end_s = contacts.start_ns[mine] / NS_PER_S, contacts.end_ns[mine] / NS_PER_S
        color = KIND_COLOR[LinkKind(links.kind[link])]
        axes.broken_barh(list(zip(start_s, end_s - start_s)), (row - 0.4, 0.8), color=color)
        for states, thin in ((GETTING_READY, YELLOW), ((LinkState.FAULT,), VERMILION)):
            spans_s = _spans_s(plan, link, states)
            axes.broken_barh(spans_s, (row - 0.2, 0.4), color=thin, edgecolor=QUIET, linewidth=0.5)
    labels = [f"{plan.nodes[links.a[link]]} - {plan.nodes[links.b[link]]}" for link in shown]
    _label_rows(axes, labels, f"all {total} laser links are up all the time" if total else "there are no laser links")


def _draw_faults(axes: Axes, plan: PlannedNetwork) -> None:
    """A row for each fault, darker the more of what it may hit it has hit."""
    faults, step_s = plan.link_plan.faults, plan.link_plan.grid.step_ns / NS_PER_S
    shown = len(faults.names[:FAULTS_SHOWN])
    more = f"; {shown} are shown" if len(faults.names) > shown else ""
    title(axes, f"Faults: {len(faults.names)}{more}", "the darker, the more of what one ever hits is hit at once")
    for row in range(shown):
        own = (faults.fault == row) & (faults.k_from < faults.k_until)
        edges = np.unique([faults.k_from[own], faults.k_until[own]])
        hits = [int(((faults.k_from[own] <= k) & (k < faults.k_until[own])).sum()) for k in edges.tolist()]
        for start, end, count in zip(edges, edges[1:], hits):
            alpha = 0.25 + 0.75 * count / max(hits) if count else 0.0
            bar = (float(start * step_s), float((end - start) * step_s))
            axes.broken_barh([bar], (row - 0.4, 0.8), color=VERMILION, alpha=alpha, linewidth=0)
    labels = [f"{name}: {effect}" for name, effect in zip(faults.names, faults.effects)]
    _label_rows(axes, labels[:shown], "there are no faults")


def _spans_s(plan: PlannedNetwork, link: int, states: Sequence[LinkState]) -> list[tuple[float, float]]:
    """When a link is in one of some states: (start, length) in s."""
    grid, events = plan.link_plan.grid, plan.link_plan.events
    mine = np.flatnonzero(events.link == link)
    k = np.append(events.k[mine], grid.count)
    ready = np.isin(events.state[mine], states)
    step_s = grid.step_ns / NS_PER_S
    return [(float(start * step_s), float(length * step_s)) for start, length in zip(k[:-1][ready], np.diff(k)[ready])]


def _label_rows(axes: Axes, labels: list[str], otherwise: str) -> None:
    calm(axes)
    axes.grid(False, axis="y")
    axes.set_yticks(range(len(labels)), labels, fontsize=7)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(max(len(labels), 2) - 0.5, -0.5)
    if not labels:
        axes.text(0.5, 0.5, otherwise, transform=axes.transAxes, ha="center", va="center", color=QUIET)
