"""The command line: turns words into calls, and errors into one sentence and an exit status.

It is long because it is flat: one small function a command, and nothing else; `manual.py` has their order and examples.

Exit status: 0 done, 1 failed, 2 wrong usage, 3 done but the run is marked invalid or intervened, 130 interrupted, 141
nobody reads its output any more.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

import click
from click.shell_completion import CompletionItem
from rich.table import Table

from isl_emu.errors import FAILED, INTERRUPTED, INVALID, SIGNALLED, IslEmuError, MachineError, ScenarioError, visible
from isl_emu.manual import SHELLS, Manual, completion_script
from isl_emu.progress import Screen, Steps
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.wishes import USUAL_TRUST, Trust, Wishes
from isl_emu.units import DURATION_NS, NS_PER_MS, NS_PER_S, RATE_BIT_S, format_quantity, parse_quantity, seconds_text

if TYPE_CHECKING:
    from isl_emu.api import Plan
    from isl_emu.planned import NamedPath
    from isl_emu.scenario.model import Scenario
    from isl_emu.view.sky import Sky

    TextType = click.ParamType[str]
else:
    TextType = click.ParamType  # which older versions of click do not make generic

DEBUG = "ISL_EMU_DEBUG"  # the environment variable that --debug sets; a guest gets it too
STDIN = 0
OWN_STREAM = re.compile(r"-|/dev/stdin|(?:/dev/fd|/proc/self/fd)/(\d{1,9})")
TABLE_WIDTH = 130  # of a table that goes to a file or a pipe


class ScenarioSource(click.Path):
    """A file; or a scenario that somebody writes into a pipe ("-", /dev/stdin, <(...), a FIFO), read at once."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(value)
        if (descriptor := _stream(path)) is None:
            return super().convert(value, param, ctx)
        from isl_emu.scenario.parse import read_scenario

        try:
            return read_scenario(descriptor, "standard input" if str(path) == "-" else str(path))
        finally:
            os.close(descriptor)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Names of shipped scenarios, and what the shell itself knows of files."""
        from isl_emu.scenario.parse import shipped_scenarios

        names = [CompletionItem(name) for name in shipped_scenarios() if name.startswith(incomplete)]
        return [*names, *super().shell_complete(ctx, param, incomplete)]


def _stream(path: Path) -> int | None:
    """A new descriptor of a pipe, or of an open file of ours; None of any other file."""
    try:
        if own := OWN_STREAM.fullmatch(str(path)):
            return os.dup(int(own[1] or STDIN))
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK) if path.is_fifo() else None
    except (OSError, OverflowError):  # it is told of where the file is read
        return None


SCENARIO = ScenarioSource(path_type=Path, dir_okay=False)


class Duration(TextType):
    """A duration with its unit, such as 60s or "2 min"; kept as text, since scenarios hold text."""

    name = "duration"
    dimension = DURATION_NS

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return format_quantity(parse_quantity(value, self.dimension), self.dimension)
        except ValueError as error:
            return self.fail(f"{value!r} {error}", param, ctx)


class Rate(Duration):
    """The same of a data rate, such as 1Gbit/s."""

    name = "rate"
    dimension = RATE_BIT_S


class ExportFormat(TextType):
    """One of the formats of `isl_emu.export`, which are slow to import, and most commands need none."""

    name = "format"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        from isl_emu.export.formats import FORMATS

        return f"[{'|'.join(FORMATS)}]"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from isl_emu.export.formats import FORMATS

        return value if value in FORMATS else self.fail(f"{value!r} is not one of {', '.join(FORMATS)}.", param, ctx)


PAUSE_AT = click.option(
    "--pause-at", type=Duration(), help="Pause at this emulated time, until `isl-emu resume` in a second terminal."
)
UNTIL = click.option("--until", type=Duration(), help="End the run at this emulated time; the plan stays as it is.")


SET = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Another value for a key of the scenario, such as questions.mean_interval=2s or compute[0].board=...; several "
    "times for several keys, and without a value to take one away.",
)
FORMAT = click.option(
    "--format",
    "formats",
    multiple=True,
    default=("png",),
    show_default=True,
    type=click.Choice(["png", "svg", "pdf"]),
    help="Of the pictures; can be given several times.",
)


@click.group(cls=Manual, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show a traceback when something fails.")
@click.version_option(version("isl-emu"), prog_name="isl-emu")
def cli(debug: bool) -> None:
    """Emulate laser inter-satellite link networks that carry real LLM inference traffic.

    SCENARIO is a TOML file or the name of a shipped scenario, and where a plan will do, a saved plan. `isl-emu COMMAND
    --help` has the options of a command and examples.
    """
    if debug:
        os.environ[DEBUG] = "1"


def _trusting(ctx: click.Context, _: click.Parameter, trust: bool) -> bool:
    """Until the command ends, call functions of the scenario's without a wall if they are trusted."""
    if trust:
        from isl_emu.machine.functions import trusting

        ctx.with_resource(trusting(True))
    return trust


TRUST = click.option(
    "--trust",
    is_flag=True,
    expose_value=False,
    callback=_trusting,
    help="The scenario's own functions are as good as yours: call them without a wall between them and your files.",
)


TRUST_RUN = click.option(
    "--trust",
    is_flag=True,
    callback=_trusting,
    help="The scenario is as good as your own programs: run it also where nothing keeps it from your files.",
)
NO_PROGRAMS = click.option(
    "--no-programs", is_flag=True, help="Refuse a scenario that names commands, functions or URLs; `check` lists them."
)
ALLOW_KEY = click.option(
    "--allow-key", "keys", multiple=True, metavar="NAME", help="Environment variable that it may send to its URL."
)


ALLOW_NETWORK = click.option(
    "--allow-network",
    "network",
    is_flag=True,
    help="The scenario may lead its packets to this machine's own network, by its [way_out].",
)

