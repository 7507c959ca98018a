"""How fast a constellation is built and changed: us, the kernel's own floor, and the other ways, in one run.

    python -m isl_emu.machine.guest -- .venv/bin/python tests/benchmarks/bench_network.py

Needs root and netem, so it runs in the guest kernel or on a machine that has it; `pyroute2` and `tc` are measured where
they are installed. Each way is measured at a size that it can stand, and compared per object; every ratio is against
the floor of the same run: the bare kernel calls with ready-made messages, which no program can undercut.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from mininet.link import TCLink
from mininet.net import Mininet
from mininet.util import quietRun
from rich.console import Console
from rich.table import Table

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.network.desired import ends_at, initial_ends
from isl_emu.network.kernel import KernelBackend
from isl_emu.network.messages import (
    LOOPBACK_INDEX,
    interface_addresses,
    links_up,
    new_veths,
    permanent_neighbours,
    veth_ends,
)
from isl_emu.network.naming import gateway_packed, ipv4_packed, ipv6_packed, mac_rows, wire
from isl_emu.network.net import IslNet
from isl_emu.network.qdiscs import netem_messages
from isl_emu.network.queues import policer_messages
from isl_emu.nodes.namespaces import CLONE_NEWNET, enter_network, in_own_thread, unshare
from isl_emu.nodes.netlink import Netlink
from isl_emu.nodes.nodespaces import OWN_NETWORK
from isl_emu.runs.directory import create_run_directory

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.plans import MS, make_plan  # noqa: E402

try:
    from pyroute2 import IPRoute
except ImportError:
    IPRoute = None


SMALL = 12  # satellites that the slow ways are measured with
MININET = 6  # hosts that stock Mininet is measured with
FRAME_BYTE = 1514


def torus(planes: int, slots: int) -> dict[tuple[int, int], int]:
    """The links of a +Grid: two in each plane's ring and two to the neighbouring planes, 5 ms each."""
    edges = {}
    for plane in range(planes):
        for slot in range(slots):
            here = plane * slots + slot
            for there in (plane * slots + (slot + 1) % slots, (plane + 1) % planes * slots + slot):
                edges[min(here, there), max(here, there)] = 5 * MS
    return edges


def seconds(action: Callable[[], object]) -> float:
    """How long an action takes."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def available_mib() -> float:
    """The memory that the kernel could still give, MiB."""
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    return int(line.split()[1]) / 1024


@contextmanager
def backend(plan: LinkPlan) -> Iterator[KernelBackend]:
    """The links of a plan in the kernel, without Mininet around them."""
    run = create_run_directory()
    made = KernelBackend(plan, run.run_id)
    try:
        yield made
    finally:
        made.close()
        (run.path / "owner.json").unlink()
        run.path.rmdir()


def floor_build_s(plan: LinkPlan) -> float:
    """What the bare kernel takes for a plan's network."""
    return floor_build(plan)["whole"]


def floor_build(plan: LinkPlan) -> dict[str, float]:
    """Namespaces by `unshare`, veth pairs made in place, and all that nodes are told, by ready-made messages: in s."""
    return in_own_thread(_floor_build, plan)


def _floor_build(plan: LinkPlan) -> dict[str, float]:
    wiring, sockets, namespaces = wire(plan), [], []
    every, index = np.arange(len(wiring.node)), wiring.interface_index
    ends = wiring.ends_by_node(len(plan.nodes.names))
    byte = np.full(len(every), FRAME_BYTE)
    veths = veth_ends(wiring.interface, index, mac_rows(every), byte, byte)
    states = initial_ends(plan, 0)
    netems = [netem_messages(states[some], index[some], create=True).tobytes() for some in ends]
    number = np.arange(len(ends))
    lo, peer, mac = np.full(len(ends), LOOPBACK_INDEX), wiring.peer, mac_rows(every ^ 1)
    of_node = [
        links_up(lo), interface_addresses(ipv4_packed(number), 32, lo),
        interface_addresses(ipv6_packed(number), 128, lo),
    ]  # fmt: skip
    of_end = [
        links_up(index), permanent_neighbours(ipv4_packed(peer), mac, index),
        permanent_neighbours(gateway_packed(peer), mac, index), *policer_messages(states, index),
    ]  # fmt: skip
    words = [
        [rows[node].tobytes() for rows in of_node] + [row.tobytes() for rows in of_end for row in rows[some]]
        for node, some in enumerate(ends)
    ]
    resource.setrlimit(resource.RLIMIT_NOFILE, (3 * len(ends) + 256,) * 2)
    begun = time.perf_counter()
    for _ in plan.nodes.names:
        unshare(CLONE_NEWNET)
        namespaces.append(os.open(OWN_NETWORK, os.O_RDONLY | os.O_CLOEXEC))
        sockets.append(Netlink())
    spaced = time.perf_counter()
    places = np.array(namespaces)[wiring.peer[::2]]
    made = [row.tobytes() for row in new_veths(veths[::2], veths[1::2], places)]
    linking = time.perf_counter()
    for node, pair in zip(wiring.node[::2].tolist(), made, strict=True):
        sockets[node].send([pair])
    linked = time.perf_counter()
    for one, netem, word in zip(sockets, netems, words, strict=True):
        one.send([netem])
        one.send(word)
    ended = time.perf_counter()
    refused = [refusal for one in sockets for refusal in one.refusals()]
    for one in sockets:
        one.close()
    for descriptor in namespaces:
        os.close(descriptor)
    if refused:
        raise SystemExit(f"the floor: the kernel refused {len(refused)} messages: {refused[0]}")
    return {
        "namespaces": spaced - begun,
        "links": linked - linking,
        "the rest": ended - linked,
        "whole": ended - linking + spaced - begun,
    }


