"""A hundred modelled servers in namespaces of their own: one process, little memory, and the roofline's pace."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path

import pytest

from isl_emu.nodes.namespaces import enter_network, in_own_thread
from isl_emu.nodes.nodespaces import NodeSpace
from isl_emu.parts.activity import Service
from isl_emu.parts.questions.connection import EventParser
from isl_emu.parts.serving.modelled_specification import Specification, write_specifications
from isl_emu.parts.serving.modelled_state import FILE, ModelledState
from isl_emu.runs.clock import RunClock
from isl_emu.runs.directory import RunDirectory
from isl_emu.runs.journal import read_journal
from isl_emu.units import NS_PER_MS
from tests.nets import loopback_spaces

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netem")]

SERVERS = 100
MOST_BYTE = 300e6
PORT = 8080
SLOWDOWN = 2.0
TOKENS = 40
a_few_per_cent = 0.03


@pytest.fixture
def spaces(run: RunDirectory) -> Iterator[list[NodeSpace]]:
    with loopback_spaces(run, [f"p00s{number:02d}" for number in range(SERVERS)]) as made:
        yield made


def _ask(spec: Specification) -> tuple[dict, float]:
    """The last event of an answer, with the server's own times; and how many ms it all took."""
    enter_network(spec.netns)
    begun_s = time.monotonic()
    connection = HTTPConnection(spec.address, PORT, timeout=120)
    body = {"messages": [{"role": "user", "content": "Why?"}], "max_tokens": TOKENS, "stream": True}
    connection.request("POST", "/v1/chat/completions", json.dumps(body))
    *_, last, _ = EventParser().feed(connection.getresponse().read())
    return json.loads(last), (time.monotonic() - begun_s) * 1000


def _pss_byte(pid: int) -> int:
    return 1024 * int(re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)[1])


def test_a_hundred_serve_in_little_memory(spaces: list[NodeSpace], tmp_path: Path) -> None:
    kind = (PORT, "three-body", "qwen3-8b", 4, 4, 2048)
    places = enumerate(spaces, start=1)
    specs = [Specification(space.node, space.path, f"127.0.1.{number}", *kind) for number, space in places]
    write_specifications(specs, tmp_path)
    RunClock.create(tmp_path, SLOWDOWN)
    words = ["isl_emu.parts.serving.modelled_server", "--journal", str(tmp_path)]
    with ExitStack() as undo:
        served = Service("modelled-servers", words, tmp_path, undo)
        answers = [in_own_thread(_ask, spec) for spec in (specs[0], specs[-1])]
        assert _pss_byte(served.pid) < MOST_BYTE
        served.check()
    state = ModelledState.open(tmp_path / FILE)
    assert state.tokens.tolist() == [TOKENS, *[0] * (SERVERS - 2), TOKENS]
    for answer, spent_ms in answers:
        prompt_tokens = answer["usage"]["prompt_tokens"]
        steps_ns = sum(specs[0].roofline.step_ns(prompt_tokens + answered) for answered in range(TOKENS))
        assert answer["timings"]["predicted_ms"] < spent_ms
        assert answer["timings"]["predicted_ms"] == pytest.approx(SLOWDOWN * steps_ns / NS_PER_MS, rel=a_few_per_cent)
    (pace,) = read_journal(tmp_path / "pace.jsonl").records
    assert pace["steps"] == 2 * TOKENS
