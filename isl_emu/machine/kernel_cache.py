"""The kernels that were built here: by what they are known, where they lie, and whether one is as it was built."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from isl_emu.errors import MachineError

SOURCE_PACKAGE = "linux-source-6.12"
SOURCE_VARIABLE = "ISL_EMU_KERNEL_SOURCE"  # another archive of Linux 6.12
ROOTS_CACHE = Path("/var/cache/isl-emu")
ROOT = 0  # root's files are safe for everybody
# What `make` is told besides; a change makes another kernel.
MAKE_WORDS = ("ARCH=um", "KCFLAGS=-O1", "KBUILD_BUILD_USER=isl-emu", "KBUILD_BUILD_HOST=isl-emu")
BUILD_TIMESTAMP = "2026-01-01"  # the same source, compiler and recipe give the same bytes
DIGEST_CHARACTERS = 12
RECIPE = Path(__file__).resolve().parent / "kernel"


@dataclass(frozen=True)
class KernelSource:
    """An archive of Linux' source, and what tells it from others."""

    archive: Path
    version: str


@dataclass(frozen=True)
class BuiltKernel:
    """A kernel in the cache.

    Args:
        program: the kernel.
        release: what it calls itself.
        source: version of the source.
        recipe: digest of the configuration, the patches and the way it was built.
        sha256: of the program.
        compiler: what made it.
        build_s: how long that took.
    """

    program: str
    release: str
    source: str
    recipe: str
    sha256: str
    compiler: str
    build_s: float

    def save(self, entry: Path) -> None:
        """Write it down beside the program."""
        record = {name: value for name, value in asdict(self).items() if name != "program"}
        (entry / "kernel.json").write_text(json.dumps(record, indent=1))


@cache
def recipe_digest() -> str:
    """Digest of everything that decides what kernel a source becomes."""
    digest = hashlib.sha256(repr((MAKE_WORDS, BUILD_TIMESTAMP)).encode())
    for path in sorted(path for path in RECIPE.rglob("*") if path.is_file() and path.name != "README.md"):
        data = path.read_bytes()
        digest.update(f"{path.relative_to(RECIPE)} {len(data)}\n".encode() + data)
    return digest.hexdigest()[:DIGEST_CHARACTERS]


def find_source() -> KernelSource | None:
    """The source that a kernel would be built of: what the variable names, or the distribution's package."""
    if named := os.environ.get(SOURCE_VARIABLE):
        archive = Path(named)
        return KernelSource(archive, f"{archive.name}-{archive.stat().st_size}") if archive.is_file() else None
    archive = Path(f"/usr/src/{SOURCE_PACKAGE}.tar.xz")
    if not archive.is_file():
        return None
    command = ["dpkg-query", "-W", "-f=${Version}", SOURCE_PACKAGE]
    try:
        version = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):  # unpacked by hand
        version = f"{archive.name}-{archive.stat().st_size}"
    return KernelSource(archive, version)


def find_built(source: KernelSource | None) -> BuiltKernel | None:
    """The kernel of this recipe, made of this source; any other of this recipe if there is none, the latest first."""
    found = [built for folder in _folders_to_read() for entry in entries(folder) if (built := read_entry(entry))]
    found = [built for built in found if built.recipe == recipe_digest()]
    wanted = [built for built in found if source is not None and built.source == source.version]
    return next(iter([*wanted, *found]), None)


def read_entry(entry: Path) -> BuiltKernel | None:
    """The kernel in a folder of the cache; None if it is not whole, not as it was built, or a stranger's."""
    program = entry / "linux"
    try:
        built = BuiltKernel(program=str(program), **json.loads((entry / "kernel.json").read_text()))
        owners = {path.stat().st_uid for path in (entry, program)}
        whole = hashlib.sha256(program.read_bytes()).hexdigest() == built.sha256
    except (OSError, ValueError, TypeError):
        return None
    return built if whole and owners <= {ROOT, os.geteuid()} else None


def entries(folder: Path) -> list[Path]:
    """The kernels in a folder of the cache, the latest first."""
    manifests = [path for path in folder.glob("*/kernel.json") if path.is_file()]
    return [path.parent for path in sorted(manifests, key=lambda path: path.stat().st_mtime_ns, reverse=True)]


def kernels_folder() -> Path:
    """Where kernels are put that this user builds."""
    folder = cache_folder() / "kernels"
    folder.mkdir(exist_ok=True, mode=0o755)
    return folder


def cache_folder() -> Path:
    """Root's or the user's cache; a private temporary folder for a user whose home cannot be written."""
    for folder in _own_caches():
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        except OSError:
            continue
        if os.access(folder, os.W_OK) and folder.stat().st_uid == os.geteuid():
            return folder
    raise MachineError(
        "guest kernel: no cache folder can be written, but the kernel is kept there; set TMPDIR to a folder of yours"
    )


def _own_caches() -> tuple[Path, Path]:
    """The preferred one first."""
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "isl-emu"
    return ROOTS_CACHE if os.geteuid() == 0 else users, Path(tempfile.gettempdir()) / f"isl-emu-cache-{os.geteuid()}"


def _folders_to_read() -> list[Path]:
    """One's own kernels, and those that root has built for everybody."""
    return [folder / "kernels" for folder in dict.fromkeys((*_own_caches(), ROOTS_CACHE))]
