"""The largest load within service levels, on figures that are made up; no run is made."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from rich.console import Console

from isl_emu.cli import cli
from isl_emu.errors import MachineError, ScenarioError
from isl_emu.progress import Steps
from isl_emu.scenario.parse import format_scenario, parse_scenario
from isl_emu.sweeps import search
from isl_emu.sweeps.search import Found, Level, Probe, begin_search, bisect, parse_range, run_search
from isl_emu.sweeps.sweep import Sweep
from isl_emu.units import NS_PER_S
from tests.scenarios import head, shell, station, table

TTFT = Level("ttft", 90.0, 2 * NS_PER_S)
SCENARIO = parse_scenario(
    head("searched", duration="10 s")
    + shell(4, 1, 0, lasers="ring")
    + station("gs", site="chengdu")
    + table("[compute]", satellites="all", server="modelled", board="three-body")
    + table("questions", rate=1.0),
    "searched.toml",
)


def _rows(*ttft_s: float | None) -> list[dict[str, Any]]:
    """Requests with these latencies; None had no answer."""
    return [
        {
            "outcome": "unfinished" if one is None else "completed",
            "ttft_ns": one and int(one * NS_PER_S),
            "warm_up": False,
        }
        for one in ttft_s
    ]


def test_levels_are_read_as_they_are_written() -> None:
    assert Level.parse("ttft_p95 <= 2 s") == Level("ttft", 95.0, 2 * NS_PER_S)
    assert str(Level.parse("e2e_p99.9<=1500 ms")) == "e2e_p99.9 <= 1500 ms"


@pytest.mark.parametrize(
    "text",
    ["", "ttft <= 2 s", "ttft_p95 >= 2 s", "ttft_p0 <= 1 s", "itl_p95 <= 1 s", "ttft_p95 <= 0 s", "ttft_p9 <= 2"],
)
def test_what_is_no_level_is_told(text: str) -> None:
    with pytest.raises(ScenarioError, match="--slo: is .* a percentile of ttft, tpot or e2e"):
        Level.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "questions.rate",
        "questions.rate=1",
        "questions.rate=2..1",
        "questions.rate=0..1",
        "a=1..x",
        "a=..",
        "a=1..inf",
    ],
)
def test_what_is_no_range_is_told(text: str) -> None:
    with pytest.raises(ScenarioError, match="--search: is .* two rising numbers"):
        parse_range(text)


def test_whole_ends_make_whole_steps() -> None:
    assert parse_range("questions.users_per_station=1..64") == ("questions.users_per_station", 1, 64)
    assert parse_range("questions.rate=0.5..8") == ("questions.rate", 0.5, 8.0)


def test_who_has_no_answer_waits_for_ever() -> None:
    assert TTFT.of(_rows(*[1.0] * 9, None)) == NS_PER_S
    assert TTFT.of(_rows(*[1.0] * 8, None, None)) == math.inf
    assert TTFT.of([]) == math.inf


def test_bisection_halves_by_ratio() -> None:
    tried: list[float] = []

    def keeps(value: float) -> bool:
        tried.append(value)
        return value <= 3.0

    assert bisect(keeps, 1.0, 16.0, 0.5) == (2.828, 4.0)
    assert tried == [1.0, 16.0, 4.0, 2.0, 2.828]
    assert bisect(lambda value: value <= 11, 1, 64, 0.01) == (11, 12)


def test_ends_that_say_all_end_the_search() -> None:
    assert bisect(lambda _: False, 1.0, 8.0, 0.1) == (None, 1.0)
    assert bisect(lambda _: True, 1.0, 8.0, 0.1) == (8.0, None)


def test_a_probe_counts_the_requests_of_all_its_seeds() -> None:
    probe = Probe.of(3.0, [TTFT], [_rows(*[1.0] * 10), _rows(*[1.0] * 8, 5.0, None)], [4 * NS_PER_S, 5 * NS_PER_S])
    assert (probe.keeps, probe.runs, probe.runs_keeping) == (True, 2, 1)
    assert (probe.requests, probe.unanswered, probe.good, probe.goodput_per_s) == (20, 1, 18, 2.0)


def test_answers_that_nobody_got_can_be_drawn(tmp_path: Path) -> None:
    nobody = Probe(0.5, (math.inf,), False, 1, 0, 0, 0, 0, None)
    Found("questions.rate", (TTFT,), None, 0.5, (nobody,)).write(tmp_path)
    assert (tmp_path / search.PICTURE).stat().st_size > 1000


def test_what_contradicts_is_told() -> None:
    def probe(value: float, ttft_s: float, keeping: int) -> Probe:
        return Probe(value, (ttft_s * NS_PER_S,), ttft_s <= 2, 3, keeping, 30, 0, 30, 1.0)

    found = Found("questions.rate", (TTFT,), 2.0, 4.0, (probe(1.0, 1.5, 3), probe(4.0, 9.0, 0), probe(2.0, 1.2, 2)))
    assert found.text.splitlines() == [
        "questions.rate: 2 is the largest found that keeps ttft_p90 <= 2 s; 4 does not",
        "3 values tried, as if less load were never worse",
        "contradicts that: ttft_p90 is 1.50 s at 1, but 1.20 s at 2",
        "repetitions differ: at 2 2 of 3 runs keep it by themselves",
    ]


class _Run:
    """Answers take as many seconds as the rate is, and of one run in a sweep, half of that."""

    def __init__(self, rate: float, path: Path):
        self.rate, self.path, self.valid = rate, path, rate != 5.0
        self.serving = {"rates": {"window_ns": 10 * NS_PER_S}}

    def table(self, _: str) -> Any:
        return self

    def to_pylist(self) -> list[dict[str, Any]]:
        return _rows(*[self.rate / 4] * 10)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The values of all cells of each sweep that is run, which are then finished at once."""
    values: list[float] = []

    def run(sweep: Sweep, *_: object) -> Any:
        values[:] = sorted({cell.settings["questions.rate"] for cell in sweep.cells})
        return type("Outcome", (), {"failed": {}})()

    finished = property(
        lambda sweep: [(cell, _Run(cell.settings["questions.rate"], sweep.path)) for cell in sweep.cells]
    )
    monkeypatch.setattr(search, "run_sweep", run)
    monkeypatch.setattr(Sweep, "finished", finished)
    return values


