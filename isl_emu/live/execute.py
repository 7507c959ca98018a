"""The live part of a run: builds the net, serves the models, moves the sky, and leaves journals in the run folder.

It happens on whichever kernel this process runs on, this machine's or a guest's. Everything that it makes in the kernel
is undone in reverse order, whether the run ends, fails or is interrupted.

It is long because it is the course of a live run from top to bottom.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillRunning
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np

from isl_emu.errors import INTERRUPTED, IslEmuError, MachineError, ScenarioError
from isl_emu.linkplan.plan import LinkPlan, QueueKind
from isl_emu.linkplan.plan_file import read_plan
from isl_emu.live.answers import LiveAnswers
from isl_emu.live.control import Answer, ControlDesk, announce
from isl_emu.live.course import Course, open_course
from isl_emu.live.interventions import Interventions
from isl_emu.live.room import all_needs
from isl_emu.machine.calendar_control import calendar_control
from isl_emu.machine.load import LoadSampler
from isl_emu.network.calibration import measure_bias
from isl_emu.network.desired import DELAY_GRAIN_NS, queue_kinds
from isl_emu.network.naming import ipv4_address
from isl_emu.network.net import IslNet, NetCLI, build_net
from isl_emu.network.probing import missing_features, missing_queues
from isl_emu.network.replay import Replay
from isl_emu.nodes.containers import Container
from isl_emu.nodes.images import UnpackedImage, unpack_image
from isl_emu.nodes.mounts import files_below
from isl_emu.nodes.nodespaces import namespace_path
from isl_emu.parts.activity import Activity
from isl_emu.parts.live_run import LiveRun, Phases
from isl_emu.parts.node_faults import NodeFaults
from isl_emu.parts.part import Need
from isl_emu.parts.registry import PARTS
from isl_emu.progress import Steps
from isl_emu.routing.forwarding import no_routes, read_routes
from isl_emu.routing.source_routes import SourceRoutes
from isl_emu.runs.clock import HEAD_START_NS, RunClock, RunTimes
from isl_emu.runs.directory import RunDirectory, create_run_directory
from isl_emu.runs.endpoints import MODEL_PORT, Endpoint, write_endpoints
from isl_emu.runs.execution import INTERRUPTED_BY_USER, Execution, kernel_facts
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import (
    INCIDENTS_JOURNAL,
    LOAD_JOURNAL,
    PAUSES_JOURNAL,
    PROCESSES_JOURNAL,
    Journal,
    count_lines,
)
from isl_emu.runs.meeting import meet
from isl_emu.runs.portion import Portion, journals_here
from isl_emu.runs.process import LAST_WORDS_S, Watch, Watched
from isl_emu.runs.wishes import Wishes
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.parse import load_scenario
from isl_emu.tables.text import wall_text
from isl_emu.units import NS_PER_S, NS_PER_US, seconds_text

EXACT_GRAIN_NS = 0
READY_POLL_S = 0.01  # between two questions whether all guests of a run are ready
WHOLE_CORE = 1.0  # for programs none of which asks for a share
USUAL_BYTE = 256 << 20  # of memory, for a node whose limits are others
GUEST_WRITES = Path("/run/written")  # machine/guest_init.sh mounts there what a guest has written into memory
LOST_FILES_NAMED = 20  # of each node; more are counted
LOOK_INTERVAL_S = 0.5  # between two looks at how far the run is
SOFTNET = Path("/proc/net/softnet_stat")  # a row for each CPU, over all namespaces; first the packets received, in hex
SLOW_AFTER_S, SLOW_LEFT_S = 20.0, 120.0  # of the wall: a run in exact time that has so much left is told to be slow


def execute(folder: RunFolder, wishes: Wishes, steps: Steps, *, kernel_ends: bool = False) -> int:
    """Carry out a prepared run folder on this kernel.

    Args:
        kernel_ends: whether it ends with the run, so that nothing need be removed from it.

    Returns:
        0, or 130 if the user interrupted it.

    Raises:
        IslEmuError: whatever made it impossible to go on; everything is undone before.
    """
    if not folder.plan.is_file() or not folder.journal.is_dir():
        raise ScenarioError(
            f"{folder.path}: is a folder, but none that `isl-emu run` has prepared; give it a scenario instead"
        )
    execution = Execution(clock="real" if calendar_control() is None else "exact", kernel=kernel_facts())
    try:
        with _signals() as ignore_signals, _teardown(execution, steps.wall_s) as undo, _on_leaving(ignore_signals):
            live, replay = _build(folder, Phases(steps, execution), undo, kernel_ends=kernel_ends)
            activities = [activity for part in PARTS for activity in part.start(live)]
            _emulate(live, activities, replay, wishes, ignore_signals)
        return 0
    except KeyboardInterrupt:
        execution.error = INTERRUPTED_BY_USER
        return INTERRUPTED
    except BaseException as error:
        execution.error = str(error) if isinstance(error, IslEmuError) else f"{type(error).__name__}: {error}"
        raise
    finally:
        execution.write(folder.execution)


def _build(folder: RunFolder, phase: Phases, undo: ExitStack, *, kernel_ends: bool) -> tuple[LiveRun, Replay]:
    """The network of a prepared run as it is at instant 0, with a container in each satellite that runs programs."""
    if missing := missing_features():
        raise MachineError(
            f"network: {', '.join(missing)}, but the network is made of these; use --machine guest, or see "
            "`isl-emu doctor`"
        )
    run = create_run_directory()
    undo.callback(shutil.rmtree, run.path, ignore_errors=True)
    announce(run, folder.path)
    scenario, plan = load_scenario(folder.scenario), read_plan(folder.plan)
    routes = read_routes(folder.routes, plan)
    _check_queues(plan)
    slowdown = scenario.time.slowdown
    clock = RunClock.create(folder.journal, slowdown)
    exact = phase.execution.clock == "exact"
    bias_ns, grain_ns = (0, EXACT_GRAIN_NS) if exact else (_calibrate(run, phase), DELAY_GRAIN_NS)
    with phase("build", f"building {len(plan.nodes.names)} nodes and {len(plan.links.a)} links"):
        handed_over = scenario.routing if scenario.routing.policy == "none" else None
        forwarding = scenario.routing.forwarding
        steered = None if forwarding == "addresses" else SourceRoutes(plan, routes, forwarding)
        portion = Portion.read(folder.path, folder.part, len(plan.nodes.names))
        net = build_net(
            plan, run, slowdown, routes.aliases, scenario.seed, handed_over, scenario.beyond, steered, portion
        )
        undo.callback(net.stop, kernel_ends=kernel_ends)
        replay = Replay(
            plan, no_routes(plan) if handed_over else routes, net.backend, clock, folder.journal, bias_ns, slowdown,
            grain_ns,
            counters_interval_ns=scenario.counters.interval_ns,
        )  # fmt: skip
        replay.apply_initial()
    for node in net.hosts:
        node.out = folder.files_of(node.name).resolve()
    for name in scenario.informed_nodes:
        if name not in net:
            continue
        net.get(name).about = about = run.about(name)
        about.parent.mkdir(parents=True)
    undo.callback(_remove_empty, folder, [node.name for node in net.hosts])
    containers: dict[str, Container] = {}
    undo.callback(_note_lost_files, containers, phase.execution, _files_of_guest())
    start_containers(scenario, net, run, undo, containers, folder.journal)
    write_endpoints(_endpoints(scenario, net), folder.journal)
    watch = Watch(folder.journal, clock.now_ns)
    undo.callback(watch.close)
    for name, container in containers.items():
        watch.add(Watched(container.init, "container", name, oom_kills=container.oom_kills))
    return LiveRun(folder, scenario, plan, clock, net, containers, watch, phase, undo), replay


def _calibrate(run: RunDirectory, phase: Phases) -> int:
    """What this kernel adds to a delay by itself, ns."""
    with phase("calibration", "measuring the delay that this kernel adds by itself"):
        found = measure_bias(run)
    execution = phase.execution
    execution.bias_ns, execution.residue_ns, execution.calibration = found.bias_ns, found.residue_ns, asdict(found)
    return found.bias_ns


def start_containers(
    scenario: Scenario,
    net: IslNet,
    run: RunDirectory,
    undo: ExitStack,
    containers: dict[str, Container],
    journal: Path | None = None,
) -> None:
    """Start a container in each node that runs programs, and add it to `containers` by its name; `undo` stops them.

    A container may use what the node's programs need together.

    Args:
        journal: where what is started in them is written down.
    """
    processes = undo.enter_context(Journal(journal / f"{PROCESSES_JOURNAL}.jsonl")) if journal else None

    def noting(node: str) -> Callable[[int | None, Sequence[str]], None]:
        def note(pid: int | None, argv: Sequence[str]) -> None:
            if processes is not None:
                processes.append({"pid": pid, "node": node, "argv": list(argv)})

        return note

    needs_by_node: dict[str, list[Need]] = {}
    for need in all_needs(scenario):
        if need.node not in net:
            continue  # it is on another kernel
        needs_by_node.setdefault(need.node, []).append(need)
    hosts, images = net.addresses, dict[Path | None, UnpackedImage]()
    for number, path in enumerate(sorted({need.image for need in all_needs(scenario) if need.image})):
        images[path] = unpack_image(path, run.path / "images" / str(number))
    for name, needs in needs_by_node.items():
        node = net.get(name)
        totals = [need for need in needs if need.total]
        cpus = next((need.cpus for need in totals if need.cpus), sum(need.cpus for need in needs) or WHOLE_CORE)
        memory_byte = next(
            (need.memory_byte for need in totals if need.memory_byte),
            sum(need.memory_byte for need in needs) or USUAL_BYTE,
        )
        pids = next((need.pids for need in needs if need.pids), None)
        visible = tuple(dict.fromkeys(path for need in needs for path in need.visible))
        image = images.get(next((need.image for need in needs if need.image), None))
        container = Container(
            name, node.netns_path, run, cpus / scenario.time.slowdown, memory_byte, hosts, visible, net.files,
            node.out, node.about, pids, image, noting(name),
        )  # fmt: skip
        undo.callback(container.stop)
        container.start()
        node.container = containers[name] = container


def _note_lost_files(containers: Mapping[str, Container], execution: Execution, before: set[str]) -> None:
    """What programs have written that ends with the run: of each container, and in a guest of all other nodes.

    Args:
        before: what there was in the guest's memory when the run was built.
    """
    lost = {name: container.lost_files for name, container in containers.items()}
    lost["nodes without a container"] = sorted(_files_of_guest() - before)
    execution.lost_files = {
        name: {"count": len(paths), "paths": paths[:LOST_FILES_NAMED]} for name, paths in lost.items() if paths
    }


def _files_of_guest() -> set[str]:
    """The files that are only in the memory of the guest that this process is in; none outside of one."""
    try:
        folder = os.open(GUEST_WRITES, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return set()
    try:
        return {f"/{path}" for path in files_below(folder)}
    finally:
        os.close(folder)


def _remove_empty(folder: RunFolder, nodes: Iterable[str]) -> None:
    """The folders of nodes whose programs have written nothing there."""
    for path in [*map(folder.files_of, nodes), folder.files_of("any").parent]:
        with suppress(OSError):
            path.rmdir()


def _check_queues(plan: LinkPlan) -> None:
    if missing := missing_queues(map(QueueKind, np.unique(queue_kinds(plan)).tolist())):
        raise MachineError(
            f"aqm: {', '.join(missing)}, but the scenario asks for it; use --machine guest, or links without aqm"
        )


def _endpoints(scenario: Scenario, net: IslNet) -> dict[str, Endpoint]:
    """Where the nodes are, and which of them can be asked."""
    serving = set(scenario.serving_satellites)
    return {
        name: Endpoint(
            namespace_path(net.run_directory.run_id, name),
            ipv4_address(number),
            MODEL_PORT if name in serving else None,
        )
        for number, name in enumerate(net.plan.nodes.names)  # fmt: skip
    }


def _emulate(
    live: LiveRun,
    activities: Sequence[Activity],
    replay: Replay,
    wishes: Wishes,
    ignore_signals: Callable[[], None],
) -> None:
    """The emulated time, from instant 0 to the end."""
    execution, backend = live.phase.execution, live.net.backend
    dropped_before, marked_before = backend.dropped_packets(), backend.marked_packets()
    ended, real_t0_ns = threading.Event(), _begin_ns(live)
    if execution.clock == "exact":  # all nodes' clocks show the scenario's time
        time.clock_settime_ns(time.CLOCK_REALTIME, _utc_ns(live.plan.grid.start) - (real_t0_ns - time.monotonic_ns()))
    t0_ns = live.clock.own_ns(real_t0_ns)
    times, carried = RunTimes(t0_ns, t0_ns + live.plan.grid.duration_ns), Carried(live.clock, t0_ns, ended)
    execution.t0_monotonic_ns, execution.t0_utc = real_t0_ns, _utc_of(real_t0_ns).isoformat()
    with ExitStack() as ending, _on_leaving(ignore_signals):
        course = ending.enter_context(open_course(live, times, ended, wishes))  # first: a stop may be wanted early on
        for activity in activities:
            activity.begin(times, ending)
            for watched in activity.watched():
                live.watch.add(watched)
        live.watch.begin(t0_ns)
        carried.start()
        ending.callback(course.close)  # what stands could not be ended
        ending.callback(live.watch.end)
        replaying = ending.enter_context(ThreadPoolExecutor(1)).submit(replay.run, t0_ns, ended)
        ending.callback(ended.set)
        _sample_load(live, real_t0_ns, ending)
        incidents = ending.enter_context(Journal(live.folder.journal / f"{INCIDENTS_JOURNAL}.jsonl"))
        interventions = Interventions(replay, live.clock, times, ended, None if live.folder.part else incidents)
        of_parts = {verb: handler for part in PARTS for verb, handler in part.answers(live, times).items()}
        faults = NodeFaults(live)
        answers = LiveAnswers(live.plan, live.net, live.folder, live.scenario, course, interventions, faults, of_parts)
        handlers = answers.handlers()
        if live.portion.count > 1 and not live.exact:
            handlers |= dict.fromkeys(OF_ONE_CLOCK, _not_in_real_time)
        ending.enter_context(ControlDesk(live.folder.journal, handlers))
        if wishes.interactive:
            NetCLI(live.net)  # the sky moves on meanwhile
            course.end_now()
            ended.set()
            replaying.result()
        else:
            _follow(live, replaying, activities, course, wishes)
        execution.ended_ns = course.ended_ns()
        replay.count_drops()
        execution.dropped_packets = backend.dropped_packets() - dropped_before
        execution.marked_packets = backend.marked_packets() - marked_before
        if execution.clock == "exact":
            execution.carried_packets = carried.packets()
        live.watch.end()
        for name, container in live.containers.items():
            live.watch.count_killed(name, container.oom_kills())
        if not ended.is_set():
            for activity in activities:
                activity.await_end(LAST_WORDS_S)
        ended.set()
        replaying.result()
    replay.put_right()
    execution.mismatches = [*replay.mismatches, *replay.verify_all()]


def _begin_ns(live: LiveRun) -> int:
    """Instant 0 by the machine's clock: after a head start for what is about to begin.

    Guests that share a run agree on it: it is the head start after the last of them is ready. In exact time it is a
    whole second. So what follows does not depend on how long it took to build.
    """
    now_ns = time.monotonic_ns()
    if not live.exact:
        return HEAD_START_NS + (now_ns if live.portion.count == 1 else _all_ready_by_utc_ns(live))
    if live.portion.count > 1:
        now_ns = _all_ready_ns(now_ns)
    return -(-(now_ns + HEAD_START_NS) // NS_PER_S) * NS_PER_S


def _all_ready_ns(own_ns: int) -> int:
    """When the last guest was ready, once all are: the calendar knows, which all of them share wherever they are."""
    calendar = calendar_control()
    assert calendar is not None, "time is virtual"
    while (last_ns := calendar.all_ready_ns(own_ns)) is None:
        time.sleep(READY_POLL_S)
    return last_ns


def _all_ready_by_utc_ns(live: LiveRun) -> int:
    """When the last guest was ready, by our own clock, once all are: in real time they have a common UTC."""
    said = meet(live.folder, live.portion.count, "ready", {"utc_ns": time.time_ns()})
    last_utc_ns: int = max(one["utc_ns"] for one in said)
    return last_utc_ns - time.time_ns() + time.monotonic_ns()


OF_ONE_CLOCK = "pause", "resume", "stand"  # and with that what is asked of all guests where they stand


def _not_in_real_time(request: Mapping[str, Any], answer: Answer) -> int:
    """An answer that refuses, of a run that several guests share."""
    raise MachineError(
        f"{request.get('asked', request['verb'])}: is asked of a run that several guests share, but in real time each "
        "of them has a clock of its own; run it with --guests 1, or in exact time"
    )


class Carried(threading.Thread):
    """Counts what nodes receive from instant 0 on: before, the kernel itself tells at each link's end who listens.

    When it does depends on how long others take to be ready, such as other guests of the run.
    """

    def __init__(self, clock: RunClock, t0_ns: int, ended: threading.Event):
        super().__init__(name="carried", daemon=True)
        self._clock, self._t0_ns, self._ended, self._before = clock, t0_ns, ended, 0

    def run(self) -> None:
        self._clock.wait_until_ns(self._t0_ns - 1, self._ended)
        self._before = received_packets()

    def packets(self) -> int:
        """How many they are until now."""
        self.join()
        return received_packets() - self._before


def received_packets() -> int:
    """What all nodes of this kernel have received since it booted; a packet counts at each hop."""
    return sum(int(row.split()[0], 16) for row in SOFTNET.read_text().splitlines())


def _sample_load(live: LiveRun, real_t0_ns: int, ending: ExitStack) -> None:
    """The load of each of the machine's seconds, less pauses; only when they end is told in emulated time."""
    journal = ending.enter_context(Journal(live.folder.journal / f"{LOAD_JOURNAL}.jsonl"))

    def append(record: dict[str, Any]) -> None:
        journal.append({**record, "t_ns": live.clock.own_ns(record["t_ns"])})

    sampler = LoadSampler(append, real_t0_ns, live.clock.without_slow_motion())
    sampler.start()
    ending.callback(sampler.stop)


