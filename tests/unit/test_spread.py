"""A run spread over several guests: what is where, and what is refused before it begins."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from isl_emu.cli import cli
from isl_emu.errors import ScenarioError
from isl_emu.experiment import load_source
from isl_emu.linkplan.plan import LinkKind
from isl_emu.live.spread import LEAST_DELAY_NS, Spread, cut_of, leave_parts, spread_over
from isl_emu.machine.place import Place
from isl_emu.machine.uml import UmlKernel
from isl_emu.partition.cut import LEAST_LOOKAHEAD_NS, least_delays_ns
from isl_emu.parts.part import Part, Source
from isl_emu.parts.registry import PARTS
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.portion import Portion
from isl_emu.runs.wishes import Wishes
from tests.scenarios import head, quiet_ring, shell, station, table

pytest.importorskip("pymetis")

GUESTS_PAGE = Path(__file__).parents[2] / "docs" / "guests.md"
EXACT, REAL = Place("guest", "asked for", "exact"), Place("guest", "asked for", "real")
FLEET = shell(24, 4, 1, altitude="1200 km", inclination="60 deg", lasers={"topology": "+grid", "rate": "1 Gbit/s"})
STATIONS = "".join(
    station(name, latitude=latitude, longitude="104 deg", antennas=2)
    for name, latitude in (("gs-a", "30 deg"), ("gs-b", "-40 deg"), ("gs-c", "50 deg"))
)
COMPUTE = table("compute", satellites=["p0*"], server="modelled", board="inference-2035", model="qwen3-8b")
QUESTIONS = {"mean_interval": "200 ms", "prompts": ["Why?"]}
ASKING = COMPUTE + table("questions", **QUESTIONS)


def _source(tmp_path: Path, more: str = "") -> Source:
    path = tmp_path / "scenario.toml"
    path.write_text(head("spread", duration="5 s") + FLEET + STATIONS + more)
    return load_source(path, {})


@pytest.mark.parametrize("guests", [2, 3])
def test_no_packet_takes_less_between_guests_than_the_lookahead(tmp_path: Path, guests: int) -> None:
    source = _source(tmp_path, ASKING)
    spread = spread_over(source, guests, EXACT, Wishes())
    assert spread is not None and spread.portion.count == guests
    part, links = spread.portion.part, source.plan.links
    crossing = part[links.a] != part[links.b]
    assert LEAST_LOOKAHEAD_NS <= spread.lookahead_ns <= least_delays_ns(source.plan)[crossing].min()
    assert set(part.tolist()) == set(range(guests))


def test_in_real_time_nobody_waits_and_no_short_link_crosses(tmp_path: Path) -> None:
    source = _source(tmp_path, ASKING)
    spread = spread_over(source, 2, REAL, Wishes())
    assert spread is not None and spread.lookahead_ns == 0
    part, links = spread.portion.part, source.plan.links
    crossing = part[links.a] != part[links.b]
    assert crossing.any() and least_delays_ns(source.plan)[crossing].min() >= LEAST_DELAY_NS["real"]


def test_in_real_time_a_guest_has_only_so_many_others(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="31 others at most"):
        spread_over(_source(tmp_path), 33, REAL, Wishes())


def test_stations_for_which_one_process_asks_are_in_one_guest(tmp_path: Path) -> None:
    source = _source(tmp_path, COMPUTE + table("questions", target="least-loaded", **QUESTIONS))
    spread, names = spread_over(source, 3, EXACT, Wishes()), source.plan.nodes.names
    assert spread is not None
    assert len({int(spread.portion.part[names.index(name)]) for name in ("gs-a", "gs-b", "gs-c")}) == 1


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.key)
def test_each_part_says_itself_whether_it_can_be_spread(part: Part) -> None:
    assert "one_guest" in vars(type(part))


def test_a_part_that_does_not_say_so_is_not_spread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NewPart(Part):
        key = "new"

    monkeypatch.setattr("isl_emu.live.spread.PARTS", (*PARTS, NewPart()))
    with pytest.raises(ScenarioError, match="--guests: is 2, but of new nobody knows"):
        spread_over(_source(tmp_path), 2, EXACT, Wishes())


def test_a_question_and_its_answer_are_expected_on_the_way_of_the_plan(tmp_path: Path) -> None:
    """Of all that is expected, each token and question is a packet or more at a station and at who answers."""
    source = _source(tmp_path, ASKING)
    flows = [flow for part in PARTS for flow in part.flows(source)]
    there = sum(flow.packets for flow in flows if flow.a.startswith("gs-"))
    back = sum(flow.packets for flow in flows if flow.b.startswith("gs-"))
    told = sum(one.messages for part in PARTS for one in part.traffic(source.scenario))
    assert there == pytest.approx(back) and there + back == pytest.approx(told, rel=0.6)
    near = load_source(tmp_path / "scenario.toml", {"questions": {"target": "nearest", **QUESTIONS}})
    linked = {near.plan.nodes.names[a] for a in near.plan.links.a[near.plan.links.kind == LinkKind.GROUND].tolist()}
    asked = {flow.b for part in PARTS for flow in part.flows(near) if flow.a.startswith("gs-")}
    assert asked and asked <= linked


@pytest.mark.parametrize("target", ["uniform", "nearest", "p00s00"])
def test_contexts_that_move_are_expected_between_satellites(tmp_path: Path, target: str) -> None:
    """A constellation under which the nearest changes; and whoever is named keeps what it has computed."""
    talk = [{"role": "user", "content": "Why? " * 90}, {"role": "assistant", "content": "So."}] * 9
    (tmp_path / "talk.json").write_text(json.dumps([{"messages": talk}]))
    keys = {"mean_interval": "20 s", "conversations": "talk.json", "context": "move", "max_answer_tokens": 9}
    compute = table("compute", server="modelled", board="inference-2035", model="qwen3-8b", context_tokens=4096)
    (tmp_path / "scenario.toml").write_text(
        head("moves", duration="600 s", step="10 s")
        + FLEET
        + STATIONS
        + compute
        + table("questions", target=target, **keys)
    )
    source = load_source(tmp_path / "scenario.toml", {})
    between = [flow for part in PARTS for flow in part.flows(source) if {flow.a[0], flow.b[0]} == {"p"}]
    assert bool(between) == (target != "p00s00")
    assert all(flow.a != flow.b and flow.packets > 0 for flow in between)


def test_who_has_nobody_overhead_is_expected_to_ask_further_away(tmp_path: Path) -> None:
    near = _source(tmp_path, ASKING)
    ground = near.plan.links.kind == LinkKind.GROUND
    linked = {near.plan.nodes.names[a] for a in near.plan.links.a[ground].tolist()}
    far = next(name for name in near.scenario.satellite_names if name not in linked)
    expected = []
    for target in ("nearest", far):
        asking = COMPUTE.replace("p0*", far) + table("questions", target=target, **QUESTIONS)
        expected.append(sorted(flow for part in PARTS for flow in part.flows(_source(tmp_path, asking))))
    assert expected[0] and expected[0] == expected[1]


def test_one_guest_is_not_spread(tmp_path: Path) -> None:
    assert spread_over(_source(tmp_path), 1, REAL, Wishes()) is None


PROGRAM = table("[program]", name="one", node="p00s00", command=["true"])


@pytest.mark.parametrize(
    ("place", "wishes", "more", "reason"),
    [
        (Place("host", "asked for", "real"), Wishes(), "", "this machine's own kernel"),
        (Place("guest", "asked for", "real", UmlKernel("linux.uml", "6.1")), Wishes(), "", "no links between guests"),
        (REAL, Wishes(pause_at_ns=1), "", "--pause-at"),
        (EXACT, Wishes(interactive=True), "", "has one kernel's nodes"),
        (REAL, Wishes(), table("way_out", gateway="gs-a"), "[way_out] leads out"),
        (REAL, Wishes(), table("[hardware]", node="gs-a", interface="eth9"), "[[hardware]] is plugged in"),
        (EXACT, Wishes(), table("routing", policy="ecmp") + PROGRAM, 'routing.policy is "ecmp"'),
    ],
)
def test_what_cannot_be_spread_is_refused_as_the_docs_say(
    tmp_path: Path, place: Place, wishes: Wishes, more: str, reason: str
) -> None:
    told = " ".join(GUESTS_PAGE.read_text().split("## What is refused")[1].split("\n## ")[0].split())
    (sentence,) = (line for line in told.split(" - ") if reason in line)
    with pytest.raises(ScenarioError) as refused:
        spread_over(_source(tmp_path, more), 2, place, wishes)
    why = sentence.partition(": ")[2].partition(" **What")[0]
    assert why.removeprefix("it ") in str(refused.value)


@pytest.mark.parametrize(
    ("more", "alike"),
    [
        (table("[workload]", name="w", function="tests.user_workloads:stating", nodes=["p00s00", "p03s03", "gs-a"]),
         ["p00s00", "p03s03", "gs-a"]),
        (table("compute", satellites=["p0*"]) + table("[kv_handover]", source="p00s01", target="p02s04", tokens=[64]),
         ["p00s01", "p02s04"]),
        (table("[training]", satellites=["p0?s00"], modelled={"compute_time": "1 s", "gradient": "1 MB"}),
         ["p00s00", "p01s00", "p02s00", "p03s00"]),
        (table("compute", satellites=["p00s0[05]", "p02s03"]) + table("uplink"),
         ["p00s00", "p00s05", "p02s03", "gs-a", "gs-b", "gs-c"]),
        (table("[observation]", satellites=["p01s0[12]"], analysts=["p03s05"], size="1 MB", compute_time="2 s"),
         ["p01s01", "p01s02", "p03s05", "gs-a", "gs-b", "gs-c"]),
    ],
)  # fmt: skip
def test_nodes_that_one_process_is_in_are_in_one_guest(tmp_path: Path, more: str, alike: list[str]) -> None:
    source = _source(tmp_path, more)
    spread, names = spread_over(source, 3, EXACT, Wishes()), source.plan.nodes.names
    assert spread is not None
    assert len({int(spread.portion.part[names.index(name)]) for name in alike}) == 1


def test_more_guests_than_groups_of_nodes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ring.toml"
    path.write_text(quiet_ring())
    with pytest.raises(ScenarioError, match="parts"):
        spread_over(load_source(path, {}), 60, EXACT, Wishes())


def test_every_guest_is_left_what_was_prepared(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", "run")
    (folder.journal / "planned.jsonl").write_text("{}\n")
    part = np.array([0, 1, 1, 2], np.int32)
    leave_parts(folder, Spread(Portion(0, part), 5, {"part": part.tolist()}))
    for number, nodes in enumerate(([0], [1, 2], [3])):
        found = Portion.read(folder.path, number, 4)
        assert (found.nodes, found.count, found.number) == (nodes, 3, number)
        assert (RunFolder(folder.path, number).journal / "planned.jsonl").read_text() == "{}\n"


def test_a_run_that_was_not_cut_has_all_nodes_here(tmp_path: Path) -> None:
    assert Portion.read(tmp_path, 0, 3).nodes == [0, 1, 2]


def test_the_command_line_shows_and_writes_the_cut_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the run itself; what keeps it on one guest is told too."""
    source = _source(tmp_path, ASKING + table("way_out", gateway="gs-a"))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["plan", "scenario.toml", "--parts", "2", "--json", "cut.json"])
    assert done.exit_code == 0, done.output
    told = json.loads(Path("cut.json").read_text())
    assert told == cut_of(source, 2).to_json(source.plan) and set(told["part"]) == {0, 1}
    assert "times as fast" in done.output and "but it runs on one guest: [way_out]" in done.output
    done = CliRunner().invoke(cli, ["plan", "scenario.toml", "--json", "cut.json"])
    assert done.exit_code == 2 and "--json is for the cut; add --parts" in done.output
