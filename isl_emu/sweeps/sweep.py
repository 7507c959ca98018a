"""A sweep: one scenario, run with each combination of some values of its keys and of some seeds, into one table.

Each run is a command of its own and has a folder of its own in the sweep's. It is known by the digest of its scenario,
so a sweep that was cut off goes on where it was: what came to its end is kept, all else is run again, which in exact
time gives the same to the bit.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import t as student_t

from isl_emu.cluster.connect import connect
from isl_emu.errors import MachineError, ScenarioError
from isl_emu.experiment import CLOCKS, MACHINES, place_for
from isl_emu.files import read_json, read_whole, write_json, write_whole
from isl_emu.live.room import all_needs, guest_memory_byte
from isl_emu.machine.claims import available_memory_byte
from isl_emu.progress import Report, Screen, Steps
from isl_emu.recovery import is_alive
from isl_emu.results.run_results import RunResults
from isl_emu.runs.folder import RunFolder, not_plain
from isl_emu.runs.process import last_line, start_module
from isl_emu.runs.wishes import Wishes
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.parse import format_scenario, load_scenario, with_changes
from isl_emu.scenario.settings import read_value, write_value
from isl_emu.sweeps.farm import check_seats, room_below, run_all, seats_of
from isl_emu.sweeps.worker import LOG, RESULTS, SCENARIO
from isl_emu.tables.schema import COUNT, REAL, TEXT, column
from isl_emu.tables.text import counted, table, three_digits, time_text

MANIFEST, BASE, TABLE, RUNS = "sweep.json", "scenario.toml", "sweep.parquet", "runs"
REPEATS = "repeats.parquet"
CONFIDENCE = 0.95
SHOWN = ("serving.ttft_ns.p50", "serving.ttft_ns.p99", "serving.e2e_ns.p99", "serving.rates.goodput_per_s")
OPTIONS = {"--machine": MACHINES, "--clock": CLOCKS}  # of its runs, that a sweep's folder keeps
MOST_RUNS = 10_000
NAME_LENGTH = 100
LOOK_INTERVAL_S = 0.2
ENDING_S = 120.0  # for runs to write their results when a sweep is interrupted
UNITS = {"_ns": "ns", "_ratio": "ratio", "_byte": "byte", "_bit_s": "bit/s", "_s": "s"}


@dataclass(frozen=True, eq=False)
class Cell:
    """One run of a sweep.

    Args:
        name: of its folder.
        settings: what is set, by the path of its key; the seed among them.
        scenario: with these values.
    """

    name: str
    settings: Mapping[str, Any]
    scenario: Scenario


class Sweep:
    """The folder of a sweep, for Python: its runs, and their tables together.

    Args:
        path: the folder.

    Raises:
        ScenarioError: it holds no sweep, or one of another scenario.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path).absolute()
        manifest = read_json(self.path / MANIFEST) if (self.path / MANIFEST).is_file() else None
        if manifest is None:
            raise ScenarioError(
                f"{path}: holds no sweep, but its runs are asked for; name the folder that `isl-emu sweep --out` named"
            )
        self.words = _options(manifest.get("words"), self.path / MANIFEST)
        try:
            self.settings = {key: [read_value(text) for text in texts] for key, texts in manifest["settings"].items()}
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise ScenarioError(
                f"{self.path / MANIFEST}: is damaged ({error!r:.80}), but it says what the runs of a sweep differ in; "
                "begin the sweep anew in another folder"
            ) from None
        self.cells = cells_of(load_scenario(self.path / BASE), self.settings)

    def __repr__(self) -> str:
        return f"<Sweep {self.path}: {len(self.finished)} of {counted(len(self.cells), 'run')}>"

    def check_plain(self) -> None:
        """Raise a ScenarioError if anything but files and folders lies where a sweep is written.

        A link would lead what is written there elsewhere.
        """
        for folder in (self.path, self.path / RUNS):
            for entry in os.scandir(folder) if folder.is_dir() else ():
                if not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)):
                    raise not_plain(Path(entry.path))

    def folder(self, cell: Cell) -> Path:
        """The results of a run."""
        return self.path / RUNS / cell.name

    @property
    def finished(self) -> list[tuple[Cell, RunResults]]:
        """The runs that came to their end, valid or not."""
        return [(cell, RunResults(self.folder(cell))) for cell in self.cells if is_finished(self.folder(cell), cell)]

    def table(self, name: str) -> pa.Table:
        """One of the tables of all finished runs, one below another, with what was set in each as first columns.

        Raises:
            ScenarioError: no run has this table, or one is damaged.
        """
        parts = [(cell, run.table(name)) for cell, run in self.finished if name in run.tables]
        if not parts:
            raise ScenarioError(f"table: is {name!r}, but no finished run of {self.path} has it; see their folders")
        keys = {key: _kind_of([cell.settings[key] for cell, _ in parts]) for key in self.settings}
        tables = []
        for cell, rows in parts:
            set_here = [
                pa.array([convert(cell.settings[key])] * len(rows), kind) for key, (kind, convert) in keys.items()
            ]
            fields = [column(key, kind, "", "what the sweep set") for key, (kind, _) in keys.items()]
            own = pa.schema([*fields, *rows.schema], metadata=rows.schema.metadata)
            tables.append(pa.Table.from_arrays([*set_here, *rows.columns], schema=own))
        return pa.concat_tables(tables, promote_options="default")

    def write_table(self) -> pa.Table:
        """One row for each run that came to its end: what was set, its verdict, and all figures of its JSON files."""
        found = [(cell, run, figures_of(run)) for cell, run in self.finished]
        names = dict.fromkeys(name for *_, figures in found for name in figures)
        fields = [column("run", TEXT, "", "its folder below runs")]
        columns: list[Any] = [[cell.name for cell, *_ in found]]
        for key in self.settings:
            kind, convert = _kind_of([cell.settings[key] for cell, *_ in found])
            fields.append(column(key, kind, "", "what the sweep set"))
            columns.append([convert(cell.settings[key]) for cell, *_ in found])
        fields.append(column("verdict", TEXT, "", "valid, intervened or invalid"))
        columns.append([run.fidelity.get("verdict") for _, run, _ in found])
        fields.append(column("clock", TEXT, "", "exact or real"))
        columns.append([run.fidelity.get("clock") for _, run, _ in found])
        for name in names:
            unit = next((unit for end, unit in UNITS.items() if re.search(rf"{end}(\.|$)", name)), "")
            fields.append(column(name, REAL, unit, f"from {name.partition('.')[0]}.json of the run"))
            columns.append([figures.get(name) for *_, figures in found])
        arrays = [pa.array(values, field.type) for values, field in zip(columns, fields, strict=True)]
        written = pa.Table.from_arrays(arrays, schema=pa.schema(fields))
        pq.write_table(written, self.path / TABLE, compression="zstd")
        if "seed" in self.settings:
            pq.write_table(self.repeats(written), self.path / REPEATS, compression="zstd")
        return written

    def repeats(self, runs: pa.Table) -> pa.Table:
        """The mean of each figure over runs that differ in nothing but their seed, and its confidence interval.

        The interval is Student's, which takes the figures of repetitions as normally distributed; there is none of a
        single run. Runs that cannot be trusted are left out. A row for each combination of values and figure.

        Args:
            runs: as `write_table` gives it.
        """
        keys = [key for key in self.settings if key != "seed"]
        figures = [field for field in runs.schema if field.name not in {"run", "verdict", "clock", *self.settings}]
        points: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for row in runs.to_pylist():
            if row["verdict"] != "invalid":
                points.setdefault(tuple(row[key] for key in keys), []).append(row)
        rows = []
        for point, repeated in points.items():
            for field in figures:
                unit = (field.metadata or {}).get(b"unit", b"").decode()
                values = [row[field.name] for row in repeated if row[field.name] is not None]
                if values:
                    where = {**dict(zip(keys, point, strict=True)), "figure": field.name, "unit": unit}
                    rows.append({**where, **_mean(values)})
        own = [
            *(runs.schema.field(key) for key in keys),
            column("figure", TEXT, "", "a number of the runs' JSON files, by its place in them"),
            column("unit", TEXT, "", "of mean, deviation, low and high"),
            column("runs", COUNT, "runs", "repetitions that have it"),
            column("mean", REAL, "", "of the repetitions"),
            column("deviation", REAL, "", "their standard deviation, by one less than their number; null of one run"),
            column(
                "low", REAL, "", "lower end of the 95 % confidence interval of the mean, Student's; null of one run"
            ),
            column("high", REAL, "", "upper end of it; null of one run"),
        ]
        return pa.Table.from_pylist(rows, schema=pa.schema(own))


