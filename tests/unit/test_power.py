"""The `[[power]]` table: units, defaults that follow from others, and what is refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from isl_emu.scenario.power import Power

SMALL = {
    "bus": "60 W",
    "panel": {"area": "2 m2"},
    "battery": {"capacity": "500 Wh"},
    "radiator": {"area": "1 m2", "heat_capacity": "20 kJ/K"},
}


def power(**changes) -> Power:
    return Power.model_validate({**SMALL, **{key: {**SMALL[key], **value} for key, value in changes.items()}})


def test_units_become_inner_ones():
    group = power(radiator={"start_temperature": "20 degC", "off_above": "340 K"})
    assert (group.battery.capacity_j, group.panel.area_m2, group.bus_w) == (1_800_000.0, 2.0, 60.0)
    assert group.radiator.heat_capacity_j_k == 20_000.0
    assert (group.radiator.start_temperature_k, group.radiator.off_above_k) == (293.15, 340.0)


def test_bounds_follow_from_the_depth_of_discharge():
    battery = power(battery={"depth_of_discharge": 0.6}).battery
    assert battery.reserve_ratio == pytest.approx(0.4)
    assert battery.throttle_ratio == pytest.approx(0.6)
    assert battery.resume_ratio == pytest.approx(0.5)
    radiator = power(radiator={"throttle_above": "40 degC", "off_above": "60 degC"}).radiator
    assert radiator.resume_k == pytest.approx(273.15 + 50)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"battery": {"throttle_below": 0.7}}, "throttle_below is 0.7, but the computer is switched off at 0.7"),
        ({"battery": {"resume_above": 0.6}}, "resume_above is 0.6, but it must be above 0.7"),
        ({"battery": {"depth_of_discharge": 0.0}}, "greater than 0"),
        ({"radiator": {"off_above": "40 degC"}}, "off_above is 313.15 K, but it must be above throttle_above"),
        ({"radiator": {"resume_below": "70 degC"}}, "resume_below is 343.15 K, but it must be below off_above"),
        ({"radiator": {"start_temperature": "20"}}, "without a unit"),
        ({"radiator": {"start_temperature": "1000 K"}}, "between 150 K and 450 K"),
        ({"panel": {"pointing": "up"}}, "'sun', 'zenith'"),
        ({"panel": {"area": "0 m2"}}, "must be more than 0 m2"),
        ({"panel": {"area": "2 km"}}, "'km'"),
        ({"battery": {"capacity": "500 W"}}, "'W'"),
    ],
)
def test_what_cannot_be_is_refused(changes, complaint):
    with pytest.raises(ValidationError, match=complaint):
        power(**changes)


def test_formatting_and_parsing_are_inverse():
    group = power(battery={"max_charge": "1.5 kW"}, radiator={"start_temperature": "21.7 degC"})
    text = group.model_dump(by_alias=True, exclude_none=True)
    assert Power.model_validate(text) == group
    assert text["battery"]["capacity"] == "500 Wh"
    assert text["radiator"]["start_temperature"].endswith(" K")
