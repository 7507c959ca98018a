"""What else went over the links that probes cross: so a queue of the run's own is told from a machine that is too slow.

The kernel counts the bytes that leave each link end. They are read while the run is live, a second apart or an instant
if that is longer. A probe waits for no more than what left the ends on its path between its own departure and arrival,
so that, at the links' rates, is the longest time that the run's own traffic can have held it.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from isl_emu.files import read_json, write_json
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.network.messages import RTM_GETLINK, counters_question, decode_sent_byte
from isl_emu.nodes.namespaces import enter_network, in_own_thread
from isl_emu.nodes.netlink import Netlink
from isl_emu.parts.activity import Activity
from isl_emu.parts.live_run import LiveRun
from isl_emu.routing.forwarding import RoutePlan
from isl_emu.routing.paths import PathFinder
from isl_emu.runs.clock import RunTimes
from isl_emu.runs.journal import Journal
from isl_emu.units import NS_PER_S

JOURNAL = "probed_ends"
WATCHED = "probed_ends.json"  # in the journal folder: the link ends that are read
LEAST_INTERVAL_NS = NS_PER_S


def watched_ends(plan: LinkPlan, routes: RoutePlan, pairs: Iterable[tuple[str, str]]) -> list[int]:
    """The link ends that probes of these pairs cross at any instant, rising."""
    finder = PathFinder(plan, routes)
    ways = [way for a, b in pairs for way in ((plan.nodes.index(a), plan.nodes.index(b)),) for way in (way, way[::-1])]
    return sorted({end for k in range(plan.grid.count) for way in ways for end in finder.ends_on_the_way(*way, k)})


class ProbedEnds(Activity):
    """Reads how many bytes have left the watched link ends, at even intervals from instant 0 to the end of the run."""

    def __init__(self, live: LiveRun):
        watched: Sequence[int] = (read_json(live.folder.journal / WATCHED) or {}).get("ends", ())
        wiring = live.net.backend.wiring
        self._clock, self._path = live.clock, live.folder.journal / f"{JOURNAL}.jsonl"
        self._interval_ns = max(live.plan.grid.step_ns, LEAST_INTERVAL_NS)
        self._ends: dict[int, dict[int, int]] = defaultdict(dict)  # by node, then by the interface's number
        for end in watched:
            if not live.portion.here[wiring.node[end]]:
                continue
            self._ends[int(wiring.node[end])][int(wiring.interface_index[end])] = end
        names = live.plan.nodes.names
        self._sockets = {node: in_own_thread(_socket_in, live.net.get(names[node]).netns_path) for node in self._ends}
        for netlink in self._sockets.values():
            live.undo.callback(netlink.close)
        self._stopped = threading.Event()

    def begin(self, times: RunTimes, ending: ExitStack) -> None:
        thread = threading.Thread(target=self._watch, args=(times,), daemon=True)
        thread.start()
        ending.callback(thread.join)
        ending.callback(self._stopped.set)

    def _watch(self, times: RunTimes) -> None:
        with Journal(self._path) as journal:
            before: dict[int, int] = {}
            due_ns, over = times.t0_ns, False
            while not over:
                over = self._clock.wait_until_ns(due_ns, self._stopped) or due_ns >= times.until_ns
                t_ns, found = self._clock.now_ns() - times.t0_ns, dict(self._read())
                changed = {str(end): byte for end, byte in found.items() if byte != before.get(end)}
                journal.append({"t_ns": t_ns, "byte": changed})
                before, due_ns = found, min(due_ns + self._interval_ns, times.until_ns)

    def _read(self) -> Iterator[tuple[int, int]]:
        for node, ends in self._ends.items():
            for body in self._sockets[node].dump(RTM_GETLINK, counters_question()):
                index, byte = decode_sent_byte(body)
                if index in ends:
                    yield ends[index], byte


def _socket_in(netns_path: str) -> Netlink:
    enter_network(netns_path)
    return Netlink()


def leave_watched_ends(
    plan: LinkPlan, routes: RoutePlan, pairs: Iterable[tuple[str, str]], journal: Path, *, anywhere: bool
) -> None:
    """Write down which link ends are to be read.

    Args:
        anywhere: whether probes may take any way, as where others make the routes.
    """
    ends = list(range(2 * len(plan.links.a))) if anywhere else watched_ends(plan, routes, pairs)
    write_json(journal / WATCHED, {"ends": ends})


class OwnTraffic:
    """How long the run's own traffic can have held a probe, by what left the link ends on its way meanwhile.

    Args:
        samples: records of the journal, in order.
        probes: when each was sent (ns since the start of the run), and how long it was at the link ends on its way.
    """

    def __init__(self, samples: Iterable[Mapping[str, Any]], probes: Iterable[tuple[int, Mapping[int, int]]]):
        self._times_ns: list[int] = []
        self._counts: dict[int, list[tuple[int, int]]] = defaultdict(list)  # by end: (number of the sample, bytes)
        for number, sample in enumerate(samples):
            self._times_ns.append(sample["t_ns"])
            for end, byte in sample["byte"].items():
                self._counts[int(end)].append((number, byte))
        self._probes: dict[int, list[tuple[int, int]]] = defaultdict(list)  # by end: (when, bytes)
        for t_ns, frames in probes:
            for end, byte in frames.items():
                self._probes[end].append((t_ns, byte))
        for sent in self._probes.values():
            sent.sort()

    def other_byte(self, end: int, from_ns: int, to_ns: int) -> int:
        """What left an end between the samples around that time, and was no probe."""
        first = max(bisect_right(self._times_ns, from_ns) - 1, 0)
        last = min(bisect_left(self._times_ns, to_ns), len(self._times_ns) - 1)
        if last <= first:
            return 0
        sent = self._probes[end]
        probes = sent[bisect_left(sent, (self._times_ns[first], 0)) : bisect_left(sent, (self._times_ns[last] + 1, 0))]
        return max(self._count(end, last) - self._count(end, first) - sum(byte for _, byte in probes), 0)

    def _count(self, end: int, number: int) -> int:
        counts = self._counts[end]
        at = bisect_right(counts, (number, 1 << 63)) - 1
        return counts[at][1] if at >= 0 else 0


class OwnTrafficOver:
    """As `OwnTraffic`, of many probes at once that are all as long.

    Args:
        samples: records of the journal, in order.
        sent_ns: by end, when the probes on whose way it was were sent, in any order.
        byte: how long each was there.
    """

    def __init__(self, samples: Sequence[Mapping[str, Any]], sent_ns: Mapping[int, np.ndarray], byte: int):
        self._times_ns = np.array([sample["t_ns"] for sample in samples], dtype=np.int64)
        counts: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for number, sample in enumerate(samples):
            for end, count in sample["byte"].items():
                counts[int(end)].append((number, count))
        # before the first sample that names it an end had sent nothing
        self._counts = {end: np.array([(-1, 0), *known], dtype=np.int64).T for end, known in counts.items()}
        self._sent_ns = {end: np.sort(times) for end, times in sent_ns.items()}
        self._byte = byte

    def other_byte(self, end: int, from_ns: np.ndarray, to_ns: np.ndarray) -> np.ndarray:
        """What left an end between the samples around n times, and was no probe; int64 (n,)."""
        if end not in self._counts:
            return np.zeros(len(from_ns), dtype=np.int64)
        first = np.maximum(np.searchsorted(self._times_ns, from_ns, side="right") - 1, 0)
        last = np.minimum(np.searchsorted(self._times_ns, to_ns, side="left"), len(self._times_ns) - 1)
        begin, until = (
            np.searchsorted(self._sent_ns[end], times) for times in (self._times_ns[first], self._times_ns[last] + 1)
        )
        number, count = self._counts[end]
        at_first, at_last = (count[np.searchsorted(number, which, side="right") - 1] for which in (first, last))
        other = np.maximum(at_last - at_first - self._byte * (until - begin), 0)
        return np.where(last > first, other, 0)
