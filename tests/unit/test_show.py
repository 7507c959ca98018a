from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.collections import PathCollection
from matplotlib.path import Path as Outline
from PIL import Image

import isl_emu
from isl_emu.cli import cli
from isl_emu.errors import IslEmuError
from isl_emu.export.czml import LINK_RGBA
from isl_emu.linkplan.contacts import find_contacts
from isl_emu.linkplan.events import LinkState, ordered_events
from isl_emu.linkplan.plan import LinkKind
from isl_emu.show.draw import chosen_pairs
from isl_emu.show.gantt import GETTING_READY, _colors_in_turn, _spans_s, _station_lanes
from isl_emu.show.ground_map import WORLD, _lines_deg, _shown_deg, _split_at_date_line, draw_map, land_outlines_deg
from isl_emu.show.measures import degrees, link_series, telling_links
from isl_emu.show.over_time import PIECE_PT, draw_degree, draw_links
from isl_emu.show.style import KIND_COLOR, new_figure, save, time_axis
from isl_emu.units import SPEED_OF_LIGHT_KM_S
from tests.golden.test_exports import small_plan
from tests.plans import MS, make_plan

TOPOLOGIES = Path(__file__).parents[2] / "topologies"
PICTURES = ["contacts", "map", "links", "degree", "path-delay"]


@pytest.fixture(scope="module")
def star() -> isl_emu.Plan:
    return isl_emu.plan(isl_emu.load(TOPOLOGIES / "iridium-star.toml"), duration_s=300, step_s=5)


def _size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", data[16:24])


def test_every_picture_is_drawn(star, tmp_path):
    paths = star.draw(tmp_path / "one", [("gs-tempe", "gs-svalbard")])
    assert [path.stem for path in paths] == PICTURES
    assert all(min(_size(path)) > 300 for path in paths)


