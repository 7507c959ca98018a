"""The emulated network in a real kernel: what Mininet's interface shows, how long packets take, what remains."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mininet import log

from isl_emu.errors import NetworkError
from isl_emu.linkplan.plan import QueueKind
from isl_emu.network.calibration import NetemBias, measure_bias
from isl_emu.network.net import IslNet, NetCLI
from isl_emu.nodes.containers import Container
from isl_emu.nodes.namespaces import enter_network, in_own_thread
from isl_emu.nodes.nodespaces import HASH_SEED, IF_THERE, IPV6_SYSCTLS, SYSCTL_FOLDER, SYSCTLS
from isl_emu.recovery import clean_runs
from isl_emu.routing.paths import PathFinder
from isl_emu.runs.directory import registered_runs
from isl_emu.runs.journal import read_journal
from isl_emu.timebase import EXACT_TIME
from tests.kernel.test_queues import need_queue
from tests.nets import live_net, loopback_spaces, ping_lost, ping_times_ms, run_directory
from tests.plans import MS, SECOND, make_plan, make_routes, ring_edges
from tests.runs import wait_for

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netem")]
STATION_MS, RING_MS = 3, 5
RING = {**ring_edges(12, RING_MS * MS), (0, 12): STATION_MS * MS, (6, 13): STATION_MS * MS}
STATIONS = ["gs-chengdu", "gs-berlin-brandenburg"]
HALF_A_MS_PER_HOP = 0.5
PRINTED_MS = 0.01  # ping leaves out what is less
NO_EARLIER_MS = 0.3  # the bias is a quartile of a few samples, and ping prints tenths


def leftovers() -> list[str]:
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "isl-" in line]
    return [*os.listdir("/run/netns"), *mounts]


def in_cli(net: IslNet, script: Path, *commands: str) -> str:
    """What Mininet's command line prints for some commands, read from a script."""
    script.write_text("\n".join(commands) + "\n")
    heard = io.StringIO()
    handler = log.StreamHandlerNoNewline(heard)
    log.lg.addHandler(handler)
    try:
        with open(os.devnull) as nothing:
            NetCLI(net, stdin=nothing, script=str(script))
    finally:
        log.lg.removeHandler(handler)
    return heard.getvalue()


def test_round_trips_take_what_was_planned(tmp_path: Path) -> None:
    with run_directory() as run:
        bias_ns = measure_bias(run).bias_ns
    with live_net(make_plan(12, STATIONS, [RING]), tmp_path, bias_ns) as (net, _):
        for hops in range(1, 7):
            times = ping_times_ms(net.get("p00s00").cmd(f"ping -c 15 -i 0.05 p00s{hops:02d}"))
            planned = 2 * hops * RING_MS
            assert len(times) == 15
            assert planned - NO_EARLIER_MS <= min(times)
            quartile = statistics.quantiles(times, n=4)[0]  # others on the machine only make single pings longer
            assert quartile <= planned + HALF_A_MS_PER_HOP * hops


BAD_COMMANDS = (
    "source /nope", "source", "link p00s00", "link p00s00 p00s01 sideways", "link p00s00 nosuch up", "dpctl show",
    "switch s1 stop", "x", "x nosuch", "xterm nosuch", "nosuch ping p00s00", "p00s00", "py 1/0", "py exit(3)",
    "px import nosuch", "px raise SystemExit", "iperf p00s00 nosuch", "iperfudp 2M p00s00", "time nosuch",
    "noecho nosuch", "pingpair x y z", "p00s00 exit", "p00s00 kill -9 $$", "p00s00 nosuch", "gtermnal", "!", "?nosuch",
    "sh exit 3", "py net.get('nosuch').cmd('ls')",
)  # fmt: skip


@pytest.mark.parametrize("command", BAD_COMMANDS)
def test_a_command_that_fails_ends_the_command_alone(tmp_path: Path, command: str) -> None:
    with live_net(make_plan(2, [], [ring_edges(2, MS)]), tmp_path) as (net, _):
        said = in_cli(net, tmp_path / "script", command, "p00s00 ping -c 1 p00s01")
    assert "1 received" in said