@dataclass(frozen=True)
class SweepOutcome:
    """What became of a sweep: its runs by how they ended.

    Args:
        failed: those that did not come to their end, each with the reason.
        kept: how many were there already.
    """

    sweep: Sweep
    failed: Mapping[str, str]
    kept: int

    @property
    def invalid(self) -> int:
        """How many came to their end, but cannot be trusted."""
        return sum(not run.valid for _, run in self.sweep.finished)

    @property
    def text(self) -> str:
        """What there is now, for readers."""
        finished = len(self.sweep.finished)
        kept = f", {self.kept} of them from before" if self.kept else ""
        lines = [f"{self.sweep.path / TABLE}: {finished} of {counted(len(self.sweep.cells), 'run')}{kept}"]
        if self.invalid:
            lines.append(f"{self.invalid} of them cannot be trusted: see `verdict` in the table")
        lines += [f"failed: {name}: {reason}" for name, reason in self.failed.items()]
        return "\n".join([*lines, *self._repeats()])

    def _repeats(self) -> Iterator[str]:
        """The main figures of repetitions; nothing where no run has been repeated."""
        if not (self.sweep.path / REPEATS).is_file():
            return
        keys = [key for key in self.sweep.settings if key != "seed"]
        rows = []
        for row in pq.ParquetFile(self.sweep.path / REPEATS).read().to_pylist():
            if row["figure"] in SHOWN and row["low"] is not None:
                show = time_text if row["unit"] == "ns" else three_digits
                interval = f"[{show(row['low'])}, {show(row['high'])}]"
                point = " ".join(f"{key}={row[key]}" for key in keys)
                rows.append((point, row["figure"], str(row["runs"]), show(row["mean"]), interval))
        if rows:
            yield from table(("", "figure", "runs", "mean", "95 % interval"), rows, left=2)
            yield "the mean of repetitions with its interval by Student's t; all figures are in repeats.parquet"


