"""How queues are managed: from the scenario over the plan to the kernel's messages."""

from __future__ import annotations

import itertools
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from isl_emu.errors import ScenarioError
from isl_emu.linkplan.build import plan_links
from isl_emu.linkplan.plan import AQM, LinkKind, QueueKind
from isl_emu.linkplan.plan_file import read_plan, write_plan
from isl_emu.network.desired import (
    END,
    FOUND,
    ends_at,
    expected,
    initial_ends,
    policed_bit_s,
    queue_byte,
    serialiser_bit_s,
)
from isl_emu.network.naming import Wiring
from isl_emu.network.qdiscs import decode_qdiscs
from isl_emu.network.queues import (
    add_policers,
    add_queues,
    bucket_messages,
    count_policed,
    decode_actions,
    detour_messages,
    inside_message,
    marks,
    policer_messages,
)
from isl_emu.nodes.netlink import HEADER, attribute, split_attributes
from isl_emu.planned import open_planned
from isl_emu.scenario.parse import format_scenario, parse_scenario
from isl_emu.units import NS_PER_S
from tests.plans import MS, make_plan
from tests.scenarios import head, shell, station, table

WIRING = Wiring(np.zeros(7, np.int64), np.zeros(7, np.int64), np.arange(997, 1004), ())  # end 6 is at interface 1003
MANAGED = np.arange(7) == 6
UP = np.array([(True, 5 * MS, 5 * MS, 40_000_000_000, 0.0, 0.0, 0.0, 0, QueueKind.CODEL, 250_000)], END)


