"""The users of a run: one process asks all planned questions, each from its own ground station.

Run as ``python -m isl_emu.workload.client``. A thread per question enters the station's network namespace when the
question is due, so the answer's packets take the emulated path. Every planned question leaves one line in
requests.jsonl, also if the run ends before it was sent.
"""

from __future__ import annotations

import argparse
import errno
import json
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isl_emu.network.namespaces import enter_network
from isl_emu.results.journal import Journal, read_journal
from isl_emu.runclock import run_clock
from isl_emu.timebase import Clock, MonotonicClock
from isl_emu.workload.exchange import Exchange, converse, judge
from isl_emu.workload.requests import PlannedRequest

LAST_WORDS_S = 5.0  # the machine's; for the threads of open requests to write their records
LOOK_INTERVAL_S = 0.2  # between two looks at whether the run is to end early
UNFINISHED = ("unfinished", "the run ended first")


@dataclass(frozen=True)
class Endpoint:
    """Where a node is: its namespace, its address, and its model server's port if it has one."""

    netns: str
    address: str
    port: int | None


@dataclass
class Client:
    """Asks questions on time.

    Args:
        endpoints: by node name.
        write: takes each finished request's record; called from many threads.
        t0_ns: the start of the run on the clock's scale.
        deadline_ns: how long after sending an answer that stopped coming is given up.
        enter: moves the calling thread into a network namespace.
    """

    endpoints: Mapping[str, Endpoint]
    write: Callable[[dict[str, Any]], None]
    t0_ns: int
    deadline_ns: int
    clock: Clock = field(default_factory=MonotonicClock)
    enter: Callable[[str], None] = enter_network
    _ended: bool = False
    _sockets: set[socket.socket] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, requests: Sequence[PlannedRequest], until_ns: int, stop: threading.Event) -> None:
        """Send each request when it is due, until `until_ns` or `stop`; then write down what is still open."""
        waiting = deque(sorted(requests, key=lambda request: request.t_due_ns))
        threads = []
        while waiting and (due_ns := self.t0_ns + waiting[0].t_due_ns) < until_ns:
            if self.clock.wait_until_ns(due_ns, stop):
                break
            threads.append(self._begin(waiting.popleft()))
        for thread in threads:
            while thread.is_alive() and self.clock.now_ns() < until_ns and not stop.is_set():
                thread.join(LOOK_INTERVAL_S)
        self._end(threads)
        for request in waiting:
            self._write(Exchange(request), *UNFINISHED)

    def _begin(self, request: PlannedRequest) -> threading.Thread:
        thread = threading.Thread(target=self._ask, args=(request,), name=f"request {request.id}", daemon=True)
        thread.start()
        return thread

    def _ask(self, request: PlannedRequest) -> None:
        """Ask one question, in a thread that stays in the station's network namespace."""
        exchange = Exchange(request)
        try:
            self._converse(exchange)
            verdict = ("completed", None)
        except Exception as error:  # whatever it was, the request leaves its record
            verdict = UNFINISHED if self._ended else judge(error, exchange.connected)
        self._write(exchange, *verdict)

    def _converse(self, exchange: Exchange) -> None:
        request = exchange.request
        if request.satellite is None:
            exchange.t_send_ns = self.clock.now_ns()
            raise OSError(errno.EHOSTUNREACH, "no computing satellite was reachable")
        station, satellite = self.endpoints[request.station], self.endpoints[request.satellite]
        self.enter(station.netns)
        target = (satellite.address, satellite.port)
        converse(exchange, station.address, target, self.deadline_ns, self.clock, self._watch)

    def _watch(self, connected: socket.socket) -> None:
        with self._lock:
            self._sockets.add(connected)
            if self._ended:
                _shut_down(connected)

    def _end(self, threads: Sequence[threading.Thread]) -> None:
        """Wake the threads that wait for an answer, and let them write their records."""
        with self._lock:
            self._ended = True
            for connected in self._sockets:
                _shut_down(connected)
        deadline_s = time.monotonic() + LAST_WORDS_S
        for thread in threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))

    def _write(self, exchange: Exchange, outcome: str, error: str | None) -> None:
        self.write(exchange.record(outcome, error, self.clock, self.t0_ns))


def read_endpoints(path: Path) -> dict[str, Endpoint]:
    """The nodes of a run, from endpoints.json."""
    return {name: Endpoint(**entry) for name, entry in json.loads(path.read_text()).items()}


def main() -> None:
    """Ask all planned questions; SIGTERM ends the run early, with every record written."""
    parser = argparse.ArgumentParser(prog="isl_emu.workload.client", description=__doc__)
    parser.add_argument("--journal", type=Path, required=True, help="folder of the run's journals")
    parser.add_argument("--t0-ns", type=int, required=True, help="start of the run, on its clock")
    parser.add_argument("--until-ns", type=int, required=True, help="end of the run, on its clock")
    parser.add_argument("--deadline-ns", type=int, required=True, help="how long to wait for an answer that stalls")
    options = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    planned = read_journal(options.journal / "planned_requests.jsonl").records
    endpoints = read_endpoints(options.journal / "endpoints.json")
    with Journal(options.journal / "requests.jsonl") as journal:
        clock = run_clock(options.journal)
        client = Client(endpoints, journal.append, options.t0_ns, options.deadline_ns, clock)
        client.run([PlannedRequest.from_json(record) for record in planned], options.until_ns, stop)


def _shut_down(connected: socket.socket) -> None:
    """End both directions; the thread that reads from it wakes. It may be closed already."""
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    main()