def _mean(values: Sequence[float]) -> dict[str, Any]:
    """The mean of repetitions, their deviation, and the ends of the mean's interval."""
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return {"runs": count, "mean": mean, "deviation": None, "low": None, "high": None}
    deviation = float(np.std(values, ddof=1))
    half = float(student_t.ppf((1 + CONFIDENCE) / 2, count - 1)) * deviation / count**0.5
    return {"runs": count, "mean": mean, "deviation": deviation, "low": mean - half, "high": mean + half}


def _options(words: object, where: Path) -> list[str]:
    """The options of a sweep's runs, as its folder has them: where and by which clock they run, and nothing else.

    Raises:
        ScenarioError: there are others.
    """
    found = words if isinstance(words, list) else [words]
    known = {(name, value) for name, values in OPTIONS.items() for value in values}
    if len(found) % 2 or not known.issuperset(zip(map(str, found[::2]), map(str, found[1::2]), strict=True)):
        raise ScenarioError(
            f"{where}: has the options {found!r:.80} for its runs, but a folder says no more of them than --machine "
            "and --clock; correct it, and trust nothing else in this folder"
        )
    return list(map(str, found))


def cells_of(scenario: Scenario, settings: Mapping[str, Sequence[Any]]) -> list[Cell]:
    """The runs of a sweep: each combination of the values, the last key's changing fastest.

    Args:
        settings: the values of each key, by its path; `seed` is one as well.

    Raises:
        ScenarioError: a key that is none, a value that breaks a rule, or more runs than anybody makes.
    """
    runs = 1
    for key, values in settings.items():
        runs *= len(values)
        if not values or len({repr(value) for value in values}) < len(values):
            raise ScenarioError(f"--set: {key} has {list(values)!r}, but different values are needed; write each once")
    if runs > MOST_RUNS:
        raise ScenarioError(f"sweep: has {runs:,} runs, but at most {MOST_RUNS:,} are made; leave out some values")
    cells = []
    for number, values in enumerate(itertools.product(*settings.values())):
        chosen = dict(zip(settings, values, strict=True))
        words = "_".join(f"{key.rpartition('.')[2]}={value}" for key, value in chosen.items())
        name = f"{number:04d}_{re.sub(r'[^A-Za-z0-9=.+_-]+', '-', words)}"[:NAME_LENGTH]
        cells.append(Cell(name, chosen, with_changes(scenario, **chosen)))
    return cells


