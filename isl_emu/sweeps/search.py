"""The largest load within service levels: a value of the scenario is bisected, each probe with runs of a sweep.

The folder is that of a sweep whose values come one by one, so a search that was cut off goes on from the runs that it
has. Bisection takes for granted that less load is never worse; what contradicts this among the probes is told.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from isl_emu.errors import MachineError, ScenarioError
from isl_emu.files import read_json, write_json
from isl_emu.progress import Steps
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.settings import write_value
from isl_emu.sweeps.sweep import MANIFEST, Sweep, begin_sweep, run_sweep
from isl_emu.tables.schema import COUNT, FLAG, REAL, column
from isl_emu.tables.text import counted, time_text
from isl_emu.units import DURATION_NS, NS_PER_S, format_quantity, parse_quantity

SEARCH, TABLE, PICTURE = "search.json", "search.parquet", "search.png"  # in the sweep's folder
TOLERANCE = 0.05
DIGITS = 4  # of a probed value
MOST_PROBES = 64
_LEVEL = re.compile(r"(?P<figure>ttft|tpot|e2e)_p(?P<percent>\d{1,2}(?:\.\d{1,3})?) *<= *(?P<limit>.+)")
_RANGE = re.compile(r"(?P<key>[^=]+)=(?P<low>[0-9.eE+-]+?)\.\.(?P<high>[0-9.eE+-]+)")


@dataclass(frozen=True)
class Level:
    """A service level: a percentile of a latency that must not be above a limit."""

    figure: str
    percent: float
    limit_ns: int

    @classmethod
    def parse(cls, text: str) -> Level:
        """From text such as ``ttft_p95 <= 2 s``.

        Raises:
            ScenarioError: it is none.
        """
        if (match := _LEVEL.fullmatch(text.strip())) is not None and float(match["percent"]) > 0:
            try:
                limit_ns = parse_quantity(match["limit"].strip(), DURATION_NS)
            except ValueError:
                limit_ns = 0
            if limit_ns > 0:
                return cls(match["figure"], float(match["percent"]), round(limit_ns))
        raise ScenarioError(
            f"--slo: is {text!r}, but a percentile of ttft, tpot or e2e and its limit are needed; write for example "
            '--slo "ttft_p95 <= 2 s"'
        )

    @property
    def name(self) -> str:
        """Of its figure."""
        return f"{self.figure}_p{self.percent:g}"

    def __str__(self) -> str:
        return f"{self.name} <= {format_quantity(self.limit_ns, DURATION_NS)}"

    def of(self, requests: Sequence[dict[str, Any]]) -> float:
        """The percentile, ns, by nearest rank; whoever got no answer waits for ever. Infinite without any request."""
        times = sorted(one for row in requests if (one := latency_ns(row, self.figure)) is not None)
        return times[math.ceil(self.percent / 100 * len(times)) - 1] if times else math.inf

    def kept(self, request: dict[str, Any]) -> bool:
        """Whether one request is within the limit."""
        return (latency_ns(request, self.figure) or 0) <= self.limit_ns


def latency_ns(request: dict[str, Any], figure: str) -> float | None:
    """A latency of a request: infinite without a whole answer; None if the answer has none, as TPOT of one token."""
    if request["outcome"] != "completed":
        return math.inf
    value: int | None = request[f"{figure}_ns"]
    return value


def parse_range(text: str) -> tuple[str, float, float]:
    """The key, the least and the largest value of ``KEY=LOW..HIGH``; whole numbers stay such.

    Raises:
        ScenarioError: it is none.
    """
    try:
        match = _RANGE.fullmatch(text.strip())
        assert match is not None
        whole = match["low"].isdecimal() and match["high"].isdecimal()
        low, high = (int(match[end]) if whole else float(match[end]) for end in ("low", "high"))
        assert 0 < low < high < math.inf
    except (AssertionError, ValueError):
        raise ScenarioError(
            f"--search: is {text!r}, but a key and two rising numbers above 0 are needed; write for example "
            "--search questions.rate=0.1..10"
        ) from None
    return match["key"].strip(), low, high


def bisect(
    keeps: Callable[[float], bool], low: float, high: float, tolerance: float
) -> tuple[float | None, float | None]:
    """The largest value found that keeps the levels, and the least above it that does not.

    Values are halved by ratio. Whole numbers stay such.

    Args:
        keeps: tries one.
        tolerance: until the two differ by no more than this share, or, of whole numbers, by 1.

    Returns:
        None for the first if `low` misses them already; None for the second if `high` keeps them.
    """
    if not keeps(low):
        return None, low
    if keeps(high):
        return high, None
    while (middle := between(low, high, tolerance)) is not None:
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return low, high


def between(low: float, high: float, tolerance: float) -> float | None:
    """The value to try next; None where there is nothing more to learn."""
    if high <= low * (1 + tolerance):
        return None
    if isinstance(low, int) and isinstance(high, int):
        return None if high - low < 2 else min(max(round(math.sqrt(low * high)), low + 1), high - 1)
    middle = float(f"{math.sqrt(low * high):.{DIGITS}g}")
    return middle if low < middle < high else None


@dataclass(frozen=True)
class Probe:
    """What came of one value: all requests of its runs together, so of all its seeds.

    Args:
        figures: the percentile of each level, ns, in their order; infinite where too many had no answer.
        runs: how many; `runs_keeping` of them keep all levels by themselves.
        good: requests within all limits, and `goodput_per_s` of them.
    """

    value: float
    figures: tuple[float, ...]
    keeps: bool
    runs: int
    runs_keeping: int
    requests: int
    unanswered: int
    good: int
    goodput_per_s: float | None

    @classmethod
    def of(
        cls, value: float, levels: Sequence[Level], runs: Sequence[Sequence[dict[str, Any]]], windows_ns: Sequence[int]
    ) -> Probe:
        """That of the requests of some runs after their warm-up.

        Args:
            windows_ns: from the first question to the last answer of each run with an answer.
        """
        every = [row for rows in runs for row in rows]
        figures = tuple(level.of(every) for level in levels)
        good = sum(all(level.kept(row) for level in levels) for row in every)
        return cls(
            value=value,
            figures=figures,
            keeps=_all_kept(levels, every),
            runs=len(runs),
            runs_keeping=sum(_all_kept(levels, rows) for rows in runs),
            requests=len(every),
            unanswered=sum(row["outcome"] != "completed" for row in every),
            good=good,
            goodput_per_s=good * NS_PER_S / sum(windows_ns) if sum(windows_ns) else None,
        )


def _all_kept(levels: Sequence[Level], requests: Sequence[dict[str, Any]]) -> bool:
    return all(level.of(requests) <= level.limit_ns for level in levels)


@dataclass(frozen=True)
class Found:
    """What a search found.

    Args:
        best: the largest value found that keeps the levels; `beyond`: the least above it that does not.
        probes: all that was tried, in this order.
    """

    key: str
    levels: tuple[Level, ...]
    best: float | None
    beyond: float | None
    probes: tuple[Probe, ...]

    @property
    def text(self) -> str:
        """For readers."""
        kept = " and ".join(map(str, self.levels))
        if self.best is None:
            told = zip(self.levels, self.probes[0].figures, strict=True)
            found = " and ".join(f"{level.name} is {_time(figure)}" for level, figure in told)
            first = f"{self.key}: even {self.beyond:g}, the least, does not keep {kept} ({found}); search lower"
        elif self.beyond is None:
            first = f"{self.key}: {self.best:g}, the largest, still keeps {kept}; search higher"
        else:
            first = f"{self.key}: {self.best:g} is the largest found that keeps {kept}; {self.beyond:g} does not"
        tried = f"{counted(len(self.probes), 'value')} tried, as if less load were never worse"
        return "\n".join([first, tried, *self.contradictions])

    @property
    def contradictions(self) -> list[str]:
        """Where the probes do not bear out that less load is better, and where repetitions do not agree."""
        ordered = sorted(self.probes, key=lambda probe: probe.value)
        told = [
            f"contradicts that: {level.name} is {_time(before.figures[n])} at {before.value:g}, but "
            f"{_time(after.figures[n])} at {after.value:g}"
            for n, level in enumerate(self.levels)
            for before, after in zip(ordered, ordered[1:], strict=False)
            if after.figures[n] < before.figures[n]
        ]
        return told + [
            f"repetitions differ: at {probe.value:g} {probe.runs_keeping} of {probe.runs} runs keep it by themselves"
            for probe in ordered
            if 0 < probe.runs_keeping < probe.runs
        ]

    def write(self, folder: Path) -> None:
        """The table and the picture."""
        fields = [
            column("value", REAL, "", f"of {self.key}"),
            column("keeps", FLAG, "", "all service levels, by the requests of all runs together"),
            *(column(f"{level.name}_ns", REAL, "ns", f"wanted: {level}; inf: unanswered") for level in self.levels),
            column("runs", COUNT, "runs", "repetitions by seeds"),
            column("runs_keeping", COUNT, "runs", "of them, that keep all levels by themselves"),
            column("requests", COUNT, "questions", "due after the warm-up"),
            column("unanswered", COUNT, "questions", "of them, without a whole answer"),
            column("good", COUNT, "questions", "of them, within every limit"),
            column("goodput_per_s", REAL, "requests/s", "those, from the first question to the last answer"),
        ]
        kept = ("value", "keeps", "runs", "runs_keeping", "requests", "unanswered", "good", "goodput_per_s")
        rows = [
            {name: getattr(probe, name) for name in kept}
            | {f"{level.name}_ns": figure for level, figure in zip(self.levels, probe.figures, strict=True)}
            for probe in self.probes
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(fields)), folder / TABLE, compression="zstd")
        self._draw(folder / PICTURE)

    def _draw(self, path: Path) -> None:
        """Latencies with their limits, and goodput, against the load."""
        from isl_emu.show.style import calm, line_style, new_figure, plain_figures  # noqa: PLC0415  matplotlib is slow to import

        ordered = sorted(self.probes, key=lambda probe: probe.value)
        values = [probe.value for probe in ordered]
        figure = new_figure(4.0)
        top, bottom = figure.subplots(2, 1, sharex=True)
        for number, level in enumerate(self.levels):
            look = line_style(number)
            times_s = [probe.figures[number] / NS_PER_S for probe in ordered]
            top.plot(
                values,
                [one if math.isfinite(one) else math.nan for one in times_s],
                marker="o",
                label=level.name,
                **look,
            )
            top.axhline(level.limit_ns / NS_PER_S, linestyle=":", color=look["color"])
        goodput = [math.nan if probe.goodput_per_s is None else probe.goodput_per_s for probe in ordered]
        bottom.plot(values, goodput, marker="o", **line_style(0))
        for axes in (top, bottom):
            calm(axes)
            axes.set_xlim(0.9 * values[0], 1.1 * values[-1])  # also where nothing is drawn
            axes.set_xscale("log")
            if self.best is not None:
                axes.axvline(self.best, linewidth=0.8, color="black")
        bottom.set_xticks(sorted({values[0], values[-1], self.best or values[0]}))
        plain_figures(bottom.xaxis)
        top.set_ylabel("latency (s)")
        top.legend()
        bottom.set(xlabel=self.key, ylabel="goodput (requests/s)")
        figure.savefig(path)


def _time(latency: float) -> str:
    return time_text(latency) if math.isfinite(latency) else "beyond any answer"


def begin_search(
    scenario: Scenario,
    wanted: str,
    slo: Sequence[str],
    tolerance: float,
    settings: Mapping[str, Sequence[Any]],
    out: Path | None,
    words: Sequence[str],
) -> Path:
    """Make the folder of a search; nothing has run yet.

    Args:
        wanted: the key and its ends, ``questions.rate=0.1..10``. slo: levels, ``ttft_p95 <= 2 s``.
        settings: what else is set, by key: one value each, but for `seed`, whose values are repetitions.
        out, words: as of `begin_sweep`.

    Raises:
        ScenarioError: one of these is wrong, or the scenario has no questions.
    """
    key, low, high = parse_range(wanted)
    levels = [Level.parse(text) for text in slo]
    if not levels:
        raise ScenarioError('--search: is given without --slo, but it needs a level; add --slo "ttft_p95 <= 2 s"')
    if not scenario.asking_stations:
        raise ScenarioError(
            "--search: is given for a scenario without questions, but service levels are of their answers; add "
            "[questions]"
        )
    for name, values in settings.items():
        if name == key or (name != "seed" and len(values) > 1):
            raise ScenarioError(
                f"--set: {name} has {counted(len(values), 'value')}, but with --search that key alone varies, and any "
                "other has one value; search once for each"
            )
    begun = begin_sweep(scenario, {key: [low, high], **settings}, out, words)
    record = {"key": key, "low": low, "high": high, "slo": list(map(str, levels)), "tolerance": tolerance}
    write_json(begun.path / SEARCH, record)
    return begun.path


def run_search(
    folder: Path, steps: Steps, trust: Sequence[str] = (), parallel: int | None = None, cluster: str | None = None
) -> Found:
    """Try values until the largest within the levels is known; runs that are there already are not made again.

    Args:
        trust, parallel, cluster: as of `run_sweep`.

    Raises:
        ScenarioError: the folder holds no search, or it is damaged.
        MachineError: a run did not come to its end, or cannot be trusted.
    """
    record = read_json(folder / SEARCH) or {}
    try:
        key, tolerance = str(record["key"]), float(record["tolerance"])
        _, low, high = parse_range(f"{key}={record['low']}..{record['high']}")
        levels = tuple(Level.parse(text) for text in record["slo"])
    except (LookupError, TypeError, ValueError) as error:
        raise ScenarioError(
            f"{folder / SEARCH}: is damaged ({error!r:.80}), but it says what is searched; begin anew in another folder"
        ) from None
    probes: list[Probe] = []

    def keeps(value: float) -> bool:
        if len(probes) >= MOST_PROBES:
            raise ScenarioError(
                f"--tolerance: is {tolerance:g}, for which more than {MOST_PROBES} values would be tried, but no more "
                "are; raise it"
            )
        manifest = read_json(folder / MANIFEST) or {}
        texts = manifest["settings"][key]
        if write_value(value) not in texts:
            texts.append(write_value(value))
            write_json(folder / MANIFEST, manifest)
        sweep = Sweep(folder)
        outcome = run_sweep(sweep, steps, trust, parallel, cluster)
        if outcome.failed:
            raise MachineError(*(f"{name}: {reason}" for name, reason in outcome.failed.items()))
        runs = [run for cell, run in sweep.finished if cell.settings[key] == value]
        if bad := [str(run.path) for run in runs if not run.valid]:
            raise MachineError(f"{bad[0]}: cannot be trusted, but a search needs each of its runs; see its summary.txt")
        rows = [[row for row in run.table("requests").to_pylist() if not row["warm_up"]] for run in runs]
        windows_ns = [run.serving["rates"]["window_ns"] or 0 for run in runs]
        probes.append(Probe.of(value, levels, rows, windows_ns))
        steps.note(f"{key}={value:g}: {'keeps' if probes[-1].keeps else 'misses'} {' and '.join(map(str, levels))}")
        return probes[-1].keeps

    best, beyond = bisect(keeps, low, high, tolerance)
    found = Found(key, levels, best, beyond, tuple(probes))
    found.write(folder)
    return found