ALLOW_INTERFACE = click.option(
    "--allow-interface",
    "interfaces",
    multiple=True,
    metavar="NAME",
    help="Interface of this machine that a node of the scenario may have while it runs, by its [[hardware]].",
)


PORT = click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Of this machine's own, for the page. Default: a free one."
)
NO_BROWSER = click.option("--no-browser", is_flag=True, help="Only print where the page is.")


@cli.command()
@click.argument("scenario", type=SCENARIO, required=False)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the results (new or empty). Default: results/NAME-TIME.",
)
@click.option(
    "--resume",
    "cut_off",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="In place of SCENARIO: the folder of a run or sweep that was cut off. A run is repeated from its beginning "
    "with its plan, a sweep goes on with what it lacks.",
)
@click.option("--duration", type=Duration(), help="Run this long instead of what the scenario says, e.g. 60s.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of all random choices.")
@SET
@click.option(
    "--machine",
    type=click.Choice(["auto", "host", "guest"]),
    default="auto",
    show_default=True,
    help="Where the network is built: on this kernel, or in a guest kernel that isl-emu boots.",
)
@click.option("--model", metavar="FILE", help="GGUF file that the satellites serve instead of the scenario's.")
@click.option(
    "--slowdown",
    type=click.FloatRange(1, 1000),
    help="Run this many times more slowly than real time, for scenarios that are too heavy otherwise.",
)
@click.option(
    "--clock",
    type=click.Choice(["auto", "exact", "real"]),
    help="Virtual time, which does not depend on this machine, or real time. Default: what the scenario says, or auto: "
    "exact where it can be had.",
)
@click.option(
    "--cli",
    "interactive",
    is_flag=True,
    help="Open Mininet's command line on the live net; the run ends when you leave it.",
)
@click.option(
    "--pace",
    type=click.FloatRange(0, min_open=True),
    help="In exact time: at most so many emulated seconds pass in one of the wall clock, for people who look on. "
    "Default: as many as the machine manages.",
)
@TRUST_RUN
@NO_PROGRAMS
@ALLOW_KEY
@ALLOW_NETWORK
@ALLOW_INTERFACE
@click.option("--guests", type=click.IntRange(1, 64), default=1, help="Spread it over so many guest kernels.")
@click.option(
    "--cluster",
    metavar="ADDRESS|FILE|local:N",
    help="Boot the guests of --guests, or with --resume go on with a sweep, on the workers of a Dask cluster.",
)
@click.option("--no-report", is_flag=True, help="Write no report.html; `isl-emu report` does that later as well.")
@click.option("--view", "viewed", is_flag=True, help="Serve a page that shows the run while it is live.")
@PORT
@NO_BROWSER
@PAUSE_AT
@UNTIL
def run(
    scenario: Path | Scenario | None,
    out: Path | None,
    cut_off: Path | None,
    duration: str | None,
    seed: int | None,
    settings: tuple[str, ...],
    machine: str,
    model: str | None,
    slowdown: float | None,
    clock: str | None,
    pace: float | None,
    interactive: bool,
    trust: bool,
    no_programs: bool,
    keys: tuple[str, ...],
    network: bool,
    interfaces: tuple[str, ...],
    guests: int,
    cluster: str | None,
    no_report: bool,
    viewed: bool,
    port: int,
    no_browser: bool,
    pause_at: str | None,
    until: str | None,
) -> int:
    """Run SCENARIO (TOML, or a plan saved by `isl-emu plan`) and write a folder of results."""
    from isl_emu.experiment import run_file

    changes = _changes(duration, seed, model, slowdown) | _set(settings)
    steps = Steps(Screen())
    if (scenario is None) == (cut_off is None):
        raise click.UsageError("one of SCENARIO and --resume FOLDER is needed")
    if cut_off is not None:
        if changes or out is not None:
            raise click.UsageError(
                "--resume repeats what was begun, in its folder: leave out --out and what changes it"
            )
        if (cut_off / "sweep.json").is_file():
            return _sweep(cut_off, Trust(trust, not no_programs, keys, network, interfaces), None, cluster, steps)
        from isl_emu.sweeps.sweep import repeat

        if (again := repeat(cut_off, steps)) is None:
            return 0
        out, (scenario, before) = cut_off, again
        clock = clock or before
    assert scenario is not None
    wishes = _wishes(interactive, pause_at, until, pace, Trust(trust, not no_programs, keys, network, interfaces))
    beside: Callable[[RunFolder], AbstractContextManager[object]] = nullcontext
    if viewed:
        from isl_emu.view.serve import looking_on, open_page

        beside = partial(looking_on, port=port, steps=steps, show=_nothing if no_browser else open_page)
    return run_file(scenario, changes, out, machine, clock, wishes, steps, not no_report, beside, guests, cluster)


