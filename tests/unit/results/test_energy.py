"""A run's energy in its results: totals that add up, the section of the summary, and a verdict that allows for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isl_emu.files import write_json
from isl_emu.parts.power.part import AllowedPace
from isl_emu.parts.power.results import ENERGY, energy_totals
from isl_emu.results.conclude import conclude
from isl_emu.results.provenance import provenance
from isl_emu.scenario.boards import BOARDS
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.parse import parse_scenario

S = 1_000_000_000
POWER = """
[[power]]
satellites = ["p00s01", "p00s02"]
bus = "60 W"
panel = { area = "1 m2" }
battery = { capacity = "10 Wh" }
radiator = { area = "1 m2", heat_capacity = "20 kJ/K" }
"""
BOARD = BOARDS["jetson-agx-orin"]


def row(satellite: str, second: int, **changes: Any) -> dict[str, Any]:
    plain = {
        "t_ns": second * S, "satellite": satellite, "interval_ns": S, "sunlit_ratio": 1.0, "solar_w": 300.0,
        "board_w": 50.0, "battery_w": 100.0, "unmet_w": 0.0, "busy_ratio": 0.5, "pace_ratio": 1.0,
        "limited_ratio": 0.0, "off_ratio": 0.0, "charge_ratio": 0.9, "temperature_k": 290.0, "mode": "nominal",
    }  # fmt: skip
    return {**plain, **changes}


DARK = {
    "sunlit_ratio": 0.0, "solar_w": 0.0, "board_w": 10.0, "busy_ratio": 0.0, "pace_ratio": 0.5, "limited_ratio": 1.0,
    "charge_ratio": 0.4, "temperature_k": 280.0,
}  # fmt: skip


def rows() -> Iterator[dict[str, Any]]:
    for second in (1, 2, 3, 4):
        yield row("p00s01", second)
        yield row("p00s02", second, **(DARK if second > 2 else {}))


def with_power(run: Any, power: str) -> Scenario:
    text = run.plan.scenario_toml.replace("[compute]", '[compute]\nboard = "jetson-agx-orin"')
    return parse_scenario(text + power, "powered")


@pytest.fixture
def powered(good_run: Any) -> Any:
    good_run.write("energy.jsonl", rows())
    scenario = with_power(good_run, POWER)
    write_json(
        good_run.folder.provenance,
        provenance(scenario_name="m", seed=1, rate_scale=1.0, plan_digest="0", place="guest", reason="r", models=[]),
    )
    return lambda: (conclude(good_run.folder, scenario, good_run.plan, good_run.routes), good_run.folder)


def test_totals_are_sums_over_time_and_satellites(powered):
    _, folder = powered()
    (one,) = json.loads((folder.path / "energy.json").read_text()).values()
    assert (one["satellites"], one["computers"], one["duration_s"]) == (2, 2, 4.0)
    assert one["eclipse_ratio"] == one["limited_ratio"] == pytest.approx(2 / 8)
    assert (one["charge_min_ratio"], one["temperature_max_k"]) == (0.4, 290.0)
    assert one["board_j"] == pytest.approx(6 * 50.0 + 2 * 10.0)
    assert one["available_flop_s"] == 2 * BOARD.fp16_flop_s
    assert one["allowed_flop_s"] == pytest.approx((1.0 + 0.75) * BOARD.fp16_flop_s)
    assert one["used_flop_s"] == pytest.approx((0.5 + 0.25) * BOARD.fp16_flop_s)
    assert (one["asked"], one["in_time"], one["answer_tokens"]) == (1, 1, 8)
    assert one["joule_per_token"] == pytest.approx(320.0 / 8)
    assert one["flop_per_joule"] == pytest.approx(0.75 * BOARD.fp16_flop_s * 4 / 320.0)
    assert one["served_flop_s"] == pytest.approx(2 * 134_515_008 * 20 / 4, rel=0.01)


def test_the_summary_tells_them(powered):
    _, folder = powered()
    text = folder.summary.read_text()
    assert "ENERGY AND HEAT" in text
    (line,) = [line.split() for line in text.splitlines() if line.startswith("  all with power")]
    assert line[3:] == ["2", "25%", "40%", "17", "degC", "25%", "0%", "80.0", "W", "1", "of", "1", "40.0", "J"]
    assert "compute: available 85.0 TFLOPS · allowed 74.4 TFLOPS · used 31.9 TFLOPS · served 1." in text


def test_a_run_without_power_has_neither(good_run):
    conclude(good_run.folder, good_run.scenario, good_run.plan, good_run.routes)
    assert not (good_run.folder.path / "energy.json").exists()
    assert not good_run.folder.table("energy").exists()
    assert "ENERGY" not in good_run.folder.summary.read_text()


def test_parts_are_shells_and_in_them_groups(good_run):
    scenario = with_power(good_run, POWER + POWER.replace('["p00s01", "p00s02"]', '["p00s00"]'))
    table = pa.Table.from_pylist([row(f"p00s0{n}", 1) for n in range(3)], schema=ENERGY)
    totals = energy_totals(table, [], scenario)
    assert {label: one.satellites for label, one in totals.items()} == {
        "line, power[0]": 2,
        "line, power[1]": 1,
        "all with power": 3,
    }
    assert totals["all with power"].joule_per_token is None


@pytest.mark.parametrize(("pace", "saturated"), [(1.0, 1.0), (0.05, 0.0)])
def test_a_computer_that_energy_slows_wants_less_of_the_machine(powered, good_run, pace, saturated):
    """Two satellites that answer all the time want 2 CPUs, more than there are, unless one of them may not."""
    spans = {"t_send_ns": 0, "t_first_ns": 0, "t_finish_ns": 4 * S, "e2e_ns": 4 * S, "server_prompt_ns": 0}
    names = enumerate(("p00s01", "p00s02"))
    asked = [good_run.request(n, satellite=name, server_predict_ns=4 * S, **spans) for n, name in names]
    good_run.write("requests.jsonl", asked)
    good_run.write("load.jsonl", [good_run.load(second, busy_ratio=1.0) for second in (1, 2, 3, 4)])
    good_run.write("energy.jsonl", [row("p00s02", second, pace_ratio=pace) for second in (1, 2, 3, 4)])
    fidelity, _ = powered()
    assert fidelity.cpu.saturated_ratio == saturated


def test_the_allowed_pace_is_a_mean_over_time_and_1_where_nothing_is_known(tmp_path):
    table = pa.Table.from_pylist([row("a", 1, pace_ratio=0.0), row("a", 2, pace_ratio=0.5)], schema=ENERGY)
    pq.write_table(table, tmp_path / "e.parquet")
    pace = AllowedPace(pq.read_table(tmp_path / "e.parquet"))
    assert pace.mean_ratio("a", 0, 2 * S) == pytest.approx(0.25)
    assert pace.mean_ratio("a", S // 2, 3 * S // 2) == pytest.approx(0.25)
    assert pace.mean_ratio("a", S, 3 * S) == pytest.approx(0.75)
    assert pace.mean_ratio("b", 0, S) == pace.mean_ratio("a", S, S) == 1.0
    assert AllowedPace(None).mean_ratio("a", 0, S) == 1.0
