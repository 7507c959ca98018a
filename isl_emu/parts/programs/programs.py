"""A user's programs and workloads as processes of their nodes.

A program is started in its node when it is due and ended with the run at the latest; a workload's process is in the
container of its first node from before the run begins."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import threading
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from isl_emu.errors import MachineError, WorkloadError
from isl_emu.machine.sandbox import ATTR_RDONLY, tree_of
from isl_emu.nodes.containers import Container
from isl_emu.nodes.namespaces import CAP_NET_ADMIN, CAP_SYS_ADMIN
from isl_emu.parts.activity import Activity
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.programs.occasions import Occasion, occasions
from isl_emu.parts.programs.user_workload import journal_of
from isl_emu.parts.residents import Resident, flip_bits
from isl_emu.runs.clock import FILE as CLOCK_FILE
from isl_emu.runs.clock import RunTimes
from isl_emu.runs.endpoints import read_endpoints
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import Journal
from isl_emu.runs.process import LAST_WORDS_S, Watched, cause_of_death, end, kill, last_line, module_command
from isl_emu.scenario.programs import OURS, Program, UserWorkload
from isl_emu.units import NS_PER_S

JOURNAL = "programs"
STARTS_JOURNAL = "program_starts.jsonl"  # for who asks how many run
LOOK_INTERVAL_S = 0.2  # between two looks at whether a program has ended
KILL_AFTER_S = 5.0  # from SIGTERM
AT_START_NS = NS_PER_S  # a program that fails within this time has not done what it was started for
NOT_RUN = (126, 127)  # the status of a shell that could not run a command
LOGS = "programs"  # in the run folder
BUFFERS = "buffers"  # in the folder of a node's files: what a program keeps there, bits can be flipped in
HERE_VARIABLE = "ISL_EMU_HERE"  # names the folder in which isl-emu was called


def found_here(command: Sequence[str]) -> list[str]:
    """A command whose relative words that name files below the current folder are whole paths.

    Programs begin in the folder of their node's files, but a scenario's user thinks of the folder where he is. A first
    word without "/" is looked for in PATH, as always. A word may be a whole program: longer than any file's name.
    """
    return [
        str(Path(word).absolute()) if ("/" in word or place) and os.path.isfile(word) else word
        for place, word in enumerate(command)
    ]


def _environment() -> dict[str, str]:
    """This process's, with the folder in which isl-emu was called: programs begin in another."""
    here = os.getcwd()
    modules = [path for path in (os.environ.get("PYTHONPATH"), here) if path]
    return {**os.environ, HERE_VARIABLE: here, "PYTHONPATH": ":".join(modules)}


def log_of(name: str, folder: RunFolder) -> Path:
    """What a program or workload has printed."""
    return folder.path / LOGS / f"{name}.log"


