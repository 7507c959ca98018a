"""Which parts of a run need real time, and why: in exact time computing takes none. And what takes the wall's."""

from __future__ import annotations

import re

import pytest

import isl_emu
from isl_emu.experiment import check_scenario
from isl_emu.live.execute import slowness
from isl_emu.live.room import BULK_BYTE_S, PACKET_S, exact_time_warnings
from isl_emu.parts.registry import PARTS
from isl_emu.scenario.parse import load_scenario, parse_scenario
from tests.scenarios import TOPOLOGIES, head, quiet_ring, shell, table

PROGRAM = {"name": "one", "node": "p00s00", "command": ["true"]}
MODELLED = table(
    "compute", satellites=["p00s01"], server="modelled", board="inference-2035", model="qwen3-8b", context_tokens=4096
)

MOVED = table("[kv_handover]", source="p00s01", target="p00s02", tokens=[100])
ON_A_BOARD = table("compute", satellites=["p00s01", "p00s02"], board="three-body")
POWER = table("[power]", board="raspberry-pi-5", bus="10 W", panel={"area": "1 m2"}, battery={"capacity": "9 Wh"},
              radiator={"area": "1 m2", "heat_capacity": "20 kJ/K"})  # fmt: skip
STATED = table("[program]", **PROGRAM, cpus=0.5, cpu_time="stated") + POWER
SPLIT = table("[split]", satellites=["p00s01", "p00s02"])
TRAINED = table("[training]") + table("training.real", compute_time="1 s")


def _reasons(text: str) -> list[str]:
    scenario = parse_scenario(quiet_ring() + text, "the test")
    return [reason for part in PARTS for reason in part.real_time(scenario)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        MODELLED,
        table("[program]", **PROGRAM),
        ON_A_BOARD + MOVED,
        STATED,
        SPLIT + 'board = "three-body"\n',
        TRAINED,
    ],
)
def test_what_takes_no_time_of_the_machine_is_exact(text):
    assert _reasons(text) == []


@pytest.mark.parametrize("path", sorted(TOPOLOGIES.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_scenarios_are_exact(path):
    scenario = load_scenario(path)
    assert [reason for part in PARTS for reason in part.real_time(scenario)] == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (table("compute", satellites=["p00s01"]), 'compute.server is "real"'),
        (ON_A_BOARD + 'pace_model = "qwen3-8b"\n' + MOVED, "whose cache has another size"),
        (table("[program]", **PROGRAM, cpus=0.5), "one is given a share of a core"),
        (table("[program]", **PROGRAM) + POWER, "power counts what one computes"),
        (table("[training]") + "[training.real]\n", "add compute_time, or board"),
        (SPLIT, "add board, and pace_model"),
        (SPLIT + 'engine = "llama-rpc"\nboard = "three-body"\n', 'use "pipeline"'),
    ],
)
def test_what_computes_needs_real_time(text, reason):
    found, *_ = _reasons(text)
    assert reason in found


@pytest.mark.parametrize("path", sorted(TOPOLOGIES.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_scenarios_fit_into_exact_time(path):
    assert exact_time_warnings(load_scenario(path)) == ()


def test_only_scenarios_with_bulk_of_their_own_scale_their_rates():
    """A file, images and gradients that are themselves scaled: else rates are the physical ones."""
    scales = {path.stem: load_scenario(path).rate_scale for path in TOPOLOGIES.glob("*.toml")}
    assert {name for name, scale in scales.items() if scale != 1.0} == {"earth-observation", "qwen3-uplink", "training"}


def _gradients(**top):
    lasers = {"topology": "ring", "rate": "100 Gbit/s"}
    text = head("heavy", duration="60 s", **top) + shell(12, lasers=lasers)
    return parse_scenario(
        text + table("[training]") + table("training.modelled", gradient="1 GB", compute_time="1 s"), ""
    )


def test_what_does_not_fit_into_exact_time_is_told_with_packets_and_the_walls_time(tmp_path):
    """60 s of sums of 1 GB by twelve satellites, each of which sends 22/12 of it in 22/12 x 8/100 s."""
    (warning,) = exact_time_warnings(_gradients())
    byte = 60 / (1 + 22 / 12 * 0.08) * 22e9
    packets = byte / 65536
    hours = (packets * PACKET_S + byte * BULK_BYTE_S) / 3600
    assert warning.startswith("rate_scale: is 1, but then training training and all else send about")
    said = re.search(r"about ([\d,]+) packets \(([\d,]+) per emulated second\).* about ([\d.]+) h of the wall", warning)
    found = [float(word.replace(",", "")) for word in said.groups()]
    assert found == pytest.approx([packets, packets / 60, hours], rel=0.02)
    assert "state a smaller rate_scale, with which it sends less, or shorten time.duration" in warning
    assert exact_time_warnings(_gradients(rate_scale=0.0001)) == ()


@pytest.mark.parametrize(
    ("text", "most"),
    [
        (table("probes", pairs=[["p00s00", "p00s01"]], interval="10 us"), "probes"),
        (
            MODELLED
            + table("questions", mean_interval="1 ms", target="uniform", max_answer_tokens=16, prompts=["Why?"]),
            "questions",
        ),
        (
            MODELLED
            + table("questions", arrivals="single-stream", count=50_000, max_answer_tokens=32, prompts=["Why?"]),
            "questions",
        ),
    ],
)
def test_who_sends_most_is_named(text, most):
    (warning,) = exact_time_warnings(parse_scenario(quiet_ring() + text, "the test"))
    assert f"{most} and all else send about" in warning and "; let it send less, or" in warning


def test_a_trace_counts_with_its_own_answers(tmp_path):
    trace = tmp_path / "trace.jsonl"
    row = '{{"timestamp": {ms}, "input_length": 10, "output_length": 2000}}'
    trace.write_text("\n".join(row.format(ms=ms) for ms in range(0, 20_000, 20)))
    questions = table("questions", trace={"file": str(trace)}, max_answer_tokens=16)
    (warning,) = exact_time_warnings(parse_scenario(quiet_ring() + MODELLED + questions, "the test"))
    assert "about 4,006,000 packets (133,533 per emulated second)" in warning


def test_a_plan_and_a_scenario_warn_unless_time_is_real():
    scenario = _gradients()
    real = scenario.model_copy(update={"time": scenario.time.model_copy(update={"clock": "real"})})
    for one, warned in ((scenario, True), (real, False)):
        assert any("rate_scale" in text for text in check_scenario(one)) == warned
        assert any("rate_scale" in text for text in isl_emu.plan(one).warnings) == warned


def test_a_run_that_takes_minutes_more_is_told_of_while_it_goes_on():
    second = 10**9
    assert slowness(60 * second, 120 * second, 60.0, 5000.0) is None  # a minute left
    assert slowness(second, 120 * second, 15.0, 5000.0) is None  # too early to tell
    said = slowness(2 * second, 122 * second, 30.0, 52_000.0)
    assert "2.0 s in 30 s, so the rest takes about 30 min; an emulated second has 52,000 packets" in said
