"""What a user has changed on links by hand, laid over what the plan says of them: a pure module.

An override lasts while the plan moves on beneath it: factors are those of the plan's delay and rate at each instant. A
link that is down by the plan stays so. Routes know nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from isl_emu.errors import NetworkError
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.network.desired import HEADER_BYTE, queue_byte, shaped_rate_bit_s
from isl_emu.units import DURATION_NS, NS_PER_S, RATE_BIT_S, format_quantity

LEAST_FACTOR, MOST_FACTOR = 1e-9, 1000.0  # as of a fault in a scenario
MOST_JITTER_NS = 2 * NS_PER_S  # as of a fault in a scenario
LONGEST_DELAY_NS = 60 * NS_PER_S
LEAST_RATE_BIT_S, MOST_RATE_BIT_S = 1_000, 10**15  # as in a scenario


@dataclass(frozen=True)
class Override:
    """What is changed on some links.

    Args:
        links: numbers in the plan.
        cut: nothing gets through.
        loss_ratio, corruption_ratio, duplication_ratio, jitter_ns: of packets, in place of the plan's.
        rate_factor, delay_factor: of what the plan says at each instant.
        delay_ns, rate_bit_s: in place of the plan's; the rate is physical, as in a scenario.

    Raises:
        NetworkError: a value that cannot be, or none at all.
    """

    links: tuple[int, ...]
    cut: bool = False
    loss_ratio: float | None = None
    corruption_ratio: float | None = None
    duplication_ratio: float | None = None
    jitter_ns: int | None = None
    rate_factor: float | None = None
    delay_factor: float | None = None
    delay_ns: int | None = None
    rate_bit_s: int | None = None

    def __post_init__(self) -> None:
        bounds = (
            ("loss", self.loss_ratio, 0, 1),
            ("corruption", self.corruption_ratio, 0, 1),
            ("duplication", self.duplication_ratio, 0, 1),
            ("jitter", self.jitter_ns, 0, MOST_JITTER_NS),
            ("rate_factor", self.rate_factor, LEAST_FACTOR, MOST_FACTOR),
            ("delay_factor", self.delay_factor, LEAST_FACTOR, MOST_FACTOR),
            ("delay", self.delay_ns, 0, LONGEST_DELAY_NS),
            ("rate", self.rate_bit_s, LEAST_RATE_BIT_S, MOST_RATE_BIT_S),
        )
        for name, value, low, high in bounds:
            if value is not None and not low <= value <= high:
                raise NetworkError(f"{name}: is {value:g}, but it is {low:g} to {high:g}; give another")
        if not self.text():
            raise NetworkError("link: nothing is to be changed, but delay, rate or loss can be; give one")

    def text(self) -> str:
        """It in a few words."""
        said = [
            "cut" if self.cut else None,
            None if self.delay_ns is None else f"delay {format_quantity(self.delay_ns, DURATION_NS)}",
            None if self.rate_bit_s is None else f"rate {format_quantity(self.rate_bit_s, RATE_BIT_S)}",
            None if self.loss_ratio is None else f"loss {self.loss_ratio:g}",
            None if self.corruption_ratio is None else f"corruption {self.corruption_ratio:g}",
            None if self.duplication_ratio is None else f"duplication {self.duplication_ratio:g}",
            None if self.jitter_ns is None else f"jitter {format_quantity(self.jitter_ns, DURATION_NS)}",
            None if self.rate_factor is None else f"rate x {self.rate_factor:g}",
            None if self.delay_factor is None else f"delay x {self.delay_factor:g}",
        ]
        return ", ".join(filter(None, said))


def least_delay_ns(plan: LinkPlan, link: int, overrides: Sequence[Override]) -> int:
    """No packet is on a link for less, at any instant, whichever of some overrides of it are in force; less than 0 too.

    It may be less than there ever is, as jitters and factors are taken for all delays alike.
    """
    _, planned = plan.rows_of_link(link)
    set_ns = [one.delay_ns for one in overrides if one.delay_ns is not None]
    delay_ns = min([*planned.delay_ns.tolist(), *set_ns], default=LONGEST_DELAY_NS)
    jitter_ns = max([*planned.jitter_ns.tolist(), *(one.jitter_ns or 0 for one in overrides)], default=0)
    factor = prod(min(one.delay_factor, 1.0) for one in overrides if one.delay_factor is not None)
    return int(delay_ns * factor) - jitter_ns


def overridden(
    ends: np.ndarray, overrides: Sequence[Override], plan: LinkPlan, bias_ns: int, slowdown: float = 1.0
) -> np.ndarray:
    """All ends as they should be with the overrides on them, of which later ones go before; END, shape (2L,).

    Args:
        ends: as the plan says, of `desired.ends_at`.
        bias_ns, slowdown: as of `desired.ends_at`.
    """
    if not overrides:
        return ends
    changed: np.ndarray = ends.copy()
    for one in overrides:
        which = np.repeat(2 * np.array(one.links), 2)
        which[1::2] += 1
        rows = changed[which]
        rows["up"] &= not one.cut
        for name in ("loss_ratio", "corruption_ratio", "duplication_ratio"):
            if (ratio := getattr(one, name)) is not None:
                rows[name] = ratio
        if one.jitter_ns is not None:
            rows["jitter_ns"] = round(one.jitter_ns * slowdown)
        delay_ns = rows["delay_ns"] + bias_ns
        if one.delay_ns is not None:
            delay_ns = np.full(len(rows), round(one.delay_ns * slowdown))
        if one.delay_factor is not None:
            delay_ns = np.rint(delay_ns * one.delay_factor).astype(np.int64)
        rows["delay_ns"] = np.maximum(delay_ns - bias_ns, 0)
        if one.rate_bit_s is not None:
            rate = np.full(len(rows), one.rate_bit_s)
            rows["rate_bit_s"] = shaped_rate_bit_s(rate, plan.rate_scale / slowdown)
        if one.rate_factor is not None:
            rows["rate_bit_s"] = shaped_rate_bit_s(rows["rate_bit_s"], one.rate_factor)
        if one.rate_bit_s is not None or one.rate_factor is not None:
            queue_ns, frames = (np.repeat(of[list(one.links)], 2) for of in (plan.links.queue_ns, plan.links.mtu_byte))
            rows["queue_byte"] = queue_byte(rows["rate_bit_s"] * slowdown, queue_ns, frames + HEADER_BYTE)
        changed[which] = rows
    return changed
