"""Runs in exact time from outside: probes and changes at their nanosecond, and two runs the same whatever the load."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from isl_emu.api import read_plan
from isl_emu.errors import MachineError
from isl_emu.experiment import run as isl_emu_run
from isl_emu.machine import guest, hang
from isl_emu.machine.uml import find_uml
from isl_emu.units import NS_PER_S
from tests.exact_guest import needs_exact_time
from tests.kernel.test_exact_tcp import PAYLOAD_BYTE, RATE_BYTE_S, SHORT, slow_start_ns
from tests.runs import COMMAND, PATIENCE_S, ROOT, finished, isl_emu, rows, wait_for
from tests.scenarios import head, quiet_ring, shell, station, table

EXPLAINS_ITSELF = {"provenance.json", "stdout.txt"}  # when and how a run was made


pytestmark = [pytest.mark.emulation, needs_exact_time]

LASERS = {"topology": "+grid", "rate": "100 Gbit/s", "jitter": {"mean_loss_ratio": 0.02, "interval": "3 s"}}
FLEET = shell(24, 4, 1, altitude="1200 km", inclination="60 deg", lasers=LASERS)
TRAFFIC = (
    table("routing", policy="ecmp", equal_by="hops")
    + table("compute", satellites=["p01s*"], server="modelled", board="inference-2035", model="qwen3-8b",
            context_tokens=4096)
    + table("questions", mean_interval="200 ms", target="uniform", max_answer_tokens=16, deadline="60 s",
            prompts=["What is a satellite?", "Why is the sky black? " * 200])
    + table("probes", interval="200 ms", pairs=[["gs-chengdu", "p00s00"], ["p00s00", "p02s03"]])
    + table("[capture]", name="satellite", node="p01s02")
)  # fmt: skip
STATION = station("gs-chengdu", latitude="30.66 deg", longitude="104.06 deg", antennas=2)
HOPS = range(1, 11)
ALONG_A_PLANE = [["p00s00", f"p00s{hops:02d}"] for hops in HOPS]
HOST_LOAD = 20


def _lossy(seed: int) -> str:
    """Flows that are spread over lossy links by chance: whatever could differ between two runs."""
    return head("lossy", seed=seed, rate_scale=0.001, duration="6 s") + FLEET + STATION + TRAFFIC


@contextmanager
def _crowded_machine() -> Iterator[None]:
    """Many times as many busy programs as there are CPUs; so little urgent that others get on."""
    busy = [subprocess.Popen(["nice", "-n", "19", "sh", "-c", "while :; do :; done"]) for _ in range(HOST_LOAD)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def same_or_not(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Results of a scenario, of it again in other circumstances, and with another seed.

    `crowded`: on a busy machine, where Python hashes otherwise. `planned`: of its saved plan, in a guest that is asked
    for by name, at a pace, for a user with other words and another hour.
    """
    folder = tmp_path_factory.mktemp("same-or-not")
    outs = {name: folder / name / "out" for name in ("first", "crowded", "planned", "seeded")}
    for out in outs.values():
        out.parent.mkdir()
    finished(_lossy(1), outs["first"], "--clock", "exact")
    with _crowded_machine(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONHASHSEED", "12345")
        finished(_lossy(1), outs["crowded"], "--clock", "exact")
    plan = folder / "lossy.plan.parquet"
    assert isl_emu("plan", outs["first"].parent / "scenario.toml", "--out", plan).returncode == 0
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"LANG": "C", "TZ": "Asia/Shanghai", "PYTHONHASHSEED": "random"}.items():
            patch.setenv(name, value)
        finished(plan, outs["planned"], "--clock", "exact", "--machine", "guest", "--pace", "1000")
    finished(_lossy(2), outs["seeded"], "--clock", "exact")
    return outs


def _contents(out: Path) -> dict[str, bytes]:
    files = (path for path in (*out.iterdir(), *out.glob("captures/*")) if path.is_file())
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def _differing(a: Path, b: Path) -> set[str]:
    left, right = _contents(a), _contents(b)
    assert left.keys() == right.keys()
    return {name for name in left if left[name] != right[name]}


