"""Deaths of processes: seen at once, with their cause, and not once they are ended on purpose."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from isl_emu.errors import WorkloadError
from isl_emu.parts.activity import RunProcess
from isl_emu.runs.clock import RunTimes
from isl_emu.runs.journal import read_journal
from isl_emu.runs.process import Watch, Watched, cause_of_death
from tests.runs import wait_for


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    watch = Watch(tmp_path, lambda: 5_000)
    yield watch
    watch.close()


def deaths(folder: Path) -> list[tuple[str, str]]:
    """What died, and why."""
    return [(record["what"], record["cause"]) for record in read_journal(folder / "incidents.jsonl").records]


def test_a_death_is_written_down_with_its_time_and_cause(tmp_path: Path, watch: Watch) -> None:
    (tmp_path / "log").write_text("loading\nno memory left\n")
    lasting = subprocess.Popen(["sleep", "1000"])
    watch.add(Watched(lasting, "model server", "p00s01", tmp_path / "log"))
    for what, command, may_end in (("client", "exit 0", True), ("relay", "exit 0", False), ("prober", "exit 3", True)):
        watch.add(Watched(subprocess.Popen(["sh", "-c", command]), what, may_end=may_end))
    watch.begin(t0_ns=1_000)
    lasting.kill()
    wait_for(lambda: len(deaths(tmp_path)) == 3, "the deaths")
    assert sorted(deaths(tmp_path)) == [
        ("model server", "it was killed by signal 9, SIGKILL (no memory left)"),
        ("prober", "it ended with status 3"),
        ("relay", "it ended with status 0"),
    ]
    (record, *_) = read_journal(tmp_path / "incidents.jsonl").records
    assert (record["t_ns"], record["t_end_ns"], record["kind"]) == (4_000, None, "death")


def test_what_is_ended_on_purpose_is_no_death(tmp_path: Path, watch: Watch) -> None:
    process = subprocess.Popen(["sleep", "1000"])
    watch.add(Watched(process, "model server"))
    watch.begin(0)
    watch.end()
    process.kill()
    process.wait()
    watch.close()
    assert deaths(tmp_path) == []


def test_want_of_memory_is_a_cause_and_told_once(tmp_path: Path, watch: Watch) -> None:
    kills = iter([1, 3])
    watch.add(
        Watched(subprocess.Popen(["sh", "-c", "kill -9 $$"]), "model server", "p00s01", oom_kills=lambda: next(kills))
    )
    watch.begin(0)
    wait_for(lambda: deaths(tmp_path), "the death")
    watch.count_killed("p00s01", 3)
    watch.count_killed("p00s02", 0)
    watch.count_killed("p00s03", 1)
    (server, _), (container, cause) = deaths(tmp_path)
    assert (server, container) == ("model server", "container")
    assert "more memory than it may take" in cause


@pytest.mark.parametrize(
    ("command", "told"), [("kill -9 $$", None), ("exit 0", None), ("echo a clue; exit 3", "a clue")]
)
def test_a_process_that_is_killed_ends_what_it_does_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, told: str | None
) -> None:
    def start(words: list[str], **streams: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["sh", "-c", command], **streams)

    monkeypatch.setattr("isl_emu.parts.activity.start_module", start)
    client = RunProcess("client", ["some.module"], tmp_path)
    with ExitStack() as ending:
        client.begin(RunTimes(0, 1), ending)
        (watched,) = client.watched()
        watched.process.wait()
        if told:
            with pytest.raises(WorkloadError, match=rf"client: it ended with status 3 \({told}\)"):
                client.check()
        else:
            client.check()


def test_causes() -> None:
    assert cause_of_death(-11) == "it was killed by signal 11, SIGSEGV"
    assert cause_of_death(1) == "it ended with status 1"
