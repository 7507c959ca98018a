"""A model server: llama.cpp's own OpenAI-compatible server, from the `xllamacpp` wheel, with one decoding thread.

Run as ``python -m isl_emu.parts.serving.model_server`` inside a satellite's container; it ends with the container.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xllamacpp import CommonParams

MODEL_ALIAS = "sat"  # without one the model's whole path is in every streamed chunk
# Source: glibc malloc.h
M_TOP_PAD, M_ARENA_MAX = -2, -8
HEAP_STEP_BYTE = 8 << 20
PROMPT_BATCH_TOKENS = 256
SLOT_FOLDER = Path("/tmp/isl-emu-slots")  # in the container; where conversations are saved when they are to move


def parameters(model: Path, host: str, port: int, context_tokens: int) -> CommonParams:
    """What llama.cpp's server is told: one thread, one slot, no warm-up, nothing kept between requests."""
    from xllamacpp import CommonParams  # noqa: PLC0415  only a server loads the library

    params = CommonParams()
    params.model.path = str(model)
    params.model_alias = {MODEL_ALIAS}
    params.hostnames = [host]
    params.port = port
    params.n_ctx = context_tokens
    params.n_parallel = 1
    params.n_batch = params.n_ubatch = PROMPT_BATCH_TOKENS
    # two threads that share a core wait for each other at every layer: a hundredth of the speed
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.n_threads_http = 2
    params.endpoint_metrics = params.endpoint_slots = True
    params.slot_save_path = f"{SLOT_FOLDER}/"
    params.ui = params.warmup = params.fit_params = False
    params.cache_ram_mib = params.n_gpu_layers = 0
    return params


def take_memory_in_steps() -> None:
    """Have one heap that grows by megabytes: that of a thread grows page by page, 4,000 calls while a model loads."""
    libc = ctypes.CDLL(None)
    libc.mallopt(M_ARENA_MAX, 1)
    libc.mallopt(M_TOP_PAD, HEAP_STEP_BYTE)


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="isl_emu.parts.serving.model_server", description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--context", type=int, required=True)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    SLOT_FOLDER.mkdir(exist_ok=True)
    os.environ["OMP_WAIT_POLICY"] = "passive"  # read when the library is loaded
    from xllamacpp import Server  # noqa: PLC0415  after its environment is set

    take_memory_in_steps()
    server = Server(parameters(options.model, options.host, options.port, options.context))
    print(f"listening on {server.listening_address}", flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
