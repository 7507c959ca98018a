"""A file goes up over a ground link that is lost in the middle, then on over lasers: counted at the interfaces."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from isl_emu.network.net import IslNet
from isl_emu.parts.uplink.pieces import describe
from isl_emu.parts.uplink.plan import FILE, Receiver, StationPass, TransferPlan
from isl_emu.runs.clock import RunClock
from isl_emu.runs.endpoints import write_endpoints
from isl_emu.runs.journal import read_journal
from isl_emu.units import NS_PER_S
from tests.nets import endpoints_of, live_net
from tests.plans import MS, make_plan

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netem")]
STATION = "gs-oslo"
SATELLITES = ["p00s00", "p00s01", "p00s02"]
RATE_BIT_S = 8_000_000
SIZE_BYTE = 3_000_000  # three seconds of a link
# Two seconds of contact with the first satellite, three without any, then with the second: the first is two hops away.
LASERS = {(0, 1): 5 * MS, (1, 2): 5 * MS}
INSTANTS = [{**LASERS, (0, 3): 3 * MS}] * 2 + [LASERS] * 3 + [{**LASERS, (1, 3): 4 * MS}] * 115
FOR_EVER_NS = len(INSTANTS) * NS_PER_S
PATIENCE_S = 100
HEADERS_BYTE = 66  # Ethernet 14, IPv4 20, TCP with time stamps 32
SEGMENT_BYTE = 1_448  # what is left of an MTU of 1,500; every second segment is acknowledged
ON_THE_WAY_BYTE = 70_000  # of an attempt that is given up because the machine stood still: queue and propagation
WITHIN_RATIO = 0.05  # what else there is, beside segments sent again: questions whether the file is there


def _prepare(journal: Path, net: IslNet, file: Path) -> None:
    """Write what the nodes read."""
    passes = (StationPass(STATION, 0, 2 * NS_PER_S), StationPass(STATION, 5 * NS_PER_S, FOR_EVER_NS))
    receivers = {
        "p00s00": Receiver("uplink", (STATION,), passes),
        "p00s01": Receiver("tree", ("p00s00",)),
        "p00s02": Receiver("swarm", ("p00s01",)),
    }
    manifest = describe(file, 100_000)
    times = {"begin_ns": 0, "stall_ns": 2 * NS_PER_S, "planned_end_ns": None}
    plan = TransferPlan(file, manifest, receivers, seed=1, **times)
    (journal / FILE).write_text(json.dumps(plan.to_json()))
    write_endpoints(endpoints_of(net), journal)


def _start(net: IslNet, name: str, journal: Path, t0_ns: int) -> subprocess.Popen:
    """A node's process, ready; it waits for the clock."""
    command = [sys.executable, "-m", "isl_emu.parts.uplink.node", "--name", name, "--journal", str(journal)]
    process = net.get(name).popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    process.stdin.write(f"{t0_ns} {t0_ns + FOR_EVER_NS}\n".encode())
    process.stdin.flush()
    return process


def _received_byte(net: IslNet, receiver: str, sender: str) -> int:
    """What came into a node from its neighbour, by the interface's own counter."""
    (link,) = net.linksBetween(net.get(receiver), net.get(sender))
    interface = link.intf1 if link.intf1.node.name == receiver else link.intf2
    command = ["ip", "-s", "-j", "link", "show", "dev", interface.name]
    output = net.get(receiver).popen(command, stdout=subprocess.PIPE).communicate()[0]
    return json.loads(output)[0]["stats64"]["rx"]["bytes"]


def _repeated_byte(net: IslNet, name: str) -> int:
    """What TCP sent again in a node: much of it needlessly, if the machine stood still for a while."""
    output = net.get(name).popen(["cat", "/proc/net/snmp"], stdout=subprocess.PIPE).communicate()[0].decode()
    names, values = (line.split() for line in output.splitlines() if line.startswith("Tcp:"))
    return int(dict(zip(names, values, strict=True))["RetransSegs"]) * (SEGMENT_BYTE + HEADERS_BYTE)


