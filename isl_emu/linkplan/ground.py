"""The ground links of a plan: what a station sees, which satellites it takes, and when and how fast they carry data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from isl_emu.arrays import Ints
from isl_emu.geometry.sightline import one_way_delay_ns
from isl_emu.linkplan.candidates import pair_keys
from isl_emu.linkplan.draws import uniform
from isl_emu.linkplan.events import LinkState
from isl_emu.linkplan.fault_events import KnownDead
from isl_emu.linkplan.handover import GroundPolicy, carrying, looks_ahead, station_policy, steps
from isl_emu.linkplan.plan import Rows, either_loss_ratio
from isl_emu.linkplan.scheduler import Assignments, slots_of, unix_ns
from isl_emu.linkplan.sightings import (
    GatheredViews,
    View,
    find_passes,
    station_view,
    with_gso_separation,
    with_set_times,
)
from isl_emu.linkplan.weather import clear_sky, rain_rate_ratios, scintillation_loss_ratio, weather_place
from isl_emu.scenario.model import GroundStation
from isl_emu.timebase import TimeGrid
from isl_emu.units import NS_PER_S

HORIZON_NS = 1800 * NS_PER_S  # how far beyond the end of a run passes are followed; a pass at 2,000 km lasts 22 min
HORIZON_STEP_NS = 10 * NS_PER_S


@dataclass(frozen=True)
class GroundLinks:
    """The links of one station over a run: when they carry data, and the E changes of their state; shape (E,) each."""

    rows: Rows
    k: np.ndarray  # int64, instant
    pair: np.ndarray  # int64, from `pair_keys`
    state: np.ndarray  # uint8, LinkState


@dataclass(frozen=True)
class GroundSegment:
    """All stations of a run and their handover: first what they see, chunk by chunk, then their links."""

    stations: tuple[GroundStation, ...]
    first_node: int  # of the first station; satellites come before
    grid: TimeGrid
    policy: GroundPolicy | None  # instead of the stations' own
    seed: int
    launch_year: np.ndarray  # of each satellite, nan where it is not known, float64 (N,)
    dead: KnownDead | None = None  # satellites that stations know to be dead

    @property
    def horizon_ns(self) -> np.ndarray:
        """The instants, from the run's last one on, at which passes are followed, in ns; none if nobody asks."""
        if self.policy is not None or not any(map(looks_ahead, self.stations)):
            return np.empty(0, dtype=np.int64)
        far_ns = max(
            station.scheduler.interval_ns if station.scheduler else HORIZON_NS
            for station in self.stations
            if looks_ahead(station)
        )
        ahead_ns = np.arange(0, far_ns + HORIZON_STEP_NS, HORIZON_STEP_NS, dtype=np.int64)
        horizon_ns: Ints = self.grid.offsets_ns[-1] + ahead_ns
        return horizon_ns

    def views(self, r_teme_km: np.ndarray, t_ns: np.ndarray, first_k: int) -> tuple[View, ...]:
        """What each station may choose from at K instants, the first being `first_k`; see `station_view`.

        A choice that depends on no other instant is made at once, so that what is not chosen need not be kept.
        """
        views = []
        for station in self.stations:
            view = self._seen(station, r_teme_km, t_ns, first_k)
            if self.dead is not None:
                view = replace(view, avoided=self.dead.at(view.satellite, view.k))
            if self.policy is None and not looks_ahead(station):
                view = view.only(station_policy(station, self.grid.step_ns)(view, station.antennas))
            views.append(view)
        return tuple(views)

    def links(self, gathered: Sequence[GatheredViews], horizon_km: np.ndarray | None) -> Iterator[GroundLinks]:
        """The ground links of each station, one station after another: who follows others comes last.

        Args:
            gathered: of each station what `views` gave for all instants; it is taken from there.
            horizon_km: positions of the satellites at `horizon_ns`, shape (H, N, 3); None if there are none.
        """
        assignments, followed = Assignments(self.grid, self.seed, self.launch_year), dict[str, View]()
        followers = {station.name for station in self.stations if station.handover == "follow"}
        by_turn = sorted(enumerate(self.stations), key=lambda one: one[1].handover == "follow")
        for index, station in by_turn:
            view = gathered[index].taken()
            if self.policy is None and horizon_km is not None and looks_ahead(station):
                beyond = self._seen(station, horizon_km, self.horizon_ns)
                horizon_k = self.horizon_ns / self.grid.step_ns
                view = with_set_times(view, self.grid.count, beyond, horizon_k)
            if self.policy is None and station.scheduler:
                view = view.only(assignments.choose(station, view))
            else:
                if self.policy is None and station.handover == "follow":
                    view = view.only(self._followed(station, view, followed))
                choose = self.policy or station_policy(station, self.grid.step_ns)
                view = view.only(choose(view, station.antennas))
            if station.scheduler and followers.intersection(station.scheduler.through):
                followed[station.name] = view
            yield self._links_of(self.first_node + index, station, view)

    def _seen(self, station: GroundStation, r_teme_km: np.ndarray, t_ns: np.ndarray, first_k: int = 0) -> View:
        """What a station may choose from at K instants; of a scheduled one with what its scheduler asks for."""
        now = r_teme_km, self.grid.start, t_ns
        view, terms = station_view(station, *now), station.scheduler
        if terms and self.policy is None:
            begins = np.isin(t_ns, [slot.begin_k * self.grid.step_ns for slot in slots_of(terms, self.grid)])
            view = with_gso_separation(view, station, *now, begins)
            gateways = [gateway for gateway in self.stations if gateway.name in terms.through]
            if gateways:
                seen = np.zeros(r_teme_km.shape[:2], dtype=bool)
                for gateway in gateways:
                    by_gateway = station_view(gateway, *now)
                    seen[by_gateway.k, by_gateway.satellite] = True
                view = view.only(seen[view.k, view.satellite])
        return replace(view, k=view.k + first_k)

    def _followed(self, gateway: GroundStation, view: View, chosen: Mapping[str, View]) -> np.ndarray:
        """Which sightings a gateway follows: of satellites that terminals scheduled through it have; bool (V,)."""
        served = np.zeros((self.grid.count, 1 + int(view.satellite.max(initial=0))), dtype=bool)
        for terminal in self.stations:
            if terminal.scheduler and gateway.name in terminal.scheduler.through:
                links = chosen[terminal.name]
                links = links.only(links.satellite < served.shape[1])
                served[links.k, links.satellite] = True
        followed: np.ndarray = served[view.k, view.satellite]
        return followed

    def _links_of(self, node: int, station: GroundStation, view: View) -> GroundLinks:
        """The links that the chosen sightings make."""
        state = self._states(station, view)
        ratios = rain_rate_ratios(self.seed, station, view, self.grid.offsets_ns)
        state[(state == LinkState.TRACKING) & (np.minimum(*ratios) == 0)] = LinkState.LOST
        up = state == LinkState.TRACKING
        rows = self._rows_of(node, station, view.only(up), *(ratio[up] for ratio in ratios))
        k, satellite, changed = _changes(view, state, self.grid.count)
        return GroundLinks(rows, k, pair_keys(satellite, np.int64(node)), changed)

    def _states(self, station: GroundStation, view: View) -> np.ndarray:
        """What the chosen sightings are without rain: pointed at, clear of clouds, acquired; LinkState, uint8 (V,)."""
        step_ns, antennas = self.grid.step_ns, station.antennas
        state = np.full(len(view.k), LinkState.SLEWING, dtype=np.uint8)
        pointed = carrying(view, antennas, steps(station.handover_gap_ns, step_ns), 0)
        clouds = station.weather.clouds if station.weather else None
        clear = clear_sky(self.seed, clouds, weather_place(station), self.grid.offsets_ns)[view.k]
        state[pointed] = np.where(clear[pointed], LinkState.ACQUIRING, LinkState.LOST)
        seen = pointed & clear
        acquired = carrying(view.only(seen), antennas, 0, steps(station.acquisition_ns, step_ns))
        state[np.flatnonzero(seen)[acquired]] = LinkState.TRACKING
        return state

    def _rows_of(
        self, node: int, station: GroundStation, view: View, down_ratio: np.ndarray, up_ratio: np.ndarray
    ) -> Rows:
        """The first end of a ground link is the satellite, so its rate a to b is the downlink."""
        scintillation = station.weather.scintillation if station.weather else None
        lost = scintillation_loss_ratio(self.seed, scintillation, station.name, view, self.grid.step_ns)
        return Rows(
            k=view.k,
            a=view.satellite,
            b=np.full(len(view.k), node, dtype=np.int64),
            delay_ns=one_way_delay_ns(view.range_km) + self._access_delay_ns(station)[view.k],
            rate_ab_bit_s=np.rint(station.downlink_bit_s * down_ratio).astype(np.int64),
            rate_ba_bit_s=np.rint(station.uplink_bit_s * up_ratio).astype(np.int64),
            loss_ratio=either_loss_ratio(lost, station.loss_ratio),
        )

    def _access_delay_ns(self, station: GroundStation) -> Ints:
        """What a station's equipment adds to the delay of its links at each instant; int64, shape (K,)."""
        varies, terms = station.access_variation, station.scheduler
        t_ns = unix_ns(self.grid.start) + self.grid.offsets_ns - (terms.phase_ns if terms else 0)
        delay_ns = np.full(len(t_ns), station.access_delay_ns or 0, dtype=np.int64)
        if varies:
            u = uniform(self.seed, f"access delay {station.name}", t_ns // varies.interval_ns)
            probability = np.linspace(0.0, 1.0, len(varies.quantiles_ns))
            delay_ns += np.rint(np.interp(u, probability, varies.quantiles_ns)).astype(np.int64)
        return delay_ns


def _changes(view: View, state: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Changes of state along each pass of the chosen sightings, and idle after it: instant, satellite, LinkState."""
    passes = find_passes(view)
    k, satellite, state = view.k[passes.order], view.satellite[passes.order], state[passes.order]
    new = np.ones(len(k), dtype=bool)
    new[1:] = state[1:] != state[:-1]
    new[passes.first[:-1]] = True
    ends = passes.end_k < count
    after = np.full(ends.sum(), LinkState.IDLE, dtype=np.uint8)
    return (
        np.concatenate([k[new], passes.end_k[ends]]),
        np.concatenate([satellite[new], satellite[passes.first[:-1]][ends]]),
        np.concatenate([state[new], after]),
    )
