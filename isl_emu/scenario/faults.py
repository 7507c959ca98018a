"""Faults of a scenario: what breaks, when, for how long and how, and when the network learns of it.

A plan contains them (`linkplan.faults` draws them), so pictures, exports and a replay do as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from isl_emu.limits import FAULTS
from isl_emu.scenario.constellation import Constellation
from isl_emu.scenario.matching import NodePattern, Satellites, matching, repeated, unknown, unmatched
from isl_emu.scenario.quantities import Delay, Duration, Latitude, Longitude, NodeName, Record
from isl_emu.units import DURATION_NS, NS_PER_S, format_quantity, parse_quantity

Effect = Literal["cut", "degrade", "power-off", "kill", "stop", "out-of-memory", "flip-bits"]
Thing = Literal["satellites", "stations", "links", "terminals", "servers", "programs"]
EFFECTS: dict[Thing, tuple[Effect, ...]] = {  # what can happen to what
    "satellites": ("cut", "degrade", "power-off"),
    "stations": ("cut", "degrade", "power-off"),
    "links": ("cut", "degrade"),
    "terminals": ("cut", "degrade"),
    "servers": ("kill", "stop", "out-of-memory", "flip-bits"),
    "programs": ("kill", "stop", "out-of-memory", "flip-bits"),
}
DEGRADING = ("loss", "corruption", "duplication", "jitter", "rate_factor", "delay_factor")  # keys of "degrade"
MOST_POINTS = 1_000  # of a profile or polygon
MOST_JITTER_NS = 2 * NS_PER_S  # netem draws it from twice as much in 32 bits
LINK = re.compile(r"(\S+) - (\S+)")
TERMINAL = re.compile(r"(\S+) (fore|aft|port|starboard|zenith|nadir|free|\*)")
KNOWN = re.compile(r"at once|never|after (.+)")


def _link(text: str) -> str:
    if not LINK.fullmatch(text):
        raise ValueError(f'is {text!r}, but a link is written by its two ends: "p00s00 - p00s01", "p0* - gs-berlin"')
    return text


def _terminal(text: str) -> str:
    if not TERMINAL.fullmatch(text):
        raise ValueError(f'is {text!r}, but a terminal is a satellite and its mount: "p00s00 fore", "p0* port"')
    return text


def _known(text: str) -> str:
    match = KNOWN.fullmatch(text)
    if not match:
        raise ValueError(f'is {text!r}, but it is "at once", "never", or a delay such as "after 3 s"')
    if match[1] and parse_quantity(match[1], DURATION_NS) <= 0:
        raise ValueError(f'is {text!r}, but a delay is more than 0 s; write "at once"')
    return text


def _several(times: Any) -> Any:
    return times if isinstance(times, (tuple, list)) else (times,)


def _jitter(jitter_ns: int) -> int:
    if jitter_ns > MOST_JITTER_NS:
        raise ValueError(f"is {format_quantity(jitter_ns, DURATION_NS)}, but the most allowed is 2 s")
    return jitter_ns


Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Region(Record):
    """A part of the Earth: a satellite is in it while the point below it is.

    Either within bounds of `latitude` and `longitude` (from west to east, across the date line too), or a `polygon` of
    points of latitude and longitude, whose sides are straight on a map of both.
    """

    latitude_rad: tuple[Latitude, Latitude] | None = Field(
        alias="latitude", examples=[["-50 deg", "0 deg"]], default=None
    )
    longitude_rad: tuple[Longitude, Longitude] | None = Field(
        alias="longitude", examples=[["-90 deg", "40 deg"]], default=None
    )
    polygon_rad: tuple[tuple[Latitude, Longitude], ...] = Field(
        alias="polygon",
        examples=[[["0 deg", "0 deg"], ["30 deg", "0 deg"], ["0 deg", "40 deg"]]],
        max_length=MOST_POINTS,
        default=(),
    )

    @model_validator(mode="after")
    def _one_shape(self) -> Region:
        bounds = self.latitude_rad is not None or self.longitude_rad is not None
        if bounds == bool(self.polygon_rad):
            found = "bounds and a polygon" if bounds else "no shape"
            raise ValueError(f"has {found}, but it is given by latitude and longitude, or by a polygon; give one")
        if self.polygon_rad and len(self.polygon_rad) < 3:
            raise ValueError(f"has a polygon of {len(self.polygon_rad)} points, but it needs three; add one")
        if self.latitude_rad and self.latitude_rad[0] >= self.latitude_rad[1]:
            raise ValueError("has a latitude that ends where it begins or south of it; write south first, then north")
        if self.longitude_rad and self.longitude_rad[0] == self.longitude_rad[1]:
            raise ValueError("has a longitude of no width; write west first, then east, or leave it out")
        return self


class Fault(Record):
    """Something that breaks in a run: what, when, for how long and how.

    What: satellites (those that fit all of `satellites`, `shells`, `planes` and `region`), or `stations`, `links`,
    `terminals`, `servers` or `programs` (the last two also only in some `shells`, `planes` or a `region`). `batch`: so
    many of them, in their order, are hit together, as those of one production run; `together`: all of them.
    `fraction`, `count`: only so many are, drawn anew at each of several given times.

    When: `at` one or several times; `every` so often, from `at` on; at random with a mean time `mtbf` between failures,
    Weibull-distributed with this `shape` (1 is the exponential distribution), where a `profile` of times and factors
    says how many times faster that clock runs (linear between them, as before the first and after the last);
    without any, while it is in the region.

    For how long: `for`, or at random with mean `mttr` and `repair_shape`; without, to the end of the run, or until it
    leaves the region. `reboot`: what comes on top after the power is back.

    How: `effect`, with its keys. `known`: when those who choose routes and servers learn that it begins, and that it
    ends.
    """

    name: NodeName
    satellites: Satellites | None = None
    shells: tuple[NodeName, ...] = Field(examples=[["low", "high"]], default=())
    planes: tuple[Annotated[int, Field(ge=0)], ...] = Field(examples=[[0, 1]], default=())
    region: Region | None = None
    stations: tuple[NodePattern, ...] = Field(examples=[["gs-berlin", "gw-*"]], default=())
    links: tuple[Annotated[str, AfterValidator(_link)], ...] = Field(examples=[["p00s00 - p00s01"]], default=())
    terminals: tuple[Annotated[str, AfterValidator(_terminal)], ...] = Field(examples=[["p00s00 fore"]], default=())
    servers: Satellites | None = None
    programs: tuple[NodePattern, ...] = Field(examples=[["camera", "relay-*"]], default=())
    batch: int | None = Field(ge=1, default=None)
    together: bool = False
    fraction: float | None = Field(gt=0.0, le=1.0, default=None)
    count: int | None = Field(ge=1, default=None)

    at_ns: Annotated[tuple[Delay, ...], BeforeValidator(_several)] = Field(
        alias="at", examples=[["20 s", "40 s"]], default=()
    )
    every_ns: Duration | None = Field(alias="every", default=None)
    mtbf_ns: Duration | None = Field(alias="mtbf", default=None)
    shape: float = Field(ge=0.1, le=100.0, default=1.0)
    profile: tuple[tuple[Delay, Annotated[float, Field(ge=0.0)]], ...] = Field(
        examples=[[["0 s", 1.0], ["60 s", 20.0]]], max_length=MOST_POINTS, default=()
    )

    for_ns: Duration | None = Field(alias="for", default=None)
    mttr_ns: Duration | None = Field(alias="mttr", default=None)
    repair_shape: float = Field(ge=0.1, le=100.0, default=1.0)
    reboot_ns: Delay | None = Field(alias="reboot", default=None)

    effect: Effect
    loss: Share = 0.0
    corruption: Share = 0.0
    duplication: Share = 0.0
    jitter_ns: Annotated[Delay, AfterValidator(_jitter)] = Field(alias="jitter", default=0)
    rate_factor: float = Field(gt=0.0, le=1000.0, default=1.0)
    delay_factor: float = Field(gt=0.0, le=1000.0, default=1.0)
    bits: int | None = Field(ge=1, le=1_000_000, default=None)
    buffer: str | None = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$", default=None)
    known: Annotated[str, AfterValidator(_known)] = "at once"
    seed: int | None = Field(ge=0, default=None)

    @property
    def thing(self) -> Thing:
        """What is hit: the key that names it."""
        named: tuple[Thing, ...] = ("stations", "links", "terminals", "servers", "programs")
        return next((key for key in named if getattr(self, key)), "satellites")

    @property
    def known_after_ns(self) -> int | None:
        """How late the news of it are: 0 at once, None if they never come."""
        if self.known == "never":
            return None
        return 0 if self.known == "at once" else parse_quantity(self.known.removeprefix("after "), DURATION_NS)

    @property
    def momentary(self) -> bool:
        """Whether it is done at an instant, and nothing that lasts."""
        return self.effect == "flip-bits"

    def times_ns(self, duration_ns: int) -> tuple[int, ...]:
        """The given times at which it begins, ascending, in ns since the start; empty if they are random."""
        if self.every_ns is None:
            return tuple(sorted(set(self.at_ns)))
        return tuple(range(self.at_ns[0] if self.at_ns else 0, duration_ns, self.every_ns))

    @model_validator(mode="after")
    def _fits_together(self) -> Fault:
        if problems := [*self._what_problems(), *self._when_problems(), *self._how_problems()]:
            raise ValueError(", and ".join(problems))
        return self

    def _what_problems(self) -> Iterator[str]:
        things = [key for key in EFFECTS if getattr(self, key)]
        selecting = [key for key in ("shells", "planes", "region") if getattr(self, key)]
        if len(things) > 1:
            yield f"{' and '.join(things)} are given, but a fault hits things of one kind; make it several faults"
        elif not things and not selecting:
            yield (
                "names nothing that it hits, but one of satellites, shells, planes, region, stations, links, "
                "terminals, servers or programs says that; add one"
            )
        elif selecting and self.thing in ("stations", "links", "terminals"):
            yield f"{selecting[0]} is given beside {self.thing}, but it selects satellites; remove one of them"
        if self.fraction is not None and self.count is not None:
            yield "fraction and count are both given, but one says how many are hit; remove one"
        if self.batch is not None and self.together:
            yield "batch is given with together, but then all are hit at once; remove one"

    def _when_problems(self) -> Iterator[str]:
        given = bool(self.at_ns) or self.every_ns is not None
        if given and self.mtbf_ns is not None:
            yield "mtbf is given beside at or every, but times are either given or random; remove one"
        if not given and self.mtbf_ns is None and self.region is None:
            yield "nothing says when, but at, every, mtbf or a region does; add one"
        if self.every_ns is not None and len(self.at_ns) > 1:
            yield f"at has {len(self.at_ns)} times beside every, but the first is enough; give one"
        if self.mtbf_ns is None and (self.profile or self.shape != 1.0):
            yield "profile or shape is given without mtbf, but they say how that is distributed; add it"
        if any(later[0] <= earlier[0] for earlier, later in zip(self.profile, self.profile[1:])):
            yield "profile has a time that is not after the one before it; order it by time"
        if self.profile and not any(factor for _, factor in self.profile):
            yield "profile is 0 at all times, but then nothing ever happens; give a factor above 0"
        if self.for_ns is not None and self.mttr_ns is not None:
            yield "for and mttr are both given, but a time is either given or random; remove one"
        if self.mttr_ns is None and self.repair_shape != 1.0:
            yield "repair_shape is given without mttr, but it says how that is distributed; add it"
        lasting = self.for_ns is not None or self.mttr_ns is not None
        if lasting and self.momentary:
            yield f'for or mttr is given with effect "{self.effect}", but that is done at once; remove it'
        if lasting and not given and self.mtbf_ns is None:
            yield "for or mttr is given, but what hits a region lasts as long as something is in it; remove it"
        if self.region and self.mtbf_ns and (self.batch or self.together):
            yield "region is given with mtbf and batch or together, but each satellite is in it by itself; remove one"

    def _how_problems(self) -> Iterator[str]:
        if self.effect not in EFFECTS[self.thing]:
            allowed = ", ".join(EFFECTS[self.thing])
            yield f'effect is "{self.effect}", but {self.thing} can have {allowed}; choose one of these'
        degraded = {
            "loss": self.loss, "corruption": self.corruption, "duplication": self.duplication,
            "jitter": self.jitter_ns, "rate_factor": self.rate_factor - 1, "delay_factor": self.delay_factor - 1,
        }  # fmt: skip
        changed = [key for key, value in degraded.items() if value]
        if self.effect == "degrade" and not changed:
            yield f'effect is "degrade", but nothing is worse; give one of {", ".join(DEGRADING)}'
        if self.effect != "degrade" and changed:
            yield f'{changed[0]} is given with effect "{self.effect}", but it is for "degrade"; remove it'
        if self.reboot_ns is not None and self.effect != "power-off":
            yield f'reboot is given with effect "{self.effect}", but it is for "power-off"; remove it'
        for key in ("bits", "buffer"):
            if getattr(self, key) is not None and self.effect != "flip-bits":
                yield f'{key} is given with effect "{self.effect}", but it is for "flip-bits"; remove it'
        if self.effect == "flip-bits" and (self.thing == "programs") != (self.buffer is not None):
            yield (
                "buffer is missing, but bits are flipped in a buffer that the programs name; name it"
                if self.thing == "programs"
                else "buffer is given, but of servers the file of weights is hit; remove it, or name programs"
            )


def selected_satellites(fault: Fault, constellation: Constellation) -> tuple[str, ...]:
    """The satellites that fit a fault's `satellites`, `shells` and `planes`, wherever they are, in node order."""
    taken: set[str] = set()
    for shell, names in constellation.satellites_by_shell:
        if fault.shells and shell.name not in fault.shells:
            continue
        if fault.planes:
            slots = shell.walker.slots if shell.walker else 0
            planes = shell.walker.planes if shell.walker else 0
            taken.update(*(names[n * slots : (n + 1) * slots] for n in fault.planes if n < planes))
        else:
            taken.update(names)
    patterns = "all" if fault.satellites is None else fault.satellites
    return tuple(name for name in matching(patterns, constellation.satellite_names) if name in taken)


