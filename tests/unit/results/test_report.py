"""The summary says what happened: verdict first and last, questions with their answers, delays, and the machine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from isl_emu.files import write_json
from isl_emu.parts.questions.results import path_text
from isl_emu.results.conclude import conclude
from isl_emu.results.provenance import provenance
from isl_emu.results.render import styled
from isl_emu.tables.text import WIDTH, time_text

MS = 1_000_000
S = 1_000_000_000


def summary(run: Any) -> str:
    record = provenance(
        scenario_name="miniature", seed=1, rate_scale=0.5, plan_digest=run.plan.digest(),
        place="guest", reason="this kernel has no netem", models=[],
    )  # fmt: skip
    write_json(run.folder.provenance, record)
    conclude(run.folder, run.scenario, run.plan, run.routes)
    return run.folder.summary.read_text()


def test_verdict_is_the_first_and_the_last_line(good_run: Any) -> None:
    lines = summary(good_run).splitlines()
    assert lines[0] == lines[-1] == "VALID: the machine kept up with the plan"


def test_question_is_shown_with_path_answer_and_times(good_run: Any) -> None:
    text = summary(good_run)
    assert "gs-a ╌ p00s00 ═ p00s01 ═ p00s02 · 3 hops · planned RTT 24.0 ms\n" in text
    assert "Q  Why?\n" in text
    assert "A  Because of physics.\n" in text
    assert "completed · TTFT 300 ms · E2E 1.00 s · network 100 ms (10%) · 8 tokens" in text


def test_long_questions_and_answers_are_cut_also_without_blanks(good_run: Any) -> None:
    good_run.write("requests.jsonl", [good_run.request(0, question="为什么" * 1000, answer="Because. " * 1000)])
    text = summary(good_run)
    assert text.count("为") in range(130, 135) and text.count("Because.") == 44 and text.count(" ...\n") == 2


def test_latency_table_and_outcomes(good_run: Any) -> None:
    cut = {"outcome": "path_lost", "error": "no token came any more", "answer": "Bec", "server_prompt_ns": None}
    good_run.write("requests.jsonl", [good_run.request(0), good_run.request(1, **cut)])
    text = summary(good_run)
    assert "2 questions: 1 completed, 1 path_lost" in text
    assert "1 of 2 within the deadline of 2 s" in text
    assert "8.0 tokens/s" in text
    assert "path_lost: no token came any more" in text
    (ttft,) = [line.split() for line in text.splitlines() if line.startswith("  TTFT")]
    assert ttft[-8:] == ["300", "ms"] * 4  # the cut answer is not among them


def test_delay_table_compares_planned_and_measured(good_run: Any) -> None:
    (row,) = [line.split() for line in summary(good_run).splitlines() if line.startswith("  p00s00 → p00s01")]
    assert row[3:] == ["1", *["5.00", "ms", "9", "us", "41", "us", "5.05", "ms", "41", "us", "0", "us"], "1", "0", "0"]


def test_the_ways_of_strayed_probes_are_kept(good_run: Any) -> None:
    good_run.write("probes.jsonl", [good_run.probe(hops_seen=3), good_run.probe(seq=1, hops_seen=3)])
    assert summary(good_run).startswith("INVALID")
    found = json.loads(good_run.folder.fidelity.read_text())["probes"]
    assert found["strayed_by"] == {"p00s00 to p00s01 over 3 instead of 1": 2}


def test_machine_section(good_run: Any) -> None:
    text = summary(good_run)
    assert "late by 1.00 ms (p50), 1.00 ms (p99), 1.00 ms (max) · 4 of 4 instants applied" in text
    assert "adds 200 us by itself, which is taken off; 20 us left" in text
    assert "30% busy, saturated for 0% of the time" in text


def test_what_others_took_from_a_guest_is_told(good_run: Any) -> None:
    shares = {"guest_busy_ratio": 0.3, "guest_waiting_ratio": 0.04, "steal_ratio": 0.0, "pressure_ratio": 0.5}
    good_run.write("outside.jsonl", [{"utc_ns": 1_773_979_202 * S, **shares}])
    end = {"error": None, "mismatches": [], "t0_utc": "2026-03-20T04:00:00+00:00", "ended_ns": 4 * S}
    good_run.write("execution.json", [end])
    assert "others had the guest's CPU when it wanted to run for 4.0% of the time" in summary(good_run)


def test_pauses_and_an_early_end_are_told_at_the_top(good_run: Any) -> None:
    good_run.write("pauses.jsonl", [{"t_ns": 2 * S, "lasted_ns": 90 * S}])
    good_run.write("execution.json", [{"error": None, "mismatches": [], "ended_ns": 3 * S}])
    lines = summary(good_run).splitlines()
    assert lines[0] == "VALID: the machine kept up with the plan until its user ended the run at 3.00 s"
    assert "ended by its user at 3.00 s of 4.00 s: all figures are up to there" in lines
    assert "paused at 2.00 s for 90.0 s; emulated time stood meanwhile" in lines


def test_invalid_run_gives_its_reasons_before_the_last_line(good_run: Any) -> None:
    good_run.write("instants.jsonl", [good_run.instant(k, 350 * MS) for k in range(4)])
    text = summary(good_run)
    assert text.splitlines()[0].startswith("INVALID")
    assert "350 ms, but at most 250 ms is allowed" in text.partition("WHY IT IS INVALID")[2]


def test_path_change_during_an_answer_is_told(good_run: Any) -> None:
    good_run.write("requests.jsonl", [good_run.request(t_finish_ns=2500 * MS, e2e_ns=2 * S)])
    assert "1 path change meanwhile" in summary(good_run)


def test_run_without_questions_has_no_such_sections(good_run: Any) -> None:
    (good_run.journal / "requests.jsonl").unlink()
    text = summary(good_run)
    assert "QUESTIONS" not in text and "TTFT" not in text
    assert "DELAY" in text and "MACHINE" in text


def test_long_texts_are_wrapped(good_run: Any) -> None:
    many = [good_run.request(number, answer="word " * 60) for number in range(30)]
    good_run.write("requests.jsonl", many)
    text = summary(good_run)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "... and 10 more in requests.parquet" in text


def test_killed_run_is_reported_and_keeps_its_journal(bare_run: Any) -> None:
    assert summary(bare_run).startswith("INVALID")
    assert bare_run.journal.is_dir()


def test_complete_run_moves_its_journal_into_tables(good_run: Any) -> None:
    summary(good_run)
    assert not good_run.journal.exists()
    record = json.loads(good_run.folder.provenance.read_text())
    assert record["execution"]["bias_ns"] == 200_000
    assert record["finished_utc"] >= record["started_utc"]


def test_colours_change_no_text(good_run: Any) -> None:
    text = summary(good_run)
    assert styled(text).plain == text
    assert any(span.style == "bold green" for span in styled(text).spans)


def test_ground_links_and_lasers_look_different() -> None:
    assert path_text(["gs-a", "s0", "s1", "gs-b"], {"gs-a", "gs-b"}) == "gs-a ╌ s0 ═ s1 ╌ gs-b"


@pytest.mark.parametrize(
    ("value_ns", "text"),
    [
        (None, "-"),
        (0, "0 us"),
        (312_400, "312 us"),
        (999_600, "1.00 ms"),
        (9_996_000, "10.0 ms"),
        (21_340_000, "21.3 ms"),
        (312_000_000, "312 ms"),
        (999_600_000, "1.00 s"),
        (-2_310_000_000, "-2.31 s"),
        (120 * S, "120 s"),
    ],
)
def test_times_have_three_digits_in_a_fitting_unit(value_ns: float | None, text: str) -> None:
    assert time_text(value_ns) == text


def test_a_run_without_journals_says_why_it_ended(bare_run: Any) -> None:
    conclude(bare_run.folder, bare_run.scenario, bare_run.plan, bare_run.routes, failure="guest kernel: it died")
    assert "only a complete run counts: guest kernel: it died" in " ".join(bare_run.folder.summary.read_text().split())
    assert json.loads(bare_run.folder.provenance.read_text())["execution"]["error"] == "guest kernel: it died"
    assert bare_run.journal.is_dir()


def test_what_the_live_part_says_about_its_end_goes_first(good_run: Any) -> None:
    good_run.write("execution.json", [{"error": "disk full", "mismatches": []}])
    conclude(good_run.folder, good_run.scenario, good_run.plan, good_run.routes, failure="it ended with status 1")
    assert json.loads(good_run.folder.provenance.read_text())["execution"]["error"] == "disk full"


DEATH = {"t_ns": 1_500 * MS, "t_end_ns": None, "kind": "death", "node": "p00s01", "what": "model server"}
CHANGE = {"t_ns": 500 * MS, "t_end_ns": S, "kind": "intervention", "node": "p00s00", "what": "network"}


def test_who_changed_the_network_is_told_apart_from_the_machine(good_run: Any) -> None:
    good_run.write("incidents.jsonl", [{**CHANGE, "cause": "to-p00s01 is down"}])
    text = summary(good_run)
    assert text.splitlines()[0].startswith("INTERVENED: the machine kept up with the plan, but somebody changed")
    assert "- network on p00s00 at t = 0.500 s: to-p00s01 is down; put right at 1.000 s\n" in text
    fidelity = json.loads(good_run.folder.fidelity.read_text())
    assert (fidelity["verdict"], fidelity["reasons"], len(fidelity["interventions"])) == ("intervened", [], 1)


def test_what_died_makes_a_run_invalid_with_its_time_and_cause(good_run: Any) -> None:
    good_run.write("incidents.jsonl", [{**DEATH, "cause": "it was killed by signal 9, SIGKILL"}] * 7)
    text = summary(good_run)
    assert text.startswith("INVALID")
    flat = " ".join(text.split())
    assert "model server on p00s01 at t = 1.500 s: it was killed by signal 9, SIGKILL, but it was to last" in flat
    assert "deaths: 2 more are in incidents.parquet" in flat


def test_probes_during_an_intervention_are_not_held_against_the_routes(good_run: Any) -> None:
    good_run.write("probes.jsonl", [good_run.probe(hops_seen=4), good_run.probe(t_send_ns=2 * S), good_run.far_probe()])
    good_run.write("incidents.jsonl", [{**CHANGE, "t_ns": 300 * MS, "t_end_ns": S, "cause": "routes"}])
    assert summary(good_run).startswith("INTERVENED")


def test_what_processes_printed_stays(good_run: Any) -> None:
    (good_run.journal / "server-p00s01.log").write_text("out of tokens")
    (good_run.journal / "client.log").write_text("")
    summary(good_run)
    assert [log.name for log in good_run.folder.logs.iterdir()] == ["server-p00s01.log"]
    assert not good_run.journal.exists()
