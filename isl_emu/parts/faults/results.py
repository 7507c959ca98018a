"""The table of faults: what each did, what it cost, and how long it took until all was right again; and its section."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
from typing import Any

import numpy as np

from isl_emu.linkplan.fault_events import FaultThing
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.network.fault_drops import JOURNAL as DROPS_JOURNAL
from isl_emu.parts.faults.events import JOURNAL, LINKS_ALONE
from isl_emu.parts.finished_run import FinishedRun, Row, Rows
from isl_emu.runs.journal import INSTANTS_JOURNAL, REQUESTS_JOURNAL, joined
from isl_emu.show.chapter import Chapter, DataTable, Item
from isl_emu.tables.schema import COUNT, NS, TEXT, column, schema
from isl_emu.tables.text import counted, table, time_text, wrapped

MOST_SHOWN = 20  # in the summary; all are in the table
HEADER = ("fault", "what", "effect", "from", "recovery", "lost", "no path", "questions lost/retried")

FAULTS = schema(
    column("event", COUNT, "", "number of the event, by fault and time"),
    column("fault", TEXT, "", "name of the fault in the scenario"),
    column("what", TEXT, "", "what it hit: a link by its two ends, a node, a model server or a program"),
    column("effect", TEXT, "", "cut, degrade, power-off, kill, stop, out-of-memory or flip-bits"),
    column("t_from_ns", NS, "ns", "when it was due"),
    column("t_until_ns", NS, "ns", "when it was to be over, booting included; null if not before the end of the plan"),
    column("t_begun_ns", NS, "ns", "when it was in force; null if the run ended first"),
    column("t_ended_ns", NS, "ns", "when all worked again, a server that had to start included; null if it did not"),
    column("t_known_ns", NS, "ns", "when those who choose routes learnt of it; null if they did not"),
    column("t_forgotten_ns", NS, "ns", "when they learnt that it was over; null if they did not"),
    column("done", TEXT, "", "what became of what runs in the node; null of links alone"),
    column("mended", TEXT, "", "what became of it when the fault was over; null of links alone"),
    column("packets_lost", COUNT, "packets", "dropped meanwhile at the ends of its links; null if it hits none"),
    column(
        "no_path_ns", NS, "ns", "how long pairs with traffic had no path meanwhile, their sum; null if it hits no links"
    ),
    column("no_path_worst_ns", NS, "ns", "of the pair for which that was longest; null as well"),
    column("no_path_worst_pair", TEXT, "", "that pair; null if every pair had a path"),
    column("questions_retried", COUNT, "questions", "that it was in the way of, tried again, and then completed"),
    column("questions_lost", COUNT, "questions", "that it was in the way of, and were never answered"),
    column("steps_healed", COUNT, "steps", "of training that were repeated without participants that it cut off"),
    column("recovery_ns", NS, "ns", "t_ended - t_begun; null if one of them is"),
)


def fault_rows(run: FinishedRun) -> list[Row]:
    """A row for each event of the plan's faults that was due before the end of the run."""
    faults, step_ns, count = run.plan.faults, run.plan.grid.step_ns, run.plan.grid.count
    journal = {record["event"]: record for record in joined(run.journal(JOURNAL).records)}
    packets = {record["event"]: record["packets"] for record in run.journal(DROPS_JOURNAL).records}
    force_ns = {row["k"]: max(row["t_done_ns"], row["t_planned_ns"]) for row in run.rows(INSTANTS_JOURNAL)}
    without, healed = PathlessPairs.of(run), _steps_healed(run)
    rows = []

    def at_ns(k: int) -> int | None:
        return k * step_ns if k < count else None

    for event, number in enumerate(faults.fault.tolist()):
        k_from, k_until, k_known, k_forgotten = (
            int(column[event]) for column in (faults.k_from, faults.k_until, faults.k_known, faults.k_forgotten)
        )
        if k_from * step_ns >= run.ended_ns:
            continue
        effect, told = faults.effects[number], journal.get(event, {})
        row: Row = {
            "event": event,
            "fault": faults.names[number],
            "what": _what(run, event),
            "effect": effect,
            "t_from_ns": k_from * step_ns,
            "t_until_ns": at_ns(k_until),
            "t_known_ns": at_ns(k_known) if k_known < k_forgotten else None,
            "t_forgotten_ns": at_ns(k_forgotten) if k_known < k_forgotten else None,
            "packets_lost": packets.get(event),
        }
        if effect in LINKS_ALONE:
            row |= {"t_begun_ns": force_ns.get(k_from), "t_ended_ns": force_ns.get(k_until)}
        else:
            row |= {key: told.get(key) for key in ("t_begun_ns", "t_ended_ns", "done", "mended")}
        if effect == "flip-bits":
            row["t_until_ns"] = None
        begun_ns, ended_ns = row["t_begun_ns"], row["t_ended_ns"]
        row["recovery_ns"] = None if begun_ns is None or ended_ns is None else ended_ns - begun_ns
        row |= without.during(k_from, min(k_until, count)) if run.faults.links[event] else {}
        rows.append(row | _traffic(run, event) | {"steps_healed": healed[event]})
    return rows


