"""What the parts of a run wrote down becomes what one guest would have written."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa

from isl_emu.network.replay import CHANGES
from isl_emu.parts.probes.halves import joined_probes, joined_samples
from isl_emu.parts.probes.prober import LOST_AFTER_NS
from isl_emu.parts.serving.board_servers import paces
from isl_emu.results.gather import gather, merged_execution
from isl_emu.runs.execution import Execution
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import Journal, read_journal
from isl_emu.tables.arrow_streams import stream_batches

INSTANT = {"k": 0, "planned_ns": 0, "begun_ns": 1, "done_ns": 5, "links": 2, "routes": 3, "mismatches": 0}
SENT = {"a": "x", "b": "y", "seq": 4, "t_send_ns": 7, "delay_ns": None, "hops_seen": None, "lost_by": None}


def _journal(folder: Path, name: str, *records: dict) -> None:
    with Journal(folder / f"{name}.jsonl") as journal:
        for record in records:
            journal.append(record)


def _changes(path: Path, *batches: list[tuple[int, int, int, int, bool]]) -> None:
    with path.open("wb") as file, pa.ipc.new_stream(file, CHANGES) as stream:
        for rows in batches:
            known = [dict(zip(("k", "t_applied_ns", "link", "end", "up"), row, strict=True)) for row in rows]
            filled = [{field.name: row.get(field.name, 0) for field in CHANGES} for row in known]
            stream.write_table(pa.Table.from_pylist(filled, schema=CHANGES))


def test_journals_of_two_parts_are_those_of_one(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", "run")
    first, second = folder.journal, RunFolder(folder.path, 1).journal
    second.mkdir()
    _journal(first, "planned", {"id": 1})
    os.link(first / "planned.jsonl", second / "planned.jsonl")
    _journal(first, "instants", INSTANT)
    _journal(second, "instants", {**INSTANT, "begun_ns": 0, "done_ns": 9, "links": 4, "mismatches": 1})
    _journal(first, "drops", {"end": 0, "full": 1}, {"end": 5, "full": 1})
    _journal(second, "drops", {"end": 3, "full": 2})
    _journal(first, "fault_drops", {"event": 2, "packets": 1}, {"event": 0, "packets": 3})
    _journal(second, "fault_drops", {"event": 2, "packets": 5}, {"event": 0, "packets": 0})
    _journal(first, "incidents", {"id": 0, "t_ns": 1})
    _journal(second, "incidents", {"id": 0, "t_ns": 2})
    _journal(second, "processes", {"pid": 7})
    _changes(first / "changes.arrow", [(0, -3, 0, 0, True)], [(1, 9, 4, 1, True)], [(1, 9, 0, 0, False)])
    _changes(second / "changes.arrow", [(0, -3, 0, 1, True)], [(1, 9, 2, 0, True)])
    Execution(dropped_packets=2, mismatches=["a"], phases_s={"build": 1.0}).write(folder.execution)
    Execution(dropped_packets=3, mismatches=["b"], phases_s={"build": 2.0}, error="no").write(second / "execution.json")
    (second / "prober.log").write_text("said")

    gather(folder, 2)

    def records(name: str) -> tuple[dict, ...]:
        return read_journal(first / f"{name}.jsonl").records

    assert records("planned") == ({"id": 1},)
    assert records("instants") == ({**INSTANT, "begun_ns": 0, "done_ns": 9, "links": 6, "routes": 6, "mismatches": 1},)
    assert [record["end"] for record in records("drops")] == [0, 3, 5]
    assert records("fault_drops") == ({"event": 2, "packets": 6}, {"event": 0, "packets": 3})
    assert len({record["id"] for record in records("incidents")}) == 2
    assert records("processes") == ({"pid": 7},)
    batches = [
        batch.to_pandas()[["link", "end"]].to_numpy().tolist() for batch in stream_batches(first / "changes.arrow")
    ]
    assert batches == [[[0, 0], [0, 1]], [[2, 0], [4, 1]], [[0, 0]]]
    done = Execution.read(folder.execution)
    assert done is not None
    assert (done.dropped_packets, done.mismatches, done.phases_s, done.error) == (5, ["a", "b"], {"build": 2.0}, "no")
    assert (first / "prober.1.log").read_text() == "said" and not second.exists()


def test_a_part_that_wrote_nothing_down_was_killed(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", "run")
    RunFolder(folder.path, 1).journal.mkdir()
    Execution().write(folder.execution)
    gather(folder, 2)
    done = Execution.read(folder.execution)
    assert done is not None and done.error is not None and "killed" in done.error


def test_of_several_calibrations_the_one_counts_that_has_left_the_most() -> None:
    parts = [Execution(bias_ns=70, residue_ns=5), Execution(bias_ns=90, residue_ns=-20), Execution(error="no")]
    found = merged_execution(parts)
    assert (found.bias_ns, found.residue_ns) == (90, -20)


def test_sender_and_receiver_of_a_probe_make_one_record() -> None:
    arrival = {"a": "x", "b": "y", "seq": 4, "arrived_utc_ns": 130, "hops_seen": 3}
    whole = {**SENT, "delay_ns": 30, "hops_seen": 3}
    assert joined_probes([[{**SENT, "utc_ns": 100}], [arrival]]) == [whole]
    assert joined_probes([[{**SENT, "utc_ns": 100, "open": True}], [arrival]]) == [whole]
    assert joined_probes([[{**SENT, "utc_ns": 100}], []]) == [SENT]  # lost
    assert joined_probes([[{**SENT, "utc_ns": 100, "open": True}], []]) == []  # still on its way at the end
    late = {**arrival, "arrived_utc_ns": 101 + LOST_AFTER_NS}
    assert joined_probes([[{**SENT, "utc_ns": 100}], [late]]) == [SENT]
    earlier = {**SENT, "b": "z", "t_send_ns": 1, "delay_ns": 5, "hops_seen": 1}
    assert joined_probes([[SENT], [earlier]]) == [earlier, SENT]


def test_counters_and_paces_of_parts_are_taken_together() -> None:
    assert joined_samples([[{"t_ns": 0, "byte": {"0": 1}}], [{"t_ns": 0, "byte": {"3": 2}}]]) == [
        {"t_ns": 0, "byte": {"0": 1, "3": 2}}
    ]
    late = {"late_p50_ns": 0, "late_p99_ns": 1, "late_max_ns": 2}
    assert paces([[{"steps": 3, **late}], [{"steps": 4, **late, "late_max_ns": 5}]]) == [
        {"steps": 7, **late, "late_max_ns": 5}
    ]
    assert not paces([[], []])


def test_two_streams_without_a_batch_are_none(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", "run")
    RunFolder(folder.path, 1).journal.mkdir()
    gather(folder, 2)
    assert not (folder.journal / "changes.arrow").exists()
    assert np.array(list(folder.journal.glob("*.merged"))).size == 0
