"""The live part of a run: builds the net, serves the models, moves the sky, and leaves journals in the run folder.

It happens on whichever kernel this process runs on, this machine's or a guest's. Everything that it makes in the kernel
is undone in reverse order, whether the run ends, fails or is interrupted.
"""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillRunning
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from functools import partial
from typing import Any

import numpy as np

from isl_emu.errors import INTERRUPTED, IslEmuError, MachineError, ScenarioError
from isl_emu.linkplan.plan import LinkPlan, QueueKind
from isl_emu.linkplan.plan_file import read_plan
from isl_emu.live.answers import LiveAnswers
from isl_emu.live.containers import start_containers
from isl_emu.live.control import ControlDesk, announce
from isl_emu.live.course import Course, open_course
from isl_emu.machine.load import LoadSampler
from isl_emu.network.calibration import measure_bias
from isl_emu.network.net import IslNet, build_net
from isl_emu.network.net_cli import NetCLI
from isl_emu.network.probing import missing_features, missing_queues
from isl_emu.network.replay import Replay
from isl_emu.nodes.containers import Container
from isl_emu.parts.activities import LAST_WORDS_S, Activity, activities
from isl_emu.parts.live_run import Stage
from isl_emu.parts.serving.start import serve_models, write_endpoints
from isl_emu.parts.split.start import start_splits
from isl_emu.parts.training.ranks import coordinated, start_training
from isl_emu.parts.uplink.start import start_transfer_nodes, uplink
from isl_emu.progress import Steps
from isl_emu.results.conclusion import INTERRUPTED_BY_USER
from isl_emu.results.provenance import kernel_facts, write_json
from isl_emu.routing.forwarding import RoutePlan
from isl_emu.routing.route_file import read_routes
from isl_emu.runs.clock import RunClock
from isl_emu.runs.directory import create_run_directory
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import Journal, count_lines
from isl_emu.runs.wishes import Wishes
from isl_emu.scenario.parse import load_scenario
from isl_emu.units import NS_PER_S

Prepared = Callable[[int], AbstractContextManager[Activity]]  # begins, given instant 0 on the run's clock

HEAD_START_NS = 3 * NS_PER_S  # before instant 0: for the client and the prober to be ready
LOOK_INTERVAL_S = 0.5  # between two looks at how far the run is


def execute(folder: RunFolder, wishes: Wishes, steps: Steps) -> int:
    """Carry out a prepared run folder on this kernel.

    Returns:
        0, or 130 if the user interrupted it.

    Raises:
        IslEmuError: whatever made it impossible to go on; everything is undone before.
    """
    if not folder.plan.is_file() or not folder.journal.is_dir():
        raise ScenarioError(f"{folder.path}: is no folder that `isl-emu run` has prepared; give it a scenario instead")
    record: dict[str, Any] = {"error": None, "kernel": kernel_facts(), "phases_s": {}}
    try:
        with _signals() as ignore_signals, _teardown(record) as undo, _on_leaving(ignore_signals):
            _live(_stage(folder, steps, record, undo, ignore_signals), wishes, undo)
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
    scenario, plan = load_scenario(folder.scenario), read_plan(folder.plan)
    _check_queues(plan)
    clock = RunClock.create(folder.journal, scenario.time.slowdown)
    return Stage(folder, scenario, plan, run, steps, record, ignore_signals, clock)


def _check_queues(plan: LinkPlan) -> None:
    if missing := missing_queues(map(QueueKind, np.unique(plan.links.aqm["kind"]).tolist())):
        raise MachineError(f"aqm: {'; '.join(missing)}; use --machine guest, or links without aqm")


def _live(stage: Stage, wishes: Wishes, undo: ExitStack) -> None:
    with stage.phase("calibration", "measuring the delay that this kernel adds by itself"):
        calibration = measure_bias(stage.run)
    stage.record.update(bias_ns=calibration.bias_ns, residue_ns=calibration.residue_ns, calibration=asdict(calibration))
    nodes, links = len(stage.plan.nodes.names), len(stage.plan.links.a)
    with stage.phase("build", f"building {nodes} nodes and {links} links"):
        routes = read_routes(stage.folder.routes)
        net = build_net(stage.plan, stage.run, stage.scenario.time.slowdown, routes.aliases)
        undo.callback(net.stop)
        replay = _replay(stage, net, routes, calibration.bias_ns)
        replay.apply_initial()
    containers = start_containers(stage, net, undo)
    services = serve_models(stage, net, containers, undo)
    start_splits(stage, containers, undo)
    write_endpoints(stage, net)
    prepared: list[Prepared] = [partial(coordinated, stage, ranks) for ranks in start_training(stage, containers, undo)]
    if stage.scenario.uplink:
        prepared.append(partial(uplink, stage, containers, start_transfer_nodes(stage, net, undo)))
    _run(stage, net, containers, services, prepared, replay, wishes)


