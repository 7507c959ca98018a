"""What a page, a terminal and Prometheus are shown of a run, to whom, and in which order."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from isl_emu.cli import cli
from isl_emu.geometry.places import places_itrs_km
from isl_emu.linkplan.contacts import find_contacts
from isl_emu.linkplan.plan_file import write_plan
from isl_emu.parts.http_server import answering
from isl_emu.planned import PlannedNetwork, plan_network
from isl_emu.results.conclude import conclude
from isl_emu.runs.folder import RunFolder
from isl_emu.scenario.parse import format_scenario, parse_scenario
from isl_emu.view.board import Board, board_of
from isl_emu.view.events import events_of
from isl_emu.view.live import LiveEvents
from isl_emu.view.metrics import metrics_text
from isl_emu.view.opened import open_live
from isl_emu.view.server import ViewServer
from isl_emu.view.sky import Sky
from isl_emu.view.tail import Tail
from tests.scenarios import quiet_ring, table

MS, S = 1_000_000, 1_000_000_000
ROOT = Path(__file__).parents[3]
FAULT = table("[fault]", name="cable", links=["p00s00 - p00s01"], effect="cut", at=["4 s"], **{"for": "3 s"})
BY_HAND = {"id": 0, "t_ns": S, "t_end_ns": None, "kind": "intervention", "node": "p00s00", "what": "link"}


@pytest.fixture(scope="module")
def sky() -> Sky:
    """A plan with a fault."""
    return Sky(plan_network(parse_scenario(quiet_ring("70 s") + FAULT, "ring")))


@pytest.fixture(scope="module")
def run(good_run_of_module: Any) -> Sky:
    """A run that is over: two questions, of which one failed, and a link that somebody has cut for a second."""
    run = good_run_of_module
    run.write("requests.jsonl", [run.request(), run.request(1, outcome="failed", error="\x1b[2Jno", answer="")])
    run.write("incidents.jsonl", [{**BY_HAND, "t_end_ns": 2 * S, "cause": "p00s00 - p00s01 by hand: cut"}])
    run.folder.scenario.write_text(format_scenario(run.scenario))
    write_plan(run.plan, run.folder.plan)
    conclude(run.folder, run.scenario, run.plan, run.routes)
    return Sky(PlannedNetwork(run.plan, run.scenario), run.folder, "run")


@pytest.fixture(scope="module")
def server(run: Sky, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ViewServer]:
    """It serves that run, and a page of its own."""
    folder = tmp_path_factory.mktemp("pages") / "web"
    folder.mkdir()
    (folder / "index.html").write_text('<script src="assets/app.js"></script><link href="/assets/a.css">')
    (folder / "app.js").write_text("'use strict'")
    (folder.parent / "secret").write_text("s")
    (folder / "out").symlink_to(folder.parent / "secret")
    with serving(ViewServer(run, folder)) as server:
        yield server


@contextmanager
def serving(server: ViewServer) -> Iterator[ViewServer]:
    """A server answers while the block lasts."""
    listening = server.listen()
    listening.listen()
    with answering(server.application(), listening):
        yield server


def ask(server: ViewServer, path: str, *, token: str | None = None, host: str | None = None, **words: Any) -> Any:
    """The status, headers and body of an answer."""
    base, _, query = server.address.partition("?")
    query = query if token is None else f"token={token}"
    headers = {"Host": host} if host else {}

    async def once() -> Any:
        method = "POST" if "json" in words else "GET"
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, f"{base}{path}{'&' if '?' in path else '?'}{query}",
                            headers=headers | words.pop("headers", {}), **words) as answer,
        ):  # fmt: skip
            return answer.status, answer.headers, await answer.read()

    return asyncio.run(once())


def test_positions_are_those_of_the_geometry(sky: Sky) -> None:
    assert sky.samples_ns[[0, -1]].tolist() == [0, 70 * S]
    assert (np.diff(sky.samples_ns) <= 30 * S).all()
    grid, scenario = sky.planned.link_plan.grid, sky.planned.scenario
    assert sky.positions.shape == (len(sky.samples_ns), 13, 3)
    assert np.allclose(sky.positions, places_itrs_km(scenario, grid.start, sky.samples_ns), atol=0.001)
    assert np.allclose(np.linalg.norm(sky.sun, axis=1), 1.0, atol=1e-6)
    longitude_deg = np.degrees(np.arctan2(sky.sun[0, 1], sky.sun[0, 0]))
    assert abs(longitude_deg - (12 - 14.5 + 7.5 / 60) * 15) < 0.1  # the equation of time of 20 March is 7.5 min


def test_links_are_up_when_the_plan_has_them_up(sky: Sky) -> None:
    contacts, plan = find_contacts(sky.planned.link_plan), sky.planned.link_plan
    told = [(link, from_s, until_s) for link, spans in enumerate(sky.states) for from_s, until_s, *_ in spans]
    planned = zip(contacts.link.tolist(), (contacts.start_ns / S).tolist(), (contacts.end_ns / S).tolist())
    assert told == list(planned)
    _, _, delay_ms, rate_mbit_s = sky.states[0][0]
    first = plan.snapshot(0)
    assert delay_ms * MS == first.delay_ns[0]
    assert rate_mbit_s * 1e6 == pytest.approx(first.rate_ab_bit_s[0] * plan.rate_scale)
    assert [span[:2] for span in sky.states[0]] == [(0.0, 4.0), (7.0, 70.0)]  # but for the fault


def test_what_there_is_is_named_with_its_place(sky: Sky, run: Sky) -> None:
    told = sky.to_json()
    assert (told["kind"], told["clock"], told["valid"], told["load"], told["buttons"]) == (
        "plan",
        None,
        None,
        None,
        False,
    )
    assert told["nodes"][3] == {
        "name": "p00s03", "kind": "satellite", "shell": "ring", "plane": 0, "slot": 3, "min_elevation_deg": None,
        "roles": [],
    }  # fmt: skip
    assert told["nodes"][-1]["kind"] == "station"
    assert {link["kind"] for link in told["links"]} == {"laser", "ground"}
    told = run.to_json()
    assert told["valid"] is False  # somebody has changed it
    assert [node["roles"] for node in told["nodes"]][-1] == ["asks"]


def test_a_link_that_is_down_says_why_and_when_it_comes_back(sky: Sky) -> None:
    figures = {figure["label"]: figure["value"] for figure in sky.link(0, 1, 5.0)["figures"]}
    assert figures["state"] == "fault"
    assert "cable" in figures["down because"]
    assert figures["comes back"] == "7 s"
    delay, rate = sky.link(1, 0, 5.0)["series"]
    assert [v is None for v in delay["v"]] == [4 <= t < 7 for t in range(70)]
    assert rate["v"][3] > rate["v"][4] == 0.0
    assert {figure["label"]: figure["value"] for figure in sky.node(0, 5.0)["figures"]}["links up"].startswith("1 of ")


def test_load_is_what_was_sent_over_what_could_be(run: Sky, tmp_path: Path) -> None:
    """125,000 bytes in the first second over 50 Mbit/s and 1 Mbit/s as shaped."""
    folder = RunFolder(tmp_path)
    columns = {"t_ns": [S, 2 * S, S], "node": ["p00s01", "p00s01", "p00s00"], "peer": ["p00s00", "p00s00", "gs-a"]}
    pq.write_table(pa.table({**columns, "sent_byte": [125_000, 125_000, 31_250]}), folder.table("links"))
    scenario = run.planned.scenario
    counters = scenario.counters.model_copy(update={"interval_ns": S})
    planned = PlannedNetwork(run.planned.link_plan, scenario.model_copy(update={"counters": counters}))
    load = Sky(planned, folder, "run").load
    assert load is not None
    assert load.shape == (2 * len(planned.link_plan.links.a), 4)
    assert load[1].tolist() == pytest.approx([1e6 / 50e6, 0, 0, 0])  # from b to a
    assert load[0].tolist() == [0, 0, 0, 0]
    ground = int(np.flatnonzero((planned.link_plan.links.a == 0) & (planned.link_plan.links.b == 3))[0])
    assert load[2 * ground].tolist() == pytest.approx([0.25e6 / 1e6, 0, 0, 0])


def test_events_are_in_order_and_tell_of_links_questions_faults_and_the_verdict(run: Sky, sky: Sky) -> None:
    events = events_of(run.planned, run.concluded)
    assert [event["t_s"] for event in events] == sorted(event["t_s"] for event in events)
    told = [(event["type"], event.get("phase", event.get("up"))) for event in events if event.get("id") != 1]
    assert told == [
        ("question", "asked"), ("question", "first_token"), ("fault", "struck"), ("question", "done"),
        ("fault", "mended"), ("link", False), ("link", True), ("verdict", None),
    ]  # fmt: skip
    asked = events[0]
    assert asked["path"] == ["gs-a", "p00s00", "p00s01", "p00s02"]
    assert (asked["from"], asked["to"], asked["text"]) == ("gs-a", "p00s02", "Why?")
    fault = next(event for event in events if event["type"] == "fault")
    assert (fault["links"], fault["intervention"], fault["how"]) == ([["p00s00", "p00s01"]], True, "cut")
    planned = [event for event in events_of(sky.planned, None) if event["type"] == "fault"]
    assert [(event["t_s"], event["phase"], event["what"]) for event in planned] == [
        (4.0, "struck", "cable"), (7.0, "mended", "cable"),
    ]  # fmt: skip


def test_a_run_of_before_tells_what_it_has(run: Sky, tmp_path: Path) -> None:
    """Its tables lack columns that came later."""
    folder = RunFolder(tmp_path)
    pq.write_table(pa.table({"id": [0], "station": ["gs-a"], "satellite": ["p00s02"], "outcome": ["completed"],
                             "t_send_ns": [500 * MS], "t_finish_ns": [S]}), folder.table("requests"))  # fmt: skip
    old = Sky(run.planned, folder, "run")
    events = events_of(old.planned, old.concluded)
    assert [(event["type"], event["phase"], event["t_s"]) for event in events] == [
        ("question", "asked", 0.5), ("question", "done", 1.0),
    ]  # fmt: skip
    assert events[0]["path"] == ["gs-a", "p00s00", "p00s01", "p00s02"]
    assert old.load is None
    assert old.to_json()["valid"] is None


def test_who_does_not_know_the_token_gets_nothing(server: ViewServer) -> None:
    paths = ["", "sky.json", "positions.f32", "sun.f32", "states.json", "load.f32", "events.json", "events", "metrics",
             "node?i=0", "link?a=0&b=1", "assets/app.js", "nothing"]  # fmt: skip
    for path in paths:
        for token in ("", "x", server.token + "x"):
            status, headers, body = ask(server, path, token=token)
            assert status == 403
            assert body.startswith(b"token: ")
            assert headers["Content-Security-Policy"].startswith("default-src 'self'; ")
    assert ask(server, "sky.json", host="evil.example")[0] == 403
    assert ask(server, "sky.json", headers={"Origin": "http://evil.example"})[0] == 403
    assert len(server.token) >= 32
    assert ViewServer(server.sky).token != server.token
    assert server.address.startswith("http://127.0.0.1:")


def test_who_knows_it_gets_all(server: ViewServer, run: Sky) -> None:
    assert json.loads(ask(server, "sky.json")[2])["title"] == "miniature"
    assert ask(server, "positions.f32")[2] == run.positions.tobytes()
    assert json.loads(ask(server, "states.json")[2])["links"] == json.loads(json.dumps(run.states))
    assert json.loads(ask(server, "events.json")[2])[0]["type"] == "question"
    assert json.loads(ask(server, "node?i=0&t=1")[2])["name"] == "p00s00"
    for path, status in (("node?i=99", 404), ("node", 400), ("node?i=0&t=nan", 400), ("link?a=0&b=2", 404), ("x", 404)):
        assert ask(server, path)[0] == status, path
    assert ask(server, "act", json={"verb": "stop"})[0] == 403  # nothing of it lives


def test_the_page_asks_for_its_files_with_the_token_and_for_nothing_else(server: ViewServer, sky: Sky) -> None:
    page = ask(server, "")[2].decode()
    assert page == (
        f'<script src="assets/app.js?token={server.token}"></script><link href="/assets/a.css?token={server.token}">'
    )
    status, headers, body = ask(server, "assets/app.js")
    assert (status, body) == (200, b"'use strict'")
    assert "javascript" in headers["Content-Type"]
    for name in ("..%2fsecret", "%2e%2e/secret", "..%2f..%2fsecret", "out", "%2fetc%2fpasswd", "%00"):
        assert ask(server, f"assets/{name}")[0] in (400, 404), name
    with serving(ViewServer(sky, Path("/nonexistent"))) as bare:
        assert b"./scripts/build-web" in ask(bare, "")[2]


def test_the_example_of_the_documentation_follows_a_run(server: ViewServer) -> None:
    page = (ROOT / "docs" / "stream.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    assert len(example.splitlines()) <= 18
    done = subprocess.run([sys.executable, "-c", example, server.address], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[:2] == [
        "miniature", "0.5 asked gs-a p00s02 ['gs-a', 'p00s00', 'p00s01', 'p00s02']",
    ], done.stderr  # fmt: skip


def test_metrics_are_all_documented_and_well_formed(run: Sky) -> None:
    board = board_of(run, events_of(run.planned, run.concluded))
    board.servers['we"ird\n'] = ("nominal", 3)
    text = metrics_text(board)
    for line in text.splitlines():
        assert re.fullmatch(r'# (HELP|TYPE) \w+ .+|isl_emu_\w+(\{(\w+="([^"\\]|\\.)*",?)+\})? [-+.\de]+', line), line
    assert 'isl_emu_questions_total{phase="done"} 1' in text.splitlines()
    assert 'isl_emu_server_queue{node="we\\"ird\\n"} 3' in text.splitlines()
    page = (ROOT / "docs" / "stream.md").read_text(encoding="utf-8")
    assert {name for name in re.findall(r"# TYPE (\w+)", text) if f"`{name}`" not in page} == set()


def test_top_prints_one_page_of_a_run_that_is_over(run: Sky) -> None:
    assert run.folder is not None
    result = CliRunner().invoke(cli, ["top", str(run.folder.path)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "miniature  ended  t = 4.0 s of 4 s" in result.output
    assert "4 nodes, 3 of 4 links up" in result.output
    assert re.search(r"p00s00 - gs-a +at 2\.0 s", result.output)
    assert "questions: 2 sent, 0 open, 1 done, 1 failed" in result.output
    assert re.search(r"0  gs-a → p00s02 +done +TTFT 300 ms +E2E 1\.00 s +Why\?", result.output)
    assert "\x1b" not in result.output


@pytest.fixture
def live(bare_run: Any) -> tuple[Any, LiveEvents, list[float]]:
    """A run whose journals are still to be written, somebody who looks on, and the wall's time."""
    run, wall_s = bare_run, [0.0]
    run.folder.scenario.write_text(format_scenario(run.scenario))
    write_plan(run.plan, run.folder.plan)
    return run, LiveEvents(open_live(run.folder.path, buttons=True), lambda: wall_s[0]), wall_s


