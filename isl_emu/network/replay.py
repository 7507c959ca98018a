"""The link plan and route plan, applied to a network at their instants, against absolute deadlines.

Within an instant nothing breaks before its replacement is made: first links that appear or change, then routes, then
links that go down. An instant that is missed is not made up for later than the next one: the newest state is applied,
and every instant is recorded with how late its state came.

It is long because all that is done at an instant shares one state, what is applied: put right, apply, count, read back,
record.
"""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from isl_emu.errors import NetworkError
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.network.desired import DELAY_GRAIN_NS, IMPAIRMENTS, ROUTE, changed_ends, ends_at, initial_ends
from isl_emu.network.fault_drops import FaultDrops
from isl_emu.network.interventions import Disturbance
from isl_emu.network.naming import Wiring
from isl_emu.network.overrides import Override, overridden
from isl_emu.network.readback import ADVICE, end_mismatches, route_mismatches
from isl_emu.routing.forwarding import GROUP_BASE, NO_ROUTE, RoutePlan
from isl_emu.runs.clock import HEAD_START_NS
from isl_emu.runs.journal import (
    CHANGES_JOURNAL,
    DROPS_JOURNAL,
    INCIDENTS_JOURNAL,
    INSTANTS_JOURNAL,
    LINKS_JOURNAL,
    Journal,
)
from isl_emu.runs.portion import Portion
from isl_emu.timebase import Clock
from isl_emu.units import NS_PER_S

READ_BACK_NODES = 64  # nodes whose ends are read back after an instant of 1 s; if more changed, they take turns
READ_BACK_ROUTES = 2_000  # about as many routes are read back after an instant of 1 s, whole tables at a time
MOST_MISMATCHES_KEPT = 100
GOLDEN_RATIO = (5**0.5 - 1) / 2  # the multiples of which, modulo 1, are spread evenly, however many there are
MOST_NODES_COUNTED = 128  # at one instant, whose drops are told apart by the state before and after
DOWN, FAULT, LOST, FULL, UNCLEAR = range(5)  # why packets were dropped: columns of `Replay.drops`
MOST_DIFFERENCES_TOLD = 3  # of one node
CHANGES = pa.schema(
    [
        ("k", pa.int32()), ("t_planned_ns", pa.int64()), ("t_applied_ns", pa.int64()), ("link", pa.int32()),
        ("end", pa.int8()), ("up", pa.bool_()), ("planned_delay_ns", pa.int64()), ("set_delay_ns", pa.int64()),
        ("rate_bit_s", pa.int64()), ("queue_byte", pa.int64()), ("loss_ratio", pa.float64()),
        ("corruption_ratio", pa.float64()), ("duplication_ratio", pa.float64()), ("jitter_ns", pa.int64()),
    ]
)  # fmt: skip

CUMULATIVE = ("netem", "queue", "sent_byte", "sent_packets", "marked")  # of desired.COUNTERS
MOMENTARY = ("backlog_byte", "backlog_packets", "waiting_byte", "waiting_packets")
CAUSES = ("down", "fault", "lost", "full", "unclear")  # columns of `Replay.drops`
SAMPLES = pa.schema(
    [
        ("t_ns", pa.int64()), ("link", pa.int32()), ("end", pa.int8()),
        *((name, pa.int64()) for name in (*CUMULATIVE[2:], *CAUSES, *MOMENTARY)),
    ]
)  # fmt: skip
COUNTERS_INTERVAL_NS = 10 * NS_PER_S


