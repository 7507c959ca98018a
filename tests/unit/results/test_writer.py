"""Journals joined with the plan: what is derived is right, and what is unknown stays null."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isl_emu.linkplan.events import no_events
from isl_emu.network.desired import IMPAIRMENTS
from isl_emu.parts.probes.packets import FRAME_BYTE
from isl_emu.parts.registry import PARTS
from isl_emu.results.conclude import CHANGES, INSTANTS, LOAD, write_tables
from isl_emu.routing.forwarding import plan_routes
from isl_emu.routing.paths import PathFinder
from isl_emu.tables.planned_paths import PlannedPaths
from isl_emu.tables.schema import LOST_LINES

MS = 1_000_000
S = 1_000_000_000


def written(run: Any, table: str) -> list[dict[str, Any]]:
    write_tables(run.finished())
    return pq.read_table(run.folder.table(table)).to_pylist()


def test_empty_journals_give_empty_tables_with_all_columns(bare_run: Any) -> None:
    by_parts = {name: schema for part in PARTS for name, schema in part.tables.items()}
    every_run = {name: by_parts[name] for name in ("requests", "attempts", "probes")}
    for table, schema in {"instants": INSTANTS, "changes": CHANGES, "load": LOAD, **every_run}.items():
        assert written(bare_run, table) == []
        assert pq.read_schema(bare_run.folder.table(table)).names == schema.names


def test_request_gets_its_paths_from_the_plan(bare_run: Any) -> None:
    bare_run.write("requests.jsonl", [bare_run.request(t_finish_ns=2500 * MS, e2e_ns=2000 * MS)])
    (row,) = written(bare_run, "requests")
    assert row["path_at_send"] == ["gs-a", "p00s00", "p00s01", "p00s02"]
    assert row["path_at_finish"] == ["gs-a", "p00s01", "p00s02"]
    assert (row["hops_at_send"], row["hops_at_finish"], row["handovers"]) == (3, 2, 1)
    assert row["planned_rtt_at_send_ns"] == 2 * (2 + 5 + 5) * MS


def test_request_latencies_follow_the_definitions_of_the_field(bare_run: Any) -> None:
    bare_run.write("requests.jsonl", [bare_run.request()])
    (row,) = written(bare_run, "requests")
    assert row["tpot_ns"] == 100 * MS  # (1000 - 300) / 7
    assert row["network_ns"] == 100 * MS
    assert row["network_ratio"] == pytest.approx(0.1)
    assert row["deadline_met"] is True
    assert row["handovers"] == 0


def test_deadline_is_missed_by_late_and_by_incomplete_answers(bare_run: Any) -> None:
    late = bare_run.request(0, e2e_ns=2001 * MS)
    cut = bare_run.request(1, outcome="path_lost", server_prompt_ns=None, server_predict_ns=None)
    bare_run.write("requests.jsonl", [late, cut])
    rows = written(bare_run, "requests")
    assert [row["deadline_met"] for row in rows] == [False, False]
    assert rows[1]["network_ns"] is None and rows[1]["network_ratio"] is None


def test_answer_that_stopped_coming_lost_its_path_if_the_plan_had_none(bare_run: Any) -> None:
    plan = bare_run.plan
    seen = plan.row_link != 3  # what gs-a sees after its handover
    columns = ("row_link", "row_delay_ns", "row_rate_ab_bit_s", "row_rate_ba_bit_s", "row_loss_ratio")
    columns += tuple(f"row_{name}" for name in IMPAIRMENTS)
    rows = {name: getattr(plan, name)[seen] for name in columns}
    blind = replace(plan, row_start=np.array([0, 3, 6, 8, 10]), events=no_events(), **rows)
    while_seen = bare_run.request(0, outcome="timed_out", t_finish_ns=1900 * MS)
    too_long = bare_run.request(1, outcome="timed_out", t_finish_ns=2100 * MS)
    bare_run.write("requests.jsonl", [while_seen, too_long])
    rows = written(replace(bare_run, plan=blind, routes=plan_routes(blind)), "requests")
    assert [row["outcome"] for row in rows] == ["timed_out", "path_lost"]


def test_request_that_reached_nobody_has_gaps(bare_run: Any) -> None:
    gaps = dict.fromkeys(("t_first_ns", "ttft_ns", "server_prompt_ns", "server_predict_ns", "prompt_tokens"))
    bare_run.write("requests.jsonl", [bare_run.request(satellite=None, outcome="unreachable", answer_tokens=0, **gaps)])
    (row,) = written(bare_run, "requests")
    missing = ("path_at_send", "hops_at_send", "planned_rtt_at_send_ns", "handovers", "tpot_ns", "network_ns")
    assert [row[name] for name in missing] == [None] * len(missing)


def test_answer_of_one_token_has_no_time_per_token(bare_run: Any) -> None:
    bare_run.write("requests.jsonl", [bare_run.request(answer_tokens=1, itl_ns=[])])
    assert written(bare_run, "requests")[0]["tpot_ns"] is None


def test_planned_request_without_a_record_is_unfinished(bare_run: Any) -> None:
    planned = {"station": "gs-a", "satellite": "p00s01", "question": "Why?", "t_due_ns": S}
    bare_run.write("planned_requests.jsonl", [{"id": number, **planned} for number in (0, 1)])
    bare_run.write("requests.jsonl", [bare_run.request(0)])
    rows = written(bare_run, "requests")
    assert [(row["id"], row["outcome"]) for row in rows] == [(0, "completed"), (1, "unfinished")]
    assert rows[1]["e2e_ns"] is None and rows[1]["deadline_met"] is False


def test_satellites_that_answer_at_the_same_time_are_counted(bare_run: Any) -> None:
    first = bare_run.request(0, server_predict_ns=800 * MS)  # busy from 0.5 to 1.5 s
    other = bare_run.request(1, satellite="p00s01", t_finish_ns=2 * S, server_prompt_ns=0, server_predict_ns=1000 * MS)
    queued = bare_run.request(2, satellite="p00s01", t_finish_ns=2 * S, server_prompt_ns=0, server_predict_ns=500 * MS)
    bare_run.write("requests.jsonl", [first, other, queued])
    counts = [row["satellites_answering"] for row in written(bare_run, "requests")]
    assert counts == pytest.approx([1.5, 1.5, 1.0])


def test_probe_is_compared_with_the_plan(bare_run: Any) -> None:
    bare_run.write("probes.jsonl", [bare_run.far_probe()])
    (row,) = written(bare_run, "probes")
    assert row["path"] == ["gs-a", "p00s00", "p00s01", "p00s02"]
    assert row["hops"] == 3
    assert row["planned_delay_ns"] == 12 * MS
    bits = 58 * 8  # at half of 1 Mbit/s up, and twice at half of 100 Mbit/s
    assert row["planned_serialisation_ns"] == round((bits / 0.5e6 + 2 * bits / 50e6) * 1e9)
    assert row["error_ns"] == MS - row["planned_serialisation_ns"]
    assert row["straddles_change"] is False


def test_a_link_has_its_own_rate_in_each_direction(bare_run: Any) -> None:
    finder = PathFinder(bare_run.plan, bare_run.routes)
    paths = PlannedPaths(bare_run.plan, finder, {})
    up, down = paths.at("gs-a", "p00s00", 0), paths.at("p00s00", "gs-a", 0)
    assert (paths.serialisation_ns(up, 0, FRAME_BYTE), paths.serialisation_ns(down, 0, FRAME_BYTE)) == (
        928_000,
        464_000,
    )


def test_each_direction_is_compared_with_its_own_plan(bare_run: Any) -> None:
    back = bare_run.probe("p00s02", "gs-a", delay_ns=12 * MS + 500_000, hops_seen=3)
    bare_run.write("probes.jsonl", [bare_run.far_probe(), back])
    there, back = written(bare_run, "probes")
    assert back["path"] == there["path"][::-1]
    assert there["planned_serialisation_ns"] - back["planned_serialisation_ns"] == 464_000  # a slower uplink
    assert back["error_ns"] == 500_000 - back["planned_serialisation_ns"]


TEN_MS_BYTE = 62_500  # of the laser's 50 Mbit/s


@pytest.mark.parametrize(
    ("late_ms", "excess_ms"), [(4, 0), (10, 0), (13, 3), (-2, -2)], ids=["behind some", "behind all", "more", "early"]
)
def test_own_traffic_explains_what_left_the_link_meanwhile(bare_run: Any, late_ms: int, excess_ms: int) -> None:
    """Sent at 0.4 s over the link 0, whose bytes are counted at 0, 1 and 2 s; it is 58 bytes of them itself."""
    counts = [{"0": 700, "1": 5}, {"0": 700 + TEN_MS_BYTE + 58, "1": 10**9}, {"0": 10**9}]
    bare_run.write("probed_ends.jsonl", [{"t_ns": k * S, "byte": byte} for k, byte in enumerate(counts)])
    (plan,) = rows_of(bare_run, [bare_run.probe()])
    expected_ns = plan["planned_delay_ns"] + plan["planned_serialisation_ns"]
    (row,) = rows_of(bare_run, [bare_run.probe(delay_ns=expected_ns + late_ms * MS)])
    assert (row["error_ns"], row["queued_most_ns"], row["excess_ns"]) == (late_ms * MS, 10 * MS, excess_ms * MS)


def rows_of(run: Any, probes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    run.write("probes.jsonl", probes)
    return written(run, "probes")


def test_without_a_count_nothing_is_explained(bare_run: Any) -> None:
    (row,) = rows_of(bare_run, [bare_run.probe()])
    assert (row["queued_most_ns"], row["excess_ns"]) == (0, row["error_ns"])


def test_a_change_of_one_links_delay_is_a_change_though_the_sum_stays(bare_run: Any) -> None:
    """Over two lasers, one of which becomes as much longer at instant 1 as the other becomes shorter."""
    delays = bare_run.plan.row_delay_ns.copy()
    first, second = (
        int(bare_run.plan.row_start[1] + np.searchsorted(bare_run.plan.snapshot(1).link, link)) for link in (0, 2)
    )
    delays[first] += MS
    delays[second] -= MS
    plan = replace(bare_run.plan, row_delay_ns=delays)
    paths = PlannedPaths(plan, PathFinder(plan, bare_run.routes), {})
    assert paths.at("p00s00", "p00s02", 0).delay_ns == paths.at("p00s00", "p00s02", 1).delay_ns
    assert paths.straddles_change("p00s00", "p00s02", 995 * MS, 1005 * MS)
    assert not paths.straddles_change("p00s00", "p00s02", 500 * MS, 510 * MS)


def test_lost_probe_has_a_plan_but_no_error(bare_run: Any) -> None:
    bare_run.write("probes.jsonl", [bare_run.probe(delay_ns=None, hops_seen=None)])
    (row,) = written(bare_run, "probes")
    assert row["delay_ns"] is None and row["error_ns"] is None and row["planned_delay_ns"] == 5 * MS


@pytest.mark.parametrize(
    ("sent_ms", "delay_ms", "straddles"),
    [
        (1950, 30, False),  # there before the handover
        (1990, 24, True),  # on its way at the handover
        (2010, 20, True),  # sent while the handover was still being applied, until 2.05 s
        (2060, 20, False),
        (990, 30, False),  # an instant that leaves the path as it is
    ],
)
def test_probe_straddles_a_change_of_its_path(bare_run: Any, sent_ms: int, delay_ms: int, straddles: bool) -> None:
    bare_run.write("instants.jsonl", [bare_run.instant(k, 50 * MS) for k in range(4)])
    bare_run.write("probes.jsonl", [bare_run.far_probe(t_send_ns=sent_ms * MS, delay_ns=delay_ms * MS)])
    assert written(bare_run, "probes")[0]["straddles_change"] is straddles


def test_handover_does_not_touch_a_probe_on_another_path(bare_run: Any) -> None:
    bare_run.write("probes.jsonl", [bare_run.probe(t_send_ns=1995 * MS)])
    assert written(bare_run, "probes")[0]["straddles_change"] is False


def test_torn_line_is_counted_in_the_table(bare_run: Any) -> None:
    bare_run.write("load.jsonl", [bare_run.load(1)])
    with (bare_run.journal / "load.jsonl").open("a") as file:
        file.write('{"t_ns": 2000')
    assert len(written(bare_run, "load")) == 1
    assert pq.read_schema(bare_run.folder.table("load")).metadata[LOST_LINES] == b"1"


def test_instant_has_its_lateness(bare_run: Any) -> None:
    bare_run.write("instants.jsonl", [bare_run.instant(2, 3 * MS)])
    (row,) = written(bare_run, "instants")
    assert (row["t_planned_ns"], row["t_done_ns"], row["lateness_ns"]) == (2 * S, 2 * S + 3 * MS, 3 * MS)


CHANGE_STREAM = pa.schema(
    [("k", pa.int32()), ("t_planned_ns", pa.int64()), ("t_applied_ns", pa.int64()), ("link", pa.int32())]
    + [("end", pa.int8()), ("up", pa.bool_()), ("planned_delay_ns", pa.int64()), ("set_delay_ns", pa.int64())]
    + [("rate_bit_s", pa.int64()), ("queue_byte", pa.int64()), ("loss_ratio", pa.float64())]
    + [("corruption_ratio", pa.float64()), ("duplication_ratio", pa.float64()), ("jitter_ns", pa.int64())]
)


def change_batch(k: int) -> pa.RecordBatch:
    ends = np.array([0, 1], dtype=np.int8)
    same = {"k": k, "t_planned_ns": k * S, "t_applied_ns": k * S + MS, "link": 3, "up": True}
    numbers = {"planned_delay_ns": 3 * MS, "set_delay_ns": 3 * MS - 200_000, "rate_bit_s": 500_000, "queue_byte": 9,
               "loss_ratio": 0.1, "corruption_ratio": 0.2, "duplication_ratio": 0.3, "jitter_ns": 7}  # fmt: skip
    columns = {name: [value] * 2 for name, value in {**same, **numbers}.items()} | {"end": ends}
    return pa.RecordBatch.from_pydict(columns, schema=CHANGE_STREAM)


def write_stream(run: Any, cut_byte: int = 0) -> None:
    path = run.journal / "changes.arrow"
    with pa.ipc.new_stream(path, CHANGE_STREAM) as stream:
        for k in (2, 3):
            stream.write_batch(change_batch(k))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - cut_byte])


def test_changes_carry_names_and_lateness(bare_run: Any) -> None:
    write_stream(bare_run)
    rows = written(bare_run, "changes")
    assert [(row["k"], row["node"], row["peer"]) for row in rows] == [
        (2, "p00s01", "gs-a"), (2, "gs-a", "p00s01"), (3, "p00s01", "gs-a"), (3, "gs-a", "p00s01"),
    ]  # fmt: skip
    assert {row["lateness_ns"] for row in rows} == {MS}
    assert pq.read_schema(bare_run.folder.table("changes")).metadata[b"rate_scale"] == b"0.5"


def test_changes_cut_off_by_a_kill_keep_their_whole_batches(bare_run: Any) -> None:
    write_stream(bare_run, cut_byte=100)
    assert {row["k"] for row in written(bare_run, "changes")} == {2}


def test_changes_cut_off_in_their_head_are_empty(bare_run: Any) -> None:
    write_stream(bare_run)
    path = bare_run.journal / "changes.arrow"
    path.write_bytes(path.read_bytes()[:40])
    assert written(bare_run, "changes") == []


def test_rows_that_several_processes_write_have_an_order_of_their_own(good_run: Any) -> None:
    """By time, and what has the same one by node as the plan has them and by name: none comes first by chance."""
    ends = [(S, "p00s02", "a"), (S, "p00s01", "b"), (S, "p00s01", "a"), (0, "gs-a", "z")]
    known = {"command": ["true"], "t_start_ns": 0, "t_due_ns": 0, "occasion": None, "about": None, "status": 0}
    lines = [{**known, "t_end_ns": t_ns, "node": node, "name": name, "outcome": "ended"} for t_ns, node, name in ends]
    found = []
    for journal in (lines, lines[::-1]):
        good_run.write("programs.jsonl", journal)
        found.append([(row["t_end_ns"], row["node"], row["name"]) for row in written(good_run, "programs")])
    assert found[0] == found[1] == [(0, "gs-a", "z"), (S, "p00s01", "a"), (S, "p00s01", "b"), (S, "p00s02", "a")]
