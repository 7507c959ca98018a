"""What a page or a program needs to know of a plan or a run to show it: places, links over time, and numbers of each.

docs/stream.md describes it for those who read it. All of it follows from the plan and from the tables of a run that is
over; what happens in a run is in `events`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from isl_emu.arrays import Floats, Ints
from isl_emu.errors import ScenarioError
from isl_emu.files import read_json
from isl_emu.geometry.frames import sidereal_angle_rad
from isl_emu.geometry.places import geodetic, places_itrs_km, teme_to_itrs
from isl_emu.geometry.sunlight import sun_direction
from isl_emu.linkplan.contacts import comes_back, find_contacts
from isl_emu.linkplan.events import LinkState
from isl_emu.linkplan.plan import LinkKind, NodeKind
from isl_emu.linkplan.reasons import why_down
from isl_emu.parts.finished_run import ConcludedRun
from isl_emu.planned import PlannedNetwork
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import LINKS_JOURNAL
from isl_emu.units import NS_PER_MS, NS_PER_S

FORMAT = 1
SAMPLE_NS = 30 * NS_PER_S  # between two positions at the most; a page draws a curve through them
LEAST_SAMPLES = 4
MOST_POSITIONS = 3_000_000  # of all nodes together, 36 MB; what has more of them is sampled more seldom
MOST_BUCKETS = 600  # of load, and points of a series
LIGHT_KM_S = 299_792.458
ON_THE_GROUND = (LinkKind.GROUND, LinkKind.TERRESTRIAL)  # at one end, or at both
FORWARDING = (NodeKind.GATEWAY, NodeKind.PLACE)  # of those on the ground


@dataclass(frozen=True)
class Series:
    """A number over time; nan where there is none.

    Args:
        t_s: since the start, shape (P,); `values` the same.
    """

    label: str
    unit: str
    t_s: Floats
    values: Floats

    def to_json(self) -> dict[str, Any]:
        """As docs/stream.md has it; no number is null."""
        values = [None if np.isnan(one) else round(float(one), 6) for one in self.values]
        return {"label": self.label, "unit": self.unit, "t_s": np.round(self.t_s, 3).tolist(), "v": values}


@dataclass
class Sky:
    """A plan, and what is left of the run of it, if there was or is one.

    Args:
        folder: of the run.
        kind: "plan", "run" of one that is over, "live".
        buttons: whether who looks on may act on it.
    """

    planned: PlannedNetwork
    folder: RunFolder | None = None
    kind: str = "plan"
    buttons: bool = False
    _index: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._index = {name: number for number, name in enumerate(self.planned.nodes)}

    @cached_property
    def concluded(self) -> ConcludedRun | None:
        """The run, if it is over."""
        if self.folder is None or self.kind != "run":
            return None
        return ConcludedRun(self.folder, self.planned.scenario, self.planned.link_plan)

    @property
    def duration_s(self) -> float:
        """Of the plan."""
        return self.planned.link_plan.grid.duration_ns / NS_PER_S

    @cached_property
    def samples_ns(self) -> Ints:
        """The times of positions, at even distances from the start to the end, shape (S,)."""
        duration_ns, nodes = self.planned.link_plan.grid.duration_ns, len(self.planned.nodes)
        wanted = max(-(-duration_ns // SAMPLE_NS) + 1, LEAST_SAMPLES)
        count = min(wanted, max(MOST_POSITIONS // max(nodes, 1), LEAST_SAMPLES))
        return np.linspace(0, duration_ns, count).astype(np.int64)

    def to_json(self) -> dict[str, Any]:
        """What is there: nodes, links and times."""
        plan, scenario = self.planned.link_plan, self.planned.scenario
        record = (read_json(self.folder.provenance) or {}) if self.folder else {}
        verdict = (read_json(self.folder.fidelity) or {}).get("verdict") if self.folder else None
        load = self.load
        return {
            "format": FORMAT,
            "title": scenario.name,
            "kind": self.kind,
            "clock": (record.get("place") or {}).get("clock"),
            "valid": None if verdict is None else verdict == "valid",
            "start_utc": f"{plan.grid.start:%Y-%m-%dT%H:%M:%SZ}",
            "duration_s": self.duration_s,
            "step_s": plan.grid.step_ns / NS_PER_S,
            "sample_s": (self.samples_ns / NS_PER_S).tolist(),
            "nodes": list(self._nodes()),
            "links": [
                {"a": a, "b": b, "kind": "ground" if kind in ON_THE_GROUND else "laser"}
                for a, b, kind in zip(plan.links.a.tolist(), plan.links.b.tolist(), plan.links.kind.tolist())
            ],
            "load": None if load is None else {"bucket_s": self._bucket_ns / NS_PER_S, "buckets": load.shape[1]},
            "buttons": self.buttons,
        }

    def _nodes(self) -> Iterator[dict[str, Any]]:
        scenario = self.planned.scenario
        roles = {"computes": scenario.computing_satellites, "serves": scenario.serving_satellites}
        roles |= {"asks": scenario.asking_stations, "sends the model up": scenario.uplink_stations}
        names = {role: set(nodes) for role, nodes in roles.items()}
        lowest = {station.name: round(np.degrees(station.min_elevation_rad), 3) for station in scenario.station}
        places = [
            (shell.name, *((None, None) if shell.walker is None else divmod(number, shell.walker.slots)))
            for shell in scenario.shell
            for number in range(shell.count)
        ]
        places += [(None, None, None)] * (len(self.planned.nodes) - len(places))
        kinds = self.planned.link_plan.nodes.kind.tolist()
        for name, kind, (shell, plane, slot) in zip(self.planned.nodes, kinds, places, strict=True):
            yield {
                "name": name,
                "kind": "satellite" if kind == NodeKind.SATELLITE else "station",
                "shell": shell,
                "plane": plane,
                "slot": slot,
                "min_elevation_deg": lowest.get(name),
                "roles": [role for role, nodes in names.items() if name in nodes]
                + (["forwards"] if kind in FORWARDING else []),
            }

    @cached_property
    def positions(self) -> np.ndarray:
        """Of all nodes, Earth-fixed (ITRS), km, float32, shape (S, N, 3); nan where there is none."""
        found = places_itrs_km(self.planned.scenario, self.planned.link_plan.grid.start, self.samples_ns)
        return found.astype("<f4")

    @property
    def sun(self) -> np.ndarray:
        """Unit vectors to the Sun, Earth-fixed, float32, shape (S, 3)."""
        start = self.planned.link_plan.grid.start
        towards = sun_direction(start, self.samples_ns)[:, np.newaxis]
        return teme_to_itrs(towards, sidereal_angle_rad(start, self.samples_ns))[:, 0].astype("<f4")

    @property
    def states(self) -> list[list[tuple[float, float, float, float]]]:
        """When each link is up: from, until (s), the delay at first (ms), and the rate from a to b at first (Mbit/s).

        Rates are those that links are shaped to.
        """
        plan, contacts = self.planned.link_plan, find_contacts(self.planned.link_plan)
        found: list[list[tuple[float, float, float, float]]] = [[] for _ in plan.links.a]
        for link, begin_ns, end_ns in zip(contacts.link.tolist(), contacts.start_ns.tolist(), contacts.end_ns.tolist()):
            row, _ = plan.rows_of(begin_ns // plan.grid.step_ns, [link])
            delay_ms = int(row.delay_ns[0]) / NS_PER_MS
            rate_mbit_s = int(row.rate_ab_bit_s[0]) * plan.rate_scale / 1e6
            found[link].append((begin_ns / NS_PER_S, end_ns / NS_PER_S, delay_ms, rate_mbit_s))
        return found

    @property
    def _bucket_ns(self) -> int:
        """The length of time over which load is told: whole steps, no less than the interval of the counters."""
        grid, interval_ns = self.planned.link_plan.grid, self.planned.scenario.counters.interval_ns
        least_ns = max(interval_ns, -(-grid.duration_ns // MOST_BUCKETS))
        return -(-least_ns // grid.step_ns) * grid.step_ns

    @cached_property
    def load(self) -> np.ndarray | None:
        """How busy each direction of each link was: bits sent over what it could have carried, 0 to 1, float32.

        Shape (2L, B): row 2 x link is from its a to its b, the next one back. None if the run did not record it.
        """
        table = self.concluded.table(LINKS_JOURNAL) if self.concluded else None
        if table is None:
            return None
        plan, bucket_ns = self.planned.link_plan, self._bucket_ns
        shape = 2 * len(plan.links.a), -(-plan.grid.duration_ns // bucket_ns)
        could_bit, sent_bit = np.zeros(shape), np.zeros(shape)
        for piece in plan.pieces():
            end, bucket = 2 * plan.row_link[piece.rows], piece.k * plan.grid.step_ns // bucket_ns
            for side, rates in enumerate((plan.row_rate_ab_bit_s, plan.row_rate_ba_bit_s)):
                carried = rates[piece.rows] * (plan.rate_scale * plan.grid.step_ns / NS_PER_S)
                np.add.at(could_bit, (end + side, bucket), carried)
        ends = self._ends_of(table["node"], table["peer"])
        t_ns, sent_byte = table["t_ns"].to_numpy(), table["sent_byte"].to_numpy()
        order = np.lexsort([t_ns, ends])
        ends, t_ns, sent_byte = ends[order], t_ns[order], sent_byte[order]
        more = np.where(np.diff(ends, prepend=-1) == 0, np.diff(sent_byte, prepend=0), sent_byte)
        np.add.at(sent_bit, (ends, np.clip((t_ns - 1) // bucket_ns, 0, shape[1] - 1)), more * 8.0)
        used = np.divide(sent_bit, could_bit, out=np.zeros(shape), where=could_bit > 0)
        return np.clip(used, 0.0, 1.0).astype("<f4")

    def _ends_of(self, nodes: Any, peers: Any) -> Ints:
        """The numbers of link ends, from columns with the names of the node and its peer."""
        a, b = (
            np.array([self._index[name] for name in column.to_pylist()], dtype=np.int64) for column in (nodes, peers)
        )
        links, count = self.planned.link_plan.links, len(self.planned.nodes)
        keys = links.a.astype(np.int64) * count + links.b
        link = np.searchsorted(keys, np.minimum(a, b) * count + np.maximum(a, b))
        return 2 * link + (a > b)

    def node(self, number: int, t_s: float) -> dict[str, Any]:
        """The numbers of a node at a time, and its series.

        Raises:
            ScenarioError: there is no such node.
        """
        if not 0 <= number < len(self.planned.nodes):
            last = len(self.planned.nodes) - 1
            raise ScenarioError(f"node: is {number}, but the plan has those from 0 to {last}; name one by its number")
        plan, k = self.planned.link_plan, self._instant(t_s)
        own = np.flatnonzero((plan.links.a == number) | (plan.links.b == number))
        up = [link for link in plan.snapshot(k).link.tolist() if link in set(own.tolist())]
        place = places_itrs_km(self.planned.scenario, plan.grid.start, plan.grid.offsets_ns[k : k + 1])[0, number]
        latitude_rad, longitude_rad, height_km = (float(one) for one in geodetic(place))
        (about,) = list(self._nodes())[number : number + 1]
        figures = {
            "kind": about["kind"],
            "shell": about["shell"],
            "roles": ", ".join(about["roles"]) or None,
            "latitude": f"{np.degrees(latitude_rad):.2f} deg",
            "longitude": f"{np.degrees(longitude_rad):.2f} deg",
            "height": f"{height_km:,.1f} km",
            "links up": f"{len(up)} of {len(own)}",
            "linked to": ", ".join(self._peer(link, number) for link in up) or "none",
        }
        contacts, change = find_contacts(plan), np.zeros(plan.grid.count + 1, np.int64)
        of_node = np.isin(contacts.link, own)
        for t_ns, by in ((contacts.start_ns, 1), (contacts.end_ns, -1)):
            np.add.at(change, t_ns[of_node] // plan.grid.step_ns, by)
        counts = np.cumsum(change)[:-1]
        series = [self._thinned("links up", "links", counts.astype(np.float64)), *self._loads_of_node(number, own)]
        return _told(self.planned.nodes[number], figures, series)

    def link(self, a: int, b: int, t_s: float) -> dict[str, Any]:
        """The numbers of a link at a time, why it is down if it is, and its series.

        Raises:
            ScenarioError: the plan never links these nodes.
        """
        plan = self.planned.link_plan
        a, b = sorted((a, b))
        found = np.flatnonzero((plan.links.a == a) & (plan.links.b == b))
        if not len(found):
            raise ScenarioError(f"link: is between nodes {a} and {b}, but the plan never links them; name one of its")
        link, k, names = int(found[0]), self._instant(t_s), self.planned.nodes
        instants, rows = plan.rows_of_link(link)
        delay_ms, rates = np.full(plan.grid.count, np.nan), np.zeros((2, plan.grid.count))
        delay_ms[instants] = rows.delay_ns / NS_PER_MS
        for side, rate_bit_s in enumerate((rows.rate_ab_bit_s, rows.rate_ba_bit_s)):
            rates[side, instants] = rate_bit_s * plan.rate_scale / 1e6
        figures: dict[str, Any] = {"kind": LinkKind(int(plan.links.kind[link])).name.lower().replace("_", " ")}
        if np.isnan(delay_ms[k]):
            again = comes_back(plan, link, k)
            figures |= {
                "state": LinkState(int(plan.events.states(k, len(plan.links.a))[link])).name.lower(),
                "down because": why_down(self.planned.scenario, plan, link, k),
                "comes back": "not before the end" if again is None else f"{again * plan.grid.step_ns / NS_PER_S:g} s",
            }
        else:
            figures |= {
                "state": "up",
                "delay, one way": f"{delay_ms[k]:.3f} ms",
                "as light goes": f"{delay_ms[k] / 1e3 * LIGHT_KM_S:,.0f} km",
                f"rate from {names[a]}": f"{rates[0, k]:,.6g} Mbit/s",
                f"rate from {names[b]}": f"{rates[1, k]:,.6g} Mbit/s",
            }
        series = [self._thinned("delay, one way", "ms", delay_ms), self._thinned("rate", "Mbit/s", rates[0])]
        if (load := self.load) is not None:
            for side, name in enumerate((names[a], names[b])):
                series.append(self._load_series(f"load from {name}", load[2 * link + side]))
                figures[f"load from {name}"] = f"{load[2 * link + side, self._bucket(t_s)]:.1%}"
        return _told(f"{names[a]} - {names[b]}", figures, series)

    def _instant(self, t_s: float) -> int:
        """The instant at a time; the first or last one for what is before or after the plan."""
        grid = self.planned.link_plan.grid
        return grid.instant_at(round(min(max(t_s, 0.0), self.duration_s) * NS_PER_S))

    def _bucket(self, t_s: float) -> int:
        last = -(-self.planned.link_plan.grid.duration_ns // self._bucket_ns) - 1
        return min(round(min(max(t_s, 0.0), self.duration_s) * NS_PER_S) // self._bucket_ns, last)

    def _peer(self, link: int, number: int) -> str:
        a, b = int(self.planned.link_plan.links.a[link]), int(self.planned.link_plan.links.b[link])
        return self.planned.nodes[b if a == number else a]

    def _loads_of_node(self, number: int, own: np.ndarray) -> Iterator[Series]:
        """How busy the busiest of its links was."""
        if (load := self.load) is not None and len(own):
            yield self._load_series(
                "load of its busiest link", load[np.concatenate([2 * own, 2 * own + 1])].max(axis=0)
            )

    def _load_series(self, label: str, ratio: np.ndarray) -> Series:
        return Series(label, "%", np.arange(len(ratio)) * (self._bucket_ns / NS_PER_S), ratio * 100.0)

    def _thinned(self, label: str, unit: str, values: Floats) -> Series:
        """A value of each instant, of so few of them that a page can draw it."""
        every = -(-len(values) // MOST_BUCKETS)
        step_s = self.planned.link_plan.grid.step_ns / NS_PER_S
        return Series(label, unit, np.arange(0, len(values), every) * step_s, values[::every])


def _told(name: str, figures: dict[str, Any], series: Sequence[Series]) -> dict[str, Any]:
    told = [{"label": label, "value": value} for label, value in figures.items() if value is not None]
    return {"name": name, "figures": told, "series": [one.to_json() for one in series]}
