"""The composition root: a scenario becomes a folder of results.

`prepare` (pure, natively) -> `live.execute` (the kernel, here or in a guest) -> `conclude` (tables and verdict).
The three meet only in the run folder, so each can be looked at, and the middle one can happen in another kernel.

It is long because it is the one place where all parts of the house meet, step by step in the order of a run.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from isl_emu.cluster.guests import Workers, run_on_workers, workers_of
from isl_emu.errors import FAILED, INTERRUPTED, INVALID, SIGNALLED, IslEmuError, MachineError, ScenarioError
from isl_emu.files import write_json
from isl_emu.geometry.orbits import check_orbits
from isl_emu.linkplan.pairing import own_topology
from isl_emu.linkplan.plan_file import write_plan
from isl_emu.live.control import announce
from isl_emu.live.room import all_needs, check_room, exact_time_warnings, files_of, guest_memory_byte
from isl_emu.live.spread import MOST_GUESTS, Spread, leave_parts, spread_over
from isl_emu.machine.functions import trusting
from isl_emu.machine.guest import VirtualClock, guest_folder, run_in_guests
from isl_emu.machine.kernel_build import build_kernel, can_build
from isl_emu.machine.load import watched_guest
from isl_emu.machine.place import Place, choose_place
from isl_emu.machine.uml import inside_guest
from isl_emu.parts.finished_run import ConcludedRun
from isl_emu.parts.part import Preparation, Source
from isl_emu.parts.registry import PARTS, active_endpoints
from isl_emu.planned import PlannedNetwork, open_planned, read_planned, scenario_warnings
from isl_emu.progress import Screen, Steps
from isl_emu.results.conclude import conclude
from isl_emu.results.fidelity import Fidelity
from isl_emu.results.gather import gather
from isl_emu.results.provenance import file_facts, provenance
from isl_emu.results.render import styled
from isl_emu.results.run_results import RunResults
from isl_emu.routing.forwarding import plan_routes, write_routes
from isl_emu.routing.policies import policy_of as routing_policy_of
from isl_emu.runs.directory import create_run_directory
from isl_emu.runs.execution import INTERRUPTED_BY_USER
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import OUTSIDE_JOURNAL, Journal
from isl_emu.runs.process import cause_of_death, module_command, started_as
from isl_emu.runs.wishes import USUAL_TRUST, Trust, Wishes
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.parse import format_scenario, load_scenario, with_changes
from isl_emu.units import NS_PER_S

Beside = Callable[[RunFolder], AbstractContextManager[object]]

MACHINES, CLOCKS = ("auto", "host", "guest"), ("auto", "exact", "real")
# A guest boots so long before the scenario's start by its clock, which shows the start at instant 0: more than any head
# start takes, as programs that measure by it stand still while a clock that was set back catches up.
BOOT_BEFORE_S = 10 * 86_400


def load_source(path: Path | Scenario, changes: dict[str, Any]) -> Source:
    """Read a scenario (TOML) and plan it, or read a saved plan (Parquet) with the scenario inside.

    Args:
        path: of the file, or a scenario that was read already.
        changes: top-level scenario fields to replace, as in TOML; a saved plan refuses those that would alter the sky.
    """
    return source_of(open_planned(path, changes))


def source_of(plan: PlannedNetwork) -> Source:
    """What to run, of a plan."""
    scenario, links = plan.scenario, plan.link_plan
    routes = plan_routes(links, scenario.routing, active_endpoints(scenario, links))
    return Source(scenario, links, routes, plan.warnings)


def check_scenario(scenario: Scenario, *, programs: bool = True) -> tuple[str, ...]:
    """Look at all that a scenario names and that can be known before it is planned: files, functions, programs.

    Args:
        programs: also where it names functions, commands or URLs: its functions are imported.

    Returns:
        Warnings, a sentence each.

    Raises:
        IslEmuError: something cannot be used; all such problems at once, as a ScenarioError if they are of several
            classes.
    """
    named = [*(shell.lasers.topology for shell in scenario.shell), *(table.topology for table in scenario.inter_shell)]
    checks: list[Callable[[], object]] = [
        partial(check_orbits, scenario),
        partial(scenario_warnings, scenario),
    ]
    if programs or not scenario.foreign:
        checks += [
            partial(routing_policy_of, scenario.routing),
            *(partial(own_topology, name) for name in named if ":" in name),
            partial(_check_clock, scenario),
            *(check for part in PARTS for check in part.checks(scenario)),
        ]
    warnings: list[str] = []
    errors: list[IslEmuError] = []
    for check in checks:
        try:
            found = check()
        except IslEmuError as error:
            errors.append(error)
        else:
            warnings += [found] if isinstance(found, str) else found if isinstance(found, tuple) else []
    if errors:
        problems = dict.fromkeys(line for error in errors for line in error.problems)
        kinds = {type(error) for error in errors}
        kind = kinds.pop() if len(kinds) == 1 else ScenarioError
        raise kind(*problems)
    return (*warnings, *(exact_time_warnings(scenario) if programs or not scenario.foreign else ()))


def _check_clock(scenario: Scenario) -> None:
    if scenario.time.clock == "exact" and (reason := next(_against_exact(scenario), None)):
        raise ScenarioError(f'time.clock: is "exact", but {reason}; set it to "real" or "auto"')


def _against_exact(scenario: Scenario) -> Iterator[str]:
    """Why a scenario needs real time."""
    yield from (reason for part in PARTS for reason in part.real_time(scenario))
    if scenario.time.slowdown > 1.0:
        yield "slow motion is for real time: exact time waits for the machine by itself"


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Args:
        fidelity: the verdict; None of one that failed, if the machine refuses to write that down.
        status: of the live part: 0 done, 130 interrupted, 1 failed, and a sentence has said why.
    """

    folder: RunFolder
    fidelity: Fidelity | None
    status: int


