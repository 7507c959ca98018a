"""The table and the section of split models: what was measured beside what the plan predicts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow.parquet as pq
import pytest

from isl_emu.parts.split.part import SplitPart
from isl_emu.parts.split.results import split_section
from isl_emu.results.conclude import write_tables
from isl_emu.scenario.parse import parse_scenario
from tests.unit.results.conftest import SCENARIO

MS = 1_000_000
T0_NS = 50_000 * MS  # instant 0 on the run's clock
LASER_NS, RATE_BIT_S = 5 * MS, 50e6  # of the miniature run's lasers, as shaped
MEMBERS = ["p00s00", "p00s01", "p00s02"]


def split_run(bare_run: Any, engine: str, more: str = "") -> Any:
    """The miniature run with a model split over its three satellites."""
    split = f'[[split]]\nsatellites = ["p00s0[012]"]\nengine = "{engine}"\n{more}'
    scenario = parse_scenario(SCENARIO.replace("[compute]\ncpus = 1.0\n", split), "split")
    bare_run.write("execution.json", [{"error": None, "t0_monotonic_ns": T0_NS}])
    return replace(bare_run, scenario=scenario)


def written(run: Any) -> list[dict[str, Any]]:
    write_tables(run.finished())
    return pq.read_table(run.folder.table("split")).to_pylist()


def ring_pass(number: int, tokens: int, *spans_ms: int) -> dict[str, Any]:
    """A journal's pass that began at 100 ms, with the times that its parts took."""
    times_ns = [T0_NS + 100 * MS]
    for span in spans_ms:
        times_ns.append(times_ns[-1] + span * MS)
    return {
        "head": "p00s00", "number": number, "tokens": tokens, "activation_byte": 2304 * tokens, "times_ns": times_ns
    }  # fmt: skip


def test_a_token_s_way_around_the_ring_beside_the_plan(bare_run: Any) -> None:
    run = split_run(bare_run, "pipeline")
    run.write("split_passes.jsonl", [ring_pass(1, 1, 20, 6, 21, 7, 22, 12, 4)])
    (row,) = written(run)
    assert row["satellites"] == MEMBERS
    assert (row["kind"], row["t_ns"], row["loop_ns"]) == ("token", 100 * MS, 92 * MS)
    assert row["compute_ns"] == [24 * MS, 21 * MS, 22 * MS]  # the head also chooses the token
    assert row["hop_ns"] == [6 * MS, 7 * MS, 12 * MS]
    assert row["planned_hop_ns"] == [LASER_NS, LASER_NS, 2 * LASER_NS]
    assert row["hop_byte"] == [2304] * 3
    on_links_ns = 3 * 2304 * 8e9 / RATE_BIT_S + 1500 * 8e9 / RATE_BIT_S  # the way back has a link more
    assert row["predicted_ns"] == pytest.approx(67 * MS + 4 * LASER_NS + on_links_ns, abs=2)


def test_several_tokens_wait_for_consent(bare_run: Any) -> None:
    run = split_run(bare_run, "pipeline")
    run.write("split_passes.jsonl", [ring_pass(0, 30, 20, 16, 21, 17, 22, 32, 4)])
    (row,) = written(run)
    assert (row["kind"], row["tokens"]) == ("prompt", 30)
    assert row["planned_hop_ns"] == [3 * LASER_NS, 3 * LASER_NS, 6 * LASER_NS]


def sample(satellite: str, t_ms: int, cpu_ms: int, **peers: list[int]) -> dict[str, Any]:
    return {"satellite": satellite, "t_ns": T0_NS + t_ms * MS, "cpu_ns": cpu_ms * MS, "peers": peers}


def metered(run: Any) -> None:
    """An answer of 8 tokens that took from 800 to 1500 ms; between the samples everything grows evenly."""
    head = [
        sample("p00s00", at, at // 10, p00s01=[8000 * at, 1000 * at], p00s02=[8000 * at, 0]) for at in (0, 1000, 2000)
    ]
    workers = [sample(name, at, at // 5, p00s00=[0, 0]) for name in MEMBERS[1:] for at in (0, 1000, 2000)]
    run.write("split_meter.jsonl", [*head, *workers])
    run.write("requests.jsonl", [run.request(satellite="p00s00"), run.request(1, satellite="p00s02")])


def test_an_answer_s_tokens_by_rpc_beside_the_plan(bare_run: Any) -> None:
    run = split_run(bare_run, "llama-rpc", "cpus = 0.5\n")
    metered(run)
    (row,) = written(run)
    assert (row["kind"], row["tokens"], row["t_ns"]) == ("answer", 7, 800 * MS)  # the first token is the prompt's
    assert row["loop_ns"] == 100 * MS
    assert row["compute_ns"] == [20 * MS, 40 * MS, 40 * MS]  # half a core takes twice as long
    assert row["hop_byte"] == [900_000, 800_000]
    assert row["planned_hop_ns"] == [2 * LASER_NS, 4 * LASER_NS]
    assert row["hop_ns"] is None
    on_links_ns = 1_700_000 * 8e9 / RATE_BIT_S + 1500 * 8e9 / RATE_BIT_S
    assert row["predicted_ns"] == pytest.approx(100 * MS + 6 * LASER_NS + on_links_ns, abs=2)


def test_what_several_conversations_share_is_not_told_of_one(bare_run: Any) -> None:
    run = split_run(bare_run, "llama-rpc", "conversations = 2\n")
    metered(run)
    (row,) = written(run)
    assert (row["compute_ns"], row["hop_byte"], row["predicted_ns"]) == (None, None, None)
    (line,) = [line for line in split_section([row]) if "llama-rpc" in line]
    assert line.split()[2:] == ["3", "10.0", "-", "100", "ms", "-", "-", "-"]


def test_the_section_puts_measured_next_to_predicted(bare_run: Any) -> None:
    run = split_run(bare_run, "pipeline")
    passes = [ring_pass(0, 30, 20, 16, 21, 17, 22, 32, 4), *[ring_pass(1, 1, 20, 6, 21, 7, 22, 12, 4)] * 3]
    run.write("split_passes.jsonl", passes)
    lines = list(split_section(written(run)))
    assert lines[2].split()[:5] == ["p00s00", "pipeline", "3", "10.9", "11.3"]
    assert lines[2].split()[5:] == ["92.0", "ms", "67.0", "ms", "25.0", "ms", "6,912"]
    hops = " ".join(" ".join(lines[3:]).split())
    assert hops.startswith("p00s00 to p00s01 6.00 ms, 5.00 ms planned · p00s01 to p00s02 7.00 ms, 5.00 ms planned")
    assert hops.endswith("1 prompt, 132 ms each")


def test_status_says_how_many_answer_and_how_often(bare_run: Any) -> None:
    assert list(SplitPart().status(bare_run.journal)) == []
    bare_run.write("splits.jsonl", [{"head": "p00s00", "engine": "llama-rpc", "satellites": 3}])
    assert list(SplitPart().status(bare_run.journal)) == ["split models that answer: 1"]
    bare_run.write("split_passes.jsonl", [ring_pass(1, 1, 20)] * 2)
    assert list(SplitPart().status(bare_run.journal)) == ["split models that answer: 1; passes around pipelines: 2"]


def test_a_split_that_answered_nothing_has_an_empty_table(bare_run: Any) -> None:
    assert written(split_run(bare_run, "pipeline")) == []