def test_nodes_without_a_link_can_be_asked(tmp_path: Path) -> None:
    """A satellite that is in nobody's view all the time is a node all the same."""
    with live_net(make_plan(3, [], [{(0, 1): MS}]), tmp_path) as (net, replay):
        commands = (
            "p00s00 ping -c 1 -W 1 p00s02",
            "p00s02 hostname",
            "p00s02 ping -c 1 p00s02",
            "intfs",
            "links",
            "dump",
        )
        said = in_cli(net, tmp_path / "script", *commands, "iperf p00s00 p00s02", "p00s00 ping -c 1 p00s01")
        assert said.count("1 received") == 2
        assert replay.verify_all() == []


def test_a_laser_that_is_taken_down_and_up_by_hand_has_its_routes_again(tmp_path: Path) -> None:
    with live_net(make_plan(3, [], LINE, step_ns=SECOND), tmp_path) as (net, replay):
        in_cli(net, tmp_path / "script", "link p00s00 p00s01 down", "link p00s00 p00s01 up")
        replay.put_right()
        assert "1 received" in in_cli(net, tmp_path / "script", "p00s00 ping -c 1 p00s02")


def test_a_command_may_begin_with_a_name_with_hyphens(tmp_path: Path) -> None:
    with live_net(make_plan(12, STATIONS, [RING]), tmp_path) as (net, _):
        assert "3 received" in in_cli(net, tmp_path / "script", "gs-berlin-brandenburg ping -c 3 -i 0.2 gs-chengdu")


def test_a_command_that_fails_does_not_end_the_session(tmp_path: Path) -> None:
    with live_net(make_plan(2, [], [{}]), tmp_path) as (net, _):
        heard = in_cli(net, tmp_path / "script", "iperf p00s00 p00s01", "py 'still ' + 'there'")
    assert "*** iperf: p00s00 got nothing through to p00s01" in heard
    assert "still there" in heard


def test_iperf_measures_the_rate_and_spares_other_iperfs(tmp_path: Path) -> None:
    plan = make_plan(2, [], [{(0, 1): 2 * MS}], rate_bit_s=20_000_000)
    with live_net(plan, tmp_path) as (net, _):
        stranger = net.get("p00s00").popen(["iperf", "-s", "-p", "7000"])
        measured = in_cli(net, tmp_path / "script", "iperf p00s00 p00s01")
        assert stranger.poll() is None
        stranger.kill()
        stranger.wait()
    received = re.search(r"Results: \['([\d.]+) Mbits/sec'", measured)
    assert received and 17 < float(received.group(1)) <= 20, measured


def test_every_hop_answers_a_traceroute(tmp_path: Path) -> None:
    with live_net(make_plan(12, STATIONS, [RING]), tmp_path) as (net, _):
        lines = net.get("gs-chengdu").cmd("traceroute -n -q 1 gs-berlin-brandenburg").splitlines()[1:]
        assert [line.split()[1] for line in lines] == [f"10.0.0.{number}" for number in (1, 2, 3, 4, 5, 6, 7, 14)]


def test_ipv6_goes_the_same_way(tmp_path: Path) -> None:
    with live_net(make_plan(12, STATIONS, [RING]), tmp_path) as (net, _):
        if len(net.backend.families) == 1:
            pytest.skip("the kernel has no IPv6")
        assert ping_lost(net.get("gs-chengdu").cmd("ping -6 -c 2 -i 0.1 gs-berlin-brandenburg.ip6")) == 0
        assert ping_lost(net.get("gs-chengdu").cmd("ping -6 -c 2 -i 0.1 gs-berlin-brandenburg")) == 0
        if Path("/etc/gai.conf").exists():
            assert " (10.0.0.14) " in net.get("gs-chengdu").cmd("ping -c 1 gs-berlin-brandenburg")


