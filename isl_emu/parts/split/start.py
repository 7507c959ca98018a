"""Split models in a live run: the processes of each on its satellites, ready before instant 0."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from signal import SIGKILL
from subprocess import DEVNULL, STDOUT

from isl_emu.errors import WorkloadError
from isl_emu.nodes.containers import Container, handed
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.serving.model_file import resolve_model
from isl_emu.parts.serving.modelled_state import SPLIT, ModelledState
from isl_emu.parts.serving.servers import ModelServer, is_healthy, read_ahead, stop_servers
from isl_emu.parts.serving.start import write_serving
from isl_emu.parts.split.shares import layer_count, pace_text, shares, split_roofline
from isl_emu.runs.clock import FILE as CLOCK_FILE
from isl_emu.runs.endpoints import FIRST_SPLIT_PORT
from isl_emu.runs.journal import Journal
from isl_emu.runs.process import last_line, module_command
from isl_emu.scenario.split import Split

# journals of a run, one line each: a pass around a pipeline; what an RPC process has done; a model that is ready
PASSES, METER, READY = "split_passes", "split_meter", "splits"
READY_TIMEOUT_S = 3600.0  # llama-rpc sends the weights over the emulated links first, however slow they are
POLL_INTERVAL_S = 0.2
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}  # threads that share a core wait for each other


def start_splits(live: LiveRun) -> None:
    """The processes of all split models whose satellites are here, each model ready to answer at its head.

    Raises:
        WorkloadError: a process ended, with the last line of its log, or a model was not ready in an hour.
    """
    members_of = {n: split.members(live.scenario.satellite_names) for n, split in enumerate(live.scenario.split)}
    here = {number: members for number, members in members_of.items() if live.is_here(members[0])}
    if live.scenario.power and live.exact:
        own = (name for members in here.values() for name in members)
        ModelledState.create(live.folder.journal / SPLIT, list(dict.fromkeys(own)))
    for number, names in here.items():
        split, containers = live.scenario.split[number], [live.containers[name] for name in names]
        model, count = resolve_model(split.model), len(containers)
        parts = shares(layer_count(model), count, split.layers)
        read_ahead(model)
        with live.phase("split", f"splitting {model.name} over {count} satellites by {split.engine}") as report:
            if split.engine == "pipeline":
                members = _pipeline(split, containers, parts, FIRST_SPLIT_PORT + number, live.exact)
            else:
                members = _rpc(split, containers, parts, FIRST_SPLIT_PORT + number)
            processes: list[ModelServer] = []
            live.undo.callback(stop_servers, processes)
            for member in members:
                processes.append(_start(live, member))
                report(len(processes) / (count + 1), f"{len(processes)} of {count} begun")
            _await_ready(processes)
        for process in processes:
            live.watch.add(process.watched("split model's process"))
        with Journal(live.folder.journal / f"{READY}.jsonl") as journal:
            journal.append({"head": containers[0].name, "engine": split.engine, "satellites": count})
    write_serving(live, (members[0] for members in members_of.values()), t_ns=0)


@dataclass(frozen=True)
class Member:
    """A process of a split model, to be started in a satellite's container.

    Args:
        module: of this package, with its options.
        record: the run's journal that it writes.
        waits: for as long as its board would compute.
    """

    container: Container
    module: str
    options: Sequence[str]
    record: str | None = None
    waits: bool = False


def _pipeline(
    split: Split, containers: Sequence[Container], parts: Sequence[range], port: int, exact: bool
) -> Iterator[Member]:
    """The head last: it answers once all have joined the ring. In exact time each takes its share of a board's."""
    head = containers[0]
    common = [*_model_options(split), "--head", head.address, "--ring-port", str(port), "--size", str(len(containers))]
    for rank in reversed(range(len(containers))):
        own = ["--rank", str(rank), "--layers", str(parts[rank].start), str(parts[rank].stop)]
        own += ["--satellite", containers[rank].name]
        if exact:
            own += ["--pace", pace_text(split_roofline(split)), "--share", repr(len(parts[rank]) / parts[-1].stop)]
        module, record = ("pipeline_stage", None) if rank else ("pipeline_head", PASSES)
        yield Member(containers[rank], module, [*common, *own], record, waits=exact)


def _rpc(split: Split, containers: Sequence[Container], parts: Sequence[range], port: int) -> Iterator[Member]:
    """The head last, when all workers listen: it gives up if one does not answer."""

    def options(container: Container, peers: Sequence[Container]) -> list[str]:
        own = ["--satellite", container.name, "--address", container.address, "--port", str(port)]
        return [*own, *(f"--peer={peer.name}={peer.address}" for peer in peers)]

    head, *workers = containers
    for worker in workers:
        yield Member(worker, "rpc_member", options(worker, [head]), METER)
    serving = [*_model_options(split), "--layers", *(str(len(part)) for part in parts)]
    yield Member(head, "rpc_member", [*options(head, workers), *serving], METER)


def _model_options(split: Split) -> list[str]:
    model = ["--model", str(resolve_model(split.model)), "--context", str(split.context_tokens)]
    return [*model, "--conversations", str(split.conversations)]


def _start(live: LiveRun, member: Member) -> ModelServer:
    """Start a process in its container, and hand it the run's clock and its journal, which it cannot see inside."""
    journal, log = live.folder.journal, live.folder.journal / f"split-{member.container.name}.log"
    files = {"--clock": journal / CLOCK_FILE}
    if member.record:
        files["--journal"] = journal / f"{member.record}.jsonl"
    if member.waits and live.scenario.power:
        files["--state"] = journal / SPLIT
    with log.open("wb") as output, handed(files) as (words, descriptors):
        process = member.container.popen(
            module_command(f"isl_emu.parts.split.{member.module}", *member.options, *words),
            stdin=DEVNULL,
            stdout=output,
            stderr=STDOUT,
            pass_fds=descriptors,
            env={**os.environ, **ONE_THREAD},
        )
    return ModelServer(member.container, process, log)


def _await_ready(processes: Sequence[ModelServer]) -> None:
    """Wait until the head, which was started last, answers."""
    end_s = time.monotonic() + READY_TIMEOUT_S
    while not is_healthy(processes[-1]):
        for process in processes:
            status = process.process.poll()
            if status is None:
                continue
            if process.container.oom_kills():
                raise WorkloadError(
                    f"split model on {process.name}: needs more memory than split.memory allows, but it must hold its "
                    "layers; raise split.memory"
                )
            if status == -SIGKILL:
                raise WorkloadError(
                    f"split model on {process.name}: was killed, but it must serve the whole run; in a guest kernel "
                    "the machine's vm.max_map_count may be too low for PyTorch: see `isl-emu doctor`"
                )
            raise WorkloadError(
                f"split model on {process.name}: ended with status {status} ({last_line(process.log)}), but it must "
                f"serve the whole run; see {process.log}"
            )
        if time.monotonic() > end_s:
            raise WorkloadError(
                f"split model on {processes[-1].name}: is not ready after {READY_TIMEOUT_S:.0f} s, but it must be "
                "before the run begins; raise split.cpus or rate_scale, or use a smaller model"
            )
        time.sleep(POLL_INTERVAL_S)
