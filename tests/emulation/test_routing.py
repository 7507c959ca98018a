"""Routes by others: FRR's daemons find them, and follow a lost laser as fast as their timers say."""

from __future__ import annotations

from pathlib import Path

import pytest

from isl_emu.parts.routing.frr import DAEMONS, PROGRAMS
from isl_emu.units import NS_PER_MS, NS_PER_S
from tests.exact_guest import needs_exact_time
from tests.runs import ROOT, chapters, finished, isl_emu, rows

pytestmark = [
    pytest.mark.emulation,
    needs_exact_time,
    pytest.mark.skipif(not (PROGRAMS / DAEMONS["ospf"]).exists(), reason="FRR is not installed (package frr)"),
]

EXAMPLE = (ROOT / "docs" / "examples" / "ospf.toml").read_text()
HINTS = (ROOT / "docs" / "examples" / "hints.toml").read_text()
HELLO_NS, DEAD_NS = NS_PER_S, 4 * NS_PER_S
PAIRS_OVER_A_LINK = 33  # of a ring of 12, both ways: 1 + ... + 5 by shortest ways, and some of those half around
CALCULATION_NS = 500 * NS_PER_MS  # flooding around the ring, and FRR's pauses between calculations


def _loss(out: Path) -> dict[str, int]:
    (row,) = [row for row in rows(out, "convergence") if row["links_lost"]]
    assert (row["links_lost"], row["t_ns"], row["pairs"]) == (1, 10 * NS_PER_S, 12 * 11)
    return row


def _guests(number: int) -> tuple[str, ...]:
    """The words for a run over so many, where what cuts it is installed."""
    if number > 1:
        pytest.importorskip("pymetis")
    return "--guests", str(number)


@pytest.mark.parametrize(
    ("protocol", "name", "pause_ns", "guests"), [("ospf", "OSPF", 0, 1), ("isis", "IS-IS", NS_PER_S, 2)]
)
def test_without_a_carrier_a_lost_laser_is_noticed_by_silence(protocol, name, pause_ns, guests, tmp_path):
    """Of IS-IS a router pauses for a second before it tells of its links again."""
    text = EXAMPLE.replace('protocol = "ospf"', f'protocol = "{protocol}"')
    said = finished(text, tmp_path / "run", *_guests(guests))
    assert "VALID: in exact time" in said and f"ROUTES by {name}" in said
    loss = _loss(tmp_path / "run")
    assert loss["pairs_cut"] == PAIRS_OVER_A_LINK
    assert DEAD_NS - HELLO_NS <= loss["outage_p50_ns"] <= loss["outage_max_ns"] <= DEAD_NS + pause_ns + CALCULATION_NS
    assert loss["settled_ns"] == loss["outage_max_ns"] and loss["control_byte"] > 0
    outages = [row for row in rows(tmp_path / "run", "outages") if row["k"] == loss["k"]]
    assert len(outages) == PAIRS_OVER_A_LINK and max(row["outage_ns"] for row in outages) == loss["outage_max_ns"]
    probes = rows(tmp_path / "run", "probes")
    cut = [row for row in probes if row["cut"] and not row["straddles_change"]]
    assert {row["delay_ns"] for row in cut} == {None} and len(cut) <= loss["probes_lost"] <= len(cut) + 4
    arrived = [row for row in probes if row["delay_ns"] and not row["straddles_change"]]
    around = [row["hops"] for row in arrived if (row["a"], row["b"]) == ("p00s01", "p00s02")]
    assert set(around) == {1, 11}
    assert all(abs(row["excess_ns"]) <= row["hops"] for row in arrived if row["excess_ns"] is not None)
    assert (tmp_path / "run" / "files" / "p00s01" / "frr" / f"{DAEMONS[protocol]}.log").stat().st_size
    around_at = {"9s": " 1 hops, one way, at 9 s, by", "21s": "11 hops, one way, at 21 s, by"}
    for at, way in {**around_at, "11s": "p00s02  (the link is down: packets are lost)"}.items():
        told = isl_emu("path", tmp_path / "run", "p00s01", "p00s02", "--at", at).stdout
        planned, found = told.split("one way", 1)
        assert ("11 hops, " if at != "9s" else " 1 hops, ") in planned and way in found


def test_a_carrier_tells_of_it_at_once(tmp_path):
    text = EXAMPLE.replace("carrier = false", "carrier = true").replace('duration = "30 s"', 'duration = "14 s"')
    text = text.replace('for = "12 s"', 'for = "9 s"')
    assert "VALID: in exact time" in finished(text, tmp_path / "run", report=True)
    assert "How routes followed the sky" in chapters(tmp_path / "run")
    loss = _loss(tmp_path / "run")
    assert loss["pairs_cut"] == PAIRS_OVER_A_LINK and loss["outage_max_ns"] < CALCULATION_NS


def test_a_laser_that_the_orbits_end_is_left_beforehand(tmp_path):
    text = HINTS.replace('duration = "16 s"', 'duration = "12 s"')
    assert "VALID: in exact time" in finished(text, tmp_path / "run", *_guests(2))
    losses = [row for row in rows(tmp_path / "run", "convergence") if row["links_lost"]]
    assert [row["t_ns"] for row in losses] == [7 * NS_PER_S, 10 * NS_PER_S]
    for row in losses:  # without hints, and with silence alone to tell, it is as long as the dead interval
        assert (row["outage_max_ns"] or 0) < CALCULATION_NS and row["probes_lost"] == 0
    probes = [row for row in rows(tmp_path / "run", "probes") if row["a"] == "p00s01" and row["b"] == "p01s01"]
    hops = {row["hops"] for row in probes if 9 * NS_PER_S <= row["t_send_ns"] < 10 * NS_PER_S}
    assert hops == {3}  # a second before it goes, nobody uses it any more
