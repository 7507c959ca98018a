"""A run in miniature: three satellites in a line, one station that hands over at 2 s, four instants, made by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isl_emu.linkplan.plan import LinkKind, LinkPlan
from isl_emu.parts.finished_run import FinishedRun
from isl_emu.routing.forwarding import RoutePlan, plan_routes
from isl_emu.runs.execution import Execution
from isl_emu.runs.folder import RunFolder
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.parse import parse_scenario
from tests.plans import MS, SECOND, make_plan
from tests.scenarios import head, shell, station, table

S = SECOND
LASER_NS, NEAR_NS, FAR_NS = 5 * MS, 2 * MS, 3 * MS
SCENARIO = (
    head(
        "miniature",
        description="three satellites in a line",
        rate_scale=0.5,
        start="2026-03-20T04:00:00Z",
        duration="4 s",
    )
    + shell(3, name="line", inclination="53 deg")
    + station("gs-a", latitude="0 deg", longitude="0 deg", uplink="1 Mbit/s", downlink="2 Mbit/s")
    + table("compute", cpus=1.0)
    + table("questions", mean_interval="1 s", deadline="2 s", prompts=["Why?"])
    + table("probes", pairs=[["gs-a", "p00s02"], ["p00s00", "p00s01"]])
)


def miniature_plan(scenario: Scenario) -> LinkPlan:
    """p00s00 - p00s01 - p00s02 by lasers; gs-a sees p00s00 for two seconds, then p00s01."""
    lasers = {(0, 1): LASER_NS, (1, 2): LASER_NS}
    instants = [{**lasers, (0, 3): NEAR_NS}] * 2 + [{**lasers, (1, 3): FAR_NS}] * 2
    plan = make_plan(3, ["gs-a"], instants, queue_ns=20 * MS, rate_scale=scenario.rate_scale)
    ground_row = plan.links.kind[plan.row_link] == LinkKind.GROUND
    down, up = (np.where(ground_row, rate_bit_s, 100_000_000) for rate_bit_s in (2_000_000, 1_000_000))
    return replace(plan, row_rate_ab_bit_s=down, row_rate_ba_bit_s=up, scenario_toml=SCENARIO)


def request(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A journal's record of an answered question, sent at 0.5 s and done at 1.5 s."""
    record = {
        "id": number, "station": "gs-a", "satellite": "p00s02", "question": "Why?", "answer": "Because\nof physics.",
        "outcome": "completed", "error": None, "t_due_ns": 490 * MS, "t_send_ns": 500 * MS, "t_first_ns": 800 * MS,
        "t_finish_ns": 1500 * MS, "ttft_ns": 300 * MS, "itl_ns": [100 * MS] * 7, "e2e_ns": 1000 * MS,
        "prompt_tokens": 12, "answer_tokens": 8, "server_prompt_ns": 200 * MS, "server_predict_ns": 700 * MS,
    }  # fmt: skip
    return {**record, **changes}


def probe(a: str = "p00s00", b: str = "p00s01", **changes: Any) -> dict[str, Any]:
    """A journal's record of a probe over one laser, sent at 0.4 s, 50 us longer on its way than light."""
    record = {"a": a, "b": b, "seq": 0, "t_send_ns": 400 * MS, "delay_ns": LASER_NS + 50_000, "hops_seen": 1}
    return {**record, **changes}


def far_probe(**changes: Any) -> dict[str, Any]:
    """A probe from the station over p00s00 and p00s01 to p00s02: three hops."""
    return probe("gs-a", "p00s02", **{"delay_ns": NEAR_NS + 2 * LASER_NS + MS, "hops_seen": 3, **changes})


def instant(k: int, lateness_ns: int = MS, **changes: Any) -> dict[str, Any]:
    """A journal's record of an instant."""
    times = {"planned_ns": k * S, "begun_ns": k * S + lateness_ns // 2, "done_ns": k * S + lateness_ns}
    return {"k": k, **times, "links": 4, "routes": 2, "mismatches": 0, **changes}


def load(second: int, busy_ratio: float = 0.3, **changes: Any) -> dict[str, Any]:
    """A journal's record of one second of load on one CPU."""
    ratios = {"busy_ratio": busy_ratio, "steal_ratio": 0.0, "pressure_ratio": None}
    return {"t_ns": second * S, "cpus": 1, **ratios, "wakeup_lateness_ns": MS, **changes}


@dataclass(frozen=True)
class MiniatureRun:
    """A run folder with the plan that it belongs to."""

    folder: RunFolder
    scenario: Scenario
    plan: LinkPlan
    routes: RoutePlan
    request = staticmethod(request)
    probe = staticmethod(probe)
    far_probe = staticmethod(far_probe)
    instant = staticmethod(instant)
    load = staticmethod(load)

    @property
    def journal(self) -> Path:
        return self.folder.journal

    def finished(self) -> FinishedRun:
        """The run as its results are made of it."""
        execution = Execution.read(self.folder.execution)
        return FinishedRun(self.folder, self.scenario, self.plan, self.routes, execution)

    def write(self, name: str, records: Iterable[dict[str, Any]]) -> None:
        """Write a journal; execution.json is one record on its own."""
        (self.journal / name).write_text("".join(json.dumps(record) + "\n" for record in records))


def make_bare_run(path: Path) -> MiniatureRun:
    """The folder of a run whose journals are still empty."""
    scenario = parse_scenario(SCENARIO, "miniature")
    plan = miniature_plan(scenario)
    return MiniatureRun(RunFolder.create(path, scenario.name), scenario, plan, plan_routes(plan))


def make_good_run(path: Path) -> MiniatureRun:
    """A run against which nothing speaks."""
    run = make_bare_run(path)
    run.write("requests.jsonl", [request()])
    run.write("probes.jsonl", [probe(), far_probe()])
    run.write("instants.jsonl", [instant(k) for k in range(4)])
    run.write("load.jsonl", [load(second) for second in (1, 2, 3, 4)])
    measured = {"bias_ns": 200_000, "residue_ns": 20_000, "mismatches": [], "dropped_packets": 7}
    run.write("execution.json", [{"error": None, **measured}])
    return run


@pytest.fixture
def bare_run(tmp_path: Path) -> MiniatureRun:
    return make_bare_run(tmp_path)


@pytest.fixture
def good_run(tmp_path: Path) -> MiniatureRun:
    return make_good_run(tmp_path)


@pytest.fixture(scope="module")
def good_run_of_module(tmp_path_factory: pytest.TempPathFactory) -> MiniatureRun:
    return make_good_run(tmp_path_factory.mktemp("run"))