def sweep(
    scenario: Scenario | str | os.PathLike[str],
    settings: Mapping[str, Sequence[Any]],
    *,
    out: str | os.PathLike[str] | None = None,
    parallel: int | None = None,
    machine: str = "auto",
    clock: str | None = None,
    cluster: str | None = None,
    progress: bool = False,
) -> Sweep:
    """Run a scenario with each combination of values; as `isl-emu sweep`, from Python.

    Args:
        scenario: from `load`, or the path of one.
        settings: the values of each key, by its path: ``{"questions.mean_interval": ["1 s", "2 s"], "seed": [1, 2]}``.
        out: folder, new or empty; or that of the same sweep, which then goes on with what it lacks.
        parallel: how many runs at once; by default in exact time one for each CPU.
        machine, clock: as of `run`.
        cluster: a Dask cluster whose workers make the runs: its scheduler's address or file, or ``local:N``.
        progress: show on standard output what the command shows.

    Raises:
        ScenarioError: a key or value that cannot be, or a folder that holds something else.
        MachineError: some runs did not come to their end; the others are in the folder.
    """
    loaded = scenario if isinstance(scenario, Scenario) else load_scenario(Path(scenario))
    words = ["--machine", machine, *(["--clock", clock] if clock else [])]
    steps, folder = Steps(Screen(quiet=not progress)), None if out is None else Path(out)
    if folder is not None and (folder / MANIFEST).is_file():
        begun = Sweep(folder)
        if [format_scenario(cell.scenario) for cell in begun.cells] != [
            format_scenario(cell.scenario) for cell in cells_of(loaded, settings)
        ]:
            raise ScenarioError(f"out: {folder} holds another sweep, but runs are never mixed; name a new folder")
    else:
        begun = begin_sweep(loaded, settings, folder, words)
    outcome = run_sweep(begun, steps, parallel=parallel, cluster=cluster)
    if outcome.failed:
        raise MachineError(*(f"{name}: {reason}" for name, reason in outcome.failed.items()))
    return begun


def begin_sweep(
    scenario: Scenario, settings: Mapping[str, Sequence[Any]], out: Path | None, words: Sequence[str]
) -> Sweep:
    """Make the folder of a sweep, with all that is needed to go on with it; nothing has run yet.

    Args:
        out: new or empty; results/NAME-sweep-TIME by default.
        words: the options of `isl-emu run` for each of its runs, but for those that say what it may do.

    Raises:
        ScenarioError: as of `cells_of`, or the folder is not empty.
    """
    cells_of(scenario, settings)
    folder = RunFolder.create(out, f"{scenario.name}-sweep")
    folder.journal.rmdir()
    write_whole(folder.path / BASE, format_scenario(scenario))
    texts = {key: [write_value(value) for value in values] for key, values in settings.items()}
    write_json(folder.path / MANIFEST, {"settings": texts, "words": list(words)})
    return Sweep(folder.path)


def run_sweep(
    sweep: Sweep, steps: Steps, trust: Sequence[str] = (), parallel: int | None = None, cluster: str | None = None
) -> SweepOutcome:
    """Run what is not finished yet, and write the table.

    Args:
        trust: options of `isl-emu run` that say what the scenario may do: a folder cannot allow that.
        parallel: how many runs at once; by default one for each CPU in exact time, as far as memory allows, else one;
            on a cluster one for each thread of its workers.
        cluster: whose workers make the runs, as `isl_emu.cluster.connect.connect` takes it; None for this machine.

    Raises:
        IslEmuError: the kernel for exact time is wanted, but cannot be built, or the cluster cannot be used or is lost.
    """
    sweep.check_plain()
    words = sweep.words
    waiting = [cell for cell in sweep.cells if not is_finished(sweep.folder(cell), cell)]
    failed: dict[str, str] = {}
    kept = len(sweep.cells) - len(waiting)
    try:
        if waiting and cluster is not None:
            failed = _run_on_cluster(sweep, waiting, trust, cluster, parallel, steps)
        elif waiting:
            count = min(parallel or _parallel(waiting[0].scenario, words, steps), len(waiting))
            text = f"running {counted(len(waiting), 'run')}, {count} at once"
            with (
                steps.step(text) as report,
                closing(_finished_one_by_one(sweep, waiting, [*words, *trust], count, report)) as ended,
            ):
                failed = {cell.name: reason for cell, reason in ended if reason is not None}
    finally:  # once, also of what there is when it is interrupted: each run's files are read for it
        sweep.write_table()
    return SweepOutcome(sweep, failed, kept)


