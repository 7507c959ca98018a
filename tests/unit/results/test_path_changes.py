"""When a way changed, why, and what that cost: in a run in miniature, whose station hands over at 2 s, and others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from isl_emu.linkplan.fault_events import TERMS, Faults, FaultThing
from isl_emu.linkplan.faults import with_faults
from isl_emu.parts.finished_run import ConcludedRun
from isl_emu.results.conclude import write_tables
from isl_emu.results.path_changes import path_changes_chapter
from isl_emu.routing.forwarding import plan_routes
from isl_emu.show.chapter import DataTable, Picture
from tests.plans import MS, SECOND, make_plan

S = SECOND
LASER = "p00s01 - p00s02"
AWAY = {(0, 1): 5 * MS, (1, 2): 5 * MS}


def concluded(run: Any, **changes: Any) -> ConcludedRun:
    """The run with its tables, after what is to be otherwise."""
    finished = replace(run.finished(), **changes)
    write_tables(finished)
    return finished


def changes(run: ConcludedRun, a: str, b: str) -> list[dict[str, Any]]:
    """The rows of one direction."""
    return [dict(row) for row in run.rows("path_changes") if (row["a"], row["b"]) == (a, b)]


def probes(run: Any, a: str, b: str, times_ms: range, lost: range, delay_ns: int = 10 * MS) -> list[dict[str, Any]]:
    return [
        run.probe(a, b, seq=seq, t_send_ns=t * MS, hops_seen=2, delay_ns=None if t in lost else delay_ns)
        for seq, t in enumerate(times_ms)
    ]


def by_plan(run: Any, instants: list[dict[tuple[int, int], int]], faults: Faults | None = None) -> dict[str, Any]:
    """What replaces the plan of a run and its routes."""
    plan = make_plan(3, ["gs-a"], instants)
    plan = with_faults(plan, faults) if faults else plan
    return {"plan": plan, "routes": plan_routes(plan)}


def test_a_handover_says_what_came_and_went_and_what_was_lost(good_run: Any) -> None:
    """Probes each 100 ms: two are on the old way at 2 s or just sent, and are lost."""
    sent = probes(good_run, "gs-a", "p00s02", range(500, 3_500, 100), lost=range(1_990, 2_150))
    good_run.write("probes.jsonl", sent)
    run = concluded(good_run)
    (row,) = changes(run, "gs-a", "p00s02")
    assert row == {
        "a": "gs-a", "b": "p00s02", "t_ns": 2 * S, "t_done_ns": 2 * S + MS, "cause": "handover",
        "what": "p00s00 - gs-a went, p00s01 - gs-a came", "before": ["gs-a", "p00s00", "p00s01", "p00s02"],
        "after": ["gs-a", "p00s01", "p00s02"], "planned_rtt_before_ns": 24 * MS, "planned_rtt_after_ns": 16 * MS,
        "no_path_ns": 0, "silent_ns": 300 * MS, "usual_ns": 100 * MS, "lost_packets": 2, "dropped_packets": 0,
    }  # fmt: skip
    (back,) = changes(run, "p00s02", "gs-a")
    assert back["before"] == row["before"][::-1]
    assert back["lost_packets"] is None  # no probe goes there, but words of an answer do
    assert back["usual_ns"] == 100 * MS
    assert changes(run, "p00s00", "p00s01") == []


@pytest.mark.parametrize(
    ("instants", "why"),
    [
        ([AWAY, {(0, 1): 5 * MS}, AWAY], [("laser-lost", S, f"{LASER} went"), ("laser-gained", 0, f"{LASER} came")]),
        ([{**AWAY, (0, 2): 30 * MS}, {**AWAY, (0, 2): 3 * MS}], [("better-way", 0, None)]),
    ],
)  # fmt: skip
def test_lasers_come_and_go_and_ways_become_better(good_run: Any, instants: Any, why: Any) -> None:
    good_run.write("probes.jsonl", [good_run.probe("p00s00", "p00s02", hops_seen=2)])
    run = concluded(good_run, **by_plan(good_run, instants))
    found = [row for row in changes(run, "p00s00", "p00s02") if row["t_ns"]]
    assert [(row["cause"], row["no_path_ns"], row["what"]) for row in found] == why
    (first, *_) = found
    assert (first["planned_rtt_after_ns"] is None) == (first["after"] is None)


def cutting(k_known: int) -> Faults:
    """A fault that cuts the laser of p00s00 and p00s01 from instant 1 until 3, and is known from an instant on."""
    terms = np.array([(True, 0.0, 0.0, 0.0, 0, 1.0, 1.0)], TERMS)
    at = [np.array([k]) for k in (1, 3, k_known, 4)]
    return Faults(("storm",), ("cut",), terms, np.array([0]), np.array([FaultThing.LINK]), np.array([0]), *at)


def test_a_fault_cuts_the_way_at_once_and_moves_it_when_it_is_known(good_run: Any) -> None:
    """Cut from 1 to 3 s, known from 2 to 4 s; the other way round is longer."""
    whole = [{**AWAY, (0, 2): 30 * MS}] * 5
    sent = probes(good_run, "p00s00", "p00s02", range(0, 4_500, 100), lost=range(990, 2_000))
    good_run.write("probes.jsonl", sent)
    good_run.write("instants.jsonl", [good_run.instant(k, 0) for k in range(5)])
    run = concluded(good_run, **by_plan(good_run, whole, cutting(2)))
    found = changes(run, "p00s00", "p00s02")
    assert [(row["t_ns"], row["cause"], row["what"]) for row in found] == [
        (S, "fault", "storm"), (2 * S, "fault", "storm"), (4 * S, "mended", "storm"),
    ]  # fmt: skip
    cut, moved, mended = found
    assert cut["before"] == cut["after"] == mended["after"]
    assert (cut["planned_rtt_after_ns"], cut["no_path_ns"], cut["lost_packets"]) == (None, S, 10)
    assert cut["silent_ns"] == 1_100 * MS
    assert (moved["after"], moved["lost_packets"], moved["no_path_ns"]) == (["p00s00", "p00s02"], 0, 0)
    assert mended["planned_rtt_after_ns"] == 20 * MS


def test_what_somebody_does_by_hand_to_a_link_of_the_way_is_told(good_run: Any) -> None:
    sent = probes(good_run, "p00s00", "p00s01", range(0, 4_000, 100), lost=range(1_200, 1_500), delay_ns=5 * MS)
    good_run.write("probes.jsonl", sent)
    (link,) = np.flatnonzero((good_run.plan.links.a == 0) & (good_run.plan.links.b == 1)).tolist()
    act = {"kind": "intervention", "node": "p00s00", "what": "link", "cause": "p00s00 - p00s01 by hand: cut"}
    begun = {"id": 0, "t_ns": 1_195 * MS, "t_end_ns": None, **act, "links": [link]}
    other = {"id": 1, "t_ns": 100 * MS, "t_end_ns": None, **act, "links": [link + 1]}
    good_run.write("incidents.jsonl", [other, begun, {"id": 0, "t_end_ns": 1_495 * MS}])
    found = changes(concluded(good_run), "p00s00", "p00s01")
    told = [(row["t_ns"] // MS, row["cause"], row["lost_packets"], row["no_path_ns"]) for row in found]
    assert told == [(1_195, "intervention", 3, None), (1_495, "restored", 0, None)]
    assert [row["silent_ns"] for row in found] == [400 * MS, 400 * MS]
    assert found[0]["before"] == found[0]["after"] == ["p00s00", "p00s01"]


def test_drops_are_those_of_the_samples_around(good_run: Any) -> None:
    from isl_emu.results import path_changes  # noqa: PLC0415

    columns = {"t_ns": [1 * S, 2 * S, 3 * S, 4 * S], "dropped_down": [0, 2, 5, 9], "dropped_fault": [0, 0, 1, 1]}
    ends = {"node": ["p00s01"] * 4, "peer": ["p00s00"] * 4}
    import pyarrow as pa  # noqa: PLC0415

    run = SimpleNamespace(plan=good_run.plan, table=lambda _: pa.table({**columns, **ends}))
    drops = path_changes._Drops(run)
    (link,) = np.flatnonzero((good_run.plan.links.a == 0) & (good_run.plan.links.b == 1)).tolist()
    end = 2 * link + 1
    assert drops.between([end], 2 * S, 2 * S + MS) == 4  # from the sample at 2 s to that at 3 s
    assert drops.between([end], 0, 4 * S) == 10
    assert drops.between([end], 4 * S, 9 * S) == 0
    assert drops.between([end - 1], 0, 4 * S) == 0
    assert path_changes._Drops(SimpleNamespace(table=lambda _: None)).between([end], 0, S) is None


def test_the_chapter_tells_why_and_draws_the_paths(good_run: Any, tmp_path: Path) -> None:
    run = concluded(good_run)
    (chapter,) = path_changes_chapter(run)
    said, picture, table = chapter.items
    assert said == "1 change of the paths between 2 pairs that had traffic: 1 x handover."
    assert isinstance(picture, Picture)
    assert "gs-a to p00s02: 2 paths. p00s00 to p00s01: 1 path." in picture.alt
    assert len(picture.draw().axes) == 1
    assert isinstance(table, DataTable)
    assert table.rows[0][:6] == (
        "gs-a → p00s02", "handover: p00s00 - gs-a went, p00s01 - gs-a came", "2.000 s", "3 → 2",
        "24.0 ms → 16.0 ms", "-",
    )  # fmt: skip
    run.folder.table("path_changes").unlink()
    assert list(path_changes_chapter(run)) == []  # an older folder
