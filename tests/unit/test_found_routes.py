"""Routes that others make: how they are heard, followed and judged."""

from __future__ import annotations

import json
import socket
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isl_emu.network.found_routes import FoundRoute, NodeTable, decode_changes
from isl_emu.network.messages import OPERATION, RTM_NEWLINK, operation_messages
from isl_emu.network.naming import link_address
from isl_emu.network.routes import multipath_messages, route_messages, withdrawal_messages
from isl_emu.parts.probes.results import found_row, probe_fidelity
from isl_emu.parts.routing.frr import configurations
from isl_emu.parts.routing.hints import Hint, planned_hints, told
from isl_emu.parts.routing.results import Convergence, Reach, link_delays_ns
from isl_emu.routing.paths import PathFinder
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import Journal
from isl_emu.runs.portion import FILE as CUT
from isl_emu.scenario.routing import Routing, RoutingDaemon
from isl_emu.tables.found_ways import ROUTES, SEVERAL, FoundWays, found_ways
from isl_emu.tables.planned_paths import PlannedPaths
from tests.plans import MS, SECOND, make_plan, make_routes, ring_edges

NODE_4 = (10 << 24) + 5
RING, CHAIN = ring_edges(4, 10 * MS), {(0, 1): 10 * MS, (1, 2): 10 * MS, (2, 3): 10 * MS}
PLAN = make_plan(4, [], [RING, RING, CHAIN, CHAIN, CHAIN])  # link 0-3 is lost at 2 s
LINK = {frozenset(pair): link for link, pair in enumerate(zip(PLAN.links.a.tolist(), PLAN.links.b.tolist()))}


def _over(a: int, b: int) -> int:
    return LINK[frozenset((a, b))]


def _tree(t_ns: int, hops: dict[tuple[int, int], int]) -> list[dict[str, int]]:
    """Records: at each node, to each destination, the neighbour that is next."""
    return [
        {"t_ns": t_ns, "node": node, "destination": end, "link": _over(node, following)}
        for (node, end), following in hops.items()
    ]


BEFORE = {
    (0, 1): 1, (0, 2): 1, (0, 3): 3, (1, 0): 0, (1, 2): 2, (1, 3): 0, (2, 0): 1, (2, 1): 1, (2, 3): 3,
    (3, 0): 0, (3, 1): 0, (3, 2): 2,
}  # fmt: skip
MENDED = {(0, 3): 1, (1, 3): 2, (3, 0): 2, (3, 1): 2}
RECORDS = [*_tree(-SECOND, BEFORE), *_tree(2500 * MS, MENDED)]
WAYS = FoundWays(PLAN, RECORDS)


def test_an_end_that_is_down_is_dormant_and_keeps_its_address():
    down, up = operation_messages(np.array([False, True]), np.array([1000, 1003]))
    assert (down["type"], down["index"], down["length"]) == (RTM_NEWLINK, 1000, OPERATION.itemsize)
    assert (down["state"], down["mode"]) == (5, 1) and (up["state"], up["mode"]) == (6, 0)  # RFC 2863, linux/if.h
    assert down["change"] == 0  # no flag: it stays up


def test_ends_of_a_link_share_a_prefix_of_31_bits():
    assert (link_address(0), link_address(1), link_address(513)) == ("172.16.0.0", "172.16.0.1", "172.16.2.1")


def test_changes_of_routes_are_decoded_as_kernels_write_them():
    single = route_messages(socket.AF_INET, *(np.array([value]) for value in (0, 4, 1, 1000)))
    several = multipath_messages(
        socket.AF_INET, np.array([0]), np.array([4]), np.array([[1, 2]]), np.array([[1000, 1002]])
    )
    gone = withdrawal_messages(socket.AF_INET, np.array([4]))
    other_family = route_messages(socket.AF_INET6, *(np.array([value]) for value in (0, 4, 1, 1000)))
    found = list(decode_changes(b"".join(rows.tobytes() for rows in (single, several, gone, other_family))))
    assert [change.prefix for change in found] == [(NODE_4, 32)] * 3
    assert [change.interfaces for change in found] == [(1000,), (1000, 1002), ()]
    assert [change.gone for change in found] == [False, False, True]


def test_the_longest_prefix_and_the_lowest_metric_win():
    table = NodeTable()
    for prefix, metric, interface in (((10 << 24, 8), 0, 1), ((NODE_4, 32), 20, 2), ((NODE_4, 32), 10, 3)):
        table.change(FoundRoute(prefix, metric, (interface,), gone=False, replaces=True))
    seen = [table.interfaces(NODE_4)]
    for metric, interface in ((10, 3), (20, 2)):
        table.change(FoundRoute((NODE_4, 32), metric, (interface,), gone=True, replaces=False))
        seen.append(table.interfaces(NODE_4))
    assert seen == [(3,), (2,), (1,)] and table.interfaces(9 << 24) == ()


