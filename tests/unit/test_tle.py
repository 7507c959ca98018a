"""TLE files: what is accepted, what is refused and where, and the published verification through our whole path."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from importlib.resources import files

import numpy as np
import pytest
from sgp4.api import WGS72, Satrec
from sgp4.exporter import export_tle

from isl_emu.errors import ScenarioError
from isl_emu.geometry.elements import EARTH_RADIUS_KM, SGP4_EPOCH, shell_elements
from isl_emu.geometry.orbits import sgp4_km
from isl_emu.scenario.model import Shell
from isl_emu.scenario.parse import format_scenario, load_scenario, safe_name, unique_names
from isl_emu.scenario.tle import check_tle, read_tles
from tests.scenarios import head, table

ISS = (
    "1 25544U 98067A   19343.69339541  .00001764  00000-0  38792-4 0  9991",
    "2 25544  51.6439 211.2001 0007417  17.6667  85.6398 15.50103472202482",
)
ONE_CENTIMETRE_KM = 1e-5
REFUSED = 33334  # the set's example of elements that SGP4 cannot use
EPOCH = datetime(2006, 1, 1, tzinfo=timezone.utc)


def with_checksum(line):
    """Some made-up satellites of the verification file have a wrong one."""
    body = line[:68]
    return body + str(sum(int(char) if char.isdigit() else char == "-" for char in body) % 10)


def test_names_are_optional_and_comments_skipped():
    text = "\n".join(["# ours", "0 ISS (ZARYA)  ", *ISS, "", *ISS])
    assert [(tle.name, tle.lines) for tle in read_tles(text)] == [("ISS (ZARYA)", ISS), ("", ISS)]


def test_windows_line_ends_and_further_columns_do_not_matter():
    assert read_tles(f"{ISS[0]}\r\n{ISS[1]}     0.0   1440.0\r\n")[0].lines == ISS


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (f"{ISS[0][:-1]}2\n{ISS[1]}", "line 1 ends in checksum '2', but its characters add up to 1"),
        (f"{ISS[0]}\n{ISS[1].replace('51.6439', '51.6438')}", "line 2 ends in checksum '2', but"),
        (f"{ISS[0]}\n{with_checksum(ISS[1].replace('25544', '25545'))}", "line 2 is of satellite 25545, but the line"),
        (f"{ISS[0]}\n{with_checksum(ISS[1].replace('51.6439', '5l.6439'))}", "line 2 has the inclination ' 5l.6439'"),
        (ISS[0], "its second is missing"),
        (ISS[1], "line 1 is a second line of a TLE, but no first line comes before it"),
        (f"{ISS[0]}\n{ISS[0]}", "line 2 begins with '1 ', but the second line of a TLE begins with '2 '"),
        (f"{ISS[0][:60]}\n{ISS[1]}", "line 1 has 60 characters, but a line of a TLE has 69"),
        ("ISS", "there is no TLE in it"),
        ("", "there is no TLE in it"),
    ],
)
def test_a_damaged_file_is_refused_with_its_line(text, complaint):
    with pytest.raises(ValueError) as caught:
        read_tles(text)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line.replace(" ", "\u00a0"),
        lambda line: "  " + line,
        lambda line: "\t" + line,
        lambda line: "\ufeff" + line,
        lambda line: line.replace(" ", "\t", 1),
        lambda line: line + "\u00a0\u200b",
    ],
)
def test_blanks_of_any_kind_are_blanks(damage):
    text = "\n".join([*ISS, "MINE", *map(damage, ISS)])
    assert [(tle.name, tle.lines) for tle in read_tles(text)] == [("", ISS), ("MINE", ISS)]


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (["NAME", *ISS, "LOST", "OTHER", *ISS], "line 5 follows the name 'LOST' of line 4"),
        ([*ISS, "LOST"], "line 3 is the name 'LOST', but no lines of elements follow"),
        ([*ISS, ISS[0][1:], ISS[1][1:]], "line 3 is '25544U 98067A"),
        ([*ISS, f'"{ISS[0]}",', f'"{ISS[1]}"'], "line 3 is '\"1 25544U"),
        ([*ISS, f"OTHER,{ISS[0]},{ISS[1]}"], "line 3 is 'OTHER,1 25544U"),
        ([*ISS, ISS[1][:40]], "line 3 is a second line of a TLE, but no first line comes before it"),
        ([*ISS, ISS[0][:40], ISS[1]], "line 3 has 40 characters"),
        (["3 2", *ISS], "has 1 TLEs, but begins with '3 2' (planes and slots)"),
    ],
)
def test_no_line_among_good_entries_is_dropped(lines, complaint):
    with pytest.raises(ValueError) as caught:
        read_tles("\n".join(lines))
    assert complaint in str(caught.value)


def test_the_heading_of_hypatias_files_counts_planes_and_slots():
    assert len(read_tles("\n".join(["1 2", "A 0", *ISS, "A 1", *ISS]))) == 2


@pytest.mark.parametrize(
    ("days", "moment"),
    [
        ("19343.50000000", datetime(2019, 12, 9, 12, tzinfo=timezone.utc)),
        ("57001.00000000", datetime(1957, 1, 1, tzinfo=timezone.utc)),
        ("56366.00000000", datetime(2056, 12, 31, tzinfo=timezone.utc)),
        (" 0  1.00000000", datetime(2000, 1, 1, tzinfo=timezone.utc)),
    ],
)
def test_the_epoch_counts_days_of_a_year(days, moment):
    tle = (with_checksum(ISS[0][:18] + days + ISS[0][32:]), ISS[1])
    shell = Shell.model_validate(
        {"name": "iss", "satellite": ({"name": "iss", "tle": tle},), "lasers": {"topology": "none"}}
    )
    since_day = shell_elements(shell, ["iss"], EPOCH).epoch_day[0]
    assert EPOCH + timedelta(days=since_day) == moment


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("ISS (ZARYA)", "iss-zarya"),
        ("STARLINK-1007", "starlink-1007"),
        ("2025-099A", "sat-2025-099a"),
        ("", "sat-25544"),
        ("Спутник", "sat-25544"),
        ("A" * 40, "a" * 32),
        ("TIANQI 1 [+]", "tianqi-1"),
    ],
)
def test_names_of_satellites_become_node_names(name, safe):
    assert safe_name(name, "25544") == safe


def test_equal_names_are_told_apart_by_number_then_counted():
    labels = [("DEB", "1"), ("DEB", "2"), ("DEB", "2"), ("DEB", "2"), ("A" * 40, "1"), ("A" * 40, "A0001")]
    assert unique_names(labels) == ["deb", "deb-2", "deb-3", "deb-4", "a" * 32, "a" * 26 + "-a0001"]


def _shell(tles):
    satellites = tuple({"name": f"sat-{n}", "tle": lines} for n, lines in enumerate(tles))
    return Shell.model_validate({"name": "all", "satellite": satellites, "lasers": {"topology": "none"}})


def test_the_published_verification_comes_out_through_our_tle_path():
    package = files("sgp4")
    text = (package / "SGP4-VER.TLE").read_text()
    tles = read_tles("\n".join(with_checksum(line) for line in text.splitlines() if line[:2] in ("1 ", "2 ")))
    blocks = (package / "tcppver.out").read_text().split(" xx\n")[1:]
    elements = shell_elements(_shell([tle.lines for tle in tles]), [tle.lines[0][2:7] for tle in tles], EPOCH)
    checked = 0
    for n, (tle, block) in enumerate(zip(tles, blocks, strict=True)):
        rows = np.array([line.split()[:4] for line in block.splitlines() if len(line.split()) > 6], dtype=float)
        since_day = elements.epoch_day[n] + rows[:, 0] / 1440
        r_km, errors = sgp4_km(elements, since_day)
        if int(tle.lines[0][2:7]) == REFUSED:
            assert errors[:, n].all()
        else:
            assert np.abs(r_km[:, n] - rows[:, 1:]).max() < ONE_CENTIMETRE_KM, tle.lines
            checked += len(rows)
    assert checked > 600


def test_elements_survive_the_way_through_a_tle():
    pattern = Shell.model_validate(
        {
            "name": "ring",
            "walker": {"pattern": "delta", "total": 3, "planes": 3, "phasing": 1},
            "altitude": "550 km",
            "inclination": "53 deg",
            "lasers": {"topology": "none"},
        }
    )
    made = shell_elements(pattern, pattern.local_names, EPOCH)
    tles = []
    for n in range(3):
        satrec = Satrec()
        fields = (made.eccentricity, made.arg_perigee_rad, made.inclination_rad, made.mean_anomaly_rad)
        rest = (made.mean_motion_rad_min, made.raan_rad)
        epoch = (EPOCH - SGP4_EPOCH).total_seconds() / 86_400
        satrec.sgp4init(WGS72, "i", n + 1, epoch, 0.0, 0.0, 0.0, *(field[n] for field in (*fields, *rest)))
        tles.append(export_tle(satrec))
        check_tle(tles[-1])
    read = shell_elements(_shell(tles), ["a", "b", "c"], EPOCH)
    in_digits = {"raan_rad": 1e-4, "mean_anomaly_rad": 1e-4, "inclination_rad": 1e-4}  # deg, as a TLE has them
    for name, half_digit_deg in in_digits.items():
        assert np.degrees(getattr(read, name)) == pytest.approx(np.degrees(getattr(made, name)), abs=half_digit_deg)
    assert read.epoch_day == pytest.approx(0.0, abs=1e-8)
    one_metre_km = 1e-3
    radius_km = (398_600.8 / (read.mean_motion_rad_min[0] / 60) ** 2) ** (1 / 3)
    kepler_km = (398_600.8 / (made.mean_motion_rad_min[0] / 60) ** 2) ** (1 / 3)
    assert radius_km == pytest.approx(kepler_km, abs=one_metre_km)
    assert abs(radius_km - EARTH_RADIUS_KM - 550) < 10


def test_satellites_of_another_altitude_than_asked_for_do_not_fly(tmp_path):
    low, high = (with_checksum(ISS[1][:52] + f"{rev:11.8f}" + ISS[1][63:68]) for rev in (15.6, 15.06))
    names = ("climbing", low), ("serving", high)
    lines = [
        line
        for number, (name, second) in enumerate(names, start=1)
        for line in (
            name,
            with_checksum(f"1 0000{number}{ISS[0][7:68]}"),
            with_checksum(f"2 0000{number}{second[7:68]}"),
        )
    ]
    (tmp_path / "day.tle").write_text("\n".join(lines) + "\n")
    text = head(start="2019-12-09T17:00:00Z") + table(
        "[shell]", name="all", tle="day.tle", altitude_between=["450 km", "600 km"], lasers={"topology": "none"}
    )
    (tmp_path / "scenario.toml").write_text(text)
    scenario = load_scenario(tmp_path / "scenario.toml")
    assert scenario.satellite_names == ("serving",), "547 km; the other is at 386 km"
    assert "altitude_between" not in format_scenario(scenario)
    (tmp_path / "scenario.toml").write_text(text.replace("600 km", "460 km"))
    with pytest.raises(ScenarioError, match="none of its 2 satellites is between 450 and 460 km high"):
        load_scenario(tmp_path / "scenario.toml")