def _run_on_cluster(
    sweep: Sweep, cells: Sequence[Cell], trust: Sequence[str], cluster: str, most: int | None, steps: Steps
) -> dict[str, str]:
    """Run on the workers of a cluster; return the runs that did not come to their end, with the reasons."""
    scenarios = {cell.name: format_scenario(cell.scenario) for cell in cells}
    failed: dict[str, str] = {}
    with connect(cluster, steps.note) as client:
        with steps.step("asking the workers what they have; one without the guest kernel builds it"):
            seats = seats_of(client, scenarios[cells[0].name], sweep.words, "--trust" in trust)
            check_seats(seats, client.nthreads())
        steps.note(f"dashboard: {client.dashboard_link}")
        for cell in cells:
            _set_aside(sweep.folder(cell))
        text = f"running {counted(len(cells), 'run')} on {counted(len(client.nthreads()), 'worker')}"
        with (
            steps.step(text) as report,
            room_below(sweep.path) as room,
            closing(run_all(client, scenarios, [*sweep.words, *trust], room, most, report)) as ended,
        ):
            by_name = {cell.name: cell for cell in cells}
            for name, told, files in ended:
                reason = told if files is None else _taken_up(sweep, by_name[name], files, told)
                failed |= {} if reason is None else {name: reason}
    return failed


def _taken_up(sweep: Sweep, cell: Cell, files: Path, worker: str) -> str | None:
    """Put what a worker has made where a run of this machine puts it, and say why it did not come to its end."""
    folder = sweep.folder(cell)
    folder.parent.mkdir(exist_ok=True)
    for name, place in ((SCENARIO, ".toml"), (LOG, ".log"), (RESULTS, "")):  # the results last: then it is finished
        if (files / name).exists():
            (files / name).replace(folder.with_name(f"{folder.name}{place}"))
    if folder.is_dir():
        folder.chmod(0o700)
    reason = _why_unfinished(folder, cell, folder.with_name(f"{folder.name}.log"))
    return reason and f"{reason} (on the worker {worker})"


def _why_unfinished(folder: Path, cell: Cell, log: Path) -> str | None:
    """Why a run did not come to its end; None if it did."""
    if is_finished(folder, cell):
        return None
    return "; ".join((read_json(folder / "fidelity.json") or {}).get("reasons") or [last_line(log)])


def _finished_one_by_one(
    sweep: Sweep, cells: Sequence[Cell], words: Sequence[str], count: int, report: Report
) -> Generator[tuple[Cell, str | None], None, None]:
    """Run so many at once, and give each as it ends, with the reason if it did not come to its end."""
    waiting, live, done = list(cells), dict[Cell, tuple[subprocess.Popen[bytes], Path]](), 0
    with ExitStack() as undo:
        undo.callback(_end, live)
        while waiting or live:
            while waiting and len(live) < count:
                cell = waiting.pop(0)
                folder = sweep.folder(cell)
                _set_aside(folder)
                scenario, log = (folder.with_name(f"{folder.name}.{kind}") for kind in ("toml", "log"))
                folder.parent.mkdir(exist_ok=True)
                write_whole(scenario, format_scenario(cell.scenario))
                command = ["isl_emu", "run", str(scenario), "--out", str(folder), *words]
                with log.open("wb") as output:
                    live[cell] = start_module(command, stdout=output, stderr=subprocess.STDOUT), log
            report(done / len(cells), f"{done} of {len(cells)} done, now {', '.join(cell.name for cell in live)}")
            for cell, (process, log) in list(live.items()):
                if process.poll() is not None:
                    del live[cell]
                    done += 1
                    yield cell, _why_unfinished(sweep.folder(cell), cell, log)
            time.sleep(LOOK_INTERVAL_S)