def run(
    scenario: Scenario | PlannedNetwork | str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    machine: str = "auto",
    clock: str | None = None,
    progress: bool = False,
    trust: Trust = USUAL_TRUST,
    report: bool = True,
    guests: int = 1,
    cluster: str | None = None,
    **changes: Any,
) -> RunResults:
    """Run a scenario to its end and return what it measured; as `isl-emu run`, from Python.

    A run that its own machine distorted returns too: look at `RunResults.valid` before you trust it.

    Args:
        scenario: from `load` or `plan`, or the path of a scenario or of a saved plan.
        out: folder for the results, new or empty; results/NAME-TIME by default.
        machine: "auto", "host" or "guest".
        clock: "exact", "real", or "auto" for exact where it can be had; by default what the scenario says.
        trust: what the scenario may do; see `isl_emu.runs.wishes.Trust` and docs/trust.md.
        report: write report.html as well, for who reads the results.
        guests: over how many guest kernels it is spread; see docs/guests.md.
        cluster: whose workers boot one each, a Dask cluster: the address or the file of its scheduler.
        progress: show on standard output what the command shows.
        changes: top-level keys of the scenario to replace, as in TOML and with units; tables are merged, key by key
            (``seed=7, time={"duration": "60 s"}, questions={"mean_interval": "2 s"}``), and None takes a key or a table
            away (``uplink=None, questions={"stop_after": None}``). A plan's sky is fixed.

    Raises:
        IslEmuError: the scenario has a problem, this machine cannot run it, or the run failed.
        KeyboardInterrupt: it was interrupted.
    """
    for key, value, known in (("machine", machine, MACHINES), ("clock", clock, (*CLOCKS, None))):
        if value not in known:
            raise ScenarioError(f"{key}: is {value!r}, but it is {', '.join(filter(None, known))}; choose one")
    if not 1 <= guests <= MOST_GUESTS:
        raise ScenarioError(f"guests: is {guests}, but a run has 1 to {MOST_GUESTS}; choose as many as there are cores")
    steps = Steps(Screen(quiet=not progress))
    wishes = Wishes(trust=trust)
    with trusting(trust.all):
        source = _source(scenario, changes)
        trust.check(source.scenario.foreign, source.scenario.keys_sent)
        trust.check_network(source.scenario.leading_out, source.scenario.wanted_interfaces)
        place = place_for(source.scenario, machine, clock, wishes, steps, guests)
        folder = Path(out) if out is not None else None
        outcome = run_source(source, place, folder, wishes, steps, report, guests=guests, cluster=cluster)
    if outcome.status == INTERRUPTED:
        raise KeyboardInterrupt
    if outcome.fidelity is None:
        raise MachineError(f"{outcome.folder.path}: cannot be written, but results go there; see what the run printed")
    if outcome.status:
        raise MachineError(*outcome.fidelity.reasons)
    return RunResults(outcome.folder.path)


