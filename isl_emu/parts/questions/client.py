"""The users of a run: one process asks all planned questions, each from its own ground station.

Run as ``python -m isl_emu.parts.questions.client``. All questions are asked in one thread; a question's socket is
made in the station's network namespace, so its packets take the emulated path. Every question that came due leaves one
line in requests.jsonl, also if the run ends before it was answered, and each attempt to have it answered one in
attempts.jsonl.
"""

from __future__ import annotations

import asyncio
import errno
import resource
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

from isl_emu.errors import IslEmuError
from isl_emu.nodes.namespaces import enter_network
from isl_emu.parts.questions.asking import (
    ASKED_JOURNAL,
    ATTEMPTS_JOURNAL,
    OUTLOOK,
    PLANNED_JOURNAL,
    POLLS_JOURNAL,
    Asking,
    read_asking,
)
from isl_emu.parts.questions.chooser import Chooser, Polls, Queues
from isl_emu.parts.questions.connection import Connector, EventParser, post
from isl_emu.parts.questions.exchange import COMPLETED, UNFINISHED, Attempt, OpenRequest, WireBytes, body, judge
from isl_emu.parts.questions.policies import policy_of
from isl_emu.parts.questions.ramp import Ramp
from isl_emu.parts.questions.requests import PlannedRequest
from isl_emu.parts.serving.who_serves import SERVING, ServingSatellites
from isl_emu.routing.outlook import open_outlook
from isl_emu.runs.clock import RunTimes, run_clock, run_parser
from isl_emu.runs.endpoints import Endpoint, read_endpoints
from isl_emu.runs.journal import REQUESTS_JOURNAL, Journal, read_journal
from isl_emu.runs.loop import run_loop
from isl_emu.scenario.questions import MOVE

PATH = "/v1/chat/completions"
# outcomes of an attempt after which another may help
AGAIN = ("unreachable", "path_lost", "timed_out", "unavailable", "failed")
TOLD_SIGNS = 200  # of an open question, to who looks on; in the end all of it is in its record
MOST_DOUBLINGS = 16  # doublings of the time between two attempts

Verdict = tuple[str, str | None]
Write = Callable[[dict[str, Any]], None]


@dataclass
class AnswerListener:
    """Who reads a streamed answer into an attempt."""

    attempt: Attempt
    asking: Asking
    parser: EventParser = field(default_factory=EventParser)
    begun: Callable[[int], object] = lambda t_ns: None  # is told when the first token came

    def connected(self) -> None:
        """From now on a missing route is a lost path."""
        self.attempt.connected = True

    def take(self, part: bytes, now_ns: int) -> bool:
        """Take in the events that are complete; true after the last."""
        self.attempt.t_life_ns = now_ns
        waited = not self.attempt.t_token_ns
        for event in self.parser.feed(part):
            self.attempt.take(event, now_ns)
        if waited and self.attempt.t_token_ns:
            self.begun(self.attempt.t_token_ns[0])
        return self.attempt.done

    def ended(self, now_ns: int) -> None:
        """The stream has ended in order, and with it what came last."""
        if not self.attempt.done:
            for event in self.parser.end():
                self.attempt.take(event, now_ns)

    def patient_until_ns(self) -> int:
        """As the attempt has it."""
        return self.attempt.patient_until_ns(self.asking)

    def counted(self, wire: WireBytes) -> None:
        """Keep it for the record."""
        self.attempt.wire = wire


