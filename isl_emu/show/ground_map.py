"""The map: where satellites are and pass, the stations, and the links at one instant; equal-distance cylindrical."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MultipleLocator

from isl_emu.geometry.elements import TURN_RAD, constellation_elements
from isl_emu.geometry.places import geodetic, places_itrs_km
from isl_emu.linkplan.plan import LinkKind, NodeKind
from isl_emu.linkplan.plan_file import KIND_NAMES
from isl_emu.planned import PlannedNetwork
from isl_emu.show.style import (
    BLACK,
    BLUE,
    KIND_COLOR,
    LAND,
    QUIET,
    SEA,
    SKY,
    VERMILION,
    YELLOW,
    new_figure,
    title,
)
from isl_emu.units import DURATION_NS, NS_PER_S, format_quantity

TRACKS_UP_TO = 24  # satellites: more tracks than that cover the map
NAMES_UP_TO = 30
FEW_SATELLITES, FEW_LINKS = 100, 400  # up to these, with larger dots and broader lines
SHELL_COLOR = (BLUE, BLACK, SKY, YELLOW, QUIET)  # those that no kind of link has
TRACK_POINTS = 240
Box = tuple[float, float, float, float]  # least longitude and latitude, then the largest, deg
WORLD: Box = (-180.0, -90.0, 180.0, 90.0)
SMALL_DEG, CLOSEST_DEG, MARGIN = 22.5, 4.0, 0.75  # half the height of a part of the map; room around its nodes
NODE_DEG = 2.2  # from the middle of a node to its edge, on the whole map
CHARACTER_DEG, NAME_DEG = 2.8, 6.0  # the width of a name's character, and its height, on a map of this size
CARRIED, STANDING_OUT_ALPHA = "carried packets", 0.3
OUTSIDE = 10.0  # a name that the edge cuts is so many times as bad as one that lies on something
HALO = [withStroke(linewidth=1.6, foreground="white")]  # keeps names readable over lines


def draw_map(plan: PlannedNetwork, k: int = 0, used: Collection[int] = ()) -> Figure:
    """Satellites, stations and links at instant `k`, and ground tracks.

    Those of few satellites over a revolution at most, since more would cover the map; those of stations that move over
    the whole plan.

    Args:
        used: numbers of links to make stand out; those that are not up at `k` are left out.
    """
    link_plan, grid = plan.link_plan, plan.link_plan.grid
    satellites = int((link_plan.nodes.kind == NodeKind.SATELLITE).sum())
    r_km = places_itrs_km(plan.scenario, grid.start, np.array([k * grid.step_ns]))[0]
    lat_deg, lon_deg = degrees(r_km)
    figure, axes, shown = empty_map(plan)
    tracked = list(range(satellites))
    if satellites > TRACKS_UP_TO:  # the first of each shell
        sizes = [count for _, count in shell_sizes(plan, satellites)]
        tracked = [sum(sizes[:index]) for index in range(len(sizes))][:TRACKS_UP_TO]
    turn_s = TURN_RAD / constellation_elements(plan.scenario).mean_motion_rad_min.min() * 60
    span_ns = min(grid.duration_ns, round(turn_s) * NS_PER_S)
    _draw_tracks(axes, plan, tracked, span_ns, "ground track", QUIET, 0.8)
    moving = _draw_tracks(
        axes, plan, range(satellites, len(plan.nodes)), grid.duration_ns, "track of a station", VERMILION, 2.2
    )
    draw_links(axes, plan, k, r_km, used)
    draw_satellites(axes, plan, lat_deg[:satellites], lon_deg[:satellites])
    if stations := len(lat_deg) - satellites:
        what = "stations and places" if plan.scenario.place else "stations"
        lon, lat, label = lon_deg[satellites:], lat_deg[satellites:], f"{what} ({stations})"
        axes.scatter(
            lon, lat, marker="^", s=32, color=VERMILION, edgecolors="white", linewidths=0.8, zorder=6, label=label
        )
    _draw_names(axes, plan, satellites, lat_deg, lon_deg, shown)
    when = f"{grid.utc(k * grid.step_ns):%Y-%m-%d %H:%M:%S} UTC"
    whose = "all satellites" if len(tracked) == satellites else ", ".join(plan.nodes[node] for node in tracked)
    whole = f"over {format_quantity(grid.duration_ns, DURATION_NS)}"
    over = whole if span_ns == grid.duration_ns else "over the first revolution"
    title(
        axes,
        f"{plan.scenario.name}: satellites and links at {when}",
        f"ground track{'s' if len(tracked) > 1 else ''} of {whose} {over}"
        + (f", and of stations that move {whole}" if moving else ""),
    )
    legend = figure.legend(loc="outside lower center", ncols=4)
    for handle, text in zip(legend.legend_handles, legend.texts):  # as clear as can be, however faint the lines are
        if handle is None:
            continue
        handle.set_alpha(STANDING_OUT_ALPHA if text.get_text() == CARRIED else 1.0)
        if isinstance(handle, LineCollection) and text.get_text() != CARRIED:
            handle.set_linewidth(1.6)
        elif isinstance(handle, PathCollection):
            handle.set_sizes([20])
    return figure


def empty_map(plan: PlannedNetwork) -> tuple[Figure, Axes, Box]:
    """Land and sea where a plan's nodes are in its time: the figure, its axes, and what they show."""
    grid, figure = plan.link_plan.grid, new_figure(4.5)
    axes = figure.subplots()
    axes.set_facecolor(SEA)
    axes.add_collection(PolyCollection(land_outlines_deg(), facecolor=LAND, edgecolor="#c9c3b4", linewidth=0.5))
    offsets_ns = np.linspace(0, grid.duration_ns, TRACK_POINTS).astype(np.int64)
    shown = _shown_deg(*degrees(places_itrs_km(plan.scenario, grid.start, offsets_ns)))
    west, south, east, north = shown
    axes.set(xlim=(west, east), ylim=(south, north), xlabel="longitude (deg)", ylabel="latitude (deg)")
    tick_deg = 30 if shown == WORLD else 5
    axes.xaxis.set_major_locator(MultipleLocator(tick_deg))
    axes.yaxis.set_major_locator(MultipleLocator(tick_deg))
    axes.grid(True, color="#d5dde2", linewidth=0.5)
    axes.set_aspect("equal")
    return figure, axes, shown