def _follow(
    live: LiveRun, replaying: Future[None], activities: Sequence[Activity], course: Course, wishes: Wishes
) -> None:
    """Show how far the run is until the replay ends; what went wrong in it or in an activity is raised here."""
    duration_ns = live.plan.grid.duration_ns
    wall_s, exact = live.phase.steps.wall_s, live.phase.execution.clock == "exact"
    with live.phase("run", f"emulating {seconds_text(duration_ns)}") as report:
        begun_s, received, told = wall_s(), received_packets(), False
        pauses = live.folder.journal / f"{PAUSES_JOURNAL}.jsonl"
        journals = journals_here(live.folder, live.portion)
        while True:
            try:
                return replaying.result(LOOK_INTERVAL_S)
            except StillRunning:
                for activity in activities:
                    activity.check()
                t_ns = course.t_ns()
                now = f"t = {t_ns / NS_PER_S:.0f} s" if t_ns >= 0 else "about to begin"
                here = []
                if exact and t_ns > 0:
                    spent_s, packets_s = wall_s() - begun_s, (received_packets() - received) * NS_PER_S / t_ns
                    here = [f"{spent_s:.1f} s here", f"{packets_s:,.0f} packets/s"]
                    found = slowness(t_ns, duration_ns, spent_s, packets_s)
                    if found and not told and not (wishes.pace or count_lines(pauses)):
                        live.phase.steps.note(f"Warning: {found}")
                        told = True
                paused = "PAUSED (isl-emu resume) at " if course.paused else ""
                done = [found for part in PARTS if (found := part.progress(*journals))]
                report(max(t_ns, 0) / duration_ns, ", ".join([f"{paused}{now}", *here, *done]))


