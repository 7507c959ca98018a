"""A real model in a container answers over a real netem link, asked by the real client process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from isl_emu.errors import WorkloadError
from isl_emu.nodes.containers import Container
from isl_emu.nodes.namespaces import enter_network, in_own_thread
from isl_emu.parts.questions.asking import Asking
from isl_emu.parts.questions.connection import EventParser
from isl_emu.parts.questions.exchange import body
from isl_emu.parts.questions.requests import PlannedRequest
from isl_emu.parts.serving.model_file import resolve_model
from isl_emu.parts.serving.servers import serve
from isl_emu.runs.clock import RunClock
from isl_emu.runs.directory import RunDirectory
from isl_emu.runs.endpoints import MODEL_PORT, Endpoint, write_endpoints
from isl_emu.runs.journal import Journal, read_journal
from isl_emu.units import NS_PER_S

SATELLITE, STATION = "p00s00", "gs-oslo"
ADDRESSES = {SATELLITE: "10.78.0.1", STATION: "10.78.0.2"}
ONE_WAY_MS = 20
RTT_NS = 2 * ONE_WAY_MS * 1_000_000
MEMORY_BYTE = 256 << 20
CONTEXT_TOKENS = 512
RUN_NS = 60 * NS_PER_S  # the client ends as soon as all is answered


def _model() -> Path | None:
    try:
        return resolve_model("bundled")
    except WorkloadError:
        return None


pytestmark = [
    pytest.mark.kernel,
    pytest.mark.usefixtures("netem"),
    pytest.mark.skipif(_model() is None, reason="no bundled model, or a processor without AVX2"),
]


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@pytest.fixture
def nodes(run: RunDirectory) -> Iterator[dict[str, str]]:
    """Namespaces of a satellite and a station, joined by a veth pair with netem at both ends: name -> path."""
    spaces = {name: f"isl-{run.run_id}-{name}" for name in ADDRESSES}
    try:
        for space in spaces.values():
            _ip("netns", "add", space)
        near, far = spaces[SATELLITE], spaces[STATION]
        _ip("link", "add", "name", "isl0", "netns", near, "type", "veth", "peer", "name", "isl0", "netns", far)
        for name, space in spaces.items():
            _ip("-n", space, "address", "add", f"{ADDRESSES[name]}/24", "dev", "isl0")
            _ip("-n", space, "link", "set", "lo", "up")
            _ip("-n", space, "link", "set", "isl0", "up")
            delay = ["root", "netem", "delay", f"{ONE_WAY_MS}ms", "limit", "1000"]
            subprocess.run(["tc", "-n", space, "qdisc", "add", "dev", "isl0", *delay], check=True)
        yield {name: f"/run/netns/{space}" for name, space in spaces.items()}
    finally:
        for space in spaces.values():
            subprocess.run(["ip", "netns", "del", space], check=False)


@pytest.fixture
def container(run: RunDirectory, nodes: dict[str, str]) -> Iterator[Callable[[int], Container]]:
    """Starts the satellite's container with a memory limit."""
    made: list[Container] = []

    def start(memory_byte: int) -> Container:
        model = resolve_model("bundled")
        made.append(Container(SATELLITE, nodes[SATELLITE], run, 1.0, memory_byte, ADDRESSES, (model,)))
        made[-1].start()
        return made[-1]

    yield start
    for container in made:
        container.stop()


def _ask(journal: Path, nodes: dict[str, str], *requests: PlannedRequest) -> list[dict]:
    """What the client process writes down for some requests."""
    ports = {SATELLITE: MODEL_PORT, STATION: None}
    write_endpoints({name: Endpoint(nodes[name], ADDRESSES[name], ports[name]) for name in nodes}, journal)
    with Journal(journal / "planned_requests.jsonl") as planned:
        for request in requests:
            planned.append(request.to_json())
    with Journal(journal / "serving.jsonl") as serving:
        serving.append({"satellite": SATELLITE, "t_ns": 0})
    Asking(RUN_NS, target=SATELLITE).write(journal)
    t0_ns = RunClock.create(journal, 1.0).now_ns()
    times = ["--t0-ns", str(t0_ns), "--until-ns", str(t0_ns + RUN_NS)]
    command = [sys.executable, "-m", "isl_emu.parts.questions.client", "--journal", str(journal), *times]
    subprocess.run(command, check=True, timeout=2 * RUN_NS / NS_PER_S)
    return sorted(read_journal(journal / "requests.jsonl").records, key=lambda record: record["id"])


def _request(number: int, satellite: str | None = SATELLITE) -> PlannedRequest:
    return PlannedRequest(number, 0, STATION, satellite, "What is the Moon made of?", "", 12, 0.0, 5)


def _reused_tokens(netns: str, wish: dict[str, Any]) -> int:
    """How much of a question the server says it has computed before."""
    enter_network(netns)
    connection = HTTPConnection(ADDRESSES[SATELLITE], MODEL_PORT, timeout=RUN_NS / NS_PER_S)
    connection.request("POST", "/v1/chat/completions", json.dumps(wish), {"Content-Type": "application/json"})
    *_, last, _ = EventParser().feed(connection.getresponse().read())
    return json.loads(last)["timings"]["cache_n"]


def test_a_question_is_answered_over_the_link(
    container: Callable[[int], Container], nodes: dict[str, str], tmp_path: Path
) -> None:
    progress: list[float] = []
    model = resolve_model("bundled")
    with serve([container(MEMORY_BYTE)], model, CONTEXT_TOKENS, tmp_path, lambda done, _: progress.append(done)):
        first, second, nobody = _ask(tmp_path, nodes, _request(0), _request(1), _request(2, satellite=None))
        wish = body(_request(3))
        assert in_own_thread(_reused_tokens, nodes[SATELLITE], wish) == 0
        assert in_own_thread(_reused_tokens, nodes[SATELLITE], {**wish, "cache_prompt": True}) > 0  # it could
    assert progress[-1] == 1.0
    for record in (first, second):
        assert (record["outcome"], record["error"]) == ("completed", None)
        assert record["answer_tokens"] == len(record["itl_ns"]) + 1 == 12
        assert record["ttft_ns"] > RTT_NS * 2  # the connection takes one round trip, the question another
        network_ns = record["e2e_ns"] - record["server_prompt_ns"] - record["server_predict_ns"]
        assert network_ns >= RTT_NS * 2
    assert "moon" in first["answer"].lower()
    assert first["answer"] == second["answer"]  # temperature 0, same seed
    assert nobody["outcome"] == "unreachable"


def test_an_unrouted_satellite_is_unreachable_at_once(nodes: dict[str, str], tmp_path: Path) -> None:
    _ip("-n", Path(nodes[STATION]).name, "route", "add", "unreachable", f"{ADDRESSES[SATELLITE]}/32")
    (record,) = _ask(tmp_path, nodes, _request(0))
    assert (record["outcome"], record["t_first_ns"]) == ("unreachable", None)
    assert record["t_finish_ns"] - record["t_send_ns"] < RUN_NS / 2


def test_a_server_without_enough_memory_is_named(container: Callable[[int], Container], tmp_path: Path) -> None:
    with (
        pytest.raises(WorkloadError, match=f"model server on {SATELLITE}: needs more memory"),
        serve([container(24 << 20)], resolve_model("bundled"), CONTEXT_TOKENS, tmp_path, lambda *_: None),
    ):
        pytest.fail("it became healthy with 24 MiB")
