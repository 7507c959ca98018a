"""Taps in a real kernel: they see what is handed to a link before its delay, and disturb nothing."""

from __future__ import annotations

import select
import time
from pathlib import Path

import pytest

from isl_emu.linkplan.plan import QueueKind
from isl_emu.network.naming import mac_bytes
from isl_emu.network.net import IslNet
from isl_emu.network.taps import Tap
from isl_emu.parts.captures.filters import compile_filter, for_sent_from
from isl_emu.parts.captures.listening import Ear, Heard
from isl_emu.runs.journal import read_journal
from tests.kernel.test_queues import need_queue
from tests.nets import live_net, ping_lost
from tests.plans import MS, SECOND, make_plan
from tests.runs import PATIENCE_S

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netem")]
ASKED = compile_filter("test", "icmp and src host 10.0.0.1", {}, 65_535)
DELAY_NS = 20 * MS


def heard(ear: Ear) -> Heard:
    """The next packet."""
    assert select.select([ear], [], [], PATIENCE_S)[0]
    return next(ear.hear())


def tapped(net: IslNet, end: int) -> tuple[Tap, Ear]:
    netns, index = net.get("p00s00").netns_path, int(net.backend.wiring.interface_index[end])
    tap = Tap(netns, [index])
    return tap, Ear(netns, tap.name, for_sent_from(mac_bytes(end), ASKED), arriving=False)


@pytest.mark.parametrize("queue", [QueueKind.NONE, QueueKind.FQ_CODEL])
def test_what_is_sent_is_seen_a_delay_before_it_arrives(tmp_path: Path, queue: QueueKind) -> None:
    need_queue(queue)
    with live_net(make_plan(2, [], [{(0, 1): DELAY_NS}], aqm=queue), tmp_path) as (net, replay):
        tap, at_tap = tapped(net, 0)
        arriving = Ear(net.get("p00s01").netns_path, net.backend.wiring.interface[1], ASKED, arriving=True)
        assert ping_lost(net.get("p00s00").cmd("ping -c 1 -s 500 p00s01")) == 0
        sent, arrived = heard(at_tap), heard(arriving)
        assert sent.data == arrived.data
        assert sent.length == 14 + 20 + 8 + 500
        assert arrived.utc_ns - sent.utc_ns >= DELAY_NS
        assert (at_tap.dropped(), arriving.dropped()) == (0, 0)
        assert tap.close()
        assert replay.verify_all() == []
        assert ping_lost(net.get("p00s00").cmd("ping -c 1 p00s01")) == 0
        assert list(at_tap.hear()) == []
        at_tap.close()
        arriving.close()


def test_a_tap_is_nobodys_intervention_and_one_that_is_taken_away_is_known(tmp_path: Path) -> None:
    with live_net(make_plan(2, [], [{(0, 1): MS}], step_ns=SECOND), tmp_path) as (net, replay):
        net.get("p00s00").cmd("true")  # from now on others are heard there
        replay._t0_ns = time.monotonic_ns()
        tap, ear = tapped(net, 0)
        ear.close()
        assert tap.close()
        tap, ear = tapped(net, 0)
        replay.put_right()
        assert read_journal(tmp_path / "incidents.jsonl").records == ()
        net.get("p00s00").cmd(f"ip link delete {tap.name}")
        assert not tap.close()
        ear.close()
