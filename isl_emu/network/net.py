"""The emulated network as a Mininet net: Mininet's Python API and command line, without its processes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mininet.log import output
from mininet.net import Mininet

from isl_emu.errors import NetworkError
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.network.hosts import LaserInterface, LaserLink, SatelliteNode, SpaceNode, StationNode
from isl_emu.network.kernel import KernelBackend
from isl_emu.network.naming import alias_names, hosts_file, ipv4_address
from isl_emu.network.throughput import run_iperf
from isl_emu.network.topo import IslTopo
from isl_emu.nodes.nodespaces import namespace_path
from isl_emu.nodes.processes import kill_processes_in, namespace_ids
from isl_emu.routing.aliases import NO_ALIASES, Aliases
from isl_emu.runs.directory import RunDirectory

NODE_CLASSES = {"satellite": SatelliteNode, "station": StationNode}


def build_net(plan: LinkPlan, run: RunDirectory, slowdown: float = 1.0, aliases: Aliases = NO_ALIASES) -> IslNet:
    """Make all nodes and links of a plan in this kernel; every link is down until a replay sets it.

    Raises:
        NetworkError: not root, or the kernel lacks something.
    """
    return IslNet(plan, run, slowdown, aliases)


class IslNet(Mininet):
    """A Mininet net of satellites and stations.

    Args:
        plan: what to build; its nodes and links are all there are.
        run: whose kernel objects these are; the file with all nodes' names and addresses is kept in its folder.
        slowdown: how many times more slowly than the machine's time the emulated time passes.
        aliases: further addresses of nodes, for disjoint paths.
    """

    def __init__(self, plan: LinkPlan, run: RunDirectory, slowdown: float = 1.0, aliases: Aliases = NO_ALIASES):
        self.plan, self.slowdown, self.aliases = plan, slowdown, aliases
        self.run_directory = run
        self.hosts_path = str(run.path / "hosts")
        self.backend: KernelBackend | None = None
        raised, Mininet.inited = Mininet.inited, True  # else Mininet raises limits of the whole machine
        try:
            super().__init__(IslTopo(plan), controller=None, link=LaserLink, intf=LaserInterface, build=True)
        finally:
            Mininet.inited = raised

    @property
    def addresses(self) -> dict[str, str]:
        """The IPv4 address of every node, and of every alias that a disjoint path leads to, by name."""
        names = self.plan.nodes.names
        return {name: ipv4_address(number) for number, name in enumerate([*names, *alias_names(names, self.aliases)])}

    def build(self) -> None:
        """Make everything in the kernel, then Mininet's objects for it."""
        Path(self.hosts_path).write_text(hosts_file(self.plan.nodes.names, self.aliases))
        self.backend = KernelBackend(self.plan, self.run_directory.run_id, self.slowdown, self.aliases)
        try:
            self.buildFromTopo(self.topo)
        except BaseException:
            self.stop()
            raise
        self.built = True

    def addHost(self, name: str, cls: type[SpaceNode] | None = None, **params: Any) -> SpaceNode:
        """Add the Mininet object of a node of the plan.

        Raises:
            NetworkError: the plan has no such node.
        """
        if name not in self.plan.nodes.names:
            raise NetworkError(
                f"net: node {name} is new, but only the plan's nodes can be in it; add it to the scenario"
            )
        path = namespace_path(self.run_directory.run_id, name)
        cls = cls or NODE_CLASSES[params["kind"]]
        return super().addHost(name, cls=cls, netns_path=path, hosts_path=self.hosts_path, **params)

    def addLink(self, node1: Any, node2: Any, port1: int | None = None, port2: int | None = None,
                cls: type[LaserLink] | None = None, **params: Any) -> LaserLink:  # fmt: skip
        """Add the Mininet object of a link of the plan.

        Raises:
            NetworkError: it does not come from the plan.
        """
        if self.built:
            raise NetworkError(
                f"net: a link {node1} {node2} is new, but only the plan's links can be in it; change the scenario"
            )
        return super().addLink(node1, node2, port1, port2, cls, **params)

    def start(self) -> None:
        """Nothing is left to start: there are no switches and no controllers."""

    def stop(self) -> None:
        """End everything that runs in the nodes and remove them from the kernel; may be called again."""
        self.stopXterms()
        for host in self.hosts:
            host.terminate()
        if self.backend is not None:
            kill_processes_in(namespace_ids(space.path for space in self.backend.spaces))
            self.backend.close()
            self.backend = None

    def iperf(self, hosts: Sequence[SpaceNode] | None = None, l4Type: str = "TCP", udpBw: str = "10M",
              fmt: str | None = None, seconds: int = 5, port: int = 5001) -> list[str]:  # fmt: skip
        """Send for some seconds from the first to the second host (default: the net's first and last).

        Returns:
            What the server and the client measured; before them `udpBw` if it was UDP.
        """
        client, server = hosts or (self.hosts[0], self.hosts[-1])
        udp = l4Type == "UDP"
        output("*** Iperf: testing", l4Type, "bandwidth between", client, "and", server, "\n")
        words = ["-p", str(port), *(["-u"] if udp else []), *(["-f", fmt] if fmt else [])]
        load = ["-t", str(seconds), *(["-b", udpBw] if udp else [])]
        result = [self._parseIperf(text) for text in run_iperf(client, server, words, load)]
        result = [udpBw, *result] if udp else result
        output(f"*** Results: {result}\n")
        return result

    def stopXterms(self) -> None:
        """End the terminals that `xterm` opened, and no others."""
        if self.terms:
            super().stopXterms()
