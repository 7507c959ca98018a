"""Loading models: how many at once, and what is said when one does not come up. No process is started."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from isl_emu.errors import WorkloadError
from isl_emu.parts.serving import servers
from isl_emu.parts.serving.servers import LOAD_TIMEOUT_NS, ModelServer, load, loads_at_once
from isl_emu.timebase import ManualClock


@dataclass(frozen=True)
class FakeContainer:
    name: str
    cpus: float = 1.0
    killed: int = 0

    def oom_kills(self) -> int:
        return self.killed


@dataclass(frozen=True)
class FakeProcess:
    status: int | None = None

    def poll(self) -> int | None:
        return self.status


CONTAINERS = [FakeContainer(f"p00s{slot:02d}") for slot in range(7)]


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers.os, "sched_getaffinity", lambda pid: {0, 1})


def test_as_many_load_as_the_cores_can_feed() -> None:
    assert (loads_at_once(1.0), loads_at_once(0.1), loads_at_once(4.0)) == (3, 21, 2)


def test_all_become_healthy_and_progress_is_told() -> None:
    loading: set[str] = set()
    most, told = [0], []

    def start(container: FakeContainer) -> ModelServer:
        loading.add(container.name)
        most[0] = max(most[0], len(loading))
        return ModelServer(container, FakeProcess(), Path("/nonexistent"))

    def healthy(server: ModelServer) -> bool:
        done = server.name == min(loading)
        loading.discard(server.name if done else "")
        return done

    load(CONTAINERS, start, healthy, lambda done, text: told.append((done, text)), ManualClock())
    assert (most, loading) == ([3], set())
    assert told[-1] == (1.0, "7 of 7 models loaded")
    assert told == sorted(told)


def test_a_server_that_ends_is_named_with_its_last_words(tmp_path: Path) -> None:
    log = tmp_path / "server-p00s00.log"
    log.write_text("loading\nerror: cannot bind to 10.0.0.1:8080\n\n")
    with pytest.raises(WorkloadError, match=r"on p00s00: ended with status 1 \(error: cannot bind to 10.0.0.1:8080\)"):
        load(CONTAINERS, lambda c: ModelServer(c, FakeProcess(1), log), bool, lambda *_: None, ManualClock())


def test_a_server_killed_for_memory_says_so(tmp_path: Path) -> None:
    starved = FakeContainer("p00s03", killed=1)
    with pytest.raises(WorkloadError, match="on p00s03: needs more memory than compute.memory allows"):
        load([starved], lambda c: ModelServer(c, FakeProcess(-9), tmp_path), bool, lambda *_: None, ManualClock())


def test_a_server_that_never_gets_ready_is_given_up() -> None:
    clock = ManualClock()
    with pytest.raises(WorkloadError, match="on p00s00: is not ready after 900 s"):
        load(
            CONTAINERS[:1],
            lambda c: ModelServer(c, FakeProcess(), Path("/nonexistent")),
            lambda server: False,
            lambda *_: None,
            clock,
        )
    assert LOAD_TIMEOUT_NS < clock.now_ns() < 2 * LOAD_TIMEOUT_NS