def test_a_search_adds_its_values_to_the_sweep_and_writes_its_table(tmp_path: Path, asked: list[float]) -> None:
    folder = begin_search(
        SCENARIO, "questions.rate=1.0..16.0", ["ttft_p90 <= 2 s"], 0.1, {"seed": [1, 2]}, tmp_path / "out", []
    )
    found = run_search(folder, Steps(Console(quiet=True)))
    assert (found.best, found.beyond) == (8.0, 8.723)
    assert asked == sorted(probe.value for probe in found.probes)
    assert {len(Sweep(folder).cells)} == {2 * len(found.probes)}
    written = pq.read_table(folder / search.TABLE).to_pylist()
    assert [row["keeps"] for row in written] == [row["value"] <= 8 for row in written]
    assert written[0] | {"value": 1.0, "ttft_p90_ns": 0.25e9, "requests": 20, "goodput_per_s": 1.0} == written[0]
    assert (folder / search.PICTURE).stat().st_size > 1000
    assert run_search(folder, Steps(Console(quiet=True))) == found  # as a search that is resumed


@pytest.mark.parametrize(
    ("ends", "status", "told"),
    [
        ("9.0..16.0", 1, "even 9, the least, does not keep ttft_p90 <= 2 s (ttft_p90 is 2.25 s); search lower"),
        ("1.0..2.0", 0, "2, the largest, still keeps ttft_p90 <= 2 s; search higher"),
        ("1.0..16.0", 0, "8 is the largest found that keeps ttft_p90 <= 2 s; 8.723 does not"),
    ],
)
def test_a_search_without_a_value_has_failed(
    ends: str, status: int, told: str, tmp_path: Path, asked: list[float]
) -> None:
    (tmp_path / "searched.toml").write_text(format_scenario(SCENARIO))
    words = ["sweep", str(tmp_path / "searched.toml"), "--search", f"questions.rate={ends}", "--tolerance", "0.1"]
    words += ["--slo", "ttft_p90 <= 2 s", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(cli, words, standalone_mode=False)
    assert f"questions.rate: {told}\n" in done.output
    assert done.return_value == status


def test_a_run_that_cannot_be_trusted_ends_the_search(tmp_path: Path, asked: list[float]) -> None:
    folder = begin_search(SCENARIO, "questions.rate=5.0..16.0", ["ttft_p90 <= 2 s"], 0.1, {}, tmp_path / "out", [])
    with pytest.raises(MachineError, match="cannot be trusted"):
        run_search(folder, Steps(Console(quiet=True)))


def test_what_a_search_cannot_do_is_told(tmp_path: Path) -> None:
    def begin(slo: list[str], settings: dict[str, Any]) -> None:
        begin_search(SCENARIO, "questions.rate=1.0..16.0", slo, 0.1, settings, tmp_path / "out", [])

    with pytest.raises(ScenarioError, match="without --slo"):
        begin([], {})
    with pytest.raises(ScenarioError, match="for a scenario without questions"):
        quiet = SCENARIO.model_copy(update={"questions": None})
        begin_search(quiet, "time.step=1..2", ["ttft_p90 <= 2 s"], 0.1, {}, tmp_path / "out", [])
    with pytest.raises(ScenarioError, match="any other has one value"):
        begin(["ttft_p90 <= 2 s"], {"questions.retries": (1, 2)})
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out" / search.SEARCH).write_text(json.dumps({"key": "questions.rate"}))
    with pytest.raises(ScenarioError, match="is damaged"):
        run_search(tmp_path / "out", Steps(Console(quiet=True)))
