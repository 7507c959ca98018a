"""The runs of a sweep, what of them is kept, and how runs are compared; on folders that no run has made."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from isl_emu.errors import ScenarioError
from isl_emu.progress import Steps
from isl_emu.results.run_results import RunResults
from isl_emu.scenario.parse import format_scenario, parse_scenario, with_changes
from isl_emu.sweeps.compare import compare, open_runs
from isl_emu.sweeps.sweep import Sweep, begin_sweep, cells_of, is_finished, repeat, run_sweep
from isl_emu.tables.schema import NS, column
from tests.scenarios import head, shell

SCENARIO = parse_scenario(head("swept", duration="10 s") + shell(4, 1, 0, lasers="ring"), "swept.toml")
QUIET = Steps(Console(quiet=True))


def make_run(folder: Path, changes: dict[str, Any], ttft_ns: list[int | None], **record: Any) -> RunResults:
    """A folder like that of a run, with a table of questions."""
    folder.mkdir(parents=True, exist_ok=True)
    scenario = format_scenario(with_changes(SCENARIO, **changes))
    (folder / "scenario.toml").write_text(scenario)
    verdict = {"verdict": "valid", "clock": "exact", "cpu": {"busy_ratio": 0.5}, "reasons": []} | record
    (folder / "fidelity.json").write_text(json.dumps(verdict))
    (folder / "serving.json").write_text(json.dumps({"ttft_ns": {"p50": 7.0, "kind": "text", "none": None}}))
    (folder / "provenance.json").write_text(json.dumps({"execution": {"ended_ns": 10, "error": None}}))
    rows = {"id": range(len(ttft_ns)), "station": ["gs"] * len(ttft_ns), "t_due_ns": range(len(ttft_ns))}
    fields = [column("id", NS, "", ""), column("station", pa.string(), "", ""), column("t_due_ns", NS, "ns", "")]
    table = pa.table({**rows, "ttft_ns": ttft_ns}, schema=pa.schema([*fields, column("ttft_ns", NS, "ns", "TTFT")]))
    pq.write_table(table, folder / "requests.parquet")
    return RunResults(folder)


def test_a_sweep_has_each_combination_once() -> None:
    cells = cells_of(SCENARIO, {"shell.altitude": ["500 km", "600 km"], "seed": [1, 2, 3]})
    assert [(cell.scenario.shell[0].altitude_km, cell.scenario.seed) for cell in cells] == [
        (altitude_km, seed) for altitude_km in (500, 600) for seed in (1, 2, 3)
    ]
    assert cells[4].name == "0004_altitude=600-km_seed=2"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"seed": []}, "different values are needed"),
        ({"seed": [1, 1]}, "different values are needed"),
        (
            {"seed": range(200), "time.duration": [f"{n} s" for n in range(1, 100)]},
            "has 19,800 runs, but at most 10,000",
        ),
        ({"seed": [1, -1]}, "seed"),
        ({"shell.altitude": ["500 km", "high"]}, "altitude"),
    ],
)
def test_all_combinations_are_checked_before_anything_runs(settings: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=told):
        begin_sweep(SCENARIO, settings, tmp_path / "out", [])
    assert not (tmp_path / "out").exists()


def test_what_is_finished_is_kept_and_made_one_table(tmp_path: Path) -> None:
    settings = {"shell.altitude": ["500 km", "600 km"], "seed": [1, 2]}
    begun = begin_sweep(SCENARIO, settings, tmp_path / "out", ["--clock", "exact"])
    assert Sweep(tmp_path / "out").settings == settings
    first, second, third, fourth = begun.cells
    make_run(begun.folder(first), dict(first.settings), [1, 2])
    make_run(begun.folder(second), dict(second.settings), [3], verdict="invalid")
    make_run(begun.folder(third), dict(third.settings), [4])
    (begun.folder(third) / "provenance.json").write_text(json.dumps({"execution": None}))  # killed
    make_run(begun.folder(fourth), {"seed": 9}, [5])  # of another scenario
    assert [cell for cell, _ in begun.finished] == [first, second]
    rows = begun.write_table().to_pylist()
    assert [row | {} for row in rows] == pq.read_table(tmp_path / "out" / "sweep.parquet").to_pylist()
    assert [(row["shell.altitude"], row["seed"], row["verdict"], row["clock"]) for row in rows] == [
        ("500 km", 1, "valid", "exact"), ("500 km", 2, "invalid", "exact"),
    ]  # fmt: skip
    assert [(row["serving.ttft_ns.p50"], row["fidelity.cpu.busy_ratio"]) for row in rows] == [(7.0, 0.5)] * 2
    assert "serving.ttft_ns.kind" not in rows[0]
    together = begun.table("requests")
    assert together.column_names[:2] == ["shell.altitude", "seed"]
    assert list(zip(together["seed"].to_pylist(), together["ttft_ns"].to_pylist(), strict=True)) == [
        (1, 1),
        (1, 2),
        (2, 3),
    ]
    assert together.schema.field("ttft_ns").metadata[b"unit"] == b"ns"
    with pytest.raises(ScenarioError, match="no finished run of .* has it"):
        begun.table("probes")
    with pytest.raises(ScenarioError, match="holds no sweep"):
        Sweep(tmp_path)


def test_only_a_run_that_was_cut_off_is_repeated(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    make_run(folder, {}, [1])
    (folder / "plan.parquet").write_bytes(b"plan")
    assert repeat(folder, QUIET) is None
    (folder / "provenance.json").write_text(json.dumps({"execution": None, "place": {"clock": "exact"}}))
    assert repeat(folder, QUIET) == (tmp_path / "run.cut-off-1" / "plan.parquet", "exact")
    assert not folder.exists()
    with pytest.raises(ScenarioError, match="holds neither a run nor a sweep"):
        repeat(tmp_path, QUIET)


def _rows(found: Any) -> dict[str, dict[str, Any]]:
    return {row["group"]: row for row in found.table.to_pylist()}


def test_rows_that_were_asked_alike_are_compared_in_pairs(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    times_ns = rng.integers(1_000_000, 900_000_000, 40)
    later_ns = times_ns + 1_000_000 + rng.integers(-5_000, 5_000, 40)
    runs = [
        make_run(tmp_path / "a", {}, times_ns.tolist()),
        make_run(tmp_path / "b", {"shell.altitude": "600 km"}, [*later_ns.tolist()[:-1], None]),
    ]
    before, after = _rows(compare(runs, ["requests.ttft_ns"])).values()
    assert (before["difference"], before["low"]) == (None, None)
    assert after["paired"]
    assert (after["rows"], before["median"]) == (39, np.median(times_ns))
    assert after["difference"] == np.median((later_ns - times_ns)[:-1])
    assert 995_000 <= after["low"] <= after["difference"] <= after["high"] <= 1_005_000
    assert "* the interval leaves out 0" in compare(runs).text


def test_repetitions_are_one_group_whose_unit_is_the_run(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    runs = [
        make_run(
            tmp_path / f"{altitude}-{seed}", {"shell.altitude": altitude, "seed": seed}, [base, base + 2, base + 4]
        )
        for altitude, level in (("500 km", 1000), ("600 km", 1500))
        for seed, base in enumerate((level + rng.integers(0, 300, 8)).tolist())
    ]
    found = compare(runs)
    before, after = found.table.to_pylist()
    assert (before["runs"], after["runs"], after["rows"], after["paired"]) == (8, 8, 24, False)
    assert after["difference"] == pytest.approx(after["median"] - before["median"])
    assert 300 < after["low"] < after["difference"] < after["high"] < 700
    assert [path.name for path in found.write(tmp_path / "out")] == ["compare.parquet", "compare.png"]
    again = compare(runs)
    assert again.table == found.table  # resampled with a seed


def test_of_few_no_interval_is_promised(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a", {}, [1, 2, 3, 4]), make_run(tmp_path / "b", {"shell.altitude": "600 km"}, [2, 3])]
    assert compare(runs).table.to_pylist()[1]["low"] is None


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    valid = make_run(tmp_path / "valid", {}, [1, 2])
    invalid = make_run(tmp_path / "invalid", {"shell.altitude": "600 km"}, [1, 3], verdict="invalid")
    real = make_run(tmp_path / "real", {"shell.altitude": "700 km"}, [1, 4], clock="real")
    same = make_run(tmp_path / "same", {"seed": 5}, [1, 2])
    for runs, metrics, told in (
        ([valid, invalid], [], "is invalid, but only valid runs are compared"),
        ([valid, real], [], "runs have different clocks"),
        ([valid, same], [], "has one group of runs, but two are needed"),
    ):
        with pytest.raises(ScenarioError, match=told):
            compare(runs, metrics)
    with pytest.raises(ScenarioError, match="requests has only: id, station"):
        compare([valid, real], ["requests.tttf_ns"], anyway=True)
    with pytest.raises(ScenarioError, match="only these: requests"):
        compare([valid, real], ["probes.delay_ns"], anyway=True)
    assert len(compare([valid, invalid, real], anyway=True).groups) == 3
    assert open_runs([valid.path])[1] == ["valid"]


def test_another_scenario_is_not_taken_for_a_run(tmp_path: Path) -> None:
    (cell,) = cells_of(SCENARIO, {"seed": [4]})
    make_run(tmp_path / "run", {"seed": 5}, [1])
    assert not is_finished(tmp_path / "run", cell)
    make_run(tmp_path / "run", {"seed": 4}, [1])
    assert is_finished(tmp_path / "run", cell)


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        (
            {"words": ["--trust", "--clock"]},
            "has the options .* a folder says no more of them than --machine and --clock",
        ),
        ({"words": ["--allow-key", "HOME"]}, "has the options"),
        ({"words": ["--clock", "exact", "--out"]}, "has the options"),
        ({"words": ["--machine", "/tmp"]}, "has the options"),
        ({"words": None}, "has the options"),
        ({"settings": 3}, "is damaged .* begin the sweep anew"),
        ({"settings": {"seed": 1}}, "is damaged"),
    ],
)
def test_a_folder_of_a_sweep_allows_nothing(manifest: dict[str, Any], told: str, tmp_path: Path) -> None:
    """Who goes on with somebody else's sweep trusts it no more than any scenario."""
    begun = begin_sweep(SCENARIO, {"seed": [1]}, tmp_path / "sweep", ["--clock", "exact"])
    record = json.loads((begun.path / "sweep.json").read_text()) | manifest
    (begun.path / "sweep.json").write_text(json.dumps(record))
    with pytest.raises(ScenarioError, match=told):
        Sweep(begun.path)