def kind_label(kind: LinkKind) -> str:
    """What a legend calls links of a kind."""
    named = {LinkKind.GROUND: "ground link", LinkKind.TERRESTRIAL: "terrestrial line"}
    return named.get(kind, f"{KIND_NAMES[kind]} laser")


@lru_cache(maxsize=1)
def land_outlines_deg() -> tuple[np.ndarray, ...]:
    """Rings of (longitude, latitude) in degrees, each of shape (V, 2); those across 180 degrees come twice.

    Source: Natural Earth 110m land, public domain; simplified to 0.3 degrees (see ``source`` in land.json).
    """
    text = (files("isl_emu.show") / "land.json").read_text(encoding="utf-8")
    rings = [np.array(ring) for ring in json.loads(text)["rings"]]
    turned = [ring + [turn, 0] for ring in rings for turn in (-360, 0, 360)]
    return tuple(ring for ring in turned if ring[:, 0].max() > -180 and ring[:, 0].min() < 180)


def degrees(r_itrs_km: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Geodetic latitude and longitude in degrees of points of shape (..., 3)."""
    latitude_rad, longitude_rad, _ = geodetic(r_itrs_km)
    return np.degrees(latitude_rad), np.degrees(longitude_rad)


def _shown_deg(lat_deg: np.ndarray, lon_deg: np.ndarray) -> Box:
    """The part of the world that holds all nodes all the time, if it is small; otherwise the whole world."""
    if not (np.isfinite(lat_deg).all() and np.isfinite(lon_deg).all()):
        return WORLD
    spans = np.ptp(lon_deg) / 2, np.ptp(lat_deg)
    half_deg = MARGIN * max(*spans, CLOSEST_DEG)  # of latitude; the map is twice as wide as high
    lon, lat = (float((values.min() + values.max()) / 2) for values in (lon_deg, lat_deg))
    box = lon - 2 * half_deg, lat - half_deg, lon + 2 * half_deg, lat + half_deg
    inside = box[0] >= WORLD[0] and box[1] >= WORLD[1] and box[2] <= WORLD[2] and box[3] <= WORLD[3]
    return box if inside and half_deg <= SMALL_DEG else WORLD


def _draw_tracks(
    axes: Axes, plan: PlannedNetwork, nodes: Iterable[int], span_ns: int, label: str, color: str, width: float
) -> bool:
    """Where nodes pass from the start on, as far as they move; whether any does."""
    offsets_ns = np.linspace(0, span_ns, TRACK_POINTS).astype(np.int64)
    lat_deg, lon_deg = degrees(places_itrs_km(plan.scenario, plan.link_plan.grid.start, offsets_ns))
    moving = [n for n in nodes if np.ptp(lat_deg[:, n]) or np.ptp(lon_deg[:, n])]
    lines = [np.column_stack([lon_deg[:, n], lat_deg[:, n]]) for n in moving]
    pieces = [part for line in lines for part in _split_at_date_line(line)]
    if moving:
        axes.add_collection(LineCollection(pieces, colors=color, linewidths=width, alpha=0.8, label=label))
    return bool(moving)


def _split_at_date_line(points: np.ndarray) -> list[np.ndarray]:
    """A line of (longitude, latitude) in pieces that end at 180 degrees where it crosses them."""
    pieces, rest = [], points
    for at in np.flatnonzero(np.abs(np.diff(points[:, 0])) > 180)[::-1] + 1:
        (lon, lat), (next_lon, next_lat) = points[at - 1], points[at]
        edge = float(np.sign(lon)) * 180
        beyond = 360 - abs(next_lon - lon)
        middle = lat + (next_lat - lat) * (180 - abs(lon)) / beyond if beyond else lat
        pieces.append(np.vstack([[-edge, middle], rest[at:]]))
        rest = np.vstack([rest[:at], [edge, middle]])
    return [*pieces, rest][::-1]


def draw_links(axes: Axes, plan: PlannedNetwork, k: int, r_km: np.ndarray, used: Collection[int] = ()) -> None:
    """The links that are up at instant `k`, between nodes at `r_km` (ITRS, km, shape (N, 3))."""
    links, link = plan.link_plan.links, plan.link_plan.snapshot(k).link
    many = len(link) > FEW_LINKS

    def draw(shown: np.ndarray, **style: Any) -> None:
        pieces = _lines_deg(r_km[links.a[shown]], r_km[links.b[shown]], 9 if many else 33)
        axes.add_collection(LineCollection(pieces, **style))

    for kind in np.unique(links.kind[link]).tolist():
        ground = kind == LinkKind.GROUND
        width, alpha = (1.0, 0.95) if ground else (0.25, 0.4) if many else (0.9, 0.9)
        draw(
            link[links.kind[link] == kind],
            label=kind_label(LinkKind(kind)),
            colors=KIND_COLOR[LinkKind(kind)],
            linewidths=width,
            alpha=alpha,
            zorder=3 if ground else 2,
            rasterized=many and not ground,  # thousands of lines would make a file of many MB
        )
    if len(standing_out := link[np.isin(link, list(used))]):
        draw(
            standing_out,
            label=CARRIED,
            colors=BLUE,
            linewidths=4.5,
            alpha=STANDING_OUT_ALPHA,
            zorder=1.5 if not many else 5,
        )


def _lines_deg(a_km: np.ndarray, b_km: np.ndarray, points: int) -> list[np.ndarray]:
    """What lies under the straight lines between L pairs of points in ITRS, as (longitude, latitude) in degrees."""
    share = np.linspace(0, 1, points)[:, np.newaxis]
    latitude_rad, longitude_rad, _ = geodetic(a_km[:, np.newaxis] * (1 - share) + b_km[:, np.newaxis] * share)
    lines = np.degrees(np.stack([longitude_rad, latitude_rad], axis=-1))
    return [piece for line in lines for piece in _split_at_date_line(line)]


def draw_satellites(axes: Axes, plan: PlannedNetwork, lat_deg: np.ndarray, lon_deg: np.ndarray) -> None:
    """Dots, one colour for each shell."""
    small, first = len(lat_deg) <= FEW_SATELLITES, 0
    for index, (shell, count) in enumerate(shell_sizes(plan, len(lat_deg))):
        here = slice(first, first + count)
        size = 16 if small else max(1.2, 1500 / len(lat_deg))
        color = SHELL_COLOR[index % len(SHELL_COLOR)]
        axes.scatter(
            lon_deg[here],
            lat_deg[here],
            s=size,
            color=color,
            zorder=4,
            linewidths=0,
            label=f"{shell} ({count})",
            rasterized=not small,
        )
        first += count


def shell_sizes(plan: PlannedNetwork, satellites: int) -> list[tuple[str, int]]:
    """Each shell's name and how many satellites it has; they follow each other in the plan."""
    shells = plan.scenario.shell
    if len(shells) == 1:
        return [(shells[0].name, satellites)]
    counts = [sum(name.startswith(f"{shell.name}-") for name in plan.nodes[:satellites]) for shell in shells]
    return list(zip([shell.name for shell in shells], counts))


def _draw_names(
    axes: Axes, plan: PlannedNetwork, satellites: int, lat_deg: np.ndarray, lon_deg: np.ndarray, shown: Box
) -> None:
    """Names of stations, then of satellites, where there are few: each where it hides no node and no other name."""
    scale = (shown[2] - shown[0]) / (WORLD[2] - WORLD[0])
    node_deg, name_deg = NODE_DEG * scale, NAME_DEG * scale
    stations = range(satellites, len(lat_deg)) if len(lat_deg) - satellites <= NAMES_UP_TO else range(0)
    names = [*stations, *(range(satellites) if satellites <= NAMES_UP_TO else ())]
    known = np.isfinite(lat_deg) & np.isfinite(lon_deg)
    boxes = [_box(lon, lat, node_deg, node_deg) for lon, lat in zip(lon_deg[known], lat_deg[known])]
    for node in (node for node in names if known[node]):
        lon, lat, name = float(lon_deg[node]), float(lat_deg[node]), plan.nodes[node]
        width = CHARACTER_DEG * scale * len(name)
        away = node_deg, node_deg + name_deg / 2
        places = [(lon + side * (away[0] + width / 2), lat + up * away[1]) for up in (1, -1, 0) for side in (1, -1)]
        places += [(lon, lat + up * away[1]) for up in (1, -1)]
        places += [(x, y + up * name_deg) for up in (1, -1) for x, y in places if (y - lat) * up > 0]  # a line farther
        found = [_box(x, y, width / 2, name_deg / 2) for x, y in places]
        inside = [_overlap(box, shown) for box in found]
        hidden = [
            sum(_overlap(box, other) for other in boxes) + OUTSIDE * ((box[2] - box[0]) * (box[3] - box[1]) - on_map)
            for box, on_map in zip(found, inside)
        ]
        best = hidden.index(min(hidden))
        boxes.append(found[best])
        bold = (
            {"fontsize": 6.5, "fontweight": "bold", "zorder": 8} if node >= satellites else {"fontsize": 6, "zorder": 7}
        )
        axes.text(*places[best], name, ha="center", va="center", color="black", path_effects=HALO, **bold)


def _box(x: float, y: float, half_width: float, half_height: float) -> Box:
    return x - half_width, y - half_height, x + half_width, y + half_height


def _overlap(one: Box, other: Box) -> float:
    """The area that two boxes share, square degrees."""
    width, height = (min(one[2 + axis], other[2 + axis]) - max(one[axis], other[axis]) for axis in (0, 1))
    return max(width, 0.0) * max(height, 0.0)
