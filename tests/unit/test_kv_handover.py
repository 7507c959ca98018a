"""Conversations that move: what is refused, how a cache travels, and what becomes of a handover that fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from isl_emu.errors import ScenarioError
from isl_emu.parts import activity
from isl_emu.parts.kv_handover.handover import Due, HandoverEnd, Series, fetch, offer
from isl_emu.parts.kv_handover.part import KvHandoverPart
from isl_emu.parts.kv_handover.results import kv_section
from isl_emu.runs.clock import RunTimes
from isl_emu.runs.endpoints import FIRST_CACHE_PORT as CACHE_PORT
from isl_emu.runs.endpoints import MODEL_PORT, TRANSFER_PORT, Endpoint
from isl_emu.runs.folder import RunFolder
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


@dataclass(frozen=True)
class Llama(HandoverEnd):
    """A satellite whose server keeps a conversation in a file and knows how much of one it has in its slot.

    Args:
        clock: advances by 2 ms for each token of a prompt that is computed.
    """

    clock: ManualClock
    slot: list[int] = field(default_factory=list)

    def ask(self, path: str, body: Any) -> dict[str, Any]:
        if path == "/tokenize":
            return {"tokens": list(range(7))}
        if path == "/completion":
            return self._completion(list(body["prompt"]), body["cache_prompt"])
        file = self.folder / body["filename"]
        if path.endswith("save"):
            return {"n_written": file.write_bytes(bytes(self.slot))}
        self.slot[:] = file.read_bytes()
        return {}

    def _completion(self, prompt: list[int], reuse: bool) -> dict[str, Any]:
        known = len(prompt) - 1 if reuse and self.slot == prompt else 0
        self.slot[:] = prompt
        self.clock.sleep_until_ns(self.clock.now_ns() + 2 * MS * (len(prompt) - known))
        return {"content": str(sum(prompt)), "timings": {"cache_n": known, "prompt_ms": 2.0 * (len(prompt) - known)}}


@pytest.fixture
def series(tmp_path: Path) -> Iterator[Series]:
    """Handovers on loopback addresses, in a run from 5 to 30 s of its clock."""
    clock, ends = ManualClock(5 * S), []
    for number, name in enumerate(("a", "b")):
        folder = tmp_path / name
        folder.mkdir()
        ends.append(Llama(name, Endpoint("", f"127.0.7.{number + 1}", 1), folder, ThreadPoolExecutor(1), clock))
    yield Series(ends[0], ends[1], CACHE_PORT, clock, RunTimes(5 * S, 30 * S))
    for end in ends:
        end.thread.shutdown()


def test_a_cache_travels_and_spares_the_target_the_prompt(series: Series) -> None:
    computing_ns: list[int] = []
    with offer(series.source, CACHE_PORT):
        row = series.hand_over(20, computing_ns)
    assert (row["kv_byte"], row["received_byte"], row["cached_tokens"], row["same_answer"]) == (20, 20, 19, True)
    assert (row["prefill_ns"], row["resume_ns"], row["reprefill_ns"]) == (40 * MS, 2 * MS, 40 * MS)
    assert computing_ns == [0, 40 * MS, 40 * MS, 42 * MS, 42 * MS, 82 * MS]
    assert not list(series.source.folder.iterdir()) + list(series.target.folder.iterdir())


def test_two_series_from_one_source_have_a_port_each(series: Series) -> None:
    other = replace(series, port=CACHE_PORT + 1)
    with offer(series.source, series.port), offer(other.source, other.port):
        assert [one.hand_over(count, [])["received_byte"] for one, count in ((series, 20), (other, 30))] == [20, 30]


def test_no_series_wants_the_port_of_another_or_of_an_uplink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(activity, "start_module", lambda command, **_: commands.append(command))
    monkeypatch.setattr(activity, "end", lambda processes, patience_s: None)
    folder = RunFolder.create(tmp_path / "run", "run")
    containers = {name: SimpleNamespace(pid=1) for name in ("p00s00", "p00s01")}
    live = SimpleNamespace(scenario=parse_scenario(SMALL + COMPUTE + HANDOVER * 2, "small"), folder=folder,
                           containers=containers, is_here=bool)  # fmt: skip
    with ExitStack() as ending:
        for one in KvHandoverPart().start(live):
            one.begin(RunTimes(0, S), ending)
    ports = [int(command[command.index("--port") + 1]) for command in commands]
    assert len({*ports, TRANSFER_PORT, MODEL_PORT}) == 4


def test_status_says_how_many_are_over(tmp_path: Path) -> None:
    part = KvHandoverPart()
    assert list(part.status(tmp_path)) == []
    containers = {name: SimpleNamespace(pid=1) for name in ("p00s00", "p00s01")}
    live = SimpleNamespace(scenario=parse_scenario(SMALL + COMPUTE + HANDOVER, "small"), folder=RunFolder(tmp_path),
                           containers=containers, is_here=bool)  # fmt: skip
    (tmp_path / "journal").mkdir()
    list(part.start(live))
    (tmp_path / "journal" / "kv_handovers.jsonl").write_text("{}\n")
    assert list(part.status(tmp_path / "journal")) == ["handovers of conversations that are over: 1 of 2"]


def test_a_cache_that_is_not_there_is_an_error(series: Series, tmp_path: Path) -> None:
    with offer(series.source, CACHE_PORT), pytest.raises(HTTPException, match="the cache is not to be had: 404"):
        fetch(series.source.endpoint.address, CACHE_PORT, "nothing.kv", tmp_path)


class LossySeries(Series):
    """The second one fails after the source has computed."""

    def hand_over(self, count: int, computing_ns: list[int]) -> dict[str, Any]:
        computing_ns += [self.clock.now_ns() - self.times.t0_ns] * 2
        if count == 2:
            raise TimeoutError("timed out")
        return {"kv_byte": count}


def test_every_handover_leaves_a_row(series: Series) -> None:
    rows: list[dict[str, Any]] = []
    lossy = LossySeries(series.source, series.target, series.port, series.clock, series.times)
    lossy.run([Due(5 * S, 1), Due(15 * S, 2), Due(35 * S, 3)], rows.append, threading.Event())
    assert [(row["tokens"], row["t_due_ns"], row["outcome"]) for row in rows] == [
        (1, 5 * S, "completed"), (2, 15 * S, "failed"), (3, 35 * S, "unfinished")
    ]  # fmt: skip
    assert [row.get("t_ns") for row in rows] == [5 * S, 15 * S, None]
    assert [row.get("computing_ns") for row in rows] == [[5 * S] * 2, [15 * S] * 2, None]
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
