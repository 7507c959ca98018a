"""Images from their exposure to the ground, in exact time: what the plan says comes true, and energy is charged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.exact_guest import needs_exact_time
from tests.runs import ROOT, chapters, finished, rows
from tests.scenarios import shipped, station, table

pytestmark = [pytest.mark.emulation, needs_exact_time]

FIND = str(ROOT / "docs" / "examples" / "find_fires.py")
CHANGES = {
    'duration = "600 s"': 'duration = "100 s"',
    "tiles = 2_000": "tiles = 1_000",  # 16.2 s
    'every = "20 s"': 'every = "10 s"\ncount = 4',
    'satellites = ["p00s00", "p00s01", "p00s02", "p00s09"]': """satellites = ["p00s00", "p00s01"]
stations = ["gs-svalbard"]""",
}
LOOK_NS = 1_000 * (3_400_000 + 8.7e9 / (0.08 * 8.5e12) * 1e9)
DOWN_MOST_NS = 250_000_000  # later than planned: a connection is made first, and is told how much is there
OVER_MOST_NS = 1_000_000_000  # and a megabyte over a laser needs some round trips more, as TCP begins slowly


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """A short run of the shipped scenario, with a real program for images of a file beside it."""
    folder = tmp_path_factory.mktemp("observation")
    subprocess.run([sys.executable, FIND, "--make", str(folder / "image.pgm")], check=True)
    real = table(
        "[observation]", name="fires", satellites=["p00s02"], analysts=["p00s03"], first="40 s",
        placement="nearest-free", file=str(folder / "image.pgm"), compute_time="3 s", board="jetson-orin-nano-super",
        command=[sys.executable, FIND, "{image}", "{answer}"],
    )  # fmt: skip
    late = station("gs-mcmurdo", site="mcmurdo", min_elevation="35 deg") + table(
        "[observation]", name="late", satellites=["p00s05"], first="2 s", stations=["gs-mcmurdo"], size="1 MB",
        placement="on-board", compute_time="1 s", board="jetson-orin-nano-super",
    )  # fmt: skip
    finished(shipped("earth-observation", CHANGES) + real + late, folder / "out", "--clock", "exact", report=True)
    return folder / "out"


def test_answers_come_when_the_plan_said(results):
    images = [row for row in rows(results, "observations") if row["observation"] == "fields"]
    assert len(images) == 8
    assert {row["outcome"] for row in images} == {"answered"}
    assert {row["analyst"] == row["satellite"] for row in images} == {True, False}  # others help
    for row in images:
        assert row["compute_ns"] == pytest.approx(LOOK_NS, abs=2)
        assert row["energy_j"] == pytest.approx(25.0 * LOOK_NS / 1e9)
        late_ns = row["t_answer_there_ns"] - row["t_planned_ns"]
        assert 0 < late_ns < (DOWN_MOST_NS if row["analyst"] == row["satellite"] else OVER_MOST_NS)
        assert row["saved_byte"] == 1_000_000_000 - 20_000
        assert row["gained_ns"] == row["t_image_planned_ns"] - row["t_answer_there_ns"]
        assert row["answer_wire_byte"] == 20


def test_a_real_program_looked_at_a_real_image(results):
    (row,) = [row for row in rows(results, "observations") if row["observation"] == "fires"]
    assert (row["outcome"], row["analyst"], row["compute_ns"]) == ("answered", "p00s03", 3_000_000_000)
    assert row["image_wire_byte"] == row["image_byte"] == 256 * 256 + 15
    answer = (results / "answers" / "fires-0").read_text()
    assert row["answer_byte"] == len(answer)
    found = [json.loads(line) for line in answer.splitlines()]
    assert [(one["row"], one["column"]) for one in found] == [(40, 60), (128, 200), (220, 30)]


def test_an_answer_waits_for_a_contact(results):
    (row,) = [row for row in rows(results, "observations") if row["observation"] == "late"]
    assert row["t_analysed_ns"] == 3_000_000_000
    assert row["t_answer_sent_ns"] == 19_000_000_000  # whole seconds: when the plan has a path for the first time
    assert row["contact_wait_ns"] == 16_000_000_000
    assert 19_000_000_000 < row["t_planned_ns"] < row["t_answer_there_ns"] < row["t_planned_ns"] + DOWN_MOST_NS
    assert row["answer_path"][-1] == row["station"] == "gs-mcmurdo"


def test_energy_is_charged_for_what_was_looked_at(results):
    """All busy time of the computers' rows is that of the images."""
    busy_ns = sum(row["busy_ratio"] * row["interval_ns"] for row in rows(results, "energy"))
    looked_ns = sum(row["compute_ns"] for row in rows(results, "observations"))
    assert busy_ns == pytest.approx(looked_ns, rel=1e-4)


def test_it_is_told(results):
    summary = (results / "summary.txt").read_text()
    assert "EARTH OBSERVATION" in summary
    assert "on another satellite" in summary
    assert "Earth observation" in chapters(results)