@pytest.mark.parametrize("place", ["sweep.parquet", "runs", "runs/0000_seed=1", "runs/0000_seed=1.log"])
def test_a_link_in_the_folder_of_a_sweep_leads_nothing_elsewhere(place: str, tmp_path: Path) -> None:
    begun = begin_sweep(SCENARIO, {"seed": [1]}, tmp_path / "sweep", [])
    (tmp_path / "victim").write_text("untouched")
    link = begun.path / place
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(tmp_path / "victim")
    with pytest.raises(ScenarioError, match=f"{place}: is a link, a pipe or a device"):
        run_sweep(begun, QUIET)
    assert (tmp_path / "victim").read_text() == "untouched"


def test_a_table_is_read_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run", {}, [1, 2])
    assert len(run.requests) == 2
    monkeypatch.setenv("ISL_EMU_MOST_ROWS", "1")
    with pytest.raises(ScenarioError, match="says that it comes to about 2 rows, but the most is 1"):
        _ = run.requests


def test_a_pipe_in_place_of_a_table_is_not_waited_for(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {}, [1])
    for name in ("probes.parquet", "summary.txt"):
        (run.path / name).unlink(missing_ok=True)
        os.mkfifo(run.path / name)
    with pytest.raises(ScenarioError, match="it is a pipe and no file"):
        run.table("probes")
    with pytest.raises(ScenarioError, match="it is a pipe and no file"):
        _ = run.summary