def test_a_lost_contact_is_resumed_and_every_hop_carries_the_file_once(tmp_path: Path) -> None:
    file, journal = tmp_path / "weights", tmp_path
    file.write_bytes(random.Random(1).randbytes(SIZE_BYTE))
    plan = make_plan(3, [STATION], INSTANTS, rate_bit_s=RATE_BIT_S, queue_ns=50 * MS)
    stop, clock = threading.Event(), RunClock.create(journal, 1.0)
    t0_ns = clock.now_ns() + NS_PER_S // 10
    clock.stop_at_ns(t0_ns - 1)
    with live_net(plan, journal) as (net, replay):
        replay.clock = clock
        _prepare(journal, net, file)
        nodes = [_start(net, name, journal, t0_ns) for name in (STATION, *SATELLITES)]
        replaying = threading.Thread(target=replay.run, args=(t0_ns, stop))
        replaying.start()
        clock.go_on()
        try:
            _await_all(journal, nodes)
            counted = {
                pair: _received_byte(net, *reversed(pair))
                for pair in [(STATION, "p00s00"), (STATION, "p00s01"), ("p00s01", "p00s00"), ("p00s00", "p00s01"),
                             ("p00s01", "p00s02")]
            }  # fmt: skip
            repeated_byte = sum(_repeated_byte(net, name) for name in (STATION, *SATELLITES))
        finally:
            stop.set()
            replaying.join()
            for process in nodes:
                process.terminate()
            assert [process.wait(PATIENCE_S) for process in nodes] == [0] * len(nodes)
    _check_attempts(journal)
    _check_counters(counted, read_journal(journal / "transfers.jsonl").records, repeated_byte)


def _await_all(journal: Path, nodes: list[subprocess.Popen]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while len(read_journal(journal / "held.jsonl").records) < len(SATELLITES):
        assert [process.poll() for process in nodes] == [None] * len(nodes)
        assert time.monotonic() < end_s, read_journal(journal / "transfers.jsonl").records
        time.sleep(0.1)


def _check_attempts(journal: Path) -> None:
    rows = read_journal(journal / "transfers.jsonl").records
    up = [row for row in rows if row["kind"] == "uplink"]
    assert len(up) > 1
    assert {row["outcome"] for row in up[:-1]} == {"stalled"}
    assert up[-1]["outcome"] == "completed"
    assert up[0]["t_start_ns"] < 2 * NS_PER_S < up[-1]["t_start_ns"]
    assert up[-1]["resumed_from_byte"] == sum(row["received_byte"] for row in up[:-1]) > 0
    for name in SATELLITES:  # no byte of the file came twice
        assert sum(row["received_byte"] for row in rows if row["destination"] == name) == SIZE_BYTE
    assert all(row["digest_ok"] for row in rows)


def _check_counters(counted: dict[tuple[str, str], int], rows: tuple[dict, ...], repeated_byte: int) -> None:
    """Link by link: what the file, its headers and the other direction's acknowledgements make."""
    late = [row for row in rows if row["kind"] == "uplink" and row["t_start_ns"] > 2 * NS_PER_S]
    late_byte = sum(row["received_byte"] for row in late)
    given_up = len([row for row in rows if row["outcome"] == "stalled"]) - 1  # beside the one that lost its contact
    lost_byte = repeated_byte + given_up * ON_THE_WAY_BYTE
    sent_byte = {
        (STATION, "p00s00"): SIZE_BYTE - late_byte,
        (STATION, "p00s01"): late_byte,
        ("p00s01", "p00s00"): late_byte,
        ("p00s00", "p00s01"): SIZE_BYTE,
        ("p00s01", "p00s02"): SIZE_BYTE,
    }
    for pair, payload_byte in sent_byte.items():
        backwards_byte = sent_byte.get(tuple(reversed(pair)), 0)
        theory_byte = (
            payload_byte * (1 + HEADERS_BYTE / SEGMENT_BYTE) + backwards_byte * HEADERS_BYTE / SEGMENT_BYTE / 2
        )
        least_byte, most_byte = theory_byte * (1 - WITHIN_RATIO), theory_byte * (1 + WITHIN_RATIO) + lost_byte
        assert least_byte < counted[pair] < most_byte, (pair, sent_byte, counted, lost_byte)
