"""What the pictures and the text say of a plan, as arrays over its K instants."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isl_emu.linkplan.plan import LinkKind, LinkPlan, NodeKind
from isl_emu.units import NS_PER_S, SPEED_OF_LIGHT_KM_S


@dataclass(frozen=True)
class Degrees:
    """How many links satellites have at each instant; arrays of shape (K,)."""

    mean: np.ndarray  # float64
    least: np.ndarray  # int64
    most: np.ndarray  # int64


@dataclass(frozen=True)
class LinkSeries:
    """One link over time; arrays of shape (K,), nan while it is down."""

    range_km: np.ndarray  # float64
    rate_ab_bit_s: np.ndarray  # float64
    rate_ba_bit_s: np.ndarray  # float64


def degrees(plan: LinkPlan) -> Degrees:
    """The links of a satellite to satellites and stations, over all satellites."""
    satellites = int((plan.nodes.kind == NodeKind.SATELLITE).sum())
    counts = np.zeros((3, plan.grid.count))
    for k in range(plan.grid.count):
        link = plan.row_link[plan.row_start[k] : plan.row_start[k + 1]]
        ends = np.concatenate([plan.links.a[link], plan.links.b[link]])
        of_each = np.bincount(ends, minlength=len(plan.nodes.names))[:satellites]
        counts[:, k] = of_each.mean(), of_each.min(), of_each.max()
    return Degrees(counts[0], counts[1].astype(np.int64), counts[2].astype(np.int64))


def link_series(plan: LinkPlan, link: int) -> LinkSeries:
    """Range, whatever faults there are, and physical rates of link number `link`."""

    range_km, rates_bit_s = np.full(plan.grid.count, np.nan), np.full((2, plan.grid.count), np.nan)
    k, rows = plan.sky.rows_of_link(link)
    range_km[k] = rows.delay_ns / NS_PER_S * SPEED_OF_LIGHT_KM_S
    k, rows = plan.rows_of_link(link)
    rates_bit_s[:, k] = rows.rate_ab_bit_s, rows.rate_ba_bit_s
    return LinkSeries(range_km, *rates_bit_s)


def telling_links(plan: LinkPlan, of_each_kind: int = 2) -> list[int]:
    """Of each kind the links whose delay changes most (ties: the lower index), for pictures that show a few."""
    plan = plan.sky
    least_ns, most_ns = np.full(len(plan.links.a), np.iinfo(np.int64).max), np.zeros(len(plan.links.a), np.int64)
    for piece in plan.pieces():
        np.minimum.at(least_ns, plan.row_link[piece.rows], plan.row_delay_ns[piece.rows])
        np.maximum.at(most_ns, plan.row_link[piece.rows], plan.row_delay_ns[piece.rows])
    swing_ns = most_ns - least_ns
    chosen = []
    for kind in LinkKind:
        of_kind = np.flatnonzero(plan.links.kind == kind)
        chosen += of_kind[np.argsort(-swing_ns[of_kind], kind="stable")][:of_each_kind].tolist()
    return chosen
