"""All-reduce schedules: every rank ends with the sum, and sends what theory says."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isl_emu.parts.training.collectives import Schedule, hand_on, pairs_of, schedule, sent_elements, split
from isl_emu.parts.training.planned_ways import predicted_ns

MS = 1_000_000


def carry_out(plan: Schedule, vectors: np.ndarray) -> np.ndarray:
    """The vectors after all rounds, with a queue between each pair of ranks."""
    vectors, at, sent = vectors.copy(), [0] * len(plan), [-1] * len(plan)
    queues: dict[tuple[int, int], deque[np.ndarray]] = {}
    while any(place < len(rounds) for place, rounds in zip(at, plan)):
        moved = False
        for rank, rounds in enumerate(plan):
            if at[rank] == len(rounds):
                continue
            round_ = rounds[at[rank]]
            if sent[rank] < at[rank]:
                for sending in round_.sendings:
                    queues.setdefault((rank, sending.to), deque()).append(vectors[rank, sending.part].copy())
                sent[rank] = at[rank]
            if all(queues.get((receiving.source, rank)) for receiving in round_.receivings):
                for receiving in round_.receivings:
                    came = queues[receiving.source, rank].popleft()
                    kept = vectors[rank, receiving.part] if receiving.adds else 0
                    vectors[rank, receiving.part] = came + kept
                at[rank], moved = at[rank] + 1, True
        assert moved, "the ranks wait for each other"
    assert not any(queues.values()), "something was sent that nobody takes"
    return vectors


def in_planes(planes: int, slots: int) -> list[list[int]]:
    return [list(range(plane * slots, (plane + 1) * slots)) for plane in range(planes)]


@given(st.sampled_from(["ring", "tree", "hierarchical"]), st.integers(1, 5), st.integers(1, 5), st.integers(0, 40))
def test_every_rank_has_the_sum(kind: str, planes: int, slots: int, elements: int) -> None:
    vectors = np.random.default_rng(1).integers(-1000, 1000, (planes * slots, elements))
    result = carry_out(schedule(kind, elements, in_planes(planes, slots)), vectors)
    assert (result == vectors.sum(axis=0)).all()


@pytest.mark.parametrize("count", [2, 3, 7, 12])
def test_a_ring_sends_what_theory_says(count: int) -> None:
    elements = 1200 * count
    plan = schedule("ring", elements, [range(count)])
    assert {sent_elements(rounds) for rounds in plan} == {2 * (count - 1) * elements // count}
    assert pairs_of(plan) == [(rank, (rank + 1) % count) for rank in range(count)]


def test_planes_first_sends_as_much_as_a_ring_but_less_between_planes() -> None:
    elements, planes, slots = 1200, 3, 4
    plan = schedule("hierarchical", elements, in_planes(planes, slots))
    assert {sent_elements(rounds) for rounds in plan} == {2 * 11 * elements // 12}
    for rank, rounds in enumerate(plan):
        between = [
            sending.part.stop - sending.part.start
            for round_ in rounds
            for sending in round_.sendings
            if sending.to // slots != rank // slots
        ]
        assert sum(between) == 2 * (planes - 1) * elements // planes // slots


@given(st.permutations(range(5)), st.integers(0, 30))
def test_what_the_first_has_is_handed_on_to_all(ranks: list[int], elements: int) -> None:
    vectors = np.random.default_rng(1).integers(-1000, 1000, (5, elements))
    assert (carry_out(hand_on(elements, ranks), vectors) == vectors[ranks[0]]).all()


def test_planes_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="different numbers of ranks"):
        schedule("hierarchical", 10, [[0, 1], [2]])


def test_a_tree_has_few_rounds() -> None:
    plan = schedule("tree", 10, [range(8)])
    assert max(map(len, plan)) == 6
    assert sum(map(sent_elements, plan)) == 2 * 7 * 10


@given(st.integers(0, 100), st.integers(0, 100), st.integers(1, 20))
def test_parts_cover_the_whole_once(start: int, length: int, count: int) -> None:
    parts = split(slice(start, start + length), count)
    assert [index for part in parts for index in range(part.start, part.stop)] == list(range(start, start + length))
    assert len(parts) == count
    assert max(part.stop - part.start for part in parts) - min(part.stop - part.start for part in parts) <= 1


def all_at(rate_bit_s: float):
    """Every pair has a link of its own."""
    return lambda pairs: np.full(len(pairs), rate_bit_s)


def one_link(rate_bit_s: float):
    """All pairs share one link."""
    return lambda pairs: np.full(len(pairs), rate_bit_s / len(pairs))


def test_only_messages_of_the_same_round_share_a_link() -> None:
    """A tree of four: two messages up at once, one up, two down of one rank at once, one down; 1 ms each alone."""
    plan = schedule("tree", 1000, [range(4)])
    assert predicted_ns(plan, 4, np.zeros((4, 4)), all_at(32e6)) == 4 * MS
    assert predicted_ns(plan, 4, np.zeros((4, 4)), one_link(32e6)) == (2 + 1 + 1 + 1) * MS


def test_in_a_ring_all_send_in_every_round() -> None:
    plan = schedule("ring", 4000, [range(4)])
    assert predicted_ns(plan, 4, np.zeros((4, 4)), one_link(32e6)) == 6 * 4 * MS


def test_the_time_of_a_ring_is_its_rounds_times_a_hop() -> None:
    plan = schedule("ring", 4000, [range(4)])
    message_ms = 4  # 1,000 elements at 1 MB/s
    assert predicted_ns(plan, 4, np.full((4, 4), 10.0 * MS), all_at(8e6)) == 6 * (10 + message_ms) * MS


def test_the_sum_of_the_delays_counts_in_a_ring() -> None:
    """Each part passes 2 (n - 1) links in turn, so one slow link is not waited for in every round."""
    plan = schedule("ring", 4, [range(4)])
    delay_ns = np.full((4, 4), 10.0 * MS)
    delay_ns[0, 1] = 40.0 * MS
    assert predicted_ns(plan, 4, delay_ns, all_at(1e15)) == (2 * 40 + 4 * 10) * MS


def test_messages_wait_for_the_line() -> None:
    plan = schedule("tree", 1000, [range(2)])
    assert predicted_ns(plan, 4, np.full((2, 2), 5.0 * MS), all_at(32e6)) == 2 * (5 + 1) * MS