def test_reach_follows_next_hops_over_links_that_are_up():
    reach = Reach(PLAN)
    for (node, end), following in BEFORE.items():
        reach.hops[end, node] = _over(node, following)
    reach.links(link_delays_ns(PLAN, 0))
    assert reach.delay_ns[3].tolist() == [10 * MS, 20 * MS, 10 * MS, 0]
    reach.links(link_delays_ns(PLAN, 2))
    assert reach.delay_ns[3].tolist() == [-1, -1, 10 * MS, 0]
    reach.hops[3, 0], reach.hops[3, 1] = _over(0, 1), _over(1, 0)  # a loop
    reach.links(link_delays_ns(PLAN, 0))
    assert reach.delay_ns[3].tolist() == [-1, -1, 10 * MS, 0]


def test_convergence_counts_the_time_without_a_working_route():
    control = {1: (4, 400), 2: (10, 1000), 3: (6, 600)}
    found = Convergence(PLAN, make_routes(PLAN), WAYS, 5 * SECOND, control, [2300 * MS, 1 * SECOND])
    found.run()
    first, second = found.rows
    assert (first["t_ns"], first["t_end_ns"], first["pairs"], first["pairs_cut"]) == (0, 2 * SECOND, 12, 0)
    assert first["settled_ns"] == 0 and first["stretch_mean"] == pytest.approx(1.0) and first["probes_lost"] == 1
    assert (second["links_lost"], second["links_made"], second["pairs_cut"]) == (1, 0, 4)
    assert second["outage_p50_ns"] == second["outage_max_ns"] == second["settled_ns"] == 500 * MS
    assert (second["route_changes"], second["control_packets"], second["control_byte"]) == (4, 16, 1600)
    assert second["probes_lost"] == 1
    names = {(row["a"], row["b"]): row["outage_ns"] for row in found.outages}
    assert names == dict.fromkeys(
        [("p00s00", "p00s03"), ("p00s01", "p00s03"), ("p00s03", "p00s00"), ("p00s03", "p00s01")], 500 * MS
    )


def test_what_never_comes_back_is_not_settled():
    found = Convergence(PLAN, make_routes(PLAN), FoundWays(PLAN, RECORDS[: len(BEFORE)]), 5 * SECOND, {}, [])
    found.run()
    assert found.rows[1]["settled_ns"] is None and found.rows[1]["outage_max_ns"] == 3 * SECOND


def _probe(a: str, b: str, t_ns: int, delay_ns: int | None, hops: int | None) -> dict[str, object]:
    return {"a": a, "b": b, "seq": 0, "t_send_ns": t_ns, "delay_ns": delay_ns, "hops_seen": hops, "lost_by": None}


def _judged(*probes: dict[str, object]) -> list[dict[str, object]]:
    paths = PlannedPaths(PLAN, PathFinder(PLAN, make_routes(PLAN)), {})
    return [{"excess_ns": 0, **found_row(probe, paths, WAYS)[0]} for probe in probes]


def test_probes_are_judged_by_the_way_they_took():
    sending_ns = 2 * 464  # 58 bytes at 1 Gbit/s on two links
    arrived, lost, around, straddling = _judged(
        _probe("p00s01", "p00s03", 300 * MS, 20 * MS + sending_ns, 2),
        _probe("p00s01", "p00s03", 2300 * MS, None, None),  # its route leads over the link that is gone
        _probe("p00s00", "p00s03", 3300 * MS, 30 * MS + 3 * 464, 3),
        _probe("p00s01", "p00s03", 2490 * MS, 20 * MS, 2),
    )
    assert arrived["path"] == ["p00s01", "p00s00", "p00s03"] and arrived["error_ns"] == 0
    assert lost["cut"] and not lost["straddles_change"]
    assert around["hops"] == 3 and around["error_ns"] == 0 and not around["cut"]
    assert straddling["straddles_change"]
    fidelity = probe_fidelity([{"error_ns": None, **row} for row in (arrived, lost, around)])
    assert (fidelity.lost, fidelity.cut, fidelity.strayed, fidelity.silent_pairs) == (0, 1, 0, ())


def test_a_probe_without_a_route_is_not_expected():
    ways = FoundWays(PLAN, [row for row in RECORDS if row["destination"] != 3])
    paths = PlannedPaths(PLAN, PathFinder(PLAN, make_routes(PLAN)), {})
    row, ends = found_row(_probe("p00s00", "p00s03", 300 * MS, None, None), paths, ways)
    assert row["path"] is None and not row["straddles_change"] and not ends
    split = FoundWays(PLAN, [{"t_ns": 0, "node": 0, "destination": 3, "link": SEVERAL}])
    row, _ = found_row(_probe("p00s00", "p00s03", 300 * MS, 10 * MS, 1), paths, split)
    assert row["path"] is None and row["straddles_change"]


