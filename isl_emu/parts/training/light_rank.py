"""A rank without a model: it computes for a stated time, then sums a vector of the gradients' size with the others.

The vector's elements are whole numbers that follow from the rank and the step, so that every sum is exact and is
checked. A rank is a thread that lives in its satellite's network namespace: what it opens there takes the emulated way.
It carries out its rounds of a collective over its lines to other ranks, bytes out and bytes in at the same time.
"""

from __future__ import annotations

import queue
import select
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from isl_emu.nodes.namespaces import enter_network
from isl_emu.parts.serving.modelled_state import UNLIMITED, Allowance
from isl_emu.parts.training.collectives import Kind, Round, Schedule, hand_on, pairs_of, schedule
from isl_emu.parts.training.meeting import Reception, open_line
from isl_emu.timebase import Clock

READ_BYTE = 1 << 18
Emit = Callable[[str, dict[str, Any]], None]
# Up to 5,000 ranks each sum stays below 2^24, up to which float32 holds whole numbers exactly.
PATTERN, FACTORS = 61, 100


@dataclass(frozen=True)
class Task:
    """What all ranks of a job have in common.

    Args:
        names: of the satellites; a rank's number is its place here, whatever ring it is in.
        addresses: of the satellites.
        elements: of the vector that is really summed.
        compute_ns: from one synchronisation to the next.
        planes: of the satellites, for a hierarchical sum.
        t0_ns: instant 0 on the clock.
        allowance: what energy leaves of the satellites' computers.
    """

    names: tuple[str, ...]
    addresses: Mapping[str, str]
    port: int
    kind: Kind
    planes: Mapping[str, Any]
    elements: int
    compute_ns: int
    timeout_ns: int
    clock: Clock
    t0_ns: int
    stopped: threading.Event
    allowance: Allowance = UNLIMITED

    @cached_property
    def _patterns(self) -> np.ndarray:
        return (np.arange(self.elements + PATTERN) % PATTERN + 1).astype(np.float32)

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """The satellites' numbers."""
        return {name: number for number, name in enumerate(self.names)}

    def factor(self, name: str) -> int:
        """The multiple of the pattern that a satellite contributes to a sum."""
        return self.numbers[name] % FACTORS + 1

    def pattern(self, step: int) -> np.ndarray:
        """What rank 0 contributes in a step (a view); others contribute a multiple of it."""
        return self._patterns[step % PATTERN :][: self.elements]


@dataclass(frozen=True)
class Formation:
    """How the members of a ring form their sum; worked out once for all of them.

    Args:
        handing: the rounds in which they take over the weights first; none if nobody has to.
        to, source: for each member the places of those to whom it sends, and of those from whom it receives.
        factor: the multiple of the pattern that is the sum.
    """

    kind: Kind
    rounds: Schedule
    handing: Schedule
    to: tuple[tuple[int, ...], ...]
    source: tuple[tuple[int, ...], ...]
    factor: int


def form(task: Task, members: Sequence[str], source: str | None) -> Formation:
    """The formation of members, of whom one hands its weights to the others unless `source` is None.

    Planes from which different numbers are left cannot be summed place by place: then it is a ring.
    """
    planes: dict[Any, list[int]] = {}
    for place, name in enumerate(members):
        planes.setdefault(task.planes.get(name), []).append(place)
    unequal = len({len(plane) for plane in planes.values()}) > 1
    kind = "ring" if task.kind == "hierarchical" and unequal else task.kind
    rounds = schedule(kind, task.elements, list(planes.values()))
    handing: Schedule = ()
    if source is not None:  # the weights pass from it to all others, once around the ring
        first = members.index(source)
        handing = hand_on(task.elements, [(first + place) % len(members) for place in range(len(members))])
    pairs = sorted({*pairs_of(rounds), *pairs_of(handing)})
    to: list[list[int]] = [[] for _ in members]
    sources: list[list[int]] = [[] for _ in members]
    for sender, receiver in pairs:
        to[sender].append(receiver)
        sources[receiver].append(sender)
    factor = sum(map(task.factor, members))
    return Formation(kind, rounds, handing, tuple(map(tuple, to)), tuple(map(tuple, sources)), factor)