def rounded_faults(faults: Sequence[Fault], step_ns: int) -> Iterator[str]:
    """A warning for each fault with given times that are not the plan's instants."""
    for fault in faults:
        given = {"at": fault.at_ns, "every": (fault.every_ns,), "for": (fault.for_ns,), "reboot": (fault.reboot_ns,)}
        if between := [key for key, times_ns in given.items() if any((t_ns or 0) % step_ns for t_ns in times_ns)]:
            yield (
                f"fault {fault.name}: {' and '.join(between)} {'is' if len(between) == 1 else 'are'} no multiple of "
                f"the step ({format_quantity(step_ns, DURATION_NS)}), but faults begin and end at instants, each at "
                "the first that is not before its time; lower time.step where that matters"
            )


def fault_contradictions(
    faults: Sequence[Fault], constellation: Constellation, servers: Sequence[str], programs: Sequence[str]
) -> Iterator[str]:
    """Problems of faults that show beside the nodes, what runs in them, and the length of the run.

    Args:
        servers: names of the satellites that run a model server.
        programs: names of the programs and workloads.
    """
    yield from repeated("fault", [fault.name for fault in faults])
    duration_ns, walkers = constellation.time.duration_ns, [shell for shell in constellation.shell if shell.walker]
    things = (len(_things(fault, constellation, servers, programs) or "?") for fault in faults)
    events = [strikes(fault, duration_ns) * hit_at_once(fault, count) for fault, count in zip(faults, things)]
    if excess := FAULTS.excess(sum(events)):
        worst = max(zip(events, (fault.name for fault in faults)))[1]
        alone = FAULTS.excess(max(events))
        yield f"fault {worst}: {f'alone {alone}' if alone else f'with all others {excess}'}"
        return
    for fault in faults:
        where = f"fault {fault.name}"
        if fault.satellites:
            yield from unmatched(f"{where}: satellites", fault.satellites, constellation.satellite_names)
        yield from unknown(f"{where}: shells", fault.shells, [shell.name for shell in constellation.shell], "shell")
        most = max((w.walker.planes for w in walkers if w.walker and w.name in (fault.shells or (w.name,))), default=0)
        yield from (
            f"{where}: planes has {n}, but its shells have {most} planes, counted from 0; correct it"
            for n in fault.planes
            if n >= most
        )
        yield from unmatched_nodes(f"{where}: stations", fault.stations, constellation.station_names, "station")
        for text in fault.links:
            yield from unmatched_nodes(f"{where}: links", text.split(" - "), constellation.node_names, "node")
        yield from _terminal_problems(where, fault, constellation)
        if fault.servers:
            yield from unmatched(f"{where}: servers", fault.servers, servers)
            if not servers:
                yield f"{where}: servers is given, but no satellite runs a model server; add a [[compute]] group"
        yield from unmatched_nodes(f"{where}: programs", fault.programs, programs, "program or workload")
        yield from (
            f"{where}: at has {format_quantity(at_ns, DURATION_NS)}, but the run is over by then; correct it"
            for at_ns in fault.times_ns(duration_ns)
            if at_ns >= duration_ns
        )