def floor_update_s(made: KernelBackend, states: np.ndarray) -> float:
    """All ends' ready-made messages through ready sockets."""
    rows = netem_messages(states, made.wiring.interface_index, create=False)
    order = np.argsort(made.wiring.node, kind="stable")
    parts = np.split(rows[order], np.searchsorted(made.wiring.node[order], np.arange(1, len(made.spaces))))
    pairs = list(zip((space.netlink for space in made.spaces), parts, strict=True))

    def send() -> None:
        for netlink, part in pairs:
            netlink.send_rows(part)

    return min(seconds(send) for _ in range(5))


def our_update_s(made: KernelBackend, plan: LinkPlan) -> float:
    """One instant's arrays to the kernel, with the check for refusals."""
    before, every = initial_ends(plan, 0), np.arange(2 * len(plan.links.a))

    def update() -> None:
        made.change_ends(every, ends_at(plan, 1, before, 50_000))

    return min(seconds(update) for _ in range(5))


def ways_to_change() -> Table:
    """One change of a link end, by each way, on the same net."""
    plan = make_plan(SMALL, (), [torus(3, 4), {edge: 7 * MS for edge in torus(3, 4)}])
    table = Table("one change of a link end by", "us", "x floor", title="Change")
    with backend(plan) as made:
        ends = 2 * len(plan.links.a)
        floor_us = floor_update_s(made, ends_at(plan, 0, initial_ends(plan, 0), 0)) / ends * 1e6
        ways = {"isl-emu": our_update_s(made, plan) / ends * 1e6, **_other_ways(made)}
    table.add_row("ready-made messages (floor)", f"{floor_us:.1f}", "1")
    for name, us in ways.items():
        table.add_row(name, f"{us:,.1f}", f"{us / floor_us:,.1f}")
    return table


def _other_ways(made: KernelBackend) -> dict[str, float]:
    space, names = made.spaces[0], [made.wiring.interface[end] for end in np.flatnonzero(made.wiring.node == 0)]
    change = "qdisc change dev {} root handle 1: netem delay 6ms rate 1gbit limit 1000"
    inside = ["nsenter", f"--net={space.path}"]
    words = change.format(names[0]).split()
    one_us = seconds(lambda: [subprocess.run([*inside, "tc", *words], check=True) for _ in range(10)]) / 10 * 1e6
    ways = {"tc -batch": _batch_us(inside, [change.format(names[n % len(names)]) for n in range(500)])}
    if (us := in_own_thread(_pyroute2_us, space.path, names)) is not None:
        ways["pyroute2"] = us
    return {**ways, "one tc process each": one_us}


def _batch_us(inside: list[str], lines: list[str]) -> float:
    with tempfile.NamedTemporaryFile("w", suffix=".tc") as file:
        file.write("\n".join(lines) + "\n")
        file.flush()
        return seconds(lambda: subprocess.run([*inside, "tc", "-batch", file.name], check=True)) / len(lines) * 1e6


def _pyroute2_us(path: str, names: list[str]) -> float | None:
    """Where it is installed; its netem takes no rate, so it is given delay and limit only."""
    if IPRoute is None:
        return None
    enter_network(path)
    with IPRoute() as ip:
        index, count = ip.link_lookup(ifname=names[0])[0], 100

        def change() -> None:
            for _ in range(count):
                ip.tc("change", "netem", index=index, handle="1:", delay=6000, limit=1000)

        return seconds(change) / count * 1e6


def ways_to_build() -> Table:
    """A satellite with its share of links, built by us and by stock Mininet with TCLink."""
    table = Table("a ring, for each satellite, built by", "ms", "x isl-emu", title="Build")
    ring = {(min(a, b), max(a, b)): 5 * MS for a, b in ((n, (n + 1) % SMALL) for n in range(SMALL))}
    run = create_run_directory()
    begun = time.perf_counter()
    net = IslNet(make_plan(SMALL, (), [ring]), run)
    ours_ms = (time.perf_counter() - begun) / SMALL * 1e3
    net.stop()
    shutil.rmtree(run.path)
    table.add_row("isl-emu", f"{ours_ms:.1f}", "1")
    stock_ms = _stock_mininet_ms()
    table.add_row(
        "Mininet with TCLink",
        f"{stock_ms:,.1f}" if stock_ms else "mnexec is missing",
        f"{stock_ms / ours_ms:,.0f}" if stock_ms else "",
    )
    return table


def _stock_mininet_ms() -> float | None:
    if "usage" not in quietRun("mnexec -h", shell=True).lower():
        return None
    raised, Mininet.inited = Mininet.inited, True
    net = Mininet(controller=None, link=TCLink)
    try:
        begun = time.perf_counter()
        hosts = [net.addHost(f"h{number}") for number in range(MININET)]
        for number in range(MININET):
            net.addLink(hosts[number], hosts[(number + 1) % MININET], delay="5ms", bw=100)
        net.build()
        return (time.perf_counter() - begun) / MININET * 1e3
    finally:
        net.stop()
        Mininet.inited = raised


def main() -> None:
    """Measure and print."""
    console = Console(width=120)
    for table in (ways_to_change(), ways_to_build()):
        console.print(table)


if __name__ == "__main__":
    main()