def _source(scenario: Scenario | PlannedNetwork | str | os.PathLike[str], changes: dict[str, Any]) -> Source:
    if isinstance(scenario, PlannedNetwork):
        if "time" in changes:
            raise ScenarioError("time: is to be changed, but the sky of a plan is fixed; give the scenario instead")
        return source_of(PlannedNetwork(scenario.link_plan, with_changes(scenario.scenario, **changes)))
    return load_source(scenario if isinstance(scenario, Scenario) else Path(scenario), changes)


def place_for(
    scenario: Scenario, machine: str, clock: str | None, wishes: Wishes, steps: Steps, guests: int = 1
) -> Place:
    """Where and by which clock a scenario runs; the kernel that we build is built first if it is needed.

    That kernel has exact time, and the links between several guests.
    """
    wanted = clock or scenario.time.clock
    reasons = [*_against_exact(scenario)]
    if wishes.interactive and wanted == "auto":
        reasons.append("somebody is at the keyboard")
    machine = "guest" if machine == "auto" and guests > 1 else machine
    if machine != "host" and (guests > 1 or (wanted != "real" and not reasons)):
        _build_kernel("exact" if guests > 1 else wanted, steps)
    place = choose_place(machine, wanted, reasons[0] if reasons else "")
    if place.kind == "host" and scenario.has_programs and not wishes.trust.all and not inside_guest():
        raise MachineError(
            "--machine host: programs of the scenario (`isl-emu check` lists them) would be root in containers, but "
            "nothing protects this machine's own kernel from its own faults, nor files outside of /root and /home from "
            "being read; use --machine guest, or --trust it if it is as good as your own"
        )
    if wishes.pace is not None and place.clock == "real":
        raise MachineError(
            f"--pace: is {wishes.pace:g}, but the run takes real time ({place.reason}); leave --pace out, or see "
            "--slowdown"
        )
    return place


def _build_kernel(wanted: str, steps: Steps) -> None:
    """Build the kernel that has exact time, once, where that can be done."""
    if not can_build():
        return
    with steps.step("building the guest kernel that has exact time, once; it takes about 2 minutes") as report:
        try:
            build_kernel(report)
        except MachineError as error:
            if wanted == "exact":
                raise
            steps.note(f"Warning: {error}")


def run_file(
    path: Path | Scenario,
    changes: dict[str, Any],
    out: Path | None,
    machine: str,
    clock: str | None,
    wishes: Wishes,
    steps: Steps,
    report: bool = True,
    beside: Beside = nullcontext,
    guests: int = 1,
    cluster: str | None = None,
) -> int:
    """Run the scenario or saved plan in a file to its end and print the summary.

    Args:
        path: of the file, or a scenario that was read already.
        report: write report.html as well.
        beside: what goes on beside the run, from when its folder is prepared until its verdict is there.
        guests: over how many guest kernels it is spread.
        cluster: whose workers boot one each; None for this machine.

    Returns:
        The exit status: 0 done, 1 failed, 3 done but the run is marked invalid, 130 interrupted.
    """
    with steps.step("planning links, routes and questions"):
        if not wishes.trust.programs:  # a function of the scenario's would be called while it is planned
            wishes.trust.check(_unplanned(path).foreign, ())
        source = load_source(path, changes)
        wishes.trust.check(source.scenario.foreign, source.scenario.keys_sent)
        wishes.trust.check_network(source.scenario.leading_out, source.scenario.wanted_interfaces)
        wishes.check(source.plan.grid.duration_ns)
    place = place_for(source.scenario, machine, clock, wishes, steps, guests)
    if wishes.interactive:
        _check_terminal(place)
    outcome = run_source(source, place, out, wishes, steps, report, beside, guests, cluster)
    if outcome.status in (0, INTERRUPTED):
        steps.show(styled(outcome.folder.summary.read_text()))
    return outcome.status or (0 if outcome.fidelity and outcome.fidelity.valid else INVALID)


