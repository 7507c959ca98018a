"""How fast exact time passes: emulated seconds a second of the wall, and where the wall's time goes.

    .venv/bin/python tests/benchmarks/bench_exact.py [--sizes 12,66,351,1584,2800] [--seconds 60] [--real]

Runs `isl-emu run` from outside, as users do: the main job (`topologies/three-body.toml`), then Walker deltas under
+Grid and a sky that changes every second: idle but for a probe a second, with twenty questions a second to modelled
servers, and with bulk TCP over a laser of 100 Mbit/s. The parts of a run's time are those between the lines that it
prints; its processor time, of all its processes, is what other work on the machine disturbs least.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from isl_emu.errors import MachineError  # noqa: E402
from isl_emu.machine.place import choose_place  # noqa: E402
from isl_emu.machine.uml import find_uml  # noqa: E402
from tests.scenarios import head, shell, station, table  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
MAIN_JOB = ROOT / "topologies" / "three-body.toml"
MAIN_JOB_SECONDS = 120.0
PLANES = {12: 1, 66: 6, 351: 13, 1584: 72, 2800: 50}
WAYS = ("idle", "questions", "bulk TCP", "bulk TCP over three hops")  # the first is what others are compared with
LASERS = {"topology": "+grid", "rate": "10 Gbit/s", "grazing_altitude": "80 km"}  # shaped to a hundredth
PYTHON = ["/usr/bin/python3", "-S", "-c"]
RECEIVE = """
import socket
connection = socket.create_server(("", 9001)).accept()[0]
while connection.recv(1 << 18):
    pass
"""
SEND = """
import socket, sys
connection = socket.create_connection((sys.argv[1], 9001))
while True:
    connection.sendall(bytes(1 << 20))
"""
# The first words of the lines at which a part of the run ends, and what that part is called.
MARKS = (
    ("  planning", "Python"),
    ("✓ planning", "plan"),
    ("runs on:", "prepare"),
    ("  building", "boot"),
    ("✓ building", "build"),
    ("  emulating", "servers"),
    ("✓ emulating", "emulate"),
)


@dataclass(frozen=True)
class Found:
    """What one run took.

    Args:
        seconds: emulated, from instant 0.
        wall_s: of the whole command.
        cpu_s: of processors, for it and all that it started.
        parts_s: of it, in order; the last is what comes after the emulated time.
        packets: that nodes received, so one counts at each hop; 0 in real time, where they are not counted.
    """

    seconds: float
    wall_s: float
    cpu_s: float
    parts_s: dict[str, float]
    packets: int
    verdict: str


def scenario_text(size: int, way: str, seconds: float) -> str:
    """A Walker delta of so many satellites, with traffic of one of WAYS."""
    low = {"altitude": "550 km", "inclination": "53 deg"} if size > 24 else {"altitude": "1200 km"}  # whose lasers see
    lasers = {**LASERS, **({"topology": "ring"} if PLANES[size] == 1 else {})}
    text = head(f"exact-{size}", rate_scale=0.01, start="2026-03-20T12:00:00Z", duration=f"{seconds:g} s", step="1 s")
    text += shell(size, PLANES[size], 0 if PLANES[size] == 1 else 1, lasers=lasers, **low)
    text += station("gs", latitude="30 deg", longitude="10 deg", antennas=2)
    text += table("probes", interval="1 s", pairs=[["p00s00", "p00s03"]])
    if way == "questions":
        text += table("compute", satellites=["p*"], server="modelled", board="inference-2035", model="qwen3-8b",
                      context_tokens=4096)  # fmt: skip
        text += table("questions", mean_interval="50 ms", target="uniform", max_answer_tokens=64, deadline="60 s",
                      prompts=["What is a satellite?"])  # fmt: skip
    if way.startswith("bulk TCP"):
        receiver = "p00s03" if way.endswith("three hops") else "p00s01"
        text += table("[program]", name="receiver", node=receiver, command=[*PYTHON, RECEIVE])
        text += table("[program]", name="sender", node="p00s00", at="1 s", command=[*PYTHON, SEND, receiver])
    return text


def run(scenario: str | Path, clock: str, seconds: float) -> Found:
    """Run a scenario, of a text or a file, and look at its lines as they come."""
    with tempfile.TemporaryDirectory() as name:
        if isinstance(scenario, str):
            (Path(name) / "scenario.toml").write_text(scenario)
            scenario = Path(name) / "scenario.toml"
        out = Path(name) / "out"
        words = ["run", str(scenario), "--clock", clock, "--machine", "guest", "--out", str(out)]
        begun_s = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "isl_emu", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert process.stdout is not None
        said, parts_s, before_s, marks = [], {}, begun_s, list(MARKS)
        for line in process.stdout:
            said.append(line)
            while any(line.startswith(words) for words, _ in marks):
                _, part = marks.pop(0)
                parts_s[part], before_s = time.monotonic() - before_s, time.monotonic()
        _, ended, used = os.wait4(process.pid, 0)
        process.returncode = status = os.waitstatus_to_exitcode(ended)
        parts_s["conclude"] = time.monotonic() - before_s
        if status not in (0, 3):
            raise SystemExit("".join(said))
        wall_s, cpu_s = time.monotonic() - begun_s, used.ru_utime + used.ru_stime
        packets = json.loads((out / "fidelity.json").read_text())["carried_packets"] or 0
        return Found(seconds, wall_s, cpu_s, parts_s, packets, "valid" if status == 0 else "invalid")


def _machine() -> str:
    """What figures hold for: processor, kernels, and what else was at work."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    guest = find_uml()
    return f"{os.cpu_count()} x {model}, Linux {os.uname().release}, guest {guest.release}; load before: {load}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="12,66,351,1584,2800")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--main-job", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--real", action="store_true", help="in real time too, up to 66 satellites")
    chosen = parser.parse_args()
    try:
        choose_place("guest", "exact")
    except MachineError as error:
        print(f"exact time is not measured: {error}")
        return
    parts = [*(part for _, part in MARKS), "conclude"]
    figures = Table("satellites", "with", "clock", "wall", "CPU", "emulated s / s", "packets x hops / emulated s",
                    "CPU a packet and hop", "verdict",
                    *parts, title=f"Exact time: runs of {chosen.seconds:g} s\n{_machine()}")  # fmt: skip
    console = Console(width=200)
    idle: dict[tuple[int, str], Found] = {}

    def measure(size: int, way: str, scenario: str | Path, clock: str, seconds: float) -> None:
        found = run(scenario, clock, seconds)
        print(f"{size} satellites, {way}, {clock}: {found}", file=sys.stderr)
        first = idle.setdefault((size, clock), found)
        more = found.packets - first.packets
        figures.add_row(
            *(str(size), way, clock, f"{found.wall_s:.1f} s", f"{found.cpu_s:.1f} s"),
            f"{found.seconds / found.wall_s:.1f}",
            f"{found.packets / found.seconds:,.0f}" if found.packets else "",
            f"{(found.cpu_s - first.cpu_s) / more * 1e6:.0f} us" if more > 0 else "",
            found.verdict,
            *(f"{found.parts_s[part]:.1f}" if part in found.parts_s else "" for part in parts),
        )

    if chosen.main_job:
        measure(12, "main job, 120 s", MAIN_JOB, "exact", MAIN_JOB_SECONDS)
    for size in map(int, chosen.sizes.split(",")):
        for way in chosen.ways.split(","):
            for clock in ("exact", "real") if chosen.real and size <= 66 else ("exact",):
                measure(size, way, scenario_text(size, way, chosen.seconds), clock, chosen.seconds)
    console.print(figures)


if __name__ == "__main__":
    main()
