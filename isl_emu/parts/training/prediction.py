"""How long a collective takes at least: propagation and serialisation, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from isl_emu.parts.training.collectives import Pair, Round, Schedule
from isl_emu.units import NS_PER_S

Rates = Callable[[Sequence[Pair]], np.ndarray]
"""The rate of each of some pairs while all of them send, bit/s, shape (len(pairs),)."""


def predicted_ns(schedule: Schedule, element_byte: int, delay_ns: np.ndarray, rates_bit_s: Rates) -> int:
    """The time from the start of all ranks until the last one has finished its last round.

    A message begins when its rank has finished the round before and the pair's earlier messages are out; it takes its
    size over the pair's rate, and then the pair's delay. A link is shared by ranks that send over it in the same step
    of a schedule whose messages all take equally long; what one rank sends to several at once does not hold itself up,
    since it may send the most urgent first. Headers, TCP's slow start, lost packets and the time that summing takes
    are neglected too, so a measured time is longer.

    Args:
        element_byte: size of an element on the wire.
        delay_ns: from rank to rank, one way, shape (n, n).
        rates_bit_s: what pairs get that send at the same time.
    """
    steps = steps_of(schedule)
    repeated = {rank for rank, own in enumerate(steps) if len(set(own)) < len(own)}  # several rounds in one step
    together: dict[int, dict[Pair, None]] = {}
    for rank, rounds in enumerate(schedule):
        for step, round_ in zip(steps[rank], rounds):
            together.setdefault(step, {}).update({(rank, sending.to): None for sending in round_.sendings})

    @cache
    def rates_of(pairs: tuple[Pair, ...]) -> dict[Pair, float]:
        return dict(zip(pairs, rates_bit_s(pairs).tolist()))

    @cache
    def rates_in(step: int, pair: Pair | None) -> dict[Pair, float]:
        """In a step; with a pair, without what its sender sends to others."""
        return rates_of(tuple(other for other in together[step] if not pair or other[0] != pair[0] or other == pair))

    def message_ns(rank: int, number: int, to: int, elements: int) -> float:
        step, alone = steps[rank][number], len(schedule[rank][number].sendings) == 1 and (rank not in repeated)
        rate_bit_s = rates_in(step, None if alone else (rank, to))[rank, to]
        return 8 * element_byte * elements * NS_PER_S / rate_bit_s

    return round(max((clock.now_ns for clock in _carried_out(schedule, delay_ns, message_ns)), default=0.0))


def steps_of(schedule: Schedule) -> list[list[int]]:
    """In which step each round of each rank begins, when every message takes one step."""
    no_delay = np.zeros((len(schedule), len(schedule)))
    clocks = _carried_out(schedule, no_delay, lambda rank, number, to, elements: 1.0)
    return [[round(begun) for begun in clock.begun_ns] for clock in clocks]


Lasts = Callable[[int, int, int, int], float]  # (rank, number of its round, receiver, elements) -> ns


def _carried_out(schedule: Schedule, delay_ns: np.ndarray, message_ns: Lasts) -> list[_Rank]:
    """The clocks of all ranks at the end."""
    clocks = [_Rank() for _ in schedule]
    progress = True
    while progress:
        progress = False
        for rank, rounds in enumerate(schedule):
            while clocks[rank].advance(rank, rounds, clocks, delay_ns, message_ns):
                progress = True
    return clocks


class _Rank:
    """A rank's clock, and the messages on their way to it."""

    def __init__(self) -> None:
        self.now_ns = 0.0
        self._at = 0  # the round it is in
        self._sent = False  # what this round sends
        self.begun_ns: list[float] = []  # of each round that it was in
        self._free_ns: dict[int, float] = {}  # when the line to a rank is idle again
        self.arrivals_ns: dict[int, list[float]] = {}  # by source, oldest first

    def advance(
        self, rank: int, rounds: Sequence[Round], clocks: Sequence[_Rank], delay_ns: np.ndarray, message_ns: Lasts
    ) -> bool:
        """Finish a round if all that it waits for has been sent; whether it was."""
        if self._at == len(rounds):
            return False
        round_ = rounds[self._at]
        if not self._sent:
            self.begun_ns.append(self.now_ns)
            for sending in round_.sendings:
                begun_ns = max(self.now_ns, self._free_ns.get(sending.to, 0.0))
                elements = sending.part.stop - sending.part.start
                self._free_ns[sending.to] = begun_ns + message_ns(rank, self._at, sending.to, elements)
                arrival_ns = self._free_ns[sending.to] + delay_ns[rank, sending.to]
                clocks[sending.to].arrivals_ns.setdefault(rank, []).append(arrival_ns)
            self._sent = True
        if not all(self.arrivals_ns.get(receiving.source) for receiving in round_.receivings):
            return False
        arrived_ns = [self.arrivals_ns[receiving.source].pop(0) for receiving in round_.receivings]
        self.now_ns = max([self.now_ns, *arrived_ns])
        self._at, self._sent = self._at + 1, False
        return True