@cli.command()
@click.argument("scenario", type=SCENARIO)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE,VALUE,...", help="Values for a key of the scenario."
)
@click.option("--seeds", type=click.IntRange(1, 10_000), help="Run each combination with so many seeds, from 1 on.")
@click.option("--search", metavar="KEY=LOW..HIGH", help="Bisect for the largest value that keeps every --slo.")
@click.option("--slo", multiple=True, metavar="LEVEL", help='A service level for --search, such as "ttft_p95 <= 2 s".')
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 10, min_open=True),
    default=0.05,
    show_default=True,
    help="How close, as a share, --search comes.",
)
@click.option("--duration", type=Duration(), help="Run this long instead of what the scenario says.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the runs and their table (new or empty). Default: results/NAME-sweep-TIME.",
)
@click.option("--parallel", type=click.IntRange(1), help="Runs at once. Default: in exact time one for each CPU.")
@click.option(
    "--cluster",
    metavar="ADDRESS|FILE|local:N",
    help="Run on the workers of a Dask cluster: its scheduler's address or file, or N workers here.",
)
@click.option("--machine", type=click.Choice(["auto", "host", "guest"]), help="As of `isl-emu run`.")
@click.option("--clock", type=click.Choice(["auto", "exact", "real"]), help="As of `isl-emu run`.")
@TRUST_RUN
@NO_PROGRAMS
@ALLOW_KEY
@ALLOW_NETWORK
@ALLOW_INTERFACE
def sweep(
    scenario: Path | Scenario,
    settings: tuple[str, ...],
    seeds: int | None,
    search: str | None,
    slo: tuple[str, ...],
    tolerance: float,
    duration: str | None,
    out: Path | None,
    parallel: int | None,
    cluster: str | None,
    machine: str | None,
    clock: str | None,
    trust: bool,
    no_programs: bool,
    keys: tuple[str, ...],
    network: bool,
    interfaces: tuple[str, ...],
) -> int:
    """Run SCENARIO with each combination of values, and write one table with a row for each run.

    For example --set questions.mean_interval=1s,2s,4s --seeds 10 makes 30 runs, and --search questions.rate=0.1..10.0
    --slo "ttft_p95 <= 2 s" finds the largest rate within that level. A sweep that was cut off goes on with
    `isl-emu run --resume FOLDER`.
    """
    from isl_emu.scenario.parse import with_changes
    from isl_emu.scenario.settings import read_setting
    from isl_emu.sweeps.sweep import begin_sweep

    values = dict(map(read_setting, settings))
    if seeds is not None:
        values["seed"] = tuple(range(1, seeds + 1))
    if not values and search is None:
        raise click.UsageError("--set, --seeds or --search is needed: they say in what the runs differ")
    if slo and search is None:
        raise click.UsageError(
            "--slo is given without --search, but it says what is searched; add --search KEY=LOW..HIGH"
        )
    loaded = _loaded(scenario)
    if duration is not None:
        loaded = with_changes(loaded, time={"duration": duration})
    words = [word for name, value in (("--machine", machine), ("--clock", clock)) if value for word in (name, value)]
    if search is not None:
        from isl_emu.sweeps.search import begin_search

        folder = begin_search(loaded, search, slo, tolerance, values, out, words)
    else:
        folder = begin_sweep(loaded, values, out, words).path
    allowed = Trust(trust, not no_programs, keys, network, interfaces)
    return _sweep(folder, allowed, parallel, cluster, Steps(Screen()))


@cli.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--metric", "metrics", multiple=True, metavar="TABLE.COLUMN", help="Default: all durations and ratios.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for the table and a picture.")
@click.option("--anyway", is_flag=True, help="Also runs that are invalid, or of different clocks.")
def compare(runs: tuple[Path, ...], metrics: tuple[str, ...], out: Path | None, anyway: bool) -> None:
    """Compare RUNS (folders of runs or of sweeps) with the first: medians, and intervals of their differences.

    Runs that differ in nothing but their seed are repetitions of one another.
    """
    from isl_emu.sweeps.compare import compare as compare_runs
    from isl_emu.sweeps.compare import open_runs

    opened, names = open_runs(runs)
    found = compare_runs(opened, metrics, names=names, anyway=anyway)
    click.echo(found.text)
    if out is not None:
        for path in found.write(out):
            click.echo(f"wrote {path}")


@cli.command()
@click.argument("scenario", type=SCENARIO)
@click.option(
    "--no-programs",
    is_flag=True,
    help="Look at the text alone if it names commands, functions or URLs, and only list these.",
)
@TRUST
def check(scenario: Path | Scenario, no_programs: bool) -> None:
    """Check SCENARIO and print it with every default written out, what it runs or asks that is not isl-emu's, and about
    how many faults there will be.

    Files, functions and programs that it names are looked at too: models, traces, prompts.
    """
    from isl_emu.api import format_scenario
    from isl_emu.experiment import check_scenario

    checked = _loaded(scenario)
    try:
        _print_warnings(check_scenario(checked, programs=not no_programs))
        click.echo(visible(format_scenario(checked)), nl=False)
    finally:
        for line in (*checked.foreign, *checked.captures_told, *checked.faults_expected):
            click.echo(f"# {line}")


@cli.command()
@click.argument("scenario", type=SCENARIO)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Parquet file to write. Default: NAME.plan.parquet."
)
@click.option("--duration", type=Duration(), help="Plan this long instead of what the scenario says.")
@SET
@click.option("--parts", type=click.IntRange(1), help="Also show the plan cut into so many parts, each for a guest.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --parts: also write the cut here.",
)
@TRUST
def plan(
    scenario: Path | Scenario,
    out: Path | None,
    duration: str | None,
    settings: tuple[str, ...],
    parts: int | None,
    json_file: Path | None,
) -> None:
    """Compute the link plan of SCENARIO, save it for `isl-emu run`, and list its contacts."""
    from isl_emu.api import open_plan
    from isl_emu.experiment import source_of
    from isl_emu.files import write_json
    from isl_emu.live.spread import cut_of, not_spread

    if json_file and not parts:
        raise click.UsageError("--json is for the cut; add --parts")
    steps, told = Steps(Screen(stderr=True)), []
    with steps.step("planning the sky") as report:
        planned = open_plan(scenario, _changes(duration) | _set(settings), report)
    if parts:
        source = source_of(planned)
        found = cut_of(source, parts, "real" if source.scenario.time.clock == "real" else "exact")
        told = [found.text(source.plan), *(f"but it runs on one guest: {reason}" for reason in not_spread(source))]
        if json_file:
            write_json(json_file, found.to_json(source.plan))
    target = out or Path(f"{planned.scenario.name}.plan.parquet")
    with steps.step("writing the plan") as report:
        planned.save(target, report)
    click.echo(planned.summary())
    for line in told:
        click.echo(line)
    _print_warnings(planned.warnings)
    click.echo(f"saved as {target} (sha256 {planned.digest[:16]}); replay it with: isl-emu run {target}")


