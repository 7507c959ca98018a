"""Ways in headers as a kernel keeps them: read back as they were told, and told again where somebody changed them."""

from __future__ import annotations

import socket

import numpy as np
import pytest

from isl_emu.network.desired import ROUTE, UNKNOWN_LINK, initial_ends
from isl_emu.network.kernel import KernelBackend
from isl_emu.network.routes import route_messages
from isl_emu.routing.forwarding import NO_ROUTE, plan_routes
from isl_emu.routing.source_routes import SourceRoutes
from tests.nets import need_kernel, run_directory
from tests.plans import MS, make_plan

pytestmark = pytest.mark.kernel
PLAN = make_plan(4, [], [{(0, 1): MS, (1, 2): MS, (2, 3): MS}])


@pytest.mark.parametrize("forwarding", ["srv6", "mpls"])
def test_a_way_that_somebody_has_changed_is_seen_and_put_right(forwarding: str) -> None:
    need_kernel()
    routes = plan_routes(PLAN)
    changes = routes.changes(0)
    wanted = np.empty(len(changes.node), ROUTE)
    wanted["node"], wanted["destination"], wanted["link"] = changes.node, changes.destination, changes.link
    with run_directory() as run:
        backend = KernelBackend(PLAN, run.run_id, steered=SourceRoutes(PLAN, routes, forwarding))
        try:
            backend.change_routes(wanted)
            for found in backend.read_routes(range(4)).values():
                assert sorted(found.tolist()) == sorted(wanted.tolist())
            row = np.array([0])
            index = backend.wiring.interface_index[:1]
            plain = route_messages(socket.AF_INET, row, np.array([3]), np.array([1]), index)
            backend.spaces[0].netlink.send_rows(plain)  # the same next hop, and no way
            assert [0, 3, UNKNOWN_LINK] in [list(one) for one in backend.read_routes([0])["IPv4"].tolist()]
            for node in (2, 1):  # the way of node 0 ends with the first, and is not there any more at the second
                backend.change_routes(np.array([(node, 3, NO_ROUTE)], ROUTE))
                assert not (backend.read_routes([0])["IPv4"]["destination"] == 3).any()
            backend.change_routes(wanted)
            backend.restore(0, initial_ends(PLAN, 0), wanted[wanted["node"] == 0])
            assert (backend.read_routes([0])["IPv4"]["link"] == 0).all()
        finally:
            backend.close()
