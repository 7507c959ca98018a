"""Plans of random constellations, seasons and sites against Skyfield, object by object.

`tests/skyfield_reference.py` shares no code with isl_emu. Ranges agree to a millimetre and elevations to a
ten-millionth of a degree (what is left is how finely a moment is held as a Julian date); two metres are asked for.
"""

from __future__ import annotations

import itertools
import math
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from sgp4.api import WGS72, Satrec
from sgp4.exporter import export_tle
from skyfield.api import EarthSatellite, wgs84

from isl_emu.geometry.elements import constellation_elements
from isl_emu.geometry.frames import itrs_to_teme, sidereal_angle_rad, site_itrs_km, zenith_itrs
from isl_emu.geometry.orbits import propagate, satrecs
from isl_emu.geometry.sightline import elevation_rad, range_km
from isl_emu.linkplan.build import plan_links
from isl_emu.linkplan.plan import LinkKind
from isl_emu.routing.forwarding import plan_routes
from isl_emu.routing.paths import PathFinder
from isl_emu.scenario.model import Scenario, Shell
from tests.skyfield_reference import (
    C_KM_S,
    EQUATOR_KM,
    MU_KM3_S2,
    TIMESCALE,
    grazing_km,
    highest,
    least_delays_s,
    sky_of,
)

TWO_METRES_KM = 2e-3
TWO_METRES_NS = TWO_METRES_KM / C_KM_S * 1e9 + 0.5  # and the rounding
ONE_ARCSECOND_DEG = 1 / 3600
HALF_A_MINUTE = 0.5  # of local time: 0.13 deg, of which UT1 - UTC and J2's shift of the node are parts
SEEDS = (*range(11), 13)  # 11 and 12 are skies in which no two sites are ever connected
SITES = {
    "gs-north-pole": ("90 deg", "0 deg", "0 km"),
    "gs-south-pole": ("-90 deg", "45 deg", "2.835 km"),
    "gs-fiji-west": ("-16.8 deg", "180 deg", "0 km"),
    "gs-fiji-east": ("-16.8 deg", "-180 deg", "0 km"),
    "gs-quito": ("0 deg", "-78.456 deg", "2.85 km"),
    "gs-el-alto": ("-16.5 deg", "-68.19 deg", "5 km"),
    "gs-svalbard": ("78.2297 deg", "15.4075 deg", "0.5 km"),
    "gs-christchurch": ("-43.53 deg", "172.63 deg", "0 km"),
    "gs-greenwich": ("51.4779 deg", "0 deg", "0.05 km"),
    "gs-dead-sea": ("31.5 deg", "35.5 deg", "-0.43 km"),
}


def _random_scenario(seed: int) -> Scenario:
    """Any Walker pattern, season of 1995 to 2045, altitude, inclination and six sites."""
    rng = np.random.default_rng(seed)
    planes, slots = int(rng.integers(3, 9)), int(rng.integers(6, 15))
    start = datetime(1995, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=int(rng.integers(0, 50 * 365 * 86_400)))
    walker = {
        "pattern": ("delta", "star")[seed % 2],
        "total": planes * slots,
        "planes": planes,
        "phasing": int(rng.integers(0, planes)),
    }
    lasers = {"topology": "+grid", "max_range": f"{rng.integers(3000, 9000)} km", "grazing_altitude": "80 km"}
    shell = {
        "name": "s",
        "walker": walker,
        "altitude": f"{rng.uniform(400, 1800):.3f} km",
        "inclination": f"{rng.uniform(30, 130):.3f} deg",
        "raan": f"{rng.uniform(0, 360):.3f} deg",
        "argument_of_latitude": f"{rng.uniform(0, 360):.3f} deg",
        "lasers": lasers,
    }
    stations = tuple(
        {
            "name": name,
            "latitude": SITES[name][0],
            "longitude": SITES[name][1],
            "height": SITES[name][2],
            "min_elevation": f"{rng.integers(0, 20)} deg",
            "antennas": int(rng.integers(1, 4)),
            "uplink": "1 Gbit/s",
            "downlink": "1 Gbit/s",
        }
        for name in sorted(rng.choice(sorted(SITES), 6, replace=False).tolist())
    )
    # instants some minutes apart, in all four thirds of a turn
    time = {"start": start, "duration": "80 min", "step": f"{rng.integers(9, 27)} min"}
    return Scenario.model_validate({"name": "x", "time": time, "shell": (shell,), "station": stations})


