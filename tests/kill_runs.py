"""Kills processes of live runs at random, two runs side by side, and looks at what is left, touched and concluded.

scripts/kill-runs calls it. A victim is killed by SIGKILL at a random moment of a random phase: while the network is
built, while the run is live, and while it is torn down; the run beside it must go on as if nothing had happened.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from isl_emu.runs.directory import runs_root
from tests.scenarios import shipped

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "isl_emu"]
PHASES = {"build": "building", "run": "  emulating", "teardown": "✓ emulating"}
ANY, SERVERS = "any of the guest", "all in a container"  # the rest of the run may go on
WHO = ("launcher", "guardian", "calendar", "outside the wall", "first behind it", "guest kernel", ANY, SERVERS)
ENDS_WITHIN_S = 30.0
PATIENCE_S = 300.0
DURATION_S = {"exact": 30, "real": 8}
SCENARIO = shipped("three-body", {'[compute]\nsatellites = "all"': '[compute]\nsatellites = ["p00s00", "p00s03"]'})


@dataclass
class Run:
    """A run that was started: its process, what it says, where its results are, and its id."""

    process: subprocess.Popen[str]
    log: Path
    out: Path
    run_id: str

    @classmethod
    def started(cls, out: Path, clock: str, scenario: Path, duration_s: int) -> Run:
        log = out.with_suffix(".log")
        words = [
            "run",
            str(scenario),
            "--clock",
            clock,
            "--machine",
            "guest",
            "--duration",
            f"{duration_s}s",
            "--out",
            str(out),
        ]
        with log.open("w") as said:
            process = subprocess.Popen([*COMMAND, *words], cwd=ROOT, stdout=said, stderr=said, text=True)
        until_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < until_s and process.poll() is None:
            for owner in runs_root().glob("*/owner.json"):
                try:
                    if json.loads(owner.read_text())["pid"] == process.pid:
                        return cls(process, log, out, owner.parent.name)
                except (OSError, ValueError):
                    continue
            time.sleep(0.02)
        raise SystemExit(f"a run did not begin: {log.read_text()}")

    def said(self, word: str) -> bool:
        return word in self.log.read_text()

    def processes(self) -> set[int]:
        """All of the guest and the calendar, as their current folders tell."""
        folder = f"{runs_root().resolve() / self.run_id}/"
        return {pid for pid, where in _current_folders() if where.startswith(folder)}

    def victims(self, who: str) -> list[int]:
        """The processes of one kind, none if there is none now."""
        own = _children(self.process.pid)
        guardians = [pid for pid in own if "machine.guardian" in _words(pid)]
        outside = [child for pid in guardians for child in _children(pid)]
        first = [child for pid in outside for child in _children(pid)]
        kernel = [child for pid in first for child in _children(pid)]
        guest = [pid for pid in self.processes() if pid not in own]
        calendars = [pid for pid in own if "calendar_process" in _words(pid)]
        return dict(
            zip(WHO, ([self.process.pid], guardians, calendars, outside, first, kernel, guest, own), strict=True)
        )[who]


@dataclass(frozen=True)
class Death:
    """One kill and what came of it; `faults` is empty if all is as it should be."""

    number: int
    clock: str
    phase: str
    who: str
    ended_s: float
    faults: tuple[str, ...]


def _current_folders() -> Iterator[tuple[int, str]]:
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            yield int(name), os.readlink(f"/proc/{name}/cwd")
        except OSError:
            continue


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _words(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def kill_once(number: int, folder: Path, clock: str, scenario: Path, rng: random.Random) -> Death:
    """Start two runs, kill one process of the first, and look."""
    phase, who = rng.choice(list(PHASES)), rng.choice([who for who in WHO if who != "calendar" or clock == "exact"])
    duration_s = DURATION_S[clock]
    victim = Run.started(folder / f"{number}-victim", clock, scenario, duration_s)
    beside = Run.started(folder / f"{number}-beside", clock, scenario, duration_s)
    until_s = time.monotonic() + PATIENCE_S
    while not victim.said(PHASES[phase]) and victim.process.poll() is None and time.monotonic() < until_s:
        time.sleep(0.02)
    time.sleep(rng.uniform(0.0, 3.0 if phase != "teardown" else 0.5))
    found: list[int] = []
    while not found and victim.process.poll() is None and time.monotonic() < until_s:
        found = victim.victims(who)
    killed_s = time.monotonic()
    if found and who == SERVERS:
        words = ["exec", "--run", str(victim.out), "p00s03", "sh", "-c", "kill -9 -1"]
        subprocess.run([*COMMAND, *words], cwd=ROOT, capture_output=True, check=False)
    for pid in rng.sample(found, 1) if found and who != SERVERS else []:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            found = []
    faults = []
    end_s = killed_s + (ENDS_WITHIN_S if found and who not in (ANY, SERVERS) else PATIENCE_S)
    while time.monotonic() < end_s and (victim.process.poll() is None or victim.processes()):
        time.sleep(0.05)
    ended_s = time.monotonic() - killed_s
    if victim.process.poll() is None:
        faults.append("its launcher did not end")
        victim.process.kill()
        victim.process.wait()
    elif late := victim.processes():
        faults.append(f"{len(late)} processes did not end by themselves")
    status = victim.process.returncode
    subprocess.run([*COMMAND, "clean"], cwd=ROOT, capture_output=True, check=False)
    if left := victim.processes():
        faults.append(f"{len(left)} processes are left")
    if (runs_root() / victim.run_id).exists():
        faults.append("its folder in the folder of runs is left")
    if (victim.out / "journal").is_dir():
        done = subprocess.run(
            [*COMMAND, "conclude", str(victim.out)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            faults.append(f"does not conclude: {done.stderr.strip()[-200:]}")
    elif victim.out.exists() and not (victim.out / "summary.txt").is_file():
        faults.append("has no journal and no summary")
    if status not in ((0, 1, 3, -signal.SIGKILL) if found else (0, 3)):
        faults.append(f"ended with status {status}: {victim.log.read_text()[-200:]}")
    elif "did not expect" in victim.log.read_text():
        faults.append("ended with an error that nobody thought of")
    try:
        if beside.process.wait(PATIENCE_S) not in (0, 3):
            faults.append(f"the run beside it ended with {beside.process.returncode}: {beside.log.read_text()[-200:]}")
    except subprocess.TimeoutExpired:
        beside.process.kill()
        faults.append("the run beside it did not end")
    return Death(number, clock, phase, who if found else f"{who} (gone before)", ended_s, tuple(faults))


def main(arguments: list[str]) -> int:
    """Kill as often as is wished; 1 if anything was left, touched, or not concluded."""
    parser = argparse.ArgumentParser(
        prog="kill-runs", description="Kill processes of live runs, and look what is left."
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clock", choices=["exact", "real", "both"], default="both")
    parser.add_argument("--scenario", type=Path, help="a TOML scenario; by default three-body with two servers")
    options = parser.parse_args(arguments)
    rng, deaths = random.Random(options.seed), list[Death]()
    with tempfile.TemporaryDirectory() as folder:
        scenario = options.scenario or Path(folder) / "scenario.toml"
        if options.scenario is None:
            scenario.write_text(SCENARIO)
        number = 0
        while sum(death.who in WHO for death in deaths) < options.kills:
            number += 1
            clock = options.clock if options.clock != "both" else ("exact", "real")[number % 2]
            death = kill_once(number, Path(folder), clock, scenario, rng)
            deaths.append(death)
            told = "; ".join(death.faults) or "nothing left, nothing touched, concluded"
            print(f"{number:4}  {clock:5}  {death.phase:8}  {death.who:32}  {death.ended_s:5.1f} s  {told}", flush=True)
    counted = Counter((death.clock, death.phase) for death in deaths)
    print("\n" + ", ".join(f"{clock} {phase}: {count}" for (clock, phase), count in sorted(counted.items())))
    longest = max((death.ended_s for death in deaths if death.who in WHO[:6]), default=0.0)
    bad = sum(bool(death.faults) for death in deaths)
    kills = sum(death.who in WHO for death in deaths)
    print(f"{kills} kills, {bad} with a fault; the longest end took {longest:.1f} s (seed {options.seed})")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
