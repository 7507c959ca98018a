"""Split models: one model's layers spread over several satellites, the first of which answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from isl_emu.errors import WorkloadError
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.parts.activity import Activity
from isl_emu.parts.finished_run import ConcludedRun, FinishedRun
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.part import CpuUse, Need, Pace, Part, Preparation, Source, as_warning, shares_of_a_cpu
from isl_emu.parts.serving.busy import AnsweringCpus
from isl_emu.parts.serving.model_file import resolve_model
from isl_emu.parts.split.results import SPLIT, split_rows, split_section
from isl_emu.parts.split.shares import check_engine, check_split, layer_count, share_byte, shares
from isl_emu.parts.split.start import PASSES, READY, start_splits
from isl_emu.runs.journal import REQUESTS_JOURNAL, count_all
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.split import Split
from isl_emu.show.chapter import Chapter


class SplitPart(Part):
    key = "split"
    tables = {"split": SPLIT}

    def endpoints(self, scenario: Scenario, plan: LinkPlan) -> Iterable[str]:
        return (name for split in scenario.split for name in split.members(scenario.satellite_names))

    def needs(self, scenario: Scenario) -> Iterable[Need]:
        for split in scenario.split:
            model, members = resolve_model(split.model), split.members(scenario.satellite_names)
            parts = shares(layer_count(model), len(members), split.layers)
            for name, part in zip(members, parts, strict=True):
                expected_byte = min(split.memory_byte, share_byte(split, model, part, head=name == members[0]))
                yield Need(name, split.cpus, split.memory_byte, expected_byte, (model,))

    def real_time(self, scenario: Scenario) -> Iterable[str]:
        """The stages of a pipeline are ours, and wait for their share of a board's time; llama.cpp's do not."""
        for split in scenario.split:
            if split.engine != "pipeline":
                yield f'split.engine is "{split.engine}", which would take no time to compute; use "pipeline"'
            elif split.board is None:
                yield (
                    "split: its satellites would take no time to compute their layers unless board says whose time "
                    "they take; add board, and pace_model if it is that of another model"
                )

    def checks(self, scenario: Scenario) -> Iterable[Callable[[], object]]:
        for split in scenario.split:
            yield partial(as_warning, check_engine, split.engine)
            yield partial(_checked_model, split, scenario)

    def prepare(self, source: Source, place: str) -> Preparation:
        for split in source.scenario.split:
            check_engine(split.engine)
        return Preparation(models=tuple(_checked_model(split, source.scenario) for split in source.scenario.split))

    def one_guest(self, source: Source) -> Iterable[str]:
        return ()

    def together(self, scenario: Scenario) -> Iterable[Sequence[str]]:
        """Its processes meet before the run begins, where each kernel has a time of its own."""
        return (split.members(scenario.satellite_names) for split in scenario.split)

    def start(self, live: LiveRun) -> Iterable[Activity]:
        start_splits(live)
        return ()

    def status(self, *journals: Path) -> Iterable[str]:
        if ready := count_all(journals, f"{READY}.jsonl"):
            passes = f"{PASSES}.jsonl"
            there = any((journal / passes).exists() for journal in journals)
            around = f"; passes around pipelines: {count_all(journals, passes)}" if there else ""
            yield f"split models that answer: {ready}{around}"

    def conclude(self, run: FinishedRun) -> None:
        if run.scenario.split:
            run.write("split", SPLIT, split_rows(run))

    def cpu_use(self, run: FinishedRun, pace: Pace) -> Iterable[CpuUse]:
        """While a split model answers, one of its satellites computes at a time, with one thread."""
        scenario = run.scenario
        cpus = {split.head(scenario.satellite_names): split.cpus for split in scenario.split}
        if cpus:
            share = shares_of_a_cpu(cpus, pace, scenario.time.slowdown)
            yield AnsweringCpus([row for row in run.rows(REQUESTS_JOURNAL) if row["satellite"] in cpus], share)

    def sections(self, run: FinishedRun, figures: Mapping[str, Any]) -> Iterator[Iterable[str]]:
        if rows := run.rows("split"):
            yield split_section(rows)

    def chapters(self, run: ConcludedRun) -> Iterator[Chapter]:
        from isl_emu.parts.split.chapters import split_chapter  # which draws; that is slow to import

        return split_chapter(run)


def _checked_model(split: Split, scenario: Scenario) -> Path:
    """The file of weights of a split model, once it is known that the model can be split so."""
    try:
        model = resolve_model(split.model)
    except WorkloadError as error:
        raise WorkloadError(*(one.replace("compute.model", "split.model") for one in error.problems)) from None
    check_split(split, len(split.members(scenario.satellite_names)), model)
    return model
