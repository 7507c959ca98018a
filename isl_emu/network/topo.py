"""A link plan as a Mininet topology: a description without side effects."""

from __future__ import annotations

from mininet.topo import Topo

from isl_emu.linkplan.plan import LinkKind, LinkPlan, NodeKind
from isl_emu.network.naming import ipv4_address, ipv6_address, mac_address, wire


class IslTopo(Topo):
    """Satellites and ground stations as hosts, lasers and ground links as links, all with their options from the plan.

    Host options: `kind` ("satellite" or "station"), `number` (index in the plan), `ip`, `ip6`. Link options: `kind`
    ("intra_plane", "inter_plane", "ground"), `number`, and for each end the interface's name and hardware address.
    """

    def build(self, plan: LinkPlan) -> None:
        """Fill the graph; called by Mininet with the constructor's arguments."""
        names, links, wiring = plan.nodes.names, plan.links, wire(plan)
        for number, name in enumerate(names):
            kind = NodeKind(int(plan.nodes.kind[number])).name.lower()
            self.addHost(
                name, kind=kind, number=number, ip=f"{ipv4_address(number)}/32", ip6=f"{ipv6_address(number)}/128"
            )
        for number, (a, b) in enumerate(zip(links.a.tolist(), links.b.tolist(), strict=True)):
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
