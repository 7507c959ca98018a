"""Runs a command in a guest kernel: User-mode Linux, on this machine's own file system.

The guest has what the machine may lack: root, netem, network namespaces. It sees the machine's files, writes to them
into memory, and only the folders named as writable reach the disk. It has one CPU, to which it is pinned: each system
call of a guest process hands over between two processes of the host, which costs eight times more across CPUs.

Its clock is the machine's, or virtual: then computing takes no time, and a calendar says how time goes.

Several guests may share one clock, each on a CPU of its own, with links between them: a network that is larger than one
guest.

Root in it is nobody on the machine: its kernel's process is behind the wall of `isl_emu.machine.sandbox`, and sees what
`_view` says.

It is long because a boot is one course with one folder: memory, clock, view, console and end, in this order.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from itertools import combinations
from pathlib import Path

from isl_emu.errors import INTERRUPTED, MachineError
from isl_emu.limits import LIMITS
from isl_emu.machine.calendar_control import BELL, FOLDER_VARIABLE, CalendarControl
from isl_emu.machine.claims import MIB, OVERHEAD_BYTE, choose_memory_folder, claim_cpu, default_memory_byte
from isl_emu.machine.console import Console, Interrupter, listening, raw_terminal
from isl_emu.machine.guardian import REFUSED, Order, current_folders, kill_processes_in
from isl_emu.machine.hang import Hang
from isl_emu.machine.sandbox import View
from isl_emu.machine.trunks import MACHINE_VARIABLE, machine_id
from isl_emu.machine.uml import UmlKernel, build_shim, find_uml, needs_shim
from isl_emu.runs.directory import RunDirectory, create_run_directory, run_with
from isl_emu.units import NS_PER_S

# Folders that the guest covers with its own; what lies below them must be mounted to be seen.
COVERED = tuple(map(Path, ("/run", "/dev", "/proc", "/sys")))
# Variables of ours that the command in the guest gets too.
PASSED_ON = (
    *("PATH", "VIRTUAL_ENV", "HOME", "LANG", "LC_ALL", "LANGUAGE", "TZ", "CI", "ISL_EMU_DEBUG"),
    *("TERM", "COLORTERM", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"),
    *("PYTHONPATH", "PYTHONHASHSEED", "PYTHONDONTWRITEBYTECODE"),
    *(limit.variable for limit in LIMITS),
    *("OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "OMP_WAIT_POLICY"),
)
# What programs may want to read of the machine; neither passwords nor keys.
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/proc/cpuinfo")
SETTINGS = (
    *("alternatives", "bash.bashrc", "ca-certificates", "debian_version", "gai.conf", "group", "host.conf", "hosts"),
    *("inputrc", "iproute2", "ld.so.cache", "localtime", "login.defs", "lsb-release", "mime.types", "nsswitch.conf"),
    *("os-release", "pam.d/frr", "passwd", "pki", "profile", "protocols", "services", "ssl/certs", "ssl/openssl.cnf"),
    *("terminfo", "timezone"),
)  # in /etc
LINES_SHOWN = 12
CALENDAR_FOLDER = "time"  # beside the guest's own: several guests may share it
SOCKET = "calendar"
SEED_MASK = (1 << 64) - 1
PATIENCE_S = 600  # a program may compute for so long while virtual time stands still


@dataclass(frozen=True)
class VirtualClock:
    """Time that a calendar lets go on: each instant when all that happens before is done.

    Args:
        start_utc_ns: what the guest's clock shows when it boots, since 1970.
        factor: emulated seconds per second of the wall at most; None for as fast as can be.
        seed: what all random numbers of the guest's kernel follow from, 64 bits.
    """

    start_utc_ns: int
    factor: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Joint:
    """What joins a guest to others of its run that are booted elsewhere.

    Args:
        number: the guest's.
        trunks: by the number of each other guest, the end of a stream to it.
        calendar: the process that lets virtual time go on, if it is here; in any case the guest finds it in
            `calendar_folder`.
    """

    number: int
    trunks: Mapping[int, socket.socket]
    calendar: subprocess.Popen[bytes] | None


def run_in_guest(
    argv: Sequence[str],
    *,
    run: RunDirectory,
    writable: Iterable[Path],
    memory_byte: int,
    environment: Mapping[str, str] | None = None,
    readable: Iterable[Path] = (),
    interactive: bool = False,
    kernel: UmlKernel | None = None,
    clock: VirtualClock | None = None,
    who: Callable[[int], str | None] = lambda pid: None,
    trusted: bool = False,
    wires: Sequence[int] = (),
) -> int:
    """Boot a guest kernel, run one command in it as root in the current folder, and return its exit status.

    The command's output goes to our standard output as it comes, standard error with it. Ctrl-C and SIGTERM reach the
    command as SIGINT; a second one, or 30 s, kills the guest. If this process dies, the guest dies with it.

    Args:
        argv: the command and its arguments.
        run: the guest's control folder is made in this run's folder, and removed at the end.
        writable: existing folders whose contents the command may change; all else it writes is lost.
        memory_byte: the guest's memory.
        environment: variables on top of the usual ones (`PASSED_ON`).
        readable: files and folders that the command needs, besides the machine's programs and Python's modules.
        interactive: pass on what is typed, if we have a terminal.
        kernel: the one to boot; by default that of `find_uml`.
        clock: how virtual time begins; None for real time.
        who: what is known of a process of the guest, by its id: told of one that computes without end.
        trusted: whether root in the guest may have the machine's files as the caller has them.
        wires: descriptors by which frames come and go, one a read and a write: its network devices vec0, vec1, ...

    Raises:
        MachineError: the guest cannot start, or dies before the command ends.
    """
    (status,) = run_in_guests(
        [argv], run=run, writable=writable, memory_byte=[memory_byte], environment=environment, readable=readable,
        interactive=interactive, kernel=kernel, clock=clock, who=who, trusted=trusted, wires=wires,
    )  # fmt: skip
    return status


def run_in_guests(
    commands: Sequence[Sequence[str]],
    *,
    run: RunDirectory,
    writable: Iterable[Path],
    memory_byte: Sequence[int],
    environment: Mapping[str, str] | None = None,
    readable: Iterable[Path] = (),
    interactive: bool = False,
    kernel: UmlKernel | None = None,
    clock: VirtualClock | None = None,
    lookahead_ns: int = 0,
    who: Callable[[int], str | None] = lambda pid: None,
    trusted: bool = False,
    wires: Sequence[int] = (),
    joint: Joint | None = None,
) -> list[int]:
    """Boot a guest for each command, all on one clock, as `run_in_guest` does one; return the exit statuses.

    Guests are numbered from 0. The first has our standard output; what another's command writes is shown if it fails.
    When one fails, the others are interrupted. Links between guests are interfaces of kind "trunk"
    (`isl_emu.network.messages.new_trunks`).

    Args:
        commands: the command of each guest and its arguments.
        memory_byte: the memory of each guest.
        lookahead_ns: no packet takes less from one guest to another; larger than 0 if there are several whose clock is
            virtual, and 0 in real time.
        wires: of the first guest.
        joint: of the only guest here, if others of its run are booted elsewhere.

    Raises:
        MachineError: a guest cannot start, or dies before its command ends.
    """
    if not sys.dont_write_bytecode:  # what Python compiles in the guest is lost with it
        compileall.compile_dir(Path(__file__).resolve().parents[1], quiet=2)
    kernel = kernel or find_uml()
    writable, readable = list(writable), [*modules_shown(), *readable]
    numbers: Sequence[int] = range(len(commands)) if joint is None else [joint.number]
    folders = [guest_folder(run, number) for number in numbers]
    shim = build_shim() if needs_shim(kernel) else None
    times, variables, calendar = list[Path](), dict(environment or {}), None
    together = _Together()
    boots = []
    try:
        with contextlib.ExitStack() as stack:
            if clock is not None:
                if joint is None:
                    calendar = stack.enter_context(open_calendar(run, clock, len(commands)))
                else:
                    calendar = joint.calendar
                times.append(calendar_folder(run))
                variables[FOLDER_VARIABLE] = str(times[0])
            else:  # in exact time nothing is to depend on where it is
                variables[MACHINE_VARIABLE] = machine_id()
            memory = choose_memory_folder(sum(memory_byte)) if trusted else Path("/dev/shm")
            preload = {"LD_PRELOAD": str(shim)} if shim else {}
            ends: Sequence[Mapping[int, socket.socket]]
            ends = _trunks(len(commands)) if joint is None else [joint.trunks]
            for place, (number, folder, trunks) in enumerate(zip(numbers, folders, ends, strict=True)):
                streams = _streams(interactive) if number == 0 else "pipe"
                words = _kernel_command(kernel, folder, memory_byte[place], clock, number)
                folder.mkdir(mode=0o700)
                binds = _binds([folder, *times, *writable], [Path.cwd(), *readable])
                own = [*readable, Path(kernel.program), *([shim] if shim else [])]
                view = None if trusted else view_of_machine(own, [folder, *times, *writable], memory_byte[place])
                (folder / "binds").write_text("".join(f"{access} {path}\n" for access, path in binds))
                (folder / "command.sh").write_text(_command_script(commands[place], variables, streams))
                (folder / "console").write_text(streams)
                _place_init(folder)
                if trunks:
                    leading = (f"{other}:{end.fileno()}" for other, end in trunks.items())
                    words.append(f"trunks={','.join([str(lookahead_ns), *leading])}")
                boots.append(
                    _Boot(
                        number,
                        words,
                        {"TMPDIR": str(memory), **preload},
                        view,
                        folder,
                        streams,
                        who,
                        calendar,
                        tuple(trunks.values()),
                        () if number else tuple(wires),
                    )  # fmt: skip
                )
            return together.run(boots)
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def calendar_folder(run: RunDirectory) -> Path:
    """Where the calendar of a run's guests is asked, and in it the socket at which they find it."""
    return run.path.resolve() / CALENDAR_FOLDER


