"""The emulated network as a Mininet net: Mininet's topology, Python API and command line, without its processes.

Mininet has no types, so these classes declare what they use of it, with its types.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, overload

from mininet.cli import CLI
from mininet.log import error, output
from mininet.net import Mininet
from mininet.topo import Topo

from isl_emu.errors import IslEmuError, NetworkError
from isl_emu.linkplan.plan import LinkKind, LinkPlan, NodeKind
from isl_emu.network.hosts import LaserInterface, LaserLink, PlaceNode, SatelliteNode, SpaceNode, StationNode
from isl_emu.network.kernel import ANYWHERE, Beyond, KernelBackend
from isl_emu.network.naming import (
    BOTH_FAMILIES,
    IPV4_FIRST,
    alias_names,
    hosts_file,
    ipv4_address,
    ipv6_address,
    mac_address,
    wire,
)
from isl_emu.nodes.nodespaces import namespace_path
from isl_emu.nodes.processes import NodeFreezer, kill_processes_in, namespace_ids
from isl_emu.routing.aliases import NO_ALIASES, Aliases
from isl_emu.routing.source_routes import SourceRoutes
from isl_emu.runs.directory import RunDirectory
from isl_emu.runs.endpoints import OUTSIDE_NAMES
from isl_emu.runs.portion import Portion
from isl_emu.scenario.routing import Routing

NODE_CLASSES = {"satellite": SatelliteNode, "station": StationNode, "gateway": StationNode, "place": PlaceNode}
IPERF_PATIENCE_S = 60.0  # for the last packets, and for two programs to start
IPERF_TRIES = 50  # until the server listens
IPERF_PAUSE_S = 0.2


def build_net(
    plan: LinkPlan,
    run: RunDirectory,
    slowdown: float = 1.0,
    aliases: Aliases = NO_ALIASES,
    seed: int = 0,
    handed_over: Routing | None = None,
    beyond: Beyond = (),
    steered: SourceRoutes | None = None,
    portion: Portion | None = None,
) -> IslNet:
    """Make all nodes and links of a plan in this kernel; every link is down until a replay sets it.

    Raises:
        NetworkError: not root, or the kernel lacks something.
    """
    return IslNet(plan, run, slowdown, aliases, seed, handed_over, beyond, steered, portion)


class IslTopo(Topo):
    """Satellites and ground stations as hosts, lasers and ground links as links, all with their options from the plan.

    Host options: `kind` (of `NODE_CLASSES`), `number` (index in the plan), `ip`, `ip6`. Link options: `kind` (a
    `LinkKind` in lower case), `number`, and for each end the interface's name and hardware address.
    """

    def build(self, plan: LinkPlan, portion: Portion) -> None:
        """Fill the graph; called by Mininet with the constructor's arguments. Links to other kernels are not in it."""
        names, links, wiring = plan.nodes.names, plan.links, wire(plan)
        for number, name in enumerate(names):
            if not portion.here[number]:
                continue
            kind = NodeKind(int(plan.nodes.kind[number])).name.lower()
            self.addHost(
                name, kind=kind, number=number, ip=f"{ipv4_address(number)}/32", ip6=f"{ipv6_address(number)}/128"
            )
        for number, (a, b) in enumerate(zip(links.a.tolist(), links.b.tolist(), strict=True)):
            if not (portion.here[a] and portion.here[b]):
                continue
            self.addLink(
                names[a],
                names[b],
                kind=LinkKind(int(links.kind[number])).name.lower(),
                number=number,
                intfName1=wiring.interface[2 * number],
                intfName2=wiring.interface[2 * number + 1],
                addr1=mac_address(2 * number),
                addr2=mac_address(2 * number + 1),
            )

    def switches(self, sort: bool = True) -> list[str]:
        """None, which Mininet would find by going through all nodes."""
        return []


