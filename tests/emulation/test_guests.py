"""A run spread over several guests is that of one, in exact time to the bit."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from isl_emu.linkplan.plan_file import read_plan
from isl_emu.live.spread import LEAST_DELAY_NS
from isl_emu.scenario.model import FidelityLimits
from tests.exact_guest import needs_exact_time
from tests.runs import COMMAND, PATIENCE_S, ROOT, finished, isl_emu, rows, wait_for
from tests.scenarios import head, shell, station, table

pytest.importorskip("pymetis")
pytestmark = [pytest.mark.emulation, needs_exact_time]

psutil = pytest.importorskip("psutil")
pytest.importorskip("distributed")
CLUSTER, ON_WORKERS = "local:2", 0  # two guests, each on a worker of a cluster
LIMIT_NS = FidelityLimits().probe_error_per_hop_p50_ns
OF_EACH_KERNEL = {"load.parquet"}
SCENARIO = (
    head("spread", rate_scale=0.01, duration="6 s")
    + shell(24, 4, 1, altitude="1200 km", inclination="60 deg", lasers={"topology": "+grid", "rate": "10 Gbit/s"})
    + station("gs-chengdu", latitude="30.66 deg", longitude="104.06 deg", antennas=2)
    + station("gs-tempe", latitude="33.43 deg", longitude="-111.93 deg", antennas=2)
    + table("compute", satellites=["p0*"], server="modelled", board="inference-2035", model="qwen3-8b")
    + table("questions", mean_interval="400 ms", target="uniform", max_answer_tokens=16, prompts=["Why? " * 400])
    + table("probes", interval="500 ms", pairs=[["gs-chengdu", "gs-tempe"], ["p00s00", "p03s02"]])
    + table("counters", interval="2 s")
    + table("[fault]", name="storm", satellites=["p0*"], at="2 s", **{"for": "3 s"}, effect="degrade", loss=0.1)
    + table("[fault]", name="cut", satellites=["p01s0?"], at="3 s", **{"for": "2 s"}, effect="cut")
)


@pytest.fixture(scope="module")
def outs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The results with each number of guests."""
    folder = tmp_path_factory.mktemp("guests")
    found = {guests: folder / str(guests) for guests in (1, 2, 4, ON_WORKERS)}
    for guests, out in found.items():
        words = ["2", "--cluster", CLUSTER] if guests == ON_WORKERS else [str(guests)]
        finished(SCENARIO, out, "--clock", "exact", "--guests", *words)
    return found


@pytest.mark.parametrize("guests", [2, 4, ON_WORKERS])
def test_tables_are_those_of_one_guest_to_the_bit(outs: dict[int, Path], guests: int) -> None:
    one, several = ({path.name: path for path in outs[number].glob("*.parquet")} for number in (1, guests))
    assert one.keys() == several.keys()
    differing = {name for name, path in one.items() if path.read_bytes() != several[name].read_bytes()}
    assert differing <= OF_EACH_KERNEL


def test_a_spread_run_crosses_its_guests_and_leaves_one_folder(outs: dict[int, Path]) -> None:
    part = json.loads((outs[4] / "cut.json").read_text())["part"]
    assert set(part) == {0, 1, 2, 3} and part[-2] != part[-1]  # the stations: each asks from its own guest
    for guests in (4, ON_WORKERS):
        left = {path.name for path in outs[guests].iterdir()} - {path.name for path in outs[1].iterdir()}
        assert left == {"cut.json"}
        assert json.loads((outs[guests] / "fidelity.json").read_text())["reasons"] == []


def test_what_cannot_be_spread_is_refused_by_the_command(tmp_path: Path) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text(SCENARIO + table("[capture]", name="one", node="p01s02"))
    done = isl_emu("run", path, "--clock", "exact", "--guests", "2", "--out", tmp_path / "out")
    assert done.returncode and "--guests: is 2, but [[capture]]" in done.stderr
    assert not (tmp_path / "out").exists()