@cli.command()
@click.argument("plan", type=SCENARIO)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for pictures; none without it.")
@click.option("--pair", "pairs", nargs=2, multiple=True, metavar="A B", help="Show the path delay from A to B.")
@click.option("--link", "links", nargs=2, multiple=True, metavar="A B", help="Show range and rate of the link A - B.")
@click.option("--film", type=click.Path(path_type=Path, dir_okay=False), help="Write the map over time: .gif or .mp4.")
@FORMAT
@TRUST
def show(
    plan: Path | Scenario,
    out: Path | None,
    film: Path | None,
    pairs: tuple[tuple[str, str], ...],
    links: tuple[tuple[str, str], ...],
    formats: tuple[str, ...],
) -> None:
    """Show PLAN (a saved plan, or a scenario) as text, and with --out as pictures.

    --pair and --link can be given several times; without them, some that tell most are chosen.
    """
    from isl_emu.api import open_plan

    planned = open_plan(plan, {})
    click.echo(planned.summary())
    for a, b in pairs:
        click.echo(_delay_sentence(a, b, planned.path_delay_ns(a, b)))
    if out is not None:
        for path in planned.draw(out, pairs, links, formats):
            click.echo(f"wrote {path}")
    if film is not None:
        with Steps(Screen(stderr=True)).step("drawing the film") as report:
            path = planned.film(film, report)
        click.echo(f"wrote {path}")
    _print_warnings(planned.warnings)


@cli.command()
@click.argument("scenario", type=SCENARIO)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for a picture; none without it.")
@click.option("--duration", type=Duration(), default="24h", show_default=True, help="How long, from the start.")
@click.option("--step", type=Duration(), default="1min", show_default=True, help="Powers are constant in one.")
@click.option(
    "--demand",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="The share of its full work that every computer is wanted for.",
)
@FORMAT
def energy(
    scenario: Path | Scenario, out: Path | None, duration: str, step: str, demand: float, formats: tuple[str, ...]
) -> None:
    """Show what Sun, batteries and radiators let the satellites of SCENARIO compute, without running it."""
    from isl_emu.balance import power_balance

    span_s, step_s = (parse_quantity(text, DURATION_NS) / NS_PER_S for text in (duration, step))
    balance = power_balance(_loaded(scenario), duration_s=span_s, step_s=step_s, demand=demand)
    click.echo(balance.summary(), nl=False)
    if out is not None:
        for name in formats:
            click.echo(f"wrote {balance.draw(out, name)}")


@cli.command()
@click.argument("plan", type=SCENARIO)
@click.option("--format", "name", type=ExportFormat(), required=True)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write. Default: standard output.")
@TRUST
def export(plan: Path | Scenario, name: str, out: Path | None) -> None:
    """Write the contacts of PLAN (a saved plan, or a scenario) as CSV, for ION or uD3TN, or as CZML for Cesium."""
    from isl_emu.api import open_plan

    text = open_plan(plan, {}).export(name)
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ScenarioError(
            f"{out}: cannot be written ({error.strerror}), but contacts go there; name another file with --out"
        ) from None


@cli.command()
@click.argument("scenario", type=ScenarioSource(path_type=Path))
@click.argument("a")
@click.argument("b")
@click.option("--at", type=Duration(), default="0s", show_default=True, help="Time since the start of the run.")
@TRUST
def path(scenario: Path | Scenario, a: str, b: str, at: str) -> int:
    """Print the path from node A to node B of SCENARIO (TOML, or a saved plan), hop by hop with one-way delays.

    With equal-cost multipath all paths that packets may take, and for pairs with disjoint paths these too. Of a run
    whose routes others make (SCENARIO is then its folder of results, live or over) also the path that nodes' routes
    gave packets at that time.
    """
    from isl_emu.api import open_plan

    run = RunFolder(scenario) if isinstance(scenario, Path) and scenario.is_dir() else None
    if run and not run.plan.is_file():
        raise ScenarioError(f"{run.path}: has no plan, but a folder of results has one; name that of `--out`")
    plan = open_plan(run.plan if run else scenario, {})
    t_ns = parse_quantity(at, DURATION_NS)
    grid = plan.link_plan.grid
    if not 0 <= t_ns < grid.duration_ns:
        raise ScenarioError(
            f"--at: is {at}, but the plan ends at {seconds_text(grid.duration_ns)}; choose an earlier time"
        )
    k = grid.instant_at(t_ns)
    found = plan.paths(a, b, k)
    for number, one in enumerate(found, start=1):
        _print_path(one, f"at {at}" + (f", equal path {number} of {len(found)}" if len(found) > 1 else ""))
    for number, disjoint in enumerate(plan.disjoint_paths(a, b, k), start=1):
        if disjoint:
            _print_path(disjoint, f"at {at}, disjoint path {number}: {b}.from-{a}.{number}")
        else:
            click.echo(f"there is no disjoint path {number} from {a} to {b} at {at}")
    if not found:
        click.echo(f"at {at} {plan.no_path(a, b, k)}")
    if run:
        _print_found(run, plan, a, b, t_ns)
    return 0 if found else 1


def _print_found(run: RunFolder, plan: Plan, a: str, b: str, t_ns: int) -> None:
    """What the routes of a run's nodes made of a path, where they were not ours."""
    from isl_emu.planned import NamedPath
    from isl_emu.tables.found_ways import found_ways
    from isl_emu.tables.planned_paths import HopDelays

    ways, at = found_ways(run, plan.link_plan), f"at {seconds_text(t_ns)}"
    if ways is None:
        click.echo("the plan's routes are those of the nodes: nobody else made any")
        return
    way = ways.path(a, b, t_ns)
    if way is None:
        click.echo(f"{at} packets do not arrive: {ways.no_path(a, b, t_ns)}")
        return
    names = tuple(plan.nodes[node] for node in way.nodes)
    cut = tuple(hop for hop, link in enumerate(way.links) if link in way.cut)
    taken = NamedPath(names, tuple(HopDelays(plan.link_plan).of(names, t_ns)), cut)
    _print_path(taken, f"{at}, by the nodes' routes", "the link is down: packets are lost")


