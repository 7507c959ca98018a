"""The machine around a guest: shares from two looks, and a real process that is seen running."""

from __future__ import annotations

import subprocess
import time

import pytest

from isl_emu.machine.load import Counters, CpuTimes, Outside, look, outside_between, parse_schedstat, watched_guest

S = 1_000_000_000


def seen(t_ns: int, spent: dict[str, tuple[int, int]], steal: int = 0) -> Outside:
    times = CpuTimes(200 * t_ns // S, 100 * t_ns // S, steal, 2)
    return Outside(5 * S + t_ns, Counters(t_ns, t_ns, times, None), spent)


def test_schedstat() -> None:
    assert parse_schedstat("808047 65804 4\n") == (808047, 65804)


def test_shares_of_all_tasks_together() -> None:
    before = seen(0, {"a": (10 * S, S), "gone": (S, S)})
    after = seen(2 * S, {"a": (10 * S + S // 2, S + S // 5), "new": (S // 10, S // 5)}, steal=40)
    record = outside_between(before, after)
    assert record == {
        "utc_ns": 7 * S,
        "guest_busy_ratio": pytest.approx(0.3),
        "guest_waiting_ratio": pytest.approx(0.2),
        "steal_ratio": pytest.approx(0.1),
        "pressure_ratio": None,
    }


def test_processes_that_wake_each_other_do_not_count_twice() -> None:
    record = outside_between(seen(0, {"a": (0, 0)}), seen(S, {"a": (7 * S // 10, S // 2)}))
    assert record["guest_waiting_ratio"] == pytest.approx(0.3)


def test_a_machine_that_does_not_count_is_a_gap() -> None:
    record = outside_between(seen(0, {}), seen(S, {}))
    assert record["guest_busy_ratio"] is None and record["guest_waiting_ratio"] is None


def test_a_process_in_the_folder_is_seen(tmp_path) -> None:
    records: list[dict] = []
    with subprocess.Popen(["sh", "-c", "while :; do :; done"], cwd=tmp_path) as busy:
        try:
            deadline = time.monotonic() + 60
            while not look(str(tmp_path)).spent:
                assert time.monotonic() < deadline
            with watched_guest(tmp_path, records.append):
                while not records and time.monotonic() < deadline:
                    time.sleep(0.05)
        finally:
            busy.kill()
    assert records[0]["guest_busy_ratio"] + records[0]["guest_waiting_ratio"] > 0.5
