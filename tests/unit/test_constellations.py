"""Where satellites come from: one-line codes, explicit elements, TLE and OMM files."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import math
from datetime import datetime, timezone

import numpy as np
import pytest

from isl_emu.errors import ScenarioError
from isl_emu.geometry.elements import constellation_elements
from isl_emu.geometry.orbits import orbit_warnings, propagate
from isl_emu.linkplan.build import plan_links
from isl_emu.scenario.model import Walker
from isl_emu.scenario.parse import format_scenario, load_scenario, parse_scenario
from tests.scenarios import head, station

HEAD = head(start="2019-12-10T00:00:00Z", duration="3 s")
ISS = """ISS (ZARYA)
1 25544U 98067A   19343.69339541  .00001764  00000-0  38792-4 0  9991
2 25544  51.6439 211.2001 0007417  17.6667  85.6398 15.50103472202482
"""
ISS_OMM = {
    "OBJECT_NAME": "ISS (ZARYA)", "OBJECT_ID": "1998-067A", "EPOCH": "2019-12-09T16:38:29.363424",
    "MEAN_MOTION": 15.50103472, "ECCENTRICITY": 0.0007417, "INCLINATION": 51.6439, "RA_OF_ASC_NODE": 211.2001,
    "ARG_OF_PERICENTER": 17.6667, "MEAN_ANOMALY": 85.6398, "NORAD_CAT_ID": 25544, "BSTAR": 0.000038792,
}  # fmt: skip
LASERS = 'lasers = { topology = "none" }\n'
CODE = '[[shell]]\nname = "low"\ncode = "D:550:53.0:1584/22/17"\n'


def shell(source, lasers=LASERS, orbits=""):
    return f'{HEAD}{orbits}[[shell]]\nname = "low"\n{source}\n{lasers}'


def satellite(**changes):
    table = {"name": '"a"', "altitude": '"550 km"', "inclination": '"53 deg"', **changes}
    keys = ", ".join(f"{key} = {value}" for key, value in table.items() if value)
    return f"satellite = [{{ {keys} }}]"


def problems(text):
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(text, "some.toml")
    return str(caught.value)


def test_a_one_line_code_is_the_same_as_its_tables():
    by_code = parse_scenario(f"{HEAD}{CODE}{LASERS}", "code")
    by_tables = parse_scenario(
        shell('walker = { pattern = "delta", total = 1584, planes = 22, phasing = 17 }\naltitude = "550 km"\n'
              'inclination = "53 deg"'), "tables")  # fmt: skip
    assert by_code == by_tables
    assert parse_scenario(format_scenario(by_code), "resolved") == by_code


def test_a_star_code_and_several_shells():
    text = f'{HEAD}{CODE}{LASERS}[[shell]]\nname = "polar"\ncode = "S:780:86.4:66/6/2"\n{LASERS}'
    scenario = parse_scenario(text, "two")
    assert [shell.walker.pattern for shell in scenario.shell] == ["delta", "star"]
    assert scenario.satellite_names[0] == "low-p00s00" and scenario.satellite_names[-1] == "polar-p05s10"
    assert len(scenario.satellite_names) == len(constellation_elements(scenario).names) == 1650


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (shell('code = "D:550:53.0:1584/22"'), "code is 'D:550:53.0:1584/22', but it is type:altitude:inc"),
        (shell('code = "X:550:53.0:4/2/0"'), "code is 'X:550:53.0:4/2/0'"),
        (shell("code = 7"), "code is 7, but"),
        (shell('code = "D:550:53.0:1584/23/17"'), "shell[0].walker: total is 1584, but all 23 planes"),
        (shell('code = "D:50:53.0:4/2/0"'), "shell[0].altitude is 50 km, but the least allowed is 160 km"),
        (shell('code = "D:550:53:4/2/0"\naltitude = "1 km"'), "code and altitude are both given"),
        (shell(""), "shell[0] has no satellites, but it needs exactly one of code, walker, satellite, tle and omm"),
        (shell('tle = "a"\nomm = "b"'), "shell[0] has tle and omm, but it needs exactly one of"),
        (shell('walker = { pattern = "delta", total = 4, planes = 2 }'), "neither or both of altitude and mean_motion"),
        (shell('walker = { pattern = "delta", total = 4, planes = 2 }\naltitude = "550 km"'), "has no inclination"),
        (shell(satellite() + '\nraan = "4 deg"'), "has raan, but only a walker pattern is placed by it"),
        (shell(satellite(), 'lasers = { topology = "ring" }'), "only a walker pattern has planes and slots"),
        (shell(satellite(altitude=None)), "shell[0].satellite[0] has nothing for its size"),
        (shell(satellite(mean_motion='"15 rev/day"')), "has altitude and mean_motion for its size, but exactly one"),
        (shell(satellite(inclination=None)), "has no inclination"),
        (shell(satellite(eccentricity="-0.1")), "shell[0].satellite[0].eccentricity is -0.1"),
        (shell(satellite(tle='["1", "2"]')), "has a tle and also altitude and inclination, but a TLE holds all"),
        (shell('satellite = [{ name = "a", tle = ["1", "2"] }]'), "has a TLE line 1 of 1 characters, but it has 69"),
        (shell('codes = "D:550:53.0:4/2/0"'), "shell[0].codes is not a known key, but only these are: altitude, "),
        (shell('codes = "D:550:53.0:4/2/0"'), "did you mean code?"),
        (shell(satellite(mean_anomoly='"1 deg"')), "did you mean mean_anomaly?"),
        (shell(satellite(), orbits='[orbits]\npropagator = "sgp8"\n'), "orbits.propagator is 'sgp8', but it should be"),
    ],
)  # fmt: skip
def test_a_broken_description_is_refused_with_its_place(text, complaint):
    assert complaint in problems(text)


def test_a_long_name_of_a_shell_is_refused_where_satellites_carry_it():
    name = "a-name-of-no-less-than-28-chars"
    two = shell('code = "D:550:53.0:4/2/0"').replace('"low"', f'"{name}"') + CODE + LASERS
    assert f"shell '{name}' makes names of satellites of more than 32 characters" in problems(two)


def test_numbers_in_names_grow_with_the_shell_and_sort_in_order():
    def names(total, planes):
        return Walker(pattern="delta", total=total, planes=planes).slot_names

    assert names(12, 1)[-1] == "p00s11"
    assert names(1584, 22)[-1] == "p21s71"
    assert names(404, 4)[0] == "p00s000" and names(404, 4)[-1] == "p03s100"
    assert names(202, 101)[-1] == "p100s01"
    for sizes in ((12, 1), (404, 4), (202, 101)):
        assert list(names(*sizes)) == sorted(names(*sizes))


def test_explicit_elements_and_a_pattern_put_satellites_in_the_same_places():
    pattern = parse_scenario(shell('code = "D:550:53.0:4/2/1"\nraan = "10 deg"'), "pattern")
    listed = parse_scenario(
        shell("satellite = [" + ",".join(
            f'{{ name = "{name}", {size}, inclination = "53 deg", raan = "{raan} deg", mean_anomaly = "{m} deg" }}'
            for name, size, raan, m in [
                ("a", 'altitude = "550 km"', 10, 0), ("b", 'semi_major_axis = "6928.137 km"', 370, 180),
                ("c", 'altitude = "550 km"', 190, 90), ("d", 'altitude = "550 km"', 190, -90),
            ]) + "]"), "listed")  # fmt: skip
    first, second = (constellation_elements(one) for one in (pattern, listed))
    start, offsets_ns = pattern.time.start, pattern.time.grid.offsets_ns
    one_millimetre_km = 1e-6
    assert propagate(first, start, offsets_ns) == pytest.approx(
        propagate(second, start, offsets_ns), abs=one_millimetre_km
    )
    assert listed.satellite_names == ("a", "b", "c", "d")
    assert parse_scenario(format_scenario(listed), "resolved") == listed


def test_an_eccentric_pattern_flies_between_its_perigee_and_apogee():
    source = 'code = "D:8000:63.4:60/1/0"\neccentricity = 0.3\nargument_of_perigee = "270 deg"'
    scenario = parse_scenario(shell(source), "molniya")
    assert parse_scenario(format_scenario(scenario), "resolved") == scenario
    elements = constellation_elements(scenario)
    radius_km = np.linalg.norm(propagate(elements, scenario.time.start, np.zeros(1)), axis=-1)[0]
    size_km, j2_km = 14_378.137, 12.0
    assert radius_km.min() == pytest.approx(size_km * 0.7, abs=j2_km)
    assert radius_km.max() == pytest.approx(size_km * 1.3, abs=j2_km)
    south = propagate(elements, scenario.time.start, np.zeros(1))[0, radius_km.argmin()]
    assert south[2] / np.linalg.norm(south) == pytest.approx(-math.sin(math.radians(63.4)), abs=0.01)


def test_dawn_dusk_is_a_local_time():
    text = 'code = "D:550:97.6:4/1/0"\nltan = "dawn-dusk"'
    scenario = parse_scenario(shell(text), "dawn")
    assert scenario == parse_scenario(shell(text.replace("dawn-dusk", "06:00")), "six")
    assert parse_scenario(format_scenario(scenario), "resolved") == scenario
    assert "ltan" in problems(shell(text.replace("dawn-dusk", "breakfast")))


def test_the_epoch_of_patterns_may_differ_from_the_start():
    late = parse_scenario(shell(CODE.split("\n")[2], orbits="[orbits]\nepoch = 2019-12-09T23:00:00Z\n"), "late")
    early = parse_scenario(shell(CODE.split("\n")[2]).replace("2019-12-10T00", "2019-12-09T23"), "early")
    hour_ns = 3600 * 10**9
    assert propagate(constellation_elements(late), late.time.start, np.zeros(1)) == pytest.approx(
        propagate(constellation_elements(early), early.time.start, np.array([hour_ns])), abs=1e-5
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "iss.tle").write_text(ISS)
    (tmp_path / "iss.json").write_text(json.dumps([ISS_OMM]))
    (tmp_path / "iss.csv").write_text(f"{','.join(ISS_OMM)}\n{','.join(map(str, ISS_OMM.values()))}\n")
    kvn = "".join(f"{key} = {value}\n" for key, value in ISS_OMM.items())
    (tmp_path / "iss.kvn").write_text(f"CCSDS_OMM_VERS = 2.0\nTIME_SYSTEM = UTC\n{kvn}")
    xml = "".join(f"<{key}>{value}</{key}>" for key, value in ISS_OMM.items())
    head = '<?xml version="1.0"?><!-- ours --><ndm xmlns="urn:ccsds">'
    (tmp_path / "iss.xml").write_text(f"{head}<omm><body>{xml}</body></omm></ndm>")
    return tmp_path


def load(folder, source, **options):
    (folder / "sky.toml").write_text(shell(source, **options))
    return load_scenario(folder / "sky.toml")


@pytest.mark.parametrize(
    "source", ['tle = "iss.tle"', *(f'omm = "iss.{form}"' for form in ("json", "csv", "kvn", "xml"))]
)
def test_files_are_read_once_and_the_scenario_then_stands_for_itself(folder, source):
    scenario = load(folder, source)
    assert scenario.satellite_names == ("iss-zarya",)
    again = parse_scenario(format_scenario(scenario), "resolved")
    assert again == scenario and again.resolved and "iss." not in format_scenario(scenario)
    expected = constellation_elements(load(folder, 'tle = "iss.tle"'))
    start, offsets_ns = scenario.time.start, scenario.time.grid.offsets_ns
    (folder / "iss.json").write_text(json.dumps({**ISS_OMM, "EPOCH": "2019-343T16:38:29.363424Z"}))
    assert load(folder, 'omm = "iss.json"').shell[0].satellite[0].epoch == datetime(
        2019, 12, 9, 16, 38, 29, 363424, tzinfo=timezone.utc
    )
    two_metres_km = 0.002  # the epoch in the OMM ends at the microsecond, its elements at the TLE's digits
    assert propagate(constellation_elements(again), start, offsets_ns) == pytest.approx(
        propagate(expected, start, offsets_ns), abs=two_metres_km
    )
    assert plan_links(again, "").nodes.names == ("iss-zarya",)
    assert orbit_warnings(again) == ()


def test_parsing_alone_reads_no_file():
    scenario = parse_scenario(shell('tle = "/nowhere/at/all.tle"'), "text")
    assert not scenario.resolved
    assert parse_scenario(format_scenario(scenario), "resolved") == scenario
    with pytest.raises(ScenarioError, match="but it has not been read; load the scenario from its file"):
        constellation_elements(scenario)


@pytest.mark.parametrize(
    ("source", "text", "complaint"),
    [
        ('tle = "none.tle"', None, "shell low: tle file"),
        ('tle = "none.tle"', None, "cannot be read (No such file or directory)"),
        ('tle = "bad"', ISS.replace("51.6439", "51.6438"), "line 3 ends in checksum '2', but"),
        ('omm = "bad"', "[]", "there is no OMM in it"),
        ('omm = "bad"', "No GP data found", "begins with 'No GP data found', which is none"),
        ('omm = "bad"', ISS, "begins with 'ISS (ZARYA)', which is a TLE, but an OMM is read here; name it by tle"),
        ('omm = "bad"', ISS.split("\n", 1)[1], "which is a TLE, but an OMM is read here; name it by tle"),
        ('tle = "bad"', "No GP data found", "there is no TLE in it but 'No GP data found'"),
        ('tle = "bad"', json.dumps([ISS_OMM]), "by omm"),
        ('tle = "bad"', "<!DOCTYPE html><html>", "fetch a page that is none again"),
        ('tle = "bad"', ISS.replace(" 0  9991", " 4  9995"), "of ephemeris type '4' (column 63)"),
        ('omm = "bad"', json.dumps({**ISS_OMM, "EPHEMERIS_TYPE": 4}), "has EPHEMERIS_TYPE 4, which is for SGP4-XP"),
        ('omm = "bad"', json.dumps({**ISS_OMM, "BTERM": 0.02}), "has BTERM, which is for SGP4-XP"),
        ('omm = "bad"', json.dumps({**ISS_OMM, "CCSDS_OMM_VERS": "7.0"}), "has version 7.0, but 1.0, 2.0"),
        ('omm = "bad"', '<omm version="7.0"><EPOCH>x</EPOCH></omm>', "has version 7.0"),
        ('omm = "bad"', "CCSDS_OMM_VERS = 7.0\nOBJECT_NAME = X\n", "has version 7.0"),
        ('omm = "bad"', "[{", "it is not well formed"),
        ('omm = "bad"', "<omm>", "it is not well formed"),
        ('omm = "bad"', json.dumps({**ISS_OMM, "ECCENTRICITY": "x"}), "entry 1 (ISS (ZARYA)) has ECCENTRICITY"),
        ('omm = "bad"', json.dumps({**ISS_OMM, "EPOCH": "now"}), "entry 1 (ISS (ZARYA)) has EPOCH 'now', but"),
        ('omm = "bad"', json.dumps({**ISS_OMM, "REF_FRAME": "GCRF"}), "has REF_FRAME GCRF, but only TEME is read"),
        ('omm = "bad"', json.dumps({**ISS_OMM, "INCLINATION": 190}), "satellite iss-zarya: inclination"),
        ('omm = "bad"', json.dumps({"OBJECT_NAME": "X", "EPOCH": "2020-01-01T00:00:00"}), "(X) has no MEAN_MOTION"),
    ],
)  # fmt: skip
def test_an_unusable_file_is_named_with_the_place_in_it(folder, source, text, complaint):
    if text is not None:
        (folder / "bad").write_text(text)
    with pytest.raises(ScenarioError) as caught:
        load(folder, source)
    assert complaint in str(caught.value)
    assert all(problem.startswith(f"{folder / 'sky.toml'}: ") for problem in caught.value.problems)


def packed(folder, name, pack):
    (folder / name).write_bytes(pack(ISS.encode()))
    return load(folder, f'tle = "{name}"')


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress], ids=["gzip", "bzip2", "xz"])
def test_a_packed_file_is_refused_by_what_it_is(folder, request, pack):
    with pytest.raises(ScenarioError, match=f"it is packed by {request.node.callspec.id}, but text is read; unpack it"):
        packed(folder, "iss.packed", pack)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "latin-1"])
def test_text_is_read_however_it_is_encoded(folder, encoding):
    (folder / "iss.tle").write_bytes(ISS.replace("ISS (ZARYA)", "TÜRKSAT 3A").encode(encoding))
    name = "t-rksat-3a"
    assert load(folder, 'tle = "iss.tle"').satellite_names == (name,)


LATER = ISS.replace("19343.69339541", "19344.69339541").replace("0  9991", "0  9992")
AFTER = ISS.replace("19343.69339541", "19350.00000000").replace("0  9991", "0  9990")


def test_of_two_epochs_of_one_object_the_nearest_to_the_start_flies_and_the_others_are_told(folder):
    texts = [with_checksums(text) for text in (ISS, LATER, AFTER)]
    (folder / "iss.tle").write_text("".join(texts))
    scenario = load(folder, 'tle = "iss.tle"')
    assert scenario.satellite_names == ("iss-zarya",)
    assert scenario.shell[0].satellite[0].tle == tuple(texts[0].splitlines()[1:3])
    assert scenario.shell[0].left_out == (
        "ISS (ZARYA) (25544) of 2019-12-10T16:38:29Z", "ISS (ZARYA) (25544) of 2019-12-16T00:00:00Z"
    )  # fmt: skip
    (warning,) = orbit_warnings(scenario)
    assert warning.startswith("shell low: its file has objects more than once; the elements nearest to the start fly")
    assert parse_scenario(format_scenario(scenario), "resolved") == scenario
    entries = [{**ISS_OMM, "EPOCH": f"2019-12-{day:02d}T00:00:00"} for day in (1, 9, 30)]
    (folder / "iss.json").write_text(json.dumps(entries))
    assert load(folder, 'omm = "iss.json"').shell[0].satellite[0].epoch.day == 9


def test_one_entry_twice_is_one_satellite_and_others_of_one_epoch_and_number_are_several(folder):
    other = with_checksums(ISS.replace("85.6398", "95.6398"))
    (folder / "iss.tle").write_text(ISS + ISS + other)
    scenario = load(folder, 'tle = "iss.tle"')
    assert scenario.satellite_names == ("iss-zarya", "iss-zarya-25544")
    assert len(scenario.shell[0].left_out) == 1


def with_checksums(text):
    """A TLE whose checksums are right again."""
    lines = [line[:68] for line in text.splitlines()]
    sums = [sum(int(char) if char.isdigit() else char == "-" for char in line) % 10 for line in lines]
    return "".join(f"{line}{'' if place == 0 else digit}\n" for place, (line, digit) in enumerate(zip(lines, sums)))


@pytest.mark.parametrize("name", ["localhost", "ip6-localhost", "ip6-loopback"])
def test_names_of_the_machine_itself_are_none_of_a_satellite(folder, name):
    (folder / "iss.tle").write_text(ISS.replace("ISS (ZARYA)", name.upper()))
    assert load(folder, 'tle = "iss.tle"').satellite_names == (f"{name}-25544",)
    source = f'satellite = [{{ name = "{name}", altitude = "550 km", inclination = "53 deg" }}]'
    with pytest.raises(ScenarioError, match="in every node that name means the node itself"):
        load(folder, source)


def test_a_leap_second_is_refused_as_one():
    with pytest.raises(ScenarioError, match="has the leap second 2016-12-31T23:59:60Z, but times are counted without"):
        parse_scenario(shell('code = "D:550:53.0:4/2/0"').replace("2019-12-10T00:00:00Z", "2016-12-31T23:59:60Z"), "x")


def test_stale_elements_are_a_warning(folder):
    scenario = load(folder, 'tle = "iss.tle"', orbits='[orbits]\nstale_after = "1 h"\n')
    (warning,) = orbit_warnings(scenario)
    assert warning.startswith("shell low: the elements of 1 of its 1 satellites hold more than 0.0416667 days from")
    assert "of iss-zarya, 0.3 days" in warning
    (folder / "iss.tle").write_text(ISS)
    text = shell('tle = "iss.tle"').replace("2019-12-10", "2020-01-10")
    (folder / "sky.toml").write_text(text)
    assert "31.3 days" in orbit_warnings(load_scenario(folder / "sky.toml"))[0]


def test_masked_satellites_have_no_links_and_are_warned_of():
    broken = 'satellite = [{ name = "ok", altitude = "550 km", inclination = "53 deg" }, ' \
             '{ name = "bad", altitude = "550 km", inclination = "53 deg", eccentricity = 0.3 }, ' \
             '{ name = "worse", altitude = "550 km", inclination = "53 deg", eccentricity = 1.3 }]'  # fmt: skip
    above = station(latitude="0 deg", longitude="-78 deg", min_elevation="0 deg", antennas=9)
    strict = parse_scenario(shell(broken), "strict")
    with pytest.raises(ScenarioError, match="satellite bad: SGP4 reports"):
        plan_links(strict, "")
    assert orbit_warnings(strict) == ()
    orbits = '[orbits]\non_bad = "mask"\n'
    scenario = parse_scenario(shell(broken, orbits=orbits) + above, "masked")
    plan = plan_links(scenario, "")
    assert {plan.nodes.names[node] for node in plan.links.a} == {"ok"}
    assert [warning.split(":")[0] for warning in orbit_warnings(scenario)] == ["satellite bad", "satellite worse"]
    assert scenario.epoch == datetime(2019, 12, 10, tzinfo=timezone.utc)