@dataclass
class Client:
    """Asks questions on time.

    Args:
        endpoints: by node name.
        write: takes the record of each request; `write_attempt` that of each attempt; `write_asked` what is told of one
            while it is open.
        t0_ns: the start of the run on the clock's scale.
        queues: learns of every question that is sent.
        beside: what else runs as long as questions are asked.
    """

    endpoints: Mapping[str, Endpoint]
    chooser: Chooser
    asking: Asking
    write: Write
    write_attempt: Write
    t0_ns: int
    connector: Connector
    queues: Queues = field(default_factory=Queues)
    beside: Sequence[Coroutine[Any, Any, None]] = ()
    write_asked: Write = lambda record: None
    _followers: dict[int, PlannedRequest] = field(default_factory=dict)
    _open: dict[asyncio.Task[None], None] = field(default_factory=dict)  # in the order of their starts
    _errors: list[BaseException] = field(default_factory=list)  # that are no outcome of a request
    _changed: asyncio.Event = field(default_factory=asyncio.Event)  # a request has ended

    async def run(self, requests: Sequence[PlannedRequest], until_ns: int, stop: asyncio.Event) -> None:
        """Send each request when it is due, until `until_ns` or `stop`; then write down what is still open.

        A request that waits for another one is never due if that does not end.

        Raises:
            WorkloadError: a policy chose a satellite that it had not been offered.
        """
        self._followers = {request.after: request for request in requests if request.after is not None}
        waiting = deque(sorted((item for item in requests if item.after is None), key=lambda item: item.t_due_ns))
        parts = (
            self._send_all(waiting),
            self._answered(waiting),
            self.connector.sleep_until(until_ns),
            stop.wait(),
            *self.beside,
        )
        sending, *ends = [asyncio.create_task(part) for part in parts]
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in done:
                end.result()
        finally:
            tasks = [sending, *ends, *self._open]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)  # until they have written what they had to
            for request in waiting:
                self._record(OpenRequest(request, self.t0_ns + request.t_due_ns), UNFINISHED)

    async def _send_all(self, waiting: deque[PlannedRequest]) -> None:
        while waiting:
            due_ns = self.t0_ns + waiting[0].t_due_ns
            await self.connector.sleep_until(due_ns)
            request = waiting.popleft()
            self._begin(OpenRequest(request, due_ns, context=request.before))

    async def _answered(self, waiting: deque[PlannedRequest]) -> None:
        """Wait until all requests have ended; what went wrong in one that is no outcome of it is raised here."""
        while waiting or self._open:
            await self._changed.wait()
            self._changed.clear()
            for error in self._errors:
                raise error

    def _begin(self, exchange: OpenRequest) -> None:
        task = asyncio.create_task(self._ask(exchange))
        self._open[task] = None

        def end(task: asyncio.Task[None]) -> None:
            self._open.pop(task, None)
            if not task.cancelled() and (error := task.exception()):
                self._errors.append(error)
            self._changed.set()

        task.add_done_callback(end)

    async def _ask(self, exchange: OpenRequest) -> None:
        """Ask one question, as often as it takes, and then the one that waits for its end.

        It is tried until an attempt helps, or there are no more, or it is too late for another.
        """
        asking, clock = self.asking, self.connector.clock
        await self.connector.sleep_until(exchange.t_due_ns)  # a user thinks before
        verdict: Verdict = UNFINISHED
        try:
            while True:
                tried, made = await self._try(exchange), len(exchange.attempts)
                next_ns = clock.now_ns() + asking.retry_backoff_ns * 2 ** min(made - 1, MOST_DOUBLINGS)
                late = next_ns > exchange.attempts[0].t_send_ns + asking.deadline_ns
                if tried[0] not in AGAIN or made > asking.retries or late:
                    verdict = tried
                    break
                await self.connector.sleep_until(next_ns)
        finally:
            self._record(exchange, verdict)
        if follower := self._followers.pop(exchange.request.id, None):
            now_ns, last = clock.now_ns(), exchange.attempts[-1]
            due_ns = self._due_ns(follower, max(now_ns, last.t_end_ns(verdict[0], now_ns) + follower.think_ns))
            if due_ns is not None:
                context = follower.context_after(exchange.request, exchange.context)
                holder = exchange.next_holder if follower.continues(exchange.request) else None
                self._begin(OpenRequest(follower, due_ns, context=context, holder=holder))

    def _due_ns(self, follower: PlannedRequest, due_ns: int) -> int | None:
        """When a question is due after another has ended and its user has thought; None if the user asks no more."""
        asking, start_ns = self.asking, self.t0_ns + self.asking.start_after_ns
        if asking.ramp is not None:
            from_ns = Ramp(asking.ramp).next_ns(due_ns - start_ns, follower.level)
            if from_ns is None:
                return None
            due_ns = start_ns + from_ns
        return None if asking.stop_after_ns is not None and due_ns - self.t0_ns >= asking.stop_after_ns else due_ns

    async def _try(self, exchange: OpenRequest) -> Verdict:
        """One attempt, which leaves its record."""
        clock, request = self.connector.clock, exchange.request
        now_ns, stood_ns = clock.now_ns(), clock.stood_ns()
        tried = [attempt.satellite for attempt in exchange.attempts]
        attempt = Attempt(self.chooser.choose(request, now_ns - self.t0_ns, tried), now_ns, stood_ns=stood_ns)
        exchange.attempts.append(attempt)
        verdict: Verdict = UNFINISHED
        try:
            if attempt.satellite is None:
                raise OSError(errno.EHOSTUNREACH, "no satellite that serves was reachable")
            station, satellite = self.endpoints[request.station], self.endpoints[attempt.satellite]
            self.queues.send(request.station, attempt.satellite)
            tell = partial(self._tell, exchange)
            tell("asked", now_ns)
            listener = AnswerListener(attempt, self.asking, begun=partial(tell, "first_token"))
            try:
                sent = post(PATH, satellite, body(request, exchange.context, self._mover(exchange)))
                await self.connector.ask(station, satellite, sent, listener)
                listener.ended(clock.now_ns())
            except (OSError, HTTPException):
                if not attempt.whole:
                    raise
            if not attempt.whole:
                raise HTTPException("the answer ended without saying that it was complete")
            verdict = COMPLETED
        except Exception as error:  # whatever it was, it is an outcome
            verdict = judge(error, attempt.connected)
        finally:
            of = {"id": request.id, "attempt": len(exchange.attempts), "station": request.station}
            outcome, reason = verdict
            self.write_attempt({**of, **attempt.record(outcome, reason, clock.now_ns(), self.t0_ns)})
        return verdict

    def _mover(self, exchange: OpenRequest) -> Endpoint | None:
        """From where the satellite that is asked is to get the context, if that moves and is not there."""
        holder = exchange.holder
        moves = self.asking.context == MOVE and holder not in (None, exchange.attempts[-1].satellite)
        return self.endpoints[holder] if moves and holder else None

    def _tell(self, exchange: OpenRequest, phase: str, t_ns: int) -> None:
        """What became of the attempt that is open; nothing is made of it but what a live run shows."""
        request, satellite = exchange.request, exchange.attempts[-1].satellite
        ends = {"station": request.station, "satellite": satellite, "question": request.question[:TOLD_SIGNS]}
        self.write_asked({"id": request.id, "phase": phase, "t_ns": t_ns - self.t0_ns, **ends})

    def _record(self, exchange: OpenRequest, verdict: Verdict) -> None:
        outcome, reason = verdict
        self.write(exchange.record(outcome, reason, self.connector.clock, self.t0_ns))


