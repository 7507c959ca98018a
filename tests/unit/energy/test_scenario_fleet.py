"""From `[[power]]` and `[compute]` to a fleet, and what does not fit together."""

from __future__ import annotations

import numpy as np
import pytest

from isl_emu.energy.fleet import scenario_fleet
from isl_emu.errors import ScenarioError
from isl_emu.scenario.boards import BOARDS
from isl_emu.scenario.parse import format_scenario, parse_scenario
from tests.scenarios import head, shell

SKY = head(duration="10 s") + shell(4, 2, lasers="none")
COMPUTE = """
[compute]
satellites = ["p00*"]
board = "jetson-agx-orin"
"""


def group(satellites: str, bus_w: float = 60.0, battery: str = "") -> str:
    return f"""
    [[power]]
    satellites = {satellites}
    bus = "{bus_w} W"
    panel = {{ area = "2 m2" }}
    battery = {{ capacity = "100 Wh", start_charge = 0.9{battery} }}
    radiator = {{ area = "1 m2", heat_capacity = "20 kJ/K" }}
    """


def parse(text: str):
    return parse_scenario(SKY + text, "test")


def test_every_group_gives_its_satellites_their_figures():
    slow = group('["p00*"]', battery=', max_charge = "9 W"')
    fleet = scenario_fleet(parse(COMPUTE + group('["p01s01"]', 80.0) + slow))
    assert fleet.names == ("p00s00", "p00s01", "p01s01")
    assert fleet.chosen.tolist() == [0, 1, 3]
    assert fleet.bus_w.tolist() == [60.0, 60.0, 80.0]
    assert fleet.batteries.max_charge_w.tolist() == [9.0, 9.0, np.inf]
    board = BOARDS["jetson-agx-orin"]
    assert fleet.busy_w.tolist() == [board.busy_w, board.busy_w, 0.0]
    assert fleet.idle_w.tolist() == [board.idle_w, board.idle_w, 0.0]
    assert fleet.start_energy_j.tolist() == [pytest.approx(0.9 * 360_000.0)] * 3
    assert fleet.limits.reserve_charge.tolist() == [pytest.approx(0.7)] * 3


def test_a_scenario_with_power_survives_being_written_and_read():
    scenario = parse(COMPUTE + group('"all"'))
    assert parse_scenario(format_scenario(scenario), "again") == scenario


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (group('["p00*"]') + group('["p00s01"]'), "power[1].satellites has 'p00s01', but power[0].satellites has it"),
        (group('["p09*"]'), "power[0].satellites has 'p09*', but it matches no satellite"),
        (
            '[compute]\nserver = "external"\nurl = "http://gpu.example"\nboard = "h100-pcie"' + group('"all"'),
            "compute[0].url is set, but power[0] has 'p00s00', and a server elsewhere cannot be slowed",
        ),
        (
            '[[training]]\nmodelled = { compute_time = "1 s", gradient = "1 MB" }' + group('"all"'),
            "training[0].board is missing, but power[0] has 'p00s00'",
        ),
        ("[compute]" + group('"all"'), "compute.board is missing, but power[0] has 'p00s00'"),
        (
            '[[program]]\nname = "ping"\nnode = "p00s01"\ncommand = ["ping", "p00s00"]\n' + group('"all"'),
            "power[0].board is missing, but it has 'p00s01', which runs programs or workloads",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(text, complaint):
    with pytest.raises(ScenarioError) as caught:
        parse(text)
    assert complaint in str(caught.value)


def test_a_group_names_the_board_of_satellites_that_compute_otherwise():
    named = group('["p01*"]').replace("bus =", 'board = "h100-pcie"\nbus =')
    fleet = scenario_fleet(parse(COMPUTE + group('["p00*"]') + named))
    assert fleet.busy_w.tolist() == [BOARDS["jetson-agx-orin"].busy_w] * 2 + [BOARDS["h100-pcie"].busy_w] * 2


def test_a_computer_without_power_needs_no_board():
    assert parse('[compute]\nsatellites = ["p00s00"]' + group('["p01*"]')).power[0].bus_w == 60.0