def _unplanned(path: Path | Scenario) -> Scenario:
    if isinstance(path, Scenario):
        return path
    return read_planned(path).scenario if path.suffix == ".parquet" else load_scenario(path)


def run_source(
    source: Source,
    place: Place,
    out: Path | None,
    wishes: Wishes,
    steps: Steps,
    report: bool = True,
    beside: Beside = nullcontext,
    guests: int = 1,
    cluster: str | None = None,
) -> Outcome:
    """Run what is planned to its end; the results are in the folder of the outcome, also if it failed or is invalid.

    Args:
        report: write report.html as well, unless it failed.
        beside: what goes on beside the run, from when its folder is prepared until its verdict is there.
        guests: over how many guest kernels it is spread.
        cluster: whose workers boot one each; None for this machine.

    Raises:
        IslEmuError: it could not be begun, or ended with an error on this kernel; what there is is in the folder.
    """
    wishes.trust.check_images(need.image for need in all_needs(source.scenario) if need.image)
    if cluster is not None and guests == 1:
        raise ScenarioError(
            f"--cluster: is {cluster}, but its workers have a guest each of several; say how many with --guests, or "
            "leave --cluster out"
        )
    spread = spread_over(source, guests, place, wishes)
    with nullcontext() if cluster is None else workers_of(cluster, guests) as workers:
        return _run_spread(source, place, out, wishes, steps, report, beside, spread, workers)


def _run_spread(
    source: Source,
    place: Place,
    out: Path | None,
    wishes: Wishes,
    steps: Steps,
    report: bool,
    beside: Beside,
    spread: Spread | None,
    workers: Workers | None,
) -> Outcome:
    """As `run_source`, over several guests if it is spread, and on workers of a cluster if they are to boot them."""
    preparations = [part.prepare(source, place.kind) for part in PARTS]
    seen = [path for preparation in preparations for path in preparation.seen]
    if workers is None:
        check_room(source.scenario)
    else:
        workers.check_files([*files_of(all_needs(source.scenario)), *seen])
    if place.kind == "guest" and source.scenario.has_programs:
        wishes.trust.check_files(files_of(all_needs(source.scenario)))
    for warning in (*source.warnings, *(exact_time_warnings(source.scenario) if place.clock == "exact" else ())):
        steps.note(f"Warning: {warning}")
    folder = RunFolder.create(out, source.scenario.name)
    with folder.written_or_told():
        prepare(source, place, preparations, folder)
        for preparation in preparations:
            preparation.leave(folder, steps)
        if spread is not None:
            leave_parts(folder, spread)
    steps.note(f"runs on: {place.kind}, {place.reason}\nresults: {folder.path}")
    planned = folder, source.scenario, source.plan, source.routes
    with beside(folder):
        try:
            with folder.written_or_told():
                status = _execute(place, folder, source.scenario, seen, wishes, steps, spread, workers)
        except BaseException as error:
            with suppress(Exception):  # the first error is the one to hear of
                _gather(folder, spread)
                conclude(*planned, failure=str(error) or INTERRUPTED_BY_USER)
            folder.give_to_caller()
            raise
        fidelity = None
        try:
            with folder.written_or_told():
                _gather(folder, spread)
                fidelity = conclude(*planned, failure=_failure(status))
        except MachineError:
            if status != FAILED:  # otherwise the first error is the one to hear of, and mostly the same
                raise
    if report and status == 0:
        _write_report(ConcludedRun(folder, source.scenario, source.plan), steps)
    folder.give_to_caller()
    return Outcome(folder, fidelity, status)


def _gather(folder: RunFolder, spread: Spread | None) -> None:
    if spread is not None:
        gather(folder, spread.portion.count)


def _write_report(run: ConcludedRun, steps: Steps) -> None:
    """What cannot be told in the report takes nothing away from the results."""
    from isl_emu.results.report import write_report  # pictures are slow to import

    try:
        with steps.step("writing the report"):
            write_report(run)
    except Exception as error:
        steps.note(f"Warning: report.html: was not written ({error!r}); the results are complete, try isl-emu report")


def _check_terminal(place: Place) -> None:
    if place.kind == "guest" and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise MachineError("--cli: input or output is no terminal, but the guest kernel needs both; use a terminal")


