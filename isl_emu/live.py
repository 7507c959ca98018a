"""The live part of a run: builds the net, serves the models, moves the sky, and leaves journals in the run folder.

It happens on whichever kernel this process runs on, this machine's or a guest's. Everything that it makes in the kernel
is undone in reverse order, whether the run ends, fails or is interrupted.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillRunning
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

from isl_emu.control import ControlDesk, announce
from isl_emu.errors import IslEmuError, MachineError, ScenarioError, WorkloadError
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.linkplan.plan_file import read_plan
from isl_emu.live_answers import LiveAnswers
from isl_emu.machine.load import LoadSampler
from isl_emu.network.calibration import measure_bias
from isl_emu.network.containers import Container
from isl_emu.network.net import IslNet, build_net
from isl_emu.network.net_cli import NetCLI
from isl_emu.network.probing import missing_features
from isl_emu.network.replay import Replay
from isl_emu.network.rundir import RunDirectory, create_run_directory
from isl_emu.progress import Report, Steps
from isl_emu.results.conclusion import INTERRUPTED_BY_USER
from isl_emu.results.folder import RunFolder
from isl_emu.results.journal import Journal, count_lines
from isl_emu.results.provenance import kernel_facts, write_json
from isl_emu.routing.endpoints import active_endpoints
from isl_emu.routing.forwarding import plan_routes
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.parse import load_scenario
from isl_emu.timebase import Clock, run_clock
from isl_emu.units import NS_PER_S
from isl_emu.workload.model_file import resolve_model
from isl_emu.workload.model_server import MODEL_PORT
from isl_emu.workload.servers import serve

INTERRUPTED = 130  # by the shell's convention, a command ended by SIGINT
HEAD_START_NS = 3 * NS_PER_S  # before instant 0: for the client and the prober to be ready
LAST_WORDS_S = 15.0  # for them to finish their records after the end
LOOK_INTERVAL_S = 0.5  # between two looks at how far the run is

Traffic = tuple[str, subprocess.Popen]  # a process that makes traffic, and its name


@dataclass(frozen=True)
class Stage:
    """What the steps of one live run share."""

    folder: RunFolder
    scenario: Scenario
    plan: LinkPlan
    run: RunDirectory
    steps: Steps
    record: dict[str, Any]  # becomes journal/execution.json
    ignore_signals: Callable[[], None]  # from then on neither SIGINT nor SIGTERM interrupts
    clock: Clock  # of the emulated time

    @contextmanager
    def phase(self, name: str, text: str) -> Iterator[Report]:
        """A step that is shown, and whose duration is recorded under `name`."""
        begun = time.monotonic()
        with self.steps.step(text) as report:
            yield report
        self.record["phases_s"][name] = round(time.monotonic() - begun, 3)


def execute(folder: RunFolder, interactive: bool, steps: Steps) -> int:
    """Carry out a prepared run folder on this kernel.

    Args:
        interactive: open Mininet's command line on the live net; the run ends when the user leaves it.

    Returns:
        0, or 130 if the user interrupted it.

    Raises:
        IslEmuError: whatever made it impossible to go on; everything is undone before.
    """
    if not folder.plan.is_file() or not folder.journal.is_dir():
        raise ScenarioError(f"{folder.path}: is no folder that `isl-emu run` has prepared; give it a scenario instead")
    record: dict[str, Any] = {"error": None, "kernel": kernel_facts(), "phases_s": {}}
    try:
        with _signals() as ignore_signals, ExitStack() as undo, _on_leaving(ignore_signals):
            _live(_stage(folder, steps, record, undo, ignore_signals), interactive, undo)
        return 0
    except KeyboardInterrupt:
        record["error"] = INTERRUPTED_BY_USER
        return INTERRUPTED
    except BaseException as error:
        record["error"] = str(error) if isinstance(error, IslEmuError) else f"{type(error).__name__}: {error}"
        raise
    finally:
        write_json(folder.execution, record)


def _stage(
    folder: RunFolder, steps: Steps, record: dict[str, Any], undo: ExitStack, ignore_signals: Callable[[], None]
) -> Stage:
    if missing := missing_features():
        raise MachineError(f"network: {'; '.join(missing)}; use --machine guest, or see `isl-emu doctor`")
    run = create_run_directory()
    undo.callback(shutil.rmtree, run.path, ignore_errors=True)
    announce(run, folder.path)
    scenario = load_scenario(folder.scenario)
    clock = run_clock(scenario.time.slowdown)
    return Stage(folder, scenario, read_plan(folder.plan), run, steps, record, ignore_signals, clock)


def _live(stage: Stage, interactive: bool, undo: ExitStack) -> None:
    with stage.phase("calibration", "measuring the delay that this kernel adds by itself"):
        calibration = measure_bias(stage.run)
    stage.record.update(bias_ns=calibration.bias_ns, residue_ns=calibration.residue_ns, calibration=asdict(calibration))
    nodes, links = len(stage.plan.nodes.names), len(stage.plan.links.a)
    with stage.phase("build", f"building {nodes} nodes and {links} links"):
        net = build_net(stage.plan, stage.run)
        undo.callback(net.stop)
        replay = _replay(stage, net, calibration.bias_ns)
        replay.apply_initial()
    if stage.scenario.compute:
        _serve_models(stage, net, undo)
    _write_endpoints(stage, net)
    _run(stage, net, replay, interactive)


def _replay(stage: Stage, net: IslNet, bias_ns: int) -> Replay:
    destinations = active_endpoints(stage.scenario, stage.plan)
    routes = plan_routes(stage.plan, stage.scenario.routing, destinations)
    slowdown = stage.scenario.time.slowdown
    return Replay(stage.plan, routes, net.backend, stage.clock, stage.folder.journal, bias_ns, slowdown)


def _serve_models(stage: Stage, net: IslNet, undo: ExitStack) -> None:
    """A container with a model server in each computing satellite, all healthy."""
    compute, model = stage.scenario.compute, resolve_model(stage.scenario.compute.model)
    hosts = {node.name: node.address for node in net.hosts}
    satellites = stage.scenario.computing_satellites
    cpus = compute.cpus / stage.scenario.time.slowdown  # so that servers too are slower by that
    containers = []
    with stage.phase("servers", f"loading {model.name} on {len(satellites)} satellites") as report:
        for name in satellites:
            node = net.get(name)
            container = Container(name, node.netns_path, stage.run, cpus, compute.memory_byte, hosts, (model,))
            undo.callback(container.stop)
            container.start()
            node.container = container
            containers.append(container)
        undo.enter_context(serve(containers, model, compute.context_tokens, stage.folder.journal, report))


def _write_endpoints(stage: Stage, net: IslNet) -> None:
    """Where client and prober find the nodes."""
    serving = set(stage.scenario.computing_satellites)
    endpoints = {
        node.name: {
            "netns": node.netns_path,
            "address": node.address,
            "port": MODEL_PORT if node.name in serving else None,
        }
        for node in net.hosts
    }
    write_json(stage.folder.journal / "endpoints.json", endpoints)


def _run(stage: Stage, net: IslNet, replay: Replay, interactive: bool) -> None:
    """The emulated time, from instant 0 to the end."""
    dropped_before = net.backend.dropped_packets()
    stop, real_t0_ns = threading.Event(), time.monotonic_ns() + HEAD_START_NS
    t0_ns = stage.clock.own_ns(real_t0_ns)
    stage.record.update(t0_monotonic_ns=real_t0_ns, t0_utc=_utc_of(real_t0_ns).isoformat())
    with ExitStack() as undo, _on_leaving(stage.ignore_signals):
        traffic = [undo.enter_context(_process(words, name, stage)) for name, words in _traffic(stage, t0_ns)]
        replaying = undo.enter_context(ThreadPoolExecutor(1)).submit(replay.run, t0_ns, stop)
        undo.callback(stop.set)
        _sample_load(stage, real_t0_ns, undo)
        answers = LiveAnswers(stage.plan, net, stage.folder, t0_ns, stage.clock)
        undo.enter_context(ControlDesk(stage.folder.journal, answers.handlers()))
        if interactive:
            _mininet_cli(net)
        else:
            _follow(stage, replaying, traffic, t0_ns)
            _await_traffic(traffic)
        stop.set()
        replaying.result()
    stage.record["mismatches"] = [*replay.mismatches, *replay.verify_all()]
    stage.record["dropped_packets"] = net.backend.dropped_packets() - dropped_before


def _sample_load(stage: Stage, real_t0_ns: int, undo: ExitStack) -> None:
    """The load of each of the machine's seconds; only when they end is told in emulated time."""
    journal = undo.enter_context(Journal(stage.folder.journal / "load.jsonl"))

    def append(record: dict[str, Any]) -> None:
        journal.append({**record, "t_ns": stage.clock.own_ns(record["t_ns"])})

    sampler = LoadSampler(append, real_t0_ns)
    sampler.start()
    undo.callback(sampler.stop)


