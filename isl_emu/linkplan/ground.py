"""The ground links of a plan: what a station sees, which satellites it takes, and when and how fast they carry data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isl_emu.geometry.sightline import one_way_delay_ns
from isl_emu.linkplan.handover import (
    GroundPolicy,
    carrying,
    every_visible,
    highest_elevation,
    least_change,
    longest_contact,
    station_policy,
    steps,
)
from isl_emu.linkplan.rows import Rows
from isl_emu.linkplan.sightings import View, joined_views, station_view, with_set_times
from isl_emu.linkplan.weather import clear_sky, rain_rate_ratios, scintillation_loss_ratio, weather_place
from isl_emu.scenario.model import GroundStation
from isl_emu.timebase import TimeGrid
from isl_emu.units import NS_PER_S

__all__ = [
    "GroundPolicy",
    "GroundSegment",
    "View",
    "every_visible",
    "highest_elevation",
    "least_change",
    "longest_contact",
    "station_view",
]

HORIZON_NS = 1800 * NS_PER_S  # how far beyond the end of a run passes are followed; a pass at 2,000 km lasts 22 min
HORIZON_STEP_NS = 10 * NS_PER_S


@dataclass(frozen=True)
class GroundSegment:
    """All stations of a run and their handover: first what they see, chunk by chunk, then their links."""

    stations: tuple[GroundStation, ...]
    first_node: int  # of the first station; satellites come before
    grid: TimeGrid
    policy: GroundPolicy | None  # instead of the stations' own
    seed: int

    @property
    def horizon_ns(self) -> np.ndarray:
        """The instants, from the run's last one on, at which passes are followed, in ns; none if nobody asks."""
        if self.policy is not None or not any(map(looks_ahead, self.stations)):
            return np.empty(0, dtype=np.int64)
        return self.grid.offsets_ns[-1] + np.arange(0, HORIZON_NS + 1, HORIZON_STEP_NS, dtype=np.int64)

    def views(self, r_teme_km: np.ndarray, t_ns: np.ndarray, first_k: int) -> tuple[View, ...]:
        """What each station may choose from at K instants, the first being `first_k`; see `station_view`.

        A choice that depends on no other instant is made at once, so that what is not chosen need not be kept.
        """
        return tuple(self._view(station, r_teme_km, t_ns, first_k) for station in self.stations)

    def rows(self, chunks: Sequence[Sequence[View]], horizon_km: np.ndarray | None) -> list[Rows]:
        """The ground links of each station.

        Args:
            chunks: what `views` gave for each chunk of instants.
            horizon_km: positions of the satellites at `horizon_ns`, shape (H, N, 3); None if there are none.
        """
        rows = []
        for index, station in enumerate(self.stations):
            view = joined_views([views[index] for views in chunks])
            if self.policy is None and horizon_km is not None and looks_ahead(station):
                beyond = station_view(station, horizon_km, self.grid.start, self.horizon_ns)
                horizon_k = self.horizon_ns / self.grid.step_ns
                view = with_set_times(view, self.grid.count, beyond, horizon_k)
            rows.append(self._rows_of(self.first_node + index, station, self._carrying(station, view)))
        return rows

    def _view(self, station: GroundStation, r_teme_km: np.ndarray, t_ns: np.ndarray, first_k: int) -> View:
        view = station_view(station, r_teme_km, self.grid.start, t_ns, first_k)
        if self.policy is not None or looks_ahead(station):
            return view
        return view.only(highest_elevation(view, station.antennas))

    def _carrying(self, station: GroundStation, view: View) -> View:
        """The sightings that are links which carry data: chosen, pointed at, not behind a cloud, and acquired."""
        step_ns, antennas = self.grid.step_ns, station.antennas
        choose = self.policy or station_policy(station, step_ns)
        view = view.only(choose(view, antennas))
        view = view.only(carrying(view, antennas, steps(station.handover_gap_ns, step_ns), 0))
        if station.weather and station.weather.clouds:
            clear = clear_sky(self.seed, station.weather.clouds, weather_place(station), self.grid.offsets_ns)
            view = view.only(clear[view.k])
        return view.only(carrying(view, antennas, 0, steps(station.acquisition_ns, step_ns)))

    def _rows_of(self, node: int, station: GroundStation, view: View) -> Rows:
        """The first end of a ground link is the satellite, so its rate a to b is the downlink."""
        down_ratio, up_ratio = rain_rate_ratios(self.seed, station, view, self.grid.offsets_ns)
        left = (down_ratio > 0) & (up_ratio > 0)
        view = view.only(left)
        scintillation = station.weather.scintillation if station.weather else None
        return Rows(
            k=view.k,
            a=view.satellite,
            b=np.full(len(view.k), node, dtype=np.int64),
            delay_ns=one_way_delay_ns(view.range_km),
            rate_ab_bit_s=np.rint(station.downlink_bit_s * down_ratio[left]).astype(np.int64),
            rate_ba_bit_s=np.rint(station.uplink_bit_s * up_ratio[left]).astype(np.int64),
            loss_ratio=scintillation_loss_ratio(self.seed, scintillation, station.name, view, self.grid.step_ns),
        )


def looks_ahead(station: GroundStation) -> bool:
    """Whether the station's choice at an instant depends on others, and on when satellites set."""
    return station.handover != "highest-elevation" or station.make_before_break_ns > 0
