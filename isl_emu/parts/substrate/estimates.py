"""What lies below the links between guests in real time, by the probes that guests send each other; pure.

A frame goes ahead to the other guest with the time at which it is due there. So what it takes on its way is in no
delay, unless it takes longer than its link does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.machine.trunks import Clocks, Frames, ProbeTaken
from isl_emu.partition.cut import NO_LINK, least_delays_ns
from isl_emu.parts.finished_run import Rows
from isl_emu.tables.schema import COUNT, NS, column, schema
from isl_emu.tables.text import share, time_text
from isl_emu.units import NS_PER_MS

SUBSTRATE = schema(
    column("t_ns", NS, "ns", "end of the second that the row describes; before 0 when it was measured at the start"),
    column("from_guest", COUNT, "", "guest that sends"),
    column("to_guest", COUNT, "", "guest that receives"),
    column("probes", COUNT, "", "probes between the two kernels that arrived"),
    column("delay_least_ns", NS, "ns", "the least that one took; null without any"),
    column("delay_q1_ns", NS, "ns", "lower quartile of what they took"),
    column("delay_p50_ns", NS, "ns", "median of what they took"),
    column("delay_most_ns", NS, "ns", "the most that one took"),
    column("apart_ns", NS, "ns", "by how much the receiver's clock was ahead of the sender's; null if not known"),
    column("uncertainty_ns", NS, "ns", "how wrong apart may be; one-way figures of what crosses are as uncertain"),
    column("frames", NS, "packets", "frames of links that have come since the guests booted"),
    column("late_frames", NS, "packets", "those of them that came after they were due"),
    column("latest_ns", NS, "ns", "by how much a frame of this second was late at most; 0 if none was"),
)
MOST_LATE_RATIO = 0.01  # of all frames in one direction


@dataclass(frozen=True)
class Apart:
    """By how much a receiver's clock is ahead of a sender's, ns, and how wrong that may be."""

    apart_ns: int
    uncertainty_ns: int


def apart_on_one_machine(own: Clocks, senders_ahead_ns: int) -> Apart:
    """Of two guests that both know by how much the machine's clock is ahead of theirs; its readings are alike."""
    return Apart(senders_ahead_ns - own.ahead_ns, 2 * own.uncertainty_ns)