def settings_of_network(path: str) -> dict[str, str]:
    """What is set below /proc/sys/net in a network, of interfaces those of new ones, all together and the loopback."""
    enter_network(path)
    names = [
        name for name in {**SYSCTLS, **IPV6_SYSCTLS, **IF_THERE, HASH_SEED: ""} if Path(SYSCTL_FOLDER, name).exists()
    ]
    told = {name: Path(SYSCTL_FOLDER, name).read_text().strip() for name in names}
    return told | {"lo": Path(SYSCTL_FOLDER, "ipv4/conf/lo/forwarding").read_text().strip()}


def test_each_node_has_the_same_settings_whatever_it_inherits() -> None:
    """The first is made from the machine's network, each other from the one before it."""
    with run_directory() as run, loopback_spaces(run, ["p00s00", "p00s01", "p00s02"]) as spaces:
        found = [in_own_thread(settings_of_network, space.path) for space in spaces]
    if HASH_SEED in found[0]:
        assert [one.pop(HASH_SEED) for one in found] == ["1", "2", "3"]
    assert found[0] == found[1] == found[2]
    assert found[0]["lo"] == "1"
    in_ms = "ipv6/conf/default/mldv2_unsolicited_report_interval"  # in whole ticks of the kernel
    assert {name: value for name, value in (SYSCTLS | IPV6_SYSCTLS | IF_THERE).items() if name in found[0]} == {
        name: "1" if name == in_ms else value for name, value in found[0].items() if name != "lo"
    }


