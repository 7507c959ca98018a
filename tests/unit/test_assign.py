"""Who gets which terminals: as if the candidates had their turns one by one."""

from __future__ import annotations

import numpy as np
import pytest

from isl_emu.linkplan import terminals
from isl_emu.linkplan.terminals import NONE, Choice, assign
from tests.assigning import assigned_in_turn

SATELLITES, MOST_TERMINALS = 40, 4


def choice_by(draw: np.random.Generator, candidates: int, most: int) -> tuple[Choice, np.ndarray]:
    """Some candidates among satellites with up to four terminals, some of them engaged or taken by others already."""
    there = draw.random((SATELLITES, MOST_TERMINALS)) < 0.8
    of_satellite = np.full(there.shape, NONE)
    of_satellite[there] = np.arange(there.sum())
    pairs = np.stack(np.triu_indices(SATELLITES, 1), axis=1)
    ends = draw.permutation(pairs)[:candidates]
    held, used = np.full(ends.shape, NONE), np.zeros(there.sum(), dtype=bool)
    for number in draw.permutation(len(ends))[: candidates // 10]:
        own = [
            [terminal for terminal in of_satellite[end] if terminal != NONE and not used[terminal]]
            for end in ends[number]
        ]
        if all(own):
            held[number] = [draw.choice(terminals) for terminals in own]
            used[held[number]] = True
    suits = np.where(
        draw.random((len(ends), 2, MOST_TERMINALS)) < 0.4, -np.inf, draw.integers(0, 3, (len(ends), 2, MOST_TERMINALS))
    )
    taken = ~used & (draw.random(len(used)) < 0.2)
    suits[of_satellite[ends] == NONE] = -np.inf
    left = np.minimum(((of_satellite != NONE) & ~taken[of_satellite]).sum(axis=1), most)
    return Choice(ends, held, lambda which: suits[which], taken, left), of_satellite


@pytest.mark.parametrize("first_block", [1, 16, 512])
@pytest.mark.parametrize("seed", range(6))
def test_blocks_and_rounds_give_what_turns_give(seed, first_block, monkeypatch):
    monkeypatch.setattr(terminals, "FIRST_BLOCK", first_block)
    choice, of_satellite = choice_by(np.random.default_rng(seed), candidates=60 + 140 * seed, most=1 + seed % 4)
    found, wanted = assign(choice, of_satellite), assigned_in_turn(choice, of_satellite)
    assert len(wanted[0]) > 5
    for ours, in_turn in zip(found, wanted, strict=True):
        assert ours.tolist() == in_turn.tolist()


def test_engaged_links_give_way_to_those_before_them():
    """Both satellites have one terminal, which the second candidate holds and the first takes."""
    choice = Choice(
        np.array([[0, 1], [1, 2]]), np.array([[NONE, NONE], [1, 2]]), lambda which: np.zeros((len(which), 2, 1)),
        np.zeros(3, dtype=bool), np.ones(3, dtype=np.int64),
    )  # fmt: skip
    winners, given, dropped = assign(choice, np.array([[0], [1], [2]]))
    assert (winners.tolist(), given.tolist(), dropped.tolist()) == ([0], [[0, 1]], [1])
