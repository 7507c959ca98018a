"""What breaks in nodes in a live run, in exact time: killed, stopped, starved, without power, with flipped bits."""

from __future__ import annotations

import json
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from isl_emu import running as isl_emu_running
from isl_emu.errors import MachineError
from isl_emu.units import NS_PER_S as S
from tests.exact_guest import needs_exact_time
from tests.runs import COMMAND, PATIENCE_S, finished, isl_emu, rows, wait_for
from tests.scenarios import quiet_ring, table

pytestmark = [pytest.mark.emulation, needs_exact_time]

BOARD = {"board": "three-body", "context_tokens": 1024}
ASKED = (
    table("[compute]", satellites=["p00s01", "p00s03"], server="modelled", model="qwen3-0-6b", **BOARD)
    + table("[compute]", satellites=["p00s02"], pace_model="qwen3-0-6b", **BOARD)
    + table("questions", mean_interval="200 ms", target="uniform", max_answer_tokens=8, deadline="6 s",
            retries=3, retry_backoff="100 ms", prompts=["Why is the sky black?"])
)  # fmt: skip
KEEPING = "mkdir -p buffers; printf 0000 > buffers/state; while :; do sleep 1; done"
BEAT = table("[program]", name="beat", node="p00s05", command=["/bin/sh", "-c", KEEPING])


def fault(name: str, effect: str, at_s: int, for_s: int | None = None, **what: Any) -> str:
    lasting = {} if for_s is None else {"for": f"{for_s} s"}
    return table("[fault]", name=name, effect=effect, at=f"{at_s} s", **lasting, **what)


BROKEN = (
    quiet_ring("16 s")
    + ASKED
    + BEAT
    + fault("killed", "kill", 2, 2, servers=["p00s01"], known="never")
    + fault("starved", "out-of-memory", 3, 3, servers=["p00s02"], known="never")
    + fault("still", "stop", 5, 1, servers=["p00s03"], known="never")
    + fault("beatless", "kill", 5, 2, programs=["beat"])
    + fault("bits", "flip-bits", 8, servers=["p00s02"], bits=300_000)
    + fault("state", "flip-bits", 8, programs=["beat"], bits=2, buffer="state")
    + fault("told", "kill", 13, 3, servers=["p00s01"], known="after 1 s")
    + fault("dark", "power-off", 10, 2, satellites=["p00s02"], reboot="1 s", known="never")
)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("faults") / "out"
    finished(BROKEN, out, "--clock", "exact")
    return out


def attempts_at(out: Path, satellite: str, from_s: float, until_s: float) -> list[dict[str, Any]]:
    """The attempts that were sent there in a time."""
    return [
        row for row in rows(out, "attempts")
        if row["satellite"] == satellite and from_s * S < row["t_send_ns"] < until_s * S
    ]  # fmt: skip


def outcomes(attempts: list[dict[str, Any]]) -> set[str]:
    return {row["outcome"] for row in attempts}


def test_what_a_fault_kills_dies_by_order_and_serves_again_when_it_is_over(broken: Path) -> None:
    """Connections are refused at once, as by a kernel without a listener, and the run is valid."""
    verdict = json.loads((broken / "fidelity.json").read_text())
    assert (verdict["verdict"], verdict["reasons"]) == ("valid", [])
    assert not (broken / "incidents.parquet").exists()
    for satellite, from_s, until_s in (("p00s01", 2, 4), ("p00s02", 3, 6)):
        while_dead = attempts_at(broken, satellite, from_s, until_s - 0.05)
        assert while_dead and outcomes(while_dead) == {"unavailable"}
        assert all("nobody listened" in row["error"] for row in while_dead)
        assert "completed" in outcomes(attempts_at(broken, satellite, until_s, until_s + 3))


def test_who_is_known_to_be_dead_is_not_asked_until_it_is_known_to_be_alive(broken: Path) -> None:
    news, silence = attempts_at(broken, "p00s01", 13.0, 14.0), attempts_at(broken, "p00s01", 14.0, 16.0)
    assert outcomes(news) <= {"unavailable"} and silence == []


