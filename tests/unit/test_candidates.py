from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from isl_emu.geometry.walker import phase_spacing_rad, plane_spacing_rad, slot_spacing_rad, walker_angles
from isl_emu.linkplan.candidates import (
    constellation_candidates,
    inter_plane_pairs,
    nearest_slot_shift,
    shell_pairs,
)
from isl_emu.linkplan.plan import LinkKind
from isl_emu.scenario.model import Shell, Walker


def shell(total, planes, phasing=0, pattern="delta", topology="+grid", inclination="53 deg", **lasers):
    walker = {"pattern": pattern, "total": total, "planes": planes, "phasing": phasing}
    table = {"name": "shell", "walker": walker, "altitude": "550 km", "inclination": inclination}
    return Shell.model_validate({**table, "lasers": {"topology": topology, **lasers}})


def pairs(*args, **options) -> list[tuple[int, int]]:
    a, b, _ = shell_pairs(shell(*args, **options))
    return list(zip(a.tolist(), b.tolist(), strict=True))


def unit_vectors(walker, inclination_rad, mean_anomaly_rad):
    """Directions of the satellites on circular orbits, shape (T, 3)."""
    raan, u = (angle.ravel() for angle in walker_angles(walker))
    u = u + mean_anomaly_rad
    x, y, z = np.cos(u), np.sin(u) * math.cos(inclination_rad), np.sin(u) * math.sin(inclination_rad)
    return np.stack([x * np.cos(raan) - y * np.sin(raan), x * np.sin(raan) + y * np.cos(raan), z], axis=-1)


def test_twelve_in_a_plane_are_a_ring():
    expected = [(0, 1), (0, 11), *((slot, slot + 1) for slot in range(1, 11))]
    assert pairs(12, 1, topology="ring") == expected
    assert pairs(12, 1) == expected, "a +Grid of one plane is its ring"


@pytest.mark.parametrize(("total", "count"), [(1, 0), (2, 1), (3, 3), (4, 4)])
def test_small_rings_have_no_double_links(total, count):
    assert len(pairs(total, 1, topology="ring")) == count


def test_rings_stay_within_their_planes():
    assert pairs(6, 2, topology="ring") == [(0, 1), (0, 2), (1, 2), (3, 4), (3, 5), (4, 5)]


def test_without_lasers_there_are_no_pairs():
    assert pairs(12, 3, topology="none") == []


@pytest.mark.parametrize(
    ("total", "planes", "phasing"), [(9, 3, 0), (24, 8, 5), (1584, 72, 39), (1156, 34, 17), (351, 27, 13)]
)
def test_a_delta_grid_has_two_links_a_satellite(total, planes, phasing):
    found = pairs(total, planes, phasing)
    assert len(set(found)) == len(found) == 2 * total
    assert set(Counter(node for pair in found for node in pair).values()) == {4}


@pytest.mark.parametrize(("total", "planes", "phasing"), [(66, 6, 2), (588, 12, 0), (648, 18, 7)])
def test_a_star_grid_lacks_one_plane_of_links_at_the_seam(total, planes, phasing):
    slots = total // planes
    found = pairs(total, planes, phasing, pattern="star", inclination="86.4 deg")
    assert len(set(found)) == len(found) == 2 * total - slots
    assert not any(a < slots and b >= total - slots for a, b in found), "nothing crosses the seam"


def test_two_planes_are_adjacent_once():
    found = pairs(8, 2, 1)
    assert len(set(found)) == len(found) == 2 * 4 + 4


