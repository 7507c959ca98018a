"""The ground segment of a scenario: stations, ships and aircraft, how they hand over, and the weather over them."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Protocol

from pydantic import BeforeValidator, Field, model_validator

from isl_emu.scenario.quantities import (
    Delay,
    Duration,
    Elevation,
    FlightHeight,
    Frequency,
    Latitude,
    LeastElevation,
    Longitude,
    Loss,
    NodeName,
    NodeNames,
    RainHeight,
    RainRate,
    Range,
    Rate,
    Record,
)
from isl_emu.scenario.queueing import QueueTerms
from isl_emu.scenario.sites import site_place
from isl_emu.units import NS_PER_S

FASTEST_KM_H = {"fixed": 0.0, "ship": 150.0, "aircraft": 1_250.0}  # ferries reach 107, airliners in a jet 1,200
ANTIPODAL_RAD = math.radians(179.0)
EARTH_RADIUS_KM = 6_371.0088  # mean radius, IUGG; for speeds and the horizon's dip
REFRACTION_RAD = math.radians(1.0)  # air bends light by 0.6 deg at the horizon, and radio waves somewhat more


class Located(Protocol):
    """What has geodetic coordinates."""

    @property
    def latitude_rad(self) -> float:
        """North is positive."""

    @property
    def longitude_rad(self) -> float:
        """East is positive."""


class Clouds(Record):
    """Clear and cloudy spells of exponentially distributed length; no light passes a cloud.

    `availability`: the long-run share of clear time. `mean_duration`: of a cloudy spell.
    """

    availability: float = Field(gt=0.0, lt=1.0)
    mean_duration_ns: Duration = Field(alias="mean_duration")


class Scintillation(Record):
    """Losses by turbulence that vary at random: their mean towards the zenith, and how often they are drawn anew."""

    mean_loss_ratio: float = Field(gt=0.0, le=0.5)
    interval_ns: Duration = Field(alias="interval", default=1_000_000_000)


class Rain(Record):
    """Rain on radio links (Recommendation ITU-R P.618), and the coding that follows it.

    `margin`: the attenuation that is borne at the full rate. What is not given of the climate comes from the maps of
    the ITU: `rain_rate`, exceeded 0.01 % of the year; `rain_height` above mean sea level; `rain_probability`.
    """

    downlink_frequency_ghz: Frequency = Field(alias="downlink_frequency")
    uplink_frequency_ghz: Frequency = Field(alias="uplink_frequency")
    margin_db: Loss = Field(alias="margin", default=3.0)
    rain_rate_mm_h: RainRate | None = Field(alias="rain_rate", default=None)
    rain_height_km: RainHeight | None = Field(alias="rain_height", default=None)
    rain_probability: float | None = Field(gt=0.0, lt=1.0, default=None)
    exceeded_at_start: float | None = Field(ge=1e-5, lt=1.0, default=None)


class Weather(Record):
    """Clouds and turbulence for light, rain for radio: what is given is modelled; without it the sky is clear."""

    clouds: Clouds | None = None
    scintillation: Scintillation | None = None
    rain: Rain | None = None

    @model_validator(mode="after")
    def _something(self) -> Weather:
        if self.clouds is None and self.scintillation is None and self.rain is None:
            raise ValueError("is empty, but it holds clouds, scintillation or rain; give one of them, or remove it")
        return self


class Waypoint(Record):
    """Where a moving terminal is at a time after the start of the run."""

    after_ns: Delay = Field(alias="after")
    latitude_rad: Latitude = Field(alias="latitude")
    longitude_rad: Longitude = Field(alias="longitude")
    height_km: FlightHeight = Field(alias="height", default=0.0)


class Weights(Record):
    """What makes a satellite more likely to be chosen by an operator's scheduler.

    `elevation`: for each 90 deg. `gso`: for each 90 deg away from the geostationary arc. `age`: for each year that it
    was launched later than others. `load`: against each scheduled link that it has already in this slot. `keep`: for
    the one that served in the slot before. The defaults are calibrated: with them 6,000 satellites serve Louvain as
    Starlink's did in July 2024 (see docs/measured.md); nobody but its operator knows the real ones.
    """

    elevation: float = Field(ge=-1000.0, le=1000.0, default=3.0)
    gso: float = Field(ge=-1000.0, le=1000.0, default=3.0)
    age: float = Field(ge=-1000.0, le=1000.0, default=0.0)
    load: float = Field(ge=-1000.0, le=1000.0, default=0.0)
    keep: float = Field(ge=-1000.0, le=1000.0, default=1.6)


class Scheduler(Record):
    """An operator's scheduler: at each boundary of a clock that all terminals share, each gets satellites anew.

    Slots of `interval` begin `phase` after the full minutes, hours and days of UTC that they divide. `randomness` is
    the spread of what is unknown of the choice; 0 takes the satellites of most weight. `gso_separation`: none is used
    that is seen nearer to the geostationary arc. `through`: only satellites that one of these stations sees as well.
    """

    interval_ns: Duration = Field(alias="interval", default=15 * NS_PER_S)
    phase_ns: Delay = Field(alias="phase", default=12 * NS_PER_S)
    weights: Weights = Weights()
    randomness: float = Field(ge=0.0, le=1000.0, default=1.0)
    gso_separation_rad: Elevation = Field(alias="gso_separation", default=math.radians(18.0))
    through: NodeNames = ()

    @model_validator(mode="after")
    def _within_a_slot(self) -> Scheduler:
        if self.phase_ns >= self.interval_ns:
            raise ValueError("has a phase of an interval or more, but it is where in an interval slots begin; lower it")
        return self


class AccessVariation(Record):
    """A delay on top of the constant one that varies at random, drawn anew in each interval.

    Its quantiles are at equal steps of probability: the first is the least delay, the last the most, and in between the
    distribution is linear.
    """

    quantiles_ns: tuple[Delay, ...] = Field(
        alias="quantiles", examples=[["0 ms", "2 ms", "9 ms"]], min_length=2, max_length=1_001
    )
    interval_ns: Duration = Field(alias="interval", default=15 * NS_PER_S)

    @model_validator(mode="after")
    def _rising(self) -> AccessVariation:
        if list(self.quantiles_ns) != sorted(self.quantiles_ns):
            raise ValueError("has quantiles that fall, but they go from the least delay to the most; sort them")
        return self


def _if_so(given: Any) -> Any:
    """`false` says what leaving the key out says."""
    return None if given is False else given


class GroundStation(QueueTerms):
    """A ground terminal on the WGS84 ellipsoid: a site, or a ship or aircraft that follows a track.

    For a moving terminal latitude, longitude and height are those of its first waypoint.
    """

    name: NodeName
    kind: Literal["fixed", "ship", "aircraft"] = "fixed"
    site: str | None = None
    latitude_rad: Latitude = Field(alias="latitude")
    longitude_rad: Longitude = Field(alias="longitude")
    height_km: FlightHeight = Field(alias="height", default=0.0)
    population: int | None = Field(ge=1, le=100_000_000_000, default=None)
    track: tuple[Waypoint, ...] = ()
    min_elevation_rad: LeastElevation = Field(alias="min_elevation")
    max_range_km: Range | None = Field(alias="max_range", default=None)
    antennas: int = Field(ge=1, le=1_000, default=1)
    access: Literal["radio", "optical"] = "radio"
    handover: Literal["highest-elevation", "longest-contact", "least-change", "scheduled", "follow"] = (
        "highest-elevation"
    )
    scheduler: Scheduler | None = None
    make_before_break_ns: Delay = Field(alias="make_before_break", default=0)
    handover_gap_ns: Delay = Field(alias="handover_gap", default=0)
    acquisition_ns: Delay = Field(alias="acquisition", default=0)
    uplink_bit_s: Rate = Field(alias="uplink")
    downlink_bit_s: Rate = Field(alias="downlink")
    queue_ns: Duration = Field(alias="queue", default=50_000_000)
    weather: Weather | None = None
    access_delay_ns: Delay | None = Field(alias="access_delay", default=None)
    access_variation: AccessVariation | None = None
    forwards: Annotated[Literal[True] | None, BeforeValidator(_if_so)] = None

    @model_validator(mode="before")
    @classmethod
    def _scheduled(cls, table: Any) -> Any:
        """The scheduler's defaults, where only the policy is named."""
        if isinstance(table, dict) and table.get("handover") == "scheduled":
            return {"scheduler": {}, **table}
        return table

    @model_validator(mode="before")
    @classmethod
    def _placed(cls, table: Any) -> Any:
        """Coordinates from the site or the track, where they are not given beside it."""
        if not isinstance(table, dict):
            return table
        track = table.get("track")
        if "site" in table and track:
            raise ValueError("site and track are both given, but a terminal has one place; remove one")
        if isinstance(table.get("site"), str):
            return {**site_place(table["site"]), **table}
        if isinstance(track, (tuple, list)) and track and isinstance(track[0], dict):
            first = {key: track[0][key] for key in ("latitude", "longitude", "height") if key in track[0]}
            return {**first, **table}
        return table

    @model_validator(mode="after")
    def _consistent(self) -> GroundStation:
        problems = []
        if self.make_before_break_ns and self.antennas < 2:
            problems.append(
                "make_before_break is given with one antenna, but the new link comes up while the old one is still "
                "there, each on an antenna of its own; set antennas = 2 or remove make_before_break"
            )
        if self.scheduler and self.handover != "scheduled":
            problems.append(
                f'scheduler is given with handover = "{self.handover}", but only "scheduled" has one; remove either'
            )
        if self.scheduler and self.make_before_break_ns:
            problems.append(
                "make_before_break is given with a scheduler, but that switches at the boundaries of its slots; remove "
                "make_before_break"
            )
        for name in ("rain",) if self.access == "optical" else ("clouds", "scintillation"):
            if self.weather is not None and getattr(self.weather, name) is not None:
                problems.append(
                    f'weather.{name} is given with access = "{self.access}", but it is for the other kind; remove it'
                )
        problems += [*self._place_problems(), *self._track_problems()]
        highest_km = max(self.height_km, 0.0, *(point.height_km for point in self.track))
        edge_rad = -math.acos(EARTH_RADIUS_KM / (EARTH_RADIUS_KM + highest_km))
        if self.min_elevation_rad < edge_rad - REFRACTION_RAD:
            problems.append(
                f"min_elevation is {math.degrees(self.min_elevation_rad):g} deg, but from {highest_km:g} km up the "
                f"Earth's edge is at {math.degrees(edge_rad):.2f} deg, and air lifts what is there by less than "
                "1 deg; raise it"
            )
        if problems:
            raise ValueError(", and ".join(problems))
        return self

    def _place_problems(self) -> list[str]:
        if (self.kind == "fixed") != (not self.track):
            rule = "a track is for a ship or an aircraft" if self.track else f"a moving {self.kind} needs a track"
            return [f'kind is "{self.kind}", but {rule}; give both a kind and a track, or neither']
        if self.kind != "aircraft" and not -0.5 <= self.height_km <= 9.0:
            return [f"height is {self.height_km:g} km, but the ground lies between -500 m and 9 km; correct it"]
        first = self.track[0] if self.track else self
        if (first.latitude_rad, first.longitude_rad) != (self.latitude_rad, self.longitude_rad):
            return ["latitude and longitude are not those of the track's first waypoint; remove them"]
        return []

    def _track_problems(self) -> list[str]:
        problems = []
        for index, (start, end) in enumerate(zip(self.track, self.track[1:]), start=1):
            where, leg_rad = f"track[{index}]", central_angle_rad(start, end)
            hours = (end.after_ns - start.after_ns) / NS_PER_S / 3600
            if hours <= 0:
                problems.append(f"{where} is not after the waypoint before it; order the track by time")
            elif leg_rad > ANTIPODAL_RAD:
                problems.append(
                    f"{where} lies {math.degrees(leg_rad):.1f} deg from the waypoint before it, but the great circle "
                    f"between opposite points is not unique; add a waypoint between them"
                )
            elif (speed_km_h := leg_rad * EARTH_RADIUS_KM / hours) > FASTEST_KM_H[self.kind] > 0:
                problems.append(
                    f"{where} is reached at {speed_km_h:,.0f} km/h, but the fastest {self.kind} makes "
                    f"{FASTEST_KM_H[self.kind]:,.0f} km/h; correct the times or places"
                )
        return problems


def central_angle_rad(a: Located, b: Located) -> float:
    """The angle between two places seen from the Earth's centre, by the haversine formula."""
    half = math.sin((b.latitude_rad - a.latitude_rad) / 2) ** 2
    half += math.cos(a.latitude_rad) * math.cos(b.latitude_rad) * math.sin((b.longitude_rad - a.longitude_rad) / 2) ** 2
    return 2 * math.asin(math.sqrt(min(1.0, half)))
