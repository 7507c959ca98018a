"""A satellite of a model that is split by llama.cpp's RPC: a worker that lends its processor, or the head.

Run as ``python -m isl_emu.parts.split.rpc_member`` in the satellite's container; it ends with the container. The
head is llama.cpp's own server, as on a satellite that serves alone; it loads the workers' layers into them over the
network. Beside either goes a meter of what the process has computed and sent so far; the bytes are those of TCP's
payload, asked of the kernel (TCP_INFO) for the process's own connections, whichever library has opened them.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from isl_emu.nodes.tcp_info import own_connections, tcp_counters
from isl_emu.parts.serving.model_server import parameters
from isl_emu.parts.split.rpc_build import RpcBackend
from isl_emu.runs.clock import RunClock
from isl_emu.runs.endpoints import MODEL_PORT
from isl_emu.runs.journal import Journal
from isl_emu.timebase import Clock

METER_INTERVAL_S = 0.1
CONNECT_TIMEOUT_S, CONNECT_AGAIN_S = 5.0, 0.2


def worker(endpoint: str) -> None:
    """Lend the processor."""
    print(f"lends its processor at {endpoint}", flush=True)
    RpcBackend().serve(endpoint)


def head(model: Path, address: str, workers: list[str], layers: list[int], context: int, conversations: int) -> None:
    """Serve with the workers' processors.

    Args:
        workers: their endpoints.
        layers: how many the head and each worker has.
    """
    backend = RpcBackend()
    for endpoint in workers:
        await_listening(endpoint)
        backend.add_worker(endpoint)
    from xllamacpp import Server  # noqa: PLC0415  after its library is loaded for the backend too

    params = parameters(model, address, MODEL_PORT, context * conversations)
    params.n_parallel = conversations
    params.n_gpu_layers, split = placement(layers)
    params.tensor_split = split + [0.0] * (len(params.tensor_split) - len(split))
    server = Server(params)
    print(f"answers at {server.listening_address}", flush=True)
    signal.pause()


def await_listening(endpoint: str) -> None:
    """Wait until a worker takes connections; whoever started both ends this process if the worker never does."""
    address, _, port = endpoint.rpartition(":")
    while True:
        try:
            socket.create_connection((address, int(port)), CONNECT_TIMEOUT_S).close()
            return
        except OSError:
            time.sleep(CONNECT_AGAIN_S)


def traffic_byte(peers: dict[str, str]) -> dict[str, list[int]]:
    """Bytes acknowledged and received on this process's TCP connections with each peer.

    Args:
        peers: address -> name.
    """
    found = {name: [0, 0] for name in peers.values()}
    for connection in own_connections():
        with suppress(OSError):
            name = peers.get(connection.getpeername()[0])
            if name is not None:
                counters = tcp_counters(connection)
                found[name][0] += counters.acked_byte
                found[name][1] += counters.received_byte
    return found


def start_meter(
    satellite: str, peers: dict[str, str], clock: Clock, record: Callable[[dict[str, Any]], None]
) -> threading.Thread:
    """Write down, as often as it changes, what this process has computed and sent, until the process ends."""

    def sample() -> None:
        before: dict[str, list[int]] = {}
        while True:
            traffic = traffic_byte(peers)
            if traffic != before:
                line = {"satellite": satellite, "t_ns": clock.now_ns(), "cpu_ns": time.process_time_ns()}
                record({**line, "peers": traffic})
                before = traffic
            time.sleep(METER_INTERVAL_S)

    thread = threading.Thread(target=sample, daemon=True, name="meter")
    thread.start()
    return thread


def placement(layers: list[int]) -> tuple[int, list[float]]:
    """llama.cpp's `n_gpu_layers` and `tensor_split` for a head and workers with these numbers of layers.

    The last layers count as on "GPUs", which the workers are; the output is one more, and lies behind the last layer.
    """
    _, *workers = layers
    workers[-1] += 1
    return sum(workers), [float(count) for count in workers]


def main() -> None:
    """Be a member until SIGTERM."""
    parser = argparse.ArgumentParser(prog="isl_emu.parts.split.rpc_member", description=__doc__)
    parser.add_argument("--satellite", required=True, help="its name")
    parser.add_argument("--address", required=True, help="its address")
    parser.add_argument("--port", type=int, required=True, help="of the workers")
    parser.add_argument("--peer", action="append", default=[], help="name=address of each with whom it speaks")
    parser.add_argument("--clock", type=Path, required=True, help="the file of the run's clock")
    parser.add_argument("--journal", type=Path, required=True, help="file to which its work and traffic are written")
    parser.add_argument("--model", type=Path, help="makes it the head")
    parser.add_argument("--layers", type=int, nargs="+", help="of the head and of each worker")
    parser.add_argument("--context", type=int)
    parser.add_argument("--conversations", type=int)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    peers = dict(peer.split("=") for peer in options.peer)
    names = {address: name for name, address in peers.items()}
    start_meter(options.satellite, names, RunClock(options.clock), Journal(options.journal).append)
    if options.model is None:
        worker(f"{options.address}:{options.port}")
    endpoints = [f"{address}:{options.port}" for address in peers.values()]
    head(options.model, options.address, endpoints, options.layers, options.context, options.conversations)


if __name__ == "__main__":
    main()