class Backend(Protocol):
    """A network whose link ends and routes are set to what they should be, and read back.

    Every method raises NetworkError if the network refuses.
    """

    wiring: Wiring
    portion: Portion  # the nodes that it has; it leaves what is asked of others to their kernels

    def change_ends(self, which: np.ndarray, states: np.ndarray) -> None:
        """Shape the ends `which` (C,) exactly as `states` (desired.END, (C,)) says; what is queued stays queued."""

    def change_routes(self, routes: np.ndarray) -> None:
        """Make, replace or (NO_ROUTE) withdraw routes; ROUTE, (C,). Withdrawals come last.

        Rows with the same node and destination are one route over several links, among which flows are spread.
        """

    def read_ends(self, nodes: Sequence[int]) -> np.ndarray:
        """The shaping found at the ends of some nodes; desired.FOUND. An end without its netem is not in it."""

    def read_routes(self, nodes: Sequence[int]) -> dict[str, np.ndarray]:
        """The routes found at some nodes, for each address family; ROUTE."""

    def counters(self, nodes: Iterable[int]) -> np.ndarray:
        """What the ends of some nodes have counted so far; desired.COUNTERS."""

    def listen(self, now_ns: Callable[[], int]) -> None:
        """Hear from now on what others change in nodes that they are let into; `now_ns` gives it its time."""

    @property
    def disturbed(self) -> bool:
        """Whether others have changed anything that `disturbances` has not told yet."""

    def disturbances(self) -> Sequence[Disturbance]:
        """What others have changed since the last call, one for each node; what we change ourselves is none."""

    def interfaces_down(self, node: int) -> list[str]:
        """The names of a node's interfaces that are down, or gone."""

    def restore(self, node: int, ends: np.ndarray, routes: np.ndarray) -> Sequence[int]:
        """Let a node hold again what it should, whatever was done to it.

        Returns the nodes at the other ends of links that had to be made again: they hold all but their routes.

        Args:
            ends: the state of all ends, desired.END (2L,).
            routes: all routes of the node, ROUTE.
        """


@dataclass(frozen=True)
class Step:
    """What is to do to get from the applied state to that of instant `k`."""

    k: int
    planned: np.ndarray  # desired.END (2L,), the state by the plan
    overrides: tuple[Override, ...]  # what lies over it
    ends: np.ndarray  # desired.END (2L,), the state afterwards
    table: np.ndarray  # int32 (N, D), the routes afterwards, as in RoutePlan
    made: np.ndarray  # ends that are up afterwards and change
    broken: np.ndarray  # ends that go down
    routes: np.ndarray  # desired.ROUTE


@dataclass(frozen=True)
class Applied:
    """When a step was applied, in ns of the replay's clock."""

    step: Step
    begun_ns: int
    made_ns: int
    done_ns: int