def _traffic(stage: Stage, t0_ns: int) -> Iterator[tuple[str, list[str]]]:
    """The processes that make traffic: their names, and what to run."""
    end_ns = t0_ns + stage.plan.grid.duration_ns
    times = ["--journal", str(stage.folder.journal), "--t0-ns", str(t0_ns), "--until-ns", str(end_ns)]
    times += ["--slowdown", str(stage.scenario.time.slowdown)]
    if questions := stage.scenario.questions:
        yield "client", ["isl_emu.workload.client", *times, "--deadline-ns", str(questions.deadline_ns)]
    if probes := stage.scenario.probes:
        pairs, step = ",".join(f"{a}:{b}" for a, b in probes.pairs), ["--step-ns", str(stage.plan.grid.step_ns)]
        if pairs:
            yield (
                "prober",
                ["isl_emu.results.prober", *times, "--interval-ns", str(probes.interval_ns), "--pairs", pairs, *step],
            )


@contextmanager
def _process(words: Sequence[str], name: str, stage: Stage) -> Iterator[Traffic]:
    """A process of ours, ended at the latest with this block, and by the kernel if this process dies."""
    log = stage.folder.journal / f"{name}.log"
    command = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", *words]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield name, process
    finally:
        process.terminate()
        try:
            process.wait(LAST_WORDS_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _follow(stage: Stage, replaying: Future[None], traffic: Sequence[Traffic], t0_ns: int) -> None:
    """Show how far the run is until the replay ends; what went wrong in it or in the traffic is raised here."""
    duration_ns = stage.plan.grid.duration_ns
    journal = stage.folder.journal
    answers, asked = journal / "requests.jsonl", count_lines(journal / "planned_requests.jsonl")
    with stage.phase("run", f"emulating {duration_ns / NS_PER_S:g} s") as report:
        while True:
            try:
                return replaying.result(LOOK_INTERVAL_S)
            except StillRunning:
                for name, process in traffic:
                    _check_status(name, process.poll())
                t_ns = stage.clock.now_ns() - t0_ns
                done = f", {count_lines(answers)} of {asked} questions done" if asked else ""
                now = f"t = {t_ns / NS_PER_S:.0f} s" if t_ns >= 0 else "about to begin"
                report(max(t_ns, 0) / duration_ns, f"{now}{done}")


def _await_traffic(traffic: Sequence[Traffic]) -> None:
    """Let client and prober come to their own end, which is that of the run."""
    for name, process in traffic:
        with suppress(subprocess.TimeoutExpired):  # then it is told to stop, and writes what it has
            _check_status(name, process.wait(LAST_WORDS_S))


def _check_status(name: str, status: int | None) -> None:
    if status:
        raise WorkloadError(f"{name}: it ended with status {status}, but must end with 0; see journal/{name}.log")


def _mininet_cli(net: IslNet) -> None:
    """Mininet's command line on the live net; the sky moves on meanwhile."""
    NetCLI(net)


def _utc_of(monotonic_ns: int) -> datetime:
    ahead_s = (monotonic_ns - time.monotonic_ns()) / NS_PER_S
    return datetime.fromtimestamp(time.time() + ahead_s, timezone.utc)


@contextmanager
def _on_leaving(function: Callable[[], None]) -> Iterator[None]:
    """Call it at the end of the block, however that comes: as the innermost block, before anything is undone."""
    try:
        yield
    finally:
        function()


@contextmanager
def _signals() -> Iterator[Callable[[], None]]:
    """SIGINT and SIGTERM both raise KeyboardInterrupt, until the yielded function is called: then neither does."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}

    def ignore() -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)

    try:
        yield ignore
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
