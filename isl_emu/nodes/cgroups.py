"""Limits of containers to CPU, memory and processes by cgroups, version 1 (hybrid) or 2, whichever has the controllers.

A run has one group ``isl-<run id>`` at the root of the hierarchy (of each controller's hierarchy in version 1), with
one child for each container. Groups are made by root directly below the mount, where systemd leaves strangers alone.

A limit that the kernel cannot hold is refused, never ignored: a satellite with a tenth of a core that in fact had a
whole one would falsify every latency that depends on it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from isl_emu.errors import MachineError

# A model needs about 20 ms of a core for a token. With the kernel's usual period of 100 ms a server with half a core
# emits three tokens, then stalls for 50 ms; with 20 ms each token is slowed alike. Kernels with HZ=100 (User-mode
# Linux) check every 10 ms: shorter periods would only cost more.
CPU_PERIOD_US = 20_000
MIN_QUOTA_US = 1_000  # Source: kernel/sched/core.c, min_cfs_quota_period
MAX_PERIOD_US = 1_000_000  # Source: kernel/sched/core.c, max_cfs_quota_period
REMOVE_TRIES = 100
REMOVE_PAUSE_S = 0.02
FREEZE_TRIES = 500
FREEZE_PAUSE_S = 0.01
V1_CONTROLLERS = ("cpu", "memory", "cpuacct", "pids", "freezer")
REQUIRED_CONTROLLERS = ("cpu", "memory", "pids")
SHORT_BYTE = 16 << 20  # what is left to a group that is to be short of memory: a Python process, and little more
MAX_TASKS = 2048  # processes and threads of a container: a server has some for each CPU, and a fork bomb ends there


@dataclass(frozen=True)
class Hierarchy:
    """The mounted cgroup file systems: controller -> mount point (all the same one in version 2)."""

    version: int
    mounts: dict[str, Path]

    @property
    def roots(self) -> tuple[Path, ...]:
        """The distinct mount points in which a group needs a folder."""
        return tuple(dict.fromkeys(self.mounts.values()))


class Cgroup:
    """The group ``isl-<run id>/<name>`` with its limits; made by `create_cgroup`."""

    def __init__(self, hierarchy: Hierarchy, run_id: str, name: str):
        self._hierarchy = hierarchy
        self._relative = Path(run_group(run_id)) / name

    @property
    def folders(self) -> tuple[Path, ...]:
        """The group's folder in each hierarchy."""
        return tuple(root / self._relative for root in self._hierarchy.roots)

    def limit(self, cpus: float, memory_byte: int, pids: int | None = None) -> None:
        """Set the limits, that of processes too, and read them back.

        Args:
            cpus: share of one core, 0.001 or more.
            memory_byte: anonymous memory and the file pages that the group touched first; swap is not added to it.
            pids: processes and threads, in place of `MAX_TASKS`.

        Raises:
            MachineError: this kernel lacks bandwidth control or memory limits, or took another value.
        """
        self.limit_cpus(cpus)
        self._set("pids", "pids.max", str(pids or MAX_TASKS))
        self._limit_memory(memory_byte)

    def _limit_memory(self, memory_byte: int) -> None:
        limit = str(_whole_pages(memory_byte))
        if self._hierarchy.version == 2:
            self._set("memory", "memory.max", limit)
            self._set_if_there("memory", "memory.swap.max", "0")
            return
        both, without_swap = "memory.memsw.limit_in_bytes", "memory.limit_in_bytes"
        before = int(self._file("memory", without_swap).read_text())
        # the one with swap is never the lower one
        for name in (without_swap, both) if int(limit) <= before else (both, without_swap):
            (self._set if name == without_swap else self._set_if_there)("memory", name, limit)

    def limit_cpus(self, cpus: float) -> None:
        """Set the CPU limit alone, also while programs run, and read it back.

        Raises:
            MachineError: as for `limit`.
        """
        quota_us, period_us = cpu_quota_us(cpus)
        if self._hierarchy.version == 2:
            self._set("cpu", "cpu.max", f"{quota_us} {period_us}")
        else:
            self._set("cpu", "cpu.cfs_period_us", str(period_us))
            self._set("cpu", "cpu.cfs_quota_us", str(quota_us))

    def cpu_ns(self) -> int:
        """The CPU time that the group has used since it was made.

        Raises:
            MachineError: this kernel does not count it.
        """
        if self._hierarchy.version == 2:
            return _keyed(self._file("cpu", "cpu.stat"))["usage_usec"] * 1000
        try:
            return int(self._file("cpuacct", "cpuacct.usage").read_text())
        except FileNotFoundError:
            raise MachineError(
                "cgroups: there is no controller cpuacct, but what a satellite's computer does is measured by it; "
                "mount it, or use --machine guest"
            ) from None

    def oom_kills(self) -> int:
        """How many of its processes the kernel has killed for want of memory since the group was made."""
        return _keyed(self.oom_counter).get("oom_kill", 0)

    @property
    def oom_counter(self) -> Path:
        """The file in which the kernel counts what it has killed, in a line "oom_kill N"."""
        return self._file("memory", "memory.events" if self._hierarchy.version == 2 else "memory.oom_control")

    @contextmanager
    def short_of_memory(self, memory_byte: int) -> Iterator[int]:
        """Leave the group hardly more memory than it uses while the block lasts: how much it may then use in all.

        Args:
            memory_byte: its limit otherwise.

        Raises:
            MachineError: as for `limit`.
        """
        usage = "memory.current" if self._hierarchy.version == 2 else "memory.usage_in_bytes"
        least_byte = int(self._file("memory", usage).read_text()) + SHORT_BYTE
        self._limit_memory(min(least_byte, memory_byte))
        try:
            yield min(least_byte, memory_byte)
        finally:
            self._limit_memory(memory_byte)

    def open_joins(self) -> list[int]:
        """Open descriptors of all `cgroup.procs`: a process that writes 0 into each joins the group."""
        return [os.open(folder / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC) for folder in self.folders]

    def pids(self) -> set[int]:
        """The processes in the group, as seen from here."""
        return {pid for folder in self.folders for pid in _pids(folder)}

    def freeze(self, pause: Callable[[float], None] = time.sleep) -> bool:
        """Bring all processes in the group to a stand; False where the kernel has no freezer.

        Raises:
            MachineError: some process does not come to a stand.
        """
        file, stand, go_on = self._freezer
        if not file.exists():
            return False
        file.write_text(stand)
        for _ in range(FREEZE_TRIES):
            if self._is_frozen(file):
                return True
            pause(FREEZE_PAUSE_S)
        file.write_text(go_on)
        raise MachineError(f"{file}: did not come to a stand, but a pause needs it; look at {sorted(self.pids())}")

    def thaw(self) -> None:
        """Let all processes in the group go on."""
        file, _, go_on = self._freezer
        if file.exists():
            file.write_text(go_on)

    @property
    def _freezer(self) -> tuple[Path, str, str]:
        """The file that stops the group, and what to write into it to stop and to go on."""
        if self._hierarchy.version == 2:
            return self._file("cpu", "cgroup.freeze"), "1", "0"
        return self._file("freezer", "freezer.state"), "FROZEN", "THAWED"

    def _is_frozen(self, file: Path) -> bool:
        if self._hierarchy.version == 2:
            return _keyed(file.with_name("cgroup.events"))["frozen"] == 1
        return file.read_text().strip() == "FROZEN"

    def remove(self, pause: Callable[[float], None] = time.sleep) -> None:
        """Kill what is left in the group and remove it, and the run's group with its last child; may be repeated."""
        for folder in self.folders:
            _kill_and_remove(folder, pause)
            with suppress(OSError):
                folder.parent.rmdir()

    def _file(self, controller: str, name: str) -> Path:
        return self._hierarchy.mounts.get(controller, Path("/nonexistent")) / self._relative / name

    def _set(self, controller: str, name: str, value: str) -> None:
        file = self._file(controller, name)
        try:
            file.write_text(value)
            found = file.read_text().strip()
        except OSError as error:
            raise MachineError(
                f"{file}: cannot be set to {value} ({error.strerror}), but containers need this limit; "
                "use a kernel with CONFIG_CFS_BANDWIDTH and CONFIG_MEMCG, or --machine guest"
            ) from error
        if found != value:
            raise MachineError(f"{file}: holds {found}, but {value} was written and must hold; use --machine guest")

    def _set_if_there(self, controller: str, name: str, value: str) -> None:
        if self._file(controller, name).exists():
            self._set(controller, name, value)