NEIGHBOURS = [[f"p0{plane}s0{slot}", f"p0{plane}s0{slot + 1}"] for plane in range(4) for slot in (1, 3)]
LIVE = (
    head("live", rate_scale=0.01, duration="8 s", step="2 s")
    + shell(24, 4, 1, altitude="1200 km", inclination="60 deg", lasers={"topology": "+grid", "rate": "10 Gbit/s"})
    + table("probes", interval="100 ms", pairs=[*NEIGHBOURS, ["p00s00", "p02s03"]])
    + table("counters", interval="2 s")
)


@pytest.mark.parametrize("cluster", [(), ("--cluster", CLUSTER)], ids=["here", "on workers"])
def test_in_real_time_what_crosses_takes_what_its_links_do(tmp_path: Path, cluster: tuple[str, ...]) -> None:
    """Of each direction the probe that nothing held up: a busy machine only ever adds to others."""
    out = tmp_path / "real"
    finished(LIVE, out, "--clock", "real", "--guests", "2", *cluster)
    part = dict(zip(read_plan(out / "plan.parquet").nodes.names, json.loads((out / "cut.json").read_text())["part"]))
    assert json.loads((out / "provenance.json").read_text())["place"]["clock"] == "real"
    errors: dict[tuple[str, str], list[float]] = {}
    for probe in rows(out, "probes"):
        crosses = probe["path"] and len({part[node] for node in probe["path"]}) > 1
        if crosses and probe["error_ns"] is not None and not probe["straddles_change"]:
            errors.setdefault((probe["a"], probe["b"]), []).append(probe["error_ns"] / probe["hops"])
    assert errors
    for found in errors.values():
        assert -LIMIT_NS < min(found) < LIMIT_NS
    substrate = rows(out, "substrate")
    assert {(row["from_guest"], row["to_guest"]) for row in substrate} == {(0, 1), (1, 0)}
    for row in substrate[:2]:  # before the run
        assert row["t_ns"] < 0 < row["delay_least_ns"] < LEAST_DELAY_NS["real"] and row["probes"] > 10
        assert abs(row["apart_ns"]) + row["uncertainty_ns"] < LIMIT_NS
    crossing = [row for row in rows(out, "links") if part[row["node"]] != part[row["peer"]]]
    assert sum(row["sent_packets"] for row in crossing) > 0


ENDLESS = (
    head("endless", duration="1200 s", step="1 s")
    + shell(24, 4, 1, altitude="1200 km", inclination="60 deg", lasers={"topology": "+grid", "rate": "10 Gbit/s"})
    + table("probes", interval="500 ms", pairs=[["p00s00", "p01s02"]])
)
VICTIMS = {  # what its command line has
    "guest": "time-travel=ext:1:",
    "agent": "isl_emu.cluster.agent",
    "worker": "from multiprocessing.spawn import",
}


def _said(process: Any) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _alive(process: Any) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


@pytest.mark.parametrize(
    ("victim", "words", "told"),
    [
        ("guest", [], "guest kernel: it died while the command ran"),
        ("agent", ["--cluster", CLUSTER], "signal 9 killed its agent"),
        ("worker", ["--cluster", CLUSTER], "the worker is lost"),
    ],
)
def test_what_is_killed_ends_the_run_which_keeps_its_records_and_leaves_nothing(
    tmp_path: Path, victim: str, words: list[str], told: str
) -> None:
    path, out = tmp_path / "scenario.toml", tmp_path / "out"
    path.write_text(ENDLESS)
    command = [*COMMAND, "run", str(path), "--clock", "exact", "--guests", "2", *words, "--out", str(out)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        applied = out / "journal" / "instants.jsonl"
        wait_for(
            lambda: run.poll() is not None or (applied.exists() and applied.read_text().count("\n") > 2), "a start"
        )
        before = applied.read_text().count("\n")
        tree = psutil.Process(run.pid).children(recursive=True)
        next(one for one in tree if VICTIMS[victim] in _said(one)).kill()
        said = run.communicate(timeout=PATIENCE_S)[0]
    assert run.returncode == 1, said
    assert told in said
    wait_for(lambda: not any(map(_alive, tree)), "the end of all processes")
    assert len(rows(out, "instants")) >= before
    reasons = json.loads((out / "fidelity.json").read_text())["reasons"]
    assert "killed before" in reasons[0], reasons
