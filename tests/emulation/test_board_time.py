"""Real servers in exact time: their words are real, their time is the named board's, whatever this machine is."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path

import pytest

from isl_emu.machine.uml import find_uml
from isl_emu.parts.serving.board_pace import group_roofline
from isl_emu.parts.split.shares import PIPELINE_MODULES
from isl_emu.scenario.boards import BOARDS
from isl_emu.scenario.parse import load_scenario, parse_scenario
from isl_emu.units import NS_PER_MS, NS_PER_S, NS_PER_US
from tests.runs import ROOT, finished, isl_emu, needs_maps, rows
from tests.scenarios import head, shell, shipped, table

pytestmark = [
    pytest.mark.emulation,
    pytest.mark.skipif(not find_uml().exact, reason="the kernel that has exact time is not built"),
]

MISSING = [name for name in PIPELINE_MODULES if find_spec(name) is None]
SHORT = shipped(
    "three-body",
    {
        'duration = "120 s"': 'duration = "24 s"',
        'step = "1 s"': 'step = "24 s"',  # and the sky stands still: a delay is what it was when the question was sent
        'mean_interval = "9 s"': 'mean_interval = "4 s"',
        'stop_after = "95 s"': 'stop_after = "20 s"',
        "max_answer_tokens = 48": "max_answer_tokens = 12",
        'satellites = "all"': 'satellites = ["p00s00", "p00s04", "p00s08"]',
    },
)
TABLES = ("requests", "attempts", "servers", "probes", "instants", "changes")
BYTES_NS = 10 * NS_PER_US  # of the handshake, a question and a token on up to seven links of 10 and 100 Gbit/s
TOKEN_NS = 2 * NS_PER_US  # a token's bytes more or less than the first one's


def _assert_same(folder: Path, *tables: str) -> None:
    for name in tables:
        first, second = ((folder / run / f"{name}.parquet").read_bytes() for run in ("first", "second"))
        assert first == second, f"{name}: two runs differ"


def test_answers_take_the_boards_time_and_the_networks_and_nothing_else(tmp_path):
    said = finished(SHORT, tmp_path / "first")
    pace = parse_scenario(SHORT, "short").compute[0].roofline
    requests = rows(tmp_path / "first", "requests")
    assert len(requests) >= 3 and {row["outcome"] for row in requests} == {"completed"}
    assert {row["paced_as"] for row in requests} == {"qwen3-8b@three-body"}
    for row in requests:
        prompt_ns = round(pace.prompt_ns(row["prompt_tokens"]))
        steps_ns = [round(pace.step_ns(row["prompt_tokens"] + n)) for n in range(row["answer_tokens"])]
        assert row["server_prompt_ns"] == pytest.approx(prompt_ns, abs=NS_PER_US)  # llama.cpp's form has microseconds
        assert row["server_predict_ns"] == pytest.approx(sum(steps_ns), abs=NS_PER_US)
        handshake_and_question_ns = 2 * row["planned_rtt_at_send_ns"]
        assert 0 <= row["ttft_ns"] - handshake_and_question_ns - prompt_ns - steps_ns[0] < BYTES_NS
        wanted_ns = list(accumulate(steps_ns[1 : len(row["itl_ns"]) + 1]))
        found_ns = list(accumulate(row["itl_ns"]))
        assert found_ns == pytest.approx(wanted_ns, abs=TOKEN_NS)
        rest_ns = sum(steps_ns[len(found_ns) + 1 :])  # a last token without a text
        assert row["e2e_ns"] - row["ttft_ns"] - found_ns[-1] == pytest.approx(rest_ns, abs=TOKEN_NS)
    (server,) = rows(tmp_path / "first", "servers")
    assert (server["server"], server["paced_as"]) == ("real", "qwen3-8b@three-body")
    assert "as qwen3-8b@three-body" in said and "in exact time" in said

    finished(SHORT, tmp_path / "second")
    _assert_same(tmp_path, *TABLES)


def test_without_a_board_exact_time_is_refused_with_what_to_add(tmp_path):
    scenario = tmp_path / "scenario.toml"
    scenario.write_text(SHORT.replace('board = "three-body"', "#").replace("pace_model", "# pace_model"))
    done = isl_emu("run", scenario, "--clock", "exact", "--out", tmp_path / "out")
    assert done.returncode != 0
    assert "add board, and pace_model" in done.stdout + done.stderr


def test_the_shipped_scenario_names_whose_time_it_is():
    (group,) = load_scenario(ROOT / "topologies" / "three-body.toml").compute
    assert (group.server, group.board, group.pace_model) == ("real", "three-body", "qwen3-8b")


def test_a_conversation_moves_in_the_boards_time_and_its_caches(tmp_path):
    """Prompts are read at the board's pace; the cache is real bytes over real TCP, at the laser's rate."""
    changes = {"tokens = [100, 250, 500, 1000]": "tokens = [60, 120]", 'duration = "60 s"': 'duration = "24 s"'}
    changes |= {'interval = "12 s"': 'interval = "10 s"', 'step = "1 s"': 'step = "24 s"'}
    changes |= {"seed = 1": "seed = 1\nrate_scale = 0.001"}  # a laser that is slower than slow start
    text = shipped("kv-handover", changes)
    for out in ("first", "second"):
        finished(text, tmp_path / out, "--clock", "exact")
    (group,) = parse_scenario(text, "kv").compute
    pace, moved = group_roofline(group), rows(tmp_path / "first", "kv_handovers")
    assert [row["tokens"] for row in moved] == [60, 120]
    (way_ns,) = {row["delay_ns"] for row in rows(tmp_path / "first", "probes")}
    for row in moved:
        assert row["outcome"] == "completed" and row["same_answer"]
        assert row["prefill_ns"] == pytest.approx(pace.prompt_ns(row["tokens"]), abs=NS_PER_US)
        assert row["reprefill_ns"] == pytest.approx(pace.prompt_ns(row["tokens"]), abs=NS_PER_US)
        left = row["tokens"] - row["cached_tokens"]
        assert 1 <= left < row["tokens"]
        assert row["resume_ns"] == pytest.approx(pace.prompt_ns(left), abs=NS_PER_US)
        assert row["received_byte"] == row["kv_byte"] > row["tokens"] * 10_000
        on_the_laser_ns = row["kv_byte"] * 8 * 10  # at 100 Mbit/s
        rounds_ns = (2 + 2 + 2 * 5) * way_ns  # handshake, question and answer, five of slow start
        assert on_the_laser_ns < row["transfer_ns"] < 1.06 * on_the_laser_ns + rounds_ns  # 4 % are headers
    _assert_same(tmp_path, "kv_handovers")


@pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} (extra pipeline) is not installed")
@needs_maps
def test_stages_of_a_split_model_take_their_share_of_the_boards_time(tmp_path):
    changes = {
        'duration = "60 s"': 'duration = "20 s"',
        'step = "1 s"': 'step = "20 s"',
        "[[split]]": "[[split]]\nlayers = [14, 10, 6]",
        'mean_interval = "10 s"\nstop_after = "40 s"': 'arrivals = "offline"\ncount = 1\nstations = ["gs-miyun"]',
    }
    text = shipped("split-model", changes)
    finished(text, tmp_path / "first", "--clock", "exact")
    (split,) = parse_scenario(text, "split").split
    passes = rows(tmp_path / "first", "split")
    assert [row["kind"] for row in passes] == ["prompt"] + ["token"] * (len(passes) - 1) and len(passes) > 5
    cached = 0
    for row in passes:
        whole_ns = split.roofline.step_ns(cached) if cached else split.roofline.prompt_ns(row["tokens"])
        assert row["compute_ns"] == pytest.approx([whole_ns * layers / 30 for layers in split.layers], abs=10)
        cached += row["tokens"]
    for row in passes[1:]:  # a token's bytes on each hop are 190 us at 100 Mbit/s
        late_ns = [hop - planned for hop, planned in zip(row["hop_ns"], row["planned_hop_ns"], strict=True)]
        assert all(0 < late < NS_PER_MS for late in late_ns)


@needs_maps
def test_real_gradients_take_the_boards_time_and_their_sums_the_networks(tmp_path):
    pytest.importorskip("torch", reason="real training needs PyTorch, the extra train")
    text = head("ring", duration="6 s", step="6 s") + shell(12, lasers={"topology": "ring", "rate": "100 Mbit/s"})
    text += table("[training]", satellites=["p00s00", "p00s01", "p00s02"], steps=6)
    text += table("training.real", layers=1, board="raspberry-pi-5", utilisation=0.25)
    for out in ("first", "second"):
        finished(text, tmp_path / out, "--clock", "exact")
    steps = rows(tmp_path / "first", "training")
    assert [row["outcome"] for row in steps] == ["completed"] * 6
    parameters = {row["theory_byte"] for row in steps}
    (sent_byte,) = parameters  # of a ring of three: 4/3 of 4 bytes a parameter
    flop = 6 * round(sent_byte * 3 / 4 / 4) * 8 * 48  # a parameter and a character, of a batch and a context by default
    wanted_ns = flop / (0.25 * BOARDS["raspberry-pi-5"].fp16_flop_s) * NS_PER_S
    for row in steps:
        assert row["compute_ns"] == pytest.approx([wanted_ns] * 3, rel=1e-3)  # parts of a ring are not all alike
        assert row["collective_ns"] > row["predicted_ns"]
    assert steps[-1]["loss"] < steps[0]["loss"]
    _assert_same(tmp_path, "training")
