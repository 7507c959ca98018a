"""The sky as a film, for talks: the map at one instant after the other."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.animation import AbstractMovieWriter, FFMpegWriter, PillowWriter
from matplotlib.lines import Line2D

from isl_emu.errors import MachineError, ScenarioError
from isl_emu.geometry.places import places_itrs_km
from isl_emu.linkplan.plan import LinkKind, NodeKind
from isl_emu.planned import PlannedNetwork
from isl_emu.show.ground_map import degrees, draw_links, draw_satellites, empty_map, kind_label
from isl_emu.show.style import KIND_COLOR, VERMILION, paper, title
from isl_emu.units import NS_PER_S

FRAMES_S = 12
LONGEST_S = 10.0
DPI = 150  # a film 1,065 pixels wide


def animate(plan: PlannedNetwork, path: Path, told: Callable[[float, str], object]) -> Path:
    """Write a film of all of the plan's time, ten seconds long at most: GIF, or MP4 where there is ffmpeg.

    Args:
        told: is told how much of it is drawn, 0 to 1, and in words.

    Raises:
        ScenarioError: another suffix, or a file that cannot be written.
        MachineError: MP4 without ffmpeg.
    """
    writer = _writer(path)
    link_plan, grid = plan.link_plan, plan.link_plan.grid
    instants = np.unique(np.linspace(0, grid.count - 1, min(grid.count, round(FRAMES_S * LONGEST_S))).astype(np.int64))
    satellites = int((link_plan.nodes.kind == NodeKind.SATELLITE).sum())
    places_km = places_itrs_km(plan.scenario, grid.start, instants * grid.step_ns)
    with paper():
        figure, axes, _ = empty_map(plan)
        kinds = [LinkKind(kind) for kind in np.unique(link_plan.links.kind).tolist()]
        marks = [Line2D([], [], color=KIND_COLOR[kind], label=kind_label(kind)) for kind in kinds]
        figure.legend(handles=marks, loc="outside lower center", ncols=4)
        land = len(axes.collections)
        try:
            with writer.saving(figure, path, DPI):
                for number, (k, r_km) in enumerate(zip(instants.tolist(), places_km, strict=True), start=1):
                    for drawn in axes.collections[land:]:
                        drawn.remove()
                    lat_deg, lon_deg = degrees(r_km)
                    draw_links(axes, plan, k, r_km)
                    draw_satellites(axes, plan, lat_deg[:satellites], lon_deg[:satellites])
                    ground = lon_deg[satellites:], lat_deg[satellites:]
                    axes.scatter(*ground, marker="^", s=32, color=VERMILION, edgecolors="white", zorder=6)
                    t_ns = k * grid.step_ns
                    title(axes, plan.scenario.name, f"{grid.utc(t_ns):%Y-%m-%d %H:%M:%S} UTC, {t_ns / NS_PER_S:,.0f} s")
                    writer.grab_frame()
                    told(number / len(instants), f"frame {number} of {len(instants)}")
        except OSError as error:
            raise ScenarioError(
                f"{path}: cannot be written ({error.strerror}), but the film goes there; name another file"
            ) from None
    return path


def _writer(path: Path) -> AbstractMovieWriter:
    if path.suffix == ".gif":
        return PillowWriter(fps=FRAMES_S)
    if path.suffix != ".mp4":
        raise ScenarioError(f"--film: is {path.name}, but a film is .gif or .mp4; name it so")
    if shutil.which("ffmpeg") is None:
        raise MachineError(
            f"--film: {path.name} needs ffmpeg, but this machine has none; apt-get install ffmpeg, or name a .gif"
        )
    even = ["-pix_fmt", "yuv420p", "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2"]  # as players want it
    return FFMpegWriter(fps=FRAMES_S, codec="h264", extra_args=even)
