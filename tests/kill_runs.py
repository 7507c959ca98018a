"""Kills processes of live runs at random, two runs side by side, and looks at what is left, touched and concluded.

scripts/kill-runs calls it. A victim is killed by SIGKILL at a random moment of a random phase: while the network is
built, while the run is live, and while it is torn down. The run beside it must go on as if nothing had happened, or
loses a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from isl_emu.runs.directory import runs_root
from tests.scenarios import shipped

ROOT = Path(__file__).parents[1]
INSIDE = Path(__file__).parent / "inside_guest"  # what kills in there, by an order in the journal
COMMAND = [sys.executable, "-m", "isl_emu"]
PHASES = {"build": "building", "run": "  emulating", "teardown": "✓ emulating"}
OUTSIDE = ("launcher", "guardian", "calendar", "outside the wall", "first behind it", "guest kernel")
LIVE = "live part"  # in the guest
ANY = "any of the guest"
OTHERS = ("first of a container", "model server", "beside the live part", "output of the guest")  # it may go on
WHO = (*OUTSIDE, LIVE, ANY, *OTHERS)
BOTH = 0.4  # share of pairs of runs of which each loses a process
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
        words = ["run", str(scenario), "--clock", clock, "--machine", "guest"]
        words += ["--duration", f"{duration_s}s", "--out", str(out)]
        modules = os.pathsep.join(filter(None, (str(INSIDE), os.environ.get("PYTHONPATH"))))
        with log.open("w") as said:
            process = subprocess.Popen(
                [*COMMAND, *words],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": modules},
                stdout=said,
                stderr=said,
                text=True,
            )
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
        """The processes of one kind on the machine, none if there is none now."""
        own = _children(self.process.pid)
        guardians = [pid for pid in own if "machine.guardian" in _words(pid)]
        outside = [child for pid in guardians for child in _children(pid)]
        first = [child for pid in outside for child in _children(pid)]
        kernel = [child for pid in first for child in _children(pid)]
        guest = [pid for pid in self.processes() if pid not in own]
        calendars = [pid for pid in own if "calendar_process" in _words(pid)]
        found = ([self.process.pid], guardians, calendars, outside, first, kernel, guest)
        return dict(zip((*OUTSIDE, ANY), found, strict=True))[who]

    def lose(self, who: str, rng: random.Random, until_s: float) -> bool:
        """Kill a process of a kind as soon as there is one; whether the run has lived so long."""
        if who not in (*OUTSIDE, ANY):
            return self._lose_inside(who, until_s)
        while self.process.poll() is None and time.monotonic() < until_s:
            for pid in rng.sample(found, 1) if (found := self.victims(who)) else []:
                try:
                    os.kill(pid, signal.SIGKILL)
                    return True
                except ProcessLookupError:
                    continue
        return False

    def _lose_inside(self, who: str, until_s: float) -> bool:
        order, done = self.out / "journal" / "kill", self.out / "journal" / "killed"
        try:
            order.write_text(who)
        except OSError:  # it is over
            return False
        while not done.exists():
            if self.process.poll() is not None or time.monotonic() > until_s:
                return False
            time.sleep(0.02)
        return True


@dataclass(frozen=True)
class Death:
    """One kill and what came of it; `faults` is empty if all is as it should be."""

    number: int
    clock: str
    phase: str
    who: str
    hit: bool
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


def kill_once(number: int, clock: str, victim: Run, phase: str, who: str, rng: random.Random) -> Death:
    """Kill one process of a run, and look what comes of it."""
    until_s = time.monotonic() + PATIENCE_S
    while not victim.said(PHASES[phase]) and victim.process.poll() is None and time.monotonic() < until_s:
        time.sleep(0.02)
    time.sleep(rng.uniform(0.0, 3.0 if phase != "teardown" else 0.5))
    hit = victim.lose(who, rng, until_s)
    killed_s = time.monotonic()
    faults = []
    end_s = killed_s + (ENDS_WITHIN_S if hit and who in (*OUTSIDE, LIVE) else PATIENCE_S)
    while time.monotonic() < end_s and (victim.process.poll() is None or victim.processes()):
        time.sleep(0.05)
    ended_s = time.monotonic() - killed_s
    if victim.process.poll() is None:
        faults.append("its launcher did not end")
        victim.process.kill()
        victim.process.wait()
    elif late := victim.processes():
        faults.append(f"{len(late)} processes did not end by themselves")
    subprocess.run([*COMMAND, "clean"], cwd=ROOT, capture_output=True, check=False)
    if left := victim.processes():
        faults.append(f"{len(left)} processes are left")
    if (runs_root() / victim.run_id).exists():
        faults.append("its folder in the folder of runs is left")
    faults += [*_wrong_results(victim), *_wrong_words(victim, hit, who)]
    return Death(number, clock, phase, who, hit, ended_s, tuple(faults))


def _wrong_results(victim: Run) -> Iterator[str]:
    if (victim.out / "journal").is_dir():
        conclude = [*COMMAND, "conclude", str(victim.out)]
        done = subprocess.run(conclude, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            yield f"does not conclude: {done.stderr.strip()[-200:]}"
    elif victim.out.exists() and not (victim.out / "summary.txt").is_file():
        yield "has no journal and no summary"


def _wrong_words(victim: Run, hit: bool, who: str) -> Iterator[str]:
    status, said = victim.process.returncode, victim.log.read_text()
    if status not in ((0, 1, 3, *([-signal.SIGKILL] if who == "launcher" else [])) if hit else (0, 3)):
        yield f"ended with status {status}: {said[-200:]}"
    sentences = re.findall(r"^Error: \S.*", said, re.MULTILINE)
    if status == 1 and len(sentences) != 1:
        yield f"said {len(sentences)} sentences: {said[-500:]}"
    if "did not expect" in said or "Traceback" in said:
        yield f"ended with an error that nobody thought of: {said[-500:]}"


def kill_in_pair(
    number: int, folder: Path, clock: str, scenario: Path, rng: random.Random, whom: Sequence[str]
) -> list[Death]:
    """Start two runs, kill one process of the first and perhaps one of the second, and look."""
    runs = [Run.started(folder / f"{number}-{name}", clock, scenario, DURATION_S[clock]) for name in "ab"]
    aims = [
        (number, clock, run, rng.choice(list(PHASES)), rng.choice(whom), random.Random(rng.random()))
        for run in runs[: 1 + (rng.random() < BOTH)]
    ]
    with ThreadPoolExecutor(len(aims)) as pool:
        deaths = list(pool.map(lambda aim: kill_once(*aim), aims))
    for run in runs[len(aims) :]:
        try:
            status = run.process.wait(PATIENCE_S)
            fault = (
                f"the run beside it ended with {status}: {run.log.read_text()[-200:]}" if status not in (0, 3) else ""
            )
        except subprocess.TimeoutExpired:
            run.process.kill()
            fault = "the run beside it did not end"
        if fault:
            deaths.append(Death(number, clock, "beside", "nobody", False, 0.0, (fault,)))
    return deaths


def main(arguments: list[str]) -> int:
    """Kill as often as is wished; 1 if anything was left, touched, or not concluded."""
    parser = argparse.ArgumentParser(
        prog="kill-runs", description="Kill processes of live runs, and look what is left."
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clock", choices=["exact", "real", "both"], default="both")
    parser.add_argument("--who", action="append", choices=WHO, help="only these; can be given several times")
    parser.add_argument("--scenario", type=Path, help="a TOML scenario; by default three-body with two servers")
    options = parser.parse_args(arguments)
    rng, deaths = random.Random(options.seed), list[Death]()
    with tempfile.TemporaryDirectory() as folder:
        scenario = options.scenario or Path(folder) / "scenario.toml"
        if options.scenario is None:
            scenario.write_text(SCENARIO)
        number = 0
        while sum(death.hit for death in deaths) < options.kills:
            number += 1
            clock = options.clock if options.clock != "both" else ("exact", "real")[number % 2]
            whom = [who for who in options.who or WHO if who != "calendar" or clock == "exact"]
            for death in kill_in_pair(number, Path(folder), clock, scenario, rng, whom):
                deaths.append(death)
                told = "; ".join(death.faults) or "nothing left, nothing touched, concluded"
                who = death.who if death.hit else f"{death.who} (gone before)"
                print(f"{number:4}  {clock:5}  {death.phase:8}  {who:34}  {death.ended_s:5.1f} s  {told}", flush=True)
    hits = [death for death in deaths if death.hit]
    counted = Counter((death.clock, death.phase) for death in hits)
    print("\n" + ", ".join(f"{clock} {phase}: {count}" for (clock, phase), count in sorted(counted.items())))
    longest = max((death.ended_s for death in hits if death.who in (*OUTSIDE, LIVE)), default=0.0)
    bad = sum(bool(death.faults) for death in deaths)
    print(f"{len(hits)} kills, {bad} with a fault; the longest end took {longest:.1f} s (seed {options.seed})")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