class Replay:
    """Applies a plan to a network and writes `instants.jsonl` and `changes.arrow`.

    Args:
        plan: the links at each instant.
        routes: the routes at each instant.
        backend: the network.
        clock: what deadlines are measured with.
        journal_dir: where the two journals are written.
        bias_ns: what a netem adds to a delay by itself; taken off before it is set.
        slowdown: how many times more slowly than the machine's the clock runs.
        grain_ns: how far a delay may be from the plan's before it is set.
        read_back_nodes: of how many nodes the ends are read back after an instant of 1 s; after a shorter one fewer.
        counters_interval_ns: how long it takes until the counters of all nodes' ends have been sampled.
    """

    def __init__(
        self,
        plan: LinkPlan,
        routes: RoutePlan,
        backend: Backend,
        clock: Clock,
        journal_dir: Path,
        bias_ns: int,
        slowdown: float = 1.0,
        grain_ns: int = DELAY_GRAIN_NS,
        read_back_nodes: int = READ_BACK_NODES,
        counters_interval_ns: int = COUNTERS_INTERVAL_NS,
    ):
        self.plan, self.routes, self.backend, self.clock, self.bias_ns = plan, routes, backend, clock, bias_ns
        self.mismatches: list[str] = []
        self._journal_dir = journal_dir
        self._read_back_share = min(plan.grid.step_ns * slowdown / NS_PER_S, 1.0)
        self._read_back_nodes = max(round(read_back_nodes * self._read_back_share), 1)
        # Whose turn it is: neighbours in number, who are in one plane and so in one guest, are far from each other
        self._order = np.argsort(np.arange(len(plan.nodes.names)) * GOLDEN_RATIO % 1.0, kind="stable")
        self._rank = np.argsort(self._order)
        self._turns = np.zeros(len(plan.nodes.names), np.int64)  # how often each node was read back
        self._slowdown, self._grain_ns = slowdown, grain_ns
        self._ends = self._planned = initial_ends(plan, bias_ns, slowdown)
        self._overrides: tuple[Override, ...] = ()
        self._fault_drops = FaultDrops(plan, backend.wiring.node, journal_dir)
        self._lock = threading.Lock()  # of all that is applied, once the replay runs
        self._journal: _Journal | None = None  # while it runs
        self._table = np.full((len(plan.nodes.names), len(routes.destinations)), NO_ROUTE, np.int32)
        self._column = np.full(len(plan.nodes.names) + len(routes.aliases.owner), -1, np.int32)
        self._column[routes.destinations] = np.arange(len(routes.destinations))
        self._k_applied = -1
        self._first: Applied | None = None
        self._t0_ns = 0
        self.drops = np.zeros((len(self._ends), len(CAUSES)), np.int64)  # packets, by end and cause
        self._counters_interval_ns = counters_interval_ns
        self._counted = np.zeros((len(self._ends), len(CUMULATIVE)), np.int64)  # as they were read last
        self._sent = np.zeros((len(self._ends), len(CUMULATIVE) - 2), np.int64)  # what was sent and marked since 0
        self._now = np.zeros((len(self._ends), len(MOMENTARY)), np.int64)
        self._sampled = np.zeros((len(self._ends), len(SAMPLES) - 3), np.int64)  # as it was written last
        self._samples: pa.RecordBatchStreamWriter | None = None
        self._unclear = np.zeros(len(self._ends), bool)  # ends whose state has changed since
        self._cut = np.zeros(len(self._ends), bool)  # ends that only a fault, or somebody by hand, keeps down

    def apply_initial(self) -> None:
        """Set every link end and all routes of instant 0, and read everything back.

        Raises:
            NetworkError: the network refuses, or holds something else afterwards.
        """
        self._first = self._apply(self._step_to(0, everything=True))
        self._cut = self._cut_ends(self._first.step)
        if wrong := self.verify_all():
            raise NetworkError(*wrong[:MOST_MISMATCHES_KEPT])
        self.backend.listen(self.clock.now_ns)

    def run(self, t0_ns: int, stop: threading.Event) -> None:
        """Replay the instants after the first until the end of the plan, or until `stop` is set.

        What does not read back as planned is counted in the journal and kept in `mismatches`.

        Args:
            t0_ns: when instant 0 is, on the clock.

        Raises:
            NetworkError: the network refuses a change.
        """
        assert self._first is not None, "apply_initial comes before run"
        grid, k, self._t0_ns = self.plan.grid, 1, t0_ns
        if self._grain_ns == 0:  # in exact time; what interfaces say as they come up has been said by then
            self.clock.wait_until_ns(t0_ns - NS_PER_S, stop)
        self._counted[:] = self._read_counters(range(len(self.plan.nodes.names)))
        samples = (self._journal_dir / f"{LINKS_JOURNAL}.arrow").open("wb", buffering=0)
        self._samples = pa.ipc.new_stream(samples, SAMPLES)
        with self._opened(_Journal(self._journal_dir, t0_ns, grid.step_ns, self.backend)) as journal:
            journal.write(self._first, range(1), 0)
            self._count_of_faults(-1, 0, self._ends)
            while k < grid.count:
                step = self._step_to(k)
                if self.clock.wait_until_ns(t0_ns + k * grid.step_ns, stop):
                    return
                with self._lock:
                    newest = max(grid.instant_at(self.clock.now_ns() - t0_ns), k)
                    if newest > k or step.overrides is not self._overrides:
                        step = self._step_to(newest)
                    self.put_right()
                    before = self._ends
                    with _collector_at_rest():
                        applied = self._apply(step)
                    cut = self._cut_ends(step)
                    self._count_some(self._due(k, step.k), before, step.ends, cut)
                    self._count_of_faults(k - 1, step.k, before)
                    self._cut = cut
                    wrong = self._differences(step)
                    if self.backend.disturbed:  # what differs now is told and put right next
                        wrong = []
                    self.mismatches += wrong[: MOST_MISMATCHES_KEPT - len(self.mismatches)]
                    journal.write(applied, range(k, step.k + 1), len(wrong))
                k = step.k + 1
            self.clock.wait_until_ns(t0_ns + grid.duration_ns, stop)

    def override(self, change: Callable[[tuple[Override, ...]], tuple[Override, ...]]) -> int:
        """Lay other overrides over the plan, at once and until they are changed again; for other threads.

        Args:
            change: what lies over the plan -> what is to.

        Returns:
            When that was in force, ns after instant 0.

        Raises:
            NetworkError: the replay does not run, or the network refuses the change.
        """
        with self._lock:
            if self._journal is None:
                raise NetworkError("replay: it does not run, but only a link of a live run can be changed; wait for it")
            step = self._step_to(self._k_applied, overrides=change(self._overrides))
            self.put_right()
            before = self._ends
            applied = self._apply(step)
            cut = self._cut_ends(step)
            self._count_some(range(0), before, step.ends, cut)
            self._cut = cut
            self._journal.write_changes(applied, applied.begun_ns)
            return applied.done_ns - self._t0_ns

    @contextmanager
    def _opened(self, journal: _Journal) -> Iterator[_Journal]:
        """The journal, open for others to write to while the block lasts."""
        with journal:
            with self._lock:
                self._journal = journal
            try:
                yield journal
            finally:
                with self._lock:
                    self._journal = None

    def count_drops(self) -> None:
        """Count what was dropped up to now, and write it down."""
        everywhere = range(len(self.plan.nodes.names))
        self._count(everywhere, self._ends)
        self._fault_drops.close(self.drops.sum(axis=1))
        self._sample(everywhere)
        if self._samples is not None:
            self._samples.close()
        names, wiring = self.plan.nodes.names, self.backend.wiring
        with Journal(self._journal_dir / f"{DROPS_JOURNAL}.jsonl") as journal:
            for end in np.flatnonzero(self.drops.any(axis=1)).tolist():
                journal.append({
                    "end": end,
                    "node": names[wiring.node[end]],
                    "peer": names[wiring.peer[end]],
                    **dict(zip(CAUSES, self.drops[end].tolist(), strict=True)),
                })  # fmt: skip

    def _due(self, first_k: int, last_k: int) -> range:
        """Whose counters, in the order of turns, are sampled at these instants, so that all are within the interval."""
        nodes, step_ns = len(self.plan.nodes.names), self.plan.grid.step_ns
        begin, end = (k * step_ns * nodes // self._counters_interval_ns for k in (first_k - 1, last_k))
        if end - begin >= nodes:
            return range(nodes)
        if nodes <= MOST_NODES_COUNTED:  # few: all at the same time
            return range(nodes if end // nodes > begin // nodes else 0)
        return range(begin, end)  # modulo the nodes

    def _cut_ends(self, step: Step) -> np.ndarray:
        """Which ends are down after a step, though the sky without faults and hands would have them up; bool (2L,)."""
        sky = np.zeros(len(self.plan.links.a), bool)
        sky[self.plan.sky.snapshot(step.k).link] = True
        cut: np.ndarray = np.repeat(sky, 2) & ~step.ends["up"]
        return cut

    def _count_some(self, due: range, before: np.ndarray, after: np.ndarray, cut: np.ndarray) -> None:
        """Count what nodes that are due, and ends whose packets are lost otherwise now, have had until then.

        If too many changed, what these have dropped stays unclear.

        Args:
            cut: as `_cut`, afterwards.
        """
        otherwise = (before["up"] != after["up"]) | ((before["loss_ratio"] > 0) != (after["loss_ratio"] > 0))
        changed = np.flatnonzero(otherwise | (self._cut != cut))
        turn = np.unique(self._order[np.array(due, np.int64) % len(self.plan.nodes.names)])
        changed = changed[~np.isin(self.backend.wiring.node[changed], turn)]
        others = np.unique(self.backend.wiring.node[changed])
        if len(others) > MOST_NODES_COUNTED:
            self._unclear[changed] = True
            others = others[:0]
        if len(nodes := np.union1d(others, turn)):
            self._count(nodes.tolist(), before)
        if len(turn):
            self._sample(turn.tolist())

    def _count_of_faults(self, after_k: int, k: int, before: np.ndarray) -> None:
        """Count what the links of faults have dropped that begin or end at the instants after one up to another."""
        if len(nodes := self._fault_drops.nodes(after_k, k)):
            self._count(nodes.tolist(), before)
        self._fault_drops.turn(after_k, k, self.drops.sum(axis=1))

    def _read_counters(self, nodes: Iterable[int]) -> np.ndarray:
        """As `_counted`; what was not asked for stays as it was."""
        counted: np.ndarray = self._counted.copy()
        found = self.backend.counters(nodes)
        counted[found["end"]] = np.stack([found[name] for name in CUMULATIVE], axis=1)
        self._now[found["end"]] = np.stack([found[name] for name in MOMENTARY], axis=1)
        return counted

    def _count(self, nodes: Iterable[int], state: np.ndarray) -> None:
        """Add what some nodes' ends have counted since they were asked last, when they were in this state."""
        counted = self._read_counters(nodes)
        new = np.where(counted < self._counted, counted, counted - self._counted)  # one made anew counts from 0
        down = np.where(self._cut, FAULT, DOWN)
        cause = np.where(~state["up"], down, np.where(state["loss_ratio"] > 0, LOST, FULL))
        cause[self._unclear] = UNCLEAR
        self.drops[np.arange(len(cause)), cause] += new[:, 0]
        self.drops[:, FULL] += new[:, 1]
        self._sent += new[:, 2:]
        self._counted = counted
        self._unclear[np.isin(self.backend.wiring.node, list(nodes))] = False

    def _sample(self, nodes: Iterable[int]) -> None:
        """Write down the counters of some nodes' ends, as they were read last, where they differ from before."""
        values = np.concatenate([self._sent, self.drops, self._now], axis=1)
        of_nodes = np.isin(self.backend.wiring.node, list(nodes))
        which = np.flatnonzero(of_nodes & (values != self._sampled).any(axis=1))
        if self._samples is None or not len(which):
            return
        self._sampled[which] = values[which]
        now_ns = min(self.clock.now_ns() - self._t0_ns, self.plan.grid.duration_ns)  # the last sample is of the end
        t_ns = np.full(len(which), now_ns)
        columns = [t_ns, which // 2, which % 2, *values[which].T]
        arrays = [
            pa.array(np.ascontiguousarray(one)).cast(field.type) for one, field in zip(columns, SAMPLES, strict=True)
        ]
        self._samples.write_batch(pa.record_batch(arrays, schema=SAMPLES))

    def put_right(self) -> None:
        """Restore what somebody else has changed since the last look, and write it down as an intervention."""
        for found in self.backend.disturbances():
            name = self.plan.nodes.names[found.node]
            wrong = [f"{one} is down" for one in self.backend.interfaces_down(found.node)]
            differing = self._mismatches([found.node], [found.node])
            wrong += [one.removesuffix(f"; {ADVICE}").removeprefix(f"{name}: ") for one in differing]
            if wrong:
                for other in self.backend.restore(found.node, self._ends, self._routes_of(found.node)):
                    self.backend.change_routes(self._routes_of(other))
            elif not found.by_process:
                continue  # a neighbour's change that was seen from here
            more = [f"and {len(wrong) - MOST_DIFFERENCES_TOLD} more"] if len(wrong) > MOST_DIFFERENCES_TOLD else []
            stays = found.kinds & {"routes", "rules", "addresses"} and not wrong
            told = wrong[:MOST_DIFFERENCES_TOLD] + more or [f"its {', '.join(sorted(found.kinds))} were changed"]
            with Journal(self._journal_dir / f"{INCIDENTS_JOURNAL}.jsonl") as journal:
                journal.append({
                    "t_ns": found.t_ns - self._t0_ns,
                    "t_end_ns": None if stays else self.clock.now_ns() - self._t0_ns,
                    "kind": "intervention",
                    "node": name,
                    "what": "network",
                    "cause": "; ".join(told),
                })  # fmt: skip

    def _routes_of(self, node: int) -> np.ndarray:
        """All routes that a node should have; ROUTE."""
        column = np.flatnonzero(self._table[node] != NO_ROUTE)
        routes = np.empty(len(column), ROUTE)
        routes["node"], routes["destination"] = node, self.routes.destinations[column]
        routes["link"] = self._table[node, column]
        return _with_groups_spread(routes, self.routes)

    def verify_all(self) -> list[str]:
        """Read every link end and route back; one sentence for each that is not what was applied last."""
        return self._mismatches(range(len(self.plan.nodes.names)), range(len(self.plan.nodes.names)))

    def _step_to(self, k: int, *, everything: bool = False, overrides: tuple[Override, ...] | None = None) -> Step:
        """The difference between what is applied and instant `k`, passing through the instants between.

        Args:
            overrides: in place of those that are in force.
        """
        planned, table = self._planned, self._table.copy()
        overrides = self._overrides if overrides is None else overrides
        for instant in range(self._k_applied + 1, k + 1):
            planned = ends_at(self.plan, instant, planned, self.bias_ns, self._slowdown, self._grain_ns)
            changes = self.routes.changes(instant)
            table[changes.node, self._column[changes.destination]] = changes.link
        ends = overridden(planned, overrides, self.plan, self.bias_ns, self._slowdown)
        which = np.arange(len(ends)) if everything else changed_ends(self._ends, ends)
        up = ends["up"][which]
        node, column = np.nonzero(table != self._table)
        routes = np.empty(len(node), ROUTE)
        routes["node"], routes["destination"] = node, self.routes.destinations[column]
        routes["link"] = table[node, column]
        spread = _with_groups_spread(routes, self.routes)
        return Step(k, planned, overrides, ends, table, which[up], which[~up], spread)

    def _apply(self, step: Step) -> Applied:
        """Make before break."""
        begun_ns = self.clock.now_ns()
        self._unless_disturbed(lambda: self.backend.change_ends(step.made, step.ends[step.made]))
        made_ns = self.clock.now_ns()
        self._unless_disturbed(lambda: self.backend.change_routes(step.routes))
        self._unless_disturbed(lambda: self.backend.change_ends(step.broken, step.ends[step.broken]))
        self._planned, self._overrides = step.planned, step.overrides
        self._ends, self._table, self._k_applied = step.ends, step.table, step.k
        return Applied(step, begun_ns, made_ns, self.clock.now_ns())

    def _unless_disturbed(self, change: Callable[[], None]) -> None:
        """Make a change; where somebody else has just changed something, a refusal is put right with that."""
        try:
            change()
        except NetworkError:
            if not self.backend.disturbed:
                raise

    def _differences(self, step: Step) -> list[str]:
        """Read back what a step has changed, or a sample of it, and compare."""
        wiring, routed = self.backend.wiring, np.unique(step.routes["node"])
        changed = np.union1d(wiring.node[step.made], wiring.node[step.broken])
        most = READ_BACK_ROUTES * self._read_back_share
        tables = max(int(most / max(len(self.routes.destinations), 1)), 1)
        return self._mismatches(self._in_turn(changed, self._read_back_nodes), self._in_turn(routed, tables))

    def _in_turn(self, nodes: np.ndarray, most: int) -> list[int]:
        """Those of the nodes that were read back least often."""
        chosen = nodes[np.lexsort((self._rank[nodes], self._turns[nodes]))][:most]
        self._turns[chosen] += 1
        return sorted(chosen.tolist())

    def _mismatches(self, end_nodes: Sequence[int], route_nodes: Sequence[int]) -> list[str]:
        """Read the ends of some nodes and the routes of others, and compare them with what was applied last."""
        wiring, here = self.backend.wiring, self.backend.portion.here
        end_nodes, route_nodes = ([node for node in nodes if here[node]] for nodes in (end_nodes, route_nodes))
        wrong: list[str] = []
        if end_nodes:
            which = np.flatnonzero(np.isin(wiring.node, end_nodes))
            wrong += end_mismatches(self.plan, wiring, which, self._ends[which], self.backend.read_ends(end_nodes))
        if route_nodes:
            for family, found in self.backend.read_routes(route_nodes).items():
                wrong += route_mismatches(self.plan, wiring, route_nodes, self._table, self.routes, found, family)
        return wrong


def _with_groups_spread(routes: np.ndarray, plan: RoutePlan) -> np.ndarray:
    """The same routes, with a row for each link of a group."""
    grouped = routes["link"] >= GROUP_BASE
    if not grouped.any():
        return routes
    links = [plan.links_of(hop) for hop in routes["link"].tolist()]
    counts = np.where(grouped, [len(several) for several in links], 1)
    spread = np.repeat(routes, counts)
    spread["link"][np.repeat(grouped, counts)] = [link for several in links if len(several) > 1 for link in several]
    return spread


class _Journal:
    """The two files of a replay, complete up to the last instant at any moment."""

    def __init__(self, folder: Path, t0_ns: int, step_ns: int, backend: Backend):
        self._here, self._end_here = backend.portion.here, backend.portion.here[backend.wiring.node]
        self._t0_ns, self._step_ns = t0_ns, step_ns
        self._instants = (folder / f"{INSTANTS_JOURNAL}.jsonl").open("w", buffering=1)
        self._file = (folder / f"{CHANGES_JOURNAL}.arrow").open("wb")
        self._changes = pa.ipc.new_stream(self._file, CHANGES)

    def __enter__(self) -> _Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._changes.close()
        self._file.close()
        self._instants.close()

    def write(self, applied: Applied, instants: range, mismatches: int) -> None:
        """Record the instants that one step fulfilled; of those that were overtaken only the time is known."""
        step = applied.step
        ends = int(self._end_here[step.made].sum() + self._end_here[step.broken].sum())
        routes = step.routes[self._here[step.routes["node"]]]
        another_link = (np.diff(routes["node"]) == 0) & (np.diff(routes["destination"]) == 0)
        for k in instants:
            own = k == step.k
            record = {
                "k": k,
                "planned_ns": k * self._step_ns,
                "begun_ns": self._since_0(applied.begun_ns),
                "done_ns": self._since_0(applied.done_ns),
                "links": ends if own else 0,
                "routes": len(routes) - int(another_link.sum()) if own else 0,
                "mismatches": mismatches if own else 0,
            }
            self._instants.write(json.dumps(record) + "\n")
        self.write_changes(applied, self._t0_ns + step.k * self._step_ns)

    def write_changes(self, applied: Applied, due_ns: int) -> None:
        """Record the link ends that a step has changed, which was due at a time of the clock."""
        step = applied.step
        for which, t_ns in ((step.made, applied.made_ns), (step.broken, applied.done_ns)):
            if len(own := which[self._end_here[which]]):
                self._changes.write_batch(self._rows(step, own, due_ns - self._t0_ns, self._since_0(t_ns)))
        self._file.flush()

    def _since_0(self, t_ns: int) -> int:
        """A time as it is written down: what is in force when the head start begins is so for as long as it counts."""
        return max(t_ns - self._t0_ns, -HEAD_START_NS)

    def _rows(self, step: Step, which: np.ndarray, t_planned_ns: int, t_applied_ns: int) -> pa.RecordBatch:
        ends = step.ends[which]
        columns = {
            "k": np.full(len(which), step.k),
            "t_planned_ns": np.full(len(which), t_planned_ns),
            "t_applied_ns": np.full(len(which), t_applied_ns),
            "link": which // 2,
            "end": which % 2,
            "up": ends["up"],
            "planned_delay_ns": ends["planned_delay_ns"],
            "set_delay_ns": ends["delay_ns"],
            "rate_bit_s": ends["rate_bit_s"],
            "queue_byte": ends["queue_byte"],
            "loss_ratio": np.where(ends["up"], ends["loss_ratio"], 1.0),
            **{name: ends[name] for name in IMPAIRMENTS},
        }
        arrays = [pa.array(np.ascontiguousarray(columns[field.name])).cast(field.type) for field in CHANGES]
        return pa.record_batch(arrays, schema=CHANGES)


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """No garbage collection while a step is applied."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
