"""The user-mode kernel of this machine: where it is, which version, and what it needs to start on this processor.

The one that was built here (`isl_emu.machine.kernel_build`) serves both clocks; without it the distribution's serves
real time.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from isl_emu.errors import MachineError
from isl_emu.machine.kernel_cache import cache_folder, find_built, find_source

INSTALL_UML = "install it with: apt-get install user-mode-linux"
INSTALL_COMPILER = "install one with: apt-get install gcc libc6-dev"
KNOWS_ANY_XSTATE = (6, 13)  # Source: Linux 6.13, "um: switch to regset API and depend on XSTATE"
MODULES = Path("/usr/lib/uml/modules")


@dataclass(frozen=True)
class UmlKernel:
    """A User-mode Linux kernel.

    Args:
        program: where it is.
        release: such as "6.1.176".
        sha256: digest of the program; empty if nobody has asked.
        exact: whether it is ours, which can keep exact time.
    """

    program: str
    release: str
    sha256: str = ""
    exact: bool = False

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor number."""
        major, minor = re.findall(r"\d+", self.release)[:2]
        return int(major), int(minor)


@cache
def find_uml() -> UmlKernel:
    """The kernel that was built here, or the distribution's linux.uml.

    Raises:
        MachineError: there is neither, it does not run, or the processor is not x86_64.
    """
    if platform.machine() != "x86_64":
        raise MachineError(
            f"guest kernel: the processor is {platform.machine()}, but User-mode Linux runs on x86_64 only; "
            "use a kernel with netem (module sch_netem) as root"
        )
    if built := find_built(find_source()):
        return UmlKernel(built.program, built.release, built.sha256, exact=True)
    program = shutil.which("linux.uml")
    if program is None:
        raise MachineError(f"guest kernel: linux.uml is not on this machine, but a guest is its process; {INSTALL_UML}")
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    if answer.returncode or not re.match(r"\d+\.\d+", answer.stdout):
        raise MachineError(
            f"guest kernel: {program} --version failed ({answer.stderr.strip()}), but a kernel tells its version; "
            f"{INSTALL_UML}"
        )
    return UmlKernel(program, answer.stdout.strip(), hashlib.sha256(Path(program).read_bytes()).hexdigest())


def inside_guest() -> bool:
    """Whether this process runs in a guest kernel of ours."""
    return os.environ.get("ISL_EMU_GUEST") == "1"


def needs_shim(kernel: UmlKernel) -> bool:
    """Whether the processor's floating-point state is larger than this kernel knows; ours has a patch for it.

    The measure is the processor's AMX: with it the state has 11,008 bytes, without it at most 2,696.
    """
    return not kernel.exact and kernel.version < KNOWS_ANY_XSTATE and "amx_tile" in processor_flags()


@cache
def processor_flags() -> frozenset[str]:
    """The flags of the first processor in /proc/cpuinfo."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def build_shim() -> Path:
    """The preload library of xstate_shim.c, compiled once per user.

    Raises:
        MachineError: there is no compiler, or it fails.
    """
    source = files("isl_emu.machine").joinpath("xstate_shim.c").read_text()
    library = cache_folder() / f"xstate_shim-{hashlib.sha256(source.encode()).hexdigest()[:16]}.so"
    if not library.exists():
        # Compile under another name and rename: two runs may do this at once
        with tempfile.NamedTemporaryFile(dir=library.parent, suffix=".so") as building:
            command = [find_compiler(), "-shared", "-fPIC", "-O2", "-x", "c", "-", "-o", building.name, "-ldl"]
            answer = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
            if answer.returncode:
                raise MachineError(
                    f"guest kernel: xstate_shim.c does not compile ({answer.stderr}), but this processor needs it; "
                    f"{INSTALL_COMPILER}"
                )
            os.chmod(building.name, 0o755)
            os.link(building.name, f"{building.name}.done")
            os.replace(f"{building.name}.done", library)
    return library


def find_compiler() -> str:
    """The C compiler, `cc` or `gcc`.

    Raises:
        MachineError: there is none.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise MachineError(
            "guest kernel: this processor has AMX and its floating-point state must be padded by a small library, "
            f"but there is no C compiler to build it; {INSTALL_COMPILER}"
        )
    return compiler
