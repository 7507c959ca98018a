"""A run on the workers of a cluster, without one: which workers, what is refused, and what is told of those lost."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import isl_emu
from isl_emu.cluster import agent, guests, worker
from isl_emu.cluster.agent import Order
from isl_emu.cluster.guests import check_facts, run_on_workers, spread_over_hosts, workers_of
from isl_emu.cluster.mirror import Piece
from isl_emu.cluster.worker import Facts, Report
from isl_emu.errors import MachineError, ScenarioError
from isl_emu.machine.guest import Joint, VirtualClock
from isl_emu.runs import directory as rundir
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import Journal, read_journal
from tests.scenarios import TOPOLOGIES

OURS = Facts("6.12-a-b", "", "here")
CLOCK = VirtualClock(0)


class FakeClient:
    """Workers that answer at once, in one process.

    Args:
        answers: of each worker's functions, by the address and the function's name; a function of the arguments.
    """

    def __init__(self, answers: dict[str, dict[str, Any]]):
        self.answers, self.called = answers, list[tuple[str, str]]()

    def run(self, function: Any, *words: Any, workers: Any = None) -> dict[str, Any]:
        found = {}
        for address in workers or self.answers:
            self.called.append((address, function.__name__))
            answer = self.answers[address].get(function.__name__)
            found[address] = answer(*words) if callable(answer) else answer
        return found

    def nthreads(self) -> dict[str, int]:
        return dict.fromkeys(self.answers, 1)


def test_guests_are_on_as_many_machines_as_there_are() -> None:
    hosts = {"tcp://a:1": "a", "tcp://a:2": "a", "tcp://a:3": "a", "tcp://b:1": "b", "tcp://c:1": "c"}
    assert spread_over_hosts(hosts) == ["tcp://a:1", "tcp://b:1", "tcp://c:1", "tcp://a:2", "tcp://a:3"]


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (OURS._replace(kernel="", problem="it is not built"), "it is not built, but each worker boots a guest"),
        (OURS._replace(kernel="6.12-a-c"), "its guests' kernel is 6.12-a-c, and 6.12-a-b here"),
    ],
)
def test_a_worker_that_would_boot_another_guest_is_refused(found: Facts, told: str) -> None:
    check_facts("tcp://b:1", OURS, OURS)
    with pytest.raises(MachineError, match=f"worker tcp://b:1 .here.: {told}"):
        check_facts("tcp://b:1", found, OURS)


def test_too_few_workers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    client = FakeClient({"tcp://a:1": {"facts": worker.facts()}})
    monkeypatch.setattr(guests, "connect", lambda text: nullcontext(client))
    with pytest.raises(ScenarioError, match="--cluster: tcp://a:0 has 1 workers, but each boots one of 2 guests"):
        workers_of("tcp://a:0", 2).__enter__()


def test_from_python_the_same_is_refused() -> None:
    scenario = TOPOLOGIES / "iridium-star.toml"
    with pytest.raises(ScenarioError, match="guests: is 0, but a run has 1 to 64"):
        isl_emu.run(scenario, guests=0)
    with pytest.raises(ScenarioError, match="--cluster: is local:2, but its workers have a guest each"):
        isl_emu.run(scenario, cluster="local:2")


def test_files_that_a_worker_lacks_are_named(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text("weights")
    byte = (tmp_path / "model.gguf").stat().st_size
    paths = [(str(tmp_path), 0), (str(tmp_path / "model.gguf"), byte)]
    assert worker.lacks(paths) == []
    assert worker.lacks([(str(tmp_path / "model.gguf"), byte + 1), (str(tmp_path / "b"), 1)]) == [
        str(tmp_path / "model.gguf"),
        str(tmp_path / "b"),
    ]


@pytest.mark.parametrize("clock", [CLOCK, None], ids=["exact", "real"])
def test_an_order_is_one_line(clock: VirtualClock | None) -> None:
    order = Order(1, ["--until", "3ns"], clock, 5, 7, True, ["/m"], [("a", 1), ("b", 2)], "00ff", {"A": "b"}, "c0ffee")
    line = order.to_json()
    assert line.count("\n") == 1
    assert Order.from_json(line) == order


def _run(client: FakeClient, folder: RunFolder, clock: VirtualClock | None = CLOCK) -> list[int]:
    workers = guests.Workers(client, list(client.answers))
    return run_on_workers(
        workers, folder, [], clock=clock, lookahead_ns=1, memory_byte=1, readable=[], trusted=False
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run for two guests."""
    folder = RunFolder.create(tmp_path / "run", "run")
    for number in range(2):
        RunFolder(folder.path, number).journal.mkdir(exist_ok=True)
        with Journal(RunFolder(folder.path, number).journal / "planned.jsonl") as journal:
            journal.append({"part": number})
    return folder