@pytest.fixture(scope="module", params=SEEDS)
def both(request):
    """A scenario, our plan of it, and Skyfield's sky."""
    scenario = _random_scenario(request.param)
    return scenario, plan_links(scenario, ""), sky_of(scenario)


def test_positions_ranges_and_elevations_are_skyfields(both):
    scenario, plan, sky = both
    r_km = propagate(constellation_elements(scenario), plan.grid.start, plan.grid.offsets_ns)
    sidereal_rad = sidereal_angle_rad(plan.grid.start, plan.grid.offsets_ns)
    # lengths and mutual ranges do not depend on the frame
    assert np.abs(np.linalg.norm(r_km, axis=-1) - np.linalg.norm(sky.satellites_km, axis=-1)).max() < TWO_METRES_KM
    for a, b in itertools.pairwise(range(r_km.shape[1])):
        found_km = range_km(r_km[:, a], r_km[:, b])
        expected_km = np.linalg.norm(sky.satellites_km[:, a] - sky.satellites_km[:, b], axis=-1)
        assert np.abs(found_km - expected_km).max() < TWO_METRES_KM
    for g, station in enumerate(scenario.station):
        place = (station.latitude_rad, station.longitude_rad)
        site_km = itrs_to_teme(site_itrs_km(*place, station.height_km), sidereal_rad)[:, None]
        zenith = itrs_to_teme(zenith_itrs(*place), sidereal_rad)[:, None]
        found_deg = np.degrees(elevation_rad(site_km, zenith, r_km))
        assert np.abs(range_km(site_km, r_km) - sky.slant_km[:, g]).max() < TWO_METRES_KM, station.name
        assert np.abs(found_deg - sky.elevation_deg[:, g]).max() < ONE_ARCSECOND_DEG, station.name


def _up(plan, k):
    """Ends and delay of the links up at an instant."""
    up = plan.snapshot(k)
    ends = zip(plan.links.a[up.link].tolist(), plan.links.b[up.link].tolist(), strict=True)
    return dict(zip(ends, up.delay_ns.tolist(), strict=True))


def test_ground_links_are_those_to_the_highest_satellites(both):
    scenario, plan, sky = both
    satellites = len(scenario.satellite_names)
    for k, (g, station) in itertools.product(range(plan.grid.count), enumerate(scenario.station)):
        found = {a: delay_ns for (a, b), delay_ns in _up(plan, k).items() if b == satellites + g}
        expected = highest(sky.elevation_deg[k, g], math.degrees(station.min_elevation_rad), station.antennas)
        # of a symmetric pattern over a pole two can be equally high, to the last digit
        heights_deg = [sorted(sky.elevation_deg[k, g, list(chosen)]) for chosen in (found, expected)]
        assert heights_deg[0] == pytest.approx(heights_deg[1], abs=ONE_ARCSECOND_DEG), (station.name, k)
        for satellite, delay_ns in found.items():
            assert delay_ns == pytest.approx(sky.slant_km[k, g, satellite] / C_KM_S * 1e9, abs=TWO_METRES_NS)


