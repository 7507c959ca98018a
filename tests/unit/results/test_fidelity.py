"""A good run is valid; each thing that distorts one is found, with its value and its limit in the reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from isl_emu.results.conclude import write_tables
from isl_emu.results.fidelity import Fidelity, assess

MS = 1_000_000
S = 1_000_000_000


def judged(run: Any) -> Fidelity:
    finished = run.finished()
    write_tables(finished)
    return assess(finished)


def test_good_run_is_valid(good_run: Any) -> None:
    fidelity = judged(good_run)
    assert fidelity.reasons == () and fidelity.valid
    assert (fidelity.calibration.bias_ns, fidelity.calibration.residue_ns) == (200_000, 20_000)
    assert fidelity.replay.lateness_ns.p99 == MS


def end_with_error(run: Any) -> None:
    run.write("execution.json", [{"error": "server: p00s01 did not start"}])


def be_killed(run: Any) -> None:
    (run.journal / "execution.json").unlink()


def be_late(run: Any) -> None:
    run.write("instants.jsonl", [run.instant(k, 350 * MS) for k in range(4)])


def stop_early(run: Any) -> None:
    run.write("instants.jsonl", [run.instant(k) for k in range(3)])


def hold_something_else(run: Any) -> None:
    run.write("instants.jsonl", [run.instant(0, mismatches=2), *(run.instant(k) for k in (1, 2, 3))])


def read_back_something_else(run: Any) -> None:
    run.write("execution.json", [{"error": None, "mismatches": ["p00s00: the delay to p00s01 is 4 ms, not 5 ms"]}])


def be_slow_on_each_hop(run: Any) -> None:
    run.write("probes.jsonl", [*(run.probe(delay_ns=6 * MS) for _ in range(3)), run.far_probe()])


def be_very_slow_sometimes(run: Any) -> None:
    probes = [run.probe() for _ in range(20)] + [run.far_probe()] * 4
    run.write("probes.jsonl", [*probes, *(run.probe(delay_ns=35 * MS) for _ in range(3))])


def lose_all_of_a_pair(run: Any) -> None:
    run.write("probes.jsonl", [run.probe(), run.far_probe(delay_ns=None, hops_seen=None)])


def be_refused_on_the_way(run: Any) -> None:
    lost = {"delay_ns": None, "hops_seen": None, "lost_by": "no route at p00s01"}
    run.write("probes.jsonl", [run.probe(), *(run.far_probe(seq=seq, **lost) for seq in (0, 1))])


def measure_nothing(run: Any) -> None:
    (run.journal / "probes.jsonl").unlink()


def go_astray(run: Any) -> None:
    run.write("probes.jsonl", [run.probe(hops_seen=2), run.far_probe()])


def share_a_full_cpu(run: Any) -> None:
    long = {"t_finish_ns": 2 * S, "server_predict_ns": 1000 * MS}
    run.write("requests.jsonl", [run.request(0, **long), run.request(1, satellite="p00s00", **long)])
    run.write("load.jsonl", [run.load(1), run.load(2, 1.0), run.load(3), run.load(4)])


def be_crowded_by_strangers(run: Any) -> None:
    run.write("load.jsonl", [run.load(1), run.load(2), run.load(3), run.load(4, 0.99)])


@pytest.mark.parametrize(
    ("spoil", "found", "rule"),
    [
        (end_with_error, "server: p00s01 did not start", "complete run"),
        (be_killed, "no execution.json", "comes to its end"),
        (be_late, "is 350 ms", "at most 250 ms"),
        (stop_early, "3 of 4 instants", "all of them"),
        (hold_something_else, "2 settings differ", "none may"),
        (read_back_something_else, "1 setting differs", "none may"),
        (be_slow_on_each_hop, "median error per hop is 991 us", "at most 250 us"),
        (be_very_slow_sometimes, "95th percentile of the error is 3", "at most 10 ms"),
        (lose_all_of_a_pair, "gs-a to p00s02", "a path was planned; no node said why"),
        (be_refused_on_the_way, "gs-a to p00s02", "a path was planned; nodes said: 2 x no route at p00s01"),
        (measure_nothing, "nothing measured", "plans probes"),
        (
            go_astray,
            "1 of 2 crossed another number of links",
            "none may (1 x p00s00 to p00s01 over 2 instead of 1)",
        ),
        (share_a_full_cpu, "saturated for 25.0%", "at most 10.0%"),
        (be_crowded_by_strangers, "saturated for 25.0%", "at most 10.0%"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_distortion_is_the_one_reason(good_run: Any, spoil: Callable[[Any], None], found: str, rule: str) -> None:
    spoil(good_run)
    fidelity = judged(good_run)
    (reason,) = fidelity.reasons
    assert not fidelity.valid
    assert found in reason and rule in reason


def test_a_queue_of_the_runs_own_is_no_distortion(good_run: Any) -> None:
    be_very_slow_sometimes(good_run)
    good_run.write("probed_ends.jsonl", [{"t_ns": k * S, "byte": {"0": k * 10**6}} for k in range(5)])
    fidelity = judged(good_run)
    assert fidelity.valid
    assert fidelity.parts["probes"].queued_ns.max > 25 * MS


def test_in_exact_time_no_probe_may_be_off_at_all(good_run: Any) -> None:
    good_run.write("execution.json", [{"error": None, "clock": "exact", "mismatches": []}])
    good_run.write("instants.jsonl", [good_run.instant(k, 0) for k in range(4)])
    planned_ns = 5 * MS + round(58 * 8 / 50e6 * S)
    good_run.write("probes.jsonl", [good_run.probe(delay_ns=planned_ns + off_ns) for off_ns in (0, 1, -1)])
    assert judged(good_run).valid
    good_run.write("probes.jsonl", [good_run.probe(delay_ns=planned_ns + off_ns) for off_ns in (0, 0, -2)])
    (reason,) = judged(good_run).reasons
    assert "largest error per hop is 2 ns, but at most 1 ns" in reason


def test_in_exact_time_no_change_and_no_token_may_be_late_at_all(good_run: Any) -> None:
    good_run.write("execution.json", [{"error": None, "clock": "exact", "mismatches": []}])
    good_run.write("probes.jsonl", [good_run.probe(delay_ns=5 * MS + round(58 * 8 / 50e6 * S))])
    good_run.write("instants.jsonl", [good_run.instant(k, 0) for k in range(4)])
    pace = {"steps": 200, "late_p50_ns": 0, "late_p99_ns": 0, "late_max_ns": 0}
    good_run.write("pace.jsonl", [pace])
    assert judged(good_run).valid
    good_run.write("pace.jsonl", [{**pace, "late_max_ns": 1}])
    good_run.write("instants.jsonl", [good_run.instant(k, 1 if k == 3 else 0) for k in range(4)])
    late, token = judged(good_run).reasons
    assert "a change was late by 1 ns, but none may" in late
    assert "a token was late by 1 ns, but none may" in token


def test_two_distortions_give_two_reasons(good_run: Any) -> None:
    be_late(good_run)
    go_astray(good_run)
    assert len(judged(good_run).reasons) == 2


def test_one_satellite_may_fill_the_only_cpu(good_run: Any) -> None:
    """One server computes as it would in orbit: a full CPU is no distortion by itself."""
    good_run.write("requests.jsonl", [good_run.request(t_finish_ns=2 * S, server_predict_ns=1000 * MS)])
    good_run.write("load.jsonl", [good_run.load(1), good_run.load(2, 1.0), good_run.load(3), good_run.load(4)])
    fidelity = judged(good_run)
    assert fidelity.valid
    assert (fidelity.cpu.full_ratio, fidelity.cpu.saturated_ratio, fidelity.cpu.crowded_answers) == (0.25, 0.0, 0)


def test_answers_that_shared_the_cpu_are_counted(good_run: Any) -> None:
    share_a_full_cpu(good_run)
    assert judged(good_run).cpu.crowded_answers == 2


def test_straddling_probes_and_probes_without_a_path_say_nothing(good_run: Any) -> None:
    straddling = good_run.far_probe(t_send_ns=1990 * MS, delay_ns=900 * MS)
    good_run.write("probes.jsonl", [good_run.probe(), good_run.far_probe(), straddling])
    fidelity = judged(good_run)
    assert fidelity.valid
    assert (fidelity.parts["probes"].sent, fidelity.parts["probes"].arrived, fidelity.parts["probes"].straddling) == (
        3,
        3,
        1,
    )
    assert fidelity.parts["probes"].error_ns.max < 3 * MS


def test_lost_probes_are_counted_but_are_no_error(good_run: Any) -> None:
    lost = good_run.probe(delay_ns=None, hops_seen=None)
    good_run.write("probes.jsonl", [good_run.probe(), lost, lost, good_run.far_probe()])
    fidelity = judged(good_run)
    assert fidelity.valid
    assert (fidelity.parts["probes"].lost, fidelity.parts["probes"].error_ns.count) == (2, 2)


def test_error_per_hop_is_over_the_links_of_the_path(good_run: Any) -> None:
    good_run.write("probes.jsonl", [good_run.far_probe()])
    probes = judged(good_run).parts["probes"]
    a_millionth = 1e-6
    assert probes.error_per_hop_ns.p50 == pytest.approx(probes.error_ns.p50 / 3, rel=a_millionth)


def test_run_without_any_journal_is_invalid_and_does_not_crash(bare_run: Any) -> None:
    fidelity = judged(bare_run)
    assert not fidelity.valid
    assert len(fidelity.reasons) == 3  # killed, no instants, no probes


def test_json_has_verdict_reasons_figures_and_limits(good_run: Any) -> None:
    be_late(good_run)
    content = json.loads(judged(good_run).to_json())
    assert content["verdict"] == "invalid" and len(content["reasons"]) == 1
    assert content["replay"]["lateness_ns"]["p99"] == 350 * MS
    assert content["limits"]["lateness_p99"] == "250 ms"
    assert content["dropped_packets"] == 7