def test_changes_and_probes_come_at_their_nanosecond(tmp_path: Path) -> None:
    out = tmp_path / "out"
    finished(ROOT / "topologies" / "iridium-star.toml", out, "--duration", "8s", "--clock", "exact")
    assert json.loads((out / "fidelity.json").read_text())["verdict"] == "valid"
    assert {row["lateness_ns"] for row in rows(out, "instants")} == {0}
    probes = [row for row in rows(out, "probes") if not row["straddles_change"]]
    assert {row["hops"] for row in probes} == {5, 8}
    assert {row["error_ns"] for row in probes} == {0}


@pytest.mark.parametrize("aqm", ["none", "fq_codel"])
def test_probes_over_one_to_ten_hops_are_off_by_nothing(tmp_path: Path, aqm: str) -> None:
    """66 satellites in planes of 22, along one of them; 5 instants a second."""
    text = head("planes", rate_scale=0.01, duration="4 s", step="200 ms")
    lasers = {"topology": "+grid", "aqm": aqm}
    text += shell(66, 3, 1, altitude="1200 km", inclination="60 deg", lasers=lasers)
    out = tmp_path / "out"
    finished(text + table("probes", interval="100 ms", pairs=ALONG_A_PLANE), out, "--clock", "exact")
    probes = [row for row in rows(out, "probes") if not row["straddles_change"]]
    assert {row["hops"] for row in probes} == set(HOPS)
    assert {row["error_ns"] for row in probes} == {0}
    assert {row["lateness_ns"] for row in rows(out, "instants")} == {0}
    carried = json.loads((out / "fidelity.json").read_text())["carried_packets"]
    of_the_kernel = 4 * len(read_plan(out / "plan.parquet").link_plan.links.a)  # IPv6 says at each end who listens
    probes = rows(out, "probes")
    over = [row for row in probes if row["t_send_ns"] + row["delay_ns"] <= 4 * NS_PER_S]  # others are on their way
    least, most = (sum(row["hops"] for row in some) for some in (over, probes))
    assert least <= carried <= most + of_the_kernel


def test_a_network_of_1584_satellites_is_as_exact(tmp_path: Path) -> None:
    shipped = (ROOT / "topologies" / "starlink-shell-1.toml").read_text()
    text, _, _ = shipped.partition("[probes]")
    out = tmp_path / "out"
    text += table("probes", interval="250 ms", pairs=ALONG_A_PLANE)
    finished(text, out, "--duration", "3s", "--clock", "exact")
    assert json.loads((out / "fidelity.json").read_text())["verdict"] == "valid"
    probes = [row for row in rows(out, "probes") if not row["straddles_change"]]
    assert {row["hops"] for row in probes} == set(HOPS)
    assert {row["error_ns"] for row in probes} == {0}
    assert {row["lateness_ns"] for row in rows(out, "instants")} == {0}


def test_a_bent_pipe_to_a_server_behind_a_pop_is_as_exact(tmp_path: Path) -> None:
    """Terminal, satellite, gateway, line, PoP, line, server, with a new satellite at the boundary of a slot."""
    text = head("bent-pipe", start="2026-03-20T14:00:06Z", duration="12 s")
    text += shell(200, 10, 3, altitude="1200 km", inclination="60 deg", lasers="none")
    user = {"latitude": "48.4 deg", "longitude": "-123.4 deg", "access_delay": "5 ms", "handover": "scheduled"}
    text += station("user", **user, scheduler={"through": ["gateway"], "weights": {"keep": -100.0}})
    gateway = {"latitude": "48.75 deg", "longitude": "-122.48 deg", "handover": "follow", "antennas": 2}
    text += station("gateway", **gateway, forwards=True)
    text += table("[place]", name="pop", site="berlin") + table("[place]", name="server", site="berlin")
    text += table("[terrestrial]", between=["gateway", "pop"], delay="3 ms", rate="1 Gbit/s")
    text += table("[terrestrial]", between=["pop", "server"], rate="1 Gbit/s")
    out = tmp_path / "out"
    finished(text + table("probes", interval="250 ms", pairs=[["user", "server"]]), out, "--clock", "exact")
    assert json.loads((out / "fidelity.json").read_text())["verdict"] == "valid"
    probes = [row for row in rows(out, "probes") if not row["straddles_change"]]
    assert {row["hops"] for row in probes} == {4}
    assert {row["error_ns"] for row in probes} == {0}
    plan = read_plan(out / "plan.parquet")
    found = {path.nodes[1] for k in range(12) if (path := plan.path("user", "server", k))}
    assert len(found) == 2, "before second 12 and after"