def _what(run: FinishedRun, event: int) -> str:
    faults, plan = run.plan.faults, run.plan
    thing, target = FaultThing(int(faults.thing[event])), int(faults.target[event])
    if thing == FaultThing.LINK:
        a, b = (plan.nodes.names[int(ends[target])] for ends in (plan.links.a, plan.links.b))
        return f"{a} - {b}"
    if thing == FaultThing.PROGRAM:
        return f"program {list(run.scenario.own_programs)[target]}"
    name = plan.nodes.names[target]
    return f"model server on {name}" if thing == FaultThing.SERVER else name


def _traffic(run: FinishedRun, event: int) -> Row:
    """What became of questions that it was in the way of."""
    outcomes = {row["id"]: row["outcome"] for row in run.rows(REQUESTS_JOURNAL)}
    hit: set[int] = set()
    for attempt in run.rows("attempts"):
        way = attempt["station"], attempt["satellite"], attempt["t_send_ns"], attempt["t_finish_ns"]
        if attempt["outcome"] != "completed" and event in run.faults.in_the_way(*way):
            hit.add(attempt["id"])
    done = [outcomes.get(request) for request in hit]
    return {
        "questions_retried": done.count("completed"),
        "questions_lost": len(done) - done.count("completed") - done.count("unfinished"),
    }


def _steps_healed(run: FinishedRun) -> Counter[int]:
    """How many steps were repeated without participants that an event cut off from those who went on, by event."""
    before_ns: dict[str, int] = {}  # by job: when the attempt before ended
    healed = Counter[int]()
    for row in run.rows("training"):
        if row["outcome"] == "lost":
            times = before_ns.get(row["job"], 0), row["t_end_ns"]
            pairs = product(set(row["participants"]) - set(row["lost"]), row["lost"])
            healed.update({event for one, lost in pairs for event in run.faults.in_the_way(one, lost, *times)})
        before_ns[row["job"]] = row["t_end_ns"]
    return healed