def test_equal_plans_give_equal_files(star, tmp_path):
    one, two = (save(draw_degree(star), tmp_path / f"{name}.png") for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_a_film_has_a_frame_for_each_instant(tmp_path):
    told = []
    plan = isl_emu.plan(isl_emu.load(TOPOLOGIES / "three-body.toml"), duration_s=4, step_s=1)
    with Image.open(plan.film(tmp_path / "sky.gif", lambda done, detail: told.append((done, detail)))) as film:
        assert film.n_frames == 4
        frames = []
        for number in range(4):
            film.seek(number)
            frames.append(film.convert("RGB").tobytes())
    assert len(set(frames)) == 4
    assert told[-1] == (1.0, "frame 4 of 4")


def test_a_film_of_another_kind_is_refused(star, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    for name, why in (("sky.avi", r"is sky\.avi, but a film is \.gif or \.mp4"), ("sky.mp4", "needs ffmpeg, but")):
        with pytest.raises(IslEmuError, match=why):
            star.film(tmp_path / name)
    with pytest.raises(IslEmuError, match="cannot be written"):
        star.film(tmp_path / "none" / "sky.gif")


def test_pictures_come_in_other_formats_too_and_equal_plans_give_equal_files(star, tmp_path):
    files = [star.draw(tmp_path / name, formats=["svg", "pdf"]) for name in ("one", "two")]
    assert [path.name for path in files[0][:2]] == ["contacts.svg", "contacts.pdf"]
    assert len(files[0]) == 2 * len(PICTURES)
    for one, two in zip(*files, strict=True):
        assert one.read_bytes().startswith(b"<?xml" if one.suffix == ".svg" else b"%PDF")
        assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(
    ("duration_s", "label", "last_s", "last"),
    [
        (120, "(s)", 120, "120"),
        (1200, "(min)", 1200, "20"),
        (86400, "(h)", 86400, "24"),
        (7 * 86400, "(days)", 604800, "7"),
    ],
)
def test_time_is_in_the_unit_that_suits_it(duration_s, label, last_s, last):
    figure = new_figure(2.6)
    axes = figure.subplots()
    time_axis(axes, duration_s, "2026-03-20 12:00:00")
    figure.canvas.draw()
    ticks = {float(t_s): text.get_text() for t_s, text in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)}
    assert axes.get_xlabel().endswith(label)
    assert 5 <= len([t_s for t_s in ticks if 0 <= t_s <= duration_s]) <= 13
    assert ticks[last_s] == last


def test_the_map_shows_the_world_or_a_part_that_holds_all_nodes_all_the_time():
    tracks_deg = np.array([[10.0, 12.0], [14.0, 11.0]]), np.array([[100.0, 120.0], [104.0, 124.0]])
    assert _shown_deg(*tracks_deg) == (94.0, 3.0, 130.0, 21.0)
    assert _shown_deg(tracks_deg[0], tracks_deg[1] - 280) == WORLD  # it would go beyond 180 degrees
    assert _shown_deg(tracks_deg[0], tracks_deg[1] * [1, -1]) == WORLD
    assert _shown_deg(np.array([[np.nan]]), np.array([[np.nan]])) == WORLD


@pytest.mark.parametrize("name", ["three-body", "moving-terminals", "split-model", "dawn-dusk-energy"])
def test_names_on_the_map_hide_no_node_and_no_name_and_are_on_it(name):
    plan = isl_emu.plan(isl_emu.load(TOPOLOGIES / f"{name}.toml"), duration_s=20)
    figure = draw_map(plan)
    figure.canvas.draw()
    (axes,) = figure.axes
    known = [text for text in axes.texts if text.get_text() in plan.nodes]
    assert {text.get_text() for text in known} >= set(plan.scenario.station_names)
    boxes = [text.get_window_extent() for text in known]
    area = axes.get_window_extent()
    dots = np.vstack([
        axes.transData.transform(dots.get_offsets()) for dots in axes.collections if isinstance(dots, PathCollection)
    ])  # fmt: skip
    assert len(dots) == len(plan.nodes)
    for number, box in enumerate(boxes):
        assert area.x0 <= box.x0 and box.x1 <= area.x1
        assert not [dot for dot in dots if box.contains(*dot)], known[number].get_text()
        assert not [other for other in boxes[:number] if box.overlaps(other)], known[number].get_text()


def test_a_station_that_moves_has_a_track():
    def labels(name: str) -> list[str]:
        plan = isl_emu.plan(isl_emu.load(TOPOLOGIES / f"{name}.toml"), duration_s=60)
        return [drawn.get_label() for drawn in draw_map(plan).axes[0].collections]

    assert "track of a station" in labels("moving-terminals")
    assert "track of a station" not in labels("three-body")


def test_a_station_that_moves_has_a_path_in_cesium_too():
    plan = isl_emu.plan(isl_emu.load(TOPOLOGIES / "moving-terminals.toml"), duration_s=60)
    with_path = {packet["id"] for packet in json.loads(plan.export("czml")) if "path" in packet}
    assert with_path == {"ship-pacific", "aircraft-pacific"}


@pytest.mark.parametrize("name", ["three-body", "moving-terminals", "starlink-shell-1"])
def test_two_satellites_in_a_row_have_two_colours(name):
    plan = isl_emu.plan(isl_emu.load(TOPOLOGIES / f"{name}.toml"), duration_s=1800, step_s=10)
    contacts, links = find_contacts(plan.link_plan), plan.link_plan.links
    colors, pairs = _colors_in_turn(plan, contacts), 0
    for station in {int(links.b[link]) for link in contacts.link if links.kind[link] == LinkKind.GROUND}:
        mine = [at for at, link in enumerate(contacts.link) if links.b[link] == station]
        seen = [int(links.a[contacts.link[at]]) for at in sorted(mine, key=lambda at: contacts.start_ns[at])]
        for one, two in zip(seen, seen[1:]):
            assert one == two or colors[one] != colors[two]
            pairs += one != two
    assert pairs > 3


def test_lines_that_lie_on_each_other_show_in_turn_and_the_legend_shows_each_whole():
    plan = isl_emu.plan(isl_emu.load(TOPOLOGIES / "moving-terminals.toml"), duration_s=60)
    ranges, rates = draw_links(plan, telling_links(plan.link_plan)).axes

    def in_turn(lines) -> list[bool]:
        return [(line._unscaled_dash_pattern[1] or [0])[0] == PIECE_PT for line in lines]

    assert in_turn(ranges.lines)[:2] == [False, True]  # of two lasers within a plane
    assert in_turn(rates.lines)[:4] == [False, True, True, True]
    for axes in (ranges, rates):
        assert not any(in_turn(axes.get_legend().get_lines()))


def test_tracks_of_a_day_are_those_of_a_revolution():
    day = isl_emu.plan(isl_emu.load(TOPOLOGIES / "three-body.toml"), duration_s=86_400, step_s=600)
    (axes,) = draw_map(day).axes
    assert axes.get_title(loc="left").endswith("ground tracks of all satellites over the first revolution")
    (tracks,) = [drawn for drawn in axes.collections if drawn.get_label() == "ground track"]
    assert len(tracks.get_paths()) <= 3 * 12  # a few pieces of each, cut at 180 degrees


def test_a_plan_without_any_link_is_drawn_too(tmp_path):
    plan = isl_emu.Plan(make_plan(3, ["gs-one"], [{}, {}]), small_plan().scenario)
    assert len(plan.draw(tmp_path)) == len(PICTURES)
    assert "no link is ever up" in plan.summary()


def test_degrees_count_all_links_of_satellites_only():
    plan = make_plan(3, ["gs"], [{(0, 1): MS, (0, 3): MS}, {}])
    found = degrees(plan)
    assert found.mean.tolist() == [1.0, 0.0]
    assert found.least.tolist() == [0, 0]
    assert found.most.tolist() == [2, 0]


def test_a_link_over_time_has_gaps_where_it_is_down():
    plan = make_plan(3, [], [{(0, 1): 3 * MS}, {(1, 2): MS}, {(0, 1): 4 * MS}], rate_bit_s=7)
    series = link_series(plan, 0)
    assert series.range_km[[0, 2]] == pytest.approx([3e-3 * SPEED_OF_LIGHT_KM_S, 4e-3 * SPEED_OF_LIGHT_KM_S])
    assert np.isnan([series.range_km[1], series.rate_ab_bit_s[1], series.rate_ba_bit_s[1]]).all()
    assert series.rate_ab_bit_s[0] == 7


def test_the_links_shown_by_default_are_those_that_change_most():
    instants = [{(0, 1): 5 * MS, (1, 2): 5 * MS, (2, 3): 5 * MS, (0, 4): MS}, {(0, 1): 6 * MS, (2, 3): 9 * MS}]
    assert telling_links(make_plan(4, ["gs"], instants)) == [3, 0, 1]
    assert telling_links(make_plan(2, [], [{}])) == []


def test_contacts_of_a_lane_never_overlap_and_all_are_drawn(star):
    contacts = find_contacts(star.link_plan)
    lanes = _station_lanes(star, contacts)
    drawn = [at for _, lane in lanes for at in lane]
    assert len(drawn) == len(set(drawn)) == sum(row["kind"] == "ground" for row in star.contacts.to_pylist())
    for _, lane in lanes:
        assert (contacts.end_ns[lane[:-1]] <= contacts.start_ns[lane[1:]]).all()
    assert sorted(label for label, _ in lanes if label) == sorted(star.scenario.station_names)


def test_slewing_and_acquiring_end_with_the_next_event_or_the_run():
    plan = make_plan(3, [], [{(1, 2): MS}, {(1, 2): MS, (0, 1): MS}, {(1, 2): MS}, {(1, 2): MS}])
    states = [LinkState.SLEWING, LinkState.TRACKING, LinkState.LOST, LinkState.ACQUIRING]
    events = ordered_events(np.arange(4), np.zeros(4), np.array(states))
    plan = isl_emu.Plan(replace(plan, events=events), small_plan().scenario)
    assert _spans_s(plan, 0, GETTING_READY) == [(0.0, 1.0), (3.0, 1.0)]


def test_lines_never_run_across_the_whole_map():
    east, west = _split_at_date_line(np.array([[170.0, 0], [179, 1], [-178, 4], [-170, 5]]))
    assert east.tolist() == [[170, 0], [179, 1], [180, 2]]
    assert west.tolist() == [[-180, 2], [-178, 4], [-170, 5]]
    a_km, b_km = np.array([[-7000.0, 100, 0], [0, 1000, 6900]]), np.array([[-7000.0, -1000, 10], [0, -1000, 6900]])
    pieces = _lines_deg(a_km, b_km, 9)
    assert len(pieces) == 3, "the first crosses the date line, the second passes the pole"
    assert all(np.abs(np.diff(piece[:, 0])).max() < 180.1 for piece in pieces)
    assert all(np.abs(np.diff(ring[:, 0])).max() < 180 or ring[:, 1].min() == -90 for ring in land_outlines_deg())


def test_every_kind_of_link_has_a_colour():
    assert set(KIND_COLOR) == set(LINK_RGBA) == set(LinkKind)
    assert len(set(KIND_COLOR.values())) == len(LinkKind)


def test_the_continents_are_where_they_belong():
    def on_land(longitude_deg: float, latitude_deg: float) -> bool:
        return any(Outline(ring).contains_point((longitude_deg, latitude_deg)) for ring in land_outlines_deg())

    for place in ((104.1, 30.7), (-112, 33.4), (24, -28), (134, -25), (-60, -15), (0, -85), (178, 67), (-175, 66.5)):
        assert on_land(*place), place
    for place in ((-40, 30), (160, 10), (-130, -30), (80, -40), (-170, 0), (0, 88)):
        assert not on_land(*place), place


def test_pairs_are_chosen_where_nobody_names_any(star):
    assert chosen_pairs(star) == [tuple(pair) for pair in star.scenario.probes.pairs]
    assert chosen_pairs(small_plan()) == [("gs-one", "p00s01")]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"links": [("p00s00", "p03s05")]}, "never linked in this plan"),
        ({"links": [("p00s00", "p9")]}, "no such node"),
        ({"pairs": [("p00s00", "p9")]}, "no such node"),
        ({"formats": ["gif"]}, "'gif', but a picture is png, svg, pdf"),
    ],
)
def test_what_cannot_be_drawn_is_named(star, tmp_path, arguments, complaint):
    with pytest.raises(isl_emu.ScenarioError, match=complaint):
        star.draw(tmp_path, **arguments)