def test_what_is_stopped_answers_what_came_meanwhile_when_it_goes_on(broken: Path) -> None:
    waited = attempts_at(broken, "p00s03", 5.0, 5.8)
    assert waited and outcomes(waited) == {"completed"}
    assert all(row["t_finish_ns"] > 6 * S for row in waited)


def test_who_loses_power_is_silent_and_its_links_carry_nothing(broken: Path) -> None:
    """Nobody is told (known = never), so questions go there, and nothing comes back before it has booted."""
    silent = attempts_at(broken, "p00s02", 10.0, 12.9)
    assert silent and all(row["t_first_ns"] is None or row["t_first_ns"] > 13 * S for row in silent)
    assert "completed" in outcomes(attempts_at(broken, "p00s02", 13.0, 16.0))


def test_a_program_that_is_killed_starts_again(broken: Path) -> None:
    first, second = sorted(rows(broken, "programs"), key=lambda row: row["t_start_ns"])
    assert (first["outcome"], first["status"]) == ("killed by a fault", -9)
    assert (second["t_start_ns"], second["outcome"]) == (7 * S, "ended by isl-emu")


def test_bits_are_flipped_where_it_was_said_and_by_the_seed(broken: Path) -> None:
    state = (broken / "files" / "p00s05" / "buffers" / "state").read_bytes()
    assert sum((a ^ b).bit_count() for a, b in zip(state, b"0000", strict=True)) == 2


def test_a_server_works_on_with_the_weights_that_were_flipped(broken: Path) -> None:
    """Its words are those of greedy decoding, so they change with the weights alone."""
    asked = [row for row in rows(broken, "requests") if row["satellite"] == "p00s02" and row["outcome"] == "completed"]
    before, after = (
        {row["answer"] for row in asked if begin_s * S < row["t_last_send_ns"] < end_s * S}
        for begin_s, end_s in ((0, 7.5), (8, 16))
    )
    assert len(before) == 1 and after and not before & after


def test_each_fault_has_a_row_with_what_it_did_and_cost(broken: Path) -> None:
    found = {row["fault"]: row for row in rows(broken, "faults")}
    assert list(found) == ["killed", "starved", "still", "beatless", "bits", "state", "told", "dark"]
    times = {name: (row["t_begun_ns"], row["t_ended_ns"]) for name, row in found.items()}
    assert times["killed"] == (2 * S, 4 * S) and times["still"] == (5 * S, 6 * S)
    assert times["dark"][0] == 10 * S + 1000 and times["dark"][1] == pytest.approx(13 * S, abs=10_000_000)
    assert times["bits"] == (8 * S, None)
    assert found["killed"]["what"] == "model server on p00s01" and found["beatless"]["what"] == "program beat"
    assert found["state"]["done"].startswith("2 bits flipped, at byte.bit ")
    assert (found["dark"]["t_until_ns"], found["dark"]["t_known_ns"]) == (13 * S, None)
    assert found["dark"]["no_path_worst_ns"] == 3 * S
    assert found["dark"]["no_path_worst_pair"] in ("gs-chengdu to p00s02", "gs-chengdu to p00s03")
    assert found["dark"]["packets_lost"] > 0 and found["killed"]["packets_lost"] is None
    assert sum(row["fault"] for row in rows(broken, "drops")) == found["dark"]["packets_lost"]
    changed = [row for row in rows(broken, "path_changes") if row["what"] == "dark"]
    assert {(row["t_ns"], row["cause"], row["no_path_ns"]) for row in changed} == {
        (10 * S, "fault", 3 * S), (13 * S, "mended", 0),
    }  # fmt: skip
    silent = [row["silent_ns"] for row in changed if row["a"].startswith("p00") and row["t_ns"] == 10 * S]
    assert silent and min(silent) > 3 * S  # no word came while there was no path
    refused = {row["id"] for row in attempts_at(broken, "p00s01", 1, 3.95) if row["outcome"] != "completed"}
    assert refused and found["killed"]["questions_retried"] + found["killed"]["questions_lost"] == len(refused)
    told = {row["id"]: row["faults"] for row in rows(broken, "requests")}
    assert all("killed" in told[request] for request in refused)