def _append(run: Any, name: str, text: str) -> None:
    with (run.journal / name).open("a") as file:
        file.write(text)


def test_a_live_run_is_told_as_its_journals_grow(live: Any) -> None:
    run, events, wall_s = live
    assert events.hello()["state"] == "building"
    assert events.poll() == []
    for k in range(3):
        wall_s[0] += 0.5
        _append(run, "instants.jsonl", json.dumps(run.instant(k)) + "\n")
        found = events.poll()
    assert events.state == "live"
    assert [(event["type"], event.get("up")) for event in found] == [("link", False), ("link", True), ("clock", None)]
    assert found[0]["t_s"] == 2.001  # when it was in force
    assert found[-1]["rate"] == 2.0
    assert found[-1]["lateness_ms"] == 1.0
    asked = {"id": 0, "phase": "asked", "t_ns": 2_100 * MS, "station": "gs-a", "satellite": "p00s02", "question": "?"}
    line = json.dumps(asked)
    _append(run, "asked.jsonl", line[:20])
    assert events.poll() == []
    _append(run, "asked.jsonl", line[20:] + "\n")
    (question,) = events.poll()
    assert (question["phase"], question["path"]) == ("asked", ["gs-a", "p00s01", "p00s02"])
    _append(run, "incidents.jsonl", json.dumps({**BY_HAND, "cause": "p00s00 - p00s01 by hand: cut"}) + "\n")
    board = Board.of(Sky(PlannedNetwork(run.plan, run.scenario)))
    for event in events.poll():
        board.take(event)
    assert ("p00s00", "p00s01") not in board.up
    _append(run, "incidents.jsonl", json.dumps({"id": 0, "t_end_ns": 3 * S}) + "\n")
    for event in events.poll():
        board.take(event)
    assert ("p00s00", "p00s01") in board.up
    assert not board.faults
    run.folder.fidelity.write_text(json.dumps({"verdict": "valid", "reasons": []}))
    assert [event["type"] for event in events.poll()] == ["verdict", "clock"]
    assert events.gone


