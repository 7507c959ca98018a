"""A full CPU of which split models and moving conversations have their share is no distortion."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from isl_emu.results.conclude import write_tables
from isl_emu.results.fidelity import Fidelity, assess
from isl_emu.scenario.parse import parse_scenario
from tests.unit.results.conftest import SCENARIO

S = 1_000_000_000
MS = 1_000_000
SPLIT = '[[split]]\nsatellites = ["p00s0[012]"]\n'
MOVE = '[compute]\ncpus = 0.8\n[[kv_handover]]\nsource = "p00s00"\ntarget = "p00s01"\ntokens = [100]\n'


def judged(run: Any, table: str, slowdown: float = 1.0) -> Fidelity:
    """The verdict on a good run with another table in place of its servers."""
    text = SCENARIO.replace("[compute]\ncpus = 1.0\n", table).replace("[time]\n", f"[time]\nslowdown = {slowdown}\n")
    run = replace(run, scenario=parse_scenario(text, "computing"))
    write_tables(run.finished())
    return assess(run.finished())


def test_a_split_model_may_fill_the_only_cpu(good_run: Any) -> None:
    answer = {"satellite": "p00s00", "t_finish_ns": 2 * S, "server_predict_ns": 1000 * MS}
    good_run.write("requests.jsonl", [good_run.request(**answer)])
    good_run.write("load.jsonl", [good_run.load(1), good_run.load(2, 1.0), good_run.load(3), good_run.load(4)])
    fidelity = judged(good_run, SPLIT)
    assert (fidelity.valid, fidelity.cpu.full_ratio, fidelity.cpu.saturated_ratio) == (True, 0.25, 0.0)


def handover(*computing_ns: int, **changes: Any) -> dict[str, Any]:
    row = {"source": "p00s00", "target": "p00s01", "t_due_ns": 0, "t_ns": 0, "tokens": 100, "outcome": "completed"}
    return {**row, "computing_ns": computing_ns, **changes}


@pytest.mark.parametrize("outcome", ["completed", "failed"])
def test_a_conversation_that_moves_may_fill_the_only_cpu(good_run: Any, outcome: str) -> None:
    row = handover(0, 1500 * MS, 2000 * MS, 2010 * MS, 2010 * MS, 3900 * MS, outcome=outcome)
    good_run.write("kv_handovers.jsonl", [row])
    good_run.write("requests.jsonl", [])
    good_run.write("load.jsonl", [good_run.load(second, 1.0) for second in (1, 2, 3, 4)])
    fidelity = judged(good_run, MOVE)
    assert (fidelity.valid, fidelity.cpu.full_ratio, fidelity.cpu.saturated_ratio) == (True, 1.0, 0.0)


def test_what_is_full_while_none_computes_is_not_accounted_for(good_run: Any) -> None:
    good_run.write("kv_handovers.jsonl", [handover(0, 1000 * MS)])
    good_run.write("requests.jsonl", [])
    good_run.write("load.jsonl", [good_run.load(second, 1.0) for second in (1, 2, 3, 4)])
    assert judged(good_run, MOVE).cpu.saturated_ratio == 0.75


def test_two_conversations_at_once_want_more_than_the_only_cpu(good_run: Any) -> None:
    good_run.write("kv_handovers.jsonl", [handover(0, 4 * S), handover(0, 4 * S, source="p00s02")])
    good_run.write("requests.jsonl", [])
    good_run.write("load.jsonl", [good_run.load(second, 1.0) for second in (1, 2, 3, 4)])
    more = MOVE.replace("[[kv", '[[kv_handover]]\nsource = "p00s02"\ntarget = "p00s01"\ntokens = [100]\n[[kv')
    assert judged(good_run, more).cpu.saturated_ratio == 1.0
    assert judged(good_run, more, slowdown=2.0).cpu.saturated_ratio == 0.0  # each has half the CPU, for longer