def _replay(stage: Stage, net: IslNet, routes: RoutePlan, bias_ns: int) -> Replay:
    slowdown = stage.scenario.time.slowdown
    return Replay(stage.plan, routes, net.backend, stage.clock, stage.folder.journal, bias_ns, slowdown)


def _run(
    stage: Stage,
    net: IslNet,
    containers: Mapping[str, Container],
    services: Sequence[Activity],
    prepared: Sequence[Prepared],
    replay: Replay,
    wishes: Wishes,
) -> None:
    """The emulated time, from instant 0 to the end."""
    dropped_before, marked_before = net.backend.dropped_packets(), net.backend.marked_packets()
    ended, real_t0_ns = threading.Event(), time.monotonic_ns() + HEAD_START_NS
    t0_ns = stage.clock.own_ns(real_t0_ns)
    stage.record.update(t0_monotonic_ns=real_t0_ns, t0_utc=_utc_of(real_t0_ns).isoformat())
    with ExitStack() as undo, _on_leaving(stage.ignore_signals):
        begun = [undo.enter_context(activity) for activity in activities(stage, net, containers, t0_ns)]
        begun += [undo.enter_context(begin(t0_ns)) for begin in prepared]
        traffic = [*services, *begun]
        replaying = undo.enter_context(ThreadPoolExecutor(1)).submit(replay.run, t0_ns, ended)
        undo.callback(ended.set)
        _sample_load(stage, real_t0_ns, undo)
        course = undo.enter_context(open_course(stage, net, t0_ns, ended, wishes))
        answers = LiveAnswers(stage.plan, net, stage.folder, course)
        undo.enter_context(ControlDesk(stage.folder.journal, answers.handlers()))
        if wishes.interactive:
            NetCLI(net)  # the sky moves on meanwhile
            course.end_now()
        else:
            _follow(stage, replaying, traffic, course)
        stage.record["ended_ns"] = course.ended_ns()
        if not ended.is_set():
            for activity in traffic:
                activity.await_end(LAST_WORDS_S)
        ended.set()
        replaying.result()
    stage.record["mismatches"] = [*replay.mismatches, *replay.verify_all()]
    stage.record["dropped_packets"] = net.backend.dropped_packets() - dropped_before
    stage.record["marked_packets"] = net.backend.marked_packets() - marked_before


def _sample_load(stage: Stage, real_t0_ns: int, undo: ExitStack) -> None:
    """The load of each of the machine's seconds, less pauses; only when they end is told in emulated time."""
    journal = undo.enter_context(Journal(stage.folder.journal / "load.jsonl"))

    def append(record: dict[str, Any]) -> None:
        journal.append({**record, "t_ns": stage.clock.own_ns(record["t_ns"])})

    sampler = LoadSampler(append, real_t0_ns, stage.clock.without_slow_motion())
    sampler.start()
    undo.callback(sampler.stop)


def _follow(stage: Stage, replaying: Future[None], traffic: Sequence[Activity], course: Course) -> None:
    """Show how far the run is until the replay ends; what went wrong in it or in the traffic is raised here."""
    duration_ns = stage.plan.grid.duration_ns
    journal = stage.folder.journal
    answers, asked = journal / "requests.jsonl", count_lines(journal / "planned_requests.jsonl")
    with stage.phase("run", f"emulating {duration_ns / NS_PER_S:g} s") as report:
        while True:
            try:
                return replaying.result(LOOK_INTERVAL_S)
            except StillRunning:
                for activity in traffic:
                    activity.check()
                t_ns = course.t_ns()
                done = f", {count_lines(answers)} of {asked} questions done" if asked else ""
                now = f"t = {t_ns / NS_PER_S:.0f} s" if t_ns >= 0 else "about to begin"
                paused = "PAUSED (isl-emu resume) at " if course.paused else ""
                report(max(t_ns, 0) / duration_ns, f"{paused}{now}{done}")


def _utc_of(monotonic_ns: int) -> datetime:
    ahead_s = (monotonic_ns - time.monotonic_ns()) / NS_PER_S
    return datetime.fromtimestamp(time.time() + ahead_s, timezone.utc)


@contextmanager
def _teardown(record: dict[str, Any]) -> Iterator[ExitStack]:
    """What is to be undone after the block; how long that takes is recorded as a phase."""
    with ExitStack() as undo:
        try:
            yield undo
        finally:
            begun = time.monotonic()
            try:
                undo.close()
            finally:
                record["phases_s"]["teardown"] = round(time.monotonic() - begun, 3)


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