def scenario(lasers: dict[str, Any], **terms: Any) -> str:
    """A ring for a whole orbit, with a station that every plane passes."""
    place = {"latitude": "85 deg", "longitude": "13.4 deg", "min_elevation": "10 deg"}
    lasers = {"topology": "ring", **lasers}
    return head(duration="100 min", step="60 s") + shell(12, lasers=lasers) + station(**place, **terms)


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        (
            {"aqm": "pie"},
            "shell[0].lasers.aqm is 'pie', but it should be 'none', 'bfifo', 'codel', 'fq_codel' or 'cake'",
        ),
        ({"ecn": False}, 'has aqm = "none" with aqm_target, aqm_interval or ecn, but only codel, fq_codel, cake have'),
        ({"aqm": "bfifo", "aqm_target": "1 ms"}, 'has aqm = "bfifo" with aqm_target'),
        ({"aqm": "cake", "ecn": False}, "CAKE always marks"),
        ({"aqm": "codel", "aqm_target": "200 ms"}, "longer than aqm_interval"),
    ],
)
def test_what_does_not_fit_together_is_refused(keys: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(scenario(keys), "some.toml")
    assert complaint in str(caught.value)


def test_each_link_of_the_plan_has_its_own_management(tmp_path) -> None:
    lasers = {"aqm": "codel", "aqm_target": "2 ms", "ecn": False}
    plan = plan_links(parse_scenario(scenario(lasers, aqm="cake"), "x"), "")
    ground = plan.links.kind == LinkKind.GROUND
    assert set(plan.links.aqm[~ground].tolist()) == {(QueueKind.CODEL, False, 2 * MS, 100 * MS)}
    assert set(plan.links.aqm[ground].tolist()) == {(QueueKind.CAKE, True, 5 * MS, 100 * MS)}
    write_plan(plan, tmp_path / "plan.parquet")
    assert read_plan(tmp_path / "plan.parquet").links.aqm.tolist() == plan.links.aqm.tolist()


def test_each_link_has_its_longest_packet_and_its_loss(tmp_path) -> None:
    lasers = {"mtu": "9000 B", "loss_ratio": 0.5, "jitter": {"mean_loss_ratio": 0.02}}
    plan = plan_links(parse_scenario(scenario(lasers, mtu="1280 B", loss_ratio=0.25), "x"), "")
    ground = plan.links.kind == LinkKind.GROUND
    assert set(plan.links.mtu_byte[~ground].tolist()) == {9_000}
    assert set(plan.links.mtu_byte[ground].tolist()) == {1_280}
    on_ground = ground[plan.row_link]
    assert set(plan.row_loss_ratio[on_ground].tolist()) == {0.25}
    jittered = plan.row_loss_ratio[~on_ground]
    assert jittered.min() >= 0.5
    assert abs(jittered.mean() - 0.51) < 0.002  # half of the 98 % that jitter leaves
    write_plan(plan, tmp_path / "plan.parquet")
    again = read_plan(tmp_path / "plan.parquet")
    assert again.links.mtu_byte.tolist() == plan.links.mtu_byte.tolist()
    assert again.digest() == plan.digest()


def test_nodes_say_how_their_links_are(tmp_path) -> None:
    tables = (
        table("[node]", nodes=["p00s0*"], mtu="4000 B", aqm="codel")
        + table("[node]", nodes=["p00s03"], queue="7 ms", mtu="2000 B")  # holds for p00s03, in place of the one before
        + table("[node]", nodes=["p00s05"], cpus=0.5)
    )
    parsed = parse_scenario(scenario({"mtu": "9000 B"}) + tables, "x")
    plan = plan_links(parsed, format_scenario(parsed))
    links = plan.links
    found = {
        frozenset((plan.nodes.names[a], plan.nodes.names[b])): (int(mtu), int(queue), QueueKind(kind).name)
        for a, b, mtu, queue, kind in zip(links.a, links.b, links.mtu_byte, links.queue_ns, links.aqm["kind"])
    }
    assert found[frozenset(("p00s00", "p00s01"))] == (4_000, 20 * MS, "CODEL")
    assert found[frozenset(("p00s02", "p00s03"))] == (2_000, 7 * MS, "CODEL")  # key by key, the later one first
    assert found[frozenset(("p00s05", "p00s06"))] == (4_000, 20 * MS, "CODEL")  # of p00s06
    assert found[frozenset(("p00s10", "p00s11"))] == (9_000, 20 * MS, "NONE")
    assert not parsed.node[0].limited  # and so takes no container
    write_plan(plan, tmp_path / "plan.parquet")
    node = [{"nodes": ["p00s0*"], "mtu": "1280 B"}]
    with pytest.raises(ScenarioError, match="node: says something else of links"):
        open_planned(tmp_path / "plan.parquet", {"node": node})


def test_a_constant_loss_needs_nothing_beside_it() -> None:
    plan = plan_links(parse_scenario(scenario({"loss_ratio": 0.125}), "x"), "")
    lasers = plan.links.kind[plan.row_link] != LinkKind.GROUND
    assert set(plan.row_loss_ratio[lasers].tolist()) == {0.125}


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"mtu": "1000 B"}, "mtu"),
        ({"mtu": "70 kB"}, "mtu"),
        ({"mtu": 1500}, "mtu"),
        ({"loss_ratio": 1.5}, "loss_ratio is 1.5"),
        ({"loss_ratio": -0.1}, "loss_ratio is -0.1"),
    ],
)
def test_links_that_cannot_be_are_refused(keys: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(scenario(keys), "some.toml")
    assert complaint in str(caught.value)


def test_management_is_in_the_digest() -> None:
    plan = make_plan(2, [], [{(0, 1): MS}])
    managed = replace(plan, links=replace(plan.links, aqm=np.array([(QueueKind.CODEL, True, 1, 2)], AQM)))
    assert managed.digest() != plan.digest()


def test_a_queue_in_bytes_is_its_time_at_the_rate() -> None:
    rates, waits = np.array([8_000_000, 1_000, 10**12]), np.array([20 * MS, 20 * MS, 1000 * MS])
    assert queue_byte(rates, waits, np.array([1514] * 3)).tolist() == [20_000, 8 * 1514, 2**31 - 1]
    assert queue_byte(rates[2:], np.array([1_000]), np.array([1514])).tolist() == [125_000]
    assert queue_byte(rates[2:], np.array([100]), np.array([1514])).tolist() == [65_536]  # one super-packet


def test_the_netem_behind_a_bucket_serialises_a_little_faster() -> None:
    plan = make_plan(2, [], [{(0, 1): MS}], rate_bit_s=1_000_000, aqm=QueueKind.CAKE)
    ends = ends_at(plan, 0, initial_ends(plan, 0), 0)
    assert ends["rate_bit_s"].tolist() == [1_000_000] * 2
    assert serialiser_bit_s(ends).tolist() == [1_020_000] * 2
    assert serialiser_bit_s(UP[0]) == 40_800_000_000


def as_dumped(rows: bytes) -> list[bytes]:
    return [rows[HEADER.size :]]


def clsact() -> list[bytes]:
    return as_dumped(detour_messages(np.array([1003]))[0].tobytes())


def dumped_action(remade: bytes, bound_at: int) -> list[bytes]:
    """An action as a kernel tells it: with what counts, and bound to a filter."""
    head, one = remade[HEADER.size : HEADER.size + 4], split_attributes(remade[HEADER.size + 4 :])[1]
    kind, options = (split_attributes(split_attributes(one)[1])[number] for number in (1, 2))
    parms, *others = split_attributes(options).items()
    bound = parms[1][:bound_at] + struct.pack("=I", 1) + parms[1][bound_at + 4 :]
    told = b"".join(itertools.starmap(attribute, [(parms[0], bound), *others]))
    counts = attribute(3, struct.pack("=5I", 0, 0, 0, 0, 7))
    return [head + attribute(1, attribute(1, attribute(1, kind) + attribute(2, told) + attribute(4, counts)))]


def detour() -> list[bytes]:
    return dumped_action(detour_messages(np.array([1003]), again=True)[-1].tobytes(), bound_at=16)


def test_a_bucket_and_what_is_inside_read_back_as_written() -> None:
    aqm = np.array([(QueueKind.FQ_CODEL, True, 5 * MS, 100 * MS)], AQM)[0]
    bodies = as_dumped(bucket_messages(UP, np.array([1003]), np.array([65_536]), create=True).tobytes())
    bodies += as_dumped(inside_message(aqm, 1003, 250_000, 1514, 1.0)) + clsact()
    for order in (bodies, bodies[::-1]):
        found = np.zeros(1, FOUND)
        found["end"] = 6
        add_queues(found, decode_qdiscs({0: order}), decode_actions({0: detour()}), WIRING, MANAGED)
        assert found[["aqm", "queue_rate_bit_s", "queue_byte"]].tolist() == [(3, 40_000_000_000, 250_000)]


def test_a_bucket_with_nothing_shown_inside_counts_bytes() -> None:
    found = np.zeros(1, FOUND)
    found["end"] = 6
    bucket = as_dumped(bucket_messages(UP, np.array([1003]), np.array([1514]), create=True).tobytes())
    add_queues(found, decode_qdiscs({0: bucket + clsact()}), decode_actions({0: detour()}), WIRING, MANAGED)
    assert found["aqm"].tolist() == [QueueKind.BFIFO]


def test_a_queue_that_no_packet_is_sent_to_is_none() -> None:
    found = np.zeros(1, FOUND)
    found["end"] = 6
    bucket = as_dumped(bucket_messages(UP, np.array([1003]), np.array([1514]), create=True).tobytes())
    for qdiscs, detours in ((bucket, detour()), (bucket + clsact(), [])):
        add_queues(found, decode_qdiscs({0: qdiscs}), decode_actions({0: detours}), WIRING, MANAGED)
        assert found["aqm"].tolist() == [QueueKind.NONE]


def test_a_policer_reads_back_as_written_and_tells_what_it_dropped() -> None:
    states = UP.copy()
    states["aqm"], states["rate_bit_s"] = QueueKind.NONE, 40_000_000_000
    clsact, _, again = (rows.tobytes() for rows in policer_messages(states, np.array([1003]), again=True))
    policer = decode_actions({0: dumped_action(again, bound_at=48)})
    found = np.zeros(1, FOUND)
    found["end"] = 6
    add_policers(found, decode_qdiscs({0: as_dumped(clsact)}), policer, WIRING)
    fields = ["queue_rate_bit_s", "queue_byte"]
    assert found[fields].tolist() == expected(np.array([6]), states)[fields].tolist() == [(39_999_961_856, 250_240)]
    assert [one.tolist() for one in count_policed(policer, WIRING)] == [[6], [7]]
    found["queue_rate_bit_s"] = 0
    add_policers(found, decode_qdiscs({0: []}), policer, WIRING)
    assert found["queue_rate_bit_s"].tolist() == [0]  # no packet meets it


@pytest.mark.parametrize("rate_bit_s", [8_000_000, 88_888_888, 5 * 10**9, 10**10, 4 * 10**10, 7_777_777_776])
def test_a_policer_never_counts_less_than_the_netem_behind_it(rate_bit_s: int) -> None:
    """Else the queue of an overloaded link would grow: by 1 ns of 472 with frames of 590 bytes at 10 Gbit/s."""
    byte_s, factor, shift = int(policed_bit_s(np.int64(rate_bit_s))) // 8, NS_PER_S, 0
    while not factor // byte_s & 1 << 31:
        factor, shift = 2 * factor, shift + 1
    for frame_byte in range(60, 9_015):
        policed_ns = frame_byte * (factor // byte_s) >> shift
        assert 0 <= policed_ns - frame_byte * NS_PER_S // (rate_bit_s // 8) <= 1
    assert byte_s * 8 >= rate_bit_s * (1 - 1e-6) - 8


def test_a_bucket_holds_a_super_packet_and_a_millisecond() -> None:
    options = split_attributes(
        _options(bucket_messages(UP, np.array([1003]), np.array([65_536]), create=False).tobytes())
    )
    assert struct.unpack("=I", options[6]) == (65_536 + 5_000_000,)


def _options(one: bytes) -> bytes:
    return split_attributes(one[HEADER.size + 20 :])[2]


@pytest.mark.parametrize("kind", [QueueKind.CODEL, QueueKind.FQ_CODEL])
def test_times_are_in_us_and_slow_motion_makes_them_longer(kind: QueueKind) -> None:
    aqm = np.array([(kind, False, 5 * MS, 100 * MS)], AQM)[0]
    options = split_attributes(_options(inside_message(aqm, 1003, 151_400, 1514, slowdown=4.0)))
    assert {key: struct.unpack("=I", value)[0] for key, value in options.items()} == {
        1: 20_000,
        2: 100,
        3: 400_000,
        4: 0,
    }


def test_every_packet_of_the_interface_takes_the_detour() -> None:
    clsact, redirect = (rows.tobytes() for rows in detour_messages(np.array([1003])))
    assert b"clsact\0" in clsact
    assert b"mirred\0" in redirect
    assert struct.pack("=I", 1_001_003) in redirect


def test_marks_are_counted_where_each_kind_keeps_them() -> None:
    def body(kind: bytes, told: bytes) -> bytes:
        return bytes(20) + attribute(1, kind) + attribute(7, attribute(4, told))

    tin = attribute(1, attribute(8, struct.pack("=I", 7)))
    codel, fq_codel = struct.pack("=9I", *range(9)), struct.pack("=8I", *range(8))
    bodies = [body(b"codel\0", codel), body(b"fq_codel\0", fq_codel), body(b"cake\0", attribute(10, tin))]
    assert marks(decode_qdiscs({0: [*bodies, body(b"tbf\0", b"")]})).tolist() == [6, 3, 7, 0]