RECEIVE = """
import socket
connection = socket.create_server(("", 9001)).accept()[0]
while connection.recv(65536):
    pass
"""
SEND = """
import socket
connection = socket.create_connection(("p00s01", 9001))
while True:
    connection.sendall(bytes(65536))
"""


def test_probes_wait_behind_own_traffic_and_for_nothing_else(tmp_path: Path) -> None:
    """Two programs fill a laser of 10 Mbit/s that half of the probes cross."""
    python = ["/usr/bin/python3", "-S", "-c"]
    text = head("busy", rate_scale=0.0001, duration="6 s")
    text += shell(24, 4, 1, altitude="1200 km", inclination="60 deg", lasers="+grid")
    text += table("probes", interval="200 ms", pairs=[["p00s00", "p00s02"]])
    text += table("[program]", name="receiver", node="p00s01", command=[*python, RECEIVE])
    text += table("[program]", name="sender", node="p00s00", at="1 s", command=[*python, SEND])
    out = tmp_path / "out"
    finished(text, out, "--clock", "exact")
    assert json.loads((out / "fidelity.json").read_text())["verdict"] == "valid"
    steady = [row for row in rows(out, "probes") if not row["straddles_change"] and row["error_ns"] is not None]
    assert {row["excess_ns"] for row in steady} == {0}
    back = [row["error_ns"] for row in steady if row["a"] == "p00s02"]  # beside acknowledgements
    assert 0 in back and max(back) < 100_000
    there = [row["error_ns"] for row in steady if row["a"] == "p00s00" and row["t_send_ns"] > 3_000_000_000]
    assert min(there) > 1_000_000
    (dropping,) = rows(out, "drops")
    causes = {cause: dropping[cause] for cause in ("down", "fault", "lost", "full", "unclear")}
    assert (dropping["node"], dropping["peer"]) == ("p00s00", "p00s01") and causes["full"] > 0, causes
    assert sum(causes.values()) == causes["full"]


DATAGRAMS, SIZE_BYTE, HEADERS_BYTE = 400, 1000, 14 + 20 + 8  # Ethernet, IPv4 and UDP
SEND_DATAGRAMS = f"""
import socket
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range({DATAGRAMS}):
    sender.sendto(bytes({SIZE_BYTE}), (socket.gethostbyname("p00s01"), 9001))
"""
COUNT_DATAGRAMS = """
import socket
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
receiver.bind(("", 9001))
receiver.settimeout(3)
heard = 0
try:
    while receiver.recv(2000):
        heard += 1
except TimeoutError:
    print(heard)
"""


def test_counters_are_those_of_a_flow_to_the_packet_and_the_byte(tmp_path: Path) -> None:
    """A burst of datagrams, of which most find the queue of a laser of 10 Mbit/s full."""
    python = ["/usr/bin/python3", "-S", "-c"]
    text = head("burst", rate_scale=0.0001, duration="6 s")
    text += shell(24, 4, 1, altitude="1200 km", inclination="60 deg", lasers="+grid")
    text += table("counters", interval="1 s")
    text += table("[program]", name="receiver", node="p00s01", command=[*python, COUNT_DATAGRAMS])
    text += table("[program]", name="sender", node="p00s00", at="1500 ms", command=[*python, SEND_DATAGRAMS])
    out = tmp_path / "out"
    finished(text, out, "--clock", "exact")
    there = [row for row in rows(out, "links") if (row["node"], row["peer"]) == ("p00s00", "p00s01")]
    # before: the kernel's own packets, which say who listens to which group; no row where there were none
    before = [row for row in there if row["t_ns"] < 1_500_000_000] or [dict.fromkeys(there[0], 0)]
    after = there[-1]
    heard = int((out / "programs" / "receiver.log").read_text())
    counted = {name: after[name] - before[-1][name] for name in after if name not in ("node", "peer")}
    assert 0 < heard < DATAGRAMS
    assert (counted["sent_packets"], counted["sent_byte"]) == (heard, heard * (SIZE_BYTE + HEADERS_BYTE))
    assert (counted["dropped_full"], counted["dropped_down"], counted["dropped_lost"]) == (DATAGRAMS - heard, 0, 0)
    assert (after["backlog_packets"], after["waiting_packets"], after["marked"]) == (0, 0, 0)