def test_pairs_are_sorted_and_say_their_kind():
    a, b, kind = shell_pairs(shell(24, 8, 5))
    assert (a < b).all()
    assert list(zip(a, b, strict=True)) == sorted(zip(a, b, strict=True))
    assert ((a // 3 == b // 3) == (kind == LinkKind.INTRA_PLANE)).all()


def test_the_seam_of_a_delta_looks_like_every_other_pair_of_planes():
    constellation = shell(1584, 72, 39)
    walker = constellation.walker
    a, b, kind = shell_pairs(constellation)
    raan, u = (angle.ravel() for angle in walker_angles(walker))
    inter = kind == LinkKind.INTER_PLANE
    backwards = np.where((b - a)[inter] // walker.slots > 1, -1, 1)  # from the last plane to the first
    apart_rad = backwards * (u[b] - u[a])[inter]
    ahead_rad = phase_spacing_rad(walker) + nearest_slot_shift(walker, math.radians(53)) * slot_spacing_rad(walker)
    assert np.cos(apart_rad - ahead_rad) == pytest.approx(1.0)
    assert np.cos((raan[b] - raan[a])[inter] - backwards * plane_spacing_rad(walker)) == pytest.approx(1.0)


@pytest.mark.parametrize("phasing", [0, 1, 4, 7])
@pytest.mark.parametrize("inclination_deg", [0, 53, 86.4, 97.5])
@pytest.mark.parametrize("pattern", ["delta", "star"])
def test_no_other_shift_is_nearer_at_its_worst_or_on_average(phasing, inclination_deg, pattern):
    walker = Walker(pattern=pattern, total=72, planes=8, phasing=phasing)
    inclination_rad = math.radians(inclination_deg)
    chords = np.array(
        [
            [np.linalg.norm(place[9 + shift] - place[0]) for shift in range(9)]
            for place in (unit_vectors(walker, inclination_rad, m) for m in np.linspace(0, 2 * math.pi, 72))
        ]
    )
    chosen = nearest_slot_shift(walker, inclination_rad) % 9
    assert chords.max(axis=0)[chosen] == pytest.approx(chords.max(axis=0).min())
    assert (chords**2).mean(axis=0)[chosen] == pytest.approx((chords**2).mean(axis=0).min())


def test_equal_slots_are_neighbours_where_the_phasing_is_small():
    assert nearest_slot_shift(Walker(pattern="delta", total=1584, planes=72, phasing=1), math.radians(53)) == 0
    assert nearest_slot_shift(Walker(pattern="delta", total=1584, planes=72, phasing=71), math.radians(53)) == -1


def test_candidates_carry_the_terms_of_their_shell():
    first = shell(6, 1, topology="ring", rate="2 Gbit/s", max_range="9000 km", grazing_altitude="100 km", queue="5 ms")
    second = shell(4, 1, topology="ring", rate="1 Gbit/s")
    found = constellation_candidates([first, second])
    assert found.rate_bit_s.tolist() == [2_000_000_000] * 6 + [1_000_000_000] * 4
    assert found.max_range_km.tolist() == [9000.0] * 6 + [math.inf] * 4
    assert found.grazing_altitude_km.tolist() == [100.0] * 6 + [80.0] * 4
    assert found.queue_ns.tolist() == [5_000_000] * 6 + [20_000_000] * 4
    assert (found.a[6:].min(), found.b[6:].max()) == (6, 9), "the second shell's nodes follow the first's"


@pytest.mark.parametrize("planes", [33, 34])
def test_a_given_shift_joins_the_same_slots_everywhere(planes):
    pattern = Walker(pattern="star", total=planes * 34, planes=planes, phasing=17, alternate=True)
    pairs = inter_plane_pairs(pattern, math.radians(51.9), shift=1)
    assert len(pairs) == (planes - 1) * 34
    assert ((pairs[:, 1] - pairs[:, 0]) % 34 == 1).all()


def test_equal_slots_of_alternating_planes_are_joined_also_at_the_seam():
    pattern = Walker(pattern="delta", total=1156, planes=34, phasing=17, alternate=True)
    pairs = inter_plane_pairs(pattern, math.radians(51.9), shift=0)
    assert len(pairs) == 34 * 34
    assert (pairs[:, 0] % 34 == pairs[:, 1] % 34).all()


def test_neighbours_of_alternating_planes_are_those_of_the_same_shell_counted_on():
    # half a slot ahead, then half a slot behind: the same places in the sky as half a slot from plane to plane
    alternating = Walker(pattern="delta", total=1156, planes=34, phasing=17, alternate=True)
    counted_on = Walker(pattern="delta", total=1156, planes=34, phasing=17)
    found, expected = (inter_plane_pairs(walker, math.radians(51.9)) for walker in (alternating, counted_on))
    place = {}
    for walker in (alternating, counted_on):
        arg_lat_deg = np.degrees(walker_angles(walker)[1].ravel()) % 360
        place[walker.alternate] = [(n // 34, round(angle, 6) % 360) for n, angle in enumerate(arg_lat_deg)]
    links = [
        {frozenset((place[key][a], place[key][b])) for a, b in pairs.tolist()}
        for key, pairs in ((True, found), (False, expected))
    ]
    assert links[0] == links[1]


def test_the_first_and_the_last_of_an_odd_number_of_alternating_planes_are_alike():
    pattern = Walker(pattern="delta", total=351, planes=27, alternate="half-slot")
    seam = inter_plane_pairs(pattern, math.radians(98.98))[-13:]
    assert seam[:, 0].tolist() == list(range(26 * 13, 27 * 13))
    raan_rad, arg_lat_rad = (angles.ravel() for angles in walker_angles(pattern))
    for a, b in seam.tolist():  # the nearest of the first plane, by the angle between them where they cross the equator
        angles = [_apart(raan_rad[a], arg_lat_rad[a], raan_rad[c], arg_lat_rad[c]) for c in range(13)]
        assert angles[b] == pytest.approx(min(angles))


def _apart(raan_a: float, u_a: float, raan_b: float, u_b: float) -> float:
    """The mean over a revolution of sin^2 of half the angle between two satellites on circles at 98.98 deg."""
    turn = np.linspace(0, 2 * np.pi, 90, endpoint=False)

    def place(raan: float, u: float) -> np.ndarray:
        x, y = np.cos(u + turn), np.sin(u + turn)
        sideways, up = y * math.cos(math.radians(98.98)), y * math.sin(math.radians(98.98))
        return np.stack([x * np.cos(raan) - sideways * np.sin(raan), x * np.sin(raan) + sideways * np.cos(raan), up])

    return float(np.mean((1 - (place(raan_a, u_a) * place(raan_b, u_b)).sum(axis=0)) / 2))