def test_repetitions_have_a_mean_and_the_interval_of_student(tmp_path: Path) -> None:
    sweep = begin_sweep(SCENARIO, {"shell.altitude": ["500 km", "600 km"], "seed": [1, 2, 3]}, tmp_path / "s", [])
    for cell, p50_ns, verdict in zip(
        sweep.cells, (1e6, 2e6, 3e6, 5e6, 99e6, 7e6), ("valid",) * 4 + ("invalid", "valid"), strict=True
    ):
        run = make_run(sweep.folder(cell), cell.settings, [1], verdict=verdict)
        (run.path / "serving.json").write_text(json.dumps({"ttft_ns": {"p50": p50_ns}}))
    outcome = run_sweep(sweep, QUIET)
    rows = pq.ParquetFile(sweep.path / "repeats.parquet").read().to_pylist()
    low, high = (row for row in rows if row["figure"] == "serving.ttft_ns.p50")
    # t of 0.975 with 2 and 1 degrees of freedom: 4.30265 and 12.7062 (NIST/SEMATECH e-Handbook, 1.3.6.7.2)
    assert (low["shell.altitude"], low["unit"], low["runs"], low["mean"]) == ("500 km", "ns", 3, 2e6)
    assert low["high"] - low["mean"] == pytest.approx(4.30265e6 / 3**0.5, rel=1e-5)
    assert (high["runs"], high["mean"]) == (2, 6e6)  # one cannot be trusted
    assert high["mean"] - high["low"] == pytest.approx(12.7062e6, rel=1e-5)
    assert "[-484 us, 4.48 ms]" in outcome.text


def test_a_single_run_has_no_interval(tmp_path: Path) -> None:
    sweep = begin_sweep(SCENARIO, {"seed": [1]}, tmp_path / "s", [])
    make_run(sweep.folder(sweep.cells[0]), {"seed": 1}, [1])
    text = run_sweep(sweep, QUIET).text
    (row,) = (
        row for row in pq.ParquetFile(sweep.path / "repeats.parquet").read().to_pylist() if "p50" in row["figure"]
    )
    assert (row["runs"], row["mean"], row["deviation"], row["low"], row["high"]) == (1, 7.0, None, None, None)
    assert "interval" not in text