def guest_folder(run: RunDirectory, number: int = 0) -> Path:
    """The control folder of a run's guest."""
    return run.path.resolve() / (f"guest-{number}" if number else "guest")


def clean_guest(run: RunDirectory) -> list[int]:
    """Kill what is left of a run's guests and calendar, even without its folder; return the processes that were."""
    path = run.path.resolve()
    left = {folder.removesuffix(" (deleted)") for folder in current_folders()}
    found = [folder for folder in sorted(left) if Path(folder).parent == path and Path(folder).name.startswith("guest")]
    return [pid for folder in [*found, str(path / CALENDAR_FOLDER)] for pid in kill_processes_in(folder)]


def guests_at_large() -> list[RunDirectory]:
    """The runs whose folder is gone while a process of their guest or calendar is there, whose current folder tells."""
    found = {run.run_id: run for folder in current_folders() if (run := run_with(folder)) is not None}
    return [run for _, run in sorted(found.items()) if not run.path.exists()]


def _trunks(count: int) -> list[dict[int, socket.socket]]:
    """For each guest, by the number of each other: its end of the stream between them."""
    trunks: list[dict[int, socket.socket]] = [{} for _ in range(count)]
    for one, other in combinations(range(count), 2):
        trunks[one][other], trunks[other][one] = socket.socketpair()
    return trunks


