"""A live run that is paused, goes on and ends early, from outside, with a model server and a user in the middle."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import select
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from isl_emu import running as isl_emu_running
from isl_emu.errors import MachineError
from isl_emu.runs.journal import count_lines
from isl_emu.units import NS_PER_MS as MS
from isl_emu.units import NS_PER_S as S
from tests.exact_guest import needs_exact_time
from tests.runs import COMMAND, PATIENCE_S, ROOT, finished, isl_emu, rows, wait_for
from tests.scenarios import quiet_ring, table

pytestmark = pytest.mark.emulation

TRAFFIC = (
    table("compute", satellites=["p00s01"])
    + table("questions", mean_interval="500 ms", target="uniform", max_answer_tokens=16, deadline="60 s",
            prompts=["What is a satellite?"])
    + table("probes", interval="200 ms", pairs=[["gs-chengdu", "p00s00"], ["p00s00", "p00s03"]])
)  # fmt: skip


def lines(out: Path) -> dict[str, int]:
    """How long each journal of traffic is."""
    names = ("instants", "probes", "requests", "load")
    return {name: count_lines(out / "journal" / f"{name}.jsonl") for name in names}


FLOWING = (
    table("compute", satellites=["p00s01"], server="modelled", board="three-body", model="qwen3-0-6b")
    + table("questions", mean_interval="300 ms", target="uniform", max_answer_tokens=16, deadline="60 s",
            prompts=["Why is the sky black? " * 100])
    + table("probes", interval="100 ms", pairs=[["p00s00", "p00s06"]])
    + table("[workload]", name="bulk", function="docs.examples.bulk_transfer:transfer", nodes=["p00s00", "p00s03"],
            options={"size_byte": 2_000_000})
)  # fmt: skip


CABLE = table("[fault]", name="cable", links=["p00s02 - p00s03"], effect="cut", at=["4 s"], **{"for": "1 s"})


async def _follow(address: str, seen: list[dict[str, Any]]) -> None:
    """Keep all events of a run, as they come."""
    page, token = address.split("?")
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{page}events?{token}") as stream:
        async for message in stream:
            seen.append(json.loads(message.data))


async def _resume(address: str) -> Any:
    """What the button answers by which a run goes on."""
    page, token = address.split("?")
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{page}act?{token}", json={"verb": "resume"}) as answer,
    ):
        return await answer.json()


def _check_seen(events: list[dict[str, Any]], requests: list[dict[str, Any]]) -> None:
    """Who looked on was told what the tables say."""
    assert events[0] == {"type": "hello", "format": 1, "now_s": 0.0, "state": "building"}
    assert {event["state"] for event in events if event["type"] == "clock"} >= {"live", "paused", "ended"}
    faults = [(event["t_s"], event["phase"], event["links"]) for event in events if event["type"] == "fault"]
    assert faults == [(at_s, phase, [["p00s02", "p00s03"]]) for at_s, phase in ((4.0, "struck"), (5.0, "mended"))]
    links = [(event["t_s"], event["up"]) for event in events if event["type"] == "link" and event["a"] == "p00s02"]
    assert links == [(4.0, False), (5.0, True)]
    seen = {(event["id"], event["phase"]): event for event in events if event["type"] == "question"}
    for row in (row for row in requests if row["outcome"] == "completed"):
        for phase, column in (("asked", "t_send_ns"), ("first_token", "t_first_ns"), ("done", "t_finish_ns")):
            assert seen[row["id"], phase]["t_s"] == row[column] / S
        assert seen[row["id"], "asked"]["path"] == row["path_at_send"]
    assert [event["valid"] for event in events if event["type"] == "verdict"] == [True]


@needs_exact_time
def test_in_exact_time_neither_a_pause_nor_who_looks_on_changes_anything(tmp_path: Path) -> None:
    """A pause holds packets on their way; the page is served meanwhile, and by its button the run goes on."""
    text = quiet_ring("6 s") + FLOWING + CABLE
    finished(text, tmp_path / "straight", "--clock", "exact")
    out = tmp_path / "paused"
    command = [*COMMAND, "run", str(tmp_path / "scenario.toml"), "--clock", "exact", "--pause-at", "1512ms"]
    command += ["--view", "--no-browser"]

    def ask(verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        return isl_emu(verb, "--run", out, *words)

    with ExitStack() as undo:
        run = undo.enter_context(
            subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
        undo.callback(run.terminate)  # one that stands paused would not end
        address = next(line.split()[1] for line in run.stdout or () if line.startswith("view: "))
        events: list[dict[str, Any]] = []
        following = undo.enter_context(ThreadPoolExecutor(1)).submit(lambda: asyncio.run(_follow(address, events)))
        wait_for(lambda: run.poll() is not None or "paused at t = 1.5 s" in ask("status").stdout, "the pause")
        queued = [ask("link", "p00s00", "p00s01").stdout for _ in range(2)]
        assert queued[0] == queued[1] and re.search(r"backlog [1-9]", queued[0])  # of packets that are on their way
        assert ask("exec", "p00s00", "--", "echo", "hello").stdout == "hello\n"  # in a container, too
        assert ask("resume", "--until", "3s").stdout.endswith("paused at t = 3.000 s\n")
        wait_for(
            lambda: any(event.get("state") == "paused" for event in events), "that who looks on hears of the pause"
        )
        assert asyncio.run(_resume(address)) == {"ok": True, "text": "goes on at t = 3.000 s"}
        output, _ = run.communicate(timeout=PATIENCE_S)
        following.result(PATIENCE_S)
    assert run.returncode == 0, output
    _check_seen(events, rows(out, "requests"))
    assert [pause["t_ns"] for pause in json.loads((out / "fidelity.json").read_text())["pauses"]] == [1512 * MS, 3 * S]
    for name in ("bulk", "requests", "attempts", "probes", "instants", "changes"):
        straight, paused = ((folder / f"{name}.parquet").read_bytes() for folder in (tmp_path / "straight", out))
        assert straight == paused, f"{name}: a pause has changed it"


def test_a_run_pauses_goes_on_and_ends_where_its_user_wants(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def ask(verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        return isl_emu(verb, "--run", out, *words)

    def is_paused() -> bool:
        assert run.poll() is None
        return "paused" in ask("status").stdout

    (tmp_path / "ring.toml").write_text(quiet_ring() + TRAFFIC)
    command = [*COMMAND, "run", str(tmp_path / "ring.toml"), "--pause-at", "2s", "--out", str(out)]
    with ExitStack() as undo:
        run = undo.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        undo.callback(run.terminate)  # one that stands paused would not end
        wait_for(is_paused, "the pause")
        assert ask("status").stdout.startswith("paused at t = 2.0 s of 30 s")
        before = lines(out)
        assert "stands still" in ask("exec", "p00s01", "--", "true").stderr
        assert ask("exec", "p00s00", "--", "echo", "hello").stdout == "hello\n"
        assert ask("link", "p00s00", "p00s01").stdout.count("qdisc netem") == 2
        assert lines(out) == before and before["instants"] == 3
        assert ask("resume", "--until", "3s").stdout.endswith("paused at t = 3.000 s\n")
        assert ask("resume").returncode == 0
        assert ask("stop", "--at", "6500ms").stdout == "ends at t = 6.500 s\n"
        output, _ = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0, output
    assert "until its user ended the run at 6.50 s" in output
    fidelity = json.loads((out / "fidelity.json").read_text())
    assert fidelity["verdict"] == "valid" and fidelity["ended_ns"] == 6_500_000_000
    assert fidelity["replay"]["planned_instants"] == 7
    assert [pause["t_ns"] for pause in fidelity["pauses"]] == [2 * S, 3 * S]
    sent = sorted(row["t_send_ns"] for row in rows(out, "probes") if (row["a"], row["b"]) == ("gs-chengdu", "p00s00"))
    assert len(sent) <= 33 and sent[0] < 2 * S  # before the pause, and
    assert {t_ns // S for t_ns in sent} >= set(range(2, 7))  # in every second from then on
    requests = rows(out, "requests")
    completed = [row for row in requests if row["outcome"] == "completed"]
    assert completed and all(row["network_ns"] is None or row["network_ns"] > 0 for row in completed)
    assert all(row["t_due_ns"] < 6_500_000_000 for row in requests)


@needs_exact_time
def test_links_are_broken_by_hand_for_as_long_as_is_said_and_the_verdict_tells(tmp_path: Path) -> None:
    """A slower link to the nanosecond, a cut one that loses all, and from its end on the plan's own delay again."""
    text = quiet_ring("6 s") + table("probes", interval="100 ms", pairs=[["p00s00", "p00s01"], ["p00s03", "p00s04"]])
    (tmp_path / "ring.toml").write_text(text)
    out = tmp_path / "out"
    command = [*COMMAND, "run", str(tmp_path / "ring.toml"), "--clock", "exact", "--pause-at", "1550ms"]

    def ask(verb: str, *words: str) -> str:
        done = isl_emu(verb, "--run", out, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    with ExitStack() as undo:
        run = undo.enter_context(
            subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
        undo.callback(run.terminate)  # one that stands paused would not end
        wait_for(lambda: isl_emu("status", "--run", out).stdout.startswith("paused"), "the pause")
        assert ask("fault", "p00s01", "p00s00", "--for", "1s") == "p00s00 - p00s01: cut from t = 1.550 s\n"
        ask("set", "p00s03", "p00s04", "--delay", "40ms", "--rate", "1Gbit/s")
        assert "by hand: p00s00 - p00s01: cut, until t = 2.550 s\n" in ask("link", "p00s00", "p00s01")
        assert "by hand: p00s03 - p00s04: delay 40 ms, rate 1 Gbit/s\n" in ask("status")
        live = isl_emu_running(out)
        for wrong, said in (
            (lambda: live.restore("p00s02", "p00s03"), "as planned, but"),
            (lambda: live.fault("p00s00", "p00s07"), "this plan never links them"),
            (lambda: live.set("p00s03", "p00s04", rate_bit_s=0), "rate: is 0, but"),
            (lambda: live.set("p00s03", "p00s04"), "nothing is to be changed"),
            (lambda: live.fault("p00s03", "p00s04", for_s=0), "no time"),
        ):
            with pytest.raises(MachineError, match=said):
                wrong()
        live.resume(until_s=3.55)
        assert live.restore("p00s03", "p00s04") == "p00s03 - p00s04: as planned from t = 3.550 s"
        assert ask("restore", "--all") == "nothing was done by hand\n"
        ask("resume")
        output, _ = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 3, output
    fidelity = json.loads((out / "fidelity.json").read_text())
    assert (fidelity["verdict"], fidelity["reasons"]) == ("intervened", [])
    found = {row["cause"]: (row["t_ns"], row["t_end_ns"]) for row in rows(out, "incidents")}
    assert found == {
        "p00s00 - p00s01 by hand: cut": (1550 * MS, 2550 * MS),
        "p00s03 - p00s04 by hand: delay 40 ms, rate 1 Gbit/s": (1550 * MS, 3550 * MS),
    }
    probes = [row for row in rows(out, "probes") if row["a"] in ("p00s00", "p00s03")]
    for row in probes:
        cut = row["a"] == "p00s00" and 1550 * MS < row["t_send_ns"] < 2550 * MS
        slow = row["a"] == "p00s03" and 1550 * MS < row["t_send_ns"] < 3550 * MS
        assert (row["delay_ns"] is None) == cut
        if slow:
            serialised_ns = row["planned_serialisation_ns"] * 100  # 1 Gbit/s in place of 100
            assert row["delay_ns"] == pytest.approx(40 * MS + serialised_ns, abs=1)
        elif not cut:
            assert row["error_ns"] == 0


def _typed(command: list[str], keys: bytes) -> tuple[int, str]:
    """The exit status of a command at a terminal at which somebody types, and what it shows."""
    here, there = pty.openpty()
    with open(here, "r+b", buffering=0) as terminal:
        process = subprocess.Popen(command, stdin=there, stdout=there, stderr=there, cwd=ROOT, start_new_session=True)
        os.close(there)
        shown, typed = b"", False
        with suppress(OSError):  # when the last who had it open has ended
            while select.select([terminal], (), (), PATIENCE_S / 10)[0] and (piece := terminal.read(65536)):
                shown += piece
                if not typed and b"$ " in shown:  # the prompt
                    typed = bool(terminal.write(keys))
        process.terminate()  # if it says nothing any more
        return process.wait(), shown.decode()


def test_a_shell_opens_at_a_terminal_in_a_node(tmp_path: Path) -> None:
    (tmp_path / "ring.toml").write_text(quiet_ring("600 s"))
    out = tmp_path / "out"
    command = [*COMMAND, "run", str(tmp_path / "ring.toml"), "--clock", "real", "--out", str(out), "--no-report"]
    with ExitStack() as undo:
        run = undo.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        undo.callback(run.terminate)
        wait_for(lambda: run.poll() is not None or "t =" in isl_emu("status", "--run", out).stdout, "the run")
        keys = b"echo $((6 * 7))-$(hostname)-$(test -t 0 && echo tty); exit 5\n"
        status, shown = _typed([*COMMAND, "shell", "--run", str(out), "p00s00"], keys)
        assert (status, "\n42-p00s00-tty" in shown.replace("\r", "\n")) == (5, True), shown
        assert "is at no terminal, but it opens one" in isl_emu("shell", "--run", out, "p00s00").stderr
        assert isl_emu("stop", "--run", out).returncode == 0
