"""What a split model needs that isl-emu does not bring along, and how to get it."""

from __future__ import annotations

import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from isl_emu.errors import WorkloadError

PIPELINE_MODULES = ("torch", "gguf", "tokenizers", "jinja2")


def rpc_backend(folder: Path | None = None) -> Path:
    """Where llama.cpp's RPC backend for the installed xllamacpp is, or is to be; both must be of one version."""
    folder = folder or Path(sys.prefix) / "lib" / "isl-emu"
    return folder / f"libggml-rpc-{metadata.version('xllamacpp')}.so"


def check_engine(engine: str) -> None:
    """Refuse an engine whose libraries are not installed.

    Raises:
        WorkloadError: what is missing, and how to get it.
    """
    if engine == "pipeline":
        missing = [name for name in PIPELINE_MODULES if find_spec(name) is None]
        if missing:
            raise WorkloadError(
                f'split.engine: is "pipeline", but {", ".join(missing)} is not installed; '
                "run `pip install torch gguf tokenizers` (half a minute, 0.9 GB; docs/split.md), or use llama-rpc"
            )
    elif not rpc_backend().exists():
        raise WorkloadError(
            f'split.engine: is "llama-rpc", but {rpc_backend()} does not exist; '
            "run `python -m isl_emu.parts.split.rpc_build` (half a minute; it needs a C++ compiler)"
        )
