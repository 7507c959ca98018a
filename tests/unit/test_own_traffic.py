"""Programs and workloads of a user's own: how they are named, checked, and what a workload's function gets."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from contextlib import ExitStack
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import isl_emu
from isl_emu.errors import ScenarioError, WorkloadError
from isl_emu.nodes.namespaces import NetworkThreads
from isl_emu.parts.part import Spells
from isl_emu.parts.programs.cpu_meter import Meter, ProcessTimes
from isl_emu.parts.programs.part import ProgramsPart
from isl_emu.parts.programs.programs import WorkloadProcess
from isl_emu.parts.registry import PARTS
from isl_emu.results.conclude import TABLES
from isl_emu.runs.clock import RunClock, RunTimes
from isl_emu.runs.endpoints import Endpoint, write_endpoints
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import Journal, read_journal
from isl_emu.runs.process import Watch
from isl_emu.scenario import user_functions
from isl_emu.scenario.parse import format_scenario, parse_scenario, with_changes
from isl_emu.scenario.programs import RESERVED
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
        ('["sleep", "1000"]', "[]", "command is missing, but only an image has an entry point"),
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
    assert user_function("plugin:sum", "where", 1).function is sum
    with pytest.raises(ScenarioError, match="where: is plugin:max, but the installed plug-ins .* are: bad, sum"):
        user_function("plugin:max", "where", 1)
    with pytest.raises(ScenarioError, match="no_such_module:f cannot be imported"):
        user_function("plugin:bad", "where", 1)


def _context(rows: list[dict]) -> isl_emu.WorkloadContext:
    clock = MonotonicClock()
    return isl_emu.WorkloadContext({}, {}, {}, np.random.default_rng(1), 10**15, rows.append, clock, clock.now_ns())


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
    own = {"write", "clock", "t0_ns", "kinds", "groups", "threads"}  # what the process itself needs
    for kind, hidden in ((isl_emu.WorkloadContext, own), (isl_emu.RunResults, set())):
        fields = getattr(kind, "__dataclass_fields__", {})
        for name in {*vars(kind), *fields} - hidden:
            assert name.startswith("_") or re.search(rf"`{name}\b|, `{name}|`{name}", page), name


def test_results_need_a_finished_run(tmp_path):
    for path in (tmp_path, str(tmp_path)):
        with pytest.raises(ScenarioError, match="holds no results"):
            isl_emu.RunResults(path)


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


def test_no_workload_is_called_as_a_table_of_our_own():
    ours = {name for part in PARTS for name in (*part.lines, *part.tables)}
    assert {*TABLES, *ours} <= RESERVED


def test_each_node_has_what_its_programs_need_and_a_workload_computes_in_its_first():
    text = SCENARIO.replace(
        'nodes = ["p00s00", "p00s01"]', 'nodes = ["p00s00", "p00s01"]\ncpus = 0.3\nmemory = "100 MiB"'
    )
    needs = list(ProgramsPart().needs(parse_scenario(text, "the test")))
    assert [(need.node, need.cpus) for need in needs] == [
        *(("p00s00", 0.0), ("p00s03", 0.0), ("p00s03", 0.0)),  # the programs: of what there is
        *(("p00s00", 0.3), ("p00s01", 0.3)),
    ]
    assert [need.memory_byte >> 20 for need in needs] == [256, 256, 256, 100, 100]
    assert needs[3].expected_byte > needs[4].expected_byte  # the process itself
    assert all(Path.cwd() in need.visible for need in needs)


def _stat(pid: int, parent: int, session: int, ticks: int) -> ProcessTimes:
    words = ["S", str(parent), "0", str(session), *"0000000", str(ticks), "0", "0", "0"]
    return ProcessTimes.of(pid, f"{pid} (a ) b) {' '.join(words)} 20 0 1")


def test_what_others_have_started_in_a_container_is_taken_off(monkeypatch):
    tick_ns = 10**9 // os.sysconf("SC_CLK_TCK")
    processes = {
        **{10: _stat(10, parent=1, session=10, ticks=0)},  # the container's first
        **{20: _stat(20, parent=1, session=20, ticks=50), 21: _stat(21, parent=20, session=20, ticks=5)},  # a server
        **{30: _stat(30, parent=1, session=30, ticks=30), 31: _stat(31, parent=10, session=31, ticks=9)},  # ours
    }
    monkeypatch.setattr("isl_emu.parts.programs.cpu_meter._read", processes.get)
    group = SimpleNamespace(pids=lambda: {*processes, 99})  # 99 has ended meanwhile
    container = SimpleNamespace(group=group, cpu_ns=lambda: 100 * tick_ns)
    meter = Meter(container, {30}, starter=1)
    assert meter.cpu_ns() == 45 * tick_ns
    del processes[20], processes[21]  # the server is gone, and what it took is still no program's
    assert meter.cpu_ns() == 45 * tick_ns


def test_what_programs_computed_is_accounted_for():
    row = {"node": "p00s00", "t_ns": 3 * 10**9, "interval_ns": 10**9, "cpu_ns": 8 * 10**8}
    scenario = parse_scenario(SCENARIO.replace('duration = "10 s"', 'duration = "10 s"\nslowdown = 2'), "the test")
    run = SimpleNamespace(scenario=scenario, rows=lambda name: [row] if name == "program_cpu" else [])
    (use,) = ProgramsPart().cpu_use(run, lambda *_: 1.0)
    assert isinstance(use, Spells)
    assert use.mean_cpus(2 * 10**9, 3 * 10**9) == pytest.approx(0.4)  # a second of the run lasts two
    assert use.mean_cpus(3 * 10**9, 4 * 10**9) == 0.0
    assert not use.spans


def test_the_status_tells_of_programs_and_workloads(tmp_path):
    assert not list(ProgramsPart().status(tmp_path))
    names = ("program_starts.jsonl", 3), ("programs.jsonl", 1), ("workload-bulk.jsonl", 2)
    for name, lines in names:
        with Journal(tmp_path / name) as journal:
            for number in range(lines):
                journal.append({"number": number})
    assert list(ProgramsPart().status(tmp_path)) == [
        "programs: 2 running, 1 ended",
        "workload bulk: 2 rows recorded",
    ]


class _NativeContainer:
    """Starts programs on this machine."""

    name, netns_path, suspended = "p00s00", "/proc/self/ns/net", False
    group = SimpleNamespace(open_joins=list)

    def __init__(self, out: Path):
        self.out = out

    def popen(self, argv, keep=(), **options) -> subprocess.Popen:
        options["env"] = {**options["env"], "ISL_EMU_OUT": str(self.out)}
        return subprocess.Popen(argv, **options)

    def oom_kills(self) -> int:
        return 0


@pytest.fixture
def live(tmp_path, monkeypatch):
    """A run of the workload `bulk` on this machine."""
    if os.geteuid() != 0:
        pytest.skip("only root enters a network")
    monkeypatch.chdir(Path(__file__).parents[2])
    folder = RunFolder.create(tmp_path / "run", "any")
    (folder.path / "programs").mkdir()
    write_endpoints(
        {name: Endpoint("/proc/self/ns/net", "127.0.0.1", None) for name in ("p00s00", "p00s01")}, folder.journal
    )
    out = folder.files_of("p00s00")
    out.mkdir(parents=True)
    clock = RunClock.create(folder.journal, 1.0)
    containers = dict.fromkeys(("p00s00", "p00s01"), _NativeContainer(out))
    with ExitStack() as undo:
        watch = Watch(folder.journal, clock.now_ns)
        undo.callback(watch.close)
        scenario = SimpleNamespace(seed=1)
        yield SimpleNamespace(
            residents=[], scenario=scenario, folder=folder, clock=clock, containers=containers, undo=undo, watch=watch
        )


def _workload(live, function: str) -> WorkloadProcess:
    scenario = parse_scenario(SCENARIO.replace("docs.examples.bulk_transfer:transfer", function), "the test")
    live.folder.scenario.write_text(format_scenario(scenario))
    return WorkloadProcess(live, scenario.workload[0], set())


def _run(process: WorkloadProcess, live, duration_ns: int, patience_s: float) -> None:
    """From before the run until after its end."""
    process.await_ready()
    with ExitStack() as ending:
        now_ns = live.clock.now_ns()
        process.begin(RunTimes(now_ns, now_ns + duration_ns), ending)
        process.await_end(patience_s)


def test_a_workload_is_ready_before_the_run_and_writes_rows_in_it(live):
    _run(_workload(live, "tests.user_workloads:noting"), live, 10**9, 60.0)
    (row,) = read_journal(live.folder.journal / "workload-bulk.jsonl").records
    assert row["t_ns"] >= 0
    assert row["duration_ns"] == 10**9
    assert (live.folder.path / "programs" / "bulk.log").read_text() == "it was called\n"
    assert (live.folder.files_of("p00s00") / "noted.txt").read_text() == "kept"


def test_a_workload_that_never_returns_is_killed_and_told(live, monkeypatch):
    monkeypatch.setattr("isl_emu.parts.programs.programs.LAST_WORDS_S", 0.5)
    _run(_workload(live, "tests.user_workloads:endless"), live, 10**8, 0.5)
    (death,) = read_journal(live.folder.journal / "incidents.jsonl").records
    assert death["what"] == "workload bulk"
    assert "tests.user_workloads:endless did not return when the run ended, and was killed" in death["cause"]


def test_a_workload_whose_run_never_begins_is_ended(live):
    process = _workload(live, "tests.user_workloads:noting")
    process.await_ready()
    live.undo.close()
    assert process._process.poll() is not None


def test_a_workload_that_dies_at_the_start_leaves_its_output(live):
    process = _workload(live, "tests.no_such_module:f")
    with pytest.raises(
        WorkloadError, match=r"workload bulk: it ended with status 1 \(.*no_such_module.* must be ready"
    ):
        process.await_ready()
    assert "Traceback" in (live.folder.path / "programs" / "bulk.log").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root enters a network")
def test_a_program_in_another_node_joins_its_groups(tmp_path):
    clock, nodes = MonotonicClock(), {"p00s01": Endpoint("/proc/self/ns/net", "127.0.0.1", None)}
    threads = {"p00s01": NetworkThreads("/proc/self/ns/net")}
    with (tmp_path / "procs").open("w") as procs:
        context = isl_emu.WorkloadContext(
            nodes, {}, {}, np.random.default_rng(1), 10**15, print, clock, clock.now_ns(),
            threads=threads, groups={"p00s01": [procs.fileno()]}, files=tmp_path,
        )  # fmt: skip
        with pytest.raises(FileNotFoundError, match="no-such-program is to be started in p00s01"):
            context.popen("p00s01", ["no-such-program"])
        words = [sys.executable, "-c", "import os; print(os.environ.get('ISL_GROUPS'))"]
        process = context.popen("p00s01", words, stdout=subprocess.PIPE, text=True)
        assert process.communicate()[0] == "None\n"
    assert (tmp_path / "procs").read_text() == "0\n"
