"""A run with one server of each kind but those outside: which pace they have, and what the results say of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import isl_emu
from isl_emu.errors import WorkloadError
from isl_emu.parts.serving.model_file import resolve_model
from isl_emu.scenario.parse import parse_scenario
from tests.scenarios import head, ring_over_china, station

pytestmark = pytest.mark.emulation

SCENARIO = (
    head("kinds", rate_scale=0.01, start="2026-03-20T14:30:00Z", duration="24 s", slowdown=1.5)
    + ring_over_china()
    + station("gs-chengdu", site="chengdu", uplink="10 Gbit/s", downlink="10 Gbit/s")
    + """
[[compute]]
satellites = ["p00s02", "p00s03"]
server = "modelled"
board = "jetson-agx-orin"
model = "qwen3-4b"
[[compute]]
satellites = ["p00s00"]
server = "throttled"
decode_tokens_s = 24.0
[[compute]]
satellites = ["p00s01"]
server = "external"
command = "PYTHON 'PROGRAM' {host} {port}"
health = "/up"
memory = "128 MiB"
cpus = 0.2
[questions]
mean_interval = "500 ms"
stop_after = "9 s"
max_answer_tokens = 12
prompts = ["Why is the sky blue?"]
"""
)
PROGRAM = """
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Own(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/up" else 404)
        self.end_headers()

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()
        for text in ("you asked ", asked["model"], ": ", asked["messages"][-1]["content"]):
            self.wfile.write(b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + b"\\n\\n")
        self.wfile.write(b"data: [DONE]\\n\\n")

ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Own).serve_forever()
"""
TPOT_NS = 19_000_000  # of Qwen3-4B with 4 bits on this board: 52.2 tokens/s published, docs/servers.md
a_tenth = 0.1


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    try:
        resolve_model("bundled")
    except WorkloadError as error:
        pytest.skip(str(error))
    folder: Path = tmp_path_factory.mktemp("kinds")
    program = folder / "own server.py"
    program.write_text(PROGRAM)
    text = SCENARIO.replace("PYTHON", sys.executable).replace("PROGRAM", str(program))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # whose files programs may read, even if not everybody may
        return isl_emu.run(parse_scenario(text, "kinds"), out=folder / "out")


def test_every_question_is_marked_with_the_kind_of_its_server(results):
    kinds = {"p00s00": "throttled", "p00s01": "external"}
    rows = results.table("requests").to_pylist()
    assert len(rows) > 10
    assert all(row["server"] == kinds.get(row["satellite"], "modelled") for row in rows)
    answered = [row for row in rows if row["outcome"] == "completed"]
    assert {row["server"] for row in answered} >= {"modelled", "throttled"}
    for row in answered:
        assert row["answer"].startswith("(modelled)") == (row["server"] == "modelled")
        if row["server"] == "external":
            assert row["answer"] == "you asked sat: Why is the sky blue?"


def test_modelled_answers_have_the_boards_pace_in_slow_motion(results):
    done = [row for row in results.table("requests").to_pylist() if row["outcome"] == "completed"]
    modelled = [row for row in done if row["server"] == "modelled"]
    paces = sorted(row["server_predict_ns"] / row["answer_tokens"] for row in modelled)
    assert paces[0] > TPOT_NS * (1 - a_tenth)  # several answers at once take longer
    assert all(row["e2e_ns"] > row["server_prompt_ns"] + row["server_predict_ns"] for row in modelled)


def test_the_table_and_the_summary_tell_what_the_servers_are(results):
    modelled, throttled, external = results.table("servers").to_pylist()
    assert (modelled["server"], modelled["satellites"], modelled["model"]) == ("modelled", 2, "qwen3-4b")
    assert modelled["decode_tokens_s"] == pytest.approx(1e9 / TPOT_NS, rel=a_tenth)
    assert (throttled["decode_tokens_s"], throttled["model"]) == (24.0, resolve_model("bundled").name)
    assert throttled["cpus"] == pytest.approx(24.0 * 1.5 / throttled["native_tokens_s"])  # the core has slow motion too
    assert throttled["got_tokens_s"] > 0
    assert (external["server"], external["cpus"]) == ("external", 0.2)
    assert "SERVERS" in results.summary and "tokens at a board's pace late by" in results.summary
    assert results.fidelity["pace"]["steps"] > 0
