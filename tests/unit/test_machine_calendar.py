"""Who may run when: the calendar's reasoning, with guests that are a few lines of Python."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isl_emu.machine.calendar import (
    MESSAGE_BYTE,
    NEVER_NS,
    SLICE_NS,
    Calendar,
    Message,
    Operation,
    Throttle,
    unpack_messages,
)
from isl_emu.units import NS_PER_MS, NS_PER_S

UTC_NS = 1_774_008_000 * NS_PER_S


@dataclass
class FakeGuest:
    """Follows the protocol as arch/um/kernel/time.c does: runs its events in order, and asks when it must.

    Args:
        calendar: what it asks.
        events: when something is to happen to it, on its own clock.
        number: how it names itself.
    """

    calendar: Calendar
    events: list[int]
    key: int = -1
    now_ns: int = 0
    free_until_ns: int = 0
    ran: list[int] = field(default_factory=list)
    sent: int = 0
    number: int = 7

    def __post_init__(self) -> None:
        self.key = self.calendar.join()
        self.tell(Operation.START, self.number)
        self.wait()

    def tell(self, operation: Operation, time_ns: int) -> list[Message]:
        self.sent += 1
        answers = self.calendar.receive(self.key, Message(operation, self.sent, time_ns))
        assert (answers[-1].operation, answers[-1].sequence) == (Operation.ACK, self.sent)
        return answers

    def wait(self) -> None:
        self.free_until_ns = 0
        self.tell(Operation.REQUEST, min(self.events, default=NEVER_NS))
        self.tell(Operation.WAIT, self.now_ns)

    def take(self, messages: list[Message]) -> None:
        for message in messages:
            if message.operation is Operation.FREE_UNTIL:
                self.free_until_ns = message.time_ns
            if message.operation is Operation.RUN:
                assert message.time_ns >= self.now_ns, "time goes backwards"
                self.now_ns = message.time_ns
            self.calendar.receive(self.key, Message(Operation.ACK, message.sequence, 0))

    def go(self) -> None:
        """Run what it may, then wait."""
        while self.events and (min(self.events) <= self.now_ns or min(self.events) < self.free_until_ns):
            self.now_ns = max(self.now_ns, min(self.events))
            self.events.remove(min(self.events))
            self.ran.append(self.now_ns)
        self.wait()


def _drive(calendar: Calendar, guests: list[FakeGuest], limit_ns: int = NEVER_NS) -> int:
    """Let them run until nobody may; return how many grants that took."""
    grants = 0
    while sending := calendar.grants(limit_ns):
        grants += len(sending)
        for key, messages in sending:
            guests[key].take(messages)
        for key, _ in sending:
            guests[key].go()
    return grants


def test_messages_survive_the_socket():
    messages = [Message(Operation.REQUEST, 3, 2**63 - 1), Message(Operation.ACK, 2**32 - 1, 0)]
    data = b"".join(message.pack() for message in messages)
    assert len(data) == 2 * MESSAGE_BYTE
    assert list(unpack_messages(data)) == messages


def test_a_guest_learns_the_scenarios_date_and_its_place():
    calendar = Calendar(UTC_NS)
    key = calendar.join()
    assert calendar.receive(key, Message(Operation.START, 1, 99)) == [Message(Operation.ACK, 1, key)]
    assert calendar.receive(key, Message(Operation.GET_TOD, 2, 0)) == [Message(Operation.ACK, 2, UTC_NS)]
    assert [guest.number for guest in calendar.guests] == [99]


def test_a_lone_guest_asks_once_a_slice_however_much_happens():
    calendar = Calendar(UTC_NS)
    guest = FakeGuest(calendar, list(range(0, 10 * NS_PER_S, 10 * NS_PER_MS)))
    assert _drive(calendar, [guest]) <= 10 * NS_PER_S // SLICE_NS + 1
    assert guest.ran == list(range(0, 10 * NS_PER_S, 10 * NS_PER_MS))


def test_time_jumps_over_what_is_idle():
    calendar = Calendar(UTC_NS)
    guest = FakeGuest(calendar, [5, 3600 * NS_PER_S])
    assert _drive(calendar, [guest]) == 2
    assert calendar.now_ns == 3600 * NS_PER_S


def test_nothing_happens_at_or_after_the_instant_of_a_hold():
    calendar = Calendar(UTC_NS)
    guest = FakeGuest(calendar, [1, 2, 3, 4, 5])
    _drive(calendar, [guest], limit_ns=3)
    assert guest.ran == [1, 2]
    _drive(calendar, [guest])
    assert guest.ran == [1, 2, 3, 4, 5]


def test_a_held_guest_may_look_around_without_time_going_on():
    calendar = Calendar(UTC_NS)
    guest = FakeGuest(calendar, [1, 8])
    _drive(calendar, [guest], limit_ns=3)
    calendar.post(guest.key, guest.now_ns)
    assert _drive(calendar, [guest], limit_ns=3) == 1
    assert (guest.now_ns, guest.ran) == (1, [1])


def test_a_guest_is_woken_before_it_wanted_to_be():
    calendar = Calendar(UTC_NS)
    guest = FakeGuest(calendar, [1, 100])
    _drive(calendar, [guest], limit_ns=2)
    calendar.post(guest.key, 40)
    (sending,) = calendar.grants()
    assert sending[1][-1].operation is Operation.RUN
    assert sending[1][-1].time_ns == 40


def test_without_a_lookahead_guests_take_turns_in_the_order_of_time():
    calendar = Calendar(UTC_NS)
    guests = [FakeGuest(calendar, [10, 30]), FakeGuest(calendar, [10, 20, 40])]
    order = []
    while sending := calendar.grants():
        assert len(sending) == 1
        ((key, messages),) = sending
        guests[key].take(messages)
        guests[key].go()
        order.append((guests[key].now_ns, key))
    assert order == [(10, 0), (20, 1), (30, 0), (40, 1)]  # 10 and 20 of the second in one go


def test_guests_with_trunks_go_on_together_from_where_they_stand():
    calendar = Calendar(UTC_NS, trunks=True)
    guests = [FakeGuest(calendar, [100, 400]), FakeGuest(calendar, [1000])]
    guests[0].now_ns = 30
    guests[0].wait()
    asked = {
        key: [(message.operation, message.time_ns) for message in messages] for key, messages in calendar.grants(700)
    }
    assert asked == {
        0: [(Operation.FREE_UNTIL, 700), (Operation.RUN, 30)],
        1: [(Operation.FREE_UNTIL, 700), (Operation.RUN, 0)],
    }
    guests[0].wait()
    assert calendar.grants() == []  # the other has not come back
    guests[1].wait()
    assert len(calendar.grants()) == 2


@pytest.mark.parametrize(("posted", "limit_ns"), [(0, 55), (0, 90), (1, 55)])
def test_no_guest_with_trunks_is_given_time_alone(posted, limit_ns):
    """It would wait for a word of who stands later than the limit, and is called without time: a pace begins anew."""
    calendar = Calendar(UTC_NS, trunks=True)
    guests = [FakeGuest(calendar, [60, 400]), FakeGuest(calendar, [1000])]
    for guest, now_ns in zip(guests, (50, 90), strict=True):
        guest.now_ns = now_ns
        guest.wait()
    calendar.post(posted, guests[posted].now_ns)
    given = {key: messages[0] for key, messages in calendar.grants(limit_ns)}
    assert [given[key].operation for key in (0, 1)] == [Operation.FREE_UNTIL, Operation.FREE_UNTIL]
    assert [given[key].time_ns for key in (0, 1)] == [91, 91]


def test_what_is_on_its_way_when_guests_come_back_is_an_event_of_who_gets_it():
    calendar = Calendar(UTC_NS, trunks=True)
    sender = FakeGuest(calendar, [NS_PER_S], number=3)
    FakeGuest(calendar, [2 * NS_PER_S], number=5)
    assert calendar.receive(sender.key, Message(Operation.TRUNK_DUE, 5, 115)) == []
    assert calendar.next_ns() == 115
    assert calendar.grants(115) == []
    assert len(calendar.grants(116)) == 2
    assert calendar.next_ns() == 0  # they run


def test_a_guest_with_trunks_whose_calendar_is_called_keeps_its_slice():
    """The others could not come back before it is over."""
    calendar = Calendar(UTC_NS, trunks=True)
    guest = FakeGuest(calendar, [100])
    guest.take(calendar.grants()[0][1])
    assert len(guest.tell(Operation.BROADCAST, 0)) == 1


def test_what_is_sent_to_a_guest_that_left_is_of_no_concern():
    calendar = Calendar(UTC_NS, trunks=True)
    sender, gone = FakeGuest(calendar, [100], number=3), FakeGuest(calendar, [1000], number=5)
    calendar.leave(gone.key)
    assert calendar.receive(sender.key, Message(Operation.TRUNK_DUE, 5, 50)) == []
    assert calendar.next_ns() == 100


@given(seed=st.integers(0, 2**32), trunks=st.booleans(), count=st.integers(2, 5))
def test_all_that_is_planned_happens_whoever_comes_back_first(seed, trunks, count):
    random_ = random.Random(seed)
    calendar = Calendar(UTC_NS, trunks=trunks)
    planned = [sorted(random_.sample(range(500), 8)) for _ in range(count)]
    guests = [FakeGuest(calendar, list(events)) for events in planned]
    while sending := calendar.grants():
        for key, messages in sending:
            guests[key].take(messages)
        for key in random_.sample([key for key, _ in sending], len(sending)):
            guests[key].go()
    assert [guest.ran for guest in guests] == planned


def test_a_guest_that_left_is_not_waited_for_and_its_time_is_not_lost():
    calendar = Calendar(UTC_NS)
    first, second = FakeGuest(calendar, [10]), FakeGuest(calendar, [20])
    calendar.leave(first.key)
    _drive(calendar, [first, second])
    assert second.ran == [20]
    calendar.leave(second.key)
    assert calendar.now_ns == 20


def test_a_guest_that_joins_late_begins_at_its_own_zero():
    calendar = Calendar(UTC_NS)
    first = FakeGuest(calendar, [50])
    _drive(calendar, [first])
    late = FakeGuest(calendar, [5])
    assert calendar.receive(late.key, Message(Operation.GET_TOD, 9, 0))[-1].time_ns == UTC_NS + 50
    _drive(calendar, [first, late])
    assert late.ran == [5]
    assert calendar.next_ns() == NEVER_NS


def test_what_only_a_calendar_says_is_refused():
    calendar = Calendar(UTC_NS)
    with pytest.raises(ValueError, match="RUN"):
        calendar.receive(calendar.join(), Message(Operation.RUN, 1, 0))


def test_a_wish_from_inside_is_followed_at_the_next_event():
    calendar = Calendar(UTC_NS)
    guest = FakeGuest(calendar, [1, 2])
    ((_, messages),) = calendar.grants()
    guest.take(messages)
    shortened, _ = guest.tell(Operation.BROADCAST, 0)
    assert (shortened.operation, shortened.time_ns) == (Operation.FREE_UNTIL, 0)


def test_time_is_never_ahead_of_the_wall_times_a_factor():
    throttle = Throttle(factor=2.0, wall_ns=100, emulated_ns=1000)
    assert throttle.limit_ns(110) == 1020 + 1  # what is due at 1,020 itself may happen
    assert throttle.due_in_ns(1030, 110) == 5
    assert throttle.due_in_ns(1010, 110) == 0


def test_a_hold_outlasts_any_pace():
    throttle = Throttle(hold_ns=1005, factor=2.0, wall_ns=100, emulated_ns=1000)
    assert throttle.limit_ns(10**12) == 1005
    assert throttle.due_in_ns(1005, 10**12) is None


def test_a_guest_stands_when_it_waits_for_what_a_hold_forbids():
    calendar = Calendar(UTC_NS)
    guest = FakeGuest(calendar, [1, 50])
    (known,) = calendar.guests
    assert not known.stands(10)
    _drive(calendar, [guest], limit_ns=10)
    assert known.stands(10)
    assert not known.stands(60)
