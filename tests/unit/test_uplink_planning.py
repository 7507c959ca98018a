"""A file in pieces, who sends it to whom, and when it can go up: the pure parts of an uplink."""

from __future__ import annotations

import hashlib
import random
from datetime import datetime, timezone

import pytest

from isl_emu.parts.uplink.node import Picker, on_disk
from isl_emu.parts.uplink.pieces import DigestError, Holding, Manifest, default_piece_byte, describe
from isl_emu.parts.uplink.plan import VERIFIED, StationPass, TransferPlan
from isl_emu.parts.uplink.planning import Contact, plan_passes, planned_end_ns, spread
from isl_emu.runs.journal import Journal
from isl_emu.timebase import TimeGrid
from isl_emu.units import NS_PER_S

DATA = bytes(range(256)) * 10  # 2,560 bytes: two pieces of 1,000 and one of 560
PIECES = [DATA[:1000], DATA[1000:2000], DATA[2000:]]
MANIFEST = Manifest(len(DATA), 1000, tuple(hashlib.sha256(piece).hexdigest() for piece in PIECES))
GRID = TimeGrid(datetime(2026, 3, 20, tzinfo=timezone.utc), NS_PER_S, 10)


def test_a_file_is_described_by_its_pieces(tmp_path):
    (tmp_path / "file").write_bytes(DATA)
    assert describe(tmp_path / "file", 1000) == MANIFEST
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST
    assert describe(tmp_path / "file").count == 1


@pytest.mark.parametrize(("size_mb", "piece_mib"), [(98, 1), (1025, 1), (5000, 8), (40_000, 64)])
def test_pieces_grow_with_the_file(size_mb, piece_mib):
    piece_byte = default_piece_byte(size_mb * 1_000_000)
    assert piece_byte == piece_mib << 20
    assert size_mb * 1_000_000 / piece_byte <= 1024


def test_bytes_may_come_in_any_portions_and_nothing_is_asked_for_twice():
    holding, start = Holding.nothing(MANIFEST), 0
    choice = random.Random(1)
    while not holding.complete:
        assert holding.gap() == (start, len(DATA))
        assert holding.received_byte == start
        end = min(len(DATA), start + choice.randint(1, 1500))
        holding.take(start, DATA[start:end])
        start = end
    assert holding.held_byte == len(DATA)
    assert holding.has(0, len(DATA))
    assert not holding.has(0, len(DATA) + 1)


def test_only_verified_pieces_are_there():
    holding = Holding.nothing(MANIFEST)
    holding.take(1000, DATA[1000:1999])
    assert not holding.has(1000, 1001)
    assert holding.next_byte(1) == 1999
    holding.take(1999, DATA[1999:2000])
    assert holding.has(1000, 2000)
    assert not holding.has(999, 1001)
    assert holding.gap() == (0, 1000)
    assert list(holding.missing()) == [0, 2]


def test_a_wrong_byte_makes_its_piece_missing_again_and_no_other():
    holding = Holding.nothing(MANIFEST)
    wrong = bytearray(DATA)
    wrong[1500] ^= 1
    with pytest.raises(DigestError, match="piece 1 "):
        holding.take(0, bytes(wrong))
    assert list(holding.missing()) == [1, 2]
    assert holding.gap() == (1000, len(DATA))
    holding.take(1000, DATA[1000:])
    assert holding.complete


def test_bytes_that_do_not_follow_are_refused():
    holding = Holding.nothing(MANIFEST)
    with pytest.raises(ValueError, match="byte 5 came, but 0 is next"):
        holding.take(5, b"x")


def _line(names):
    """Delays and paths of nodes in a line, 1 ms apart."""
    place = {name: index for index, name in enumerate(names)}

    def path(a, b):
        step = 1 if place[b] > place[a] else -1
        return [names[index] for index in range(place[a], place[b] + step, step)]

    return (lambda a, b: abs(place[a] - place[b]) * 1_000_000), path


def test_a_ring_goes_to_the_nearest_next_and_heals_by_the_one_before():
    delay_ns, path = _line("abcde")
    assert spread("ring", "a", "edcb", delay_ns, path) == {
        "b": ("a",), "c": ("b", "a"), "d": ("c", "b", "a"), "e": ("d", "c", "b", "a")
    }  # fmt: skip


