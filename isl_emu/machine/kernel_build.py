"""Builds the guest kernel that has exact time, once, from the distribution's own source and our recipe in `kernel/`.

The work is done in one folder of the cache under a lock, and goes on where an interrupted build stopped. Only a kernel
that was stripped, has booted with both clocks and has run a command is put, in one step, where runs find it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from isl_emu.errors import MachineError
from isl_emu.machine.claims import MIB
from isl_emu.machine.guest import VirtualClock, run_in_guest
from isl_emu.machine.kernel_cache import (
    BUILD_TIMESTAMP,
    MAKE_WORDS,
    RECIPE,
    SOURCE_PACKAGE,
    SOURCE_VARIABLE,
    BuiltKernel,
    KernelSource,
    entries,
    find_built,
    find_source,
    kernels_folder,
    read_entry,
    recipe_digest,
)
from isl_emu.machine.uml import UmlKernel, find_uml, inside_guest
from isl_emu.runs.directory import create_run_directory

Report = Callable[[float, str], None]  # as in isl_emu.progress, which is slow to import

# Program -> Debian package, for the programs that a build runs.
BUILD_PROGRAMS = {
    "gcc": "gcc",
    "ld": "binutils",
    "make": "make",
    "flex": "flex",
    "bison": "bison",
    "bc": "bc",
    "patch": "patch",
    "tar": "tar",
    "xz": "xz-utils",
}
SPACE_BYTE = 700 * MIB  # source and objects take 350 MiB, and compiling a little more
MAKE_LINES = 1414  # what `make` says for Debian's 6.12.117: the measure of progress
LINES_SHOWN = 8
KEPT = 4  # the latest kernels, for checkouts that differ in their recipes
CHECK_MEMORY_BYTE = 256 * MIB
REAL_TIME = "--clock real needs no such kernel"


def obstacles() -> list[tuple[str, str]]:
    """What stands in the way of a build: each with what would help."""
    if platform.machine() != "x86_64":
        return [(f"the processor is {platform.machine()}, but it is built for x86_64 only", REAL_TIME)]
    found = []
    if find_source() is None:
        named = os.environ.get(SOURCE_VARIABLE)
        what = f"{SOURCE_VARIABLE} names {named}, which is no file" if named else f"no package {SOURCE_PACKAGE}"
        found.append((what, _install(SOURCE_PACKAGE)))
    missing = {name: package for name, package in BUILD_PROGRAMS.items() if not shutil.which(name)}
    if missing:
        found.append((f"no {', '.join(missing)}", _install(*sorted(set(missing.values())))))
    elif not _has_headers():
        found.append(("no headers of the C library", _install("libc6-dev")))
    folder = kernels_folder()
    free_byte = shutil.disk_usage(folder).free
    if free_byte < SPACE_BYTE:
        found.append((f"{free_byte // MIB:,} MiB free in {folder}", f"{SPACE_BYTE // MIB:,} MiB are needed: free some"))
    if " " in str(folder) or ":" in str(folder):
        found.append((f"its folder is {str(folder)!r}, with a space or colon", "set XDG_CACHE_HOME to one without"))
    return found


def can_build() -> bool:
    """Whether there is no kernel of the source that is here, but all that a build needs."""
    source = find_source()
    built = find_built(source)
    if inside_guest() or source is None or (built is not None and built.source == source.version):
        return False
    return not obstacles()


def build_kernel(report: Report) -> UmlKernel:
    """The kernel of this recipe and the source that is here, built if it is not there yet.

    Args:
        report: is told how far the build is.

    Raises:
        MachineError: it cannot be built here, does not compile, or does not work.
    """
    with _alone(report):
        source = find_source()
        built = find_built(source)
        if built is None or (source is not None and built.source != source.version):
            standing = obstacles()
            if source is not None and not standing:
                built = _build(source, report)
            elif built is None:
                what, fix = standing[0]
                raise MachineError(f"guest kernel: cannot be built ({what}), but exact time needs it; {fix}")
        find_uml.cache_clear()
    return UmlKernel(built.program, built.release, built.sha256, exact=True)


@contextlib.contextmanager
def _alone(report: Report) -> Iterator[None]:
    """One build at a time; what `make` started holds the lock too, so that it is waited for if we are killed."""
    with (kernels_folder() / "lock").open("w") as lock:
        os.set_inheritable(lock.fileno(), True)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(0.0, "another isl-emu is building it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(source: KernelSource, report: Report) -> BuiltKernel:
    began = time.monotonic()
    folder = kernels_folder() / "building"
    key = f"{source.version} {recipe_digest()}"
    if not (folder / "key").is_file() or (folder / "key").read_text() != key:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "key").write_text(key)
    resumed = (folder / "tree").is_dir()
    try:
        _compile(source, folder, report)
    except MachineError:
        if not resumed:
            raise
        shutil.rmtree(folder / "tree")  # an interruption may have left it worse than unfinished
        _compile(source, folder, report)
    report(0.99, "trying it out")
    program = folder / "linux"
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    compiler = subprocess.run(["gcc", "--version"], capture_output=True, text=True, check=False).stdout
    digest = hashlib.sha256(program.read_bytes()).hexdigest()
    built = BuiltKernel(
        program=str(program),
        release=answer.stdout.strip(),
        source=source.version,
        recipe=recipe_digest(),
        sha256=digest,
        compiler=compiler.partition("\n")[0],
        build_s=round(time.monotonic() - began, 1),
    )
    _try_out(UmlKernel(built.program, built.release, built.sha256, exact=True))
    return _publish(folder, built)


def _compile(source: KernelSource, folder: Path, report: Report) -> None:
    tree = folder / "tree"
    if not tree.is_dir():
        report(0.0, "unpacking the source")
        # Make the source tree, unpacked, patched and configured, in one step
        draft, tools = folder / "draft", folder / "tools"
        for old in (draft, tools):
            shutil.rmtree(old, ignore_errors=True)
            old.mkdir()
        (tools / "own").mkdir()
        shutil.copytree(RECIPE, tools, dirs_exist_ok=True)
        (tools / "cc").chmod(0o755)
        # Only what the build needs: the rest of the source is four fifths of it
        with subprocess.Popen(["tar", "-tf", str(source.archive)], stdout=subprocess.PIPE, text=True) as listing:
            assert listing.stdout is not None
            top = listing.stdout.readline().partition("/")[0].strip()
            listing.kill()
        wanted = (tools / "unpack").read_text().split()
        (tools / "members").write_text("".join(f"{top}/{name}\n" for name in wanted))
        left_out = [f"--exclude={name}" for name in (tools / "leave-out").read_text().split()]
        selected = ["--strip-components=1", "--wildcards", f"--files-from={tools}/members"]
        _run(["tar", "-x", "-I", "xz -T0", "-f", str(source.archive), "-C", str(draft), *selected, *left_out], tools)
        for patch in sorted((tools / "patches").iterdir()):
            _run(["patch", "--batch", "--forward", "-p1", "-d", str(draft), "-i", str(patch)], folder)
        for _ in _make(folder, [f"KCONFIG_ALLCONFIG={tools}/config.fragment", "allnoconfig"], tree=draft):
            pass
        draft.rename(folder / "tree")
    done = 0
    for line in _make(folder, [f"-j{len(os.sched_getaffinity(0))}", "linux"]):
        if line.startswith("  "):
            done += 1
            report(min(0.05 + 0.93 * done / MAKE_LINES, 0.98), f"{done:,} of about {MAKE_LINES:,} steps")
    _run(["strip", "-o", str(folder / "linux"), str(tree / "linux")], folder)


def _make(folder: Path, words: list[str], tree: Path | None = None) -> Iterator[str]:
    """Run `make` and give its lines as they come."""
    compiler = folder / "tools" / "cc"
    command = ["make", "-C", str(tree or folder / "tree"), f"CC={compiler}", *MAKE_WORDS, *words]
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "ISL_PCH": str(compiler.parent)}
    environment |= {"KBUILD_BUILD_TIMESTAMP": BUILD_TIMESTAMP, "KBUILD_BUILD_VERSION": "1"}
    said: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, close_fds=False
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                said = [*said, line.rstrip()][-LINES_SHOWN:]
                yield line
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise _failure(command, process.returncode, said)


def _run(command: list[str], folder: Path) -> None:
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, close_fds=False)
    if answer.returncode:
        raise _failure(command, answer.returncode, (answer.stdout + answer.stderr).splitlines()[-LINES_SHOWN:])


def _failure(command: list[str], status: int, said: list[str]) -> MachineError:
    lines = "\n  ".join(said)
    return MachineError(
        f"guest kernel: its build failed: {Path(command[0]).name} ended with {status}, but 0 is success; {REAL_TIME}. "
        f"It said last:\n  {lines}"
    )


def _try_out(kernel: UmlKernel) -> None:
    """Boot it with both clocks; it must run a command in each."""
    for clock in (None, VirtualClock(start_utc_ns=0)):
        run = create_run_directory()
        try:
            status = run_in_guest(
                ["true"], run=run, writable=[], memory_byte=CHECK_MEMORY_BYTE, kernel=kernel, clock=clock
            )
        finally:
            shutil.rmtree(run.path, ignore_errors=True)
        if status:
            raise MachineError(
                f"guest kernel: `true` ended with {status} on the kernel that was built, but 0 is right; {REAL_TIME}"
            )


def _publish(folder: Path, built: BuiltKernel) -> BuiltKernel:
    """Put it where runs look, in place of a broken one, and remove what it was made of."""
    entry, draft = kernels_folder() / f"{built.release}-{built.recipe}-{built.sha256[:12]}", folder / "entry"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o755)
    (folder / "linux").rename(draft / "linux")
    (draft / "linux").chmod(0o755)
    built.save(draft)
    shutil.rmtree(entry, ignore_errors=True)
    draft.rename(entry)
    for old in entries(kernels_folder())[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    published = read_entry(entry)
    if published is None:
        raise MachineError(
            f"guest kernel: {entry} changed while it was written, but nobody else may write there; build it again"
        )
    return published


def _has_headers() -> bool:
    tried = subprocess.run(
        ["gcc", "-E", "-x", "c", "-"], input="#include <stdio.h>\n", text=True, capture_output=True, check=False
    )
    return tried.returncode == 0


def _install(*packages: str) -> str:
    return f"apt-get install --no-install-recommends {' '.join(packages)}"


def main() -> int:
    """``python -m isl_emu.machine.kernel_build``: build it, unless it is there, and say where it is."""
    shown = -1

    def report(done: float, detail: str) -> None:
        nonlocal shown
        if int(done * 25) != shown:
            shown = int(done * 25)
            print(f"guest kernel: {done:.0%}, {detail}", flush=True)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and `make` with us
    try:
        kernel = build_kernel(report)
    except MachineError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"guest kernel: {kernel.release}, {kernel.program}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