class IslNet(Mininet):
    """A Mininet net of satellites and stations.

    Args:
        plan: what to build; its nodes and links are all there are.
        run: whose kernel objects these are; the file with all nodes' names and addresses is kept in its folder.
        slowdown: how many times more slowly than the machine's time the emulated time passes.
        aliases: further addresses of nodes, for disjoint paths.
        seed: what the losses of all links follow from.
        handed_over: how links look to those who route, where that is not us.
        steered: where nodes write packets' ways into their headers: these ways.
        beyond: networks that are no nodes', each with the node behind which it is.
        portion: the nodes that are on this kernel; all by default.
    """

    topo: IslTopo
    hosts: list[SpaceNode]
    links: list[LaserLink]
    nameToNode: dict[str, SpaceNode]
    terms: list[Any]
    built: bool

    def __init__(
        self,
        plan: LinkPlan,
        run: RunDirectory,
        slowdown: float = 1.0,
        aliases: Aliases = NO_ALIASES,
        seed: int = 0,
        handed_over: Routing | None = None,
        beyond: Beyond = (),
        steered: SourceRoutes | None = None,
        portion: Portion | None = None,
    ):
        self.portion = portion or Portion.whole(len(plan.nodes.names))
        self._handed_over, self._beyond, self._steered = handed_over, beyond, steered
        self.plan, self.slowdown, self.aliases, self.seed = plan, slowdown, aliases, seed
        self.run_directory = run
        names = (
            "hosts",
            "gai.conf",
            "host.conf",
            *(["resolv.conf"] if any(network == ANYWHERE for _, network in beyond) else []),
        )
        self.files = {f"/etc/{name}": str(run.path / name) for name in names}
        self._backend: KernelBackend | None = None
        self._numbers = {name: number for number, name in enumerate(plan.nodes.names)}
        raised, Mininet.inited = Mininet.inited, True  # else Mininet raises limits of the whole machine
        try:
            super().__init__(
                IslTopo(plan, self.portion), controller=None, link=LaserLink, intf=LaserInterface, build=True
            )
        finally:
            Mininet.inited = raised

    @property
    def backend(self) -> KernelBackend:
        """The net's side in the kernel.

        Raises:
            NetworkError: the net has been stopped.
        """
        if self._backend is None:
            raise NetworkError("net: has been stopped, but its nodes and links were asked for; build it anew")
        return self._backend

    @property
    def addresses(self) -> Mapping[str, str]:
        """The IPv4 address of every node, and of every alias that a disjoint path leads to, by name."""
        names = self.plan.nodes.names
        return {name: ipv4_address(number) for number, name in enumerate([*names, *alias_names(names, self.aliases)])}

    def build(self) -> None:
        """Make everything in the kernel, then Mininet's objects for it."""
        texts = hosts_file(self.plan.nodes.names, self.aliases), IPV4_FIRST, BOTH_FAMILIES
        for kept, text in zip(self.files.values(), [*texts, f"nameserver {OUTSIDE_NAMES}\n"]):
            Path(kept).write_text(text)
        self._backend = KernelBackend(
            self.plan, self.run_directory.run_id, self.slowdown, self.aliases, self.seed, self._handed_over,
            self._beyond, self._steered,
            self.portion,
        )  # fmt: skip
        try:
            self.buildFromTopo(self.topo)
        except BaseException:
            self.stop()
            raise
        self.built = True

    @overload
    def get(self, name: str, /) -> SpaceNode: ...

    @overload
    def get(self, first: str, second: str, /, *more: str) -> list[SpaceNode]: ...

    def get(self, *names: str) -> SpaceNode | list[SpaceNode]:
        """The node of a name, or the nodes of several."""
        found = [self.nameToNode[name] for name in names]
        return found[0] if len(found) == 1 else found

    def addHost(self, name: str, cls: type[SpaceNode] | None = None, **params: Any) -> SpaceNode:
        """Add the Mininet object of a node of the plan.

        Raises:
            NetworkError: the plan has no such node.
        """
        if name not in self._numbers:
            raise NetworkError(
                f"net: node {name} is new, but only the plan's nodes can be in it; add it to the scenario"
            )
        path = namespace_path(self.run_directory.run_id, name)
        cls = cls or NODE_CLASSES[params["kind"]]
        entering = partial(self.backend.listen_in, self._numbers[name])
        host: SpaceNode = super().addHost(name, cls=cls, netns_path=path, files=self.files, entering=entering, **params)
        return host

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
        link: LaserLink = super().addLink(node1, node2, port1, port2, cls, **params)
        return link

    @staticmethod
    def randMac() -> str:
        """Nothing, where Mininet would draw an address: each interface has its own."""
        return ""

    def start(self) -> None:
        """Nothing is left to start: there are no switches and no controllers."""

    def stop(self, *, kernel_ends: bool = False) -> None:
        """End everything that runs in the nodes and remove them from the kernel; may be called again.

        Args:
            kernel_ends: whether the kernel ends now, and the nodes with it: to remove 2,800 of them takes five seconds.
        """
        self.stopXterms()
        for host in self.hosts:
            host.terminate()
        if self._backend is not None:
            kill_processes_in(namespace_ids(space.path for space in self._backend.spaces))
            self._backend.close(keep_spaces=kernel_ends)
            self._backend = None

    def freezer(self) -> NodeFreezer:
        """What brings to a stand whatever runs in the nodes, and in the containers that are in them now."""
        containers = [node.container for node in self.hosts if node.container is not None]
        return NodeFreezer([node.netns_path for node in self.hosts], [container.group for container in containers])

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


