"""Who gets which terminals, by a plain loop: what the tests and benchmarks of `assign` hold it to."""

from __future__ import annotations

import numpy as np

from isl_emu.linkplan.terminals import NONE, Choice


def assigned_in_turn(choice: Choice, of_satellite: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `assign`, candidate by candidate."""
    taken, left = choice.taken.copy(), choice.left.copy()
    holder = {terminal: number for number, held in enumerate(choice.held.tolist()) for terminal in held}
    winners, given, dropped = list[int](), list[list[int]](), list[int]()
    for number, (ends, held) in enumerate(zip(choice.ends.tolist(), choice.held.tolist(), strict=True)):
        engaged, room, terminals = held[0] != NONE, all(left[end] > 0 for end in ends), held
        if not engaged and room:
            suits = choice.preference(np.array([number]))[0]
            terminals = [
                _best(of_satellite[end].tolist(), one.tolist(), taken, holder, number)
                for end, one in zip(ends, suits, strict=True)
            ]
        if room and NONE not in terminals and not taken[terminals].any():
            taken[terminals] = True
            left[ends] -= 1
            if not engaged:
                winners.append(number)
                given.append(terminals)
        elif engaged:
            dropped.append(number)
    return (
        np.array(winners, dtype=np.int64),
        np.array(given, dtype=np.int64).reshape(-1, 2),
        np.array(dropped, np.int64),
    )


def _best(terminals: list[int], suits: list[float], taken: np.ndarray, holder: dict[int, int], number: int) -> int:
    """The one of a satellite's terminals that suits best, rather one that nobody holds; NONE if none is left."""
    open_ = [
        (holder.get(terminal, NONE) <= number, value, -place, terminal)
        for place, (terminal, value) in enumerate(zip(terminals, suits, strict=True))
        if terminal != NONE and not taken[terminal] and np.isfinite(value)
    ]
    return max(open_, default=(False, 0.0, 0, NONE))[-1]
