"""The calendar of virtual time: which guest may run, and until when.

User-mode Linux with ``time-travel=ext`` asks a calendar for every step of its clock that it has not been granted in
advance. This is the calendar's reasoning, without sockets or clocks: messages in, messages out.

A guest runs freely for a slice of time, so that a busy second costs it no more than a few messages. Guests with trunks
between them tell each other over these how far each may go (Chandy and Misra 1979, Bryant 1977: `kernel/patches/`), and
get their slice together; guests without take turns.

What guests send each other goes over their trunks, not through the calendar: when a slice is over they tell to whom
frames are on their way, and when the first is due.

Source: Linux include/uapi/linux/um_timetravel.h, arch/um/kernel/time.c; `kernel/patches/8-trunks.patch`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from isl_emu.units import NS_PER_S

NEVER_NS = 2**63 - 1  # Source: Linux arch/um/kernel/time.c time_travel_sleep, S64_MAX
SLICE_NS = NS_PER_S  # a hold at once takes effect within this much emulated time

_LAYOUT = struct.Struct("<IIQ")
MESSAGE_BYTE = _LAYOUT.size


class Operation(IntEnum):
    """What a message says (enum um_timetravel_ops)."""

    ACK = 0
    START = 1
    REQUEST = 2
    WAIT = 3
    GET = 4
    UPDATE = 5
    RUN = 6
    FREE_UNTIL = 7
    GET_TOD = 8
    BROADCAST = 9
    TRUNK_DUE = 32
    TRUNK_WAIT = 33


@dataclass(frozen=True)
class Message:
    """One struct um_timetravel_msg; of what concerns trunks, the sequence number is a guest's number."""

    operation: Operation
    sequence: int
    time_ns: int

    def pack(self) -> bytes:
        """As it goes over the socket."""
        return _LAYOUT.pack(self.operation, self.sequence, self.time_ns)


def unpack_messages(data: bytes) -> Iterator[Message]:
    """The messages in `data`, whose length is a multiple of `MESSAGE_BYTE`."""
    for operation, sequence, time_ns in _LAYOUT.iter_unpack(data):
        yield Message(Operation(operation), sequence, time_ns)


@dataclass
class Guest:
    """What the calendar knows of one guest; all times are the calendar's.

    Args:
        key: its place in the calendar.
        offset_ns: the calendar's time when it joined; its own time began at 0 then.
        now_ns: its time; while it runs freely, the last that it told.
        number: how it names itself; None until it has.
        request_ns: when its next event is due; None while that is not known.
        waiting: whether it waits to be run.
        free_until_ns: how far it runs without asking.
        posted_ns: when something from outside is to wake it.
        sequence: of the last message that we began.
    """

    key: int
    offset_ns: int
    now_ns: int
    number: int | None = None
    request_ns: int | None = None
    waiting: bool = False
    free_until_ns: int = 0
    posted_ns: list[int] = field(default_factory=list)
    sequence: int = 0

    @property
    def next_ns(self) -> int:
        """No event of this guest happens before this time."""
        if not self.waiting:
            return self.now_ns
        asked_ns = NEVER_NS if self.request_ns is None else self.request_ns
        return max(self.now_ns, min([asked_ns, *self.posted_ns]))

    def stands(self, hold_ns: int) -> bool:
        """Whether its time cannot go on, since it stops at an instant; it may compute all the same."""
        if self.waiting:
            return self.next_ns >= hold_ns or self.next_ns == self.now_ns
        return self.free_until_ns <= max(hold_ns, self.now_ns)


Sending = tuple[int, list[Message]]
"""What to send to which guest, by its key."""