def run_iperf(client: SpaceNode, server: SpaceNode, words: Sequence[str], load: Sequence[str]) -> tuple[str, str]:
    """Run an iperf server in one node and a client in the other; return what both print, the server's first.

    Mininet's own way kills every iperf of the machine, and waits for ever for an answer that iperf 2.1 does not give.

    Args:
        words: options for both, such as a port.
        load: options of the client: how much to send.

    Raises:
        NetworkError: there is no iperf, or the client reached no server.
    """
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    try:
        serving = server.popen(["iperf", "-s", *words], **streams)
    except FileNotFoundError:
        raise NetworkError("iperf: the program is not installed, but it measures; apt-get install iperf") from None
    try:
        for _ in range(IPERF_TRIES):
            sent, _ = client.popen(["iperf", "-c", server.IP(), *words, *load], **streams).communicate()
            if b"refused" not in sent:
                break
            time.sleep(IPERF_PAUSE_S)
    finally:
        serving.terminate()
        received, _ = serving.communicate(timeout=IPERF_PATIENCE_S)
    if b"/sec" not in sent:
        told = " ".join(sent.decode().split())
        raise NetworkError(
            f"iperf: {client.name} got nothing through to {server.name} ({told}), but they are linked by a path; "
            "see `isl-emu link`"
        )
    return received.decode(), sent.decode()


class NetCLI(CLI):
    """Mininet's command line: ``gs-chengdu ping p00s00`` is a command for one node, not for `gs`."""

    identchars = CLI.identchars + "-"

    def onecmd(self, line: str) -> bool | None:
        """Carry out one line; a command that fails says why, and the session goes on."""
        try:
            ends: bool | None = super().onecmd(line)
        except IslEmuError as reason:
            error(f"*** {reason}\n")
        except KeyboardInterrupt:  # ends what runs, not the session: Mininet's own matter
            raise
        except BaseException as reason:  # whatever goes wrong in Mininet, in Python or by its exit
            error(f"*** {line.strip()}: failed, {type(reason).__name__} ({reason}); the net goes on\n")
        else:
            return ends
        for node in self.mn.values():
            if node.waiting:  # its shell is in the middle of something, or has ended
                node.restart_shell()
        return None

    def waitForNode(self, node: SpaceNode) -> None:
        """Print what a node says until its command has ended; what is typed meanwhile goes to it.

        Lines that are read from a file or a pipe wait for their turn: Mininet gives them to the command that runs, and
        looks for more of them without a pause, in which an exact clock stands still.
        """
        if self.isatty():
            super().waitForNode(node)
            return
        while node.waiting:
            try:
                output(node.monitor())
            except KeyboardInterrupt:
                node.sendInt()

    def do_source(self, line: str) -> None:
        """Read commands from a file."""
        try:
            with open(line.strip()) as commands:
                for command in commands:
                    self.onecmd(command)
        except OSError as reason:
            error(
                f"*** source: {line.strip() or 'no file is named'} cannot be read ({reason.strerror}); name another\n"
            )