def _print_path(
    found: NamedPath, remark: str, cut_by: str = "cut by a fault that is not known yet: packets are lost"
) -> None:
    for hop, (node, delay_ns) in enumerate(zip(found.nodes[1:], found.hop_delays_ns)):
        cut = f"  ({cut_by})" if hop in found.cut else ""
        click.echo(f"{delay_ns / NS_PER_MS:10.6f} ms  {node}{cut}")
    ends = f"from {found.nodes[0]} to {found.nodes[-1]}"
    click.echo(f"{found.delay_ns / NS_PER_MS:10.6f} ms  {ends}, {found.hops} hops, one way, {remark}")


RUN = click.option(
    "--run", "folder", type=click.Path(path_type=Path), help="Results folder of the run, if several live."
)


@cli.command()
@RUN
def status(folder: Path | None) -> int:
    """Tell where the live run stands."""
    return _ask({"verb": "status"}, folder)


@cli.command()
@click.argument("a")
@click.argument("b")
@RUN
def link(a: str, b: str, folder: Path | None) -> int:
    """Show the link between nodes A and B of the live run: as planned now, and as the kernel has it."""
    return _ask({"verb": "link", "a": a, "b": b}, folder)


@cli.command(name="exec", context_settings={"ignore_unknown_options": True})
@RUN
@click.argument("node")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_in_node(node: str, command: tuple[str, ...], folder: Path | None) -> int:
    """Run COMMAND in NODE of the live run, with this standard input, and return its exit status.

    It begins in the folder of the node's files, $ISL_EMU_OUT. 127: there is no such program. 128 + N: signal N
    ended it.
    """
    return _ask({"verb": "exec", "node": node, "argv": command}, folder, reads=_may_read_input())


@cli.command()
@RUN
@click.argument("node")
def shell(node: str, folder: Path | None) -> int:
    """Open a shell in NODE of the live run at this terminal, and return its exit status.

    It begins in the folder of the node's files, $ISL_EMU_OUT. In exact time let the run have `--pace 1`.
    """
    import termios
    import tty

    if not (os.isatty(STDIN) and sys.stdout.isatty()):
        raise MachineError(
            "shell: is at no terminal, but it opens one in the node; use `isl-emu exec NODE -- sh` with a pipe"
        )
    size, before = os.get_terminal_size(STDIN), termios.tcgetattr(STDIN)
    request = {"verb": "exec", "node": node, "terminal": [size.lines, size.columns]}
    tty.setraw(STDIN)
    try:
        return _ask({**request, "kind": os.environ.get("TERM", "dumb")}, folder, reads=True)
    finally:
        termios.tcsetattr(STDIN, termios.TCSADRAIN, before)


@cli.command()
@RUN
@click.argument("source")
@click.argument("target")
def cp(source: str, target: str, folder: Path | None) -> int:
    """Copy a file or folder to a node of the live run, or from one: one of SOURCE and TARGET is NODE:PATH.

    A relative PATH is below the folder of the node's files, $ISL_EMU_OUT.
    """
    from isl_emu.live.control import copy_from, copy_to, find_live_run

    (from_node, from_path), (to_node, to_path) = (_in_node(text) for text in (source, target))
    if bool(from_node) == bool(to_node):
        raise click.UsageError("one of SOURCE and TARGET is in a node (NODE:PATH), the other on this machine.")
    try:
        if to_node:
            return copy_to(*find_live_run(folder), Path(from_path), to_node, to_path or ".", _write_error)
        return copy_from(*find_live_run(folder), from_node, from_path or ".", Path(to_path), _write_error)
    except OSError as error:
        raise ScenarioError(
            f"cp: {error.filename or to_path or from_path} cannot be copied ({error.strerror or error}), but it "
            "must be readable there, and its target writable; name others"
        ) from None


def _in_node(text: str) -> tuple[str, str]:
    """The node and the path of NODE:PATH; no node if there is none, as in ./a:b."""
    node, colon, path = text.partition(":")
    return (node, path) if colon and "/" not in node else ("", text)


@cli.command()
@click.option("--at", type=Duration(), help="Emulated time to pause at. Default: now.")
@RUN
def pause(at: str | None, folder: Path | None) -> int:
    """Pause the live run, now or at a time to come, and return when all stands still."""
    return _ask({"verb": "pause", "at_ns": _ns(at)}, folder)


@cli.command()
@click.option("--until", type=Duration(), help="Emulated time to pause at again; returns when the run stands.")
@RUN
def resume(until: str | None, folder: Path | None) -> int:
    """Let the paused run go on."""
    return _ask({"verb": "resume", "until_ns": _ns(until)}, folder)


@cli.command()
@click.option("--at", type=Duration(), help="Emulated time to end at. Default: now.")
@RUN
def stop(at: str | None, folder: Path | None) -> int:
    """End the live run in order, now or at a time to come: its results are valid up to there."""
    return _ask({"verb": "stop", "at_ns": _ns(at)}, folder)


FOR = click.option("--for", "duration", type=Duration(), help="Restore it by itself after so much emulated time.")
SHARE = click.FloatRange(0, 1)
FACTOR = click.FloatRange(0, 1000, min_open=True)


