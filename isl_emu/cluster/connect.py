"""A Dask cluster, as a user names it; its workers have what we have."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import isl_emu
from isl_emu.errors import MachineError, ScenarioError
from isl_emu.files import read_json

CONNECT_WITHIN_S = 10.0
WORKERS_WITHIN_S = 60.0  # for the first worker of a cluster that has none yet
LOCAL = re.compile(r"local(?::([1-9]\d{0,2}))?")
ADDRESS = re.compile(r"(?!local:)(\w+://)?.+:\d+")


def connect(text: str, note: Callable[[str], object] = print) -> Any:
    """A client of a Dask cluster (`distributed.Client`), to be closed; workers that were started for it end with it.

    Args:
        text: the address of its scheduler, the path of its scheduler file, or ``local:N`` for N worker processes of one
            thread here; ``local`` has one for each CPU.
        note: shows that workers are waited for.

    Raises:
        ScenarioError: the text is none of these.
        MachineError: Dask is not installed, nobody answers there, there is no worker, or one has another isl-emu.
    """
    local = LOCAL.fullmatch(text)
    record = read_json(Path(text)) if Path(text).is_file() else {"address": text}
    address = (record or {}).get("address")
    if not local and not (isinstance(address, str) and ADDRESS.fullmatch(address)):
        raise ScenarioError(
            f"--cluster: is {text}, but a cluster is the address of its scheduler (tcp://HOST:8786), its scheduler "
            "file, or local:N; name one of these"
        )
    try:
        from distributed import Client  # noqa: PLC0415  of an extra
    except ImportError:
        raise MachineError(
            "--cluster: Dask is not installed, but a cluster is Dask's; install it with pip install 'isl-emu[cluster]'"
        ) from None
    for name in ("distributed", "distributed.client"):  # to each of which Dask gives a level
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters of it we say
    if local:
        return _local(Client, int(local[1] or len(os.sched_getaffinity(0))))
    try:
        _knock(str(address))
        client = Client(address, timeout=CONNECT_WITHIN_S)
    except (OSError, ValueError) as error:
        raise MachineError(
            f"--cluster: {text} is named, and nobody answers ({error}), but the scheduler of a Dask cluster does; "
            "start one with `dask scheduler`, and workers with `dask worker`"
        ) from None
    try:
        _await_workers(client, text, note)
        _check_versions(client)
    except BaseException:
        client.close()
        raise
    return client


def _knock(address: str) -> None:
    """Raise an OSError or ValueError if nobody listens there: Dask's client would leave threads, and may hang."""
    from distributed.comm.addressing import parse_address, parse_host_port  # noqa: PLC0415
    from distributed.comm.registry import get_backend  # noqa: PLC0415
    from distributed.security import Security  # noqa: PLC0415

    scheme, place = parse_address(address)
    get_backend(scheme)
    if scheme == "tls" and Security().get_connection_args("client")["ssl_context"] is None:
        raise ValueError("distributed.comm.tls names no certificates")
    socket.create_connection(parse_host_port(place), timeout=CONNECT_WITHIN_S).close()


def _local(client: Callable[..., Any], workers: int) -> Any:
    try:
        with _deaf_to_interrupts():
            return client(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                memory_limit=0,
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
            )
    except RuntimeError as error:
        raise MachineError(
            f"--cluster: local workers do not start ({error}), but they load the program that asks for them; from a "
            'script of yours, ask below `if __name__ == "__main__":`'
        ) from None


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """What is started in the block does not end by a Ctrl-C in our terminal, as we see to its end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _await_workers(client: Any, text: str, note: Callable[[str], object]) -> None:
    if client.nthreads():
        return
    note(f"--cluster: {text} has no workers yet; waiting {WORKERS_WITHIN_S:g} s for the first")
    try:
        client.wait_for_workers(1, timeout=WORKERS_WITHIN_S)
    except TimeoutError:
        raise MachineError(
            f"--cluster: {text} has had no workers for {WORKERS_WITHIN_S:g} s, but they do what is asked of it; start "
            "some with `dask worker`, or wait until a batch system has"
        ) from None


def versions() -> dict[str, str]:
    """What is the same on all machines of a cluster."""
    package, digest = Path(isl_emu.__file__).parent, hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    major, minor, _ = platform.python_version_tuple()
    return {
        "isl-emu": f"{version('isl-emu')} (modules sha256 {digest.hexdigest()[:12]})",
        "Python": f"{major}.{minor}",
    }


def _check_versions(client: Any) -> None:
    try:
        found = client.run(versions)
    except (ImportError, AttributeError) as error:
        raise MachineError(
            f"--cluster: a worker cannot load isl-emu ({error}), but each has that of this machine; install it in the "
            "workers' environment"
        ) from None
    check_versions(found, versions())


def check_versions(found: dict[str, dict[str, str]], own: dict[str, str]) -> None:
    """Raise a MachineError if a worker has something else than we.

    Args:
        found: what `versions` says on each worker, by its address.
    """
    for address, theirs in sorted(found.items()):
        for name, ours in own.items():
            if theirs.get(name) != ours:
                raise MachineError(
                    f"--cluster: worker {address} has {name} {theirs.get(name)} and this machine {ours}, but all "
                    "machines have the same; install the same on all"
                )
