"""The map: where satellites are and pass, the stations, and the links at one instant; equal-distance cylindrical."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from isl_emu.geometry.places import geodetic, places_itrs_km
from isl_emu.linkplan.plan import LinkKind, NodeKind
from isl_emu.show.land import land_outlines_deg
from isl_emu.show.style import CYCLE, KIND_COLOR, LAND, QUIET, SEA, VERMILION, new_figure, title
from isl_emu.units import NS_PER_S

if TYPE_CHECKING:
    from isl_emu.api import Plan

TRACKS_UP_TO = 72  # satellites: more tracks than that cover the map
NAMES_UP_TO = 40
TRACK_POINTS = 240
NAME_DEG = 24  # how far a station's name reaches to its right
HALO = [withStroke(linewidth=2.2, foreground="white")]  # keeps names readable over lines
LINK_LABEL = {LinkKind.INTRA_PLANE: "intra-plane laser", LinkKind.INTER_PLANE: "inter-plane laser"}


def draw_map(plan: Plan, k: int = 0) -> Figure:
    """Satellites, stations and links at instant `k`; with few satellites also the ground tracks of the whole plan."""
    link_plan, grid = plan.link_plan, plan.link_plan.grid
    satellites = int((link_plan.nodes.kind == NodeKind.SATELLITE).sum())
    lat_deg, lon_deg = _degrees(plan, np.array([k * grid.step_ns]))
    figure = new_figure(12, 6.6)
    axes = figure.subplots()
    _draw_earth(axes)
    if satellites <= TRACKS_UP_TO:
        _draw_tracks(axes, plan, satellites)
    _draw_links(axes, plan, k, lat_deg[0], lon_deg[0])
    _draw_satellites(axes, plan, lat_deg[0, :satellites], lon_deg[0, :satellites])
    _draw_stations(axes, plan, lat_deg[0, satellites:], lon_deg[0, satellites:])
    when = f"{grid.utc(k * grid.step_ns):%Y-%m-%d %H:%M:%S} UTC"
    tracks = f", and ground tracks over {grid.duration_ns / NS_PER_S:g} s" if satellites <= TRACKS_UP_TO else ""
    title(axes, f"{plan.scenario.name}: satellites and links at {when}{tracks}")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=5, frameon=False, fontsize=8)
    return figure


def _degrees(plan: Plan, offsets_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Geodetic latitude and longitude of all nodes, degrees, shapes (K, N)."""
    latitude_rad, longitude_rad, _ = geodetic(places_itrs_km(plan.scenario, plan.link_plan.grid.start, offsets_ns))
    return np.degrees(latitude_rad), np.degrees(longitude_rad)


def _draw_earth(axes: Axes) -> None:
    axes.set_facecolor(SEA)
    axes.add_collection(PolyCollection(land_outlines_deg(), facecolor=LAND, edgecolor="#c9c3b4", linewidth=0.5))
    axes.set(xlim=(-180, 180), ylim=(-90, 90), xlabel="longitude (deg)", ylabel="latitude (deg)")
    axes.set_xticks(range(-180, 181, 30))
    axes.set_yticks(range(-90, 91, 30))
    axes.grid(True, color="#d5dde2", linewidth=0.5)
    axes.set_aspect("equal")


def _draw_tracks(axes: Axes, plan: Plan, satellites: int) -> None:
    offsets_ns = np.linspace(0, plan.link_plan.grid.duration_ns, TRACK_POINTS).astype(np.int64)
    lat_deg, lon_deg = _degrees(plan, offsets_ns)
    pieces = [np.column_stack([lon_deg[:, n], lat_deg[:, n]]) for n in range(satellites)]
    pieces = [part for piece in pieces for part in _split_at_date_line(piece)]
    axes.add_collection(LineCollection(pieces, colors=QUIET, linewidths=0.7, alpha=0.7, label="ground track"))


def _split_at_date_line(points: np.ndarray) -> list[np.ndarray]:
    """A line of (longitude, latitude) in pieces that do not cross 180 degrees."""
    cuts = np.flatnonzero(np.abs(np.diff(points[:, 0])) > 180) + 1
    return [piece for piece in np.split(points, cuts) if len(piece) > 1]


