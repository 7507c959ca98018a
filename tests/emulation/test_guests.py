"""A run spread over several guests is that of one, to the bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.exact_guest import needs_exact_time
from tests.runs import finished, isl_emu
from tests.scenarios import head, shell, station, table

pytest.importorskip("pymetis")
pytestmark = [pytest.mark.emulation, needs_exact_time]

OF_EACH_KERNEL = {"load.parquet"}
SCENARIO = (
    head("spread", rate_scale=0.01, duration="6 s")
    + shell(24, 4, 1, altitude="1200 km", inclination="60 deg", lasers={"topology": "+grid", "rate": "10 Gbit/s"})
    + station("gs-chengdu", latitude="30.66 deg", longitude="104.06 deg", antennas=2)
    + station("gs-tempe", latitude="33.43 deg", longitude="-111.93 deg", antennas=2)
    + table("compute", satellites=["p0*"], server="modelled", board="inference-2035", model="qwen3-8b")
    + table("questions", mean_interval="400 ms", target="uniform", max_answer_tokens=16, prompts=["Why? " * 400])
    + table("probes", interval="500 ms", pairs=[["gs-chengdu", "gs-tempe"], ["p00s00", "p03s02"]])
    + table("counters", interval="2 s")
    + table("[fault]", name="storm", satellites=["p0*"], at="2 s", **{"for": "3 s"}, effect="degrade", loss=0.1)
    + table("[fault]", name="cut", satellites=["p01s0?"], at="3 s", **{"for": "2 s"}, effect="cut")
)


@pytest.fixture(scope="module")
def outs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The results with each number of guests."""
    folder = tmp_path_factory.mktemp("guests")
    found = {guests: folder / str(guests) for guests in (1, 2, 4)}
    for guests, out in found.items():
        finished(SCENARIO, out, "--clock", "exact", "--guests", str(guests))
    return found


@pytest.mark.parametrize("guests", [2, 4])
def test_tables_are_those_of_one_guest_to_the_bit(outs: dict[int, Path], guests: int) -> None:
    one, several = ({path.name: path for path in outs[number].glob("*.parquet")} for number in (1, guests))
    assert one.keys() == several.keys()
    differing = {name for name, path in one.items() if path.read_bytes() != several[name].read_bytes()}
    assert differing <= OF_EACH_KERNEL


def test_a_spread_run_crosses_its_guests_and_leaves_one_folder(outs: dict[int, Path]) -> None:
    assert set(json.loads((outs[4] / "cut.json").read_text())["part"]) == {0, 1, 2, 3}
    left = {path.name for path in outs[4].iterdir()} - {path.name for path in outs[1].iterdir()}
    assert left == {"cut.json"}
    assert json.loads((outs[4] / "fidelity.json").read_text())["reasons"] == []


def test_what_cannot_be_spread_is_refused_by_the_command(tmp_path: Path) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text(SCENARIO + table("[capture]", name="one", node="p01s02"))
    done = isl_emu("run", path, "--clock", "exact", "--guests", "2", "--out", tmp_path / "out")
    assert done.returncode and "--guests: is 2, but [[capture]]" in done.stderr
    assert not (tmp_path / "out").exists()