def _end(live: Mapping[Cell, tuple[subprocess.Popen[bytes], Path]]) -> None:
    """Let the live runs end in order."""
    for process, _ in live.values():
        process.terminate()
    until_s = time.monotonic() + ENDING_S
    for process, _ in live.values():
        try:
            process.wait(max(0.0, until_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def is_finished(folder: Path, cell: Cell) -> bool:
    """Whether a folder holds the results of this very run, which came to its end."""
    record, run = read_json(folder / "provenance.json"), RunFolder(folder)
    if record is None or not run.fidelity.is_file() or not run.scenario.is_file():
        return False
    ended = (record.get("execution") or {}).get("ended_ns") is not None and not record["execution"].get("error")
    return bool(ended and read_whole(run.scenario) == format_scenario(cell.scenario).encode())


def _set_aside(folder: Path) -> None:
    """Give a run that did not come to its end another name: what it left may be looked at, but is not mixed.

    Raises:
        ScenarioError: it is still alive.
    """
    if is_alive(RunFolder(folder)):
        raise ScenarioError(
            f"{folder}: its run is still alive, but only one that was cut off is repeated; wait for it, "
            "or end it with `isl-emu stop`"
        )
    if folder.exists():
        number = next(n for n in itertools.count(1) if not folder.with_name(f"{folder.name}.cut-off-{n}").exists())
        folder.rename(folder.with_name(f"{folder.name}.cut-off-{number}"))


def repeat(folder: Path, steps: Steps) -> tuple[Path, str] | None:
    """Set aside a run that was cut off, to be run again in the folder of its name: the plan that it had.

    Returns:
        The plan, in the folder that was set aside, and the clock; None if it came to its end: there is nothing to do.

    Raises:
        ScenarioError: it is no folder of a run.
    """
    run = RunFolder(folder.absolute())
    record = read_json(run.provenance)
    if record is None or not run.plan.is_file():
        raise ScenarioError(
            f"{folder}: holds neither a run nor a sweep, but one is resumed; name the folder that `--out` named"
        )
    told = record.get("execution")
    execution = told if isinstance(told, dict) else {}
    if execution.get("ended_ns") is not None and not execution.get("error") and run.fidelity.is_file():
        steps.note(f"{folder}: came to its end already; nothing to do")
        return None
    before = sorted(folder.parent.glob(f"{folder.name}.cut-off-*"))
    _set_aside(run.path)
    (aside,) = set(folder.parent.glob(f"{folder.name}.cut-off-*")) - set(before)
    place = record.get("place")
    clock = place.get("clock") if isinstance(place, dict) else None
    clock = clock if clock in CLOCKS else "auto"
    same = "gives the same to the bit" if clock == "exact" else "gives other figures"
    again = f"which in {clock} time {same}"
    steps.note(f"{folder}: was cut off; it is run again from its beginning, {again}; what it left is in {aside.name}")
    return aside / run.plan.name, clock


def _parallel(scenario: Scenario, words: Sequence[str], steps: Steps) -> int:
    """How many runs at once do not disturb each other, and have the memory that they need."""
    options = dict(zip(words[::2], words[1::2], strict=True))
    place = place_for(scenario, options.get("--machine", "auto"), options.get("--clock"), Wishes(), steps)
    if place.clock != "exact":
        return 1
    room = available_memory_byte() // max(guest_memory_byte(scenario, all_needs(scenario)), 1)
    return max(1, min(len(os.sched_getaffinity(0)), room))


def figures_of(run: RunResults) -> dict[str, float]:
    """All numbers in the JSON files of a run, by their place in them: ``serving.ttft_ns.p50``."""
    figures: dict[str, float] = {}

    def walk(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{name}.{key}", inner)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            figures[name] = float(value)

    for path in sorted(run.path.glob("*.json")):
        if path.name != "provenance.json":
            walk(path.stem, read_json(path) or {})
    return figures


def _kind_of(values: Sequence[Any]) -> tuple[pa.DataType, Any]:
    """The Arrow type that holds all values of a key, and how one is converted to it."""
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return pa.int64(), int
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return REAL, float
    return TEXT, lambda value: value if isinstance(value, str) else write_value(value)
