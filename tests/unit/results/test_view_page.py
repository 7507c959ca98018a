"""The page of a plan and of a run, in a real browser: it draws, moves, tells and finds, and asks nobody else."""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from isl_emu.linkplan.plan_file import write_plan
from isl_emu.parts.http_server import answering
from isl_emu.planned import PlannedNetwork, plan_network
from isl_emu.results.conclude import conclude
from isl_emu.scenario.parse import format_scenario, parse_scenario
from isl_emu.view.server import ViewServer
from isl_emu.view.sky import Sky
from tests.browser import PATIENCE_S, Page, browser_page, find_browser
from tests.scenarios import quiet_ring

ROOT = Path(__file__).parents[3]
WEB = ROOT / "isl_emu" / "view" / "web"
needs_browser = pytest.mark.skipif(find_browser() is None, reason="this machine has no Chromium to open the page in")


@contextmanager
def opened(sky: Sky, width: int = 1000, height: int = 640) -> Iterator[Page]:
    """The page of a sky, once it is drawn; at the end nobody but its server was asked, and it complained of nothing."""
    server = ViewServer(sky)
    listening = server.listen()
    listening.listen()
    with answering(server.application(), listening), browser_page() as page:
        page.open(server.address, width, height)
        wait_for(page, "globalThis.islEmuView?.state.frames > 0")
        yield page
        page.evaluate("0")
        assert page.requests
        assert all(address.startswith((server.address.split("?")[0], "data:")) for address in page.requests)
        # how Chromium's software renderer takes pictures of itself is no fault of the page
        assert [one for one in page.complaints if "GL Driver Message" not in one] == []


def wait_for(page: Page, condition: str) -> None:
    """Wait until an expression holds in the page."""
    end = time.monotonic() + PATIENCE_S / 2
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"{condition} did not come true: {page.complaints}"
        time.sleep(0.1)


def colours(page: Page, selector: str) -> int:
    """How many colours an element shows."""
    pixels = matplotlib.image.imread(BytesIO(page.picture(selector)))[..., :3]
    return len(np.unique((pixels.reshape(-1, 3) * 255).astype(np.uint8), axis=0))


def click(page: Page, x: float, y: float) -> None:
    """A click into the globe, at a place of it."""
    left, top = page.evaluate("(r => [r.x, r.y])(document.getElementById('globe').getBoundingClientRect())")
    for kind in ("mousePressed", "mouseReleased"):
        page.call("Input.dispatchMouseEvent", type=kind, x=left + x, y=top + y, button="left", clickCount=1)


def on_globe(page: Page, name: str) -> dict[str, Any]:
    """Where a node is on the globe, in pixels, and whether the Earth hides it."""
    return page.evaluate(f"islEmuView.on({json.dumps(name)})")


@pytest.fixture(scope="module")
def plan() -> Sky:
    return Sky(plan_network(parse_scenario(quiet_ring("600 s"), "ring")))


@pytest.fixture(scope="module")
def run(good_run_of_module: Any) -> Sky:
    """A run that is over, in which one question was answered."""
    run = good_run_of_module
    run.write("requests.jsonl", [run.request(0, answer="<b>Because.</b>")])
    run.folder.scenario.write_text(format_scenario(run.scenario))
    write_plan(run.plan, run.folder.plan)
    conclude(run.folder, run.scenario, run.plan, run.routes)
    return Sky(PlannedNetwork(run.plan, run.scenario), run.folder, "run")


@needs_browser
def test_a_plan_is_drawn_and_its_slider_moves_satellites(plan: Sky) -> None:
    with opened(plan) as page:
        assert colours(page, "#globe") > 100
        assert colours(page, "#topology") > 10
        before = page.evaluate("islEmuView.place('p00s00')")
        page.evaluate(
            "(s => { s.value = 300; s.dispatchEvent(new Event('input')) })(document.getElementById('slider'))"
        )
        wait_for(
            page, "Math.abs(islEmuView.state.t - 300) < 1 && document.getElementById('time').value.includes('5:00')"
        )
        after = page.evaluate("islEmuView.place('p00s00')")
        assert 2000 < math.dist(before, after) < 2500  # km: 7.6 km/s for 300 s
        k = plan.samples_ns.tolist().index(300_000_000_000)
        assert after == pytest.approx(plan.positions[k, 0].tolist(), abs=0.5)
        page.evaluate("document.getElementById('play').click()")
        wait_for(page, "islEmuView.state.t > 301")
        page.evaluate("document.getElementById('play').click()")
        assert not page.evaluate("islEmuView.state.playing")


