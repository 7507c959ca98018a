"""A run spread over several guests is that of one, in exact time to the bit."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isl_emu import captures
from isl_emu.linkplan.plan_file import read_plan
from isl_emu.live.spread import LEAST_DELAY_NS
from isl_emu.network.naming import ipv4_address
from isl_emu.scenario.model import FidelityLimits
from isl_emu.scenario.parse import load_scenario
from isl_emu.units import NS_PER_MS as MS
from isl_emu.units import NS_PER_S as S
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
SERVE = """
import socket
listening = socket.create_server(("", 9000))
while True:
    asking, _ = listening.accept()
    got = sum(iter(lambda: len(asking.recv(65536)), 0))
    asking.sendall(b"%d" % got)
    asking.close()
    print(got, flush=True)
"""
SEND = """
import isl_emu, socket, time
serving = socket.create_connection(("p01s01", 9000))
serving.sendall(bytes(100_000))
serving.shutdown(socket.SHUT_WR)
isl_emu.compute(0.25)
open("told.txt", "a").write(f"{serving.recv(99)} at {time.time_ns()}\\n")
"""
WHO_AM_I = """
import os, urllib.request
open("asked.json", "wb").write(urllib.request.urlopen("http://169.254.169.254/").read())
open("read.json", "wb").write(open(os.environ["ISL_EMU_NODE"], "rb").read())
"""


def program(name: str, node: str, code: str, **keys: Any) -> str:
    return table("[program]", name=name, node=node, command=[sys.executable, "-c", code], cpu_time="stated", **keys)


NETWORK = (
    head("spread", rate_scale=0.01, duration="5 s")
    + shell(24, 4, 1, altitude="1200 km", inclination="60 deg", lasers={"topology": "+grid", "rate": "10 Gbit/s"})
    + station("gs-chengdu", latitude="30.66 deg", longitude="104.06 deg", antennas=2)
    + station("gs-tempe", latitude="33.43 deg", longitude="-111.93 deg", antennas=2)
    + table("probes", interval="500 ms", pairs=[["gs-chengdu", "gs-tempe"], ["p00s00", "p03s02"]])
)
COMPUTE = table(
    "compute", satellites=["p00*", "p0[123]s0[03]"], server="modelled", board="inference-2035", model="qwen3-8b"
)
QUESTIONS = table("questions", mean_interval="400 ms", target="uniform", max_answer_tokens=16, prompts=["Why? " * 400])
SCENARIO = (
    NETWORK
    + COMPUTE
    + QUESTIONS
    + table("counters", interval="2 s")
    + table("[fault]", name="storm", satellites=["p0*"], at="2 s", **{"for": "3 s"}, effect="degrade", loss=0.1)
    + table("[fault]", name="cut", satellites=["p01s0?"], at="3 s", **{"for": "2 s"}, effect="cut")
    + table("[fault]", name="dark", satellites=["p00s05", "p02s0?"], at="3 s", **{"for": "2 s"}, effect="power-off")
    + table("[fault]", name="struck", servers=["p00*"], at="2 s", **{"for": "1 s"}, effect="kill")
    + table("[fault]", name="halted", programs=["serve"], at="4 s", **{"for": "1 s"}, effect="stop")
    + table("[capture]", name="laser", link=["p01s01", "p01s02"], filter="udp")
    + table("[capture]", name="few", link=["p00s01", "p00s02"], packets=7, filter="udp")
    + table("[capture]", name="node", node="p01s02", filter="udp")
    + table("[capture]", name="tcp", link=["p02s00", "p02s05"], filter="tcp")
    + program("serve", "p01s01", SERVE)
    + program("near", "p01s02", SEND, repeat="3 s", may_fail=True)
    + program("far", "p02s05", SEND, at="2600 ms", may_fail=True)
    + program("ground", "gs-tempe", SEND, at="100 ms", may_fail=True)
    + program("who-am-i", "p00s05", WHO_AM_I, on="fault", may_fail=True)
    + program("who-are-you", "p02s03", WHO_AM_I, at="2500 ms")
    + table("[workload]", name="sayings", function="tests.user_workloads:stating", nodes=["p01s05", "p00s02"],
            cpu_time="stated")
    + table("[training]", name="tuning", satellites=["p02s0[34]", "p02s05"],
            modelled={"compute_time": "150 ms", "gradient": "20 MB"}, on_loss="heal", timeout="2 s")
    + table("metadata", nodes=["p00s0?", "p02s03", "gs-tempe"])
    + table("[power]", satellites=["p03*"], bus="60 W", panel={"area": "0.3 m2", "pointing": "sun"},
            battery={"capacity": "100 Wh", "start_charge": 0.83, "depth_of_discharge": 0.2},
            radiator={"area": "0.5 m2", "heat_capacity": "20 kJ/K"})
)  # fmt: skip


@pytest.fixture(scope="module")
def outs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The results with each number of guests; two are on workers, as which they are two guests like any other."""
    folder = tmp_path_factory.mktemp("guests")
    found = {guests: folder / str(guests) for guests in (1, 4, ON_WORKERS)}
    for guests, out in found.items():
        words = ["2", "--cluster", CLUSTER] if guests == ON_WORKERS else [str(guests)]
        finished(SCENARIO, out, "--clock", "exact", "--guests", *words)
    return found


