"""How runs differ: what all of them measured, side by side, with confidence intervals of the differences.

Runs that differ in nothing but their seed are repetitions of one another and make one group: there the unit is the run,
by the median of its rows. Of single runs the unit is the row; rows of equal questions or probes are compared in pairs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.stats import bootstrap

from isl_emu.errors import ScenarioError
from isl_emu.results.run_results import RunResults
from isl_emu.scenario.parse import format_scenario
from isl_emu.sweeps.sweep import MANIFEST, Sweep
from isl_emu.tables.schema import COUNT, FLAG, REAL, TEXT, column, schema
from isl_emu.tables.text import table, three_digits, time_text

OF_THE_MACHINE = ("attempts", "changes", "instants", "load", "outside", "pauses", "drops", "incidents")
CONFIDENCE, RESAMPLES, SEED = 0.95, 9_999, 1
LEAST_UNITS = 5  # rows or runs on each side; of fewer a bootstrap promises too much
ALIKE = (("id", "station", "t_due_ns"), ("a", "b", "seq"))  # what tells that rows of two runs belong together

DIFFERENCES = schema(
    column("metric", TEXT, "", "table and column"),
    column("unit", TEXT, "", "of the figures in this row"),
    column("group", TEXT, "", "the runs that are compared with the first group"),
    column("runs", COUNT, "runs", "repetitions in the group"),
    column("rows", COUNT, "rows", "measured in all of them"),
    column("median", REAL, "", "of the rows of a single run; the mean of the runs' medians where there are several"),
    column("p95", REAL, "", "likewise, of the 95th percentiles"),
    column("difference", REAL, "", "of the medians, to the first group; of pairs of rows the median difference"),
    column("low", REAL, "", "lower end of the 95 % confidence interval of the difference; null where there is none"),
    column("high", REAL, "", "upper end of it"),
    column("paired", FLAG, "", "rows were compared in pairs"),
)


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seed."""

    name: str
    runs: tuple[RunResults, ...]


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Args:
        groups: in the order in which their first run was named; the first is what others are compared with.
        table: DIFFERENCES.
    """

    groups: tuple[Group, ...]
    table: pa.Table

    @property
    def text(self) -> str:
        """The table for readers; a difference whose interval leaves out 0 is marked."""
        rows = []
        for row in self.table.to_pylist():
            show = time_text if row["unit"] == "ns" else _plain_text
            interval = "" if row["low"] is None else f"[{show(row['low'])}, {show(row['high'])}]"
            known = row["low"] is not None and not row["low"] <= 0 <= row["high"]
            difference = "" if row["difference"] is None else show(row["difference"])
            paired = "pairs" if row["paired"] else ""
            rows.append([
                row["metric"], row["group"], f"{row['runs']}", f"{row['rows']}", show(row["median"]), show(row["p95"]),
                difference, interval, "*" if known else "", paired,
            ])  # fmt: skip
        header = ["metric", "group", "runs", "rows", "median", "p95", "difference", "95 % interval", "", ""]
        lines = table(header, rows, 2)
        few = f"no interval: fewer than {LEAST_UNITS} rows of a single run, or runs of a group"
        return "\n".join([*lines, f"* the interval leaves out 0; {few}"])

    def write(self, folder: Path) -> list[Path]:
        """Write the table and a picture of the distributions; the folder is made if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / "compare.parquet"
        pq.write_table(self.table, target, compression="zstd")
        return [target, self.draw(folder / "compare.png")]

    def draw(self, path: Path) -> Path:
        """The share of rows at or below each value, a panel for each metric and a line for each group."""
        from isl_emu.show.style import line_style, new_figure  # noqa: PLC0415  matplotlib is slow to import

        metrics = list(dict.fromkeys(self.table["metric"].to_pylist()))
        units = dict(zip(self.table["metric"].to_pylist(), self.table["unit"].to_pylist(), strict=True))
        across = min(len(metrics), 3)
        down = -(-len(metrics) // across)
        figure = new_figure(2.2 * down + 0.5)
        panels = figure.subplots(down, across, squeeze=False).ravel()
        for panel in panels[len(metrics) :]:
            panel.set_visible(False)
        for panel, metric in zip(panels, metrics, strict=False):
            scale, unit = (1e6, "ms") if units[metric] == "ns" else (1.0, units[metric])
            for number, group in enumerate(self.groups):
                values = np.concatenate([_values(run, metric) for run in group.runs]) / scale
                if len(values):
                    panel.ecdf(values, label=group.name, **line_style(number))
            panel.set_title(metric, loc="left", fontsize=10)
            panel.set_xlabel(unit)
            panel.set_ylim(0, 1.02)
            panel.grid(alpha=0.3)
        panels[0].set_ylabel("share of rows")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
        figure.savefig(path, dpi=130)
        return path


def compare(
    runs: Sequence[RunResults], metrics: Sequence[str] = (), *, names: Sequence[str] = (), anyway: bool = False
) -> Comparison:
    """Compare runs with the first of them.

    Args:
        metrics: such as "requests.ttft_ns"; all durations and ratios that every run has if empty.
        names: of the runs, one each; by default of their folders.
        anyway: also runs that are invalid, or of different clocks.

    Raises:
        ScenarioError: fewer than two groups, a run that cannot be trusted, different clocks, or a metric that a run
            has not.
    """
    if not anyway:
        for run in runs:
            if not run.valid:
                raise ScenarioError(
                    f"{run.path}: is {run.fidelity.get('verdict')}, but only valid runs are compared; run it again, or "
                    "compare it anyway (--anyway)"
                )
        clocks = {run.fidelity.get("clock"): run.path for run in runs}
        if len(clocks) > 1:
            found = ", ".join(f"{path} {clock}" for clock, path in clocks.items())
            raise ScenarioError(
                f"compare: runs have different clocks ({found}), but their difference would be the machine's as well; "
                "run them by the same --clock, or compare them anyway (--anyway)"
            )
    groups = _grouped(runs, names or [run.path.name for run in runs])
    if len(groups) < 2:
        raise ScenarioError("compare: has one group of runs, but two are needed; name runs of different scenarios")
    chosen = tuple(metrics) or _metrics_of_all(runs)
    rows = [row for metric in chosen for row in _compared(groups, metric)]
    return Comparison(groups, pa.Table.from_pylist(rows, schema=DIFFERENCES))


def open_runs(paths: Sequence[Path]) -> tuple[list[RunResults], list[str]]:
    """The runs in some folders, each a run's or a sweep's, and a name for each.

    Raises:
        ScenarioError: a folder holds none.
    """
    runs, names = [], []
    for path in paths:
        if (path / MANIFEST).is_file():
            for cell, run in Sweep(path).finished:
                runs.append(run)
                names.append(" ".join(f"{key}={value}" for key, value in cell.settings.items() if key != "seed"))
        else:
            runs.append(RunResults(path))
            names.append(path.resolve().name)
    return runs, names


def _grouped(runs: Sequence[RunResults], names: Sequence[str]) -> tuple[Group, ...]:
    groups: dict[str, tuple[str, list[RunResults]]] = {}
    for run, name in zip(runs, names, strict=True):
        key = format_scenario(run.scenario.model_copy(update={"seed": 0}))
        groups.setdefault(key, (name or run.path.name, []))[1].append(run)
    return tuple(Group(name, tuple(members)) for name, members in groups.values())


def _metrics_of_all(runs: Sequence[RunResults]) -> tuple[str, ...]:
    """Durations and ratios with some spread, in tables that all runs have."""
    shared = [name for name in runs[0].tables if name not in OF_THE_MACHINE]
    found = []
    for name in shared:
        if not all(name in run.tables for run in runs):
            continue
        for field in runs[0].table(name).schema:
            metric = f"{name}.{field.name}"
            plain = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
            if (
                plain
                and re.fullmatch(r"(?!t_|server_|planned_).*(_ns|_ratio)", field.name)
                and _is_spread(runs, metric)
            ):
                found.append(metric)
    if not found:
        raise ScenarioError(
            "compare: has runs without a table in common, but durations in one are compared; name a --metric"
        )
    return tuple(found)


def _is_spread(runs: Sequence[RunResults], metric: str) -> bool:
    values = np.concatenate([_values(run, metric) for run in runs])
    return len(values) > 0 and float(values.min()) < float(values.max())


def _values(run: RunResults, metric: str) -> np.ndarray:
    """The values of a column that are there; float64 (R,)."""
    name, _, column_name = metric.partition(".")
    rows = run.table(name)
    if column_name not in rows.column_names:
        raise ScenarioError(f"--metric: is {metric!r}, but {name} has only: {', '.join(rows.column_names)}; name one")
    if "warm_up" in rows.column_names:
        rows = rows.filter(pc.invert(rows["warm_up"]))
    values: np.ndarray = rows[column_name].drop_null().to_numpy().astype(float)
    return values


def _compared(groups: Sequence[Group], metric: str) -> Iterator[dict[str, Any]]:
    """A row for each group."""
    name, _, column_name = metric.partition(".")
    first = groups[0]
    _values(first.runs[0], metric)  # tells if there is no such column
    field = first.runs[0].table(name).schema.field(column_name)
    unit = (field.metadata or {}).get(b"unit", b"").decode()
    for group in groups:
        values = [_values(run, metric) for run in group.runs]
        row = {
            "metric": metric, "unit": unit, "group": group.name, "runs": len(group.runs),
            "rows": sum(map(len, values)), "median": _mean_of(np.median, values),
            "p95": _mean_of(lambda own: np.percentile(own, 95), values), "paired": False,
        }  # fmt: skip
        if group is not first and row["rows"]:
            before = [_values(run, metric) for run in first.runs]
            yield row | _difference(first, group, metric, before, values)
        else:
            yield row | {"difference": None, "low": None, "high": None}


def _mean_of(statistic: Any, values: Sequence[np.ndarray]) -> float:
    found = [float(statistic(own)) for own in values if len(own)]
    return float(np.mean(found)) if found else float("nan")


def _difference(
    first: Group, group: Group, metric: str, before: Sequence[np.ndarray], after: Sequence[np.ndarray]
) -> dict[str, Any]:
    """The difference of a group to the first one, and its interval by the bootstrap (BCa)."""
    pairs = _pairs(first.runs[0], group.runs[0], metric) if len(first.runs) == len(group.runs) == 1 else None
    if pairs is not None:
        differences = pairs[1] - pairs[0]
        return {"difference": float(np.median(differences)), "paired": True, **_interval((differences,), _median)}
    samples: tuple[np.ndarray, ...] = before[0], after[0]
    statistic: Any = _between_medians
    if len(first.runs) + len(group.runs) > 2:
        samples = tuple(np.array([np.median(own) for own in side if len(own)]) for side in (before, after))
        statistic = _between_means
    return {"difference": float(statistic(*samples, axis=-1)), **_interval(samples, statistic)}


def _median(sample: np.ndarray, axis: int) -> Any:
    return np.median(sample, axis=axis)


def _between_medians(before: np.ndarray, after: np.ndarray, axis: int) -> Any:
    return np.median(after, axis=axis) - np.median(before, axis=axis)


def _between_means(before: np.ndarray, after: np.ndarray, axis: int) -> Any:
    return np.mean(after, axis=axis) - np.mean(before, axis=axis)


def _interval(samples: tuple[np.ndarray, ...], statistic: Any) -> dict[str, float | None]:
    if min(map(len, samples)) < LEAST_UNITS:
        return {"low": None, "high": None}
    if all(np.ptp(sample) == 0 for sample in samples):  # nothing varies, so nothing is uncertain
        value = float(statistic(*samples, axis=-1))
        return {"low": value, "high": value}
    settings: dict[str, Any] = {"confidence_level": CONFIDENCE, "n_resamples": RESAMPLES, "vectorized": True}
    for method in ("BCa", "percentile"):  # of degenerate samples the first has none
        found = bootstrap(
            samples, statistic, method=method, rng=np.random.default_rng(SEED), batch=500, **settings
        ).confidence_interval
        if np.isfinite(found.low) and np.isfinite(found.high):
            return {"low": float(found.low), "high": float(found.high)}
    return {"low": None, "high": None}


def _pairs(first: RunResults, second: RunResults, metric: str) -> tuple[np.ndarray, np.ndarray] | None:
    """The values of rows that were asked alike in both runs; None if the runs asked differently."""
    name, _, column_name = metric.partition(".")
    sides = [run.table(name) for run in (first, second)]
    keys = next((list(keys) for keys in ALIKE if set(keys) <= set(sides[0].column_names)), None)
    if keys is None or sides[0].select(keys) != sides[1].select(keys):
        return None
    before, after = (side[column_name].to_numpy(zero_copy_only=False).astype(float) for side in sides)
    both = np.isfinite(before) & np.isfinite(after)
    return (before[both], after[both]) if both.any() else None


def _plain_text(value: float | None) -> str:
    return "" if value is None else three_digits(value)