@cli.command()
@click.argument("a", metavar="A|NODE")
@click.argument("b", required=False)
@click.option("--loss", "loss_ratio", type=SHARE, help="Share of packets that are lost, in place of the plan's.")
@click.option("--corruption", "corruption_ratio", type=SHARE, help="Share of packets of which a bit is flipped.")
@click.option("--duplication", "duplication_ratio", type=SHARE, help="Share of packets that are sent twice.")
@click.option("--jitter", type=Duration(), help="By how much delays are longer or shorter at the most.")
@click.option("--rate-factor", type=FACTOR, help="Times the rate that the plan says at each time.")
@click.option("--delay-factor", type=FACTOR, help="Times the delay that the plan says at each time.")
@click.option("--kill", "effect", flag_value="kill", help="Of a node: kill its model server and programs.")
@click.option("--stop", "effect", flag_value="stop", help="Of a node: let these stand still.")
@click.option("--out-of-memory", "effect", flag_value="out-of-memory", help="Of a node: starve these of memory.")
@FOR
@RUN
def fault(
    a: str,
    b: str | None,
    effect: str | None,
    jitter: str | None,
    duration: str | None,
    folder: Path | None,
    **changes: float | None,
) -> int:
    """Break the link between nodes A and B of the live run by hand, or NODE.

    A link is cut, or made as bad as the options say; the plan moves on beneath, and routes do not know of it. A node
    loses its power, or what the options say happens to what runs in it. It is recorded as an intervention.
    """
    all_changes = {**changes, "jitter_ns": _ns(jitter)}
    given = {name: value for name, value in all_changes.items() if value is not None}
    if (given and b is None) or (effect and b is not None):
        raise click.UsageError("--kill, --stop and --out-of-memory are for a NODE, the others for a link (A B).")
    what = {"changes": given or {"cut": True}} if b is not None else {"effect": effect or "power-off"}
    place = [a] if b is None else [a, b]
    return _ask({"verb": "fault", "place": place, **what, "for_ns": _ns(duration)}, folder)


@cli.command(name="set")
@click.argument("a")
@click.argument("b")
@click.option("--delay", type=Duration(), help="One way, in place of the plan's.")
@click.option("--rate", type=Rate(), help="Of both directions, in place of the plan's, before rate_scale.")
@click.option("--loss", "loss_ratio", type=SHARE, help="Share of packets that are lost, in place of the plan's.")
@FOR
@RUN
def set_link(
    a: str,
    b: str,
    delay: str | None,
    rate: str | None,
    loss_ratio: float | None,
    duration: str | None,
    folder: Path | None,
) -> int:
    """Set what the link between nodes A and B of the live run is like while it is up, whatever the plan says.

    It is recorded as an intervention.
    """
    rate_bit_s = None if rate is None else parse_quantity(rate, RATE_BIT_S)
    changes = {"delay_ns": _ns(delay), "rate_bit_s": rate_bit_s, "loss_ratio": loss_ratio}
    given = {name: value for name, value in changes.items() if value is not None}
    if not given:
        raise click.UsageError("give what it is to be like: --delay, --rate or --loss.")
    return _ask({"verb": "set", "place": [a, b], "changes": given, "for_ns": _ns(duration)}, folder)


@cli.command()
@click.argument("place", nargs=-1, metavar="A B|NODE")
@click.option("--all", "everywhere", is_flag=True, help="All that was changed by hand.")
@RUN
def restore(place: tuple[str, ...], everywhere: bool, folder: Path | None) -> int:
    """Let the link between nodes A and B of the live run, or NODE, be as the plan has it at this time."""
    if everywhere == bool(place) or len(place) > 2:
        raise click.UsageError("give the two nodes of a link, one node, or --all.")
    return _ask({"verb": "restore", "place": list(place)}, folder)


@cli.command()
@click.argument("a", metavar="A|NODE")
@click.argument("b", required=False)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="File to write, - for standard output. Default: A-B.pcapng or NODE.pcapng.",
)
@click.option("--filter", "words", default="", help="As for tcpdump; names of nodes stand for their IPv4 addresses.")
@click.option("--duration", type=Duration(), help="Emulated time to capture for. Default: until Ctrl-C.")
@click.option("--packets", type=click.IntRange(1), help="End after so many packets.")
@RUN
def capture(
    a: str,
    b: str | None,
    out: Path | None,
    words: str,
    duration: str | None,
    packets: int | None,
    folder: Path | None,
) -> int:
    """Capture packets of the link between nodes A and B of the live run, or of all links of NODE, as pcapng.

    Ends with Ctrl-C, or with the run, and then says how many there were.
    """
    place = [a] if b is None else [a, b]
    request = {"place": place, "filter": words, "packets": packets, "for_ns": _ns(duration)}
    out = out or Path(f"{'-'.join(place)}.pcapng")
    try:
        with click.open_file(str(out), "wb", lazy=True) as target:  # lazy: there is no file unless there is a capture
            return _capture(request, folder, target)
    except click.FileError as error:
        raise ScenarioError(
            f"--out: {out} cannot be written ({error.message}), but packets go there; name another file"
        ) from None


@cli.command()
def scenarios() -> None:
    """List the scenarios that come with isl-emu: their names serve wherever SCENARIO is asked for."""
    from isl_emu.api import load
    from isl_emu.scenario.parse import shipped_scenarios

    table = Table("scenario", "satellites", "what it is", box=None, pad_edge=False)
    for name, path in shipped_scenarios().items():
        scenario = load(path)
        table.add_row(name, f"{len(scenario.satellite_names):,}", scenario.description)
    Screen(width=None if sys.stdout.isatty() else TABLE_WIDTH).print(table)