def _draw_links(axes: Axes, plan: Plan, k: int, lat_deg: np.ndarray, lon_deg: np.ndarray) -> None:
    links, link = plan.link_plan.links, plan.link_plan.snapshot(k).link
    many = len(link) > 400
    for kind in np.unique(links.kind[link]).tolist():
        of_kind = link[links.kind[link] == kind]
        pieces = [
            piece
            for a, b in zip(links.a[of_kind].tolist(), links.b[of_kind].tolist())
            for piece in _straight(lon_deg[a], lat_deg[a], lon_deg[b], lat_deg[b])
        ]
        ground = kind == LinkKind.GROUND
        width, alpha = (1.4, 0.95) if ground else (0.35, 0.4) if many else (1.1, 0.8)
        label = "ground link" if ground else LINK_LABEL.get(kind, LinkKind(kind).name.lower().replace("_", "-"))
        color = KIND_COLOR.get(kind, CYCLE[kind % len(CYCLE)])
        axes.add_collection(
            LineCollection(pieces, colors=color, linewidths=width, alpha=alpha, label=label, zorder=3 if ground else 2)
        )


def _straight(lon_a: float, lat_a: float, lon_b: float, lat_b: float) -> list[list[tuple[float, float]]]:
    """The shorter way between two points as one line, or as two where it crosses 180 degrees."""
    if abs(lon_b - lon_a) <= 180:
        return [[(lon_a, lat_a), (lon_b, lat_b)]]
    turn = 360 if lon_b < lon_a else -360
    return [[(lon_a, lat_a), (lon_b + turn, lat_b)], [(lon_a - turn, lat_a), (lon_b, lat_b)]]


def _draw_satellites(axes: Axes, plan: Plan, lat_deg: np.ndarray, lon_deg: np.ndarray) -> None:
    """Dots, one colour for each shell."""
    small, first = len(lat_deg) <= TRACKS_UP_TO, 0
    for index, (shell, count) in enumerate(shell_sizes(plan, len(lat_deg))):
        here = slice(first, first + count)
        size = 26 if small else max(3.0, 4000 / len(lat_deg))
        color = CYCLE[index % len(CYCLE)]
        axes.scatter(
            lon_deg[here], lat_deg[here], s=size, color=color, zorder=4, linewidths=0, label=f"{shell} ({count})"
        )
        first += count
    if len(lat_deg) <= NAMES_UP_TO:
        for name, lat, lon in zip(plan.nodes, lat_deg, lon_deg):
            axes.annotate(
                name, (lon, lat), (4, 4), textcoords="offset points", fontsize=7, color="#333333", path_effects=HALO
            )


def shell_sizes(plan: Plan, satellites: int) -> list[tuple[str, int]]:
    """Each shell's name and how many satellites it has; they follow each other in the plan."""
    shells = plan.scenario.shell
    if len(shells) == 1:
        return [(shells[0].name, satellites)]
    counts = [sum(name.startswith(f"{shell.name}-") for name in plan.nodes[:satellites]) for shell in shells]
    return list(zip([shell.name for shell in shells], counts))


def _draw_stations(axes: Axes, plan: Plan, lat_deg: np.ndarray, lon_deg: np.ndarray) -> None:
    if not len(lat_deg):
        return
    style = {"marker": "^", "s": 55, "color": VERMILION, "edgecolors": "white", "linewidths": 0.8, "zorder": 6}
    axes.scatter(lon_deg, lat_deg, label=f"stations ({len(lat_deg)})", **style)
    if len(lat_deg) <= NAMES_UP_TO:
        for name, lat, lon in zip(plan.nodes[-len(lat_deg) :], lat_deg, lon_deg):
            text = {
                "textcoords": "offset points",
                "fontsize": 7.5,
                "fontweight": "bold",
                "zorder": 7,
                "path_effects": HALO,
            }
            left = ((lon_deg > lon) & (lon_deg < lon + NAME_DEG) & (np.abs(lat_deg - lat) < 4)).any()
            axes.annotate(name, (lon, lat), (-6 if left else 6, -9), ha="right" if left else "left", **text)
