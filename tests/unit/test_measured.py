"""Comparisons with measurements: what the figures are, that they can fail, and what is refused."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from isl_emu.cli import cli
from isl_emu.energy.satellite import Radiators
from isl_emu.errors import ScenarioError
from isl_emu.limits import MIB
from isl_emu.validate import measured
from isl_emu.validate.measured import checks, slot_pattern
from isl_emu.validate.report import conclusion
from tests.scenarios import head, shell, station, table

MINUTES = 20
START = "2024-07-17T18:00:12Z"
START_S = 1_721_239_212.0
FLEET = shell(1584, 72, 17, altitude="550 km", inclination="53 deg", lasers={"topology": "none"})
HERE = {"latitude": "48.4 deg", "longitude": "-123.4 deg", "min_elevation": "25 deg"}
NEAR = {"latitude": "48.75 deg", "longitude": "-122.48 deg", "min_elevation": "25 deg"}
ROOT = Path(__file__).parents[2]
ROWS_OF_THE_PAGE = {  # of docs/measured.md, and the checks that they are
    "Victoria, bent pipe: least RTT": "least RTT",
    "the same by geometry and lines alone": "the same by geometry and lines alone",
    "change of the RTT's floor at a slot's boundary over that inside, from second 12": (
        "floor's change across a slot's boundary, against inside, from :12, in the plan"
    ),
    "the same, largest of four other phases": "the same, largest of the other phases, in the plan",
    "median change at a boundary": "median change of the floor",
    "median floor of a slot": "median floor of a slot",
    "Tarawa, by lasers: least RTT": "Tarawa> least RTT",
    "Louvain: share of 15-s slots with another satellite": "share of slots",
    "median elevation of the satellite that serves": "median elevation",
    "quartiles of it": "lower quartile",
    "BUPT-1, battery on a bench: round trip": "round trip, with our defaults",
}
ORIGIN = {"source": "made up", "licence": "none"}


def a_trace(phase_s: float = 12.0, floor_ms: float = 30.0) -> tuple[np.ndarray, np.ndarray]:
    """Round trips, five a second, whose floor jumps by 4 ms from slot to slot and hardly changes inside."""
    unix_s = START_S + np.arange(0, MINUTES * 60, 0.2)
    slot = np.floor((unix_s - phase_s) / 15).astype(int)
    noise_ms = np.random.default_rng(1).exponential(2.0, len(unix_s))
    return unix_s, floor_ms + 4.0 * (slot % 2) + 0.01 * ((unix_s - phase_s) % 15) + noise_ms


def test_a_jump_at_the_boundaries_stands_out_at_the_right_phase_only():
    unix_s, rtt_ms = a_trace()
    ratios = [slot_pattern(unix_s, rtt_ms, phase_s, 15.0).ratio for phase_s in (12.0, 15.0, 18.0, 21.0, 24.0)]
    assert ratios[0] > 5.0
    assert max(ratios[1:]) < 2.0
    assert slot_pattern(unix_s, rtt_ms, 12.0, 15.0).across_ms == pytest.approx(4.0, abs=0.5)


def test_lost_packets_and_their_windows_are_left_out():
    unix_s, rtt_ms = a_trace()
    lossy_ms = np.where(np.arange(len(rtt_ms)) % 3 == 0, np.nan, rtt_ms)
    assert slot_pattern(unix_s, lossy_ms, 12.0, 15.0).ratio > 4.0
    assert np.isnan(slot_pattern(unix_s[:0], rtt_ms[:0], 12.0, 15.0).ratio)


@pytest.fixture
def folder(tmp_path):
    """A bent pipe, and a trace of round trips that are 10 ms longer than its geometry."""
    text = (
        head(start=START, duration="600 s", step="3 s")
        + FLEET
        + station("user", **HERE, handover="scheduled", access_delay="5 ms", scheduler={"through": ["gateway"]})
        + station("gateway", **NEAR, handover="follow", antennas=4, forwards=True)
        + table("[place]", name="pop", latitude="47.6 deg", longitude="-122.33 deg")
        + table("[terrestrial]", between=["gateway", "pop"])
    )
    (tmp_path / "pipe.toml").write_text(text)
    write_trace(tmp_path, *a_trace(floor_ms=17.5))
    case = {"name": "here", **ORIGIN, "data": "rtt.csv.gz", "scenario": "pipe.toml", "between": ["user", "pop"]}
    (tmp_path / "cases.toml").write_text(table("[rtt]", **case, least="predicted"))
    return tmp_path


def write_trace(folder, unix_s, rtt_ms):
    lines = [f"{t:.3f},{'' if np.isnan(rtt) else f'{rtt:.2f}'}" for t, rtt in zip(unix_s, rtt_ms)]
    (folder / "rtt.csv.gz").write_bytes(gzip.compress("\n".join(["unix_s,rtt_ms", *lines, ""]).encode()))


def failed(path, data=None):
    return [check.name for check in checks(path, data) if not check.passed]


def test_a_place_of_ones_own_is_compared_with_its_scenario(folder):
    found = list(checks(folder / "cases.toml"))
    assert [check.name for check in found if not check.passed] == []
    assert {check.basis for check in found} == {"predicted", "measured"}, "nothing of it was calibrated"
    named = {check.name: check for check in found}
    assert named["the same by geometry and lines alone"].got == pytest.approx(named["least RTT"].got - 10.0)


def test_a_trace_with_another_phase_or_a_longer_way_fails(folder):
    write_trace(folder, *a_trace(phase_s=6.0, floor_ms=17.5))
    in_the_data = [name for name in failed(folder / "cases.toml") if name.endswith("in the data")]
    assert len(in_the_data) == 2
    write_trace(folder, *a_trace(floor_ms=25.0))
    assert failed(folder / "cases.toml") == ["least RTT"]


def test_a_scenario_that_chooses_at_other_times_fails(folder):
    text = (folder / "pipe.toml").read_text()
    (folder / "pipe.toml").write_text(
        text.replace('handover = "scheduled"', 'handover = "longest-contact"')
        .replace('scheduler = { through = ["gateway"] }\n', "")
        .replace('handover = "follow"', 'handover = "highest-elevation"')
        .replace("antennas = 4", "antennas = 40")
    )
    assert any(name.endswith("from :12, in the plan") for name in failed(folder / "cases.toml"))


def test_a_scenario_whose_steps_are_longer_than_a_window_is_refused(folder):
    (folder / "pipe.toml").write_text((folder / "pipe.toml").read_text().replace('step = "3 s"', 'step = "5 s"'))
    with pytest.raises(ScenarioError, match="time.step is 5 s, but a slot has 5 windows; shorten it to 3 s"):
        list(checks(folder / "cases.toml"))


def test_a_least_round_trip_that_was_published_stands_for_data(folder):
    text = (folder / "cases.toml").read_text()
    (folder / "cases.toml").write_text(text.replace('"rtt.csv.gz"', '"elsewhere.csv"') + 'least_rtt = "40 ms"\n')
    found = {check.name: check for check in checks(folder / "cases.toml")}
    assert len(found) == 4
    assert (found["least RTT"].expected, found["least RTT"].passed) == (40.0, False)
    (folder / "cases.toml").write_text((folder / "cases.toml").read_text() + "judged = false\n")
    assert failed(folder / "cases.toml") == []


def test_who_served_is_compared_by_data_or_by_what_follows_from_them(folder):
    slots = 40
    rows = [f"{START_S + 15 * n:.0f},s{n // 2},{50 + n % 3}" for n in range(slots)]
    (folder / "served.csv").write_text("\n".join(["slot_start_unix,satellite,elevation_deg", *rows]))
    case = {"name": "here", **ORIGIN, "scenario": "pipe.toml", "station": "user", "statistics": "predicted"}
    (folder / "serving.toml").write_text(table("[serving]", **case, data="served.csv"))
    by_data = {check.name: check.expected for check in checks(folder / "serving.toml")}
    assert by_data["share of slots with another satellite"] == pytest.approx(19 / 39)
    assert by_data["median elevation"] == 51.0
    derived = {"changes": 0.5, "elevation_quartiles": ["50 deg", "51 deg", "52 deg"]}
    (folder / "serving.toml").write_text(table("[serving]", **case, data="elsewhere.csv", **derived))
    assert {check.name: check.expected for check in checks(folder / "serving.toml")}["median elevation"] == (
        pytest.approx(51.0)
    )
    (folder / "serving.toml").write_text(table("[serving]", **case, data="elsewhere.csv"))
    with pytest.raises(ScenarioError, match="serving 'here' has data that are not there"):
        list(checks(folder / "serving.toml"))


def test_one_node_of_heat_is_found_again_from_what_it_did(tmp_path):
    radiator = Radiators(*(np.array([value]) for value in (0.02, 120.0, 0.8, 0.0, 0.0)))
    for name, milliampere in (("low", 500.0), ("middle", 600.0), ("high", 700.0)):
        now_k, rows = np.array([285.0]), ["T,C,mA"]
        for t_s in range(0, 11_000, 20):
            rows.append(f"{t_s},{now_k[0] - 273.15:.4f},{milliampere}")
            now_k = radiator.temperature_after_k(now_k, np.array([milliampere / 1000 * 12.0]), 20.0)
        (tmp_path / f"{name}.csv").write_text("\n".join(rows))
    columns = {"time_column": "T", "temperature_column": "C", "current_column": "mA", "voltage_v": 12.0}
    case = {"name": "board", **ORIGIN, **columns, "area": "0.03 m2", "heat_capacity": "300 J/K"}
    loads = "".join(table("[heat.load]", name=name, data=f"{name}.csv") for name in ("low", "middle", "high"))
    (tmp_path / "cases.toml").write_text(table("[heat]", **case, between=["60 min", "180 min"]) + loads)
    found = list(checks(tmp_path / "cases.toml"))
    assert [check.passed for check in found] == [True] * 9
    assert max(check.got for check in found[:6]) < 0.1
    assert [check.basis for check in found[3:6]] == ["predicted"] * 3


def test_the_round_trip_of_a_battery_is_what_it_gives_of_what_it_took(tmp_path):
    (tmp_path / "bench.csv").write_text("kind,energy_wh\ncharge,1\ncharge,100\ndischarge,2\ndischarge,81\n")
    (tmp_path / "cases.toml").write_text(table("[battery]", name="cell", **ORIGIN, data="bench.csv"))
    ours, fitted = checks(tmp_path / "cases.toml")
    assert (ours.expected, ours.got, ours.passed) == (0.81, pytest.approx(0.9025), False)
    assert (fitted.got, fitted.passed) == (pytest.approx(0.81), True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no case, but at least one of rtt, serving, heat and battery is compared"),
        ("[[rtt]]\nname = 1\n", r"rtt\[0\].name is 1, but"),
        (
            "[[rtt]]\ncolour = 1\n",
            r"rtt\[0\].colour is not a known key, but only these are: between, data, judged, least",
        ),
        ("[[rtt]\n", "is not valid TOML"),
    ],
)
def test_a_file_of_cases_that_is_none_is_refused(tmp_path, text, says):
    (tmp_path / "cases.toml").write_text(text)
    with pytest.raises(ScenarioError, match=says):
        list(checks(tmp_path / "cases.toml"))


def test_damaged_and_missing_data_are_refused(folder, monkeypatch):
    cases = folder / "cases.toml"
    with pytest.raises(ScenarioError, match="cannot be read .*, but holds the cases to compare"):
        list(checks(folder / "none.toml"))
    (folder / "rtt.csv.gz").write_bytes(gzip.compress(b"unix_s,ms\n1,2\n"))
    with pytest.raises(ScenarioError, match="has the columns unix_s, ms, but rtt_ms is needed"):
        list(checks(cases))
    (folder / "rtt.csv.gz").write_bytes(gzip.compress(b"unix_s,rtt_ms\n1,2\n")[:-9])
    with pytest.raises(ScenarioError, match="rtt.csv.gz: cannot be read .*, but is a table in CSV"):
        list(checks(cases))
    monkeypatch.setenv(MIB.variable, "1")
    (folder / "rtt.csv.gz").write_bytes(gzip.compress(b"unix_s,rtt_ms\n" + b"1,2\n" * (1 << 19)))
    with pytest.raises(ScenarioError, match="has more than 1 MiB unpacked, but that is the most"):
        list(checks(cases))
    (folder / "rtt.csv.gz").unlink()
    with pytest.raises(ScenarioError, match="rtt 'here' has data that are not there"):
        list(checks(cases))


@pytest.mark.parametrize(
    ("kind", "rows", "says"),
    [
        ("rtt", "", "has no rows"),
        ("rtt", "1721239212,\n1721239213,\n", "rtt_ms is empty in all rows"),
        ("rtt", "1721239212,lost\n1721239213,30\n", "rtt_ms is 'lost' in a row, but it holds numbers"),
        ("rtt", "1721239212,30\n1721239213,-1\n", "rtt_ms is -1 in a row, but a round trip takes some time"),
        ("rtt", "1721239212000,30\n", "unix_s is 1.721239212e+12 in a row, but it is Unix time in seconds"),
        ("rtt", ",30\n1721239213,30\n", "unix_s is empty in a row"),
        ("rtt", "2024-07-17T18:00:12Z,30\n", "unix_s is '2024-07-17 18:00:12"),
        ("serving", "1721239212,a,50\n", "has one slot, but slots that follow each other"),
        ("serving", "1721239227,a,50\n1721239212,a,50\n", "a slot that does not begin after the one before"),
        ("serving", "1721239212,a,50\n1721239227,,\n1721239242,b,50\n", "has no two slots in a row"),
        ("battery", "charge,10\ncharge,20\n", "has no energy of a charge or of a discharge"),
    ],
)
def test_data_that_cannot_be_compared_are_refused_with_what_is_wrong(folder, kind, rows, says):
    heads = {"rtt": "unix_s,rtt_ms", "serving": "slot_start_unix,satellite,elevation_deg", "battery": "kind,energy_wh"}
    keys = {
        "rtt": {"scenario": "pipe.toml", "between": ["user", "pop"], "least": "predicted"},
        "serving": {"scenario": "pipe.toml", "station": "user", "statistics": "predicted"},
        "battery": {},
    }
    (folder / "rows.csv").write_text(f"{heads[kind]}\n{rows}")
    (folder / "own.toml").write_text(table(f"[{kind}]", name="Here", **ORIGIN, data="rows.csv", **keys[kind]))
    with pytest.raises(ScenarioError, match=re.escape(says)):
        list(checks(folder / "own.toml"))


def test_sparse_data_say_nothing_of_a_pattern_and_the_end_says_what_is_predicted(folder):
    rows = "".join(f"{START_S + 60 * number},30\n" for number in range(9))
    (folder / "rows.csv").write_text(f"unix_s,rtt_ms\n{rows}")
    keys = {"scenario": "pipe.toml", "between": ["user", "pop"], "least": "predicted", "within": "1 ms"}
    (folder / "own.toml").write_text(table("[rtt]", name="Here", **ORIGIN, data="rows.csv", **keys))
    found = list(checks(folder / "own.toml"))
    unknown = [check for check in found if check.basis == "measured"]
    assert [(check.rule, check.got) for check in unknown] == [("shown", "unknown")]
    assert conclusion(found) == (
        "within their tolerance: 3 of 4 predicted figures; the scenario or the model is not "
        "like what was measured there"
    )


def test_a_node_that_is_not_there_and_one_without_a_way_are_refused(folder):
    cases, text = folder / "cases.toml", (folder / "cases.toml").read_text()
    cases.write_text(text.replace('"pop"', '"pap"'))
    with pytest.raises(ScenarioError, match="names 'pap', but pipe.toml has no such node"):
        list(checks(cases))
    cases.write_text(text)
    scenario = (folder / "pipe.toml").read_text().partition("[[terrestrial]]")[0]
    (folder / "pipe.toml").write_text(scenario)
    with pytest.raises(ScenarioError, match="has no path there at any instant"):
        list(checks(cases))


@pytest.fixture(scope="module")
def shipped():
    """All comparisons that come with isl-emu."""
    return list(checks())


def test_what_is_shipped_agrees_and_says_what_was_calibrated(shipped, monkeypatch):
    monkeypatch.setattr(measured, "checks", lambda cases, data: iter(shipped))
    result = CliRunner().invoke(cli, ["validate", "--measured"], standalone_mode=False)
    assert result.return_value == 0, result.output
    assert "FAIL" not in result.output
    for word in (
        "calibrated",
        "predicted",
        "not judged",
        "measured, or limit",
        "7 of 7 calibrated figures, 6 of 6 pred",
    ):
        assert word in result.output


def test_the_page_says_what_comes_out(shipped):
    page = (ROOT / "docs" / "measured.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    told = {row[0]: row[1:] for row in rows}

    def figures(text: str) -> list[float]:
        return [float(figure) for figure in re.findall(r"\d+\.?\d*", text.partition("(")[0])]

    for row, which in ROWS_OF_THE_PAGE.items():
        place, _, name = which.rpartition("> ")
        check = next(check for check in shipped if check.name.startswith(name) and place in check.group)
        assert told[row][2].startswith(check.basis) or check.rule == "shown", row
        assert figures(told[row][1])[0] == pytest.approx(check.got, rel=0.03), row
        if check.rule != "at least" and "largest of" not in name:
            assert figures(told[row][0])[0] == pytest.approx(check.expected, rel=0.03), row


def test_the_options_go_together(tmp_path):
    assert CliRunner().invoke(cli, ["validate", "--data", str(tmp_path)]).exit_code == 2


def test_no_data_without_a_licence_are_shipped():
    cases = measured.shipped_cases()
    found = measured.record_of(measured.Cases, measured.tables_of(cases.read_text(), "cases"), "cases")
    for case in (*found.rtt, *found.serving, *found.battery, *(load for heat in found.heat for load in heat.load)):
        licence = getattr(case, "licence", found.heat[0].licence)
        assert case.data is None or (cases.parent / case.data).exists() == (licence != "none stated"), case.name