def _failure(status: int) -> str | None:
    """Why the live part did not come to its end, for the case that it could not write that down itself."""
    if status == 0:
        return None
    return INTERRUPTED_BY_USER if status == INTERRUPTED else f"it ended with status {status}; see what it printed"


def prepare(source: Source, place: Place, preparations: Sequence[Preparation], folder: RunFolder) -> None:
    """Write into the run folder what is planned and what the run is made with."""
    scenario, plan = source.scenario, source.plan
    folder.scenario.write_text(format_scenario(scenario))
    write_plan(plan, folder.plan)
    write_routes(source.routes, plan, folder.routes)
    models = dict.fromkeys(path for preparation in preparations for path in preparation.models)
    inputs = dict.fromkeys(path for preparation in preparations for path in preparation.inputs)
    record = provenance(
        scenario_name=scenario.name,
        seed=scenario.seed,
        rate_scale=scenario.rate_scale,
        plan_digest=plan.digest(),
        scenario_digest=file_facts(folder.scenario)["sha256"],
        place=place.kind,
        reason=place.reason,
        clock=place.clock,
        kernel=None if place.kernel is None else asdict(place.kernel),
        models=list(models),
        inputs=list(inputs),
    )
    write_json(folder.provenance, record)


def _clock(scenario: Scenario, wishes: Wishes) -> VirtualClock:
    """Somebody at a keyboard wants time to pass as it does for him, unless he says otherwise."""
    pace = wishes.pace or (1.0 if wishes.interactive else None)
    start_s = round(scenario.time.start.timestamp()) - BOOT_BEFORE_S
    return VirtualClock(start_s * NS_PER_S, pace, scenario.seed)


def _execute(
    place: Place,
    folder: RunFolder,
    scenario: Scenario,
    seen: Sequence[Path],
    wishes: Wishes,
    steps: Steps,
    spread: Spread | None = None,
    workers: Workers | None = None,
) -> int:
    """The live part, on this kernel or in a guest's."""
    if place.kind == "host":
        from isl_emu.live.execute import execute  # Mininet is slow to import, and not needed for the guest

        return execute(folder, wishes, steps)
    words = [*wishes.words(), *(["--quiet"] if steps.quiet else [])]
    command = module_command("isl_emu", "execute", str(folder.path), *words)
    needs, run = all_needs(scenario), create_run_directory()
    announce(run, folder.path)
    readable, memory_byte = sorted({*files_of(needs), *seen}), guest_memory_byte(scenario, needs)
    lookahead_ns = 0 if spread is None else spread.lookahead_ns
    boot = partial(
        run_in_guests,
        [command] if spread is None else [[*command, "--part", str(part)] for part in range(spread.portion.count)],
        run=run,
        writable=[folder.path],
        readable=readable,
        memory_byte=[memory_byte] * (1 if spread is None else spread.portion.count),
        interactive=wishes.interactive,
        kernel=place.kernel,
        who=partial(started_as, folder.journal),
        trusted=wishes.trust.all,
    )
    try:
        if workers is not None:
            statuses = run_on_workers(
                workers,
                folder,
                words,
                clock=_clock(scenario, wishes) if place.clock == "exact" else None,
                lookahead_ns=lookahead_ns,
                memory_byte=memory_byte,
                readable=readable,
                trusted=wishes.trust.all,
            )
        elif place.clock == "exact":
            statuses = boot(clock=_clock(scenario, wishes), lookahead_ns=lookahead_ns)
        else:
            with Journal(folder.journal / f"{OUTSIDE_JOURNAL}.jsonl") as outside, ExitStack() as wires:
                for part in range(1 if spread is None else spread.portion.count):
                    wires.enter_context(watched_guest(guest_folder(run, part), outside.append, part))
                ends = [wires.enter_context(wire(folder, run)) for part in PARTS for wire in part.wires(scenario)]
                statuses = boot(wires=ends)
    finally:
        shutil.rmtree(run.path, ignore_errors=True)
    known = 0, INTERRUPTED, FAILED
    status = max(statuses, key=lambda one: known.index(one) if one in known else len(known))
    if status not in known:
        cause = cause_of_death(SIGNALLED - status if status > SIGNALLED else status)
        raise MachineError(
            f"live part in the guest kernel: {cause}, but it ends with the run; have more memory free if it was the "
            "kernel for want of it (`dmesg` tells), and run it again"
        )
    return status