@cli.command()
@click.argument("text", required=False)
def sites(text: str | None) -> None:
    """List the places that a station may name as its site, or those whose name or source holds TEXT."""
    from isl_emu.scenario.sites import site_catalogue

    table = Table("site", "latitude", "longitude", "height (m)", "population", "source", box=None, pad_edge=False)
    for site in site_catalogue().values():
        if (text or "").lower() in f"{site.name} {site.source}".lower():
            place = f"{site.latitude_deg:.4f}", f"{site.longitude_deg:.4f}", f"{site.height_m:g}"
            people = f"{site.population:,}" if site.population else "-"
            table.add_row(site.name, *place, people, site.source)
    Screen().print(table)


@cli.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print what SHELL has to read so that it completes commands, options, files and the names of shipped scenarios."""
    click.echo(completion_script(cli, shell))


@cli.command()
def doctor() -> int:
    """Explain what this machine can do, what is missing, and the command that would fix it."""
    from isl_emu.machine.doctor import conclusion, examine

    marks = {True: "[green]ok[/]", False: "[red]missing[/]", None: "[yellow]optional[/]"}
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in examine():
        table.add_row(
            marks[finding.ok],
            finding.subject,
            finding.detail + (f"\n[bold]fix:[/] {finding.fix}" if finding.fix else ""),
        )
    Screen().print(table)
    usable, sentence = conclusion()
    click.echo(f"\n{sentence}")
    return 0 if usable else 1


@cli.command()
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Also write the table here.")
@click.option("--measured", is_flag=True, help="Compare with what real satellites and terminals did, instead.")
@click.option(
    "--cases",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --measured: measurements and scenarios of yours, as docs/measured.md describes. Default: ours.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="With --measured: a folder with data that the cases name and that may not be shipped.",
)
def validate(json_file: Path | None, measured: bool, cases: Path | None, data: Path | None) -> int:
    """Recompute published results and closed forms, and print expected, got and tolerance of each."""
    from isl_emu.validate.measured import checks as measured_checks
    from isl_emu.validate.report import all_checks, conclusion, table, write_checks

    if (cases or data) and not measured:
        raise click.UsageError("--cases and --data are of comparisons with measurements; add --measured")
    checks = list(measured_checks(cases, data) if measured else all_checks())
    Screen(width=None if sys.stdout.isatty() else TABLE_WIDTH).print(table(checks))
    click.echo(f"\n{conclusion(checks)}")
    if json_file is not None:
        write_checks(checks, json_file)
    return 0 if all(check.passed for check in checks) else 1


@cli.command()
def clean() -> None:
    """Remove whatever runs that were killed have left in the kernel; nothing else is touched."""
    from isl_emu.recovery import clean_up

    removed = clean_up()
    click.echo("\n".join(removed) if removed else "nothing to clean")


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
def conclude(folder: Path) -> None:
    """Make results of what a killed run wrote down in FOLDER: tables, summary and verdict (it is invalid)."""
    from isl_emu.recovery import conclude_folder
    from isl_emu.results.render import styled

    Screen().print(styled(conclude_folder(folder).summary.read_text()), soft_wrap=True)


@cli.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write. Default: RUN/report.html.")
@click.option(
    "--figures",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write its pictures into this folder, for papers; the HTML file only if --out is given too.",
)
@click.option(
    "--format",
    "formats",
    multiple=True,
    default=("svg", "pdf", "png"),
    show_default=True,
    type=click.Choice(["svg", "pdf", "png"]),
    help="Of the pictures; can be given several times.",
)
def report(folder: Path, out: Path | None, figures: Path | None, formats: tuple[str, ...]) -> None:
    """Write the report of the run in folder RUN: one HTML file that opens without a network."""
    from isl_emu.results.run_results import RunResults

    results = RunResults(folder)
    if out is not None or figures is None:
        click.echo(f"wrote {results.report(out)}")
    if figures is not None:
        for path in results.figures(figures, formats):
            click.echo(f"wrote {path}")


SHOWN = click.argument("shown", metavar="[RUN|PLAN|SCENARIO]", type=click.Path(path_type=Path), required=False)


@cli.command()
@SHOWN
@RUN
@PORT
@NO_BROWSER
@TRUST
def view(shown: Path | None, folder: Path | None, port: int, no_browser: bool) -> None:
    """Serve a page that shows a run, a plan or a scenario; without any of them, your own live run.

    The page is for this machine alone, at an address with a secret in it. Other programs read the same data and events
    there: docs/stream.md.
    """
    from isl_emu.view.serve import open_page, serve

    def say(address: str) -> None:
        click.echo(f"view: {address}\n(Ctrl-C ends it)")
        if not no_browser:
            open_page(address)

    serve(_sky(shown, folder), port, say)


@cli.command()
@SHOWN
@RUN
@click.option("--once", is_flag=True, help="Print one page and end, as where the output is no terminal.")
@TRUST
def top(shown: Path | None, folder: Path | None, once: bool) -> None:
    """Show in the terminal how your live run stands, or how the run in folder RUN ended.

    Links, questions, servers, lateness, and faults; Ctrl-C ends it, and not the run.
    """
    from isl_emu.view.top import top as show_top

    show_top(_sky(shown, folder), once=once)


def _sky(shown: Path | None, folder: Path | None) -> Sky:
    """What is to be shown: that which is named, or the live run."""
    from isl_emu.live.control import find_live_run
    from isl_emu.view.opened import open_live, open_sky

    if shown is not None:
        if folder is not None:
            raise click.UsageError("--run is for a live run; leave it out, or RUN, PLAN or SCENARIO")
        return open_sky(shown, Steps(Screen(stderr=True)))
    run, live = find_live_run(folder)
    return open_live(live, buttons=run.is_ours)


@cli.command(hidden=True)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--cli", "interactive", is_flag=True)
@click.option("--quiet", is_flag=True)
@click.option("--part", type=click.IntRange(0), default=0)
@PAUSE_AT
@UNTIL
def execute(folder: Path, interactive: bool, quiet: bool, part: int, pause_at: str | None, until: str | None) -> int:
    """Carry out a prepared run folder on the kernel that this process runs on, which ends with it."""
    from isl_emu.live.execute import execute as execute_folder
    from isl_emu.machine.calendar_control import calendar_control

    calendar = calendar_control()
    steps = Steps(Screen(quiet=quiet), time.monotonic if calendar is None else calendar.wall_s)
    wishes = _wishes(interactive, pause_at, until)
    run = RunFolder(folder, part)
    with run.written_or_told():
        return execute_folder(run, wishes, steps, kernel_ends=True)


def _loaded(scenario: Path | Scenario) -> Scenario:
    from isl_emu.api import load

    return load(scenario) if isinstance(scenario, Path) else scenario


def _sweep(folder: Path, trust: Trust, parallel: int | None, cluster: str | None, steps: Steps) -> int:
    """Run what a sweep or a search lacks, and say what came of it."""
    from isl_emu.sweeps.search import SEARCH, run_search
    from isl_emu.sweeps.sweep import Sweep, run_sweep

    if (folder / SEARCH).is_file():
        found = run_search(folder, steps, trust.words(), parallel, cluster)
        click.echo(found.text, err=found.best is None)
        return 1 if found.best is None else 0
    outcome = run_sweep(Sweep(folder), steps, trust.words(), parallel, cluster)
    click.echo(outcome.text)
    return 1 if outcome.failed else 0 if not outcome.invalid else INVALID


def _nothing(_: object) -> None:
    """Nothing is to be done with it."""


def _wishes(
    interactive: bool, pause_at: str | None, until: str | None, pace: float | None = None, trust: Trust = USUAL_TRUST
) -> Wishes:
    return Wishes(interactive, _ns(pause_at), _ns(until), pace, trust)


def _ns(duration: str | None) -> int | None:
    return None if duration is None else parse_quantity(duration, DURATION_NS)


def _ask(request: dict[str, Any], folder: Path | None, reads: bool = False) -> int:
    """Pass a request on to the live run, with our input if it reads it, and its answer to the terminal."""
    from isl_emu.live.control import ask, find_live_run

    def write(said: bytes) -> None:
        sys.stdout.buffer.write(said)
        sys.stdout.flush()

    def read(size_byte: int) -> bytes:
        return os.read(STDIN, size_byte)

    found = find_live_run(folder)
    return ask(*found, {**request, "stdin": reads}, write, _write_error, read if reads else None)


def _capture(request: dict[str, Any], folder: Path | None, target: IO[bytes]) -> int:
    """Ask the live run for a capture, and write it as it comes."""
    from isl_emu.live.control import ask, find_live_run

    def write(said: bytes) -> None:
        target.write(said)
        target.flush()

    return ask(*find_live_run(folder), {"verb": "capture", **request}, write, _write_error, patient=True)


def _write_error(said: bytes) -> None:
    sys.stderr.buffer.write(said)
    sys.stderr.flush()


def _may_read_input() -> bool:
    """Whether there is an input, and we are not in the background of its terminal, which would stop us."""
    try:
        return not os.isatty(STDIN) or os.tcgetpgrp(STDIN) == os.getpgrp()
    except OSError:
        return False


def _changes(
    duration: str | None, seed: int | None = None, model: str | None = None, slowdown: float | None = None
) -> dict[str, Any]:
    """The options as changes to the scenario's top-level fields."""
    changes: dict[str, Any] = {}
    time = {"duration": duration, "slowdown": slowdown}
    if given := {key: value for key, value in time.items() if value is not None}:
        changes["time"] = given
    if seed is not None:
        changes["seed"] = seed
    if model is not None:
        changes["model"] = str(Path(model).resolve())
    return changes


