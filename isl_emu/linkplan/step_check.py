"""Whether a plan's time step suits its sky: how much a delay changes in a step, and what falls between two instants.

What the grid cannot see it still betrays. A contact that lasts m + f steps (m whole, 0 <= f < 1) shows at m + 1
instants with probability f and else at m, since when it begins has nothing to do with the grid. Let contacts of length
d occur with density g(d). Those that show once number, on average, the integral of g times a triangle that rises from 0
at no length to 1 at one step and falls to 0 at two; those that show nowhere the integral of g(d) (1 - d/step) up to one
step. With g constant up to two steps the second is half of the first; where short contacts are rarer than longer ones,
as they are when a satellite grazes a cone or a range limit (g grows like d), it is less, a sixth. So half of what is
seen once is what is expected to be missed, on the safe side. The same holds for gaps between the contacts of a link.
It fails only where most contacts are much shorter than a step; then most of those seen are seen once, and the warning
says that nothing can be told.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isl_emu.linkplan.contacts import find_contacts
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.units import DURATION_NS, NS_PER_S, format_quantity, seconds_text

MISSED_PER_SEEN_ONCE = 0.5
WORTH_A_WARNING = 1.0  # missed contacts and gaps: from here on, one is expected to be
WORTH_NONE = 0.5  # below this, rather none than one


@dataclass(frozen=True)
class Seen:
    """Intervals of one sort (contacts or gaps) that begin and end within the plan."""

    count: int
    shortest_ns: int | None  # of those, as the grid sees it: a multiple of the step; None if there is none
    once: int  # how many of them last a single step

    @property
    def missed(self) -> float:
        """How many are expected to have fallen between two instants, at most."""
        return self.once * MISSED_PER_SEEN_ONCE

    @property
    def missed_ratio(self) -> float:
        """What share of all that happened is expected to have been missed, 0..1."""
        return self.missed / (self.count + self.missed) if self.count else 0.0


@dataclass(frozen=True)
class StepCheck:
    """What a plan's time step does to it."""

    step_ns: int
    delay_change_max_ns: int  # largest change of one link's delay from an instant to the next; 0 if there is none
    delay_change_link: int | None  # the link that it happens on
    delay_change_k: int | None  # the instant before it
    contacts: Seen
    gaps: Seen

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why the step should be shorter; empty if it need not."""
        missed = self.contacts.missed + self.gaps.missed
        if missed < WORTH_A_WARNING:
            return ()
        step = format_quantity(self.step_ns, DURATION_NS)
        seen = self.contacts.once + self.gaps.once
        if 2 * seen > self.contacts.count + self.gaps.count:
            return (
                f"time.step: is {step}, but most contacts and gaps seen ({seen} of "
                f"{self.contacts.count + self.gaps.count}) last no longer, so more may be missed than can be told; "
                f"choose a step of {format_quantity(_rounded(self.step_ns / 10), DURATION_NS)} or less",
            )
        shorter_ns = _rounded(self.step_ns * WORTH_NONE / missed * 0.99)
        once = f"{_counted(self.contacts.once, 'contact')} and {_counted(self.gaps.once, 'gap')}"
        return (
            f"time.step: is {step}, but {once} last a single step, so up to about {missed:.0f} shorter ones fall "
            f"between two instants and are missed; with {format_quantity(shorter_ns, DURATION_NS)} none would be "
            "expected to be",
        )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def check_step(plan: LinkPlan) -> StepCheck:
    """What the time step of `plan` does to it, faults aside: these happen at instants."""
    plan = plan.sky
    contacts = find_contacts(plan)
    complete = (contacts.start_ns > 0) & (contacts.end_ns < plan.grid.duration_ns)
    same_link = contacts.link[1:] == contacts.link[:-1]
    seen = _seen((contacts.end_ns - contacts.start_ns)[complete], plan.grid.step_ns)
    gaps = _seen((contacts.start_ns[1:] - contacts.end_ns[:-1])[same_link], plan.grid.step_ns)
    return StepCheck(plan.grid.step_ns, *_largest_delay_change(plan), seen, gaps)


def _largest_delay_change(plan: LinkPlan) -> tuple[int, int | None, int | None]:
    """The change in ns, its link, and the instant before it."""
    found: tuple[int, int | None, int | None] = 0, None, None
    last_ns = np.zeros(len(plan.links.a), np.int64)  # the latest delay of each link
    for piece, rows in plan.pieces_by_link():
        delay_ns = plan.row_delay_ns[piece.rows][rows.order]
        before_ns = np.roll(delay_ns, 1)
        first = np.flatnonzero(np.diff(rows.link, prepend=-1))
        before_ns[first] = last_ns[rows.link[first]]
        last_ns[rows.link[rows.last]] = delay_ns[rows.last]
        change_ns = np.where(rows.begins, -1, np.abs(delay_ns - before_ns))
        at = int(np.argmax(change_ns)) if len(change_ns) else 0
        if len(change_ns) and change_ns[at] >= 0:
            here = int(change_ns[at]), int(rows.link[at]), int(rows.k[at]) - 1
            # of equal ones the lowest link's, as if all were looked at together
            if found[1] is None or (here[0], -here[1]) > (found[0], -found[1]):
                found = here
    return found


def _seen(length_ns: np.ndarray, step_ns: int) -> Seen:
    shortest_ns = int(length_ns.min()) if len(length_ns) else None
    return Seen(len(length_ns), shortest_ns, int((length_ns <= step_ns).sum()))


def _rounded(step_ns: float) -> int:
    """The next shorter step of 1, 2 or 5 times a power of ten, ns."""
    power = 10 ** max(0, int(np.floor(np.log10(max(step_ns, 1.0)))))
    return max(int(factor * power) for factor in (1, 2, 5) if factor * power <= max(step_ns, 1.0))


def step_sentences(check: StepCheck, plan: LinkPlan) -> list[str]:
    """The check in words, one sentence a line, for summaries."""
    step = format_quantity(check.step_ns, DURATION_NS)
    lines = [f"largest change of a delay in one step of {step}: {check.delay_change_max_ns / 1000:.1f} us"]
    if check.delay_change_link is not None and check.delay_change_k is not None:
        a, b = plan.links.a[check.delay_change_link], plan.links.b[check.delay_change_link]
        t_s = check.delay_change_k * check.step_ns / NS_PER_S
        lines[0] += f" ({plan.nodes.names[a]} - {plan.nodes.names[b]} at {t_s:g} s)"
    for name, seen in (("contact", check.contacts), ("gap", check.gaps)):
        if seen.shortest_ns is None:
            lines.append(f"no {name} begins and ends within the plan")
        else:
            lines.append(
                f"shortest {name}: {seconds_text(seen.shortest_ns)}; {seen.once} of {seen.count} last a single step, "
                f"so up to {seen.missed:.1f} ({seen.missed_ratio:.2%}) more are expected to be missed"
            )
    return lines
