"""Conversations that move: what is refused, how a cache travels, and what becomes of a handover that fails."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from isl_emu.errors import ScenarioError
from isl_emu.parts.kv_handover import handover as kv_handover
from isl_emu.parts.kv_handover.handover import Satellite, fetch, hand_over, offer, run
from isl_emu.parts.kv_handover.report import kv_section
from isl_emu.runs.endpoints import Endpoint
from isl_emu.runs.ports import FIRST_CACHE_PORT as CACHE_PORT
from isl_emu.scenario.parse import format_scenario, parse_scenario
from isl_emu.timebase import ManualClock
from tests.scenarios import SMALL

S = 1_000_000_000
MS = 1_000_000
COMPUTE = '[compute]\nsatellites = ["p00s00", "p00s01"]\n'
HANDOVER = '[[kv_handover]]\nsource = "p00s00"\ntarget = "p00s01"\ntokens = [100, 500]\n'


def test_a_handover_survives_the_round_trip() -> None:
    scenario = parse_scenario(SMALL + COMPUTE + HANDOVER, "small")
    assert (scenario.kv_handover[0].tokens, scenario.kv_handover[0].interval_ns) == ((100, 500), 30 * S)
    assert parse_scenario(format_scenario(scenario), "again") == scenario


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('"p00s01"\ntokens', '"p00s00"\ntokens', r"kv_handover\[0\].target is 'p00s00', but that is the source"),
        ('"p00s01"\ntokens', '"p00s07"\ntokens', r"target is 'p00s07', but it runs no real model server"),
        ("[100, 500]", "[100, 1009]", r"tokens\[1\] is 1009, but between 1 and 1008 fit the context"),
        ("[100, 500]", "[0]", r"tokens\[0\] is 0, but between 1 and 1008 fit"),
        ("[100, 500]", "[0, 100]", r"small: kv_handover\[0\].tokens\[0\] is 0, but between 1 and 1008 fit[^\n]*$"),
        (
            "[100, 500]",
            '["100", 500]',
            r"small: kv_handover\[0\].tokens\[0\] is '100', but it should be a valid integer",
        ),
    ],
)
def test_a_handover_that_cannot_be_is_refused(old: str, new: str, sentence: str) -> None:
    with pytest.raises(ScenarioError, match=sentence):
        parse_scenario((SMALL + COMPUTE + HANDOVER).replace(old, new), "small")


def test_caches_are_of_one_model() -> None:
    two = COMPUTE.replace(', "p00s01"', "") + '[[compute]]\nsatellites = ["p00s01"]\nmodel = "other.gguf"\n'
    with pytest.raises(ScenarioError, match=r"kv_handover\[0\] is between two models, but a KV cache is of one"):
        parse_scenario(SMALL + two.replace("[compute]\n", "[[compute]]\n", 1) + HANDOVER, "small")


class Llama(Satellite):
    """A satellite whose server keeps a conversation in a file and knows how much of one it has in its slot."""

    slot: tuple[int, ...] = ()

    def ask(self, path: str, body: Any) -> dict[str, Any]:
        if path == "/tokenize":
            return {"tokens": list(range(7))}
        if path == "/completion":
            return self._completion(tuple(body["prompt"]), body["cache_prompt"])
        file = self.folder / body["filename"]
        if path.endswith("save"):
            return {"n_written": file.write_bytes(bytes(self.slot))}
        self.slot = tuple(file.read_bytes())
        return {}

    def _completion(self, prompt: tuple[int, ...], reuse: bool) -> dict[str, Any]:
        known = len(prompt) - 1 if reuse and self.slot == prompt else 0
        self.slot = prompt
        return {"content": str(sum(prompt)), "timings": {"cache_n": known, "prompt_ms": 2.0 * (len(prompt) - known)}}


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Llama, Llama]:
    ends = []
    for number, name in enumerate(("a", "b")):
        folder = tmp_path / name
        folder.mkdir()
        ends.append(Llama(name, Endpoint("", f"127.0.7.{number + 1}", 1), folder, ThreadPoolExecutor(1)))
    return ends[0], ends[1]


def test_a_cache_travels_and_spares_the_target_the_prompt(pair: tuple[Llama, Llama]) -> None:
    server = offer(pair[0], CACHE_PORT)
    row = hand_over(*pair, CACHE_PORT, 20, ManualClock())
    server.shutdown()
    server.server_close()
    assert (row["kv_byte"], row["received_byte"], row["cached_tokens"], row["same_answer"]) == (20, 20, 19, True)
    assert (row["prefill_ns"], row["resume_ns"], row["reprefill_ns"]) == (40 * MS, 2 * MS, 40 * MS)
    assert not list(pair[0].folder.iterdir()) + list(pair[1].folder.iterdir())


def test_a_cache_that_is_not_there_is_an_error(pair: tuple[Llama, Llama], tmp_path: Path) -> None:
    server = offer(pair[0], CACHE_PORT)
    with pytest.raises(HTTPException, match="the cache is not to be had: 404"):
        fetch(pair[0].endpoint.address, CACHE_PORT, "nothing.kv", tmp_path)
    server.shutdown()
    server.server_close()


def test_every_handover_leaves_a_row(pair: tuple[Llama, Llama], monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(source: Satellite, target: Satellite, port: int, count: int, clock: ManualClock) -> dict[str, Any]:
        if count == 2:
            raise TimeoutError("timed out")
        return {"kv_byte": count}

    monkeypatch.setattr(kv_handover, "hand_over", lost)
    rows: list[dict[str, Any]] = []
    due = [(10 * S, 1), (20 * S, 2), (40 * S, 3)]
    run(*pair, CACHE_PORT, due, ManualClock(), 5 * S, 30 * S, rows.append, threading.Event())
    assert [(row["tokens"], row["t_due_ns"], row["outcome"]) for row in rows] == [
        (1, 5 * S, "completed"), (2, 15 * S, "failed"), (3, 35 * S, "unfinished")
    ]  # fmt: skip
    assert [row.get("t_ns") for row in rows] == [5 * S, 15 * S, None]
    assert rows[1]["error"] == "timed out"


def test_the_section_puts_both_ways_side_by_side() -> None:
    times = {"save_ns": 10 * MS, "transfer_ns": 2 * S, "restore_ns": 15 * MS, "resume_ns": 80 * MS}
    done = {
        "source": "a", "target": "b", "outcome": "completed", "tokens": 1000, "kv_byte": 23_060_000, **times,
        "cached_tokens": 999, "reprefill_ns": 9 * S, "same_answer": True,
    }  # fmt: skip
    lost = {"target": "b", "outcome": "failed", "tokens": 5, "error": "timed out"}
    lines = list(kv_section([done, lost, {**done, "cached_tokens": 3}]))
    assert " ".join(lines[2].split()[3:]) == "23.06 MB 10.0 ms 2.00 s 15.0 ms 80.0 ms 2.10 s 9.00 s"
    assert lines[4] == "  5 tokens to b: failed, timed out"
    assert lines[5].startswith("  in 1 handover the target's server was busy")
