"""How long a collective takes at least: propagation and serialisation, nothing else."""

from __future__ import annotations

import numpy as np

from isl_emu.units import NS_PER_S
from isl_emu.workload.training.collectives import Schedule


def predicted_ns(schedule: Schedule, element_byte: int, delay_ns: np.ndarray, rate_bit_s: np.ndarray) -> int:
    """The time from the start of all ranks until the last one has finished its last round.

    A message begins when its rank has finished the round before and the pair's earlier messages are out; it takes its
    size over the pair's rate, and then the pair's delay. Headers, TCP's slow start, lost packets and the time that
    summing takes are neglected, so a measured time is longer.

    Args:
        element_byte: size of an element on the wire.
        delay_ns: from rank to rank, one way, shape (n, n).
        rate_bit_s: from rank to rank, while all of the schedule's pairs send, shape (n, n).
    """
    clocks = [_Rank() for _ in schedule]
    progress = True
    while progress:
        progress = False
        for rank, rounds in enumerate(schedule):
            while clocks[rank].advance(rank, rounds, clocks, element_byte, delay_ns, rate_bit_s):
                progress = True
    return round(max((clock.now_ns for clock in clocks), default=0.0))


def pairs_of(schedule: Schedule) -> list[tuple[int, int]]:
    """Who sends to whom, each pair once."""
    pairs = {(rank, sending.to): None for rank, rounds in enumerate(schedule) for round_ in rounds
             for sending in round_.sendings}  # fmt: skip
    return list(pairs)


class _Rank:
    """A rank's clock, and the messages on their way to it."""

    def __init__(self) -> None:
        self.now_ns = 0.0
        self._at = 0  # the round it is in
        self._sent = False  # what this round sends
        self._free_ns: dict[int, float] = {}  # when the line to a rank is idle again
        self.arrivals_ns: dict[int, list[float]] = {}  # by source, oldest first

    def advance(self, rank, rounds, clocks, element_byte, delay_ns, rate_bit_s) -> bool:
        """Finish a round if all that it waits for has been sent; whether it was."""
        if self._at == len(rounds):
            return False
        round_ = rounds[self._at]
        if not self._sent:
            for sending in round_.sendings:
                size_bit = 8 * element_byte * (sending.part.stop - sending.part.start)
                begun_ns = max(self.now_ns, self._free_ns.get(sending.to, 0.0))
                self._free_ns[sending.to] = begun_ns + size_bit * NS_PER_S / rate_bit_s[rank, sending.to]
                arrival_ns = self._free_ns[sending.to] + delay_ns[rank, sending.to]
                clocks[sending.to].arrivals_ns.setdefault(rank, []).append(arrival_ns)
            self._sent = True
        if not all(self.arrivals_ns.get(receiving.source) for receiving in round_.receivings):
            return False
        arrived_ns = [self.arrivals_ns[receiving.source].pop(0) for receiving in round_.receivings]
        self.now_ns = max([self.now_ns, *arrived_ns])
        self._at, self._sent = self._at + 1, False
        return True