@pytest.mark.parametrize("guests", [4, ON_WORKERS])
def test_tables_and_the_summary_are_those_of_one_guest_to_the_bit(outs: dict[int, Path], guests: int) -> None:
    one, several = ({path.name: path for path in outs[number].glob("*.parquet")} for number in (1, guests))
    assert one.keys() == several.keys()
    assert (outs[1] / "summary.txt").read_text() == (outs[guests] / "summary.txt").read_text()
    differing = {name for name, path in one.items() if path.read_bytes() != several[name].read_bytes()}
    assert differing <= OF_EACH_KERNEL


@pytest.mark.parametrize("guests", [4, ON_WORKERS])
def test_captures_have_the_same_packets_also_of_links_that_cross(outs: dict[int, Path], guests: int) -> None:
    """But for what each kernel draws at random: ports, first sequence numbers, and checksums with them."""
    one, several = (outs[number] / "captures" for number in (1, guests))
    part = json.loads((outs[guests] / "cut.json").read_text())["part"]
    assert part[7] != part[8] and part[1] != part[2]  # the ends of two captures
    for name in ("laser", "few", "node"):  # of probes alone
        assert (one / f"{name}.pcapng").read_bytes() == (several / f"{name}.pcapng").read_bytes(), name
    packets = captures.read(one / "tcp.pcapng")
    assert len(packets) > 50
    assert [_drawn_apart(packet) for packet in packets] == [
        _drawn_apart(packet) for packet in captures.read(several / "tcp.pcapng")
    ]


def _drawn_apart(packet: captures.Captured) -> captures.Captured:
    """A packet without its bytes, but for those that were sent by programs."""
    return replace(packet, data=bytes(packet.packet["TCP"].payload))


@pytest.mark.parametrize("guests", [4, ON_WORKERS])
def test_programs_leave_what_they_would_in_one_guest(outs: dict[int, Path], guests: int) -> None:
    """What they printed, and the files of their nodes."""
    one, several = (
        {path.relative_to(outs[number]): path for place in ("files", "programs")
         for path in (outs[number] / place).rglob("*") if path.is_file()}
        for number in (1, guests)
    )  # fmt: skip
    assert one.keys() == several.keys()
    assert Path("files/p00s05/asked.json") in one and Path("files/gs-tempe/told.txt") in one
    assert not [name for name, path in one.items() if path.read_bytes() != several[name].read_bytes()]


def test_the_scenario_has_all_that_is_compared(outs: dict[int, Path]) -> None:
    programs = {(row["name"], row["outcome"]) for row in rows(outs[1], "programs")}
    assert {("near", "ended"), ("ground", "ended"), ("far", "killed by a fault")} <= programs
    assert {row["node"] for row in rows(outs[1], "program_cpu")} >= {"p01s02", "gs-tempe", "p01s05"}
    assert {row["effect"] for row in rows(outs[1], "faults")} == {"cut", "degrade", "power-off", "kill", "stop"}
    assert {row["mode"] for row in rows(outs[1], "energy")} == {"power-limited", "nominal"}
    assert len(rows(outs[1], "sayings")) == 3 and len(rows(outs[1], "training")) > 1


def test_a_spread_run_crosses_its_guests_and_leaves_one_folder(outs: dict[int, Path]) -> None:
    part = json.loads((outs[4] / "cut.json").read_text())["part"]
    assert set(part) == {0, 1, 2, 3} and part[-2] != part[-1]  # the stations: each asks from its own guest
    for guests in (4, ON_WORKERS):
        left = {path.name for path in outs[guests].iterdir()} - {path.name for path in outs[1].iterdir()}
        assert left == {"cut.json"}
        assert json.loads((outs[guests] / "fidelity.json").read_text())["reasons"] == []


