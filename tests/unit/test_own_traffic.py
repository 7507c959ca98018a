"""Programs and workloads of a user's own: how they are named, checked, and what a workload's function gets."""

from __future__ import annotations

import re
import threading
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

import isl_emu
from isl_emu.errors import ScenarioError, WorkloadError
from isl_emu.parts.programs.user_workload import WorkloadContext
from isl_emu.scenario import user_functions
from isl_emu.scenario.parse import format_scenario, parse_scenario, with_changes
from isl_emu.scenario.user_functions import user_function
from isl_emu.timebase import MonotonicClock
from tests.emulation.test_python import SCENARIO


def test_own_traffic_survives_the_way_through_text():
    scenario = parse_scenario(SCENARIO, "the test")
    assert parse_scenario(format_scenario(scenario), "again") == scenario
    assert scenario.visited_nodes == ("p00s00", "p00s03", "p00s03", "p00s00", "p00s01")


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ('node = "p00s00"', 'node = "p00s70"', "no such node"),
        ('"p00s00", "p00s01"', '"p00s00", "gs-x"', "workload bulk: nodes names 'gs-x'"),
        ('at = "1 s"', 'at = "11 s"', "program echo: at is after the end"),
        ('name = "bulk"', 'name = "echo"', "program or workload 'echo' occurs 2 times"),
        ('name = "bulk"', 'name = "requests"', "is a table of isl-emu's own"),
        ("docs.examples.bulk_transfer:transfer", "transfer", "package.module:function"),
        ('["sleep", "1000"]', "[]", "has 0 items"),
    ],
)
def test_contradictions_are_found(before, after, complaint):
    assert before in SCENARIO
    with pytest.raises(ScenarioError, match=complaint):
        parse_scenario(SCENARIO.replace(before, after), "the test")


def test_a_function_of_an_installed_package_is_found_by_its_entry_point(monkeypatch):
    entry = EntryPoint("sum", "builtins:sum", user_functions.ENTRY_POINTS)
    broken = EntryPoint("bad", "no_such_module:f", user_functions.ENTRY_POINTS)
    monkeypatch.setattr(user_functions, "entry_points", lambda group: [entry, broken])
    assert user_function("plugin:sum", "where") is sum
    with pytest.raises(ScenarioError, match="where: is plugin:max, but the installed plug-ins .* are: bad, sum"):
        user_function("plugin:max", "where")
    with pytest.raises(ScenarioError, match="no_such_module:f cannot be imported"):
        user_function("plugin:bad", "where")


def _context(rows: list[dict]) -> WorkloadContext:
    clock = MonotonicClock()
    return WorkloadContext({}, {}, {}, np.random.default_rng(1), 10**15, rows.append, clock, clock.now_ns())


def test_a_workload_records_rows_of_one_kind():
    rows: list[dict] = []
    context = _context(rows)
    context.record(count=np.int64(3), rate=1.5, name="a", good=True, gap=None)
    context.record(count=2.5, rate=1, name="b", good=False, gap=1)
    assert [row["count"] for row in rows] == [3, 2.5]
    assert all(row["t_ns"] >= 0 for row in rows)
    with pytest.raises(WorkloadError, match="column name is a number, but was a text before"):
        context.record(name=3)
    with pytest.raises(WorkloadError, match="column what is a list"):
        context.record(what=[])
    assert len(rows) == 2


def test_a_workload_waits_for_a_time_or_the_end():
    context = _context([])
    assert context.wait_until_ns(context.now_ns())
    threading.Timer(0.05, context.stopped.set).start()
    assert not context.wait_until_ns(context.now_ns() + 3_600 * 10**9)
    assert not context.wait_until_ns(0)


def test_the_page_shows_all_that_a_workload_and_the_results_have():
    page = (Path(__file__).parents[2] / "docs" / "python.md").read_text()
    own = {"write", "clock", "t0_ns", "kinds"}  # what the process itself needs
    for kind, hidden in ((WorkloadContext, own), (isl_emu.RunResults, set())):
        fields = getattr(kind, "__dataclass_fields__", {})
        for name in {*vars(kind), *fields} - hidden:
            assert name.startswith("_") or re.search(rf"`{name}\b|, `{name}|`{name}", page), name


def test_results_need_a_finished_run(tmp_path):
    with pytest.raises(ScenarioError, match="holds no results"):
        isl_emu.RunResults(tmp_path)


def test_a_plan_cannot_be_given_another_sky():
    scenario = parse_scenario(SCENARIO, "the test")
    with pytest.raises(ScenarioError, match="the sky of a plan is fixed"):
        isl_emu.run(isl_emu.plan(scenario), time={"duration": "5 s"})


def test_a_workload_that_cannot_be_imported_is_refused_before_anything_is_built(tmp_path):
    scenario = with_changes(parse_scenario(SCENARIO, "the test"))
    text = format_scenario(scenario).replace("docs.examples.bulk_transfer:transfer", "no_such_module:f")
    with pytest.raises(ScenarioError, match="workload bulk: function"):
        isl_emu.run(parse_scenario(text, "the test"), out=Path(tmp_path) / "out")
    assert not (tmp_path / "out").exists()