SERVE = f"""
import socket
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
listener.bind(("", 9001))
listener.listen()
listener.accept()[0].sendall(bytes({SHORT * PAYLOAD_BYTE}))
"""
FETCH = f"""
import socket, sys, time
began_ns, left = time.monotonic_ns(), {SHORT * PAYLOAD_BYTE}
connection = socket.socket()
connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
connection.connect((sys.argv[1], 9001))
while left:
    left -= len(connection.recv(left))
print(time.monotonic_ns() - began_ns)
"""


def test_slow_start_over_lasers_takes_what_the_plan_says(tmp_path: Path) -> None:
    """Two programs of a user's, over four lasers of the rate that the closed form is for; the sky stands meanwhile."""
    python, far = ["/usr/bin/python3", "-S", "-c"], "p00s04"
    text = head("slow-start", duration="4 s", step="4 s")
    lasers = {"topology": "ring", "rate": f"{8 * RATE_BYTE_S // 10**6} Mbit/s", "queue": "1 s"}
    text += shell(24, 2, 1, altitude="1200 km", inclination="60 deg", lasers=lasers)
    text += table("[program]", name="server", node="p00s00", command=[*python, SERVE])
    text += table("[program]", name="client", node=far, at="1 s", command=[*python, FETCH, "p00s00"])
    out = tmp_path / "out"
    finished(text, out, "--clock", "exact")
    path = read_plan(out / "plan.parquet").path("p00s00", far, 0)
    assert path is not None and path.hops == 4
    assert int((out / "programs" / "client.log").read_text()) == slow_start_ns(SHORT, path.delay_ns, path.hops)


@pytest.mark.parametrize("again", ["crowded", "planned"])
def test_two_runs_are_the_same_whatever_the_load_and_the_hashes(same_or_not: dict[str, Path], again: str) -> None:
    assert _differing(same_or_not["first"], same_or_not[again]) <= EXPLAINS_ITSELF
    assert any(row["outcome"] == "completed" for row in rows(same_or_not["first"], "requests"))
    assert any(row["delay_ns"] is None for row in rows(same_or_not["first"], "probes"))  # lost


def test_another_seed_is_another_run(same_or_not: dict[str, Path]) -> None:
    assert {"requests.parquet", "probes.parquet"} <= _differing(same_or_not["first"], same_or_not["seeded"])


def test_what_needs_real_time_is_refused_with_the_reason(tmp_path: Path) -> None:
    scenario = tmp_path / "scenario.toml"
    scenario.write_text(quiet_ring() + table("compute", satellites=["p00s01"]))
    done = isl_emu("run", scenario, "--clock", "exact", "--out", tmp_path / "out")
    assert done.returncode == 1
    assert '--clock exact: compute.server is "real"' in done.stderr and "add board" in done.stderr


def test_provenance_names_the_clock_and_the_kernel(tmp_path: Path) -> None:
    out = tmp_path / "out"
    scenario = tmp_path / "ring.toml"
    scenario.write_text(quiet_ring("2 s"))
    finished(scenario, out)
    place = json.loads((out / "provenance.json").read_text())["place"]
    assert place["clock"] == "exact"
    assert place["kernel"]["sha256"] == find_uml().sha256
    assert find_uml().sha256[:12] in (out / "summary.txt").read_text()


