"""The plan as CZML for Cesium: nodes where they are, links while they are up; one JSON document that names no address.

Positions are sampled in the Earth-fixed frame, at most a minute apart; Cesium interpolates them by a polynomial of
degree 5, which at low orbits is wrong by less than a metre.

Source: the CZML guide of AnalyticalGraphicsInc/czml-writer, version 1.0 of the format.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from itertools import groupby
from typing import Any

import numpy as np

from isl_emu.geometry.places import places_itrs_km
from isl_emu.linkplan.contacts import find_contacts
from isl_emu.linkplan.plan import LinkKind, LinkPlan, NodeKind
from isl_emu.scenario.model import Scenario
from isl_emu.units import NS_PER_S

DEGREE = 5
SAMPLES_APART_NS = 60 * NS_PER_S
LABELS_UP_TO = 100  # satellites: more names than that hide the picture
SATELLITE_RGBA, STATION_RGBA = [86, 180, 233, 255], [230, 159, 0, 255]  # Okabe and Ito's colours for all eyes
LINK_RGBA = {
    LinkKind.INTRA_PLANE: [0, 158, 115, 160],
    LinkKind.INTER_PLANE: [204, 121, 167, 160],
    LinkKind.GROUND: [240, 228, 66, 200],
    LinkKind.INTER_SHELL: [213, 94, 0, 160],
    LinkKind.TERRESTRIAL: [255, 255, 255, 160],
}


def czml_text(plan: LinkPlan, scenario: Scenario) -> str:
    """The CZML document of a plan and the scenario that it was made from."""
    whole, start = _span(plan, 0, plan.grid.duration_ns), _iso(plan.grid.start)
    clock = {"interval": whole, "currentTime": start, "multiplier": 10, "range": "LOOP_STOP"}
    document = {"id": "document", "name": scenario.name, "version": "1.0", "clock": clock}
    packets = [document, *_nodes(plan, scenario), *_links(plan)]
    return "[\n" + ",\n".join(json.dumps(packet, separators=(",", ":")) for packet in packets) + "\n]\n"


def _nodes(plan: LinkPlan, scenario: Scenario) -> Iterator[dict[str, Any]]:
    # evenly from the start to the end, at most a minute apart and enough for the polynomial
    count = max(DEGREE + 2, -(-plan.grid.duration_ns // SAMPLES_APART_NS) + 1)
    offsets_ns = np.round(np.linspace(0, plan.grid.duration_ns, count)).astype(np.int64)
    r_m = np.round(places_itrs_km(scenario, plan.grid.start, offsets_ns) * 1000, 1)
    satellites = int((plan.nodes.kind == NodeKind.SATELLITE).sum())
    for node, name in enumerate(plan.nodes.names):
        known = _known(r_m[:, node])
        spans = [_span(plan, int(offsets_ns[some][0]), int(offsets_ns[some][-1])) for some in known]
        packet: dict[str, Any] = {"id": name, "name": name, "availability": spans[0] if len(spans) == 1 else spans}
        if not spans:
            yield {**packet, "description": "without a position"}
            continue
        parts = [_position(plan, offsets_ns[some], r_m[some, node]) for some in known]
        whole = len(parts) == 1
        packet["position"] = parts[0] if whole else [{"interval": span, **part} for span, part in zip(spans, parts)]
        is_satellite = node < satellites
        color = {"rgba": SATELLITE_RGBA if is_satellite else STATION_RGBA}
        packet["point"] = {"pixelSize": 5 if is_satellite else 9, "color": color}
        if not is_satellite and "epoch" in packet["position"]:  # it moves
            packet["path"] = {"width": 2, "resolution": 60, "material": {"solidColor": {"color": color}}}
        if not is_satellite or satellites <= LABELS_UP_TO:
            offset = {"cartesian2": [8, 0]}
            packet["label"] = {
                "text": name, "font": "11pt sans-serif", "horizontalOrigin": "LEFT", "pixelOffset": offset
            }  # fmt: skip
        yield packet


def _known(r_m: np.ndarray) -> list[slice]:
    """The runs of instants at which a node has a position, of at least two: between runs it is not there."""
    edges = np.flatnonzero(np.diff(np.isfinite(r_m).all(axis=1), prepend=False, append=False))
    return [slice(begin, end) for begin, end in edges.reshape(-1, 2).tolist() if end - begin > 1]


def _position(plan: LinkPlan, offsets_ns: np.ndarray, r_m: np.ndarray) -> dict[str, Any]:
    """A point that stands still, or samples of one that moves."""
    if (r_m == r_m[0]).all():
        return {"cartesian": r_m[0].tolist()}
    seconds = offsets_ns / NS_PER_S
    samples = np.column_stack([seconds, r_m]).ravel().tolist()
    shape = {"interpolationAlgorithm": "LAGRANGE", "interpolationDegree": DEGREE, "referenceFrame": "FIXED"}
    return {"epoch": _iso(plan.grid.start), **shape, "cartesian": samples}


def _links(plan: LinkPlan) -> Iterator[dict[str, Any]]:
    contacts = find_contacts(plan)
    rows = zip(contacts.link.tolist(), contacts.start_ns.tolist(), contacts.end_ns.tolist())
    for link, group in groupby(rows, key=lambda row: row[0]):
        a, b = (plan.nodes.names[int(ends[link])] for ends in (plan.links.a, plan.links.b))
        color = {"rgba": LINK_RGBA[LinkKind(plan.links.kind[link])]}
        yield {
            "id": f"link/{a}/{b}",
            "name": f"{a} - {b}",
            "availability": [_span(plan, start_ns, end_ns) for _, start_ns, end_ns in group],
            "polyline": {
                "positions": {"references": [f"{a}#position", f"{b}#position"]},
                "arcType": "NONE",
                "width": 1,
                "material": {"solidColor": {"color": color}},
            },
        }


def _span(plan: LinkPlan, start_ns: int, end_ns: int) -> str:
    return f"{_iso(plan.grid.utc(start_ns))}/{_iso(plan.grid.utc(end_ns))}"


def _iso(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