def test_packets_cross_as_many_links_as_the_plan_says(tmp_path: Path) -> None:
    """Linux sends with a TTL of 64 unless it is told otherwise; 255 is the most."""
    plan = make_plan(257, [], [{(hop, hop + 1): MS // 10 for hop in range(256)}])
    routes = make_routes(plan)
    finder = PathFinder(plan, routes)
    assert [finder.path(0, node, 0) is None for node in (70, 255, 256)] == [False, False, True]
    with live_net(plan, tmp_path, routes=routes) as (net, _):
        for version in ("-4", "-6") if len(net.backend.families) > 1 else ("-4",):
            for node, lost in (("p00s70", 0), ("p00s255", 0), ("p00s256", 2)):
                out = net.get("p00s00").cmd(f"ping {version} -c 2 -i 0.1 -W 2 {node}")
                assert ping_lost(out) == lost, (version, out)


def test_each_link_has_its_own_longest_packet(tmp_path: Path) -> None:
    """9,000 bytes go over the first link; the second is for 1,500, and the node before it says so."""
    plan = make_plan(3, [], [{(0, 1): MS, (1, 2): MS}], rate_bit_s=100_000_000)
    plan = replace(plan, links=replace(plan.links, mtu_byte=np.array([9_000, 1_500], np.int32)))
    with live_net(plan, tmp_path) as (net, replay):
        node = net.get("p00s00")
        times = ping_times_ms(node.cmd("ping -M do -s 8972 -c 5 -i 0.1 p00s01"))
        planned_ms = 2 * (1 + 9_014 * 8 / 100_000)
        assert planned_ms - PRINTED_MS <= min(times) <= planned_ms + 1
        assert "mtu = 1500" in node.cmd("ping -M do -s 1473 -c 1 -W 1 p00s02")
        assert ping_lost(node.cmd("ping -M dont -s 8972 -c 2 -i 0.1 p00s02")) == 0
        assert replay.verify_all() == []


def test_the_api_and_the_command_line_of_mininet_work(tmp_path: Path) -> None:
    with live_net(make_plan(4, ["gs-chengdu"], [{**ring_edges(4, MS), (0, 4): MS}]), tmp_path) as (net, _):
        assert net.get("p00s00").IP() == "10.0.0.1"
        assert net.get("p00s01").shell is None
        assert net.pingAll() == 0
        out, _, status = net.get("p00s02").pexec("cat /etc/hosts")
        assert (status, "10.0.0.5 gs-chengdu" in out) == (0, True)
        shown = in_cli(net, tmp_path / "script", "nodes", "links", "net", "dump", "p00s00 ping -c1 gs-chengdu")
        assert "gs-chengdu p00s00 p00s01 p00s02 p00s03" in shown
        assert "to-p00s01<->to-p00s00 (OK OK)" in shown
        assert "p00s01 to-p00s00:to-p00s01" in shown
        assert "<SatelliteNode p00s02: 10.0.0.3 " in shown
        assert "1 packets transmitted, 1 received" in shown


def test_commands_can_be_watched_interrupted_and_left_behind(tmp_path: Path) -> None:
    with live_net(make_plan(3, [], [ring_edges(3, MS)]), tmp_path) as (net, _):
        node = net.get("p00s00")
        node.sendCmd("ping p00s01")
        seen = ""
        while "icmp_seq=1" not in seen:
            seen += node.monitor()
        node.sendInt()
        assert "packets transmitted" in node.waitOutput()
        node.cmd("sleep 1000 &")
        assert Path(f"/proc/{node.lastPid}").exists()
        node.sendCmd("sleep 0.2", printPid=True)
        node.waitOutput()
        assert node.cmd("echo $((6 * 7))").strip() == "42"


def test_shells_and_programs_of_a_computing_satellite_are_in_its_container(tmp_path: Path) -> None:
    with live_net(make_plan(2, [], [{(0, 1): MS}]), tmp_path) as (net, _):
        node = net.get("p00s00")
        hosts = {host.name: host.address for host in net.hosts}
        node.cmd("true")
        node.container = Container(node.name, node.netns_path, net.run_directory, 1.0, 1 << 27, hosts)
        node.container.start()
        wait_for(lambda: node.cmd("cat /proc/1/comm").strip() == "cat", "the container's first program")
        assert node.cmd("hostname").strip() == "p00s00"
        assert ping_lost(node.popen("ping -c 1 p00s01", text=True).communicate()[0]) == 0
        node.container.stop()
        node.container = None
        name, first = node.cmd("hostname; cat /proc/1/comm").split()
        assert name == "p00s00"  # its own host name, without a container as well
        assert first != "cat"


def test_super_packets_are_short(tmp_path: Path) -> None:
    with live_net(make_plan(2, [], [{(0, 1): MS}], rate_bit_s=1_000_000_000), tmp_path) as (net, _):
        (shown,) = json.loads(net.get("p00s00").cmd("ip -d -j link show to-p00s01"))
        assert (shown["gso_max_size"], shown["gso_max_segs"]) == (12_500, 8)  # 100 us at 1 Gbit/s


def test_only_the_plan_is_in_the_net(tmp_path: Path) -> None:
    with live_net(make_plan(3, [], [ring_edges(3, MS)]), tmp_path) as (net, _):
        with pytest.raises(NetworkError, match="h1 is new"):
            net.addHost("h1")
        with pytest.raises(NetworkError, match="is new"):
            net.addLink("p00s00", "p00s01")


def test_nothing_remains_after_stop(tmp_path: Path) -> None:
    before = leftovers()
    with live_net(make_plan(3, [], [ring_edges(3, MS)]), tmp_path) as (net, _):
        program = net.get("p00s00").popen("sleep 1000")
        net.get("p00s01").cmd("sleep 1000 &")
        assert len(leftovers()) == len(before) + 6
    assert leftovers() == before
    assert program.wait(5) == -signal.SIGKILL


def test_replay_follows_the_plan_in_the_kernel(tmp_path: Path) -> None:
    instants = [ring_edges(6, delay * MS) for delay in (5, 6, 4)]
    del instants[1][0, 5]
    with live_net(make_plan(6, [], instants, step_ns=200 * MS), tmp_path) as (_, replay):
        replay.run(time.monotonic_ns(), threading.Event())
        assert replay.mismatches == replay.verify_all() == []


def test_what_tc_and_ip_change_is_found(tmp_path: Path) -> None:
    with live_net(make_plan(3, [], [ring_edges(3, 5 * MS)]), tmp_path) as (net, replay):
        net.get("p00s00").cmd("tc qdisc change dev to-p00s01 root netem delay 7ms rate 1gbit limit 5000")
        net.get("p00s01").cmd("tc qdisc del dev to-p00s02 root")
        net.get("p00s02").cmd("ip route replace 10.0.0.1/32 via 10.0.0.2 dev to-p00s01 onlink proto 151")
        wrong = replay.verify_all()
        assert len(wrong) == 3
        assert wrong[0].startswith(
            "p00s00 to-p00s01: the shaping is delay 7 ms, rate 1 Gbit/s, loss 0, limit 5000 pack"
        )
        assert wrong[1].startswith("p00s01 to-p00s02: the shaping is no netem, but the plan says delay 5 ms")
        assert wrong[2].startswith("p00s02: the IPv4 route to p00s00 is to-p00s01, but the plan says to-p00s00")


UNPOLICED = "to-p00s02: the shaping is delay 5 ms, rate 1 Gbit/s, loss 0"
INDEX = "$(ip -o link show to-p00s02 | cut -d: -f1)"
LINE = [{(0, 1): 5 * MS, (1, 2): 5 * MS}, {(0, 1): 6 * MS, (1, 2): 6 * MS}]


@pytest.mark.parametrize(
    ("node", "commands", "told"),
    [
        ("p00s01", ["ip link set to-p00s02 down"], "to-p00s02 is down"),
        ("p00s01", ["ip link set to-p00s02 down", "ip link set to-p00s02 up"], "route to p00s02 is none"),
        ("p00s01", ["ip link del to-p00s02"], "to-p00s02 is down"),
        ("p00s01", ["ip link set lo down"], "lo is down"),
        ("p00s01", ["tc qdisc del dev to-p00s02 root"], "to-p00s02: the shaping is no netem"),
        ("p00s01", ["tc qdisc replace dev to-p00s02 root netem delay 9ms"], "to-p00s02: the shaping is delay 9 ms"),
        ("p00s01", ["tc qdisc del dev to-p00s02 root", "tc qdisc add dev to-p00s02 root handle 1: pfifo"], "no netem"),
        ("p00s01", ["tc qdisc del dev to-p00s02 clsact"], f"{UNPOLICED}, but the plan says"),
        ("p00s01", ["tc filter del dev to-p00s02 egress"], f"{UNPOLICED}, but the plan says"),
        ("p00s01", [f"tc actions change action police rate 1mbit burst 9k drop index {INDEX}"], f"{UNPOLICED}, but"),
        ("p00s00", ["ip route del 10.0.0.3"], "the IPv4 route to p00s02 is none"),
        ("p00s00", ["ip route replace blackhole 10.0.0.3"], "the IPv4 route to p00s02 is none"),
        ("p00s00", ["ip -6 route flush proto 151"], "the IPv6 route to p00s01 is none"),
    ],
)  # fmt: skip
def test_what_somebody_changes_is_put_right_at_the_next_instant_and_told(
    tmp_path: Path, node: str, commands: list[str], told: str
) -> None:
    with live_net(make_plan(3, [], LINE, step_ns=SECOND), tmp_path) as (net, replay):
        replaying = threading.Thread(target=replay.run, args=(time.monotonic_ns(), threading.Event()))
        replaying.start()
        assert all(not net.get(node).cmd(command) for command in commands)
        replaying.join()
        replay.put_right()
        assert replay.mismatches == replay.verify_all() == []
        assert ping_lost(net.get("p00s00").cmd("ping -c 2 -i 0.1 -W 2 p00s02")) == 0
        assert ping_lost(net.get("p00s00").cmd("ping -6 -c 2 -i 0.1 -W 2 p00s02.ip6")) == 0
    records = read_journal(tmp_path / "incidents.jsonl").records
    assert any(record["node"] == node and told in record["cause"] for record in records), records
    assert all(0 <= record["t_ns"] < SECOND <= record["t_end_ns"] for record in records)


@pytest.mark.parametrize("change", ["ip route add 10.9.9.9/32 dev to-p00s00", "ip rule add from 10.0.0.2 lookup 77"])
def test_routes_of_ones_own_stay_and_are_told(tmp_path: Path, change: str) -> None:
    with live_net(make_plan(3, [], LINE, step_ns=SECOND), tmp_path) as (net, replay):
        replay._t0_ns = time.monotonic_ns()
        assert not net.get("p00s01").cmd(change)
        wait_for(lambda: net.backend.disturbed, "word of the change")
        replay.put_right()
        assert "10.9.9.9" in net.get("p00s01").cmd("ip route") or "lookup 77" in net.get("p00s01").cmd("ip rule")
    (record,) = read_journal(tmp_path / "incidents.jsonl").records
    assert (record["node"], record["t_end_ns"]) == ("p00s01", None)
    assert "were changed" in record["cause"]


def test_a_managed_queue_that_somebody_took_away_is_made_anew(tmp_path: Path) -> None:
    need_queue(QueueKind.FQ_CODEL)
    plan = make_plan(2, [], [{(0, 1): 5 * MS}] * 2, step_ns=SECOND, aqm=QueueKind.FQ_CODEL)
    qdiscs = "tc qdisc del dev queue-1000 root", "tc qdisc del dev to-p00s01 clsact"
    for change in ("ip link del queue-1000", *qdiscs, "tc filter del dev to-p00s01 egress"):
        with live_net(plan, tmp_path) as (net, replay):
            assert not net.get("p00s00").cmd(change)
            wait_for(lambda: len(replay.verify_all()) == 1, change)  # an action outlives its filter for a moment
            wait_for(lambda: net.backend.disturbed, "word of the change")
            replay.put_right()
            assert replay.verify_all() == [], change
            assert ping_lost(net.get("p00s00").cmd("ping -c 2 -i 0.1 -W 2 p00s01")) == 0


def test_a_killed_run_is_cleaned_and_no_other(tmp_path: Path) -> None:
    script = (
        "import sys, time; from tests.nets import *; from tests.plans import *\n"
        "net = build_net(make_plan(3, [], [ring_edges(3, MS)]), create_run_directory())\n"
        "net.get('p00s00').popen('sleep 1000'); print(net.run_directory.run_id, flush=True); time.sleep(1000)"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    killed = owner.stdout.readline().strip()
    with live_net(make_plan(3, [], [ring_edges(3, MS)]), tmp_path) as (net, replay):
        runs = [run for run in registered_runs() if run.run_id in (killed, net.run_directory.run_id)]
        assert (len(runs), clean_runs(runs)) == (2, [])
        owner.kill()
        owner.wait()
        assert [f"run {killed}: removed 3 namespaces, 1 processes" in sentence for sentence in clean_runs(runs)] == [
            True
        ]
        assert not [line for line in leftovers() if killed in line]
        assert killed not in [run.run_id for run in registered_runs()]
        assert replay.verify_all() == []
        assert net.get("p00s00").cmd("echo alive").strip() == "alive"


def test_calibration_takes_the_bias_away() -> None:
    """Of three measurements, because what else runs on the machine may change between the two halves of one."""
    if EXACT_TIME in os.environ:
        pytest.skip("in exact time there is no bias")
    with run_directory() as run:
        before = leftovers()
        taken_away = any(_little_is_left(measure_bias(run)) for _ in range(3))
        assert leftovers() == before
    assert taken_away


def _little_is_left(found: NetemBias) -> bool:
    return 0 < found.bias_ns < 2 * MS and abs(found.residue_ns) < max(found.bias_ns, 200_000)