def test_every_column_with_nulls_says_what_they_mean(broken: Path) -> None:
    for path in broken.glob("*.parquet"):
        if path.stem != "plan":
            table = pq.read_table(path)
            for column in table.schema:
                said = (column.metadata or {}).get(b"description", b"null")
                assert b"null" in said or not table[column.name].null_count, (path.name, column.name)


def test_nodes_are_broken_by_hand_and_restored(tmp_path: Path) -> None:
    (tmp_path / "ring.toml").write_text(quiet_ring("8 s") + ASKED)
    out = tmp_path / "out"
    command = [*COMMAND, "run", str(tmp_path / "ring.toml"), "--clock", "exact", "--pause-at", "2s"]
    with ExitStack() as undo:
        run = undo.enter_context(
            subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
        undo.callback(run.terminate)  # one that stands paused would not end
        wait_for(lambda: isl_emu("status", "--run", out).stdout.startswith("paused"), "the pause")
        live = isl_emu_running(out)
        assert live.fault("p00s01", effect="kill", for_s=2) == "p00s01: kill at t = 2.000 s"
        assert live.fault("p00s02") == "p00s02: power-off at t = 2.000 s"
        with pytest.raises(MachineError, match="broken by hand already"):
            live.fault("p00s02", effect="stop")
        with pytest.raises(MachineError, match="but nothing runs in it"):
            live.fault("p00s07", effect="kill")
        live.resume(until_s=5)
        live.restore("p00s02")
        live.resume()
        output, _ = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 3, output
    fidelity = json.loads((out / "fidelity.json").read_text())
    assert (fidelity["verdict"], fidelity["reasons"]) == ("intervened", [])
    found = {row["cause"]: (row["t_ns"], row["t_end_ns"]) for row in rows(out, "incidents")}
    assert found == {"p00s01 by hand: kill": (2 * S, 4 * S), "p00s02 by hand: power-off": (2 * S, 5 * S)}
    assert "completed" not in outcomes(attempts_at(out, "p00s01", 2.0, 3.9))
    silent = attempts_at(out, "p00s02", 2.0, 4.9)
    assert silent and all(row["t_first_ns"] is None or row["t_first_ns"] > 5 * S for row in silent)
    for satellite in ("p00s01", "p00s02"):
        assert "completed" in outcomes(attempts_at(out, satellite, 5.0, 8.0))


def test_a_step_is_healed_for_the_fault_that_took_its_participant(tmp_path: Path) -> None:
    """Another satellite without power at the same time is no reason."""
    job = {"method": "data-parallel", "collective": "ring", "on_loss": "heal", "rejoin": True, "timeout": "1 s"}
    scenario = (
        quiet_ring("16 s")
        + table("[training]", name="job", satellites=["p00s00", "p00s01", "p00s02"], **job)
        + table("training.modelled", board="h100-pcie", parameters=1_000_000, tokens=16_777_216, utilisation=0.4)
        + fault("dark", "power-off", 4, 5, satellites=["p00s02"], known="after 1 s")
        + fault("far", "power-off", 4, 5, satellites=["p00s08"], known="after 1 s")
        + fault("later", "power-off", 13, 1, satellites=["p00s07"])
    )
    out = tmp_path / "out"
    finished(scenario, out, "--clock", "exact")
    steps = rows(out, "training")
    (lost,) = (row for row in steps if row["outcome"] == "lost")
    assert lost["lost"] == ["p00s02"] and 4 * S < lost["t_end_ns"] < 9 * S
    repeated = [row for row in steps if row["step"] == lost["step"] and row["outcome"] == "completed"]
    assert [set(row["participants"]) for row in repeated] == [{"p00s00", "p00s01"}]
    assert any(len(row["participants"]) == 3 for row in steps if row["t_start_ns"] and row["t_start_ns"] > 9 * S)
    assert {row["fault"]: row["steps_healed"] for row in rows(out, "faults")} == {"dark": 1, "far": 0, "later": 0}
    assert "1 step of training made without who was lost" in (out / "summary.txt").read_text()