def _set(settings: tuple[str, ...]) -> dict[str, Any]:
    """What `--set` says, as changes to the scenario."""
    from isl_emu.scenario.settings import read_setting

    changes = {}
    for text in settings:
        key, values = read_setting(text)
        if len(values) > 1:
            raise ScenarioError(f"--set: {key} has {len(values)} values, but this is one run; see `isl-emu sweep`")
        changes[key] = values[0]
    return changes


def _delay_sentence(a: str, b: str, delay_ns: Any) -> str:
    """The least, mean and largest one-way delay between two nodes, and how often there is a path."""
    found_ms = delay_ns.compressed() / 1e6
    if not len(found_ms):
        return f"{a} to {b}: never reachable"
    share = len(found_ms) / len(delay_ns)
    figures = f"{found_ms.min():.3f} to {found_ms.max():.3f} ms one way, {found_ms.mean():.3f} ms on average"
    return f"{a} to {b}: {figures}, reachable {share:.1%} of the time"


def _print_warnings(warnings: Iterable[str]) -> None:
    """On standard error, so that what a command prints can still be piped."""
    for warning in warnings:
        click.secho(f"Warning: {visible(warning)}", fg="yellow", err=True)


def main() -> NoReturn:
    """Entry point of the `isl-emu` command."""
    sys.path.append(str(Path.cwd()))  # a scenario may name a user's own functions
    try:
        status = _status()
    except (BrokenPipeError, SystemExit):  # whoever read our output has gone; click makes the latter of the former
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = SIGNALLED + signal.SIGPIPE
    sys.exit(status)


def _status() -> int:
    """The exit status of the command; what went wrong is said."""
    try:
        return cli.main(standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:
        if DEBUG in os.environ:
            raise
        _complain(error)
        return FAILED


def _complain(error: Exception) -> None:
    """Say what went wrong: an error of ours in its own words, any other as what it is."""
    sentences = str(error).split("\n")
    if not isinstance(error, IslEmuError):
        what = f"{type(error).__name__} ({error})"
        sentences = [
            f"isl-emu: it stopped at {visible(what)}, which it did not expect; run it again as isl-emu --debug ..."
        ]
    for sentence in sentences:
        click.secho(f"Error: {sentence}", fg="red", err=True)