def test_each_guest_gets_its_part_and_what_it_writes_comes_back(folder: RunFolder, capfd) -> None:
    given: dict[str, set[str]] = {"a": set(), "b": set()}

    def answers(name: str, journal: str) -> dict[str, Any]:
        reports = [
            Report([Piece(f"{journal}/instants.jsonl", b'{"k": 0}\n')], b"building\n", b"", None, ""),
            Report([Piece(f"{journal}/instants.jsonl", b'{"k": 1}\n', False)], b"", b"", None, ""),
            Report([], b"", b"", 0, ""),
        ]
        return {
            "listen": ("host", 1),
            "give": lambda token, pieces: given[name].update(piece.path for piece in pieces),
            "take": lambda token, pieces, interrupts: reports.pop(0),
        }

    client = FakeClient({"a": answers("a", "journal"), "b": answers("b", "journal.1")})
    assert _run(client, folder) == [0, 0]
    assert given == {"a": {"journal", "journal/planned.jsonl"}, "b": {"journal.1", "journal.1/planned.jsonl"}}
    for number in range(2):
        journal = RunFolder(folder.path, number).journal
        assert [record["k"] for record in read_journal(journal / "instants.jsonl").records] == [0, 1]
    assert "building" in capfd.readouterr().out
    assert [address for address, name in client.called if name == "forget"] == ["a", "b"]


def test_when_one_is_lost_the_other_is_interrupted_and_killed_if_it_waits_for_it(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guests, "LAST_WORDS_S", 0.5)

    def take(token: str, pieces: Any, interrupts: int) -> Report:
        heard.add(interrupts)
        return Report([], b"", b"", 130 if interrupts == 2 else None, "")

    def lost(*_: Any) -> Report:
        raise ConnectionError("reset")

    client = FakeClient({"a": {"listen": ("host", 1), "take": take}, "b": {"listen": ("host", 2), "take": lost}})
    heard = set[int]()
    with pytest.raises(MachineError, match=r"guest 1 on the worker b: the worker is lost \(reset\)"):
        _run(client, folder)
    assert {1, 2} <= heard


def test_a_worker_that_is_silent_or_gone_is_lost(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guests, "LOST_AFTER_S", 0.0)

    def silent(token: str, pieces: Any, interrupts: int) -> Report:
        return Report([], b"", b"", None, "")

    client = FakeClient({"a": {"listen": ("host", 1), "take": silent}, "b": {"listen": ("host", 2), "take": silent}})
    with pytest.raises(MachineError, match="nothing was heard of it for 0 s"):
        _run(client, folder)
    assert not [address for address, name in client.called if name == "forget"]


@pytest.mark.parametrize(("status", "waits"), [(0, True), (130, True), (1, False)])
def test_time_goes_on_until_the_last_guest_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, waits: bool
) -> None:
    """Unless ours failed: whoever has asked for the run then has the others end."""
    done = list[str]()
    calendar: Any = SimpleNamespace(wait=lambda: done.append("waits"))

    @contextmanager
    def joined(*_: object) -> Iterator[Joint]:
        yield Joint(0, {}, calendar)
        done.append("relays end")

    monkeypatch.setattr(rundir, "runs_root", lambda: tmp_path / "runs")
    monkeypatch.setattr(agent, "meet", lambda *_, **__: {})
    monkeypatch.setattr(agent, "joined", joined)
    monkeypatch.setattr(agent, "run_in_guests", lambda *_, **__: [status])
    order = Order(0, [], CLOCK, 1, 1, False, [], [], "00", {}, "0a0b0c")
    assert agent.boot(order, socket.socket(), tmp_path) == status
    assert done == (["waits"] if waits else []) + ["relays end"]


def test_an_agent_that_is_killed_fails_the_run(folder: RunFolder) -> None:
    def take(token: str, pieces: Any, interrupts: int) -> Report:
        return Report([], b"", b"", -9, "")

    client = FakeClient({"a": {"listen": ("host", 1), "take": take}, "b": {"listen": ("host", 2), "take": take}})
    with pytest.raises(MachineError, match="guest 0 on the worker a: signal 9 killed its agent"):
        _run(client, folder)


@pytest.mark.parametrize(("clock", "heard"), [(None, {"journal.1", "journal.1/ready.said"}), (CLOCK, set())])
def test_in_real_time_what_a_guest_says_to_others_reaches_them(
    folder: RunFolder, clock: VirtualClock | None, heard: set[str]
) -> None:
    """And only that: other lines of its journal stay with it."""
    given: set[str] = set()
    ended = threading.Event()

    def first(token: str, pieces: Sequence[Piece], interrupts: int) -> Report:
        given.update(piece.path for piece in pieces if piece.path != "journal")  # where it is asked itself
        done = given >= heard and ended.is_set()
        return Report([], b"", b"", 0 if done else None, "")

    said = [
        Report([Piece(f"journal.1/{name}", b"{}")], b"", b"", None, "") for name in ("ready.said", "instants.jsonl")
    ]

    def second(token: str, pieces: Sequence[Piece], interrupts: int) -> Report:
        if said:
            return said.pop(0)
        ended.set()
        return Report([], b"", b"", 0, "")

    answers = {"a": {"listen": ("host", 1), "take": first}, "b": {"listen": ("host", 2), "take": second}}
    assert _run(FakeClient(answers), folder, clock) == [0, 0]
    assert given == heard