@contextlib.contextmanager
def calendar_socket(run: RunDirectory) -> Iterator[socket.socket]:
    """The folder of a run's calendar while the block runs, and a socket that listens where guests find theirs."""
    folder = calendar_folder(run)
    folder.mkdir(mode=0o700)
    try:
        with socket.socket(socket.AF_UNIX) as listener, short_path(folder) as short:
            listener.bind(f"{short}/{SOCKET}")
            listener.listen()
            yield listener
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def short_path(folder: Path) -> Iterator[str]:
    """Another path of a folder: that of a socket must not exceed 107 characters."""
    opened = os.open(folder, os.O_PATH)
    try:
        yield f"/proc/self/fd/{opened}"
    finally:
        os.close(opened)


@contextlib.contextmanager
def open_calendar(run: RunDirectory, clock: VirtualClock, guests: int) -> Iterator[subprocess.Popen[bytes]]:
    """A calendar for some guests, while the block runs; yields its process."""
    folder = calendar_folder(run)
    with calendar_socket(run) as listener:
        if clock.factor is not None:
            CalendarControl(folder).pace(clock.factor)
        with (folder / "log").open("wb") as log:
            words = (os.getpid(), listener.fileno(), clock.start_utc_ns, guests, int(guests > 1), PATIENCE_S)
            process = subprocess.Popen(
                [sys.executable, "-S", "-m", "isl_emu.machine.calendar_process", *map(str, words)],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(_package_root())},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(listener.fileno(),),
                start_new_session=True,
            )
        listener.close()
        try:
            yield process
        finally:
            process.kill()
            process.wait()


