"""What was measured on real satellites and terminals, beside what our plans and models say of the same thing.

A file of cases names the measurements, and the scenarios that stand for them (docs/measured.md has its keys); ours come
with isl-emu in `isl_emu/data/measured`. Of data without a licence only derived figures are there: with a copy of the
data the same figures are worked out anew.

What was fitted to a measurement agrees with it by construction and is called calibrated; the rest is predicted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from isl_emu.arrays import Floats
from isl_emu.energy.satellite import STEFAN_BOLTZMANN_W_M2_K4, Batteries, Radiators
from isl_emu.errors import ScenarioError
from isl_emu.files import read_whole, why_unread
from isl_emu.geometry.elements import constellation_elements
from isl_emu.geometry.frames import sidereal_angle_rad
from isl_emu.geometry.orbits import propagate
from isl_emu.geometry.places import teme_to_itrs, terminal_itrs
from isl_emu.geometry.sightline import elevation_rad
from isl_emu.linkplan.build import plan_links
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.linkplan.scheduler import slots_of, unix_ns
from isl_emu.routing.paths import delays_ns, paths_to
from isl_emu.scenario.ground import Scheduler
from isl_emu.scenario.model import GroundStation, Scenario
from isl_emu.scenario.parse import load_scenario, record_of, tables_of
from isl_emu.scenario.power import Battery
from isl_emu.scenario.quantities import (
    ZERO_CELSIUS_K,
    Area,
    Delay,
    Duration,
    Elevation,
    Energy,
    HeatCapacity,
    MostPower,
    NodeName,
    Record,
    Temperature,
)
from isl_emu.units import NS_PER_MS, NS_PER_S
from isl_emu.validate.check import Check, Rule
from isl_emu.validate.measured_data import read_columns, unix_seconds

Basis = Literal["calibrated", "predicted"]
WINDOWS = 5  # in a slot: floors are taken in each
TOO_FEW = "too few windows follow each other in it to tell"
LEAST_RATIO = 2.0  # a jump at the boundary of slots stands out if it is that many times what there is inside
CHANGES_WITHIN, ELEVATION_WITHIN_DEG = 0.15, 5.0
HEAT_RMS_K, HEAT_MEAN_K = 3.0, 3.0
EMISSIVITY = 0.8  # of painted or anodised metal; scales the fitted area alone
EFFICIENCY_WITHIN = 0.05
FIT_EVERY = 6  # samples of temperature, 10 s apart
J_PER_WH = 3600.0


class RoundTrips(Record):
    """Round trips between two nodes: `data` has the columns unix_s and rtt_ms, empty where a packet was lost.

    Where the data are not there, the least round trip that follows from them. `least`: whether the scenario's access
    delay was fitted to these data, or to others. `judged`: whether ours is to be within `within` of it.
    """

    name: str
    source: str
    licence: str
    data: str | None = None
    least_rtt_ns: Duration | None = Field(alias="least_rtt", default=None)
    scenario: str
    between: tuple[NodeName, NodeName] = Field(examples=[["lagos", "pop-lagos"]])
    least: Basis
    within_ns: Delay = Field(alias="within", default=3 * NS_PER_MS)
    judged: bool = True


class Serving(Record):
    """Which satellite served a terminal in each slot: `data` has the columns slot_start_unix, satellite, elevation_deg.

    Where the data are not there, what follows from them: `changes`, the share of slots whose satellite is another than
    in the slot before, and quartiles of the elevation. `statistics`: whether the scheduler's weights were fitted to it.
    """

    name: str
    source: str
    licence: str
    data: str | None = None
    scenario: str
    station: NodeName
    statistics: Basis
    changes: float | None = Field(ge=0.0, le=1.0, default=None)
    elevation_quartiles_rad: tuple[Elevation, Elevation, Elevation] | None = Field(
        alias="elevation_quartiles", examples=[["51 deg", "57 deg", "63 deg"]], default=None
    )


class Load(Record):
    """A board that computes in orbit: `data` has the columns of time, temperature and current of its file's table.

    Where the data are not there, what follows from them: mean power and temperature over the time from `settled` on.
    """

    name: str
    data: str | None = None
    power_w: MostPower | None = Field(alias="power", default=None)
    temperature_k: Temperature | None = Field(alias="temperature", default=None)


class Heat(Record):
    """Boards' temperatures under several loads, and the one node of heat that was fitted to them.

    All electric power becomes heat. `area` and `heat_capacity` are what was fitted; with the data they are fitted anew.
    `between`: the time, after the beginning, over which the means are taken.
    """

    name: str
    source: str
    licence: str
    time_column: str
    temperature_column: str
    current_column: str
    voltage_v: float = Field(gt=0.0, le=1_000.0)
    area_m2: Area = Field(alias="area")
    heat_capacity_j_k: HeatCapacity = Field(alias="heat_capacity")
    between_ns: tuple[Delay, Duration] = Field(alias="between", examples=[["85 min", "180 min"]])
    load: tuple[Load, ...] = Field(min_length=3)


class Bench(Record):
    """A battery on a bench: `data` has the columns kind (charge or discharge) and energy_wh; or what follows."""

    name: str
    source: str
    licence: str
    data: str | None = None
    charged_j: Energy | None = Field(alias="charged", default=None)
    discharged_j: Energy | None = Field(alias="discharged", default=None)


class Cases(Record):
    """All comparisons of a file."""

    rtt: tuple[RoundTrips, ...] = ()
    serving: tuple[Serving, ...] = ()
    heat: tuple[Heat, ...] = ()
    battery: tuple[Bench, ...] = ()

    @model_validator(mode="after")
    def _some(self) -> Cases:
        if not (self.rtt or self.serving or self.heat or self.battery):
            raise ValueError("has no case, but at least one of rtt, serving, heat and battery is compared; give one")
        return self


def shipped_cases() -> Path:
    """The file of cases that comes with isl-emu."""
    return Path(str(files("isl_emu.data") / "measured" / "cases.toml"))


def checks(path: Path | None = None, data: Path | None = None) -> Iterator[Check]:
    """Every comparison of a file of cases, computed as it is asked for.

    Args:
        path: the file; None for that of isl-emu.
        data: a folder in which data are looked for that do not lie beside the file.

    Raises:
        ScenarioError: a file is not there or is damaged, or a scenario cannot be planned.
    """
    path = path or shipped_cases()
    try:
        text = read_whole(path).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise ScenarioError(
            f"{path}: cannot be read ({why_unread(error)}), but holds the cases to compare; name another file"
        ) from None
    cases = record_of(Cases, tables_of(text, str(path)), str(path))
    where = _Files(path, data)
    for trips in cases.rtt:
        yield from _round_trips(trips, where)
    for serving in cases.serving:
        yield from _serving(serving, where)
    for heat in cases.heat:
        yield from _heat(heat, where)
    for bench in cases.battery:
        yield from _battery(bench, where)


@dataclass(frozen=True)
class _Files:
    """Where the files of cases are: beside the file that names them, or in another folder."""

    cases: Path
    data_folder: Path | None

    def data(self, name: str | None) -> Path | None:
        """Where a table of data is; None if there is no such file."""
        folders = [folder for folder in (self.cases.parent, self.data_folder) if folder is not None]
        return next((folder / name for folder in folders if name and (folder / name).is_file()), None)

    def needed(self, what: str) -> ScenarioError:
        return ScenarioError(
            f"{self.cases}: {what} has data that are not there, but no figures derived from them either; add them, or "
            "name the folder of the data with --data"
        )

    def plan(self, name: str) -> tuple[Scenario, LinkPlan]:
        scenario = load_scenario(self.cases.parent / name)
        return scenario, plan_links(scenario, "")

    def number(self, name: str, scenario: Scenario, node: str) -> int:
        try:
            return scenario.node_names.index(node)
        except ValueError:
            raise ScenarioError(f"{self.cases}: names {node!r}, but {name} has no such node; correct either") from None


@dataclass(frozen=True)
class SlotPattern:
    """How round trips change from a window to the next, ms: at the boundary of slots, and inside."""

    across_ms: float
    inside_ms: float

    @property
    def ratio(self) -> float:
        """How many times larger the jump at a boundary is; a change of less than a nanosecond counts as that."""
        return self.across_ms / max(self.inside_ms, 1e-6)


def slot_pattern(unix_s: Floats, rtt_ms: Floats, phase_s: float, interval_s: float) -> SlotPattern:
    """How the floor of round trips changes at the boundaries of slots, against inside.

    Each slot is cut into five windows; the floor of a window is its least round trip, and the change from a window to
    the next is taken without its sign, the median of all such changes. Windows with less than half as many samples as
    are usual are left out.

    Args:
        unix_s: when each was sent, shape (S,).
        rtt_ms: nan where it was lost, shape (S,).
        phase_s: where in an interval, counted from 1970, slots begin.
        interval_s: of a slot.
    """
    there = np.isfinite(rtt_ms)
    window = np.floor((unix_s[there] - phase_s) / (interval_s / WINDOWS)).astype(np.int64)
    number, place, count = np.unique(window, return_inverse=True, return_counts=True)
    floor_ms = np.full(len(number), np.inf)
    np.minimum.at(floor_ms, place, rtt_ms[there])
    usual = count >= np.median(count) / 2 if len(count) else np.zeros(0, dtype=bool)
    follows = (np.diff(number) == 1) & usual[1:] & usual[:-1]
    change_ms, boundary = np.abs(np.diff(floor_ms)), number[1:] % WINDOWS == 0
    jumps = (change_ms[follows & boundary], change_ms[follows & ~boundary])
    return SlotPattern(*(float(np.median(part)) if len(part) else float("nan") for part in jumps))


def _round_trips(case: RoundTrips, where: _Files) -> Iterator[Check]:
    path = where.data(case.data)
    measured = _measured_rtt(path) if path else None
    if measured is None and case.least_rtt_ns is None:
        raise where.needed(f"rtt {case.name!r}")
    scenario, plan = where.plan(case.scenario)
    planned = _planned_rtt(scenario, plan, *(where.number(case.scenario, scenario, end) for end in case.between))
    if not len(planned[1]):
        raise ScenarioError(
            f"{where.cases}: rtt {case.name!r} is between {' and '.join(case.between)}, but {case.scenario} has no "
            "path there at any instant; correct the scenario"
        )
    ends = [station for station in scenario.station if station.name in case.between]
    clock = next((station.scheduler for station in ends if station.scheduler), Scheduler())
    if plan.grid.step_ns * WINDOWS > clock.interval_ns:
        raise ScenarioError(
            f"{where.cases}: rtt {case.name!r} has a scenario whose time.step is {plan.grid.step_ns / NS_PER_S:g} s, "
            f"but a slot has {WINDOWS} windows; shorten it to {clock.interval_ns / NS_PER_S / WINDOWS:g} s or less"
        )
    least_ms = float(np.nanmin(measured[1])) if measured else (case.least_rtt_ns or 0) / NS_PER_MS
    check = partial(Check, f"{case.name}: round trips ({case.source})", unit="ms")
    ours_ms = float(planned[1].min())
    near: Rule = "near" if case.judged else "shown"
    yield check("least RTT", least_ms, ours_ms, case.within_ns / NS_PER_MS, rule=near, basis=case.least)
    bare_ms = ours_ms - sum(2 * _least_access_ms(station) for station in ends)
    note = "what is left of the measured one is for equipment: radio frames, grants, processing"
    alone = partial(check, "the same by geometry and lines alone", least_ms, bare_ms, basis="predicted")
    yield alone(rule="at most", note=note) if case.judged else alone(rule="shown")
    phase_s, interval_s = clock.phase_ns / NS_PER_S, clock.interval_ns / NS_PER_S
    name = f"floor's change across a slot's boundary, against inside, from :{phase_s:02.0f}"
    across_ms = {}
    sides = [("in the data", "measured", measured)] if measured else []
    for of, basis, series in (*sides, ("in the plan", "predicted", planned)):
        begins_s = (phase_s + part * interval_s / WINDOWS for part in range(WINDOWS))
        right, *others = (slot_pattern(*series, begin_s, interval_s) for begin_s in begins_s)
        across_ms[basis], most = right.across_ms, max(other.ratio for other in others)
        ratio = partial(check, unit="", basis=basis)
        if not np.isfinite([right.ratio, most]).all():
            yield ratio(f"{name}, {of}", LEAST_RATIO, "unknown", rule="shown", note=TOO_FEW)
            continue
        yield ratio(f"{name}, {of}", LEAST_RATIO, right.ratio, rule="at least")
        yield ratio(f"the same, largest of the other phases, {of}", LEAST_RATIO, most, rule="at most")
    if measured:
        shown = partial(check, rule="shown", basis="predicted")
        if np.isfinite(list(across_ms.values())).all():
            yield shown("median change of the floor across a boundary", across_ms["measured"], across_ms["predicted"])
        floor_ms = _median_floor_ms(*measured, phase_s, interval_s)
        our_floor_ms = _median_floor_ms(*planned, phase_s, interval_s)
        note = "queues and grants are no part of a plan: medians are not fair to compare"
        yield shown("median floor of a slot", floor_ms, our_floor_ms, note=note)


def _measured_rtt(path: Path) -> tuple[Floats, Floats]:
    """When round trips of a table were sent, s, and how long they took, ms; nan where a packet was lost."""
    unix_s, rtt_ms = read_columns(path, ("unix_s", "rtt_ms"))
    if not np.isfinite(rtt_ms).any():
        raise ScenarioError(f"{path}: rtt_ms is empty in all rows, but a round trip is compared; fetch it again")
    if (least_ms := np.nanmin(rtt_ms)) <= 0.0:
        raise ScenarioError(
            f"{path}: rtt_ms is {least_ms:g} in a row, but a round trip takes some time; leave it empty where a packet "
            "was lost"
        )
    return unix_seconds(path, "unix_s", unix_s), rtt_ms


def _median_floor_ms(unix_s: Floats, rtt_ms: Floats, phase_s: float, interval_s: float) -> float:
    there = np.isfinite(rtt_ms)
    slot, place = np.unique(np.floor((unix_s[there] - phase_s) / interval_s), return_inverse=True)
    floor_ms = np.full(len(slot), np.inf)
    np.minimum.at(floor_ms, place, rtt_ms[there])
    return float(np.median(floor_ms))


def _least_access_ms(station: GroundStation) -> float:
    varies = station.access_variation
    return ((station.access_delay_ns or 0) + (varies.quantiles_ns[0] if varies else 0)) / NS_PER_MS


def _planned_rtt(scenario: Scenario, plan: LinkPlan, one: int, other: int) -> tuple[Floats, Floats]:
    """The planned round trips between two nodes where there are any: Unix time in s, and ms."""
    ends = (one, other), (other, one)
    ways = [delays_ns(paths_to(plan, scenario.routing, to), of, to, plan.grid.count) for of, to in ends]
    rtt_ns = ways[0] + ways[1]
    t_s = (unix_ns(plan.grid.start) + plan.grid.offsets_ns) / NS_PER_S
    there = ~np.ma.getmaskarray(rtt_ns)
    return t_s[there], np.ma.getdata(rtt_ns)[there] / NS_PER_MS


def _serving(case: Serving, where: _Files) -> Iterator[Check]:
    if path := where.data(case.data):
        changes, quartiles_deg = _measured_serving(path)
    elif case.changes is None or case.elevation_quartiles_rad is None:
        raise where.needed(f"serving {case.name!r}")
    else:
        changes, quartiles_deg = case.changes, np.degrees(case.elevation_quartiles_rad)
    scenario, plan = where.plan(case.scenario)
    node = where.number(case.scenario, scenario, case.station)
    slot, ours, ours_deg = _served(scenario, plan, node)
    if len(slot) < 2:
        raise ScenarioError(
            f"{where.cases}: serving {case.name!r} has {len(slot)} planned slots with a satellite, but two are needed; "
            "lengthen the scenario, or correct its station"
        )
    check = partial(Check, f"{case.name}: scheduler ({case.source})", basis=case.statistics)
    yield check("share of slots with another satellite", float(changes), _share_of_changes(slot, ours), CHANGES_WITHIN)
    our_quartiles_deg = np.quantile(ours_deg, (0.25, 0.5, 0.75))
    for name, theirs_deg, found_deg in zip(
        ("lower quartile of", "median", "upper quartile of"), quartiles_deg, our_quartiles_deg
    ):
        terms = {"tolerance": ELEVATION_WITHIN_DEG} if name == "median" else {"rule": "shown"}
        yield check(f"{name} elevation", float(theirs_deg), float(found_deg), unit="deg", **terms)


def _measured_serving(path: Path) -> tuple[float, Floats]:
    """The share of a table's slots with another satellite than the one before, and the quartiles of elevation, deg."""
    start_s, elevation_deg, satellite = read_columns(path, ("slot_start_unix", "elevation_deg"), ("satellite",))
    steps_s = np.diff(unix_seconds(path, "slot_start_unix", start_s))
    if not len(steps_s) or steps_s.min() <= 0.0:
        found = "one slot" if not len(steps_s) else "a slot that does not begin after the one before it"
        raise ScenarioError(f"{path}: has {found}, but slots that follow each other are compared; correct or sort it")
    served = np.isfinite(elevation_deg) & np.array([name is not None for name in satellite])
    changes = _share_of_changes(np.rint(start_s / steps_s.min())[served], satellite[served])
    if not np.isfinite(changes):
        raise ScenarioError(
            f"{path}: has no two slots in a row with a satellite and its elevation, but those are compared; fetch it "
            "again"
        )
    return changes, np.quantile(elevation_deg[served], (0.25, 0.5, 0.75))


