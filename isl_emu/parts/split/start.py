"""Split models in a live run: the processes of each on its satellites, ready before instant 0."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from subprocess import DEVNULL, STDOUT

from isl_emu.errors import WorkloadError
from isl_emu.nodes.containers import Container
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.serving.model_file import resolve_model
from isl_emu.parts.serving.servers import ModelServer, is_healthy, read_ahead, stop_servers
from isl_emu.parts.serving.start import write_serving
from isl_emu.parts.split.shares import layer_count, shares
from isl_emu.runs.clock import FILE as CLOCK_FILE
from isl_emu.runs.ports import FIRST_SPLIT_PORT
from isl_emu.runs.process import last_line
from isl_emu.scenario.split import Split

READY_TIMEOUT_S = 3600.0  # llama-rpc sends the weights over the emulated links first, however slow they are
POLL_INTERVAL_S = 0.2
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}  # threads that share a core wait for each other


def start_splits(live: LiveRun) -> None:
    """The processes of all split models, each model ready to answer at its head.

    Raises:
        WorkloadError: a process ended, with the last line of its log, or a model was not ready in an hour.
    """
    for number, split in enumerate(live.scenario.split):
        members = [live.containers[name] for name in split.members(live.scenario.satellite_names)]
        model = resolve_model(split.model)
        read_ahead(model)
        with live.phase("split", f"splitting {model.name} over {len(members)} satellites by {split.engine}") as report:
            begin = _pipeline if split.engine == "pipeline" else _rpc
            processes: list[ModelServer] = []
            live.undo.callback(stop_servers, processes)
            for container, words in begin(split, members, FIRST_SPLIT_PORT + number):
                processes.append(_start(live, container, words))
                report(len(processes) / (len(members) + 1), f"{len(processes)} of {len(members)} begun")
            _await_ready(processes)
        write_serving(live, (members[0].name,), t_ns=0)


Member = tuple[Container, list[str]]  # where, and with what words, to start a process


def _pipeline(split: Split, members: Sequence[Container], port: int) -> Iterator[Member]:
    """The head last: it answers once all have joined the ring."""
    parts = _shares(split, len(members))
    common = ["--model", str(resolve_model(split.model)), "--head", members[0].address, "--ring-port", str(port)]
    common += ["--size", str(len(members)), "--context", str(split.context_tokens)]
    common += ["--conversations", str(split.conversations)]
    for rank in reversed(range(len(members))):
        name = "pipeline_stage" if rank else "pipeline_head"
        part = ["--layers", str(parts[rank].start), str(parts[rank].stop)]
        part += [] if rank else ["--satellite", members[0].name]
        yield members[rank], [f"isl_emu.parts.split.{name}", *common, "--rank", str(rank), *part]


def _rpc(split: Split, members: Sequence[Container], port: int) -> Iterator[Member]:
    """The head last, when all workers listen: it gives up if one does not answer."""
    head, *workers = members
    for worker in workers:
        yield worker, _rpc_words(worker, [head], port)
    model = ["--model", str(resolve_model(split.model)), "--context", str(split.context_tokens)]
    counts = [str(len(part)) for part in _shares(split, len(members))]
    serving = [*model, "--conversations", str(split.conversations), "--layers", *counts]
    yield head, [*_rpc_words(head, workers, port), *serving]


def _rpc_words(member: Container, peers: Sequence[Container], port: int) -> list[str]:
    words = ["isl_emu.parts.split.rpc_member", "--satellite", member.name, "--address", member.address]
    return [*words, "--port", str(port), *(f"--peer={peer.name}={peer.address}" for peer in peers)]


def _shares(split: Split, members: int) -> list[range]:
    return shares(layer_count(resolve_model(split.model)), members, split.layers)


def _start(live: LiveRun, container: Container, words: list[str]) -> ModelServer:
    """Start a process in a container, and hand it the run's clock and the journal, which it cannot see inside."""
    journal, name = live.folder.journal, words[0].rpartition(".")[2]
    log = journal / f"split-{container.name}.log"
    kept = "split_meter.jsonl" if name == "rpc_member" else "split_passes.jsonl"
    with log.open("wb") as output, _opened(journal / CLOCK_FILE, journal / kept) as descriptors:
        clock, record = (f"/proc/self/fd/{descriptor}" for descriptor in descriptors)
        handed = ["--clock", clock, *([] if name == "pipeline_stage" else ["--journal", record])]
        process = container.popen(
            [sys.executable, "-m", *words, *handed],
            stdin=DEVNULL,
            stdout=output,
            stderr=STDOUT,
            pass_fds=descriptors,
            env={**os.environ, **ONE_THREAD},
        )
    return ModelServer(container, process, log)


@contextmanager
def _opened(*paths: os.PathLike[str]) -> Iterator[tuple[int, ...]]:
    """Descriptors of files, to read and write."""
    descriptors = tuple(os.open(path, os.O_RDWR | os.O_CREAT, 0o644) for path in paths)
    try:
        yield descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _await_ready(processes: Sequence[ModelServer]) -> None:
    """Wait until the head, which was started last, answers."""
    end_s = time.monotonic() + READY_TIMEOUT_S
    while not is_healthy(processes[-1]):
        for process in processes:
            _check(process)
        if time.monotonic() > end_s:
            raise WorkloadError(
                f"split model on {processes[-1].name}: is not ready after {READY_TIMEOUT_S:.0f} s, but it must be "
                "before the run begins; raise split.cpus or rate_scale, or use a smaller model"
            )
        time.sleep(POLL_INTERVAL_S)


def _check(process: ModelServer) -> None:
    status = process.process.poll()
    if status is None:
        return
    if process.container.oom_kills():
        raise WorkloadError(
            f"split model on {process.name}: needs more memory than split.memory allows, but it must hold its layers; "
            "raise split.memory"
        )
    raise WorkloadError(
        f"split model on {process.name}: ended with status {status} ({last_line(process.log)}), but it must serve the "
        f"whole run; see {process.log}"
    )