def test_a_tree_follows_the_paths_so_that_each_laser_carries_the_file_once():
    delay_ns, path = _line("abcdefg")
    sources = spread("tree", "d", "abcfg", delay_ns, path)  # e only forwards
    assert sources == {"c": ("d",), "b": ("c", "d"), "a": ("b", "c", "d"), "f": ("d",), "g": ("f", "d")}


def test_a_swarm_asks_those_that_no_other_receiver_lies_before():
    delay_ns, path = _line("abcde")
    sources = spread("swarm", "c", "abde", delay_ns, path)
    assert sources == {"a": ("b",), "b": ("c", "a"), "d": ("c", "e"), "e": ("d",)}


@pytest.mark.parametrize("way", ["ring", "tree", "swarm"])
def test_everyone_can_be_reached_from_the_first_also_without_a_path_now(way):
    names = [f"s{number}" for number in range(9)]
    choice = random.Random(3)
    delays = {frozenset((a, b)): choice.randrange(1, 100) for a in names for b in names if a != b}

    def delay_ns(a, b):
        return None if "s8" in (a, b) else delays[frozenset((a, b))]

    sources = spread(way, "s0", names[1:], delay_ns, lambda a, b: None if "s8" in (a, b) else [a, b])
    assert set(sources) == set(names[1:])
    reached = {"s0"}
    while more := {name for name, asked in sources.items() if reached & set(asked)} - reached:
        reached |= more
    assert reached == set(names)


def _contact_of(table):
    """Contacts from {station: {instant: (delay, rate)}}."""
    return lambda station, k: Contact(*table[station][k]) if k in table[station] else None


def test_a_station_is_kept_until_its_path_is_lost_then_the_nearest_follows():
    near, far = (1, 800), (5, 800)
    table = {"x": {k: far for k in (1, 2, 3, 8)}, "y": {k: near for k in (3, 4, 5, 8)}, "z": {5: near, 4: near}}
    passes = plan_passes("xyz", GRID, 0, _contact_of(table))
    seconds = [(each.station, each.start_ns // NS_PER_S, each.end_ns // NS_PER_S) for each in passes]
    assert seconds == [("x", 1, 4), ("y", 4, 6), ("y", 8, 9)]


def test_nothing_is_planned_before_the_begin():
    table = {"x": {k: (1, 800) for k in range(10)}}
    begin_ns = 5 * NS_PER_S // 2
    assert plan_passes("x", GRID, begin_ns, _contact_of(table)) == [StationPass("x", begin_ns, 10 * NS_PER_S)]


def test_the_planned_end_counts_what_each_pass_carries():
    table = {"x": {0: (1, 800), 1: (1, 800), 5: (1, 1600), 6: (1, 1600)}}
    contact = _contact_of(table)
    passes = plan_passes("x", GRID, 0, contact)
    assert planned_end_ns(passes, GRID, 100, contact) == NS_PER_S
    assert planned_end_ns(passes, GRID, 300, contact) == 5 * NS_PER_S + NS_PER_S // 2
    assert planned_end_ns(passes, GRID, 601, contact) is None


def test_a_swarm_picks_what_is_rare_and_asked_of_nobody_else():
    picker = Picker(Holding.nothing(MANIFEST), random.Random(0), {"a": b"111", "b": b"110", "c": b"010"})
    with picker.picked("a") as first:
        assert first == 2  # only a has it
        with picker.picked("a") as second:
            assert second == 0
            with picker.picked("c") as third, picker.picked("b") as fourth:
                assert (third, fourth) == (1, None)
    with picker.picked("nobody") as none:
        assert none is None


def test_what_was_verified_is_on_the_disk_of_a_satellite_that_begins_anew(tmp_path):
    plan = TransferPlan(tmp_path / "file", MANIFEST, {}, 0, NS_PER_S, 1, None)
    with Journal(tmp_path / f"{VERIFIED}.jsonl") as journal:
        holding = on_disk("a", plan, tmp_path)
        holding.verified = lambda piece: journal.append({"satellite": "a", "piece": piece})
        holding.take(1000, PIECES[1])
        holding.take(0, PIECES[0][:10])
    assert list(on_disk("a", plan, tmp_path).missing()) == [0, 2]
    assert list(on_disk("b", plan, tmp_path).missing()) == [0, 1, 2]
