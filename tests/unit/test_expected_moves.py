"""What of conversations' contexts is expected to move: by satellites that are known, or by changes of the nearest."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from isl_emu.live.room import exact_time_warnings
from isl_emu.parts.part import bulk_packet_byte
from isl_emu.parts.questions.expected_moves import ANSWER_S, expected_moves, sent_byte_per_token
from isl_emu.parts.questions.part import QuestionsPart
from isl_emu.parts.questions.requests import PlannedRequest
from isl_emu.scenario.models import model_named
from isl_emu.scenario.parse import parse_scenario
from tests.scenarios import quiet_ring, table

KV_BYTE = model_named("qwen3-8b").kv_byte_per_token
MODELLED = table("compute", server="modelled", board="jetson-agx-orin", model="qwen3-8b", context_tokens=4096)
TURN = "x" * 459  # 100 tokens


def turns(satellites: list[str | None], think_ns: int = 0) -> list[PlannedRequest]:
    """A conversation, turn by turn with who is asked; each turn but the first begins with a reply of 100 tokens."""
    return [
        PlannedRequest(
            id=n,
            t_due_ns=n,
            station="gs",
            satellite=satellite,
            question=TURN,
            system="",
            max_tokens=9,
            temperature=0.0,
            seed=1,
            after=n - 1 if n else None,
            conversation=0,
            think_ns=think_ns,
            before=(("assistant", TURN),) if n else (),
        )
        for n, satellite in enumerate(satellites)
    ]


def test_what_the_satellite_before_has_read_moves_to_another_one():
    assert expected_moves(turns(["a", "a", "b", "a"]), {}, 1) == {("a", "b"): 300, ("b", "a"): 500}
    assert expected_moves(turns(["a", "a"]), {}, 1) == {}


def test_other_conversations_of_a_user_move_nothing():
    first, second = turns(["a", "b"])
    second = PlannedRequest(**{**second.__dict__, "conversation": 1})
    assert expected_moves([first, second], {}, 1) == {}


def test_of_whom_nobody_knows_it_moves_as_often_as_the_nearest_changes():
    """Ten changes in 100 s, and pauses of 2 s beside the answer: with ANSWER_S = 3 half of the contexts move."""
    changes = {"gs": Counter({("a", "b"): 6, ("b", "c"): 4})}
    pause_ns = 2_000_000_000
    share = 10 * (2.0 + ANSWER_S) / 100
    found = expected_moves(turns([None, None, None], pause_ns), changes, 100_000_000_000)
    assert found == pytest.approx({("a", "b"): 0.6 * share * 400, ("b", "c"): 0.4 * share * 400})
    assert expected_moves(turns([None, None], pause_ns), {"gs": Counter()}, 1) == {}


def conversing(folder, **questions):
    """Ten turns of 100 tokens and replies of as many, over and over, on a ring of modelled servers."""
    turn = [{"role": "user", "content": TURN}, {"role": "assistant", "content": TURN}]
    (folder / "talk.json").write_text(json.dumps([{"messages": turn * 10}]))
    keys = {"conversations": str(folder / "talk.json"), "context": "move", "max_answer_tokens": 10, **questions}
    return parse_scenario(quiet_ring() + MODELLED + table("questions", **keys), "the test")


def test_contexts_that_move_are_told_of_where_they_make_exact_time_slow(tmp_path):
    scenario = conversing(tmp_path, mean_interval="10 ms", target="uniform", max_answer_tokens=1)
    of_moves = next(one for one in QuestionsPart().traffic(scenario) if one.what == "contexts that move")
    count = len(scenario.serving_satellites)
    arrived = scenario.time.duration_ns / 1e7
    contexts = sum(100 + 200 * earlier for earlier in range(9))
    assert of_moves.byte == pytest.approx(arrived * contexts * (1 - 1 / count) * KV_BYTE * scenario.rate_scale)
    (warning,) = exact_time_warnings(scenario)
    assert "contexts that move and all else send about" in warning and "state a smaller rate_scale" in warning
    fixed = conversing(tmp_path, mean_interval="1 s", target="p00s00")
    assert {one.what: one.byte for one in QuestionsPart().traffic(fixed)}["contexts that move"] == 0.0
    again = conversing(tmp_path, mean_interval="1 s", target="uniform", context="recompute")
    assert [one.what for one in QuestionsPart().traffic(again)] == ["questions"]


def test_a_token_that_moves_has_the_size_of_its_keys_and_values(tmp_path):
    scenario = conversing(tmp_path, mean_interval="1 s")
    assert sent_byte_per_token(scenario) == KV_BYTE * scenario.rate_scale
    assert bulk_packet_byte(scenario) >= 1500