def _things(
    fault: Fault, constellation: Constellation, servers: Sequence[str], programs: Sequence[str]
) -> Sequence[str] | None:
    """What a fault may hit, wherever it is; None for links and terminals, as nobody knows yet which there are."""
    return {
        "satellites": selected_satellites(fault, constellation),
        "stations": matching(fault.stations, constellation.station_names),
        "servers": matching(fault.servers or (), servers),
        "programs": matching(fault.programs, programs),
    }.get(fault.thing)


def hit_at_once(fault: Fault, things: int) -> int:
    """How many things of so many a fault hits on the average, each time that it strikes all that it may hit."""
    size = things if fault.together else fault.batch or 1
    units = -(-things // max(size, 1))
    chosen = fault.count or (round(fault.fraction * units) if fault.fraction else units)
    return min(chosen * size, things)


def strikes(fault: Fault, duration_ns: int) -> float:
    """About how often a fault strikes one of the things that it hits."""
    if fault.every_ns is not None:
        return max(duration_ns - (fault.at_ns[0] if fault.at_ns else 0), 0) / fault.every_ns
    if fault.mtbf_ns is None:
        return len(fault.at_ns) or 1
    clock_ns = duration_ns * _mean_factor(fault.profile, duration_ns)
    broken_ns = (fault.for_ns or fault.mttr_ns or (0 if fault.momentary else duration_ns)) + (fault.reboot_ns or 0)
    return clock_ns / (fault.mtbf_ns + broken_ns * clock_ns / duration_ns)


def expected_faults(fault: Fault, constellation: Constellation, servers: Sequence[str], programs: Sequence[str]) -> str:
    """About how often a fault strikes in a run, before anything is planned.

    Of random ones that is the time on its clock over the mean time between failures, less what repairs take of it. For
    links and terminals it is said for each, as nobody knows yet which of them there are.
    """
    duration_ns = constellation.time.duration_ns
    things = _things(fault, constellation, servers, programs)
    how_many = None if things is None else 1 if fault.together else -(-len(things) // (fault.batch or 1))
    if how_many is not None:
        how_many = fault.count or (round(fault.fraction * how_many) if fault.fraction else how_many)
    whom = f"each of its {fault.thing}" if how_many is None else f"{how_many} of its {fault.thing}"
    if fault.batch and how_many is not None:
        whom = f"{how_many} batches of up to {fault.batch} {fault.thing}"
    where = " that are in its region then" if fault.region else ""
    if times := fault.times_ns(duration_ns):
        return f"fault {fault.name}: {len(times)} times {whom}{where}"
    if fault.mtbf_ns is None:
        return f"fault {fault.name}: each time that one of {len(things or ())} {fault.thing} is in its region"
    each = strikes(fault, duration_ns)
    less = " at the most, as it is in its region for a part of that" if fault.region else ""
    return f"fault {fault.name}: about {each:.3g} times {whom}{less}"


def _mean_factor(profile: Sequence[tuple[int, float]], duration_ns: int) -> float:
    """How much faster than time a profile lets a clock run, on average over a run."""
    if not profile:
        return 1.0
    times, factors = (np.array(column, np.float64) for column in zip(*profile, strict=True))
    edges = np.union1d(np.clip(times, 0.0, duration_ns), (0.0, duration_ns))
    factor = np.interp(edges, times, factors)
    return float((np.diff(edges) * (factor[1:] + factor[:-1]) / 2).sum() / duration_ns)


def unmatched_nodes(where: str, patterns: Sequence[str], names: Sequence[str], kind: str) -> Iterator[str]:
    """A sentence for each pattern that matches no name of that kind."""
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern.removeprefix("!")) for name in names):
            yield f"{where} has {pattern!r}, but it matches no {kind}; `isl-emu check` lists their names"


def _terminal_problems(where: str, fault: Fault, constellation: Constellation) -> Iterator[str]:
    there = [
        (name, mount)
        for shell, names in constellation.satellites_by_shell
        for mount in dict.fromkeys(mount for terminal in shell.lasers.terminal for mount in terminal.mounts)
        for name in names
    ]
    for text in fault.terminals:
        satellite, mount = text.split()
        if not any(fnmatchcase(name, satellite) and mount in (own, "*") for name, own in there):
            yield (
                f"{where}: terminals has {text!r}, but no satellite of that name has a terminal there; correct it, add "
                "a terminal table to its shell's lasers, or name links"
            )