_GUARDIAN = f"""import sys
sys.path.append({str(Path(__file__).resolve().parents[2])!r})
from isl_emu.machine.guardian import main
sys.exit(main(int(sys.argv[1])) & 0xFF)
"""


def _streams(interactive: bool) -> str:
    """What the command's standard streams are: a terminal with a keyboard, a terminal without one, or pipes."""
    if not sys.stdout.isatty():
        return "pipe"
    return "interactive" if interactive and sys.stdin.isatty() else "terminal"


def _package_root() -> Path:
    return Path(__file__).resolve().parents[2]


def modules_shown() -> list[Path]:
    """Where Python finds its modules and ours; not in the current folder, which a scenario has to ask for."""
    here = Path.cwd()
    paths = [Path(entry) for entry in (sys.prefix, sys.base_prefix, *sys.path) if entry and Path(entry).exists()]
    return [*(path for path in paths if path != here), Path(__file__).resolve().parents[1]]


def _kernel_command(
    kernel: UmlKernel, folder: Path, memory_byte: int, clock: VirtualClock | None, number: int
) -> list[str]:
    """linux.uml and its arguments; the two consoles are added when they exist."""
    if " " in str(folder):
        raise MachineError(f"guest kernel: its folder is {str(folder)!r}, but must have no spaces; set XDG_RUNTIME_DIR")
    if clock is not None and not kernel.exact:
        raise MachineError(
            f"guest kernel: {kernel.program} is the distribution's, but only the one that isl-emu builds has exact "
            "time; `isl-emu doctor` says what a build needs"
        )
    return [
        *(kernel.program, f"mem={memory_byte // MIB}M"),
        *("root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "init=/bin/sh", f"isl_dir={folder}"),
        *("console=tty1", "quiet", "loglevel=4", "con=null", "umid=vm", "uml_dir=./"),
        *(_virtual_words(clock, number) if clock is not None else []),
    ]


def _virtual_words(clock: VirtualClock, number: int) -> list[str]:
    seed = clock.seed + number & SEED_MASK
    return [f"time-travel=ext:{number}:../{CALENDAR_FOLDER}/{SOCKET}", f"random_seed={seed}", "virtual=1"]


def _binds(writable: Iterable[Path], readable: Iterable[Path]) -> list[tuple[str, Path]]:
    """What to mount from the host: ("rw" or "ro", folder), outer folders before inner ones."""
    changed = {path.resolve() for path in writable}
    seen = {_folder_of(path.resolve()) for path in readable} - changed
    wanted = [("rw", path) for path in changed if not changed.intersection(path.parents)]
    wanted += [("ro", path) for path in seen if _is_covered(path) and not changed.intersection(path.parents)]
    for _, path in wanted:
        if "\n" in str(path) or not path.is_dir():
            raise MachineError(f"guest kernel: {path} is to be seen in the guest, but is not a folder; create it")
    return sorted(wanted, key=lambda bind: len(bind[1].parts))


def view_of_machine(readable: Iterable[Path], writable: Iterable[Path], memory_byte: int) -> View:
    """What is behind the wall to be seen of the machine: its programs and settings, and these.

    Raises:
        MachineError: a folder to be read is somebody's home, or has it inside.
    """
    homes = {Path(home).resolve() for home in (Path.home(), "/root", "/home")}
    system = {path for name in (*SYSTEM, *(f"/etc/{name}" for name in SETTINGS)) if (path := Path(name)).exists()}
    changed, read = {path.resolve() for path in writable}, {path.resolve() for path in readable}
    for path in read:
        if any(home.is_relative_to(path) for home in homes) or path == Path(path.anchor):
            raise MachineError(
                f"wall: programs and functions of the scenario would see {path}, but somebody's home is in it; call "
                "isl-emu from the folder of the scenario, or --trust a scenario that is as good as your own programs"
            )
    shown = {path.resolve() for path in system}
    own = {path for path in read if not (shown | changed | (read - {path})).intersection((path, *path.parents))}
    links: dict[Path, str] = {}
    for path in (*system, *readable, *writable, Path.cwd()):
        _add_links(path, links)
    outside = [path for path in shown if not shown.intersection(path.parents)]
    return View(
        system=sorted(map(str, outside)),
        own=sorted(map(str, own)),
        writable=sorted(str(path) for path in changed if not changed.intersection(path.parents)),
        links=sorted((str(path), target) for path, target in links.items()),
        empty=[os.getcwd()],
        memory_byte=memory_byte + OVERHEAD_BYTE,
    )


def _add_links(path: Path, links: dict[Path, str]) -> None:
    """The symbolic links on the way to a path, and on the way to where they lead."""
    path = Path(os.path.abspath(path))
    for part in (*reversed(path.parents), path):
        if part.is_symlink() and part not in links:
            links[part] = os.readlink(part)
            _add_links(part.parent / links[part], links)


def _folder_of(path: Path) -> Path:
    return path.parent if path.is_file() else path


def _is_covered(path: Path) -> bool:
    return any(path.is_relative_to(top) for top in COVERED)


def _command_script(argv: Sequence[str], environment: Mapping[str, str], streams: str) -> str:
    lines = [f"export {name}={shlex.quote(value)}" for name, value in _variables(environment).items()]
    if streams != "pipe":
        size = os.get_terminal_size(sys.stdout.fileno())
        lines.append(f"stty cols {size.columns} rows {size.lines} < /dev/tty0")
    lines.append(f"cd {shlex.quote(os.getcwd())} || exit 1")
    lines.append(f"exec {shlex.join(argv)}")
    return "\n".join(lines) + "\n"


def _variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The command's environment: ours as far as it makes sense in the guest, and what the caller adds."""
    variables = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    variables["PATH"] = f"{variables.get('PATH', '/usr/local/bin:/usr/bin:/bin')}:/usr/sbin:/sbin"
    return {**variables, "HOME": "/run/home", "ISL_EMU_GUEST": "1", **environment}


def _place_init(folder: Path) -> None:
    """A copy, since its path may hold spaces. The shell reads it: most systems let nobody execute what is in /run."""
    with as_file(files("isl_emu.machine").joinpath("guest_init.sh")) as script:
        shutil.copyfile(script, folder / "init")


@dataclass
class _Boot:
    """One guest from its start to its end.

    Args:
        number: which of the guests that are booted together.
        words: its kernel and what that is told.
        trunks: its ends of the streams to others, closed when it has them.
        wires: descriptors that are its network devices.
    """

    number: int
    words: list[str]
    environment: dict[str, str]
    view: View | None
    folder: Path
    streams: str
    who: Callable[[int], str | None]
    calendar: subprocess.Popen[bytes] | None
    trunks: tuple[socket.socket, ...]
    wires: tuple[int, ...]

    def run(self, together: _Together) -> int:
        """Boot it and return the exit status of its command.

        Raises:
            MachineError: there is none.
        """
        folder = self.folder
        os.mkfifo(folder / BELL)
        with contextlib.closing(Console(shown=self.number == 0)) as console, contextlib.ExitStack() as stack:
            bell = os.open(folder / BELL, os.O_RDWR | os.O_NONBLOCK)  # so that it never ends
            stack.callback(os.close, bell)
            ends = console.guest_end.fileno(), console.guest_log_end.fileno(), bell
            consoles = (f"con{number}=fd:{end},fd:{end}" for number, end in enumerate(ends))
            # the calls by which it would take several frames at a time are not among those of the wall
            devices = (f"vec{number}:transport=fd,fd={end},vec=0" for number, end in enumerate(self.wires))
            words = [
                *self.words,
                *consoles,
                *devices,
                "--",
                f"{folder}/init",
            ]  # what follows the dashes is for the shell
            kept = (*ends, *(end.fileno() for end in self.trunks), *self.wires)
            guest = stack.enter_context(
                _GuestProcess.started(words, self.environment, self.view, folder, kept, self.number)
            )
            for end in self.trunks:
                end.close()
            interrupter = Interrupter(folder, guest.kill)
            times = folder.parent / CALENDAR_FOLDER
            hang = Hang(self.number, folder, times, console, self.who, PATIENCE_S, self.calendar)
            together.add(interrupter)

            def look() -> None:
                interrupter.kill_if_overdue()
                if hang.look():
                    guest.kill()

            with together.attended(), _keyboard(self.streams) as keyboard:
                console.relay(guest.ended, keyboard, look)
            hang.check()
            status = _outcome(folder, console, interrupter, guest.await_end())
        if self.number and status not in (0, INTERRUPTED):
            said = "\n  ".join(console.log_lines()[-LINES_SHOWN:])
            print(f"guest {self.number} ended with status {status}. It said last:\n  {said}", file=sys.stderr)
        return status


@dataclass
class _Together:
    """Guests that are booted together: who interrupts one interrupts all, and when one fails the others end too."""

    _interrupters: list[Interrupter] = field(default_factory=list)
    _errors: list[BaseException] = field(default_factory=list)
    _lock: threading.RLock = field(default_factory=threading.RLock)  # a signal may come while it is held
    _interrupted: bool = False

    def run(self, boots: Sequence[_Boot]) -> list[int]:
        """The exit status of each guest's command; what went wrong first is raised."""
        with ThreadPoolExecutor(len(boots)) as pool:
            others = [pool.submit(self._one, boot) for boot in boots[1:]]
            statuses = [self._one(boots[0]), *(other.result() for other in others)]
        if self._errors:
            raise self._errors[0]
        return statuses

    def _one(self, boot: _Boot) -> int:
        status = 1
        try:
            status = boot.run(self)
        except BaseException as error:
            self._errors.append(error)
        if status:
            self.interrupt()
        return status

    def add(self, interrupter: Interrupter) -> None:
        """Interrupt this one with the others."""
        with self._lock:
            self._interrupters.append(interrupter)
            if self._interrupted:
                interrupter.interrupt()

    def interrupt(self, *_signal: object) -> None:
        """Ask all commands to end; kill guests at the second time."""
        with self._lock:
            self._interrupted = True
            for interrupter in self._interrupters:
                interrupter.interrupt()

    @contextlib.contextmanager
    def attended(self) -> Iterator[None]:
        """Signals are for the guests while the one runs that this thread attends to, if they come to this thread."""
        with contextlib.ExitStack() as stack:
            if threading.current_thread() is threading.main_thread():
                stack.enter_context(listening(self.interrupt))
            yield


@contextlib.contextmanager
def _keyboard(streams: str) -> Iterator[int | None]:
    """The keyboard is the guest's, if there is one and it is to have it."""
    with contextlib.ExitStack() as stack:
        keyboard = sys.stdin.fileno() if streams == "interactive" else None
        if keyboard is not None:
            stack.enter_context(raw_terminal(keyboard))
        yield keyboard


def _outcome(folder: Path, console: Console, interrupter: Interrupter, guardian: int) -> int:
    """The command's own exit status, or why there is none.

    Args:
        guardian: how the process around the guest has ended.
    """
    if status := _read(folder / "status").strip():
        return int(status)
    if interrupter.was_used:
        return INTERRUPTED
    if refusal := _read(folder / REFUSED):
        raise MachineError(
            f"guest kernel: this machine refuses the wall ({refusal}), but a scenario must not see its files; use "
            "root, allow user namespaces (sysctl kernel.apparmor_restrict_unprivileged_userns=0), or --trust a "
            "scenario that is as good as your own programs"
        )
    if guardian < 0:
        raise MachineError(
            f"guest kernel: signal {-guardian} killed its guardian, and the guest with it, but both end with the run; "
            "have more memory free if it was the kernel for want of it (`dmesg` tells), and run it again"
        )
    lines = console.log_lines()[-LINES_SHOWN:]
    how = "died while the command ran" if (folder / "started").exists() else "did not start"
    said = "\n  ".join(lines) if lines else "nothing"
    raise MachineError(
        f"guest kernel: it {how}, but it ends with its command; `isl-emu doctor` may know why. It said last:\n  {said}"
    )


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


@dataclass
class _GuestProcess:
    """The running guest: `ended` is readable when it is gone; closing the lifeline kills it."""

    ended: int
    _lifeline: int | None
    _process: subprocess.Popen[bytes]

    @classmethod
    @contextlib.contextmanager
    def started(
        cls,
        words: list[str],
        environment: dict[str, str],
        view: View | None,
        folder: Path,
        kept: tuple[int, ...],
        number: int,
    ) -> Iterator[_GuestProcess]:
        """The guardian and below it the guest, in a session that our terminal's Ctrl-C does not reach.

        Args:
            kept: the descriptors that the guest gets; the second takes what its kernel says.
        """
        guests_end, lifeline = os.pipe()
        claim = claim_cpu(number)
        Order(claim.cpu, words, environment, list(kept), view).write(folder)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _GUARDIAN, str(guests_end)],
            cwd=folder,
            env={},
            stdin=subprocess.DEVNULL,
            stdout=kept[1],
            stderr=kept[1],
            pass_fds=(*kept, guests_end, claim.lock),
            start_new_session=True,
        )
        os.close(guests_end)
        os.close(claim.lock)
        guest = cls(os.pidfd_open(process.pid), lifeline, process)
        try:
            yield guest
        finally:
            guest.kill()
            process.wait()
            kill_processes_in(str(folder))  # a guardian that was killed has left them
            os.close(guest.ended)

    def await_end(self) -> int:
        """How the guardian has ended, which does with the guest."""
        return self._process.wait()

    def kill(self) -> None:
        """End the guest at once; a second time does nothing."""
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None


def main(arguments: list[str]) -> int:
    """``python -m isl_emu.machine.guest [--exact] [--writable FOLDER]... -- COMMAND...``, for developers."""
    parser = argparse.ArgumentParser(prog="python -m isl_emu.machine.guest", description="Run a command in a guest.")
    parser.add_argument("--writable", type=Path, action="append", default=[], help="folder that the command may change")
    parser.add_argument("--exact", action="store_true", help="in exact time, from the present second on")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)
    run = create_run_directory()
    try:
        return run_in_guest(
            options.command,
            run=run,
            writable=options.writable,
            readable=[Path.cwd()],
            memory_byte=default_memory_byte(),
            interactive=True,
            clock=VirtualClock(int(time.time()) * NS_PER_S) if options.exact else None,
        )
    except MachineError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(run.path, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