def test_laser_links_are_those_in_reach_and_clear_of_the_earth(both):
    scenario, plan, sky = both
    lasers, slots = scenario.shell[0].lasers, scenario.shell[0].walker.slots
    linked = plan.links.kind != LinkKind.GROUND
    pairs = list(zip(plan.links.a[linked].tolist(), plan.links.b[linked].tolist(), strict=True))
    neighbours = [(n, n // slots * slots + (n + 1) % slots) for n in range(len(scenario.satellite_names))]
    for k in range(plan.grid.count):
        found = _up(plan, k)
        for a, b in {*pairs, *(tuple(sorted(pair)) for pair in neighbours)}:
            a_km, b_km = sky.satellites_km[k, a], sky.satellites_km[k, b]
            distance_km = math.dist(a_km, b_km)
            spare_km = min(lasers.max_range_km - distance_km, grazing_km(a_km, b_km) - lasers.grazing_altitude_km)
            if abs(spare_km) > TWO_METRES_KM:
                assert ((a, b) in found) == (spare_km > 0), (a, b, k)
            if (a, b) in found:
                assert found[a, b] == pytest.approx(distance_km / C_KM_S * 1e9, abs=TWO_METRES_NS)


def test_path_delays_are_dijkstras_over_skyfields_ranges(both):
    scenario, plan, sky = both
    satellites = len(scenario.satellite_names)
    ends = set(range(satellites, satellites + len(scenario.station)))
    finder = PathFinder(plan, plan_routes(plan, destinations=sorted(ends)))
    places_km = np.concatenate([sky.satellites_km, sky.sites_km], axis=1)
    connected = 0
    for k in range(plan.grid.count):
        links = {(a, b): math.dist(places_km[k, a], places_km[k, b]) / C_KM_S for a, b in _up(plan, k)}
        for source in ends:
            least_s = least_delays_s(links, source, ends)
            for destination in ends - {source}:
                path = finder.path(source, destination, k)
                assert (path is None) == (destination not in least_s)
                connected += path is not None
                if path:
                    tolerance_ns = TWO_METRES_NS * path.hops
                    assert path.delay_ns == pytest.approx(least_s[destination] * 1e9, abs=tolerance_ns)
    assert connected


def _random_tles(seed: int, start: datetime) -> tuple[dict, ...]:
    """Low, medium, highly eccentric and geosynchronous orbits with drag, their epochs up to three days from `start`."""
    rng = np.random.default_rng(seed)
    made = []
    for number, (rev_day, eccentricity) in enumerate(
        [(15.5, 0.0004), (15.1, 0.001), (14.2, 0.0), (12.6, 0.05), (2.0, 0.01), (2.006, 0.72), (1.0027, 0.0002)]
    ):
        satrec, epoch = Satrec(), start + timedelta(days=float(rng.uniform(-3, 3)))
        angles = rng.uniform(0, 2 * math.pi, 3).tolist()
        satrec.sgp4init(
            WGS72, "i", number + 1, (epoch - datetime(1949, 12, 31, tzinfo=timezone.utc)) / timedelta(days=1),
            float(rng.uniform(0, 1e-4)), 0.0, 0.0, eccentricity, angles[0], float(rng.uniform(0.1, 2.0)), angles[1],
            rev_day * 2 * math.pi / 1440, angles[2],
        )  # fmt: skip
        satrec.classification, satrec.intldesg, satrec.ephtype, satrec.elnum, satrec.revnum = "U", "00001A", 0, 1, 1
        made.append({"name": f"sat-{number}", "tle": export_tle(satrec)})
    return tuple(made)


@pytest.mark.parametrize("seed", range(6))
def test_satellites_given_as_tles_are_where_skyfield_has_them(seed):
    scenario = _random_scenario(seed)
    satellites = _random_tles(seed, scenario.time.start)
    shell = Shell.model_validate({"name": "real", "satellite": satellites, "lasers": {"topology": "none"}})
    scenario = scenario.model_copy(update={"shell": (shell,)})
    sky, grid = sky_of(scenario), scenario.time.grid
    r_km = propagate(constellation_elements(scenario), grid.start, grid.offsets_ns)
    sidereal_rad = sidereal_angle_rad(grid.start, grid.offsets_ns)
    for g, station in enumerate(scenario.station):
        place = (station.latitude_rad, station.longitude_rad)
        site_km = itrs_to_teme(site_itrs_km(*place, station.height_km), sidereal_rad)[:, None]
        zenith = itrs_to_teme(zenith_itrs(*place), sidereal_rad)[:, None]
        assert np.abs(range_km(site_km, r_km) - sky.slant_km[:, g]).max() < TWO_METRES_KM
        found_deg = np.degrees(elevation_rad(site_km, zenith, r_km))
        assert np.abs(found_deg - sky.elevation_deg[:, g]).max() < ONE_ARCSECOND_DEG


@pytest.mark.parametrize("seed", range(12))
def test_a_node_rises_at_its_local_time(seed):
    """Mean solar time is UTC and 4 minutes a degree of the longitude over which the satellite comes up."""
    rng = np.random.default_rng(seed)
    minutes = int(rng.integers(0, 1440))
    start = datetime(1995, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=int(rng.integers(0, 50 * 365 * 86_400)))
    walker = {"pattern": "delta", "total": 1, "planes": 1}
    orbit = {"altitude": "600 km", "inclination": "97.8 deg", "ltan": f"{minutes // 60:02d}:{minutes % 60:02d}"}
    shell = Shell.model_validate({"name": "s", "walker": walker, **orbit, "lasers": {"topology": "none"}})
    scenario = Scenario.model_validate({"name": "x", "time": {"start": start, "duration": "1 s"}, "shell": (shell,)})
    satellite = EarthSatellite.from_satrec(satrecs(constellation_elements(scenario))[0], TIMESCALE)
    below = wgs84.geographic_position_of(satellite.at(TIMESCALE.from_datetime(start)))
    assert abs(below.latitude.degrees) < 0.2, "J3 puts it a little off the equator"
    assert satellite.at(TIMESCALE.from_datetime(start)).velocity.km_per_s[2] > 0
    of_day_min = start.hour * 60 + start.minute + start.second / 60
    local_min = (of_day_min + 4 * below.longitude.degrees) % 1440
    apart_min = (local_min - minutes + 720) % 1440 - 720
    assert abs(apart_min) < HALF_A_MINUTE


def test_pairs_across_planes_are_the_nearest_on_average():
    """The shift of +Grid against a search over all slots, along a whole turn."""
    for seed in SEEDS:
        scenario = _random_scenario(seed)
        walker = scenario.shell[0].walker
        whole_turn = _over_one_turn(scenario)
        plan = plan_links(_reaching_far(whole_turn), "")
        places_km = sky_of(whole_turn.model_copy(update={"station": ()})).satellites_km
        across = plan.links.kind == LinkKind.INTER_PLANE
        for a, b in zip(plan.links.a[across].tolist(), plan.links.b[across].tolist(), strict=True):
            plane = b // walker.slots
            others = range(plane * walker.slots, (plane + 1) * walker.slots)
            mean_km2 = [float(((places_km[:, a] - places_km[:, other]) ** 2).sum(-1).mean()) for other in others]
            # J2 moves mean distances by some kilometres; equally near ones are a matter of taste
            assert mean_km2[b % walker.slots] <= min(mean_km2) * 1.005, (seed, a, b)


def _over_one_turn(scenario):
    """The same at 30 instants spread evenly over a revolution."""
    axis_km = EQUATOR_KM + scenario.shell[0].altitude_km
    step_ns = round(2 * math.pi * math.sqrt(axis_km**3 / MU_KM3_S2) / 30 * 1e9)
    time = scenario.time.model_copy(update={"step_ns": step_ns, "duration_ns": 30 * step_ns})
    return scenario.model_copy(update={"time": time})


def _reaching_far(scenario):
    """The same with lasers of any range."""
    shell = scenario.shell[0]
    lasers = shell.lasers.model_copy(update={"max_range_km": None})
    return scenario.model_copy(update={"shell": (shell.model_copy(update={"lasers": lasers}),)})
