"""Earth observation without a network: when images are taken, what the plan says of their ways, and who is chosen."""

from __future__ import annotations

import asyncio
import math
import sys

import numpy as np
import pytest

from isl_emu.errors import ScenarioError, WorkloadError
from isl_emu.parts.observation import parcels
from isl_emu.parts.observation.analyst import look
from isl_emu.parts.observation.batteries import Batteries
from isl_emu.parts.observation.exposures import exposures
from isl_emu.parts.observation.observe import Computer, Due
from isl_emu.parts.observation.parcels import Parcel, Post
from isl_emu.parts.observation.placement import Candidate, Situation, Ways, policy_of, reason
from isl_emu.routing.paths import PathFinder
from isl_emu.runs.endpoints import Endpoint
from isl_emu.runs.journal import Journal
from isl_emu.scenario.boards import board_named
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.observation import VISION_MODELS, Observation
from isl_emu.scenario.parse import parse_scenario
from isl_emu.tables.planned_paths import PlannedPaths
from isl_emu.timebase import MonotonicClock, TimeGrid
from tests.plans import MS, SECOND, make_plan, make_routes
from tests.scenarios import head, shell, station, table

AREA = {"latitude": "0 deg", "longitude": "20 deg", "radius": "1500 km"}
POWER = table("[power]", bus="40 W", panel={"area": "0.5 m2"}, battery={"capacity": "10 Wh", "start_charge": 0.85},
              radiator={"area": "0.5 m2", "heat_capacity": "20 kJ/K"})  # fmt: skip


def _parsed(text: str) -> Scenario:
    return parse_scenario(text, "text")


def _scenario(more: str = "", duration: str = "100 min", **keys):
    """Four satellites in a plane, and an observation."""
    own = {"size": "1 MB", "compute_time": "2 s", "board": "jetson-agx-orin", **keys}
    ground = station(site="kiruna-station")
    return _parsed(head(duration=duration) + shell(4) + ground + table("[observation]", **own) + more)


def test_images_are_taken_in_a_rhythm_and_no_more_than_wanted():
    images = exposures(_scenario(first="10 s", every="30 min", count=3, satellites=["p00s01", "p00s02"]), 0)
    assert [image.t_ns for image in images] == [s * SECOND for s in (10, 10, 1810, 1810, 3610, 3610)]
    assert [image.satellite for image in images[:2]] == ["p00s01", "p00s02"]
    assert [image.number for image in images] == list(range(6))
    assert len(exposures(_scenario(), 0)) == 4  # without a rhythm one of each
    assert exposures(_scenario(first="101 min"), 0) == []


def test_daylight_is_where_the_sun_is_up():
    every = exposures(_scenario(every="5 min", satellites=["p00s00"]), 0)
    lit = exposures(_scenario(every="5 min", satellites=["p00s00"], daylight=True), 0)
    assert 0.4 < len(lit) / len(every) < 0.6
    for image in every:  # near an equinox: by the hour angle of the mean Sun, to some degrees at the terminator
        hour_deg = (14 + image.t_ns / 3600 / SECOND - 12) * 15 + image.longitude_deg
        cosine = math.cos(math.radians(image.latitude_deg)) * math.cos(math.radians(hour_deg))
        if abs(cosine) > 0.1:
            assert (cosine > 0) == any(one.t_ns == image.t_ns for one in lit)


def test_a_pass_over_an_area_gives_one_image_where_it_is_nearest_to_the_middle():
    passes = exposures(_scenario(over=AREA, duration="1440 min"), 0)
    assert 5 <= len(passes) <= 14  # four satellites, thirty times over the equator, 3,000 of 40,000 km
    for image in passes:
        assert math.hypot(image.latitude_deg, image.longitude_deg - 20) * 111.2 < 1540  # as on a plane
    times = {(image.satellite, image.t_ns) for image in passes}
    for image in exposures(_scenario(over=AREA, every="10 s", duration="1440 min"), 0):
        nearest = min(t_ns for name, t_ns in times if name == image.satellite and abs(t_ns - image.t_ns) < 400 * SECOND)
        assert abs(image.t_ns - nearest) <= 225 * SECOND  # 1,500 km at 7 km/s