def slowness(t_ns: int, duration_ns: int, spent_s: float, packets_s: float) -> str | None:
    """What to say of a run in exact time that takes the user minutes more; None if it does not.

    Args:
        spent_s: of the wall, for the emulated time until now.
        packets_s: what was carried in an emulated second until now.
    """
    left_s = spent_s * (duration_ns - t_ns) / t_ns
    if spent_s < SLOW_AFTER_S or left_s < SLOW_LEFT_S:
        return None
    return (
        f"exact time passes slowly here, {t_ns / NS_PER_S:.1f} s in {spent_s:.0f} s, so the rest takes about "
        f"{wall_text(left_s)}; an emulated second has {packets_s:,.0f} packets, counted at each hop. Let programs send "
        "less, state a smaller rate_scale for what fills its links, or shorten time.duration"
    )


def _utc_ns(utc: datetime) -> int:
    return (utc - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(microseconds=1) * NS_PER_US


def _utc_of(monotonic_ns: int) -> datetime:
    ahead_s = (monotonic_ns - time.monotonic_ns()) / NS_PER_S
    return datetime.fromtimestamp(time.time() + ahead_s, timezone.utc)


@contextmanager
def _teardown(execution: Execution, wall_s: Callable[[], float]) -> Iterator[ExitStack]:
    """What is to be undone after the block; how long that takes is recorded as a phase."""
    with ExitStack() as undo:
        try:
            yield undo
        finally:
            begun = wall_s()
            try:
                undo.close()
            finally:
                execution.phases_s["teardown"] = round(wall_s() - begun, 3)


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
