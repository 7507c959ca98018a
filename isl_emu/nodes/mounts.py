"""The root of a container: an overlay over this machine's root, built in the mount namespace of the calling thread."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from isl_emu.nodes.namespaces import checked, libc

# Source: include/uapi/linux/mount.h
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x1, 0x2, 0x4, 0x8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x20, 0x1000, 0x4000, 0x40000
MNT_DETACH = 0x2  # Source: include/linux/fs.h
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}  # Source: arch/*/include/.../unistd; libc has no wrapper

PRIVATE = {"/tmp": "1777", "/run": "755", "/root": "700", "/home": "755"}  # folders that begin empty, with their modes
IMAGE_ROOT = "/run/image"  # where the root of an image is in a container
SECRETS = ("/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-")  # empty inside
# Of /proc, for who has no rights over the machine: what changes it is read-only, what tells of it is empty. The last
# two are of User-mode Linux.
READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")
MASKED = (
    "acpi", "asound", "scsi", "kallsyms", "kcore", "keys", "key-users", "kmsg", "kpagecount", "kpageflags",
    "latency_stats", "sched_debug", "slabinfo", "timer_list", "timer_stats", "vmallocinfo", "exitcode", "mconsole",
)  # fmt: skip

_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}


def build_root(
    folder: Path, visible: Iterable[Path], writable: Iterable[Path] = (), image: Path | None = None
) -> dict[str, int]:
    """Make an overlay over / at `folder`, with devices and a /sys and `PRIVATE` of its own, and make it the root.

    The calling thread must have a mount namespace of its own. /proc is the machine's until the container's first
    process mounts one over it, because a proc mount shows the process tree of whoever mounts it.

    Args:
        folder: an empty folder; it hides the layers inside and stays empty outside.
        visible: paths bound read-only at the same place where the overlay does not show them.
        writable: folders bound at the same place, whose files are this machine's.
        image: the root folder of an image, which is seen at `IMAGE_ROOT` with the same folders, and writes of its own.

    Returns:
        Open descriptors of the folders in memory that everything written elsewhere goes to, by where they begin.
    """
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    covers = mount_points(Path("/proc/self/mountinfo").read_text()) | {*map(Path, PRIVATE)}
    mount("tmpfs", folder, "tmpfs", 0, "mode=755")
    upper, work, root = (folder / layer for layer in ("upper", "work", "root"))
    for layer in (upper, work, root):
        layer.mkdir()
    for place in PRIVATE:
        (upper / place.lstrip("/")).mkdir()
    mount("overlay", root, "overlay", 0, f"lowerdir=/,upperdir={upper},workdir={work}")
    for place, mode in PRIVATE.items():
        mount("tmpfs", root / place.lstrip("/"), "tmpfs", MS_NOSUID | MS_NODEV, f"mode={mode}")
    for place in SECRETS:
        if (root / place.lstrip("/")).exists():
            mount("/dev/null", root / place.lstrip("/"), None, MS_BIND)
    mount("sysfs", root / "sys", "sysfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("/proc", root / "proc", None, MS_BIND)  # without /proc/self/fd, Popen closes each possible descriptor
    _fill_devices(root / "dev")
    for path in hidden_paths(visible, covers):
        mount("none", _bind(path, root), None, MS_BIND | MS_REMOUNT | MS_RDONLY)
    for path in writable:
        _bind(path, root)
    in_memory = {"/": upper, **{place: root / place.lstrip("/") for place in PRIVATE}}
    if image is not None:
        in_memory[IMAGE_ROOT] = _add_image(root, folder, image, writable)
    opened = {place: os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for place, path in in_memory.items()}
    os.chdir(root)
    # "." stands for the new root and for the old one, so no folder is needed for it
    checked(libc.syscall(SYS_PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root")
    unmount(".")
    os.chdir("/")
    return opened


def _add_image(root: Path, folder: Path, image: Path, writable: Iterable[Path]) -> Path:
    """Mount an image, with devices, /sys and the folders of this machine that are writable; where its writes go."""
    place, upper, work = root / IMAGE_ROOT.lstrip("/"), folder / "image-upper", folder / "image-work"
    for made in (place, upper, work):
        made.mkdir()
    mount("overlay", place, "overlay", MS_NOSUID | MS_NODEV, f"lowerdir={image},upperdir={upper},workdir={work}")
    for name in ("dev", "sys"):
        mount(root / name, plain_folder(place, name), None, MS_BIND | MS_REC)
    plain_folder(place, "proc")
    plain_folder(place, "tmp").chmod(0o1777)
    for path in writable:
        mount(path, plain_folder(place, str(path.relative_to("/"))), None, MS_BIND | MS_REC)
    return upper


def plain_folder(root: Path, path: str) -> Path:
    """A folder below a root that a stranger has made, with what leads elsewhere on the way replaced by folders."""
    place = root
    for name in Path(path).parts:
        place = place / name
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            place.unlink()
        place.mkdir(exist_ok=True)
    return place


def write_plain(root: Path, path: str, text: str) -> None:
    """Write a file below a root that a stranger has made, and nowhere else."""
    place = plain_folder(root, str(Path(path).parent.relative_to("/"))) / Path(path).name
    if place.is_dir() and not place.is_symlink():
        return  # its makers want none
    place.unlink(missing_ok=True)
    with open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644), "w") as file:
        file.write(text)


def mask_kernel(proc: str = "/proc") -> None:
    """Cover what changes the kernel or tells of it in /proc, in the mount namespace of the calling thread."""
    for name in READ_ONLY:
        if (path := Path(proc, name)).exists():
            mount(path, path, None, MS_BIND)
            mount("none", path, None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for name in MASKED:
        if (path := Path(proc, name)).is_dir():
            mount("tmpfs", path, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
        elif path.exists():
            mount("/dev/null", path, None, MS_BIND)


def files_below(folder: int) -> Iterator[str]:
    """The regular files below an open folder, by their paths from there, but for what Python keeps of its modules."""
    for where, folders, names, descriptor in os.fwalk(".", dir_fd=folder):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in names:
            if stat.S_ISREG(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                yield os.path.normpath(os.path.join(where, name))


def mount(source: str | Path, target: str | Path, kind: str | None, flags: int, options: str = "") -> None:
    """Mount by system call; the OSError names the target."""
    arguments = (str(source).encode(), str(target).encode(), kind and kind.encode(), flags, options.encode() or None)
    checked(libc.mount(*arguments), f"mount {kind or 'flags'} on {target}")


def unmount(path: str | Path) -> None:
    """Take a mount away, at once or as soon as nobody uses it."""
    checked(libc.umount2(os.fsencode(path), MNT_DETACH), f"umount {path}")


def mount_points(mountinfo: str) -> set[Path]:
    """All mount points in the text of /proc/self/mountinfo (which escapes blanks as in \\040)."""
    return {Path(line.split()[4].encode().decode("unicode_escape")) for line in mountinfo.splitlines()}


def hidden_paths(visible: Iterable[Path], covers: set[Path]) -> list[Path]:
    """Those of the visible paths that lie in a folder that something else covers; outermost first, none in another."""
    hidden: list[Path] = []
    for path in sorted({Path(os.path.realpath(path)) for path in visible}):
        covered = any(parent in covers for parent in (path, *path.parents) if parent != Path("/"))
        if covered and not any(known in path.parents for known in hidden):
            hidden.append(path)
    return hidden


def _bind(path: Path, root: Path) -> Path:
    target = root / path.relative_to("/")
    if path.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    mount(path, target, None, MS_BIND | MS_REC)
    return target


def _fill_devices(dev: Path) -> None:
    mount("tmpfs", dev, "tmpfs", MS_NOSUID, "mode=755")
    for name, (major, minor) in _DEVICES.items():
        os.mknod(dev / name, stat.S_IFCHR | 0o666, os.makedev(major, minor))
        (dev / name).chmod(0o666)
    for name, target in _DEVICE_LINKS.items():
        (dev / name).symlink_to(target)
    for name, kind, options in (("shm", "tmpfs", "mode=1777"), ("pts", "devpts", "newinstance,ptmxmode=666,mode=620")):
        (dev / name).mkdir()
        mount(kind, dev / name, kind, MS_NOSUID | MS_NOEXEC, options)
