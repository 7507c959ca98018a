"""The report is one page that needs nothing else, says what happened, and lets nothing in that others wrote."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from rich.console import Console

from isl_emu import experiment
from isl_emu.cli import cli
from isl_emu.errors import ScenarioError
from isl_emu.linkplan.plan_file import write_plan
from isl_emu.parts.finished_run import ConcludedRun
from isl_emu.parts.part import Part
from isl_emu.parts.questions.chapters import STAGES, stages_ns, token_gaps
from isl_emu.progress import Steps
from isl_emu.results import report
from isl_emu.results.conclude import conclude
from isl_emu.results.report import printable, read_concluded, report_html, write_figures
from isl_emu.results.run_results import RunResults
from isl_emu.scenario.parse import format_scenario
from isl_emu.show.chapter import Card, Chapter, DataTable, Preformatted
from isl_emu.tables.planned_paths import HopDelays
from tests.browser import browser_page, find_browser

MS, S = 1_000_000, 1_000_000_000
HOSTILE = '<script>alert(1)</script><img src="http://192.0.2.1/x" onerror="alert(2)">\x1b[2J\u202e & </dd></main>'
NO_CONTENT = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """What a page is made of: its elements with their attributes, its text, and whether each end has a beginning."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text, self._open = "", []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in NO_CONTENT:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, text: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text += text

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def concluded(good_run_of_module: Any) -> ConcludedRun:
    """A run with two answers, one over a change of its path and one that broke off, and with what a villain wrote."""
    run = good_run_of_module
    times = {"t_last_send_ns": 500 * MS, "t_first_ns": 1_700 * MS, "t_finish_ns": 2_400 * MS}
    cut = {"outcome": "failed", "error": HOSTILE, "server_prompt_ns": None, "server_predict_ns": None}
    run.write("requests.jsonl", [run.request(0, question=HOSTILE, answer=HOSTILE, **times), run.request(1, **cut)])
    hops = {"hops_seen": 2, "delay_ns": 8 * MS}
    far = [run.far_probe(seq=at, t_send_ns=at * S + 500 * MS, **(hops if at > 1 else {})) for at in range(4)]
    run.write("probes.jsonl", [run.probe(), *far])
    death = {"t_ns": S, "t_end_ns": None, "kind": "death", "node": "p00s00", "what": HOSTILE, "cause": HOSTILE}
    run.write("incidents.jsonl", [death])
    run.folder.scenario.write_text(format_scenario(run.scenario))
    write_plan(run.plan, run.folder.plan)
    conclude(run.folder, run.scenario, run.plan, run.routes)
    return ConcludedRun(run.folder, run.scenario, run.plan)


@pytest.fixture(scope="module")
def html(concluded: ConcludedRun) -> str:
    return report_html(concluded)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_what_others_wrote_is_shown_and_not_obeyed(page: Page) -> None:
    assert not page.named("script")
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert '<script>alert(1)</script><img src="http://192.0.2.1/x" onerror="alert(2)">' in page.text
    assert "\x1b" not in page.text
    assert "\u202e" not in page.text
    assert printable("a\x00b\u2066c\td\ne") == "a\ufffdb\ufffdc\td\ne"


