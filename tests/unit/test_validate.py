from __future__ import annotations

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from isl_emu.cli import cli
from isl_emu.errors import ScenarioError
from isl_emu.validate import closed_forms, lasers, report, sgp4_verification
from isl_emu.validate.check import Check


@pytest.mark.parametrize(
    ("expected", "got", "tolerance", "passes"),
    [
        (1.0, 1.04, 0.05, True),
        (1.0, 1.06, 0.05, False),
        (1.0, 0.94, 0.05, False),
        (1.0, math.nan, 0.05, False),
        (1.0, math.inf, math.inf, False),
        (12, 12, 0.0, True),
        (12, 13, 0.0, False),
        (None, None, 0.05, True),
        (None, 1.0, 5.0, False),
        (1.0, None, 5.0, False),
        ("1-2-3", "1-2-3", 0.0, True),
        ("1-2-3", "1-2", 0.0, False),
    ],
)
def test_a_check_passes_within_its_tolerance(expected, got, tolerance, passes):
    assert Check("group", "name", expected, got, tolerance).passed is passes


def test_every_closed_form_holds():
    checks = list(closed_forms.checks())
    assert len(checks) > 50
    assert [check for check in checks if not check.passed] == []


def test_every_closed_form_of_energy_and_heat_holds():
    checks = list(closed_forms.energy_checks())
    assert len(checks) > 10
    assert [check for check in checks if not check.passed] == []


def test_a_shadow_of_another_width_fails_its_form(monkeypatch):
    shadow = closed_forms.in_shadow
    monkeypatch.setattr(closed_forms, "in_shadow", lambda r_km, sun: shadow(r_km * 1.01, sun))
    assert not all(check.passed for check in closed_forms.energy_checks() if "in shadow" in check.name)


def test_every_case_of_sgp4s_verification_holds():
    checks = list(sgp4_verification.checks())
    assert [check for check in checks if not check.passed] == []
    cases = sgp4_verification.verification_cases()
    assert len(cases) == 32
    assert sum(len(case.tsince_min) for case in cases) > 600


def test_a_wrong_orbit_fails_its_case(monkeypatch):
    case = sgp4_verification.verification_cases()[0]
    wrong = sgp4_verification.VerificationCase(case.satrec, case.tsince_min + 1e-6, case.r_teme_km, case.v_teme_km_s)
    monkeypatch.setattr(sgp4_verification, "verification_cases", lambda: [wrong])
    _, *of_case = sgp4_verification.checks()
    assert [check.passed for check in of_case] == [False, False]


def test_a_wrong_turn_of_the_earth_fails_its_form(monkeypatch):
    turned = closed_forms.sidereal_angle_rad
    monkeypatch.setattr(closed_forms, "sidereal_angle_rad", lambda start, ns: turned(start, ns) + 1e-6)
    failed = [check.name for check in closed_forms.checks() if not check.passed]
    assert failed == ["Greenwich at J2000"]


def test_a_laser_is_up_but_while_it_acquires(monkeypatch):
    monkeypatch.setattr(lasers, "UPTIME", {60: 0.979})
    checks = list(lasers.checks())
    assert [check.got for check in checks[:2]] == [30, pytest.approx(1 - 30 * 60 / 86_400)]
    assert [check for check in checks if not check.passed] == []


def test_a_laser_that_takes_longer_fails_its_uptime(monkeypatch):
    monkeypatch.setattr(lasers, "UPTIME", {120: 0.979})
    assert [check.passed for check in lasers.checks()] == [True, True, False]


def test_all_outside_truths_hold_and_have_names_of_their_own():
    checks = list(report.all_checks())
    assert [check for check in checks if not check.passed] == []
    names = [(check.group, check.name) for check in checks]
    assert len(names) == len(set(names))
    assert len({check.group for check in checks}) == 5


@pytest.fixture
def two_checks(monkeypatch):
    good, bad = Check("g", "good", 1.0, 1.001, 0.01, "km"), Check("g", "bad", None, np.nan, 0.01, "ms", "a note")
    monkeypatch.setattr(report, "GROUPS", (lambda: iter([good, bad]),))
    return good, bad


def test_a_failing_check_fails_the_command(two_checks, tmp_path):
    result = CliRunner().invoke(cli, ["validate", "--json", str(tmp_path / "checks.json")], standalone_mode=False)
    assert result.return_value == 1
    lines = {line.split()[0]: line for line in result.output.splitlines() if line.strip()}
    assert lines["good"].split()[1:] == ["1", "km", "1.001", "km", "0.01", "km", "pass"]
    assert lines["bad"].endswith("FAIL")
    assert "a note" in result.output
    assert "1 of 2 checks failed" in result.output
    document = json.loads((tmp_path / "checks.json").read_text())
    assert (document["passed"], document["failed"]) == (1, 1)
    assert document["checks"][0]["got"] == 1.001
    assert document["checks"][1]["got"] is None


def test_all_passing_is_said_and_exits_with_0(two_checks, monkeypatch):
    monkeypatch.setattr(report, "GROUPS", (lambda: iter([two_checks[0]]),))
    result = CliRunner().invoke(cli, ["validate"], standalone_mode=False)
    assert result.return_value == 0
    assert "all 1 checks passed" in result.output


def test_a_file_that_cannot_be_written_is_one_sentence(two_checks, tmp_path):
    with pytest.raises(ScenarioError, match="--json: .* cannot be written"):
        report.write_checks(two_checks, tmp_path / "no" / "folder.json")


def test_small_errors_are_shown_as_powers_of_ten():
    console = Console(width=120)
    with console.capture() as capture:
        console.print(report.table([Check("g", "tiny", 0.0, 4.9e-9, 2e-7, "km")]))
    assert "4.9e-09 km" in capture.get()