def test_the_summary_tells_nodes_links_contacts_and_step(star):
    text = star.summary()
    for part in ("66 satellites, 3 stations", "intra-plane", "gs-tempe", "links of a satellite", "largest change of a"):
        assert part in text
    assert all(len(line) < 120 for line in text.splitlines())


def _run(*arguments: object) -> str:
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_plan_is_saved_shown_and_exported_from_the_command_line(tmp_path):
    saved, pictures, out = tmp_path / "plan.parquet", tmp_path / "pictures", tmp_path / "plan.czml"
    planned = _run("plan", TOPOLOGIES / "iridium-star.toml", "--duration", "20s", "--out", saved)
    shown = _run("show", saved, "--pair", "gs-tempe", "gs-svalbard", "--link", "p00s01", "p00s00", "--out", pictures)
    assert "largest change of a delay in one step of 1 s" in planned
    assert "gs-tempe to gs-svalbard: " in shown
    assert "reachable 100.0% of the time" in shown
    assert sorted(path.stem for path in pictures.iterdir()) == sorted(PICTURES)
    _run("export", saved, "--format", "czml", "--out", out)
    assert out.read_text() == isl_emu.read_plan(saved).export("czml")
    assert _run("export", saved, "--format", "csv") == isl_emu.read_plan(saved).export("csv")
