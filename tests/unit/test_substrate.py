"""What lies below the links between guests in real time: clocks, delays, what is refused, what the verdict says."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isl_emu.experiment import load_source
from isl_emu.machine import trunks
from isl_emu.machine.trunks import Clocks, Frames, ProbeTaken
from isl_emu.partition.cut import least_delays_ns
from isl_emu.parts.substrate.estimates import (
    MOST_LATE_RATIO,
    SUBSTRATE,
    Apart,
    apart_by_round_trips,
    apart_on_one_machine,
    shortest_link,
    substrate_fidelity,
    substrate_reasons,
    substrate_row,
    too_short,
)
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.meeting import SAID, meet
from tests.scenarios import quiet_ring

LIMIT_NS = 250_000


def test_what_the_kernel_says_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of both clocks the last reading of several is here as good as any: the machine's was read before and after."""
    monkeypatch.setattr(trunks, "PARAMETERS", tmp_path)
    (tmp_path / "clocks").write_text("1000 700 1101\n")
    (tmp_path / "frames").write_text("0 12 3 4500\n2 1 0 0\n")
    (tmp_path / "probes").write_text("2 -90000 -9223372036854775808\n0 110000 7\n")
    assert trunks.read_clocks() == Clocks(350, 51)
    assert trunks.count_frames() == [Frames(0, 12, 3, 4500), Frames(2, 1, 0, 0)]
    assert trunks.take_probes() == [ProbeTaken(2, -90000, -(1 << 63)), ProbeTaken(0, 110000, 7)]


def test_parts_of_a_run_hear_what_each_of_them_says(tmp_path: Path) -> None:
    folders = [RunFolder(tmp_path, number) for number in range(3)]
    for folder in folders:
        folder.journal.mkdir()
    with ThreadPoolExecutor(3) as pool:
        heard = list(pool.map(lambda folder: meet(folder, 3, "ready", {"part": folder.part}), folders))
    assert heard == [[{"part": 0}, {"part": 1}, {"part": 2}]] * 3
    said = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")]
    assert len(said) == 6 and all(SAID.fullmatch(path) for path in said)
    assert not SAID.fullmatch("journal/instants.jsonl") and not SAID.fullmatch("files/a.said")


def test_guests_on_one_machine_compare_their_clocks_with_its() -> None:
    """The machine's is 700 ns ahead of the sender's, and 200 ns of ours: ours is ahead of the sender's by 500 ns."""
    assert apart_on_one_machine(Clocks(200, 40), 700) == Apart(500, 80)


@pytest.mark.parametrize("there_ns", [300_000, 500_000, 900_000])
@pytest.mark.parametrize("apart_ns", [-7_000_000, 0, 40_000])
def test_clocks_of_two_machines_are_known_to_half_a_round_trip(apart_ns: int, there_ns: int) -> None:
    """Whatever the ways there and back take, what is true lies within what is found and its uncertainty."""
    back_ns = 500_000
    found = apart_by_round_trips(there_ns + apart_ns, back_ns - apart_ns)
    assert abs(found.apart_ns - apart_ns) <= found.uncertainty_ns == (there_ns + back_ns) // 2
    if there_ns == back_ns:
        assert found.apart_ns == apart_ns


def test_a_row_tells_what_probes_take_by_one_clock() -> None:
    probes = [ProbeTaken(0, took_ns, 0) for took_ns in (130, 110, 120, 150, 990)]
    row = substrate_row(1, 0, probes, Apart(10, 4), Frames(0, 70, 2, 33))
    assert (row["delay_least_ns"], row["delay_q1_ns"], row["delay_p50_ns"], row["delay_most_ns"]) == (
        100,
        110,
        120,
        980,
    )
    assert {"t_ns", *row} == set(SUBSTRATE.names)
    assert (row["from_guest"], row["to_guest"], row["frames"], row["late_frames"], row["latest_ns"]) == (
        0,
        1,
        70,
        2,
        33,
    )


def test_without_probes_a_row_knows_nothing_of_delays() -> None:
    row = substrate_row(1, 0, [], None, Frames(0, 0, 0, 0))
    assert row["probes"] == 0 and row["delay_q1_ns"] is row["apart_ns"] is row["uncertainty_ns"] is None


def test_a_link_that_is_shorter_than_what_its_frames_take_is_refused() -> None:
    assert too_short("a - b", 1_200_000, 0, 1, 1_199_999) is None
    refusal = too_short("a - b", 1_200_000, 0, 1, 2_100_000)
    assert refusal is not None and "link a - b: takes 1.200 ms" in refusal
    assert "guest 0 to guest 1 takes 2.100 ms here; use fewer guests" in refusal


def test_the_shortest_link_between_two_guests_is_found(tmp_path: Path) -> None:
    path = tmp_path / "ring.toml"
    path.write_text(quiet_ring())
    plan = load_source(path, {}).plan
    part = np.zeros(len(plan.nodes.names), np.int32)
    part[[0, 1]] = 1
    part[2] = 2
    crossing = [
        link
        for link, ends in enumerate(zip(plan.links.a.tolist(), plan.links.b.tolist(), strict=True))
        if {int(part[end]) for end in ends} == {0, 1}
    ]
    found = shortest_link(plan, part, (0, 1))
    assert found is not None and found == shortest_link(plan, part, (1, 0))
    assert found.delay_ns == least_delays_ns(plan)[crossing].min()
    assert any(
        found.name == f"{plan.nodes.names[plan.links.a[one]]} - {plan.nodes.names[plan.links.b[one]]}"
        for one in crossing
    )
    assert shortest_link(plan, part, (0, 3)) is None


def _rows(late: int = 0, **changes: Any) -> list[dict[str, Any]]:
    first, last = Frames(0, 100, 50, 9), Frames(0, 100 + 1000, 50 + late, 7_000 if late else 0)
    probes = [ProbeTaken(0, 120_000, 0)]
    rows = [substrate_row(1, 0, probes, Apart(100, 50), frames) for frames in (first, last)]
    return [{"t_ns": t_ns, **row, **changes} for t_ns, row in enumerate(rows)]


def test_what_came_late_before_instant_0_does_not_count() -> None:
    (found,) = substrate_fidelity(_rows(late=3))
    assert (found.frames, found.late_frames, found.latest_ns) == (1000, 3, 7_000)
    assert (found.unsure_ns, found.delay_q1_ns, found.probes) == (150, 119_900.0, 2)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (_rows(), None),
        (_rows(late=round(1000 * MOST_LATE_RATIO)), None),
        (_rows(late=round(1000 * MOST_LATE_RATIO) + 1), "1.1% of the frames from guest 0 to guest 1 came after"),
        (_rows(apart_ns=-200_000, uncertainty_ns=50_000), None),
        (_rows(apart_ns=-200_000, uncertainty_ns=50_001), "one-way figures from guest 0 to guest 1 are uncertain"),
        (_rows(apart_ns=None, uncertainty_ns=None), "nothing measured what goes from guest 0 to guest 1"),
    ],
)
def test_the_verdict_counts_late_frames_and_clocks_that_nobody_knows(
    rows: list[dict[str, Any]], reason: str | None
) -> None:
    reasons = list(substrate_reasons(substrate_fidelity(rows), LIMIT_NS))
    assert len(reasons) == (reason is not None)
    assert reason is None or reason in reasons[0]