@pytest.mark.parametrize(
    "routing", [{"policy": "ecmp", "tolerance": "20 ms"}, {"forwarding": "srv6"}], ids=["ecmp", "srv6"]
)
def test_packets_take_the_ways_that_they_would_in_one_guest(tmp_path: Path, routing: dict[str, str]) -> None:
    """Over several equal ones by their ports, and by the headers in which their ways are written."""
    text = NETWORK + COMPUTE + QUESTIONS + table("counters", interval="2 s") + table("routing", **routing)
    for guests in ("1", "2"):
        (tmp_path / guests).mkdir()
        finished(text, tmp_path / guests / "out", "--clock", "exact", "--guests", guests)
    one, two = ({path.name: path for path in (tmp_path / guests / "out").glob("*.parquet")} for guests in ("1", "2"))
    assert {name for name, path in one.items() if path.read_bytes() != two[name].read_bytes()} <= OF_EACH_KERNEL
    assert len(rows(tmp_path / "1" / "out", "requests")) >= 10


def test_what_cannot_be_spread_is_refused_by_the_command(tmp_path: Path) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text(SCENARIO + table("routing", policy="ecmp"))
    done = isl_emu("run", path, "--clock", "exact", "--guests", "2", "--out", tmp_path / "out")
    assert done.returncode and "--guests: is 2, but routing.policy" in done.stderr
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
    "worker": "from multiprocessing.spawn import",
}


def test_a_second_terminal_reaches_the_guest_of_each_node_also_while_all_stand(tmp_path: Path) -> None:
    """On workers, where a request also travels to its guest and the answer back."""
    path, out = tmp_path / "scenario.toml", tmp_path / "out"
    path.write_text(ENDLESS + program("hears", "p02s00", "import sys; sys.stdin.read()", may_fail=True))
    command = [*COMMAND, "run", str(path), "--clock", "exact", "--guests", "2", "--cluster", CLUSTER, "--out", str(out)]
    command += ["--pause-at", "2s", "--pace", "20", "--no-report"]
    with ExitStack() as undo:
        run = undo.enter_context(
            subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )
        undo.callback(run.terminate)
        wait_for(lambda: "paused at t = 2.0 s" in isl_emu("status", "--run", out).stdout, "a pause")
        names, part = load_scenario(path).node_names, json.loads((out / "cut.json").read_text())["part"]
        for number in (part.index(0), part.index(1)):
            found = isl_emu("exec", "--run", out, names[number], "--", "ip", "-o", "addr", "show", "dev", "lo")
            assert f"{ipv4_address(number)}/32" in found.stdout, found
        here = next(number for number in range(24) if part[number] != part[number - 1] and number % 6)
        said = isl_emu("link", names[here - 1], names[here], "--run", out).stdout
        assert said.startswith("plan: ") and all(f"\n{name} " in said for name in names[here - 1 : here + 1]), said
        assert "programs: 0 running, 1 ended" in isl_emu("status", "--run", out).stdout
        cut = isl_emu("fault", names[here - 1], names[here], "--run", out, "--for", "1500ms").stdout
        assert cut == f"{names[here - 1]} - {names[here]}: cut from t = 2.000 s\n", cut
        refused = isl_emu("set", names[here - 1], names[here], "--delay", "1us", "--run", out).stderr
        assert "leads from one guest of the run to another" in refused
        said = isl_emu("resume", "--run", out, "--until", "2500ms").stdout
        assert said == "goes on at t = 2.000 s\npaused at t = 2.500 s\n"
        assert isl_emu("resume", "--run", out).stdout == "goes on at t = 2.500 s\n"
        slowed = isl_emu("set", names[1], names[2], "--loss", "1", "--run", out).stdout
        assert isl_emu("stop", "--run", out).stdout.startswith("ends at t = ")
        run.wait(PATIENCE_S)
    t_ns = round(float(re.findall(r"loss 1 from t = ([\d.]+) s", slowed)[0]) * S)
    first, second = rows(out, "incidents")
    assert (first["t_ns"], first["t_end_ns"], second["t_end_ns"]) == (2 * S, 3500 * MS, None)
    assert second["t_ns"] >= 2500 * MS + S and abs(second["t_ns"] - t_ns) <= MS
    ends = {*names[here - 1 : here + 1]}
    up = {
        (row["t_applied_ns"], row["node"]): row["up"]
        for row in rows(out, "changes")
        if {row["node"], row["peer"]} == ends
    }
    cut_then = {name: (up[2 * S, name], up[3500 * MS, name]) for name in ends}  # at the same nanosecond in two guests
    assert cut_then == dict.fromkeys(ends, (False, True))


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
        ("worker", ["--cluster", CLUSTER], "the worker is lost"),
    ],
)
def test_what_is_killed_ends_the_run_which_keeps_its_records_and_leaves_nothing(
    tmp_path: Path, victim: str, words: list[str], told: str
) -> None:
    path, out = tmp_path / "scenario.toml", tmp_path / "out"
    path.write_text(ENDLESS)
    command = [*COMMAND, "run", str(path), "--clock", "exact", "--guests", "2", *words, "--out", str(out)]
    command += ["--no-report"]
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