def test_what_is_in_a_guest_can_neither_stop_nor_lead_astray_who_looks_on(live: Any, tmp_path: Path) -> None:
    run, events, _ = live
    (tmp_path / "elsewhere.jsonl").write_text(json.dumps(run.instant(0)) + "\n")
    (run.journal / "instants.jsonl").symlink_to(tmp_path / "elsewhere.jsonl")
    os.mkfifo(run.journal / "incidents.jsonl")
    assert events.poll() == []
    (run.journal / "instants.jsonl").unlink()
    bad = ['{"k": 99, "done_ns": 0, "planned_ns": 0}', '{"k": "x"}', "[1]", "\0", "[" * 99_999, '{"k": 1e400}']
    _append(run, "instants.jsonl", "\n".join([*bad, json.dumps(run.instant(0)), ""]))
    _append(
        run,
        "asked.jsonl",
        '{"id": [], "phase": {}, "t_ns": 1, "station": ["x"], "satellite": {}}\n{"phase": "asked"}\n',
    )
    _append(run, "requests.jsonl", '{"t_finish_ns": "x", "outcome": 1}\n')
    assert events.poll() == []
    assert events.state == "live"


def test_buttons_are_for_ones_own_live_run_and_do_what_they_say(live: Any, tmp_path: Path) -> None:
    """Here nothing lives: what a button asks for comes to the live run, which is told to be none."""
    run, _, _ = live

    def act(record: Any, *, buttons: bool = True, **words: Any) -> tuple[int, str]:
        with serving(ViewServer(open_live(run.folder.path, buttons=buttons))) as server:
            status, _, body = ask(server, "act", json=record, **words)
        return status, body.decode()

    assert act({"verb": "pause"}, buttons=False)[0] == 403
    assert act({"verb": "pause"}, headers={"Content-Type": "text/plain"})[0] == 415
    for bad in ({"verb": "exec"}, {}, [], {"verb": "fault"}, {"verb": "fault", "a": "x"}, {"verb": "capture"}):
        assert act(bad)[0] == 400, bad
    for good in ({"verb": "pause"}, {"verb": "fault", "a": "p00s00", "b": "p00s01"}, {"verb": "restore"}):
        status, body = act(good)
        assert (status, json.loads(body)["ok"]) == (200, False)
        assert "live run: there is none" in json.loads(body)["text"]
    capture = {"verb": "capture", "a": "p00s00"}
    assert "there is none" in act(capture)[1]
    assert list((run.folder.path / "captures").iterdir()) == []
    (run.folder.path / "captures").rmdir()
    (tmp_path / "elsewhere").mkdir()
    (run.folder.path / "captures").symlink_to(tmp_path / "elsewhere")
    assert "captures: cannot be written" in json.loads(act(capture)[1])["text"]
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_batches_are_read_once_and_whole(tmp_path: Path) -> None:
    schema = pa.schema([("t_ns", pa.int64()), ("end", pa.int8())])
    whole = pa.BufferOutputStream()
    with pa.ipc.new_stream(whole, schema) as writer:
        for k in range(5):
            writer.write_batch(pa.record_batch([pa.array([k, k + 10]), pa.array([0, 1], pa.int8())], schema=schema))
    data, found, tail = whole.getvalue().to_pybytes(), [], Tail(tmp_path, "links.arrow")
    assert tail.batches() == []
    for begin in range(0, len(data), 37):
        with (tmp_path / "links.arrow").open("ab") as file:
            file.write(data[begin : begin + 37])
        found += [batch["t_ns"].to_pylist() for batch in tail.batches()]
    assert found == [[k, k + 10] for k in range(5)]