@dataclass(frozen=True)
class PathlessPairs:
    """At which instants pairs of nodes have no path by which packets arrive, though the sky without faults would do.

    Args:
        names: of the pairs.
        without: bool, (pairs, K).
    """

    names: Sequence[str]
    without: np.ndarray
    step_ns: int

    @classmethod
    def of(cls, run: FinishedRun) -> PathlessPairs:
        """Those of a run's own traffic: watched pairs, and stations with the satellites that they asked."""
        asked = ((row["station"], row["satellite"]) for row in run.rows("attempts") if row["satellite"])
        pairs = list(dict.fromkeys(chain(run.scenario.watched_pairs, asked)))
        held = np.zeros(run.plan.grid.count, bool)
        for k_from, k_until in zip(run.plan.faults.k_from, run.plan.faults.k_until, strict=True):
            held[k_from:k_until] = True
        without = np.zeros((len(pairs), len(held)), bool)
        for k in np.flatnonzero(held).tolist():
            together = connected(run.plan.sky, k)
            for row, (a, b) in enumerate(pairs):
                path = run.paths.at(a, b, k)
                if path is None or path.cut:
                    ends = (run.plan.nodes.index(name) for name in (a, b))
                    without[row, k] = len({int(together[end]) for end in ends}) == 1
        return cls([f"{a} to {b}" for a, b in pairs], without, run.plan.grid.step_ns)

    def during(self, k_from: int, k_until: int) -> Row:
        """How long they had none from an instant until another."""
        lasted_ns = self.without[:, k_from:k_until].sum(axis=1) * self.step_ns
        if not lasted_ns.any():
            return {"no_path_ns": 0, "no_path_worst_ns": 0}
        worst = int(lasted_ns.argmax())
        return {
            "no_path_ns": int(lasted_ns.sum()),
            "no_path_worst_ns": int(lasted_ns[worst]),
            "no_path_worst_pair": self.names[worst],
        }


def connected(plan: LinkPlan, k: int) -> np.ndarray:
    """The part of the network in which each node is at an instant, by a number; int, (N,)."""
    from scipy.sparse import csr_array  # noqa: PLC0415  slow to import
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    link, count = plan.snapshot(k).link, len(plan.nodes.names)
    ends = plan.links.a[link], plan.links.b[link]
    part: np.ndarray = connected_components(csr_array((np.ones(len(link)), ends), shape=(count, count)))[1]
    return part


def faults_chapter(rows: Rows) -> Chapter:
    """What each fault did, for the report; what was done in nodes stands below."""
    said = [
        (row["fault"], row["what"], " ".join(filter(None, (row["done"], row["mended"]))))
        for row in rows[:MOST_SHOWN]
        if row["done"] or row["mended"]
    ]
    items: list[Item] = [
        DataTable(
            "Lost: packets on its links; no path: of the pair that had to wait longest",
            HEADER,
            [_line(row) for row in rows[:MOST_SHOWN]],
            left=3,
            rest=f"{len(rows) - MOST_SHOWN} more are in faults.parquet" if len(rows) > MOST_SHOWN else "",
        )
    ]
    items += (
        [DataTable("What was done in nodes, and what became of it", ("fault", "what", "done"), said, 3)] if said else []
    )
    return Chapter("Faults", items, network=True)


def faults_section(rows: Rows) -> Iterator[str]:
    yield "FAULTS  (lost: packets on its links; no path: of the pair that had to wait longest)"
    yield from table(HEADER, [_line(row) for row in rows[:MOST_SHOWN]], left=3)
    for row in rows[:MOST_SHOWN]:
        for said in filter(None, (row["done"], row["mended"])):
            yield from wrapped("  ", f"{row['fault']}: {said}")
    if len(rows) > MOST_SHOWN:
        yield f"  ... and {len(rows) - MOST_SHOWN} more in faults.parquet"
    if healed := sum(row["steps_healed"] for row in rows):
        yield f"  {counted(healed, 'step')} of training made without who was lost"


def _line(row: Mapping[str, Any]) -> tuple[str, ...]:
    recovery, lost, without = row["recovery_ns"], row["packets_lost"], row["no_path_worst_ns"]
    return (
        row["fault"],
        row["what"].removeprefix("model "),
        row["effect"],
        time_text(row["t_from_ns"]),
        "-" if recovery is None else time_text(recovery),
        "-" if lost is None else f"{lost:,}",
        "-" if without is None else time_text(without),
        f"{row['questions_lost']}/{row['questions_retried']}",
    )
