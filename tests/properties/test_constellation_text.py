"""Whatever constellation a scenario describes, its text describes it again, and names are names of nodes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from isl_emu.geometry.elements import constellation_elements
from isl_emu.scenario.parse import format_scenario, parse_scenario, unique_names
from isl_emu.scenario.quantities import NODE_NAME
from tests.scenarios import head, table

HEAD = head(duration="1 s") + table("[shell]", name="one", lasers={"topology": "none"})
angles_deg = st.floats(-720.0, 720.0)


@st.composite
def satellites(draw):
    """A table of a satellite, by any of its sizes."""
    size = draw(
        st.one_of(
            st.floats(160.0, 50_000.0).map(lambda km: f'altitude = "{km!r} km"'),
            st.floats(6_400.0, 400_000.0).map(lambda km: f'semi_major_axis = "{km!r} km"'),
            st.floats(0.1, 17.0).map(lambda turns: f'mean_motion = "{turns!r} rev/day"'),
        )
    )
    elements = {
        "inclination": f'"{draw(st.floats(0.0, 180.0))!r} deg"',
        "raan": f'"{draw(angles_deg)!r} deg"',
        "argument_of_perigee": f'"{draw(angles_deg)!r} deg"',
        "mean_anomaly": f'"{draw(angles_deg)!r} deg"',
        "eccentricity": repr(draw(st.floats(0.0, 2.0))),
        "bstar": repr(draw(st.floats(-0.1, 0.1))),
    }
    return size + "".join(f", {key} = {value}" for key, value in elements.items())


@settings(deadline=None, max_examples=60)
@given(st.lists(satellites(), min_size=1, max_size=3))
def test_satellites_survive_the_way_through_text_to_the_last_bit(tables):
    rows = ", ".join(f'{{ name = "s{n}", {table} }}' for n, table in enumerate(tables))
    scenario = parse_scenario(f"{HEAD}satellite = [{rows}]", "drawn")
    again = parse_scenario(format_scenario(scenario), "resolved")
    assert again == scenario
    first, second = constellation_elements(scenario), constellation_elements(again)
    for name in ("mean_motion_rad_min", "eccentricity", "raan_rad", "arg_perigee_rad", "mean_anomaly_rad", "bstar"):
        assert np.array_equal(getattr(first, name), getattr(second, name), equal_nan=True), name


@st.composite
def codes(draw):
    planes, slots = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    kind, phasing = draw(st.sampled_from("DS")), draw(st.integers(0, planes - 1))
    altitude, inclination = draw(st.integers(160, 2000)), draw(st.floats(0.0, 180.0))
    return f"{kind}:{altitude}:{inclination:.4f}:{planes * slots}/{planes}/{phasing}"


@settings(deadline=None, max_examples=60)
@given(codes())
def test_codes_survive_the_way_through_text_with_as_many_satellites_as_they_say(code):
    scenario = parse_scenario(f'{HEAD}code = "{code}"', "drawn")
    assert parse_scenario(format_scenario(scenario), "resolved") == scenario
    names = scenario.satellite_names
    assert len(set(names)) == len(names) == int(code.split(":")[3].split("/")[0])
    assert list(names) == sorted(names)
    assert scenario.shell[0].altitude_km == float(code.split(":")[1])


@given(st.lists(st.tuples(st.text(max_size=40), st.text("0123456789ABCDEFGHJ", min_size=1, max_size=5)), max_size=20))
def test_any_names_become_different_names_of_nodes(labels):
    names = unique_names(labels)
    assert len(set(names)) == len(names) == len(labels)
    assert all(NODE_NAME.fullmatch(name) for name in names)
    assert names == unique_names(labels)