class Calendar:
    """The shared clock of one or more guests.

    Args:
        start_utc_ns: what the guests' clocks show at time 0.
        trunks: whether the guests hold each other back where they must.
    """

    def __init__(self, start_utc_ns: int, *, trunks: bool = False):
        self._start_utc_ns, self._trunks = start_utc_ns, trunks
        self._guests: dict[int, Guest] = {}
        self._joined = 0
        self._past_ns = 0  # the time of guests that have left

    @property
    def guests(self) -> Iterable[Guest]:
        """Those that are here."""
        return self._guests.values()

    @property
    def now_ns(self) -> int:
        """The time that all guests have reached."""
        return min((guest.now_ns for guest in self.guests), default=self._past_ns)

    def join(self) -> int:
        """A guest has connected; return its key."""
        key, self._joined = self._joined, self._joined + 1
        now_ns = max([self._past_ns, *(guest.now_ns for guest in self.guests)])
        self._guests[key] = Guest(key, offset_ns=now_ns, now_ns=now_ns)
        return key

    def leave(self, key: int) -> None:
        """A guest is gone; the others need not wait for it."""
        self._past_ns = max(self._past_ns, self._guests.pop(key).now_ns)

    def post(self, key: int, at_ns: int) -> None:
        """Something from outside happens to a guest at a time: it is run then, however long it wanted to wait."""
        guest = self._guests[key]
        guest.posted_ns.append(max(at_ns, guest.now_ns))

    def receive(self, key: int, message: Message) -> list[Message]:
        """Take note of a guest's message, and return what it is to be sent at once."""
        guest = self._guests[key]
        answer_ns, before = 0, list[Message]()
        match message.operation:
            case Operation.ACK:
                return []
            case Operation.TRUNK_DUE:
                for other in self._named(message.sequence):
                    self.post(other.key, message.time_ns + guest.offset_ns)
                return []
            case Operation.TRUNK_WAIT:
                self._note_time(guest, message.time_ns)
                return []
            case Operation.START:
                guest.number, answer_ns = message.time_ns, key
            case Operation.REQUEST:
                guest.request_ns = message.time_ns + guest.offset_ns
            case Operation.WAIT:
                guest.waiting = True
                self._note_time(guest, message.time_ns)
            case Operation.GET:
                self._note_time(guest, message.time_ns)
                answer_ns = guest.now_ns - guest.offset_ns
            case Operation.UPDATE:
                self._note_time(guest, message.time_ns)
            case Operation.GET_TOD:
                answer_ns = self._start_utc_ns + guest.now_ns
            case Operation.BROADCAST:
                if not self._trunks:  # else it would come to us before the others can
                    before = self._asked_soon(guest, 0)
            case _:
                raise ValueError(f"a guest sent {message.operation.name}, which only a calendar may send")
        return [*before, Message(Operation.ACK, message.sequence, answer_ns)]

    def grants(self, limit_ns: int = NEVER_NS) -> list[Sending]:
        """Let every guest run that may; return what to send.

        Args:
            limit_ns: no event at or after this time may happen; what is posted for a guest's present time may, and of
                guests with trunks all may come as far as one of them is.
        """
        if self._trunks:
            return self._grant_together(limit_ns)
        found = []
        for guest in sorted(self.guests, key=lambda guest: (guest.next_ns, guest.key)):
            if guest.waiting and self._may_run(guest, limit_ns):
                found.append((guest.key, self._run(guest, limit_ns)))
        return found

    def next_ns(self) -> int:
        """The earliest time at which anything may happen; `NEVER_NS` if all guests sleep for ever."""
        return min((guest.next_ns for guest in self.guests), default=NEVER_NS)

    def _note_time(self, guest: Guest, own_ns: int) -> None:
        """A kernel without our patches sends -1 where ours sends its time."""
        if own_ns <= NEVER_NS:
            guest.now_ns = max(guest.now_ns, own_ns + guest.offset_ns)

    def _named(self, number: int) -> list[Guest]:
        """The guest of a number, if it is still here."""
        return [guest for guest in self.guests if guest.number == number]

    def _others(self, guest: Guest) -> list[Guest]:
        return [other for other in self.guests if other is not guest]

    def _may_run(self, guest: Guest, limit_ns: int) -> bool:
        at_ns = guest.next_ns
        if at_ns >= NEVER_NS or (at_ns >= limit_ns and not (at_ns == guest.now_ns and guest.posted_ns)):
            return False
        return all(other.waiting and (at_ns, guest.key) < (other.next_ns, other.key) for other in self._others(guest))

    def _run(self, guest: Guest, limit_ns: int) -> list[Message]:
        at_ns = guest.next_ns
        others_ns = min((other.next_ns for other in self._others(guest)), default=NEVER_NS)
        guest.posted_ns = [posted_ns for posted_ns in guest.posted_ns if posted_ns > at_ns]
        return self._let_run(guest, at_ns, min(limit_ns, others_ns, at_ns + SLICE_NS))

    def _grant_together(self, limit_ns: int) -> list[Sending]:
        """All go on from where each of them stands; what is on its way to one is known to it or posted.

        Who is given time waits for a word of all others, which only those say who are given some as well: none is given
        less than where another stands.
        """
        if not all(guest.waiting for guest in self.guests):
            return []
        at_ns = self.next_ns()
        posted = any(guest.next_ns == guest.now_ns and guest.posted_ns for guest in self.guests)
        if at_ns >= NEVER_NS or (at_ns >= limit_ns and not posted):
            return []
        for guest in self.guests:
            guest.posted_ns.clear()
        until_ns, stand_ns = min(limit_ns, at_ns + SLICE_NS), [guest.now_ns for guest in self.guests]
        if until_ns > min(stand_ns):
            until_ns = max(until_ns, max(stand_ns) + 1)
        return [(guest.key, self._let_run(guest, guest.now_ns, until_ns)) for guest in self.guests]

    def _let_run(self, guest: Guest, at_ns: int, until_ns: int) -> list[Message]:
        guest.now_ns, guest.waiting, guest.request_ns, guest.free_until_ns = at_ns, False, None, until_ns
        free = self._asked_soon(guest, until_ns) if until_ns > at_ns else []
        return [*free, self._begun(guest, Operation.RUN, at_ns - guest.offset_ns)]

    def _asked_soon(self, guest: Guest, free_until_ns: int) -> list[Message]:
        guest.free_until_ns = free_until_ns
        return [self._begun(guest, Operation.FREE_UNTIL, max(free_until_ns - guest.offset_ns, 0))]

    def _begun(self, guest: Guest, operation: Operation, time_ns: int) -> Message:
        guest.sequence += 1
        return Message(operation, guest.sequence, time_ns)


