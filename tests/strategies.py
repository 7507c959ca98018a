"""Random Walker patterns and scenarios for property tests."""

from __future__ import annotations

from datetime import datetime, timezone

from hypothesis import strategies as st

from isl_emu.scenario.model import GroundStation, LaserLinks, Scenario, Shell, Time, Walker

START = datetime(2026, 3, 20, 14, tzinfo=timezone.utc)


@st.composite
def walkers(draw, pattern=None, most_planes=8, most_slots=8):
    planes, slots = draw(st.integers(1, most_planes)), draw(st.integers(1, most_slots))
    return Walker(
        pattern=pattern or draw(st.sampled_from(["delta", "star"])),
        total=planes * slots,
        planes=planes,
        phasing=draw(st.integers(0, planes - 1)),
    )


@st.composite
def scenarios(draw):
    lasers = LaserLinks(topology=draw(st.sampled_from(["ring", "+grid", "none"])), rate="10 Gbit/s")
    altitude, inclination = draw(st.integers(400, 2000)), draw(st.integers(0, 120))
    shell = Shell(
        name="s",
        walker=draw(walkers(most_planes=4, most_slots=16)),
        altitude=f"{altitude} km",
        inclination=f"{inclination} deg",
        lasers=lasers,
    )
    stations = tuple(
        GroundStation(
            name=f"gs-{number}",
            latitude=f"{draw(st.integers(-90, 90))} deg",
            longitude=f"{draw(st.integers(-180, 360))} deg",
            min_elevation=f"{draw(st.integers(0, 40))} deg",
            antennas=draw(st.integers(1, 3)),
            uplink="1 Gbit/s",
            downlink="2 Gbit/s",
        )
        for number in range(draw(st.integers(0, 3)))
    )
    return Scenario(name="x", time=Time(start=START, duration="300 s", step="60 s"), shell=(shell,), station=stations)