class Stalled(Exception):
    """Nothing moved for too long, or a line broke."""


@dataclass
class _Flow:
    """A message on one line: what is left of it."""

    line: socket.socket
    rest: memoryview
    receives: bool = False


class Lines:
    """The lines of one rank, those it sends on and those it receives on, by the rank at the other end.

    Args:
        timeout_ns: for how long nothing may move on any of them, by the clock.
    """

    def __init__(
        self, out: Mapping[int, socket.socket], into: Mapping[int, socket.socket], clock: Clock, timeout_ns: int
    ):
        self._out, self._in = dict(out), dict(into)
        self._clock, self._timeout_ns = clock, timeout_ns
        self._scratch: dict[int, np.ndarray] = {}  # by source; kept, since touching new memory is slow
        self.sent_byte = self.received_byte = 0
        for line in (*self._out.values(), *self._in.values()):
            line.setblocking(False)

    def shut_down(self) -> None:
        """End both directions of all lines: whoever waits in `carry_out`, in another thread, is woken."""
        for line in (*self._out.values(), *self._in.values()):
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close all lines: who waits at another end notices."""
        for line in (*self._out.values(), *self._in.values()):
            line.close()

    def carry_out(self, rounds: Sequence[Round], vector: np.ndarray) -> None:
        """Take part in a collective; afterwards the vector holds its result.

        Raises:
            Stalled: nothing moved for too long, or a line broke.
        """
        for round_ in rounds:
            flows = [_Flow(self._out[each.to], _bytes_of(vector[each.part])) for each in round_.sendings]
            summands: list[tuple[slice, np.ndarray]] = []  # each with the part of the vector to which it is added
            for receiving in round_.receivings:
                into = vector[receiving.part]
                if receiving.adds:
                    # Room for what comes and is to be added
                    if len(self._scratch.get(receiving.source, ())) < len(into):
                        self._scratch[receiving.source] = np.empty_like(into)
                    into = self._scratch[receiving.source][: len(into)]
                    summands.append((receiving.part, into))
                flows.append(_Flow(self._in[receiving.source], _bytes_of(into), receives=True))
            self._move([flow for flow in flows if len(flow.rest)])
            for part, summand in summands:
                vector[part] += summand

    def _move(self, flows: list[_Flow]) -> None:
        """Send and receive until nothing is left; a line carries one flow of a round each way."""
        deadline_ns = self._clock.now_ns() + self._timeout_ns
        while flows:
            try:
                moved = sum(self._advance(flow) for flow in flows)
            except OSError as error:
                raise Stalled(f"a line broke ({error.strerror or error})") from error
            flows = [flow for flow in flows if len(flow.rest)]
            if moved:
                deadline_ns = self._clock.now_ns() + self._timeout_ns
            elif flows:
                poll = select.poll()
                for flow in flows:
                    poll.register(flow.line, select.POLLIN if flow.receives else select.POLLOUT)
                while not poll.poll(1000 * self._clock.timeout_s(deadline_ns)):
                    if self._clock.now_ns() >= deadline_ns:
                        raise Stalled("nothing moved any more")

    def _advance(self, flow: _Flow) -> int:
        """Move what can be moved at once; how many bytes."""
        try:
            if not flow.receives:
                count = flow.line.send(flow.rest)
                self.sent_byte += count
            else:
                count = flow.line.recv_into(flow.rest[:READ_BYTE])
                self.received_byte += count
                if not count:
                    raise Stalled("a line was closed at its other end")
        except BlockingIOError:
            return 0
        flow.rest = flow.rest[count:]
        return count


def _bytes_of(array: np.ndarray) -> memoryview:
    """An array's memory; an empty one's is empty."""
    return array.data.cast("B") if len(array) else memoryview(b"")


class LightRank:
    """A rank of a job, in a thread of its own.

    Args:
        netns: the satellite's network namespace; None to stay in this one.
        emit: takes the rank's events.
    """

    def __init__(self, name: str, netns: str | None, task: Task, reception: Reception, emit: Emit):
        self.orders: queue.Queue[Mapping[str, Any] | None] = queue.Queue()
        self._name, self._netns, self._task = name, netns, task
        self._reception, self._emit = reception, emit
        self._lines: Lines | None = None
        self._ring = -1
        self._rounds: tuple[Round, ...] = ()
        self._vector = np.zeros(task.elements, dtype=np.float32)
        self._thread = threading.Thread(target=self._live, name=f"rank {name}", daemon=True)

    def start(self) -> None:
        """Begin to listen for orders."""
        self._thread.start()

    def end(self) -> None:
        """End the thread, which no longer waits for anybody; `Task.stopped` is set before."""
        self.orders.put(None)
        if lines := self._lines:
            lines.shut_down()
        self._thread.join()
        self._close()

    def _live(self) -> None:
        try:
            if self._netns is not None:
                enter_network(self._netns)
            while (order := self.orders.get()) is not None:
                try:
                    taken_byte = self._join(order)
                    step, last = order["first"], order["last"]
                    while not self._task.stopped.is_set() and (last is None or step <= last):
                        self._step(step, order, taken_byte)
                        step, taken_byte = step + 1, 0
                except (Stalled, OSError) as error:
                    self._close()
                    self._emit(self._name, {"event": "failed", "ring": order["ring"], "why": str(error)})
        except Exception as error:  # whatever it was, somebody hears of it
            self._emit(self._name, {"event": "broken", "why": f"{type(error).__name__}: {error}"})

    def _join(self, order: Mapping[str, Any]) -> int:
        """Open the ring's lines unless they are; take over the weights if need be; the bytes that this took."""
        members, source = order["members"], order["source"]
        if order["ring"] == self._ring and self._lines is not None:
            return 0
        self._close()
        self._reception.forget(order["ring"])
        formation, place, ring = order["formation"], members.index(self._name), order["ring"]
        task, own, out, into = self._task, self._name, {}, {}
        deadline_ns = task.clock.now_ns() + task.timeout_ns
        try:
            for to in formation.to[place]:
                timeout_s = max(task.clock.timeout_s(deadline_ns), 1e-3)
                ends = task.addresses[own], task.addresses[members[to]], task.port
                out[to] = open_line(*ends, ring, task.numbers[own], timeout_s)
            for sender in formation.source[place]:
                numbers = task.numbers[own], ring, task.numbers[members[sender]]
                into[sender] = self._reception.line(*numbers, task.clock, deadline_ns)
        except OSError:
            for line in (*out.values(), *into.values()):
                line.close()
            raise
        self._lines = Lines(out, into, task.clock, task.timeout_ns)
        self._ring, self._rounds = ring, formation.rounds[place]
        if source is None:
            return 0
        self._lines.carry_out(formation.handing[place], self._vector)
        return self._lines.received_byte

    def _step(self, step: int, order: Mapping[str, Any], taken_byte: int) -> None:
        task, lines = self._task, self._lines
        assert lines is not None, "it has joined a ring"
        begun_ns = task.clock.now_ns()
        sent_byte, received_byte = lines.sent_byte, lines.received_byte
        pattern = task.pattern(step)
        np.multiply(pattern, task.factor(self._name), out=self._vector)
        if task.allowance.work(self._name, task.compute_ns, task.clock, task.stopped):
            return
        computed_ns = task.clock.now_ns()
        lines.carry_out(self._rounds, self._vector)
        ended_ns = task.clock.now_ns()
        # Whether the sum is the sum; the vector is filled anew in the next step
        self._vector /= order["formation"].factor
        if not np.array_equal(pattern, self._vector):
            raise ArithmeticError(f"the sum of step {step} is wrong, but every bit of it must be right")
        self._emit(self._name, {
            "event": "step", "ring": order["ring"], "step": step,
            "t_begun_ns": begun_ns - task.t0_ns, "t_computed_ns": computed_ns - task.t0_ns,
            "t_ended_ns": ended_ns - task.t0_ns, "sent_byte": lines.sent_byte - sent_byte,
            "received_byte": lines.received_byte - received_byte, "taken_byte": taken_byte, "loss": None,
        })  # fmt: skip

    def _close(self) -> None:
        if self._lines is not None:
            self._lines.close()
            self._lines = None