@pytest.fixture
def ways() -> Ways:
    """Satellites 0 and 1 joined from second 2 on, 1 and the station in seconds 1 and 4; 1 Mbit/s, 5 ms a link."""
    instants = [{}, {(1, 2): 5 * MS}, {(0, 1): 5 * MS}, {(0, 1): 5 * MS}, {(0, 1): 5 * MS, (1, 2): 5 * MS}]
    plan = make_plan(2, ["gs"], instants, rate_bit_s=1_000_000)
    return Ways(PlannedPaths(plan, PathFinder(plan, make_routes(plan)), {}), plan.grid)


def test_bytes_wait_for_a_path_and_go_on_with_the_next(ways):
    assert ways.next_ns("p00s00", "p00s01", 0) == 2 * SECOND
    assert ways.there_ns("p00s00", "p00s01", 0, 12_500) == 2 * SECOND + 100 * MS + 5 * MS
    assert ways.there_ns("p00s01", "gs", 0, 125_000) == 2 * SECOND + 5 * MS  # a second's worth, to the last bit
    assert ways.there_ns("p00s01", "gs", 0, 137_500) == 4 * SECOND + 100 * MS + 5 * MS  # and more waits for the next
    assert ways.there_ns("p00s01", "gs", 0, 300_000) is None
    assert ways.ground_ns("p00s00", ["gs"], 0, 1) == (4 * SECOND + 8_000 + 10 * MS, "gs")
    assert ways.there_ns("p00s00", "p00s00", 7, 10**9) == 7
    assert ways.delay("p00s00", "p00s01", 0) is None
    assert ways.delay("p00s00", "gs", 4 * SECOND) == (10 * MS, 2)


def _candidate(name: str, delay_ns: int | None, queue: int, answer_ns: int | None, **facts) -> Candidate:
    own = {"pace": 1.0, "spared": True, "charge": None, "sunlit": True, **facts}
    return Candidate(name, delay_ns, None if delay_ns is None else 1, queue, 0, 0, answer_ns, **own)


def _situation(*candidates: Candidate) -> Situation:
    return Situation(0, "own", "fires", 10, 1, 1, 9 * SECOND, candidates)


OWN = _candidate("own", 0, 2, 8 * SECOND)
NEAR = _candidate("near", 5, 1, 6 * SECOND)
FAR = _candidate("far", 20, 0, 4 * SECOND)
OFF = _candidate("off", 1, 0, 2 * SECOND, pace=0.0)
DARK = _candidate("dark", 2, 0, 3 * SECOND, spared=False, sunlit=False)


def test_policies_choose_by_what_they_say():
    everyone = _situation(OWN, NEAR, FAR, OFF, DARK)
    chosen = {
        name: policy_of(name, "x")(everyone) for name in ("on-board", "nearest-free", "earliest-answer", "ground")
    }
    assert chosen == {"on-board": "own", "nearest-free": "far", "earliest-answer": "far", "ground": None}
    assert policy_of("nearest-free", "x")(_situation(OWN, NEAR)) == "near"  # nobody is free: the shortest queue
    assert policy_of("earliest-answer", "x")(_situation(OFF, DARK)) == "off"  # if nobody is fit, any
    told = reason(everyone, "far")
    assert "far: answer at 4 s, 0 waiting; on board: answer at 8 s, 2 waiting; image itself at 9 s" in told
    assert "2 of 5 not fit" in told


def test_a_queue_is_done_one_after_another():
    computer = Computer()
    assert computer.free_ns(7) == 7
    computer.due = {"a": Due(0, 10, begun_ns=3), "b": Due(5, 10), "c": Due(40, 10)}
    assert computer.free_ns(7) == 50
    del computer.due["c"]
    assert computer.free_ns(7) == 23


