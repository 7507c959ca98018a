"""What every back end promises; run on the network in memory and on the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from isl_emu.errors import NetworkError
from isl_emu.linkplan.plan import LinkPlan, QueueKind
from isl_emu.network.desired import ROUTE, ends_at, initial_ends
from isl_emu.network.kernel import KernelBackend
from isl_emu.network.readback import end_mismatches
from isl_emu.network.replay import Backend
from isl_emu.routing.forwarding import NO_ROUTE
from tests.fake_network import FakeBackend
from tests.nets import need_kernel, run_directory
from tests.plans import MS, make_plan, ring_edges

PLAN = make_plan(4, ["gs-a-long-name"], [{**ring_edges(4, 5 * MS), (0, 4): 3_000_001}], rate_bit_s=40_000_000_000)
NODES = range(5)


@pytest.fixture(params=["memory", pytest.param("kernel", marks=pytest.mark.kernel)])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    with made_backend(request.param, PLAN) as made:
        yield made


@contextmanager
def made_backend(kind: str, plan: LinkPlan) -> Iterator[Backend]:
    if kind == "memory":
        yield FakeBackend(plan)
        return
    need_kernel()
    with run_directory() as run:
        made = KernelBackend(plan, run.run_id)
        try:
            yield made
        finally:
            made.close()


def mismatches(plan: LinkPlan, backend: Backend, states: np.ndarray) -> list[str]:
    return end_mismatches(plan, backend.wiring, np.arange(len(states)), states, backend.read_ends(NODES))


def routes(*rows: tuple[int, int, int]) -> np.ndarray:
    return np.array(list(rows), ROUTE)


def found_routes(backend: Backend) -> list[set[tuple[int, int, int]]]:
    return [{tuple(row) for row in found.tolist()} for found in backend.read_routes(NODES).values()]


def test_all_links_are_down_at_first(backend: Backend) -> None:
    assert mismatches(PLAN, backend, initial_ends(PLAN, 0)) == []
    assert set(backend.read_ends(NODES)["loss_ratio"].tolist()) == {1.0}


def test_ends_read_back_as_they_were_set(backend: Backend) -> None:
    states = ends_at(PLAN, 0, initial_ends(PLAN, 0), 0)
    backend.change_ends(np.arange(len(states)), states)
    assert mismatches(PLAN, backend, states) == []


def test_delays_of_one_ns_and_rates_beyond_32_bits_are_kept(backend: Backend) -> None:
    states = ends_at(PLAN, 0, initial_ends(PLAN, 0), 0)
    backend.change_ends(np.arange(len(states)), states)
    found = {row["end"]: row for row in backend.read_ends([4])}
    assert [(row["delay_ns"], row["rate_bit_s"]) for row in found.values()] == [(3_000_001, 40_000_000_000)]


def test_losses_are_kept_and_a_wrong_one_is_named(backend: Backend) -> None:
    states = ends_at(PLAN, 0, initial_ends(PLAN, 0), 0)
    states["loss_ratio"] = 0.0123
    backend.change_ends(np.arange(len(states)), states)
    assert mismatches(PLAN, backend, states) == []
    states["loss_ratio"] = 0.0124
    wrong = mismatches(PLAN, backend, states)
    assert len(wrong) == len(states)
    assert "loss 0.0123, behind" in wrong[0] and "loss 0.0124, behind" in wrong[0]


def test_rates_and_what_may_wait_follow_a_change_of_a_link_whose_plan_has_none(backend: Backend) -> None:
    states = ends_at(PLAN, 0, initial_ends(PLAN, 0), 0)
    backend.change_ends(np.arange(len(states)), states)
    states["rate_bit_s"], states["queue_byte"] = states["rate_bit_s"] // 16 * 8, states["queue_byte"] // 2
    backend.change_ends(np.arange(len(states)), states)
    assert mismatches(PLAN, backend, states) == []


def test_only_the_named_ends_change(backend: Backend) -> None:
    states = initial_ends(PLAN, 0)
    states["up"][3] = True
    backend.change_ends(np.array([3]), states[[3]])
    assert mismatches(PLAN, backend, states) == []


def test_changing_nothing_is_allowed(backend: Backend) -> None:
    backend.change_ends(np.array([], np.intp), initial_ends(PLAN, 0)[[]])
    backend.change_routes(routes())
    assert found_routes(backend) == [set()] * len(found_routes(backend))


def test_reading_some_nodes_reads_no_others(backend: Backend) -> None:
    assert set(backend.read_ends([1])["end"].tolist()) == set(np.flatnonzero(backend.wiring.node == 1).tolist())


def test_routes_are_made_replaced_and_withdrawn(backend: Backend) -> None:
    backend.change_routes(routes((0, 2, 0), (1, 2, 3), (0, 1, 0)))  # links: 0-1, 0-3, 0-4, 1-2, 2-3
    assert all(found == {(0, 2, 0), (1, 2, 3), (0, 1, 0)} for found in found_routes(backend))
    backend.change_routes(routes((0, 2, 1), (0, 1, NO_ROUTE)))
    assert all(found == {(0, 2, 1), (1, 2, 3)} for found in found_routes(backend))


def test_a_route_over_several_links_is_made_replaced_and_withdrawn(backend: Backend) -> None:
    backend.change_routes(routes((0, 1, 0), (0, 2, 0), (0, 2, 1), (1, 2, 3)))
    assert all(found == {(0, 2, 0), (0, 2, 1), (1, 2, 3), (0, 1, 0)} for found in found_routes(backend))
    backend.change_routes(routes((0, 1, 0), (0, 1, 1), (0, 2, 1)))
    assert all(found == {(0, 2, 1), (1, 2, 3), (0, 1, 0), (0, 1, 1)} for found in found_routes(backend))
    backend.change_routes(routes((0, 1, NO_ROUTE), (0, 2, 0), (0, 2, 1)))
    assert all(found == {(0, 2, 0), (0, 2, 1), (1, 2, 3)} for found in found_routes(backend))
    backend.change_routes(routes((0, 2, NO_ROUTE)))
    assert all(found == {(1, 2, 3)} for found in found_routes(backend))


def test_withdrawing_a_route_that_is_not_there_is_refused(backend: Backend) -> None:
    with pytest.raises(NetworkError):
        backend.change_routes(routes((0, 2, NO_ROUTE)))


@pytest.mark.parametrize("kind", ["memory", pytest.param("kernel", marks=pytest.mark.kernel)])
def test_managed_queues_read_back_as_they_were_set_and_a_wrong_one_is_named(kind: str) -> None:
    plan = make_plan(3, [], [ring_edges(3, 5 * MS)], rate_bit_s=40_000_000_000, aqm=QueueKind.FQ_CODEL)
    with made_backend(kind, plan) as backend:
        states = ends_at(plan, 0, initial_ends(plan, 0), 0)
        backend.change_ends(np.arange(len(states)), states)
        every = np.arange(len(states))
        assert end_mismatches(plan, backend.wiring, every, states, backend.read_ends(range(3))) == []
        states["queue_byte"] += 1
        wrong = end_mismatches(plan, backend.wiring, every, states, backend.read_ends(range(3)))
    assert len(wrong) == len(states)
    assert "behind fq_codel at 40 Gbit/s of" in wrong[0]