def main() -> None:
    """Ask all planned questions; SIGTERM ends the run early, with every record written."""
    options = run_parser("isl_emu.parts.questions.client", __doc__).parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a descriptor for each open request
    try:
        run_loop(_ask_all(options.journal, RunTimes.of(options)))
    except IslEmuError as error:
        traceback.print_exc()
        sys.exit(str(error))  # the last line of its log


async def _ask_all(journal: Path, times: RunTimes) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    records = read_journal(journal / f"{PLANNED_JOURNAL}.jsonl").records
    planned = [PlannedRequest.from_json(record) for record in records]
    with ExitStack() as files:
        client = _client(journal, times.t0_ns, {request.station for request in planned}, files)
        await client.run(planned, times.until_ns, stop)


def _client(journal: Path, t0_ns: int, stations: Iterable[str], files: ExitStack) -> Client:
    """The client of a run, with stations that poll where its policy wants to know queues."""

    def writer(name: str) -> Write:
        return files.enter_context(Journal(journal / f"{name}.jsonl")).append

    asking, queues, endpoints = read_asking(journal), Queues(), read_endpoints(journal)
    policy, serving = policy_of(asking.target), ServingSatellites(journal / SERVING, asking.known_down)
    chooser = Chooser(asking, serving, open_outlook(journal / OUTLOOK) if policy else None, policy, queues)
    connector = Connector(run_clock(journal), Entering().enter)
    client = Client(
        endpoints=endpoints,
        chooser=chooser,
        asking=asking,
        write=writer(REQUESTS_JOURNAL),
        write_attempt=writer(ATTEMPTS_JOURNAL),
        write_asked=writer(ASKED_JOURNAL),
        t0_ns=t0_ns,
        connector=connector,
        queues=queues,
    )
    if policy and asking.poll_interval_ns:
        polls = Polls(
            connector=connector,
            endpoints=endpoints,
            queues=queues,
            chooser=chooser,
            write=writer(POLLS_JOURNAL),
            t0_ns=t0_ns,
            interval_ns=asking.poll_interval_ns,
        )
        client.beside = [polls.run(station) for station in sorted(stations)]
    return client


class Entering:
    """Moves this thread between network namespaces, and not where it is already."""

    def __init__(self) -> None:
        self._here: str | None = None

    def enter(self, netns: str) -> None:
        """Enter the namespace at this path."""
        if netns != self._here:
            enter_network(netns)
            self._here = netns


if __name__ == "__main__":
    main()
