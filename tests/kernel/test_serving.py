"""The client process on a real network: queues are heard of over the links, and a lost path is asked around."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.network.net import IslNet
from isl_emu.nodes.namespaces import enter_network, in_own_thread
from isl_emu.parts.questions.asking import OUTLOOK, Asking
from isl_emu.parts.questions.requests import PlannedRequest
from isl_emu.routing.outlook import plan_outlook
from isl_emu.runs.clock import RunClock
from isl_emu.runs.endpoints import MODEL_PORT, write_endpoints
from isl_emu.runs.journal import Journal, read_journal
from isl_emu.units import NS_PER_S
from tests.nets import endpoints_of, live_net
from tests.plans import MS, make_plan, make_routes
from tests.runs import wait_for

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netem")]

NEAR, FAR, STATION = "p00s00", "p00s01", "gs-a"
DELAY_MS = {NEAR: 10, FAR: 40}
NEAR_LINK, FAR_LINK = (0, 2), (1, 2)
BOTH = {NEAR_LINK: DELAY_MS[NEAR] * MS, FAR_LINK: DELAY_MS[FAR] * MS}
LOST_NS = 2 * NS_PER_S  # when the near satellite is out of reach, where it gets so
RUN_NS = 60 * NS_PER_S  # the client ends as soon as all is answered
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
TOKEN = b'data: {"choices": [{"delta": {"content": "word "}}]}\n\n'
DONE = b"data: [DONE]\n\n"

Chat = Callable[[socket.socket], None]


class Satellite:
    """A server in a node that answers by what is asked for: a chat, or its queue."""

    def __init__(self, net: IslNet, name: str, queue: int, chat: Chat):
        self._queue, self._chat = queue, chat
        self.asked = 0
        self._listener = in_own_thread(self._listen, net.get(name))
        threading.Thread(target=self._serve, daemon=True).start()

    def _listen(self, node: Any) -> socket.socket:
        enter_network(node.netns_path)
        return socket.create_server((node.address, MODEL_PORT))

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            if connection.recv(65_536).startswith(b"GET /metrics"):
                text = f"llamacpp:requests_processing 0\nllamacpp:requests_deferred {self._queue}\n".encode()
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
            else:
                self.asked += 1
                self._chat(connection)

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _whole(connection: socket.socket) -> None:
    connection.sendall(HEAD + 3 * TOKEN + DONE)


def _without_end(connection: socket.socket) -> None:
    connection.sendall(HEAD)
    while True:
        connection.sendall(TOKEN)
        threading.Event().wait(0.1)


@contextmanager
def _satellites(net: IslNet, *satellites: tuple[str, int, Chat]) -> Iterator[list[Satellite]]:
    started = [Satellite(net, *satellite) for satellite in satellites]
    try:
        yield started
    finally:
        for satellite in started:
            satellite.stop()


def _stopped_clock(journal: Path) -> tuple[RunClock, int]:
    """A run's clock that stands just before instant 0, and when that is."""
    clock = RunClock.create(journal, 1.0)
    t0_ns = clock.now_ns() + NS_PER_S // 10
    clock.stop_at_ns(t0_ns - 1)
    return clock, t0_ns


def _ask(journal: Path, net: IslNet, plan: LinkPlan, clock: RunClock, t0_ns: int, t_due_ns: int,
         **asking: Any) -> dict[str, Any]:  # fmt: skip
    """What the client process writes down for one question; the clock goes on once the client is ready."""
    write_endpoints(endpoints_of(net, MODEL_PORT), journal)
    with Journal(journal / "serving.jsonl") as serving, Journal(journal / "planned_requests.jsonl") as planned:
        for name in DELAY_MS:
            serving.append({"satellite": name, "t_ns": 0})
        planned.append(PlannedRequest(0, t_due_ns, STATION, None, "Why?", "", 8, 0.0, 5).to_json())
    Asking(RUN_NS, **asking).write(journal)
    plan_outlook(plan, make_routes(plan), [STATION], [NEAR, FAR]).save(journal / OUTLOOK)
    times = ["--t0-ns", str(t0_ns), "--until-ns", str(t0_ns + RUN_NS)]
    command = [sys.executable, "-m", "isl_emu.parts.questions.client", "--journal", str(journal), *times]
    with subprocess.Popen(command) as client:
        wait_for((journal / "requests.jsonl").exists, "the client")
        clock.go_on()
        assert client.wait(2 * RUN_NS / NS_PER_S) == 0
    (record,) = read_journal(journal / "requests.jsonl").records
    return record


def test_the_shorter_queue_is_heard_of_over_the_link(tmp_path: Path) -> None:
    plan = make_plan(2, [STATION], [BOTH])
    with live_net(plan, tmp_path) as (net, _), _satellites(net, (NEAR, 5, _whole), (FAR, 1, _whole)) as (near, far):
        policy = {"target": "least-loaded", "poll_interval_ns": NS_PER_S // 2}
        record = _ask(tmp_path, net, plan, *_stopped_clock(tmp_path), 2 * NS_PER_S, **policy)
    assert (record["outcome"], record["satellite"], near.asked, far.asked) == ("completed", FAR, 0, 1)
    assert record["ttft_ns"] >= 4 * DELAY_MS[FAR] * MS  # a round trip for the connection, one for the question
    polls = [poll for poll in read_journal(tmp_path / "polls.jsonl").records if poll["t_send_ns"] >= 0]  # time goes on
    for name, queue in ((NEAR, 5.0), (FAR, 1.0)):
        heard = [poll for poll in polls if poll["satellite"] == name and poll["rtt_ns"]]
        assert {poll["queue"] for poll in heard} == {queue}
        assert min(poll["rtt_ns"] for poll in heard) >= 4 * DELAY_MS[name] * MS
        assert all(poll["received_byte"] > 100 for poll in heard)


def test_an_answer_that_stops_with_its_path_is_asked_for_elsewhere(tmp_path: Path) -> None:
    plan = make_plan(2, [STATION], [BOTH, {FAR_LINK: BOTH[FAR_LINK]}], step_ns=LOST_NS)
    with (
        live_net(plan, tmp_path) as (net, replay),
        _satellites(net, (NEAR, 0, _without_end), (FAR, 0, _whole)) as (near, far),
        ThreadPoolExecutor(1) as background,
    ):
        replay.clock, t0_ns = _stopped_clock(tmp_path)
        replaying = background.submit(replay.run, t0_ns, threading.Event())
        patience = {"retries": 1, "attempt_timeout_ns": 2 * NS_PER_S}
        record = _ask(tmp_path, net, plan, replay.clock, t0_ns, 0, target="nearest", **patience)
        replaying.result()
    assert (record["outcome"], record["satellite"], record["attempts"]) == ("completed", FAR, 2)
    assert (near.asked, far.asked) == (1, 1)
    first, _ = read_journal(tmp_path / "attempts.jsonl").records
    assert (first["satellite"], first["outcome"]) == (NEAR, "timed_out")
    assert first["answer_tokens"] > 0
    assert first["t_finish_ns"] >= LOST_NS + NS_PER_S  # tokens came until the link was lost
    assert record["ttft_ns"] > first["t_finish_ns"] - first["t_send_ns"]
