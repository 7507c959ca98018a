"""What an uplink's table may say, and the plan that follows from a sky."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from isl_emu import api
from isl_emu.cli import cli
from isl_emu.errors import ScenarioError
from isl_emu.parts.uplink.plan import StationPass, TransferPlan
from isl_emu.parts.uplink.planning import plan_transfer
from isl_emu.routing.forwarding import plan_routes
from isl_emu.routing.paths import PathFinder
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.parse import format_scenario, load_scenario, parse_scenario
from isl_emu.units import NS_PER_S
from tests.scenarios import head, shell, station, table

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "topologies" / "qwen3-uplink.toml"
RING = head(duration="4 s") + shell(6)
STATION = station("gs-a", latitude="0 deg", longitude="0 deg")
THROTTLED = '\n[[compute]]\nsatellites = ["p00s05"]\nserver = "throttled"\ndecode_tokens_s = 5.0\n'
REAL = '\n[[compute]]\nsatellites = ["p00s0[0-2]"]\n'


def _uplinked(*parts: str) -> tuple[str, ...]:
    return parse_scenario(RING + "".join(parts), "x").uplinked_satellites


def test_by_default_all_that_load_a_model_get_it() -> None:
    modelled = '\n[[compute]]\nsatellites = ["p00s05"]\nserver = "modelled"\nboard = "jetson-agx-orin"\n'
    modelled += 'model = "qwen3-8b"\n'
    assert _uplinked(STATION, REAL, modelled, "[uplink]") == ("p00s00", "p00s01", "p00s02")
    assert _uplinked(STATION, REAL, '[uplink]\nsatellites = ["*s01"]') == ("p00s01",)
    assert _uplinked(STATION, REAL) == ()


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        ((REAL, "[uplink]"), "there is no ground station to send from"),
        ((STATION, "[uplink]"), "no satellite has a real server"),
        ((STATION, REAL, '[uplink]\nstations = ["gs-b"]'), "names 'gs-b', but there is no such ground station"),
        ((STATION, REAL, '[uplink]\nsatellites = ["p00s05"]'), "has 'p00s05', but it runs no server"),
        ((STATION, THROTTLED, '[uplink]\nsatellites = ["p00s05"]'), "whose server is throttled, but only a real one"),
        ((STATION, REAL, '[uplink]\nsatellites = ["p9*"]'), "matches no satellite"),
        ((STATION, REAL, '[uplink]\nfirst = "p00s05"'), "uplink.first is 'p00s05'"),
        ((STATION, REAL, '\n[[compute]]\nsatellites = ["p00s05"]\nmodel = "b.gguf"\n[uplink]'), "one file is sent up"),
        ((STATION, REAL, '[uplink]\nspread = "flood"'), "uplink.spread is 'flood'"),
        ((STATION, REAL, '[uplink]\npiece = "0 MB"'), "must be more than"),
    ],
)
def test_what_cannot_be_is_said(parts: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(RING + "".join(parts), "x")
    assert complaint in str(caught.value)


def test_the_documented_commands_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they do is tested by a whole, shorter run (tests/emulation/test_uplink.py)."""
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs" / "uplink.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert len(lines) == 2
    for program, command, *arguments in lines:
        assert (program, command) == ("isl-emu", "run")
        assert cli.commands["run"].make_context("run", list(arguments)).params
        assert load_scenario(Path(arguments[0])).uplink


def test_a_scenario_with_an_uplink_survives_its_text() -> None:
    scenario = load_scenario(SHIPPED)
    assert parse_scenario(format_scenario(scenario), "x") == scenario


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A file as large as the bundled model."""
    file: Path = tmp_path_factory.mktemp("weights") / "weights"
    with file.open("wb") as sparse:
        sparse.truncate(98_362_432)
    return file


def transferred(scenario: Scenario, file: Path) -> TransferPlan:
    plan = api.plan(scenario)
    routes = plan_routes(plan.link_plan, plan.scenario.routing)
    return plan_transfer(plan.scenario, plan.link_plan, PathFinder(plan.link_plan, routes), file)


@pytest.fixture(scope="module")
def transfer(weights: Path) -> TransferPlan:
    """The plan of the shipped scenario."""
    return transferred(load_scenario(SHIPPED), weights)


def from_ground(transfer: TransferPlan) -> str:
    """The satellite that gets the file from the stations."""
    (name,) = (name for name, receiver in transfer.receivers.items() if receiver.kind == "uplink")
    return name


def test_the_shipped_sky_loses_a_contact_in_the_middle_of_the_upload(transfer: TransferPlan) -> None:
    before, after = transfer.receivers[from_ground(transfer)].passes
    assert before == StationPass("gs-chengdu", 5 * NS_PER_S, 60 * NS_PER_S)
    assert (after.start_ns, after.end_ns) == (78 * NS_PER_S, 240 * NS_PER_S)
    upload_s = 98_362_432 * 8 / 8e6
    assert transfer.planned_end_ns == pytest.approx((5 + upload_s + 18) * NS_PER_S, rel=1e-6)


def test_the_first_satellite_is_the_one_overhead_and_its_neighbours_follow(transfer: TransferPlan) -> None:
    assert from_ground(transfer) == "p00s02"
    sources = {name: receiver.sources for name, receiver in transfer.receivers.items()}
    assert set(sources["p00s01"]) == {"p00s02", "p00s00"}
    assert set(sources["p00s05"]) == {"p00s04"}
    assert {receiver.kind for name, receiver in transfer.receivers.items() if name != from_ground(transfer)} == {
        "swarm"
    }


def test_a_transfer_is_planned_with_what_is_known_when_it_begins(transfer: TransferPlan, weights: Path) -> None:
    """Of a satellite that will die nobody knows; its stations send as long as they do not know."""

    def dying(at: str, known: str) -> TransferPlan:
        death = table("[fault]", name="death", satellites=["p00s02"], at=at, effect="power-off", known=known)
        return transferred(parse_scenario(SHIPPED.read_text() + death, "x"), weights)

    later = dying("30 s", "after 4 s")
    assert from_ground(later) == from_ground(transfer)
    assert later.planned_end_ns == transfer.planned_end_ns
    assert {name: receiver.sources for name, receiver in later.receivers.items()} == {
        name: receiver.sources for name, receiver in transfer.receivers.items()
    }
    assert later.receivers["p00s02"].passes == (StationPass("gs-chengdu", 5 * NS_PER_S, 34 * NS_PER_S),)
    assert from_ground(dying("1 s", "at once")) != "p00s02"
    assert from_ground(dying("1 s", "after 10 s")) == "p00s02"
    assert dying("1 s", "never") == transfer


def test_a_transfer_plan_survives_json(transfer: TransferPlan) -> None:
    assert TransferPlan.from_json(transfer.to_json()) == transfer