def apart_by_round_trips(took_here_ns: int, took_there_ns: int) -> Apart:
    """Of guests on two machines, by what probes took in both directions, each by both clocks (RFC 5905, section 8).

    That both directions take as long is assumed; if all the way were in one of them it would be wrong by half a round
    trip, its uncertainty.
    """
    return Apart((took_here_ns - took_there_ns) // 2, max(took_here_ns + took_there_ns + 1, 0) // 2)


def substrate_row(
    own: int, peer: int, probes: Sequence[ProbeTaken], apart: Apart | None, frames: Frames
) -> dict[str, Any]:
    """A row of `SUBSTRATE` but for its time: what a second's probes from a peer say."""
    took_ns = np.array([probe.took_ns for probe in probes], dtype=np.int64) - (apart.apart_ns if apart else 0)
    q0, q1, p50, q4 = (
        (None,) * 4 if not len(took_ns) else np.quantile(took_ns, (0, 0.25, 0.5, 1)).astype(np.int64).tolist()
    )
    return {
        "from_guest": peer, "to_guest": own, "probes": len(probes),
        "delay_least_ns": q0, "delay_q1_ns": q1, "delay_p50_ns": p50, "delay_most_ns": q4,
        "apart_ns": apart and apart.apart_ns, "uncertainty_ns": apart and apart.uncertainty_ns,
        "frames": frames.came, "late_frames": frames.late, "latest_ns": frames.latest_ns,
    }  # fmt: skip


class ShortestLink(NamedTuple):
    """Of all links between two guests the one that ever takes the least, and how long."""

    name: str
    delay_ns: int


def shortest_link(plan: LinkPlan, part: np.ndarray, guests: tuple[int, int]) -> ShortestLink | None:
    """The shortest link between two guests at any instant, faults or not; None if none is ever up.

    Args:
        part: of each node, int32 (N,).
    """
    a, b, names = part[plan.links.a], part[plan.links.b], plan.nodes.names
    between = (np.minimum(a, b) == min(guests)) & (np.maximum(a, b) == max(guests))
    least_ns = np.where(between, least_delays_ns(plan), NO_LINK)
    if not len(least_ns) or least_ns.min() == NO_LINK:
        return None
    link = int(least_ns.argmin())
    return ShortestLink(f"{names[plan.links.a[link]]} - {names[plan.links.b[link]]}", int(least_ns[link]))


def too_short(link: str, shaped_ns: int, peer: int, own: int, delay_ns: int) -> str | None:
    """Why a run is refused of which a link is shorter than what its frames take; None if it is not.

    Args:
        link: the shortest one from the peer to us, by its name.
        shaped_ns: the least delay that it is given.
        delay_ns: what probes take as a rule, their median.
    """
    if delay_ns < shaped_ns:
        return None
    return (
        f"link {link}: takes {shaped_ns / NS_PER_MS:.3f} ms at its shortest, but what goes from guest {peer} to guest "
        f"{own} takes {delay_ns / NS_PER_MS:.3f} ms here; use fewer guests, a larger time.slowdown, a machine with "
        "less to do, or exact time"
    )


@dataclass(frozen=True)
class DirectionFidelity:
    """What lay below the links from one guest to another, over the whole run; null where nothing is known.

    Args:
        delay_q1_ns: lower quartile of what probes took, of the median second; `delay_most_ns` of the worst.
        apart_most_ns: by how much the clocks were apart at most, and `uncertainty_ns` how wrong that may be.
        late_ratio: share of frames that were late, and `latest_ns` by how much one was at most.
    """

    from_guest: int
    to_guest: int
    probes: int
    delay_q1_ns: float | None
    delay_most_ns: int | None
    apart_most_ns: int | None
    uncertainty_ns: int | None
    frames: int
    late_frames: int
    late_ratio: float | None
    latest_ns: int

    @property
    def unsure_ns(self) -> int | None:
        """How wrong one-way figures of what crosses may be, since the clocks are."""
        if self.apart_most_ns is None or self.uncertainty_ns is None:
            return None
        return self.apart_most_ns + self.uncertainty_ns


def substrate_fidelity(rows: Rows) -> list[DirectionFidelity]:
    """Of each direction, by the rows of `SUBSTRATE`; what was late before instant 0 is not counted."""
    directions: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        directions.setdefault((row["from_guest"], row["to_guest"]), []).append(row)
    return [_direction(*pair, own) for pair, own in sorted(directions.items())]


def _direction(from_guest: int, to_guest: int, rows: Rows) -> DirectionFidelity:
    def known(key: str) -> list[int]:
        return [row[key] for row in rows if row[key] is not None]

    frames, late = (rows[-1][key] - rows[0][key] for key in ("frames", "late_frames"))
    return DirectionFidelity(
        from_guest,
        to_guest,
        probes=sum(known("probes")),
        delay_q1_ns=float(np.median(quartiles)) if (quartiles := known("delay_q1_ns")) else None,
        delay_most_ns=max(known("delay_most_ns"), default=None),
        apart_most_ns=max(map(abs, known("apart_ns")), default=None),
        uncertainty_ns=max(known("uncertainty_ns"), default=None),
        frames=frames,
        late_frames=late,
        late_ratio=late / frames if frames else None,
        latest_ns=max((row["latest_ns"] for row in rows[1:]), default=0),
    )


def substrate_reasons(found: Sequence[DirectionFidelity], limit_ns: int) -> Iterator[str]:
    """Why a run is invalid by what lay below its links.

    Args:
        limit_ns: how far clocks may be apart, and how uncertain that may be: what a probe may be off by a hop.
    """
    for one in found:
        way = f"from guest {one.from_guest} to guest {one.to_guest}"
        if one.late_ratio is not None and one.late_ratio > MOST_LATE_RATIO:
            yield (
                f"guests: {share(one.late_ratio)} of the frames {way} came after they were due, one by "
                f"{time_text(one.latest_ns)}, but at most {share(MOST_LATE_RATIO)} may; use fewer guests, or machines "
                "with less to do"
            )
        if one.unsure_ns is None:
            yield f"guests: nothing measured what goes {way}, but both run; see whether one of them was stopped"
        elif one.unsure_ns > limit_ns:
            yield (
                f"guests: one-way figures {way} are uncertain by {time_text(one.unsure_ns)} since the "
                f"clocks are, but at most {time_text(limit_ns)} is allowed; use guests on one machine, or "
                "machines that are closer to each other"
            )
