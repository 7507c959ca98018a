"""Hints from the plan: a link that the orbits are about to end costs so much that routers leave it beforehand.

Both its ends tell so by the protocol, in time: OSPF and IS-IS then route over it only where there is no other way, and
nothing is lost when it goes. Faults are no part of this, as nobody knows of them beforehand.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np

from isl_emu.errors import WorkloadError
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.network.naming import interface_name
from isl_emu.parts.activity import Activity
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.routing.frr import COST_WORDS, DAEMONS, MOST_COST, OWN, link_costs
from isl_emu.runs.clock import RunTimes
from isl_emu.scenario.routing import RoutingDaemon

PATIENCE_S = 60.0  # with a daemon that is told something
END, RECEIVE_BYTE = bytes(3), 4096


class Hint(NamedTuple):
    """That a link is to have its highest cost from a time on, or its usual one; ns since instant 0."""

    t_ns: int
    link: int
    ending: bool


def planned_hints(plan: LinkPlan, lead_ns: int) -> list[Hint]:
    """All hints of a plan without faults, in the order of time.

    The highest cost begins `lead_ns` before a link goes down, or with the run, and lasts until it is up again: daemons
    may believe in a link that is gone.
    """
    sky, step_ns, last = plan.sky, plan.grid.step_ns, plan.grid.count - 1
    up = np.zeros((plan.grid.count, len(plan.links.a)), dtype=bool)
    for k in range(plan.grid.count):
        up[k, sky.snapshot(k).link] = True
    hints = []
    for link in range(len(plan.links.a)):
        ends = np.flatnonzero(up[:last, link] & ~up[1:, link]) + 1
        starts = np.flatnonzero(~up[:last, link] & up[1:, link]) + 1
        begins = np.maximum(ends * step_ns - lead_ns, 0)
        hints += [Hint(t_ns, link, ending=True) for t_ns in begins.tolist()]
        for start in starts.tolist():
            coming = begins[ends > start]
            if (ends < start).any() and not (len(coming) and coming[0] <= start * step_ns):
                hints.append(Hint(start * step_ns, link, ending=False))
    return sorted(hints)


class Hints(Activity):
    """Tells the daemons at both ends of a link of its cost, as far as they are here, at the time of each hint."""

    def __init__(self, live: LiveRun, daemon: RoutingDaemon):
        self._live, self._hints = live, planned_hints(live.plan, daemon.hint_ns)
        self._costs, self._protocol = link_costs(live.plan, daemon), daemon.protocol
        self._stopped, self._failed = threading.Event(), ""

    def begin(self, times: RunTimes, ending: ExitStack) -> None:
        thread = threading.Thread(target=self._follow, args=(times,), name="hints", daemon=True)
        thread.start()
        ending.callback(thread.join)
        ending.callback(self._stopped.set)

    def check(self) -> None:
        if self._failed:
            raise WorkloadError(
                f"routing.daemon.hint: {self._failed}, but it is told what links cost; see its log in files"
            )

    def _follow(self, times: RunTimes) -> None:
        for hint in self._hints:
            if self._live.clock.wait_until_ns(times.t0_ns + hint.t_ns, self._stopped):
                return
            self._tell(hint)

    def _tell(self, hint: Hint) -> None:
        links, names = self._live.plan.links, self._live.plan.nodes.names
        cost = MOST_COST if hint.ending else int(self._costs[hint.link])
        program = DAEMONS[self._protocol]
        a, b = names[int(links.a[hint.link])], names[int(links.b[hint.link])]
        for node, peer in ((a, b), (b, a)):
            if not self._live.is_here(node):
                continue
            face = interface_name(peer, hint.link)
            words = ("enable", "configure terminal", f"interface {face}", f"{COST_WORDS[self._protocol]} {cost}")
            root = f"/proc/{self._live.containers[node].pid}/root"
            try:
                said = told(f"{root}{OWN}/{program}.vty", words)
            except OSError as error:
                said = error.strerror or str(error)
            if said:
                self._failed = f"{program} of {node} says {said[:200]!r}"


def told(path: str, commands: Sequence[str]) -> str:
    """Tell a daemon commands at the socket at which vtysh asks; what it says to the first that it does not take.

    An answer ends in three zero bytes and a status, which is 0 (CMD_SUCCESS of FRR's lib/command.h) or a warning's.

    Raises:
        OSError: it does not listen, or does not answer.
    """
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(PATIENCE_S)
        one.connect(path)
        for command in commands:
            one.sendall(command.encode() + b"\0")
            answer = b""
            while len(answer) < len(END) + 1 or answer[-len(END) - 1 : -1] != END:
                if not (more := one.recv(RECEIVE_BYTE)):
                    raise ConnectionResetError(f"it ended at {command!r}")
                answer += more
            if answer[-1]:
                return answer[: -len(END) - 1].decode(errors="replace").strip() or f"no to {command!r}"
    return ""
