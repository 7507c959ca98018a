"""The published experiment from outside, in short: a model goes up, spreads, and answers from then on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runs import chapters, finished, rows
from tests.scenarios import shipped, table

pytestmark = pytest.mark.emulation

RECEIVERS = ["p00s02", "p00s03"]
# Two satellites within one contact, ten times faster up and twice as fast across
CHANGES = {
    "start = 2026-03-20T15:03:20Z": "start = 2026-03-20T15:04:45Z",
    'duration = "240 s"': 'duration = "40 s"',
    'rate = "2 Gbit/s"': 'rate = "4 Gbit/s"',
    '"400 Mbit/s"': '"4 Gbit/s"',
    'satellites = ["p00s00", "p00s01", "p00s02", "p00s03", "p00s04", "p00s05"]': f"satellites = {RECEIVERS}",
    'begin = "5 s"': 'begin = "2 s"',
    'mean_interval = "5 s"': 'mean_interval = "2 s"',
    'start_after = "140 s"': 'start_after = "14 s"',
    'stop_after = "215 s"': 'stop_after = "37 s"',
    "max_answer_tokens = 48": "max_answer_tokens = 8",
}
DARK = RECEIVERS[1]  # for two seconds in the middle of its transfer
FAULT = table("[fault]", name="dark", satellites=[DARK], at="6 s", **{"for": "1 s"}, effect="power-off", reboot="1 s")


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """What a short run leaves."""
    out = tmp_path_factory.mktemp("uplink") / "out"
    finished(shipped("qwen3-uplink", CHANGES) + FAULT, out, report=True)
    return out


def test_each_byte_comes_once_and_is_verified(results):
    deliveries, transfers = rows(results, "deliveries"), rows(results, "transfers")
    assert sorted(row["satellite"] for row in deliveries) == RECEIVERS
    for row in deliveries:
        own = [attempt for attempt in transfers if attempt["destination"] == row["satellite"]]
        assert sum(attempt["received_byte"] for attempt in own) == row["received_byte"] <= row["size_byte"]
        assert all(attempt["digest_ok"] for attempt in own)
        assert row["t_held_ns"] is None or row["received_byte"] == row["size_byte"] or row["satellite"] == DARK
    (first,) = (row for row in deliveries if row["kind"] == "uplink")
    assert first["t_serving_ns"] is not None, first  # the other one serves too, unless the machine is slow
    assert {attempt["source"] for attempt in transfers if attempt["kind"] == "uplink"} == {"gs-chengdu"}
    assert "Uplink of the model" in chapters(results)


def test_a_satellite_that_lost_its_power_goes_on_with_what_it_had(results):
    (row,) = (row for row in rows(results, "deliveries") if row["satellite"] == DARK)
    (fault,) = rows(results, "faults")
    assert "what receives the model goes on" in fault["mended"], fault
    resumed_byte = [
        attempt["resumed_from_byte"] for attempt in rows(results, "transfers") if attempt["destination"] == DARK
    ]
    assert max(resumed_byte) > 0
    assert row["t_held_ns"] is not None, row


def test_a_satellite_serves_only_once_it_has_the_model(results):
    deliveries, requests = rows(results, "deliveries"), rows(results, "requests")
    serves_ns = {row["satellite"]: row["t_serving_ns"] for row in deliveries if row["t_serving_ns"] is not None}
    assert all(row["t_serving_ns"] is None or row["t_serving_ns"] >= row["t_held_ns"] > 0 for row in deliveries)
    assert all((row["t_serving_ns"] is None) == (row["error"] is not None) for row in deliveries)
    answered = [row for row in requests if row["outcome"] == "completed"]
    assert answered
    assert all(row["t_finish_ns"] > serves_ns[row["satellite"]] for row in answered)


def test_the_summary_tells_of_it(results):
    text = (results / "summary.txt").read_text()
    assert "MODEL UPLINK  98.4 MB to 2 satellites" in text
    assert "gs-chengdu to p00s0" in text