@dataclass(frozen=True)
class Throttle:
    """How far time may go: up to an instant, and never ahead of the wall clock times a factor.

    Args:
        hold_ns: time stops here; None to go on.
        factor: emulated seconds per second of the wall at most; None for as fast as can be.
        wall_ns, emulated_ns: where both clocks stood when this came into force.
    """

    hold_ns: int | None = None
    factor: float | None = None
    wall_ns: int = 0
    emulated_ns: int = 0

    def limit_ns(self, wall_ns: int) -> int:
        """The time that events must be earlier than, when the wall clock shows `wall_ns`."""
        hold_ns = NEVER_NS if self.hold_ns is None else self.hold_ns
        return min(hold_ns, self.paced_ns(wall_ns) + 1)

    def paced_ns(self, wall_ns: int) -> int:
        """The emulated time that belongs to a time of the wall; far away if there is no factor."""
        if self.factor is None:
            return NEVER_NS - 1
        return self.emulated_ns + int((wall_ns - self.wall_ns) * self.factor)

    def due_in_ns(self, at_ns: int, wall_ns: int) -> int | None:
        """How long by the wall until an event may happen; None if it may not at all."""
        if self.hold_ns is not None and at_ns >= self.hold_ns:
            return None
        if self.factor is None:
            return 0
        return max(0, int((at_ns - self.paced_ns(wall_ns)) / self.factor))
