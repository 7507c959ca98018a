"""Captures of whole runs in exact time: both ends of a laser, all links of a node, by a scenario and by hand."""

from __future__ import annotations

import json
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from isl_emu import captures
from isl_emu import running as isl_emu_running
from isl_emu.errors import MachineError
from isl_emu.units import NS_PER_S
from tests.exact_guest import needs_exact_time
from tests.runs import COMMAND, PATIENCE_S, finished, isl_emu, rows, wait_for
from tests.scenarios import quiet_ring, table
from tests.tshark import fields, needs_tshark

pytestmark = [pytest.mark.emulation, needs_exact_time]

ROUNDING_NS = 2  # netem counts the time to send in whole ns, and so do we
CARRIED = (
    quiet_ring("8 s")
    + table("probes", interval="500 ms", pairs=[["gs-chengdu", "p00s02"], ["p00s00", "p00s01"]])
    + table("[compute]", satellites=["p00s01"], server="modelled", model="qwen3-0-6b", board="three-body",
            context_tokens=1024)
    + table("questions", mean_interval="700 ms", max_answer_tokens=8, deadline="6 s", prompts=["Why?"])
    + table("[program]", name="beat", node="p00s00", command=["sleep", "60"])
    + table("[fault]", name="cut", links=["p00s00 - p00s01"], effect="cut", at="4 s", known="after 1 s",
            **{"for": "2 s"})
)  # fmt: skip
CAPTURED = (
    table("[capture]", name="laser", link=["p00s00", "p00s01"])
    + table("[capture]", name="asked", node="p00s01", filter="tcp port 8080 and host gs-chengdu")
    + table("[capture]", name="few", link=["p00s01", "p00s00"], direction="back", packets=3, snap="40 B")
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run with captures, and the same without."""
    folder = tmp_path_factory.mktemp("captures")
    outs = {name: folder / name / "out" for name in ("first", "without")}
    for name, out in outs.items():
        out.parent.mkdir()
        finished(CARRIED + ("" if name == "without" else CAPTURED), out, "--clock", "exact")
    return outs


def test_the_delay_between_both_ends_of_a_laser_is_the_plans(runs: dict[str, Path]) -> None:
    packets = captures.read(runs["first"], "laser")
    for a, b in (("p00s00", "p00s01"), ("p00s01", "p00s00")):
        sent = [one for one in packets if one.node == a and one.outbound]
        arrived = [one for one in packets if one.node == b and not one.outbound]
        found = captures.one_way(sent, arrived, runs["first"]).to_pylist()
        came = [row for row in found if row["delay_ns"] is not None]
        alone = [row for row in came if row["length"] == 58]  # probes, which wait for nobody
        assert len(alone) >= 10
        assert all(0 <= row["excess_ns"] <= ROUNDING_NS for row in alone)
        assert all(row["delay_ns"] > row["planned_delay_ns"] > 10_000_000 for row in came)
        lost = [row["t_sent_ns"] for row in found if row["delay_ns"] is None]  # the routes do not know of the cut
        assert lost and all(4 * NS_PER_S <= t_ns < 5 * NS_PER_S for t_ns in lost)


def test_a_probe_has_the_same_delay_in_a_capture_as_by_the_prober(runs: dict[str, Path]) -> None:
    packets = captures.read(runs["first"], "laser")
    sent = {one.t_ns for one in packets if one.node == "p00s00" and one.outbound}
    straight = [row for row in rows(runs["first"], "probes") if (row["a"], row["b"]) == ("p00s00", "p00s01")]
    assert len(straight) == 16
    assert {row["t_send_ns"] for row in straight if row["path"] == ["p00s00", "p00s01"]} <= sent


def test_questions_are_known_by_their_port_and_their_words(runs: dict[str, Path]) -> None:
    table_of = captures.dissected(captures.read(runs["first"], "asked"), runs["first"]).to_pylist()
    assert {row["kind"] for row in table_of} == {"question"}
    assert {row["source"] for row in table_of} == {"gs-chengdu", "p00s01"}
    assert any(row["what"].startswith("POST /") for row in table_of)
    assert any(row["what"].startswith("HTTP/1.1 200") for row in table_of)


def test_captures_change_nothing(runs: dict[str, Path]) -> None:
    """All tables of a run with captures are those of one without, byte for byte, but for the load of the guest."""
    first, without = runs["first"], runs["without"]
    assert sorted(path.name for path in (first / "captures").iterdir()) == [
        "asked.pcapng",
        "few.pcapng",
        "laser.pcapng",
    ]
    tables = {path.name for path in without.glob("*.parquet")} - {"plan.parquet"}
    assert tables == {path.name for path in first.glob("*.parquet")} - {"plan.parquet", "captures.parquet"}
    assert "incidents.parquet" not in tables
    assert {one for one in tables if (first / one).read_bytes() != (without / one).read_bytes()} <= {"load.parquet"}
    for out in (first, without):
        assert json.loads((out / "fidelity.json").read_text())["verdict"] == "valid"


def test_what_was_captured_is_told(runs: dict[str, Path]) -> None:
    found = rows(runs["first"], "captures")
    assert all(row["dropped"] == 0 for row in found)
    laser = [row for row in found if row["capture"] == "laser"]
    assert [(row["file"], row["node"], row["peer"]) for row in laser] == [
        ("captures/laser.pcapng", "p00s00", "p00s01"), ("captures/laser.pcapng", "p00s01", "p00s00")
    ]  # fmt: skip
    packets = captures.read(runs["first"], "laser")
    assert sum(row["packets"] for row in laser) == len(packets)
    assert sum(row["byte"] for row in laser) == sum(one.length for one in packets)
    summary = (runs["first"] / "summary.txt").read_text()
    assert "CAPTURES" in summary and "laser.pcapng" in summary
    few = captures.read(runs["first"], "few")
    assert len(few) == 3 and all(len(one.data) == 40 < one.length for one in few)
    assert all((one.node == "p00s00") == one.outbound for one in few)


@needs_tshark
def test_tshark_reads_the_captures_of_a_run_with_names_and_the_plans_comments(runs: dict[str, Path]) -> None:
    for name in ("laser", "asked", "few"):
        found = fields(
            runs["first"] / "captures" / f"{name}.pcapng", "ip.src_host", "frame.comment", "frame.time_epoch"
        )
        assert len(found) == len(captures.read(runs["first"], name))
        assert {source for source, _, _ in found} <= {"gs-chengdu", "p00s00", "p00s01"}
        assert 0 < sum(bool(comment) for _, comment, _ in found) <= len(found)
        times = [time_of for _, _, time_of in found]
        assert times == sorted(times)
    laser = fields(runs["first"] / "captures" / "laser.pcapng", "frame.comment")
    assert any("instant 4, t = 4.000 s; link p00s00 > p00s01: planned down" in comment for (comment,) in laser)


def test_a_scenario_lists_its_captures(tmp_path: Path) -> None:
    (tmp_path / "scenario.toml").write_text(CARRIED + CAPTURED)
    said = isl_emu("check", tmp_path / "scenario.toml").stdout
    assert "# capture.laser: writes packets of p00s00 - p00s01, at most 256 MiB, into the results" in said
    assert "# capture.asked: writes packets of all links of p00s01, tcp port 8080 and host gs-chengdu, at most" in said


def test_a_live_run_is_captured_by_hand_until_there_is_enough_or_somebody_ends_it(tmp_path: Path) -> None:
    out, target = tmp_path / "out", tmp_path / "laser.pcapng"
    (tmp_path / "scenario.toml").write_text(CARRIED.replace('"8 s"', '"300 s"'))
    with ExitStack() as undo:
        words = ["--clock", "exact", "--pace", "1", "--no-report", "--out", out]
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        run = subprocess.Popen([*COMMAND, "run", tmp_path / "scenario.toml", *words], **silent)
        undo.callback(run.wait, PATIENCE_S)
        undo.callback(run.kill)
        wait_for(lambda: _answers(out), "that the run emulates")
        live = isl_emu_running(out)
        assert live.capture("p00s00", "p00s01", out=tmp_path / "few.pcapng", packets=4) == "4 packets"
        words = ["capture", "p00s00", "--filter", "udp and host p00s01", "--out", target, "--run", out]
        capture = subprocess.Popen([*COMMAND, *words], stderr=subprocess.PIPE, text=True)
        undo.callback(capture.kill)
        wait_for(lambda: target.exists() and len(captures.read(target)) > 3, "that packets are captured")
        capture.send_signal(signal.SIGINT)
        _, said = capture.communicate(timeout=PATIENCE_S)
        assert capture.returncode == 0
        with pytest.raises(MachineError, match="never has such a link"):
            live.capture("p00s00", "p00s07", out=tmp_path / "none.pcapng")
        live.stop()
        assert run.wait(PATIENCE_S) == 0
    by_hand = rows(out, "captures")
    assert {(row["capture"], row["file"], row["dropped"]) for row in by_hand} == {("by-hand", None, 0)}
    assert said.strip() == f"{len(captures.read(target))} packets"
    packets = captures.read(tmp_path / "few.pcapng")
    assert len(packets) == 4


def _answers(out: Path) -> bool:
    try:
        isl_emu_running(out).status()
    except MachineError:
        return False
    return True