def test_a_battery_lasts_in_the_sun_and_not_for_long_in_the_shadow(tmp_path):
    scenario = _scenario(POWER)
    grid = TimeGrid.covering(scenario.time.start, scenario.time.duration_ns, SECOND)
    batteries = Batteries(scenario, grid, scenario.satellite_names, tmp_path)
    name = scenario.satellite_names[0]
    lit = np.array([batteries.sunlit(name, k * SECOND) for k in range(grid.count)])
    dark_ns, noon_ns = (int(np.flatnonzero(np.diff(lit.astype(int)) == step)[0] + 1) * SECOND for step in (-1, 1))
    assert batteries.shadow_s(name, 0, grid.duration_ns) == np.count_nonzero(~lit)
    assert batteries.lasts(name, noon_ns, noon_ns, noon_ns + 60 * SECOND)
    # 40 W of bus and 60 W of the board out of 36 kJ: from 85 % down to where it is slowed, 80 %, in 17 s
    assert batteries.lasts(name, dark_ns, dark_ns, dark_ns + 17 * SECOND)
    assert not batteries.lasts(name, dark_ns, dark_ns, dark_ns + 18 * SECOND)
    with Journal(tmp_path / "energy.jsonl") as journal:
        journal.append({"t_ns": SECOND, "satellite": name, "charge_ratio": 0.5, "pace_ratio": 0.3, "mode": "off"})
    assert batteries.state(name, SECOND) == (0.85, 1.0)  # what is written at this very time counts later
    assert batteries.state(name, SECOND + 1) == (0.5, 0.0)


def test_a_look_is_bound_by_arithmetic_or_memory():
    board, model = board_named("jetson-agx-orin"), VISION_MODELS["resnet-50"]
    arithmetic_ns = 7.6e9 / (0.08 * 42.5e12) * 1e9
    assert model.look_ns(board, 8) == pytest.approx(4.5e6 + arithmetic_ns)
    one = Observation.model_validate({"size": "1 MB", "model": "resnet-50", "board": "jetson-agx-orin", "tiles": 100})
    assert one.work_ns == round(100 * model.look_ns(board, 8))


def test_a_program_reads_the_image_and_writes_the_answer():
    copy = "import sys; open(sys.argv[2], 'wb').write(open(sys.argv[1], 'rb').read()[::-1])"
    assert look([sys.executable, "-c", copy, "{image}", "{answer}"], b"abc") == b"cba"
    for command, said in ((["true"], "wrote no answer"), (["false"], "status 1"), (["/no/such"], "cannot be started")):
        with pytest.raises(WorkloadError, match=said):
            look(command, b"abc")


def test_whose_power_is_counted_has_a_board():
    without = table("[observation]", size="1 MB", compute_time="2 s")
    with pytest.raises(ScenarioError, match=r"observation\[0\].board is missing, but power"):
        _parsed(head() + shell(4) + station(site="kiruna-station") + POWER + without)


def test_what_is_there_already_is_not_sent_again(monkeypatch):
    """A connection breaks after a part, and one on which nothing arrives is given up; the next one sends the rest."""
    monkeypatch.setattr(parcels, "enter_network", lambda netns: None)
    monkeypatch.setattr(parcels, "LOOK_S", 0.001)
    endpoints = {"a": Endpoint("", "127.0.0.1", None), "b": Endpoint("", "127.0.0.2", None)}
    parcel = Parcel(1, 3 * parcels.PORTION_BYTE, bytes(range(256)) * (3 * parcels.PORTION_BYTE // 256))

    class Arriving(MonotonicClock):
        """Time passes with each look once something has come."""

        looks = 0

        def now_ns(self) -> int:
            self.looks += parcel.held_byte > 0
            return self.looks

    async def carried() -> None:
        post = Post(endpoints, Arriving())
        await post.open(["b"])
        portion = parcel.part
        parcel.part = lambda begin, end: portion(begin, end) if begin == 0 else portion(begin, begin)  # nothing comes
        await post.attempt("a", "b", parcel, 3)
        del parcel.part
        assert not parcel.there.is_set()
        assert 0 < parcel.held_byte < parcel.size_byte
        held_byte, sent_byte = parcel.held_byte, parcel.wire_byte
        await post.attempt("a", "b", parcel, 10**12)
        assert parcel.there.is_set()
        assert parcel.wire_byte - sent_byte == parcel.size_byte - held_byte
        assert parcel.attempts == parcel.taken == 2

    asyncio.run(carried())