@needs_browser
def test_a_click_shows_a_link_and_a_search_finds_a_node(plan: Sky) -> None:
    with opened(plan) as page:
        page.evaluate("islEmuView.find('p00s03')")
        wait_for(page, "document.querySelector('#details h3')?.textContent === 'p00s03'")
        assert page.evaluate("document.querySelectorAll('#details svg').length") >= 1
        wait_for(page, "Math.abs(islEmuView.on('p00s03').x - document.getElementById('globe').clientWidth / 2) < 5")
        a, b = (on_globe(page, name) for name in ("p00s03", "p00s04"))
        assert not a["hidden"]
        click(page, a["x"] + 0.4 * (b["x"] - a["x"]), a["y"] + 0.4 * (b["y"] - a["y"]))
        wait_for(page, "document.querySelector('#details h3')?.textContent === 'p00s03 - p00s04'")
        told = page.evaluate("document.getElementById('details').innerText")
        assert "delay" in told
        assert "Mbit/s" in told
        page.evaluate("document.getElementById('search').value = 'p00s00 p00s01'")
        page.evaluate("document.getElementById('search-form').requestSubmit()")
        wait_for(page, "document.querySelector('#details h3')?.textContent === 'p00s00 - p00s01'")
        page.evaluate("islEmuView.find('nobody')")
        assert "no node" in page.evaluate("document.getElementById('details').innerText")


@needs_browser
@pytest.mark.parametrize("width", [1000, 360])
def test_a_run_shows_its_question_on_its_way_and_obeys_no_text(run: Sky, width: int) -> None:
    with opened(run, width) as page:
        wait_for(page, "islEmuView.state.events > 1")
        asked = page.evaluate("islEmuView.journeys()")
        assert len(asked) == 1
        assert asked[0]["path"][0] == "gs-a"
        page.evaluate(f"islEmuView.seek({(asked[0]['from'] + asked[0]['until']) / 2})")
        wait_for(page, "islEmuView.state.travelling === 1")
        page.evaluate("islEmuView.seek(1e9)")
        wait_for(page, "document.getElementById('log').innerText.includes('<b>Because.</b>')")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("document.getElementById('acts').hidden")  # what is over has no buttons


def test_the_page_is_built_of_its_sources() -> None:
    digest = hashlib.sha256()
    sources = sorted((ROOT / "web" / "src").iterdir(), key=lambda path: path.name)
    for path in (*sources, ROOT / "web" / "package-lock.json", ROOT / "isl_emu" / "show" / "land.json"):
        digest.update(path.read_bytes())
    built = (WEB / "built-from.txt").read_text().strip()
    assert built == digest.hexdigest(), "web/ has changed since: ./scripts/build-web builds the page anew"
    for name in ("index.html", "style.css"):
        assert (WEB / name).read_bytes() == (ROOT / "web" / "src" / name).read_bytes()


def test_what_is_in_the_page_is_named_with_its_licence() -> None:
    lock = json.loads((ROOT / "web" / "package-lock.json").read_text())
    own = lock["packages"][""]["dependencies"]
    text = (WEB / "THIRD-PARTY.txt").read_text()
    assert list(own) == ["three"]
    assert "three.js" in text
    assert "MIT License" in text


def test_the_page_names_nothing_that_is_elsewhere() -> None:
    index = (WEB / "index.html").read_text()
    assert re.findall(r'(?:src|href)="(?!assets/|data:)', index) == []
    assert "url(" not in (WEB / "style.css").read_text()
