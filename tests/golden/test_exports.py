"""A small plan in every export format, as it was looked through by hand once; `python tests/golden/test_exports.py`
(from the root, with PYTHONPATH=.) writes the files anew, to be looked through again."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from isl_emu.api import Plan
from isl_emu.errors import ScenarioError
from isl_emu.export import czml
from isl_emu.export.formats import FORMATS, export_text
from isl_emu.geometry.places import places_itrs_km
from isl_emu.linkplan.contacts import find_contacts
from isl_emu.linkplan.events import no_events
from isl_emu.planned import plan_network
from isl_emu.scenario.parse import parse_scenario
from isl_emu.timebase import TimeGrid
from tests.plans import MS, make_plan
from tests.scenarios import head, shell, station

GOLDEN = Path(__file__).parent / "exports"
TWO_METRES_M = 2.0
SCENARIO = (
    head("three", start="2026-03-20T14:00:00.25Z", duration="10 s", step="2500 ms")
    + shell(3, lasers="none")
    + station("gs-one", latitude="10 deg", longitude="-170 deg")
)


def small_plan() -> Plan:
    """Three satellites and a station over four instants that begin within a second; one direction carries nothing."""
    both, ground = {(0, 1): 12 * MS, (1, 2): 13 * MS}, {(0, 3): 2 * MS}
    plan = make_plan(3, ["gs-one"], [{**both, **ground}, both, {(0, 1): 12 * MS + 1, **ground}, both])
    scenario = parse_scenario(SCENARIO, "test")
    rate_ab = np.where(plan.links.a[plan.row_link] == 1, 0, plan.row_rate_ab_bit_s)
    loss = np.where(plan.links.b[plan.row_link] == 3, 0.25, 0.0)
    grid = TimeGrid(scenario.time.start, 2_500_000_000, 4)
    return Plan(replace(plan, grid=grid, row_rate_ab_bit_s=rate_ab, row_loss_ratio=loss, events=no_events()), scenario)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return small_plan()


@pytest.mark.parametrize("name", FORMATS)
def test_the_export_is_the_golden_one(plan, name):
    assert plan.export(name) == (GOLDEN / f"small.{name}").read_text()


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_scenario_gives_the_same_bytes_each_time(name, tmp_path):
    scenario = parse_scenario(SCENARIO, "test")
    assert small_plan().export(name) == small_plan().export(name)
    assert export_text(small_plan().link_plan, scenario, name) == small_plan().export(name)


def test_an_unknown_format_is_refused(plan):
    with pytest.raises(ScenarioError, match="exported as csv, ion, ud3tn, czml"):
        plan.export("xml")


def test_csv_holds_every_contact(plan):
    rows, contacts = list(csv.DictReader(io.StringIO(plan.export("csv")))), find_contacts(plan.link_plan)
    assert [round(float(row["start_s"]) * 1e9) for row in rows] == contacts.start_ns.tolist()
    assert [round(float(row["end_s"]) * 1e9) for row in rows] == contacts.end_ns.tolist()
    for row in rows:
        start = datetime.fromisoformat(row["start_utc"].replace("Z", "+00:00"))
        assert start - plan.link_plan.grid.start == timedelta(seconds=float(row["start_s"]))
    assert {row["loss_ratio"] for row in rows if row["b"] == "gs-one"} == {"0.25"}


def test_ion_contacts_lie_within_the_plans_and_never_overlap(plan):
    text = plan.export("ion")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert lines[0] == "@ 2026/03/20-14:00:00"
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for line in lines[1:]:
        match = re.fullmatch(r"a (contact|range) \+(\d+) \+(\d+) (\d+) (\d+) (\d+)", line)
        what, start, end, source, destination, value = match.group(1), *map(int, match.groups()[1:])
        assert start < end
        assert value == (1 if what == "range" else 125_000_000)
        if what == "contact":
            found.setdefault((source, destination), []).append((start, end))
    assert (2, 3) not in found, "that direction carries nothing"
    # 0.25 s late, up for the whole 10 s; rounded inwards
    assert found[1, 2] == found[2, 1] == [(1, 10)]
    assert found[3, 2] == [(1, 5), (8, 10)]
    assert found[1, 4] == [(1, 2), (6, 7)]


def test_rates_and_times_that_ion_has_no_bits_for_are_cut_or_refused(plan):
    """As ionadmin reads them: strtol into an unsigned int, and no time after 19 January 2038."""
    fast = replace(plan.link_plan, row_rate_ba_bit_s=np.full_like(plan.link_plan.row_rate_ba_bit_s, 100_000_000_000))
    lines = export_text(fast, plan.scenario, "ion").splitlines()
    rates = [int(line.split()[-1]) for line in lines if line.startswith("a contact")]
    assert set(rates) == {125_000_000, 4_294_967_295}, "12,500,000,000 would become 3,910,065,408"
    assert "# rates of more than 4294967295 bytes/s are written as that: ION counts in 32 bits" in lines
    assert "32 bits" not in plan.export("ion")
    assert "12500000000" in export_text(fast, plan.scenario, "ud3tn")
    late = replace(plan.link_plan, grid=replace(plan.link_plan.grid, start=datetime(2040, 1, 1, tzinfo=timezone.utc)))
    with pytest.raises(ScenarioError, match="2040.*but ION has times from 1970-01-01 to 2038-01-19 only"):
        export_text(late, plan.scenario, "ion")
    assert '"start": 1262304000' in export_text(late, plan.scenario, "ud3tn")


def test_times_before_2000_are_none_of_ud3tn(plan):
    early = replace(plan.link_plan, grid=replace(plan.link_plan.grid, start=datetime(1999, 1, 1, tzinfo=timezone.utc)))
    with pytest.raises(ScenarioError, match="1999.*but uD3TN has times from 2000-01-01"):
        export_text(early, plan.scenario, "ud3tn")
    assert "@ 1999/01/01-00:00:00" in export_text(early, plan.scenario, "ion")


def test_ud3tn_messages_have_the_fields_of_its_schema(plan):
    text = json.loads(plan.export("ud3tn"))
    eid = re.compile(r"[a-zA-Z0-9]+:.+")
    start_s = round(datetime(2026, 3, 20, 14, tzinfo=timezone.utc).timestamp()) - 946_684_800
    for node, messages in text["nodes"].items():
        assert eid.fullmatch(node)
        for message in messages:
            assert set(message) == {"command", "node_id", "cla_addr", "contact_list"}
            assert message["command"] == "ADD"
            assert eid.fullmatch(message["node_id"])
            for contact in message["contact_list"]:
                assert set(contact) == {"start", "end", "data_rate"}
                assert all(isinstance(value, int) and value >= 0 for value in contact.values())
                assert start_s < contact["start"] < contact["end"] <= start_s + 10


def test_czml_is_one_document_that_names_no_address(plan):
    text = plan.export("czml")
    packets = json.loads(text)
    assert packets[0]["id"] == "document"
    assert packets[0]["version"] == "1.0"
    ids = [packet["id"] for packet in packets]
    assert len(set(ids)) == len(ids)
    assert "http" not in text
    for packet in packets:
        for reference in packet.get("polyline", {}).get("positions", {}).get("references", []):
            assert reference.removesuffix("#position") in ids
    link = next(packet for packet in packets if packet["id"] == "link/p00s00/gs-one")
    assert link["availability"] == [
        "2026-03-20T14:00:00.250000Z/2026-03-20T14:00:02.750000Z",
        "2026-03-20T14:00:05.250000Z/2026-03-20T14:00:07.750000Z",
    ]


def test_czml_positions_interpolate_to_where_the_satellites_are():
    scenario = parse_scenario(SCENARIO.replace('"10 s"', '"3000 s"'), "test")
    link_plan = small_plan().link_plan
    grid = TimeGrid(link_plan.grid.start, 3_000_000_000_000 // 4, 4)
    packets = json.loads(export_text(replace(link_plan, grid=grid), scenario, "czml"))
    samples = np.reshape(packets[1]["position"]["cartesian"], (-1, 4))
    assert np.diff(samples[:, 0]).max() <= 60
    t_s = np.array([3.0, 31.0, 1490.0, 2977.0])
    truth_m = places_itrs_km(scenario, grid.start, (t_s * 1e9).astype(np.int64))[:, 0] * 1000
    for t, r_m in zip(t_s, truth_m, strict=True):
        near = samples[np.sort(np.argsort(np.abs(samples[:, 0] - t))[:6])]
        weights = [np.prod([(t - x) / (own - x) for x in near[:, 0] if x != own]) for own in near[:, 0]]
        assert np.linalg.norm(weights @ near[:, 1:] - r_m) < TWO_METRES_M


def test_czml_names_the_satellites_of_small_constellations_only():
    names = [packet["id"] for packet in json.loads(small_plan().export("czml")) if "label" in packet]
    assert names == ["p00s00", "p00s01", "p00s02", "gs-one"]


MASKED = """
name = "masked"
[time]
start = 2024-09-24T00:00:00Z
duration = "60 s"
step = "10 s"
[orbits]
on_bad = "mask"
[[shell]]
name = "s"
satellite = [
  { name = "gone", tle = [
    "1 45110U 20007A   23232.80903846 0.00110000  00000-0  32750-2 0    04",
    "2 45110  69.9913 111.5649 0009740 159.9373 200.0626 15.34502222    06",
  ] },
  { name = "there", altitude = "2000 km", inclination = "53 deg" },
]
lasers = { topology = "none" }
"""


def test_a_satellite_without_a_position_is_nowhere_in_czml():
    planned = plan_network(parse_scenario(MASKED, "masked"), {})
    packets = {packet["id"]: packet for packet in json.loads(export_text(planned.link_plan, planned.scenario, "czml"))}
    assert packets["gone"]["availability"] == []
    assert "position" not in packets["gone"] and "point" not in packets["gone"]
    assert len(packets["there"]["position"]["cartesian"]) == 4 * 7


def test_czml_has_a_position_for_each_span_in_which_it_is_known(monkeypatch):
    planned = plan_network(parse_scenario(MASKED, "masked"), {})

    def places(scenario, start, offsets_ns):
        r_km = np.ones((len(offsets_ns), 2, 3)) * np.arange(1, len(offsets_ns) + 1)[:, np.newaxis, np.newaxis]
        r_km[3:5, 0] = np.nan
        return r_km

    monkeypatch.setattr(czml, "places_itrs_km", places)
    packets = {packet["id"]: packet for packet in json.loads(export_text(planned.link_plan, planned.scenario, "czml"))}
    spans = ["2024-09-24T00:00:00Z/2024-09-24T00:00:20Z", "2024-09-24T00:00:50Z/2024-09-24T00:01:00Z"]
    assert packets["gone"]["availability"] == spans
    assert [part["interval"] for part in packets["gone"]["position"]] == spans
    assert [part["cartesian"][::4] for part in packets["gone"]["position"]] == [[0.0, 10.0, 20.0], [50.0, 60.0]]


if __name__ == "__main__":
    for export in FORMATS:
        (GOLDEN / f"small.{export}").write_text(small_plan().export(export))
