"""What the table and the summary say about training, from rows made by hand."""

from __future__ import annotations

import pyarrow as pa
import pytest

from isl_emu.parts.part import Spells
from isl_emu.parts.training.part import TrainingPart, learning_spells
from isl_emu.parts.training.results import TRAINING, training_section
from isl_emu.runs.journal import Journal
from isl_emu.scenario.parse import parse_scenario
from isl_emu.units import NS_PER_S
from tests.unit.training.test_scenario import HEAD, training

MS = 1_000_000


def row(step: int, outcome: str = "completed", **changes) -> dict:
    begun_ns = step * NS_PER_S
    return {
        "job": "one-model", "gradients": "real", "collective": "ring", "step": step, "outcome": outcome,
        "local_steps": 1, "ring": 1, "participants": ["p00s00", "p00s01"], "lost": [], "t_start_ns": begun_ns,
        "t_end_ns": begun_ns + 800 * MS, "compute_ns": [400 * MS, 300 * MS],
        "communication_ns": [400 * MS, 500 * MS], "sent_byte": [1_000_000] * 2, "received_byte": [1_000_000] * 2,
        "theory_byte": 1_000_000, "collective_ns": 400 * MS, "predicted_ns": 200 * MS, "handed_over_byte": 0,
        "tokens": 100, "loss": 4.0 - step, **changes,
    }  # fmt: skip


def test_the_rows_fit_the_table() -> None:
    assert pa.Table.from_pylist([row(0), row(1, loss=None)], schema=TRAINING).num_rows == 2
    assert set(row(0)) == set(TRAINING.names)


def test_the_summary_has_steps_losses_times_and_rates() -> None:
    nobody = {"t_start_ns": None, "compute_ns": [None] * 2, "communication_ns": [None] * 2, "collective_ns": None}
    rows = [row(0), row(1), row(2, "lost", lost=["p00s01"], **nobody), row(2, handed_over_byte=3_000_000)]
    text = "\n".join(training_section(rows))
    assert text.startswith("TRAINING  one-model: 2 satellites, real gradients, ring")
    assert "4 steps: 3 completed, 1 lost · lost on the way: p00s01" in text
    assert "107 tokens/s · loss 4.00 at first, 2.00 at last · 3 MB of weights handed over" in text
    assert "at 20.0 of at most 40.0 Mbit/s" in text
    assert [line.split()[-3:] for line in text.splitlines() if "its share" in line] == [["62%", "62%", "62%"]]


def test_a_training_that_never_ended_a_step_has_a_section_too() -> None:
    text = "\n".join(training_section([row(0, "unfinished", t_start_ns=None)]))
    assert "1 step: 1 unfinished" in text


def test_real_training_accounts_for_its_cpus() -> None:
    scenario = parse_scenario(HEAD + training('name = "one-model"', kind="[training.real]\ncpus = 0.5"), "here")
    learning = Spells(learning_spells([row(0), row(1)], scenario))
    assert learning.mean_cpus(0, NS_PER_S) == pytest.approx(0.5 * (0.4 + 0.3))
    assert learning.mean_cpus(0, 2 * NS_PER_S) == pytest.approx(0.5 * (0.4 + 0.3))
    assert learning.mean_cpus(5 * NS_PER_S, 6 * NS_PER_S) == 0.0
    assert Spells([]).mean_cpus(0, NS_PER_S) == 0.0


def test_the_status_tells_how_many_steps_are_done(tmp_path) -> None:
    assert not list(TrainingPart().status(tmp_path))
    with Journal(tmp_path / "training.jsonl") as journal:
        for record in (row(0), row(0, job="another"), row(1), row(2, "lost", participants=["p00s00"])):
            journal.append(record)
    assert list(TrainingPart().status(tmp_path)) == [
        "training one-model: 2 steps done, 1 satellite in the last",
        "training another: 1 step done, 2 satellites in the last",
    ]