def _share_of_changes(slot: np.ndarray, satellite: np.ndarray) -> float:
    """Of the slots that follow one with a satellite, the share in which it is another."""
    follows = np.diff(slot) == 1
    return float(np.mean((satellite[1:] != satellite[:-1])[follows])) if follows.any() else float("nan")


def _served(scenario: Scenario, plan: LinkPlan, node: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which satellite a station has at the beginning of each slot: slot, satellite, and elevation in deg."""
    station = next(one for one in scenario.station if one.name == scenario.node_names[node])
    slots = slots_of(station.scheduler or Scheduler(), plan.grid)
    links = [plan.snapshot(slot.begin_k).link for slot in slots]
    mine = [link[plan.links.b[link] == node][:1] for link in links]
    there = [(slot.number, slot.begin_k, plan.links.a[link[0]]) for slot, link in zip(slots, mine) if len(link)]
    number, slot_k, satellite = np.array(there, dtype=np.int64).reshape(-1, 3).T
    t_ns = slot_k * plan.grid.step_ns
    sidereal_rad = sidereal_angle_rad(plan.grid.start, t_ns)
    some, place = np.unique(satellite, return_inverse=True)
    elements = constellation_elements(scenario)
    columns = {column.name: getattr(elements, column.name)[some] for column in fields(elements)[2:]}
    few = replace(elements, names=tuple(elements.names[one] for one in some.tolist()), **columns)
    r_km = teme_to_itrs(propagate(few, plan.grid.start, t_ns, scenario.orbits), sidereal_rad)
    site_km, zenith = terminal_itrs(station, t_ns)
    elevations_deg = np.degrees(elevation_rad(site_km, zenith, r_km[np.arange(len(t_ns)), place]))
    return number, satellite, elevations_deg


def _whole(path: Path, columns: Sequence[str]) -> list[Floats]:
    """Columns of numbers, in the rows that have all of them."""
    found = np.array(read_columns(path, columns))
    whole = found[:, np.isfinite(found).all(axis=0)]
    if whole.shape[1] < 2:
        raise ScenarioError(
            f"{path}: has {whole.shape[1]} rows with {', '.join(columns)}, but a course of temperature has two at "
            "least; fetch it again"
        )
    return list(whole)


@dataclass(frozen=True)
class _Series:
    """What a board measured: seconds, kelvin and watts, shape (S,) each."""

    name: str
    t_s: Floats
    temperature_k: Floats
    power_w: Floats

    def modelled_k(self, radiator: Radiators) -> Floats:
        """The temperature of one node of heat, from the first measured one on."""
        modelled = np.empty(len(self.t_s))
        modelled[:1] = self.temperature_k[:1]
        steps_s, now_k = np.diff(self.t_s), self.temperature_k[:1]
        for place, step_s in enumerate(steps_s.tolist()):
            now_k = radiator.temperature_after_k(now_k, self.power_w[place : place + 1], step_s)
            modelled[place + 1] = now_k[0]
        return modelled

    def rms_k(self, radiator: Radiators) -> float:
        return float(np.sqrt(np.mean((self.modelled_k(radiator) - self.temperature_k) ** 2)))


def _radiator(area_m2: float, heat_capacity_j_k: float) -> Radiators:
    """One that neither the Sun nor the Earth warms: what they give is in the fitted area."""
    columns = (area_m2, heat_capacity_j_k, EMISSIVITY, 0.0, 0.0)
    return Radiators(*(np.array([column]) for column in columns))


def fitted_radiator(series: Sequence[_Series], area_m2: float, heat_capacity_j_k: float) -> Radiators:
    """The node of heat whose temperatures are nearest to those measured, by least squares over all series.

    Args:
        series: under several loads.
        area_m2: to begin with.
        heat_capacity_j_k: the same.
    """
    from scipy.optimize import least_squares  # noqa: PLC0415  scipy is slow to import

    def errors_k(logarithms: Floats) -> Floats:
        radiator = _radiator(*np.exp(logarithms).tolist())
        return np.concatenate([(one.modelled_k(radiator) - one.temperature_k)[::FIT_EVERY] for one in series])

    found = least_squares(errors_k, np.log([area_m2, heat_capacity_j_k]))
    return _radiator(*np.exp(found.x).tolist())


def _heat(case: Heat, where: _Files) -> Iterator[Check]:
    group = f"{case.name}: heat ({case.source})"
    columns = case.time_column, case.temperature_column, case.current_column
    paths = [where.data(load.data) for load in case.load]
    begin_s, end_s = (limit_ns / NS_PER_S for limit_ns in case.between_ns)
    if all(paths):
        series = []
        for load, path in zip(case.load, filter(None, paths)):
            t_s, celsius, milliampere = _whole(path, columns)
            power_w = milliampere / 1000 * case.voltage_v
            series.append(_Series(load.name, t_s - t_s[0], celsius + ZERO_CELSIUS_K, power_w))
        radiator = fitted_radiator(series, case.area_m2, case.heat_capacity_j_k)
        for one in series:
            name = f"rms of the one node that fits all loads best, load {one.name}"
            yield Check(group, name, HEAT_RMS_K, one.rms_k(radiator), unit="K", rule="at most", basis="calibrated")
        for one in series:
            others = fitted_radiator(
                [other for other in series if other is not one], case.area_m2, case.heat_capacity_j_k
            )
            name = f"the same, fitted on the other loads alone, load {one.name}"
            yield Check(group, name, HEAT_RMS_K, one.rms_k(others), unit="K", rule="at most", basis="predicted")
        settled = [(one.t_s >= begin_s) & (one.t_s < end_s) for one in series]
        means = [(one.power_w[now].mean(), one.temperature_k[now].mean()) for one, now in zip(series, settled)]
    elif any(load.power_w is None or load.temperature_k is None for load in case.load):
        raise where.needed(f"heat {case.name!r}")
    else:
        radiator = _radiator(case.area_m2, case.heat_capacity_j_k)
        means = [(load.power_w or 0.0, load.temperature_k or 0.0) for load in case.load]
    for load, (power_w, measured_k) in zip(case.load, means):
        ours_k = float((power_w / (EMISSIVITY * STEFAN_BOLTZMANN_W_M2_K4 * radiator.area_m2[0])) ** 0.25)
        theirs, ours = float(measured_k - ZERO_CELSIUS_K), ours_k - ZERO_CELSIUS_K
        name = f"mean temperature from {begin_s / 60:g} to {end_s / 60:g} min at {power_w:.2f} W, load {load.name}"
        yield Check(group, name, theirs, ours, HEAT_MEAN_K, "degC", basis="calibrated")


def _battery(case: Bench, where: _Files) -> Iterator[Check]:
    if path := where.data(case.data):
        energy_wh, kind = read_columns(path, ("energy_wh",), ("kind",))
        charged_wh, discharged_wh = (
            float(np.nanmax(energy_wh[kind == name], initial=0.0)) for name in ("charge", "discharge")
        )
        if not charged_wh or not discharged_wh:
            raise ScenarioError(
                f"{path}: has no energy of a charge or of a discharge, but both are compared; name the rows of the "
                'column kind "charge" and "discharge"'
            )
    elif case.charged_j is None or case.discharged_j is None:
        raise where.needed(f"battery {case.name!r}")
    else:
        charged_wh, discharged_wh = case.charged_j / J_PER_WH, case.discharged_j / J_PER_WH
    group, measured = f"{case.name}: battery ({case.source})", discharged_wh / charged_wh
    default = Battery.model_validate({"capacity": "1000 Wh"})
    ours = _round_trip(default.charge_efficiency, default.discharge_efficiency, charged_wh)
    yield Check(group, "round trip, with our defaults", measured, ours, EFFICIENCY_WITHIN, basis="predicted")
    each = float(np.sqrt(measured))
    ours = _round_trip(each, each, charged_wh)
    name = f"round trip, with charge_efficiency = discharge_efficiency = {each:.3f}"
    yield Check(group, name, measured, ours, 0.001, basis="calibrated")


def _round_trip(charge_efficiency: float, discharge_efficiency: float, charged_wh: float) -> float:
    """What our battery gives of what it took: charged for an hour, and discharged in another until it is empty."""
    columns = (2 * charged_wh * J_PER_WH, charge_efficiency, discharge_efficiency, np.inf, np.inf)
    battery = Batteries(*(np.array([column]) for column in columns))
    power_w = np.array([charged_wh])
    full = battery.exchange(np.zeros(1), power_w, 3600.0)
    return float(battery.exchange(full.energy_j, -power_w, 3600.0).discharge_w[0] / charged_wh)