class ProgramThread(threading.Thread):
    """Starts one program on each of its occasions, waits for its end or ends it, and records what became of it.

    Args:
        due: the occasions, in order; one that comes while it still runs is recorded, and passes.
        own: takes its process id.
        starts: takes a record when it is started; `ends` what became of it.
    """

    def __init__(
        self,
        program: Program,
        due: Sequence[Occasion],
        live: LiveRun,
        times: RunTimes,
        own: set[int],
        starts: Journal,
        ends: Journal,
    ):
        super().__init__(name=f"program {program.name}", daemon=True)
        self.stopped = threading.Event()
        self.process: subprocess.Popen[bytes] | None = None
        self.again = threading.Event()  # set when it is to start after a fault
        self._program, self._due, self._live, self._times = program, due, live, times
        self._own, self._starts, self._ends = own, starts, ends
        self._occasion = Occasion(program.at_ns)  # that it was started on
        self._words = list(program.command)  # as they are run, once it was started

    def run(self) -> None:
        ended_ns = -1  # of the run before
        for occasion in self._due:
            self._occasion = occasion
            if occasion.t_ns < ended_ns:
                self._record(t_start_ns=None, outcome="still running")
            elif self._live.clock.wait_until_ns(self._times.t0_ns + occasion.t_ns, self.stopped):
                return self._record(t_start_ns=None, outcome="not started")
            else:
                self._live_on()
                ended_ns = self._now_ns()
        return None

    def _live_on(self) -> None:
        """Start it, and again each time that a fault that has killed it is over, until it ends or is ended."""
        run_ns, span_ns = self._times.duration_ns, self._program.duration_ns
        end_ns = run_ns if span_ns is None else min(self._occasion.t_ns + span_ns, run_ns)
        while self._live_once(end_ns):
            while not self.again.wait(LOOK_INTERVAL_S):  # a fault has killed it, and is not over
                if self.stopped.is_set() or self._now_ns() >= end_ns:
                    return
            self.again.clear()

    def _live_once(self, end_ns: int) -> bool:
        """Start it, wait for its end or end it, and record that: whether a fault has killed it."""
        program, live = self._program, self._live
        start_ns, oom_before = self._now_ns(), live.containers[program.node].oom_kills()
        try:
            process = self._start()
        except (OSError, MachineError) as error:
            cause = "its container is dead" if isinstance(error, MachineError) else _why_not_started(error)
            with log_of(program.name, live.folder).open("a") as log:
                log.write(f"{cause}\n")
            self._died(cause)
            self._record(t_start_ns=start_ns, outcome="cannot be started")
            return False
        self.process = process
        while process.poll() is None and self._now_ns() < end_ns and not self.stopped.is_set():
            _await_end(process, LOOK_INTERVAL_S)
        ended = process.poll() is None
        killed = live.watch.is_declared(process.pid) and not ended
        if ended and live.containers[program.node].suspended:  # it stands still, and hears nothing
            kill([process])
        elif ended:
            end([process], KILL_AFTER_S)
        elif not killed:
            oom_kills = live.containers[program.node].oom_kills() - oom_before
            self._judge(process.returncode, self._now_ns() - start_ns, oom_kills)
        outcome = "ended by isl-emu" if ended else "killed by a fault" if killed else "ended"
        self._record(t_start_ns=start_ns, outcome=outcome, status=process.returncode)
        return killed

    def _judge(self, status: int, lasted_ns: int, oom_kills: int) -> None:
        """How a program ends by itself is a result; that it is killed, or fails at its start, nobody wanted."""
        if oom_kills or status < 0 or status in NOT_RUN or (status and lasted_ns < AT_START_NS):
            cause = cause_of_death(status, oom_kills, log_of(self._program.name, self._live.folder))
            self._died(cause, short_of_memory=bool(oom_kills))

    def _died(self, cause: str, *, short_of_memory: bool = False) -> None:
        if not self._program.may_fail and not self.stopped.is_set():
            what, node = f"program {self._program.name}", self._program.node
            self._live.watch.record(what, node, cause, short_of_memory=short_of_memory)

    def _start(self) -> subprocess.Popen[bytes]:
        """The program in its node's container."""
        program = self._program
        with log_of(program.name, self._live.folder).open("ab") as output:
            container = self._live.containers[program.node]
            command = self._command()
            self._words = self._words or command
            if container.image is None and shutil.which(command[0]) is None:
                raise FileNotFoundError(f"there is no program {program.command[0]}")
            self._starts.append({"name": program.name, "t_ns": self._now_ns()})
            usual = container.image_environment if container.image else _environment()
            process = container.popen(
                command,
                users=True,
                keep=(CAP_NET_ADMIN,) if program.may_route else (),
                cwd=self._folder(container),
                env={**usual, **program.env, **self._told()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._own.add(process.pid)
        return process

    def _command(self) -> list[str]:
        """What is run, word by word; without words of its own that is the entry point of its node's image.

        Raises:
            FileNotFoundError: the image has none.
        """
        program, image = self._program, self._live.containers[self._program.node].image
        if image is None or program.command:
            return list(program.command) if image else found_here(program.command)
        if not (found := [*image.image.entry_point, *(program.args or image.image.arguments)]):
            raise FileNotFoundError(f"image {image.image.path} has no entry point; say what to run")
        return found

    def _folder(self, container: Container) -> Path | None:
        """Where it begins; a relative folder is one of its node's files."""
        own, out = self._program.cwd, container.out
        if own is None and container.image:
            own = container.image.image.folder or None
        return out if own is None else Path(own) if out is None else out / own

    def _told(self) -> dict[str, str]:
        """The variables by which it knows on what occasion it was started."""
        if self._program.on is None:
            return {}
        about = {f"{OURS}ABOUT": self._occasion.about} if self._occasion.about else {}
        return {f"{OURS}EVENT": self._program.on, f"{OURS}T_NS": str(self._occasion.t_ns), **about}

    def _now_ns(self) -> int:
        return self._live.clock.now_ns() - self._times.t0_ns

    def _record(self, **facts: Any) -> None:
        program = self._program
        what: dict[str, Any] = {"name": program.name, "node": program.node, "command": self._words}
        what |= {"t_due_ns": self._occasion.t_ns, "occasion": program.on, "about": self._occasion.about or None}
        self._ends.append({**what, "t_end_ns": self._now_ns(), "status": None, **facts})


def _why_not_started(error: OSError) -> str:
    """Why a program cannot be started: what was looked for, such as its folder, and what the machine says of it."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def _await_end(process: subprocess.Popen[Any], timeout_s: float) -> None:
    """Wait until a process has ended, or for some time; who waits for processes ends it there."""
    with suppress(ProcessLookupError):
        ended = os.pidfd_open(process.pid)
        try:
            poll = select.poll()  # select() takes no descriptor above 1,023, and a large network holds more
            poll.register(ended, select.POLLIN)
            poll.poll(timeout_s * 1e3)
        finally:
            os.close(ended)


def flip_in_buffer(folder: Path, name: str, bits: int, rng: np.random.Generator) -> str:
    """Flip bits of a buffer that a program has in its node's files, chosen at random.

    Raises:
        WorkloadError: there is no such buffer, or nothing in it.
    """
    path = folder / BUFFERS / name
    try:
        with path.open("r+b", buffering=0) as file:
            return flip_bits(file, 0, path.stat().st_size, bits, rng)
    except OSError as error:
        raise WorkloadError(
            f"{path}: bits are to be flipped in it, but it cannot be written ({error.strerror}); let the program keep "
            f"what can be hit in $ISL_EMU_OUT/{BUFFERS}/{name}, mapped into its memory"
        ) from None


class ProgramResident(Resident):
    """A program as faults see it."""

    def __init__(self, program: Program, thread: ProgramThread, out: Path):
        self.node, self.program, self.what = program.node, program.name, f"program {program.name}"
        self._thread, self._out = thread, out

    def pids(self) -> Collection[int]:
        return _session(self._thread.process)

    def start(self) -> str:
        process = self._thread.process
        if process is None or process.poll() is None:
            return f"{self.what} was not running"
        self._thread.again.set()
        return f"{self.what} starts again"

    def flip(self, bits: int, buffer: str | None, rng: np.random.Generator) -> str:
        assert buffer is not None, "the scenario was checked"
        return flip_in_buffer(self._out, buffer, bits, rng)


class WorkloadResident(Resident):
    """A workload as faults see it; one that was killed does not start again."""

    def __init__(self, workload: UserWorkload, process: subprocess.Popen[str], out: Path):
        self.node, self.program, self.what = workload.nodes[0], workload.name, f"workload {workload.name}"
        self._process, self._out = process, out

    def pids(self) -> Collection[int]:
        return _session(self._process)

    def start(self) -> str:
        return f"{self.what} does not start again"

    def flip(self, bits: int, buffer: str | None, rng: np.random.Generator) -> str:
        assert buffer is not None, "the scenario was checked"
        return flip_in_buffer(self._out, buffer, bits, rng)


def _session(process: subprocess.Popen[Any] | None) -> set[int]:
    """A process that leads a session, and all others of it; none if it has ended."""
    if process is None or process.poll() is not None:
        return set()
    found = {process.pid}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(ProcessLookupError):
                if os.getsid(int(entry)) == process.pid:
                    found.add(int(entry))
    return found


class Programs(Activity):
    """Programs of a run, each started when it is due; none of them can fail it: how one ends is a result.

    Args:
        own: takes their process ids.
    """

    def __init__(self, live: LiveRun, programs: Sequence[Program], own: set[int]):
        self._live, self._programs, self._own = live, programs, own
        self._threads: list[ProgramThread] = []
        for program in programs:  # before any of them may put a link there
            if program.cwd and not program.cwd.startswith("/"):
                (live.folder.files_of(program.node) / program.cwd).mkdir(parents=True, exist_ok=True)

    def begin(self, times: RunTimes, ending: ExitStack) -> None:
        journal = self._live.folder.journal
        starts, ends = (ending.enter_context(Journal(journal / name)) for name in (STARTS_JOURNAL, f"{JOURNAL}.jsonl"))
        scenario, plan = self._live.scenario, self._live.plan
        self._threads = [
            ProgramThread(program, occasions(program, scenario, plan), self._live, times, self._own, starts, ends)
            for program in self._programs
        ]
        for program in self._programs:
            if program.may_fail:
                self._live.watch.excuse_memory(program.node)
        for program, thread in zip(self._programs, self._threads, strict=True):
            self._live.residents.append(ProgramResident(program, thread, self._live.folder.files_of(program.node)))
            thread.start()
            ending.callback(thread.join)
        for thread in self._threads:
            ending.callback(thread.stopped.set)  # of all, before any is waited for

    def await_end(self, timeout_s: float) -> None:
        """Let programs that are about to end do so: their time is that of the run."""
        for thread in self._threads:
            thread.join(timeout_s)


class WorkloadProcess(Activity):
    """The process of one workload, whose failure fails the run; what it prints is in programs/NAME.log.

    In its container it does not see the run folder, nor the networks and limits of other nodes. So it gets them as open
    descriptors of single files, of which none leads to another, and the rest on its standard input.

    Args:
        own: takes its process id.
    """

    def __init__(self, live: LiveRun, workload: UserWorkload, own: set[int]):
        self._workload, self._log = workload, log_of(workload.name, live.folder)
        self._container, self._watch = live.containers[workload.nodes[0]], live.watch
        journal, nodes = live.folder.journal, tuple(dict.fromkeys(workload.nodes))
        with ExitStack() as closing:

            def opened(path: str | Path, flags: int) -> int:
                descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
                closing.callback(os.close, descriptor)
                return descriptor

            networks = {node: opened(live.containers[node].netns_path, os.O_RDONLY) for node in nodes}
            groups = {node: live.containers[node].group.open_joins() for node in nodes[1:]}
            joins = [descriptor for group in groups.values() for descriptor in group]
            for descriptor in joins:
                closing.callback(os.close, descriptor)
            rows = opened(journal / f"{journal_of(workload.name)}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            clock = tree_of(str(journal / CLOCK_FILE), ATTR_RDONLY)  # which cannot be opened again for writing
            closing.callback(os.close, clock)
            self._process = self._container.popen(
                module_command("isl_emu.parts.programs.user_workload"),
                keep=(CAP_SYS_ADMIN,),  # to enter the networks of its nodes
                text=True,
                cwd=Path.cwd(),
                env=_environment(),
                stderr=closing.enter_context(self._log.open("wb")),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(*networks.values(), *joins, rows, clock),
            )
        own.add(self._process.pid)
        live.residents.append(WorkloadResident(workload, self._process, live.folder.files_of(workload.nodes[0])))
        live.undo.callback(kill, [self._process])  # unless it has ended with the run
        self._tell({
            "name": workload.name, "function": workload.function, "options": tomli_w.dumps(workload.options),
            "seed": live.scenario.seed, "networks": networks, "groups": groups, "rows": rows, "clock": clock,
            "endpoints": {name: asdict(endpoint) for name, endpoint in read_endpoints(journal).items()},
        })  # fmt: skip

    def await_ready(self) -> None:
        """Wait until it has loaded its function.

        Raises:
            WorkloadError: it has ended instead.
        """
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            self._process.wait()
            raise WorkloadError(self._why("be ready before the run begins"))

    def begin(self, times: RunTimes, ending: ExitStack) -> None:
        ending.callback(self._end)
        self._tell(asdict(times))

    def check(self) -> None:
        if self._process.poll() and not self._watch.is_declared(self._process.pid):
            raise WorkloadError(self._why("end with 0"))

    def watched(self) -> Iterable[Watched]:
        what, node = f"workload {self._workload.name}", self._workload.nodes[0]
        yield Watched(self._process, what, node, self._log, self._container.oom_kills, may_end=True)

    def await_end(self, timeout_s: float) -> None:
        if not self._container.suspended:
            with suppress(subprocess.TimeoutExpired):  # then it is told to stop, and writes what it has
                self._process.wait(timeout_s)
        self.check()

    def _tell(self, what: object) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, which is noticed elsewhere
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()

    def _end(self) -> None:
        """It may have something to write down, unless its computer is off."""
        if self._process.poll() is not None:
            return
        if self._container.suspended:
            kill([self._process])
            return
        end([self._process], LAST_WORDS_S)
        if self._process.returncode == -signal.SIGKILL:
            name, node, function = self._workload.name, self._workload.nodes[0], self._workload.function
            cause = f"{function} did not return when the run ended, and was killed; let it look at context.stopped"
            self._watch.record(f"workload {name}", node, cause)

    def _why(self, rule: str) -> str:
        name, status = self._workload.name, self._process.returncode
        if self._container.oom_kills():
            return (
                f"workload {name}: its container needs more memory than it may take, but a workload must {rule}; raise "
                f"workload.memory, and see {LOGS}/{name}.log"
            )
        return (
            f"workload {name}: it ended with status {status} ({last_line(self._log)}), but must {rule}; "
            f"see {LOGS}/{name}.log"
        )
