"""What a node knows of itself at an instant of the plan: without a clock, a network or a file."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

import numpy as np

from isl_emu.arrays import Floats
from isl_emu.geometry.frames import itrs_to_teme, sidereal_angle_rad
from isl_emu.geometry.places import geodetic, places_itrs_km
from isl_emu.geometry.sunlight import in_shadow, sun_direction
from isl_emu.linkplan.contacts import find_contacts
from isl_emu.linkplan.plan import LinkPlan, NodeKind
from isl_emu.network.naming import ipv4_address, ipv6_address, wire
from isl_emu.routing.forwarding import RoutePlan
from isl_emu.routing.paths import PathFinder
from isl_emu.scenario.model import Scenario
from isl_emu.units import NS_PER_S

MOST_CONTACTS = 16  # that are told before they begin
MOST_INSTANTS = 1_000  # ahead of now, over which a path is followed
HALF_STEP_NS = NS_PER_S // 2  # before and after an instant: a velocity is the difference of both places

Record = dict[str, Any]


class NodeViews:
    """What nodes of a run know of themselves, at instants in any order; those of one instant share what is computed.

    Links are as those know them who choose routes, and contacts as the sky has them: no fault is known beforehand.

    Args:
        clock: of the run, "exact" or "real".
    """

    def __init__(self, scenario: Scenario, plan: LinkPlan, routes: RoutePlan, clock: str):
        self._scenario, self._plan, self._clock = scenario, plan, clock
        self._wiring, self._finder = wire(plan), PathFinder(plan, routes)
        self._ends = self._wiring.ends_by_node(len(plan.nodes.names))
        contacts = find_contacts(plan.sky)
        bounds = np.searchsorted(contacts.link, np.arange(len(plan.links.a) + 1)).tolist()
        spans = list(zip(contacts.start_ns.tolist(), contacts.end_ns.tolist()))
        self._contacts = [spans[first:last] for first, last in zip(bounds, bounds[1:])]  # of each link, in order
        self._k, self._rows = -1, dict[int, int]()  # of the links of `_now`
        self._itrs_km = self._itrs_km_s = self._teme_km = self._teme_km_s = self._sun = np.empty(0)

    def of(self, node: int, k: int, energy: Mapping[str, Record]) -> Record:
        """What a node knows at instant `k`.

        Args:
            energy: of satellites with power, the last row of the table of that.
        """
        self._go_to(k)
        plan, name, t_ns = self._plan, self._plan.nodes.names[node], k * self._plan.grid.step_ns
        links = [self._link(node, end) for end in self._ends[node].tolist() if end // 2 in self._rows]
        return {
            "name": name,
            "kind": NodeKind(int(plan.nodes.kind[node])).name.lower(),
            "addresses": [ipv4_address(node), ipv6_address(node)],
            "scenario": self._scenario.name,
            "time": self._time(t_ns),
            **self._place(node),
            "sun": self._sunlight(node),
            "battery": energy.get(name),
            "neighbours": [link["to"] for link in links],
            "links": links,
            "rate_scale": plan.rate_scale,
            "next_contacts": self._next_contacts(node, t_ns),
        }

    def ways(self, node: int, destination: int, k: int) -> Record:
        """The paths from a node to another from instant `k` on, each with how long packets will take it."""
        step_ns, names, ways = self._plan.grid.step_ns, self._plan.nodes.names, list[Record]()
        end = min(self._plan.grid.count, k + MOST_INSTANTS)
        for instant in range(k, end):
            path = self._finder.path(node, destination, instant)
            nodes = [names[number] for number in path.nodes] if path else None
            if not ways or ways[-1]["nodes"] != nodes:
                delay_ns = path.delay_ns if path else None
                ways.append({"from_ns": instant * step_ns, "until_ns": 0, "nodes": nodes, "delay_ns": delay_ns})
            ways[-1]["until_ns"] = (instant + 1) * step_ns
        return {"from": names[node], "to": names[destination], "ways": ways}

    def _time(self, t_ns: int) -> Record:
        grid = self._plan.grid
        return {
            "utc": grid.utc(t_ns).isoformat(),
            "t_ns": t_ns,
            "until_ns": t_ns + grid.step_ns,
            "start_utc": grid.start.isoformat(),
            "end_ns": grid.duration_ns,
            "clock": self._clock,
            "slowdown": self._scenario.time.slowdown,
        }

    def _go_to(self, k: int) -> None:
        """Compute what all nodes share at an instant."""
        if k == self._k:
            return
        known, grid = self._plan.known, self._plan.grid
        self._now = known.snapshot(k)
        self._rows = {link: row for row, link in enumerate(self._now.link.tolist())}
        t_ns = k * grid.step_ns
        offsets_ns = np.array([t_ns - HALF_STEP_NS, t_ns, t_ns + HALF_STEP_NS])
        itrs_km = places_itrs_km(self._scenario, grid.start, offsets_ns)
        turned = sidereal_angle_rad(grid.start, offsets_ns)
        teme_km = np.stack([itrs_to_teme(places, angle) for places, angle in zip(itrs_km, turned)])
        self._itrs_km, self._itrs_km_s = itrs_km[1], itrs_km[2] - itrs_km[0]
        self._teme_km, self._teme_km_s = teme_km[1], teme_km[2] - teme_km[0]
        self._sun = sun_direction(grid.start, offsets_ns)[1]
        self._k = k

    def _place(self, node: int) -> Record:
        if np.isnan(self._itrs_km[node]).any():  # its elements do not hold here, and the scenario masks it
            return {"position": None, "velocity": None}
        latitude_rad, longitude_rad, height_km = geodetic(self._itrs_km[node])
        return {
            "position": {
                "latitude_deg": round(float(np.degrees(latitude_rad)), 9),
                "longitude_deg": round(float(np.degrees(longitude_rad)), 9),
                "altitude_km": round(float(height_km), 6),
                "itrs_km": _rounded(self._itrs_km[node]),
                "teme_km": _rounded(self._teme_km[node]),
            },
            "velocity": {"itrs_km_s": _rounded(self._itrs_km_s[node]), "teme_km_s": _rounded(self._teme_km_s[node])},
        }

    def _sunlight(self, node: int) -> Record:
        """Of a satellite whether the Earth hides the Sun; of all others whether the Sun is below their horizon."""
        place = self._teme_km[node]
        if self._plan.nodes.kind[node] == NodeKind.SATELLITE:
            dark = bool(in_shadow(place, self._sun))
        else:
            dark = bool(place @ self._sun < 0.0)
        return {"eclipse": dark, "direction_teme": _rounded(self._sun)}

    def _link(self, node: int, end: int) -> Record:
        link, plan = end // 2, self._plan
        row, spans = self._rows[link], self._contacts[link]
        now, t_ns = self._now, self._k * plan.grid.step_ns
        rates = int(now.rate_ab_bit_s[row]), int(now.rate_ba_bit_s[row])
        send, receive = rates if end % 2 == 0 else rates[::-1]
        contact = bisect_right(spans, (t_ns, self._plan.grid.duration_ns)) - 1
        return {
            "to": plan.nodes.names[int(self._wiring.peer[end])],
            "interface": self._wiring.interface[end],
            "delay_ns": int(now.delay_ns[row]),
            "send_rate_bit_s": send,
            "receive_rate_bit_s": receive,
            "loss_ratio": float(now.loss_ratio[row]),
            "until_ns": spans[contact][1] if contact >= 0 else None,
        }

    def _next_contacts(self, node: int, t_ns: int) -> list[Record]:
        coming = [
            (start_ns, end_ns, self._plan.nodes.names[int(self._wiring.peer[end])])
            for end in self._ends[node].tolist()
            for start_ns, end_ns in self._contacts[end // 2]
            if start_ns > t_ns
        ]
        told = sorted(coming)[:MOST_CONTACTS]
        return [{"to": peer, "from_ns": start_ns, "until_ns": end_ns} for start_ns, end_ns, peer in told]


def _rounded(vector: Floats) -> list[float]:
    """To the millimetre, where it is in km."""
    return [round(number, 6) for number in vector.tolist()]
