"""What a live run makes of the ends of an uplink's processes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from isl_emu.errors import WorkloadError
from isl_emu.parts.uplink.start import TransferNodes, UplinkActivity
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import read_journal


def _activity(folder, **statuses):
    (folder / "journal").mkdir()
    processes = {
        name: SimpleNamespace(pid=n, poll=lambda status=status: status, wait=lambda timeout, status=status: status)
        for n, (name, status) in enumerate(statuses.items())
    }
    deaths = []
    watch = SimpleNamespace(
        record=lambda what, node, cause: deaths.append((what, node, cause)), is_declared=lambda pid: False
    )
    live = SimpleNamespace(folder=RunFolder(folder), watch=watch)
    return UplinkActivity(live, TransferNodes(live, -1, processes)), deaths


def _given_up(folder):
    return [tuple(row.values()) for row in read_journal(folder / "journal" / "unserved.jsonl").records]


def test_what_runs_or_has_ended_with_the_run_is_fine(tmp_path):
    activity, _ = _activity(tmp_path, a=None, b=0)
    activity.check()
    activity.await_end(1.0)
    assert _given_up(tmp_path) == []


def test_an_error_of_ours_ends_the_run_and_names_the_log(tmp_path):
    activity, _ = _activity(tmp_path, p00s00=1)
    with pytest.raises(WorkloadError, match=r"p00s00 ended with status 1, .*see journal/transfer-p00s00.log"):
        activity.check()


def test_a_killed_process_is_reported_once_and_the_run_goes_on(tmp_path):
    activity, deaths = _activity(tmp_path, p00s00=-9, p00s01=None)
    activity.check()
    activity.check()
    assert _given_up(tmp_path) == [("p00s00", "what received the model was killed (signal 9)")]
    assert deaths == [("model on its way", "p00s00", "what received the model was killed (signal 9)")]