def run_group(run_id: str) -> str:
    """The name of a run's group."""
    return f"isl-{run_id}"


def cpu_quota_us(cpus: float) -> tuple[int, int]:
    """CPU time and period, us, that give a share of `cpus` cores; a small share gets a longer period."""
    period_us = min(max(CPU_PERIOD_US, round(MIN_QUOTA_US / cpus)), MAX_PERIOD_US)
    return max(round(cpus * period_us), MIN_QUOTA_US), period_us


def find_hierarchy(
    mounts_text: str | None = None, controllers_of: Callable[[Path], Iterable[str]] | None = None
) -> Hierarchy:
    """The hierarchy that has the controllers that limits need: version 2 if its root offers all, else version 1.

    Args:
        mounts_text: the text of /proc/self/mounts.
        controllers_of: what a version 2 mount offers.

    Raises:
        MachineError: neither version has them.
    """
    rows = [line.split() for line in (mounts_text or Path("/proc/self/mounts").read_text()).splitlines()]
    available = controllers_of or (lambda mount: (mount / "cgroup.controllers").read_text().split())
    for _, point, kind, *_ in rows:
        if kind == "cgroup2" and set(REQUIRED_CONTROLLERS) <= set(available(Path(point))):
            return Hierarchy(2, dict.fromkeys(REQUIRED_CONTROLLERS, Path(point)))
    mounts = {
        controller: Path(point)
        for _, point, kind, options, *_ in rows
        if kind == "cgroup"
        for controller in options.split(",")
        if controller in V1_CONTROLLERS
    }
    if missing := [controller for controller in REQUIRED_CONTROLLERS if controller not in mounts]:
        raise MachineError(
            f"/proc/self/mounts: no cgroup controller {' or '.join(missing)} is mounted, but containers need it; "
            "mount cgroups, or use --machine guest"
        )
    return Hierarchy(1, mounts)


