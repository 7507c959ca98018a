"""Containers for satellites that compute: a private root, process tree, host name and IPC, with CPU and memory limits.

A container shares its node's network namespace and nothing else. It needs no daemon and no image: its root is an
overlay over this machine's root whose writes go to memory, so every program and Python package of the machine is there
and the weights of a model are in memory once for all containers.

What a scenario starts inside may do to its container as root may, but to the machine and its links nothing: it has no
capabilities for that, no way to new ones, no view of the machine's secrets, and a limit of CPU, memory and processes
that it cannot reach. Shells and programs of the user's own keep all rights of root.

Everything is done by system calls from a thread that has left the namespaces of this process, so no helper process is
started but the container's own PID 1. The mounts exist only inside the container's mount namespace; they vanish with
its last process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, overload

from isl_emu.errors import MachineError
from isl_emu.nodes.cgroups import Cgroup, create_cgroup
from isl_emu.nodes.images import UnpackedImage
from isl_emu.nodes.mounts import IMAGE_ROOT, build_root, files_below, mask_kernel, write_plain
from isl_emu.nodes.namespaces import (
    CLONE_FS,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    Result,
    enter_network,
    give_up_rights,
    in_own_thread,
    set_host_name,
    set_namespace,
    unshare,
)
from isl_emu.nodes.processes import Suspension
from isl_emu.runs.directory import RunDirectory

_ALL_NAMESPACES = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET
STOP_TIMEOUT_S = 20.0
OUT_VARIABLE = "ISL_EMU_OUT"  # names the folder of a node whose files are kept
NODE_VARIABLE = "ISL_EMU_NODE"  # names the file in which a node reads of itself, if it is told
_OWN_FILES = {"/etc/hostname", "/etc/hosts"}
# Joining comes first, so that everything else is charged to the container. Writing 0 moves the writer.
_JOIN = "for group in $ISL_JOIN; do echo 0 > /proc/self/fd/$group || exit 125; done; unset ISL_JOIN; "
# PID 1 reads from a pipe that this process holds: if isl-emu is killed, it ends, and the kernel ends all others in the
# container. With SIGCHLD ignored the kernel reaps orphans for it.
_MOUNT_PROC = "mount -t proc -o nosuid,nodev,noexec proc /proc && "
_AFTER_PROC = f"{_JOIN}echo ready && exec env --ignore-signal=CHLD cat"
_INIT = ["/bin/sh", "-c", f"{_MOUNT_PROC}{_AFTER_PROC}"]
_INIT_OF_IMAGE = [
    "/bin/sh",
    "-c",
    f"{_MOUNT_PROC}{_MOUNT_PROC.replace(' /proc ', f' {IMAGE_ROOT}/proc ')}{_AFTER_PROC}",
]
_RUN = ["/bin/sh", "-c", f'{_JOIN}exec "$@"', "sh"]


class Container:
    """A container in a node's network namespace.

    Args:
        name: the node's name; also the host name inside.
        netns_path: the node's network namespace.
        run: the run that owns it.
        cpus: share of one core.
        memory_byte: limit of its memory.
        hosts: node name -> address, for /etc/hosts.
        files: what is seen in place of files of the machine, by their paths; /etc/hosts too, if it is among them.
        visible: files and folders that must be seen inside at the same path, read-only, even if they lie on another
            file system than the machine's root (the overlay covers only that one); Python and isl-emu are always.
        out: a folder of this machine that is the same inside; programs find it as ``$ISL_EMU_OUT``. What they write
            elsewhere is in memory and ends with the container: `lost_files` tells what that was.
        about: the file that tells of the node, in a folder that is seen inside; programs find it as ``$ISL_EMU_NODE``.
        pids: the most processes and threads inside, in place of the usual limit.
        image: programs of the user's see it in place of the machine's files.
        note: takes the process id and the words of each program that is started inside; before it starts without an id,
            since one that computes without end may leave us no time afterwards.
    """

    def __init__(
        self,
        name: str,
        netns_path: str,
        run: RunDirectory,
        cpus: float,
        memory_byte: int,
        hosts: Mapping[str, str],
        visible: Sequence[Path] = (),
        files: Mapping[str, str] = MappingProxyType({}),
        out: Path | None = None,
        about: Path | None = None,
        pids: int | None = None,
        image: UnpackedImage | None = None,
        note: Callable[[int | None, Sequence[str]], object] = lambda pid, argv: None,
    ):
        self.name = name
        self.netns_path = netns_path
        self.hosts, self._files = hosts, {place: Path(own).read_text() for place, own in files.items()}
        self._run = run
        self.cpus, self._pids, self.image = cpus, pids, image
        self.memory_byte = memory_byte
        prefixes = sys.prefix, sys.base_prefix
        # of another environment, where Python was told of one
        packages = [place for place in sys.path if place.endswith("site-packages") and not place.startswith(prefixes)]
        ours = *map(Path, (*prefixes, *packages)), Path(__file__).resolve().parents[1]
        self._visible, self._note = (*ours, *visible, *(() if about is None else (about.parent,))), note
        self.out, self._about = out and out.resolve(), about
        self._in_memory: dict[str, int] = {}
        # descriptors of the mounts that they see, of their root there, and of that of an image
        self._strangers: tuple[int, ...] = ()
        self.lost_files: list[str] = []
        self._group: Cgroup | None = None
        self._init: subprocess.Popen[bytes] | None = None
        self._started: list[subprocess.Popen[Any]] = []
        self._suspension: Suspension | None = None

    @property
    def address(self) -> str:
        """The node's address."""
        return self.hosts[self.name]

    @property
    def pid(self) -> int:
        """The container's PID 1, as seen from outside.

        Raises:
            MachineError: it is not running.
        """
        if self._init is None or self._init.poll() is not None:
            raise MachineError(f"container {self.name}: is not running, but its process was asked for; start it first")
        return self._init.pid

    @property
    def init(self) -> subprocess.Popen[bytes]:
        """The container's PID 1, as a process of ours.

        Raises:
            MachineError: it has not been started.
        """
        if self._init is None:
            raise MachineError(f"container {self.name}: has no process yet, but it was asked for; start it first")
        return self._init

    @property
    def group(self) -> Cgroup:
        """The group that limits and counts what its programs use.

        Raises:
            MachineError: it has not been started.
        """
        if self._group is None:
            raise MachineError(f"container {self.name}: has no cgroup yet, but it was asked for; start it first")
        return self._group

    def start(self) -> None:
        """Make the cgroup, the namespaces and the root, and start PID 1.

        Raises:
            MachineError: a limit or a namespace that this kernel does not give.
        """
        self._group = create_cgroup(self._run.run_id, self.name, self.cpus, self.memory_byte, pids=self._pids)
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)
            if self.image is not None and self.image.user.uid:  # who keeps files there too
                self.out.chmod(0o777)
        try:
            self._init = self._start_inside(
                self._leave_machine,
                _INIT if self.image is None else _INIT_OF_IMAGE,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            assert self._init.stdout is not None
            if self._init.stdout.readline() != b"ready\n":
                raise MachineError(
                    f"container {self.name}: its first process did not start, but it holds all others; see the "
                    "message above"
                )
            self._strangers = in_own_thread(self._strangers_view)
        except OSError as error:
            self.stop()
            raise MachineError(
                f"container {self.name}: {error}, but containers need it; run as root, or use --machine guest"
            ) from error
        except MachineError:
            self.stop()
            raise

    @overload
    def popen(
        self,
        argv: Sequence[str],
        *,
        own: bool = False,
        users: bool = False,
        keep: Collection[int] = (),
        text: Literal[True],
        **options: Any,
    ) -> subprocess.Popen[str]: ...

    @overload
    def popen(
        self,
        argv: Sequence[str],
        *,
        own: bool = False,
        users: bool = False,
        keep: Collection[int] = (),
        text: Literal[False] = False,
        **options: Any,
    ) -> subprocess.Popen[bytes]: ...

    def popen(
        self,
        argv: Sequence[str],
        *,
        own: bool = False,
        users: bool = False,
        keep: Collection[int] = (),
        **options: Any,
    ) -> subprocess.Popen[Any]:
        """Start a program inside: it is in the cgroup and in all namespaces before its first instruction.

        Args:
            own: it is the user's own, and keeps all rights of root, unless there is an image, which is a stranger's.
            users: the scenario's user wants it; it and what is the user's own see the image, if there is one, and it
                is whom the image wants it to be.
            keep: capabilities that it keeps until it gives them up by itself, if it is not.
            options: as for `subprocess.Popen`; the program gets a session of its own.
        """
        self._note(None, argv)
        in_image = self.image is not None and (own or users)

        def enter() -> None:
            self._enter(own=own and not in_image, in_image=in_image)
            if in_image or not own:
                give_up_rights(keep)

        if in_image:
            options["env"] = {**self.image_environment, **(options.get("env") or {})}
        if self.image is not None and users and self.image.user.uid:
            user = self.image.user
            options |= {"user": user.uid, "group": user.gid, "extra_groups": list(user.groups), "umask": 0}
        process = self._start_inside(enter, argv if in_image else [*_RUN, *argv], joins_itself=in_image, **options)
        self._note(process.pid, argv)
        self._started = [*(earlier for earlier in self._started if earlier.poll() is None), process]
        return process

    @property
    def image_environment(self) -> Mapping[str, str]:
        """What programs in the image find in their environment before all else."""
        return {"HOME": self.image.user.home, **self.image.image.environment} if self.image else {}

    def set_cpus(self, cpus: float) -> None:
        """Limit it to another share of one core from now on.

        Raises:
            MachineError: a limit that this kernel does not take.
        """
        self.group.limit_cpus(cpus)

    def cpu_ns(self) -> int:
        """The CPU time that its programs have used since the start.

        Raises:
            MachineError: this kernel does not count it.
        """
        return self.group.cpu_ns()

    @property
    def suspended(self) -> bool:
        """Whether its computer is off."""
        return self._suspension is not None

    def suspend(self) -> None:
        """Switch its computer off: programs stand still, and connections are refused, until `resume`.

        If it is off, programs that have been started since come to a stand too.

        Raises:
            MachineError: something inside does not come to a stand.
        """
        if self._suspension is None:
            self._suspension = Suspension()
        self._suspension.hold(self.group.pids() - {self.pid})  # its PID 1 watches whether we live

    def resume(self) -> None:
        """Switch its computer on again; what was in memory still is."""
        if self._suspension is not None:
            self._suspension.resume()
            self._suspension = None

    def oom_kills(self) -> int:
        """How many of its processes the kernel has killed for want of memory since the start."""
        return self.group.oom_kills()

    def stop(self) -> None:
        """Kill everything inside and remove what was made; may be called again.

        Raises:
            MachineError: a process inside was started by somebody else who has not waited for it.
        """
        try:
            if self._init is not None:
                self._kill(self._init)
            self.lost_files += self._files_in_memory()
        finally:
            for descriptor in (*self._in_memory.values(), *self._strangers):
                os.close(descriptor)
            self._in_memory, self._strangers = {}, ()
            if self._group is not None:
                self._group.remove()
            with suppress(OSError):
                self._folder.rmdir()
                self._folder.parent.rmdir()

    def _kill(self, init: subprocess.Popen[bytes]) -> None:
        """End PID 1, and with it all others. It cannot go before the others, and they not before we wait for them."""
        self.group.thaw()
        init.kill()
        for pipe in (init.stdin, init.stdout):
            assert pipe is not None
            pipe.close()
        for process in self._started:
            process.wait()
        try:
            init.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise MachineError(
                f"container {self.name}: a process inside waits for its parent outside, but must be gone; "
                "end the shells that entered it first"
            ) from None

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function in a thread that sees the container's files and network, and return what it returns."""

        def inside() -> Result:
            self._enter(own=True)
            return function(*arguments)

        return in_own_thread(inside)

    def _files_in_memory(self) -> list[str]:
        """What programs have written that no folder of this machine has."""
        found = [
            os.path.join("/" if place == IMAGE_ROOT else place, path)
            for place, folder in self._in_memory.items()
            for path in files_below(folder)
        ]
        return sorted(set(found) - _OWN_FILES - set(self._files))

    @property
    def _folder(self) -> Path:
        return self._run.path / "containers" / self.name

    def _start_inside(
        self, enter: Callable[[], None], argv: Sequence[str], joins_itself: bool = False, **options: Any
    ) -> subprocess.Popen[Any]:
        """Start a program from a thread that calls `enter` first.

        Args:
            argv: begins with a shell that joins the group.
            joins_itself: it has no such shell, as in an image that need not have any; then the new process joins before
                it becomes the program, which takes a copy of this one.
        """
        joins = self.group.open_joins()
        environment = dict(os.environ if options.get("env") is None else options["env"])
        if joins_itself:
            options["preexec_fn"] = partial(_join, joins)
        else:
            environment["ISL_JOIN"] = " ".join(map(str, joins))
        if self.out is not None:
            environment[OUT_VARIABLE] = str(self.out)
        if self._about is not None:
            environment[NODE_VARIABLE] = str(self._about)
        options.update(
            env=environment,
            pass_fds=(*(() if joins_itself else joins), *options.get("pass_fds", ())),
            start_new_session=True,
        )

        def start() -> subprocess.Popen[Any]:
            enter()
            return subprocess.Popen(argv, **options)

        try:
            return in_own_thread(start)
        finally:
            for descriptor in joins:
                os.close(descriptor)

    def _leave_machine(self) -> None:
        """Move the calling thread into namespaces and a root that are new, but for the network of the node."""
        enter_network(self.netns_path)
        self._folder.mkdir(parents=True, exist_ok=True)
        unshare(CLONE_FS | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID)
        os.umask(0o022)
        set_host_name(self.name)
        ours = (
            (self.out and self.out.parent, self._about and self._about.parent)
            if self.image
            else (self.out and self.out.parent,)
        )
        self._in_memory = build_root(
            self._folder, self._visible, [path for path in ours if path], self.image.root if self.image else None
        )
        Path("/etc/hostname").write_text(f"{self.name}\n")
        for place, text in {"/etc/hosts": hosts_text(self.hosts), **self._files}.items():
            Path(place).write_text(text)
            if self.image is not None:
                write_plain(Path(IMAGE_ROOT), place, text)
        if self.image is not None:
            write_plain(Path(IMAGE_ROOT), "/etc/hostname", f"{self.name}\n")

    def _strangers_view(self) -> tuple[int, ...]:
        """A copy of the container's mounts in which the kernel is masked: its mount namespace, and its root."""
        machine = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # that of the container has not got us
        try:
            self._enter(own=True)
            unshare(CLONE_NEWNS)
            mask_kernel()
            image = () if self.image is None else (os.open(IMAGE_ROOT, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC),)
            if image:
                mask_kernel(f"{IMAGE_ROOT}/proc")
            mounts = os.open("thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC, dir_fd=machine)
            return mounts, os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), *image
        finally:
            os.close(machine)

    def _enter(self, *, own: bool, in_image: bool = False) -> None:
        """Move the calling thread into the container, as the user's own or as a stranger, perhaps into its image."""
        unshare(CLONE_FS)
        descriptor = os.pidfd_open(self.pid)
        root = os.open(f"/proc/{self.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            set_namespace(descriptor, _ALL_NAMESPACES)
            if not own:
                set_namespace(self._strangers[0], CLONE_NEWNS)
            # Entering a mount namespace leads to its lowest root: another one if the machine itself is in a chroot.
            os.chdir(root if own else self._strangers[2 if in_image else 1])
            os.chroot(".")
        finally:
            os.close(root)
            os.close(descriptor)


def _join(groups: Sequence[int]) -> None:
    """Join groups, as a process that is not yet a program: by system calls alone."""
    for group in groups:
        os.write(group, b"0")


@contextmanager
def handed(files: Mapping[str, Path]) -> Iterator[tuple[list[str], tuple[int, ...]]]:
    """Files that a program in a container could not reach, open to read and write while the block lasts.

    Args:
        files: by the option that names them; made if they are missing.

    Returns:
        The options with what the program finds them by, and the descriptors to pass on.
    """
    descriptors = tuple(os.open(path, os.O_RDWR | os.O_CREAT, 0o644) for path in files.values())
    try:
        words = zip(files, (f"/proc/self/fd/{descriptor}" for descriptor in descriptors), strict=True)
        yield [word for pair in words for word in pair], descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def hosts_text(hosts: Mapping[str, str]) -> str:
    """The text of /etc/hosts that names all nodes."""
    return "".join(f"{address}\t{name}\n" for name, address in {"localhost": "127.0.0.1", **hosts}.items())