@pytest.mark.parametrize("protocol", ["ospf", "isis", "bgp"])
def test_each_daemon_is_told_of_each_link_and_a_station_to_be_an_end(protocol):
    plan = make_plan(3, ["gs"], [{(0, 1): 10 * MS, (1, 2): 20 * MS, (0, 3): 3 * MS}])
    daemon = RoutingDaemon(protocol=protocol)
    told = [
        configurations(plan, Routing(policy="none", daemon=daemon), daemon, node)[
            {"ospf": "ospfd", "isis": "isisd", "bgp": "bgpd"}[protocol]
        ]
        for node in range(4)
    ]
    links = {"ospf": " ip ospf area 0\n", "isis": " isis network point-to-point\n", "bgp": " timers connect 1\n"}
    assert [text.count(links[protocol]) - (protocol == "ospf") for text in told] == [2, 2, 1, 1]
    end = {"ospf": "max-metric router-lsa", "isis": "set-overload-bit", "bgp": "filter-list own out"}[protocol]
    assert [end in text for text in told] == [False, False, False, True]
    cost = {"ospf": " ip ospf cost 2000\n", "isis": " isis metric 2000\n", "bgp": "remote-as 4200000001"}
    assert cost[protocol] in told[2]  # 20 ms in steps of 10 us, or the neighbour's own system


def test_a_link_costs_most_from_before_its_end_until_it_is_up_again():
    lost = make_plan(4, [], [RING, RING, CHAIN, RING, RING, CHAIN, RING])  # link 0-3 is lost at 2 s and at 5 s
    link = _over(0, 3)
    assert planned_hints(PLAN, SECOND) == [Hint(SECOND, link, ending=True)]
    two = [(SECOND, True), (3 * SECOND, False), (4 * SECOND, True), (6 * SECOND, False)]
    assert planned_hints(lost, SECOND) == [Hint(t_ns, link, ending) for t_ns, ending in two]
    kept = [(0, True), (3 * SECOND, True), (6 * SECOND, False)]  # no time between to be cheap
    assert planned_hints(lost, 2 * SECOND) == [Hint(t_ns, link, ending) for t_ns, ending in kept]


def test_a_daemon_is_told_commands_and_what_it_does_not_take_is_heard(tmp_path):
    heard: list[bytes] = []

    def daemon(listener: socket.socket) -> None:
        one, _ = listener.accept()
        for answer in (b"\0\0\0\0", b"% Unknown", b" command\0\0\0\x02"):
            heard.append(b"" if answer.startswith(b" ") else one.recv(100))
            one.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "vty"))
        listener.listen()
        thread = threading.Thread(target=daemon, args=(listener,))
        thread.start()
        assert told(str(tmp_path / "vty"), ["enable", "dance", "never"]) == "% Unknown command"
        thread.join()
    assert heard == [b"enable\0", b"dance\0", b""]


def test_where_a_way_ends_is_told():
    gone = [*RECORDS, {"t_ns": 3 * SECOND, "node": 1, "destination": 3, "link": -1}]
    ways, a, d = FoundWays(PLAN, gone), PLAN.nodes.names[0], PLAN.nodes.names[3]
    assert ways.path(a, d, 3 * SECOND) is None
    assert ways.no_path(a, d, 3 * SECOND) == "p00s01 has no route to p00s03, 1 links from p00s00"
    looped = FoundWays(PLAN, [*RECORDS, *_tree(3 * SECOND, {(1, 3): 0})])
    assert looped.no_path(a, d, 3 * SECOND) == "the routes to p00s03 are a loop"


def test_the_ways_of_a_run_are_read_from_its_table_or_its_journal(tmp_path):
    folder = RunFolder(tmp_path)
    assert found_ways(folder, PLAN) is None
    (tmp_path / CUT).write_text(json.dumps({"part": [node % 2 for node in range(len(PLAN.nodes.names))]}))
    for guest in (folder, RunFolder(tmp_path, 1)):  # each hears its own nodes
        guest.journal.mkdir()
        with Journal(guest.journal / "route_changes.jsonl") as journal:
            for record in RECORDS:
                if record["node"] % 2 == guest.part:
                    journal.append(record)
    live = found_ways(folder, PLAN)
    pq.write_table(pa.Table.from_pylist(RECORDS, schema=ROUTES), folder.table("route_changes"))
    over = found_ways(folder, PLAN)
    assert live is not None and over is not None
    assert sorted(live.changes.tolist()) == sorted(over.changes.tolist()) and len(over.changes) == len(RECORDS)
    assert (np.diff(live.changes[:, 0]) >= 0).all()