def test_what_programs_say_they_compute_takes_their_share_and_their_power(tmp_path: Path) -> None:
    """A quarter of a core takes four times as long, two at once take turns, and the board draws for it."""
    told = (
        "from isl_emu import compute as c; from time import monotonic_ns as t; c(1.0); print(t()); c(0.25); print(t())"
    )
    text = quiet_ring("8 s") + table(
        "[program]", name="one", node="p00s00", command=["python3", "-c", told], cpus=0.25, cpu_time="stated"
    )
    text += table("[workload]", name="two", function="tests.user_workloads:stating", nodes=["p00s02", "p00s03"],
                  cpus=0.5, cpu_time="stated")  # fmt: skip
    text += table("[power]", board="raspberry-pi-5", bus="10 W", panel={"area": "1 m2"}, battery={"capacity": "100 Wh"},
                  radiator={"area": "1 m2", "heat_capacity": "20 kJ/K"})  # fmt: skip
    text = text.replace('"python3"', json.dumps(sys.executable))
    for out in ("first", "second"):
        finished(text, tmp_path / out, "--clock", "exact")
    begun, ended = map(int, (tmp_path / "first" / "programs" / "one.log").read_text().split())
    assert ended - begun == NS_PER_S
    took_ns = {(row["node"], row["seconds"]): row["took_ns"] for row in rows(tmp_path / "first", "two")}
    assert took_ns == {("p00s02", 0.5): 2 * NS_PER_S, ("p00s02", 1.0): 3 * NS_PER_S, ("p00s03", 0.3): 3 * NS_PER_S // 5}
    busy_ns = {node: 0.0 for node in ("p00s00", "p00s02", "p00s03", "p00s04")}
    for row in rows(tmp_path / "first", "energy"):
        assert row["board_w"] == pytest.approx(3.0 + (9.0 - 3.0) * row["busy_ratio"], abs=1e-4)
        if row["satellite"] in busy_ns:
            busy_ns[row["satellite"]] += row["busy_ratio"] * row["interval_ns"]
    wanted_ns = {"p00s00": 5e9, "p00s02": 3e9, "p00s03": 0.6e9, "p00s04": 0.0}
    assert busy_ns == pytest.approx(wanted_ns, abs=1000)
    computed_ns = sum(row["cpu_ns"] for row in rows(tmp_path / "first", "program_cpu"))
    assert computed_ns == pytest.approx(1.25e9 + 1.8e9, abs=1000)
    assert _differing(tmp_path / "first", tmp_path / "second") <= EXPLAINS_ITSELF


WRONG_CHOICE = """
def choose(situation):
    return situation.nobody
"""


def test_a_users_function_that_fails_in_a_run_is_told_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client finds it in the folder in which isl-emu is called, behind the wall too."""
    (tmp_path / "choice.py").write_text(WRONG_CHOICE)
    (tmp_path / "scenario.toml").write_text(
        quiet_ring("4 s")
        + table("compute", satellites=["p00s00"], server="modelled", board="inference-2035", model="qwen3-8b",
                context_tokens=4096)
        + table("questions", mean_interval="1 s", target="choice:choose", prompts=["Why?"], deadline="3 s",
                max_answer_tokens=16)
    )  # fmt: skip
    command = [*COMMAND, "run", "scenario.toml", "--clock", "exact", "--out", "out"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert "questions.target: choice:choose failed in line 3 of" in done.stdout + done.stderr
    assert (
        "AttributeError ('Situation' object has no attribute 'nobody'), but it must return; mend the function"
        in done.stdout + done.stderr
    )


def _program(name: str, node: str, command: str, **more: object) -> str:
    return table("[program]", name=name, node=node, command=["/bin/sh", "-c", command], **more)


UNLUCKY = (
    quiet_ring("6 s", step="1 s")
    + table("[program]", name="typo", node="p00s00", command=["no-such-program"])
    + _program("brief", "p00s01", "echo cannot bind; exit 4", at="1 s")
    + _program("greedy", "p00s02", "exec /usr/bin/python3 -c 'x = bytearray(10**9)'", at="2.5 s", memory="64 MiB")
    + _program("grep", "p00s03", "exit 1", may_fail=True)
    + _program("lasting", "p00s03", "sleep 2; exit 7", at="1 s")
    + table("probes", pairs=[["p00s03", "p00s06"]], interval="200 ms")
)


def test_what_dies_and_who_intervenes_is_told_with_its_time(tmp_path: Path) -> None:
    (tmp_path / "unlucky.toml").write_text(UNLUCKY)
    command = [*COMMAND, "run", tmp_path / "unlucky.toml", "--clock", "exact", "--pause-at", "3.5s"]
    with ExitStack() as undo:
        run = undo.enter_context(
            subprocess.Popen(
                [*command, "--out", tmp_path / "out"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
        undo.callback(run.terminate)
        wait_for(lambda: isl_emu("status", "--run", tmp_path / "out").stdout.startswith("paused"), "the pause")
        cut = isl_emu("exec", "--run", tmp_path / "out", "p00s04", "--", "ip", "link", "set", "to-p00s05", "down")
        assert cut.returncode == 0, cut.stderr
        assert isl_emu("resume", "--run", tmp_path / "out").returncode == 0
        said, _ = run.communicate(timeout=PATIENCE_S)
    found = {(row["kind"], row["node"]): row for row in rows(tmp_path / "out", "incidents")}
    causes = {place: row["cause"] for place, row in found.items()}
    assert sorted(found) == [*(("death", f"p00s0{n}") for n in range(3)), ("intervention", "p00s04")]
    assert causes["death", "p00s00"] == "there is no program no-such-program"
    assert causes["death", "p00s01"] == "it ended with status 4 (cannot bind)"
    assert "more memory than it may take" in causes["death", "p00s02"]
    cut = found["intervention", "p00s04"]
    assert (cut["t_ns"], cut["t_end_ns"]) == (3_500_000_000, 4_000_000_000)
    assert "to-p00s05 is down" in cut["cause"]
    assert "INVALID: do not trust these figures; 3 reasons at the end" in said
    assert (tmp_path / "out" / "programs" / "brief.log").read_text() == "cannot bind\n"
    after = [row for row in rows(tmp_path / "out", "probes") if row["t_send_ns"] > 4_000_000_000]
    assert after and all(row["error_ns"] == 0 for row in after)


@pytest.mark.parametrize("before", ["", "import time; time.sleep(1)\n"])
def test_a_program_that_computes_without_end_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], before: str
) -> None:
    """Its time stands still, so nothing would ever end it."""
    monkeypatch.setattr(guest, "PATIENCE_S", 20)
    monkeypatch.setattr(hang, "WARN_AFTER_S", 5.0)
    command = [sys.executable, "-c", f"{before}while True: pass"]
    scenario = tmp_path / "spin.toml"
    scenario.write_text(quiet_ring("4 s") + table("[program]", name="spin", node="p00s04", command=command, at="1 s"))
    named = rf"python\S* \({re.escape(shlex.join(command))} in p00s04\)"
    with pytest.raises(MachineError, match=f"computed for .* \\(it runs {named}\\)"):
        isl_emu_run(scenario, out=tmp_path / "out", clock="exact")
    assert re.search(
        rf"Warning: time stands still, since something has computed for \d+ s: {named}", capfd.readouterr().err
    )
    assert "inp00s04)" in "".join((tmp_path / "out" / "summary.txt").read_text().split())


def test_a_cut_loses_what_is_sent_until_it_is_known_and_impairments_are_gone_afterwards(tmp_path: Path) -> None:
    text = head("cut", rate_scale=0.01, duration="14 s", step="500 ms")
    text += shell(24, 4, 1, altitude="1200 km", inclination="60 deg", lasers="+grid")
    text += table("probes", interval="100 ms", pairs=[["p00s00", "p00s01"], ["p02s00", "p02s01"]])
    while_ = {"at": "2 s", "for": "6 s"}
    text += table("[fault]", name="cut", links=["p00s00 - p00s01"], effect="cut", known="after 3 s", **while_)
    text += table("[fault]", name="worse", links=["p02s00 - p02s01"], effect="degrade", jitter="3 ms", loss=0.1,
                  corruption=0.3, duplication=0.3, **while_)  # fmt: skip
    out = tmp_path / "out"
    finished(text, out, "--clock", "exact")
    assert json.loads((out / "fidelity.json").read_text())["verdict"] == "valid"
    probes = [row for row in rows(out, "probes") if not row["straddles_change"]]
    cut = [row for row in probes if row["a"] in ("p00s00", "p00s01")]
    lost = {row["t_send_ns"] for row in cut if row["delay_ns"] is None}
    assert lost == {row["t_send_ns"] for row in cut if 2 * NS_PER_S <= row["t_send_ns"] < 5 * NS_PER_S}
    assert len(lost) == 60
    worse = [row for row in rows(out, "changes") if row["corruption_ratio"] == 0.3]
    assert {(row["jitter_ns"], row["duplication_ratio"]) for row in worse} == {(3_000_000, 0.3)}
    after = [row for row in probes if row["a"] in ("p02s00", "p02s01") and row["t_send_ns"] >= 8 * NS_PER_S]
    assert after and {row["error_ns"] for row in after} == {0}
