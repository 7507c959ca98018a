"""llama.cpp's RPC backend, which the wheel of xllamacpp leaves out, as a library of its own that is loaded into it.

It is made by `isl_emu.parts.split.rpc_build`. It has no ggml of its own: the functions that it needs are those that
xllamacpp's library exports, so both must be made from the same version of ggml; the file's name says for which.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, c_char_p, c_size_t, c_void_p
from importlib import metadata
from pathlib import Path

from isl_emu.errors import WorkloadError

THREADS = 1  # of a worker: two that share a core wait for each other


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
