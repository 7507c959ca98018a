"""What shaping costs packets: throughput and round trips over our links, against the same path without any shaping.

    python -m isl_emu.machine.guest -- .venv/bin/python tests/benchmarks/bench_packets.py [--hops 1,2,4]

Needs root and netem. The path is a row of nodes, its links without delay and with a rate that no machine reaches, so
all that is seen is what the kernel spends. Bare: the same veth pairs with their netems taken away and super-packets of
any length. Managed: CoDel before each netem. All in the same run; only ratios and differences mean anything.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from isl_emu.linkplan.plan import QueueKind  # noqa: E402
from isl_emu.network.net import IslNet  # noqa: E402
from tests.kernel.transfers import bulk_transfer, message_times_s  # noqa: E402
from tests.nets import live_net  # noqa: E402
from tests.plans import make_plan  # noqa: E402

RATE_BIT_S = 100_000_000_000
BULK_BYTE = 100_000_000
ROUND_TRIPS, SMALL_BYTE = 50, 64
ROUNDS = 3  # the best of so many


@contextmanager
def row_of_nodes(hops: int, aqm: QueueKind = QueueKind.NONE) -> Iterator[IslNet]:
    """A live row of nodes."""
    plan = make_plan(hops + 1, [], [{(hop, hop + 1): 0 for hop in range(hops)}], rate_bit_s=RATE_BIT_S, aqm=aqm)
    with tempfile.TemporaryDirectory() as folder, live_net(plan, Path(folder)) as (net, _):
        yield net


def take_shaping_away(net: IslNet) -> None:
    """Leave nothing but the veth pairs."""
    for node in net.hosts:
        for interface in node.intfNames():
            node.cmd(f"tc qdisc del dev {interface} root")
            node.cmd(f"ip link set {interface} gso_max_size 65536 gso_max_segs 65535")


def measured(net: IslNet, hops: int) -> tuple[float, float]:
    """Gbit/s of one TCP flow from end to end, and the median round trip of a small message, us."""
    ends = "p00s00", f"p00s{hops:02d}"
    gbit_s = max(bulk_transfer(net, *ends, BULK_BYTE).whole_bit_s for _ in range(ROUNDS)) / 1e9
    trips = [message_times_s(net, *ends, SMALL_BYTE, ROUND_TRIPS) for _ in range(ROUNDS)]
    return gbit_s, min(map(statistics.median, trips)) * 1e6


def ways(hops: int) -> dict[str, tuple[float, float]]:
    """The three ways over a row of nodes."""
    found = {}
    with row_of_nodes(hops) as net:
        found["netem"] = measured(net, hops)
        take_shaping_away(net)
        found["bare veth"] = measured(net, hops)
    with row_of_nodes(hops, QueueKind.CODEL) as net:
        found["CoDel and netem"] = measured(net, hops)
    return {name: found[name] for name in ("bare veth", "netem", "CoDel and netem")}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hops", default="1,2,4")
    table = Table("hops", "links", "Gbit/s", "x bare", "round trip, us", "added a link and way, us", title="Packets")
    for hops in map(int, parser.parse_args().hops.split(",")):
        found = ways(hops)
        bare_gbit_s, bare_us = found["bare veth"]
        for name, (gbit_s, trip_us) in found.items():
            added_us = (trip_us - bare_us) / (2 * hops)
            figures = f"{gbit_s:.2f}", f"{gbit_s / bare_gbit_s:.2f}", f"{trip_us:,.0f}", f"{added_us:.0f}"
            table.add_row(str(hops), name, *figures)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