def test_the_page_needs_no_network_and_forbids_itself_any(page: Page, html: str) -> None:
    addresses = [
        value
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "data")
    ]
    assert addresses
    assert {address.partition(":")[0] for address in addresses if address and not address.startswith("#")} == {"data"}
    (policy,) = [meta["content"] for meta in page.named("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert "url(" not in html.partition("</style>")[0]


def test_every_picture_tells_what_it_shows_and_every_link_leads_somewhere(page: Page) -> None:
    pictures = page.named("img")
    assert len(pictures) >= 6
    assert all(len(picture["alt"] or "") > 30 for picture in pictures)
    assert len(page.named("figcaption")) == len(pictures) == len(page.named("figure"))
    ids = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert set(ids.values()) == {1}
    assert {link["href"] for link in page.named("a")} == {f"#{one}" for one in ids}
    assert [tag for tag, _ in page.elements if tag in ("h1", "h2")][:2] == ["h1", "h2"]
    assert page.named("html") == [{"lang": "en"}]


def test_the_verdict_comes_first_and_the_network_before_what_it_carried(html: str) -> None:
    text = html.partition("<body>")[2]
    order = ("INVALID", "Real time.", "ground stations", "<h2")
    assert [text.index(word) for word in order] == sorted(text.index(word) for word in order)
    assert re.findall(r'<h2 id="c\d+">(.*?)</h2>', text) == [
        "The network", "Planned and measured delay", "Path changes", "Links", "Questions and answers",
        "What nobody planned", "How true the run was", "Provenance, and how to repeat it",
    ]  # fmt: skip
    (why,) = re.findall(r'<div class="verdict invalid".*?</div>', text, re.DOTALL)
    assert "but it was to last" in why


def test_where_the_time_went_adds_up(concluded: ConcludedRun) -> None:
    done = [row for row in concluded.rows("requests") if row["outcome"] == "completed"]
    stages = stages_ns(concluded.plan, done)
    assert stages is not None
    (found,) = stages.tolist()
    assert dict(zip(STAGES, found)) == {
        "up": 2 * 2 * MS, "lasers": 2 * 2 * 10 * MS, "queue": 52 * MS, "prefill": 200 * MS, "decode": 700 * MS,
        "down": 2 * 2 * MS,
    }  # fmt: skip
    assert sum(found) == done[0]["e2e_ns"]
    assert stages_ns(concluded.plan, [{**done[0], "network_ns": None}]) is None


def test_tokens_at_a_change_of_the_path_stand_out(concluded: ConcludedRun) -> None:
    """The path changes at 2 s; what was on its way comes up to 12 ms later."""
    done = [row for row in concluded.rows("requests") if row["outcome"] == "completed"]
    steady, changing = token_gaps(done)
    assert len(steady) + len(changing) == len(done[0]["itl_ns"])
    assert changing.tolist() == [[2_000 * MS, 100 * MS], [2_100 * MS, 100 * MS]][-len(changing) :]
    assert done[0]["handover_itl_ns"] == [int(gap) for _, gap in changing]


def test_hops_have_the_delays_of_their_instant(concluded: ConcludedRun) -> None:
    hops = HopDelays(concluded.plan)
    assert hops.of(["gs-a", "p00s00", "p00s01"], 500 * MS) == [2 * MS, 5 * MS]
    assert hops.of(["gs-a", "p00s01"], 3 * S) == [3 * MS]
    assert hops.of(["gs-a", "p00s00"], 3 * S) == [0]  # down by then
    assert hops.link("gs-a", "p00s02") is None


def test_pictures_are_files_for_papers_too(concluded: ConcludedRun, tmp_path: Path, page: Page) -> None:
    files = write_figures(concluded, tmp_path / "figures", ["svg", "pdf", "png"])
    assert len(files) == 3 * len(page.named("img"))
    for file in files:
        head = file.read_bytes()[:8]
        if file.suffix == ".svg":
            assert ElementTree.parse(file).getroot().tag.endswith("svg")
        else:
            assert head.startswith({".pdf": b"%PDF", ".png": b"\x89PNG"}[file.suffix])
    with pytest.raises(ScenarioError, match="format: is 'gif'"):
        write_figures(concluded, tmp_path, ["gif"])


def test_a_report_that_fails_takes_nothing_from_the_run(concluded: ConcludedRun, monkeypatch: Any, capsys: Any) -> None:
    def fail(_: Any) -> None:
        raise ValueError("no ink")

    monkeypatch.setattr(report, "report_html", fail)
    experiment._write_report(concluded, Steps(Console(width=200)))
    assert "report.html: was not written (ValueError('no ink')); the results are complete" in capsys.readouterr().out
    assert concluded.folder.summary.is_file()
    assert not (concluded.folder.path / "report.html").exists()


class OwnPart(Part):
    key = "own"

    def chapters(self, run: ConcludedRun) -> Iterator[Chapter]:
        table = DataTable("A table", ("name", "value"), [("<b>", "1")], rest="more elsewhere")
        card = Card("Who", [("Q", "<u>")], "done")
        yield Chapter("Mine <i>", ["A paragraph.", table, card, Preformatted("As is", "a  b")])

    def ways(self, run: ConcludedRun) -> list[list[str]]:
        return [["p00s01", "p00s02"], ["p00s02", "gs-a"]]


def test_a_part_of_ones_own_has_its_chapters_and_its_links_on_the_map(
    concluded: ConcludedRun, monkeypatch: Any
) -> None:
    monkeypatch.setattr(report, "PARTS", (OwnPart(),))
    page = Page(report_html(concluded))
    assert "Mine <i>" in page.text
    assert "more elsewhere." in page.text
    assert "a  b" in page.text
    assert "the 1 of 1 link on ways" in page.text  # the other two are never linked


def test_the_command_and_python_write_what_they_are_asked_to(
    concluded: ConcludedRun, html: str, tmp_path: Path
) -> None:
    folder = concluded.folder
    results = RunResults(folder.path)
    assert results.report() == folder.path / "report.html"
    assert (folder.path / "report.html").read_text() == html  # equal runs give equal reports
    other = tmp_path / "other.html"
    words = ["report", str(folder.path), "--out", str(other), "--figures", str(tmp_path / "f"), "--format", "svg"]
    said = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert said.output.startswith(f"wrote {other}\n")
    assert other.read_text() == html
    assert f"wrote {tmp_path / 'f' / 'map.svg'}\n" in said.output
    assert (tmp_path / "f" / "map.svg").exists()
    with pytest.raises(ScenarioError, match="cannot be written"):
        results.report(tmp_path / "absent" / "report.html")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ScenarioError, match="holds no results of a finished run"):
        read_concluded(empty)


def test_the_page_of_docs_is_true(html: str, tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "report.md").read_text()
    (block,) = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    for line in block.splitlines():
        program, command, *words = shlex.split(line.replace("results/first", str(tmp_path)), comments=True)
        assert (program, command) == ("isl-emu", "report")
        assert cli.commands["report"].make_context("report", list(words)).params
    assert all(f"| {title} |" in text for title in re.findall(r'<h2 id="c\d+">(.*?)</h2>', html))
    assert all(f"`{stage}`" in text for stage in STAGES)


@pytest.mark.skipif(find_browser() is None, reason="this machine has no Chromium to open the report in")
@pytest.mark.parametrize(("width", "height"), [(1200, 900), (360, 740)])
def test_a_browser_opens_it_without_a_complaint_and_without_the_network(
    html: str, tmp_path: Path, width: int, height: int
) -> None:
    path = tmp_path / "report.html"
    path.write_text(html)
    with browser_page() as page:
        page.open(path, width, height)
        assert page.complaints == []
        assert [address for address in page.requests if not address.startswith("data:")] == [path.as_uri()]
        drawn = page.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth])")
        assert len(drawn) >= 6
        assert all(complete and wide > 300 for complete, wide in drawn)
        assert page.evaluate("document.documentElement.scrollWidth") <= width  # wide things scroll by themselves
        assert page.picture().startswith(b"\x89PNG")
        assert page.pdf().startswith(b"%PDF")


def test_the_browser_would_tell(tmp_path: Path) -> None:
    if find_browser() is None:
        pytest.skip("this machine has no Chromium to open a page in")
    path = tmp_path / "bad.html"
    path.write_text('<img src="missing.png"><script>console.error("oh")</script>')
    with browser_page() as page:
        page.open(path, 400, 400)
        assert any("oh" in one for one in page.complaints)
        assert any(address.endswith("missing.png") for address in page.requests)