def create_cgroup(
    run_id: str,
    name: str,
    cpus: float,
    memory_byte: int,
    hierarchy: Hierarchy | None = None,
    pids: int | None = None,
) -> Cgroup:
    """Make the group ``isl-<run id>/<name>`` and set its limits.

    Raises:
        MachineError: no controllers, no permission, or a limit that the kernel does not take.
    """
    hierarchy = hierarchy or find_hierarchy()
    group = Cgroup(hierarchy, run_id, name)
    try:
        for folder in group.folders:
            folder.parent.mkdir(exist_ok=True)
            for parent in (folder.parents[1], folder.parent) if hierarchy.version == 2 else ():
                # each level passes the controllers on to the next
                (parent / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in REQUIRED_CONTROLLERS))
            folder.mkdir(exist_ok=True)
        group.limit(cpus, memory_byte, pids)
    except OSError as error:
        group.remove()
        raise MachineError(
            f"{error.filename}: cannot be made ({error.strerror}), but containers need cgroups; "
            "run as root, or use --machine guest"
        ) from error
    except MachineError:
        group.remove()
        raise
    return group


def remove_run_cgroups(run_id: str, pause: Callable[[float], None] = time.sleep) -> list[Path]:
    """Kill everything in a run's groups and remove them.

    Returns:
        The folders that were removed; none on a machine without the controllers.
    """
    try:
        roots = find_hierarchy().roots
    except MachineError:
        return []
    removed: list[Path] = []
    for root in roots:
        top = root / run_group(run_id)
        children = [path for path in top.iterdir() if path.is_dir()] if top.is_dir() else []
        removed += [folder for folder in (*children, top) if _kill_and_remove(folder, pause)]
    return removed


def _kill_and_remove(folder: Path, pause: Callable[[float], None]) -> bool:
    """True if the folder was there; processes need a moment to leave after SIGKILL, hence the retries."""
    for attempt in range(REMOVE_TRIES):
        if (frozen := folder / "freezer.state").exists():  # in version 1 who is frozen cannot be killed
            frozen.write_text("THAWED")
        for pid in _pids(folder):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            folder.rmdir()
            return True
        except FileNotFoundError:
            return attempt > 0
        except OSError:
            pause(REMOVE_PAUSE_S)
    raise MachineError(
        f"{folder}: still holds {sorted(_pids(folder))} after SIGKILL, but must be empty; look at these processes"
    )


def _pids(folder: Path) -> set[int]:
    try:
        return {int(line) for line in (folder / "cgroup.procs").read_text().split()} - {0}
    except OSError:
        return set()


def _whole_pages(size_byte: int) -> int:
    page = os.sysconf("SC_PAGE_SIZE")
    return size_byte // page * page


def _keyed(file: Path) -> dict[str, int]:
    """A file of `name number` lines."""
    return {name: int(value) for name, value in (line.split() for line in file.read_text().splitlines())}
