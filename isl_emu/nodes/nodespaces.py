"""The named network namespaces of a run's nodes: no process lives in them until somebody starts one.

Each is held by a bind mount at /run/netns, where `ip netns` finds it, and by this process's rtnetlink socket in it.
"""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from isl_emu.errors import NetworkError
from isl_emu.nodes.mounts import MS_BIND, mount, unmount
from isl_emu.nodes.namespaces import CLONE_NEWNET, in_own_thread, unshare
from isl_emu.nodes.netlink import Netlink

NAMESPACE_FOLDER = "/run/netns"
SYSCTL_FOLDER = "/proc/sys/net"
OWN_NETWORK = "/proc/thread-self/ns/net"
SYSCTLS = {
    "ipv4/ip_forward": "1",
    "ipv4/conf/all/rp_filter": "0",  # a reply may come back another way
    "ipv4/conf/default/rp_filter": "0",
    "ipv4/conf/all/accept_local": "1",  # a packet on its way while routes change may pass its own source once more
    "ipv4/tcp_congestion_control": "cubic",  # the same on every machine: some default to BBR
    "ipv4/ip_default_ttl": "255",  # a path may be longer than the usual 64 links
    "ipv4/icmp_ratemask": "0",  # no kind of ICMP answer is rationed: traceroute sees every hop
}
IPV6_SYSCTLS = {
    "ipv6/conf/all/forwarding": "1",
    "ipv6/conf/default/addr_gen_mode": "1",  # no link-local addresses, so no neighbour discovery on the links
    "ipv6/conf/all/accept_dad": "0",
    "ipv6/conf/default/hop_limit": "255",  # of interfaces made from now on; as for IPv4
    "ipv6/icmp/ratelimit": "0",
    "ipv6/conf/default/mldv2_unsolicited_report_interval": "1",  # ms: what an interface says when it comes up is said
}
IF_THERE = {  # a kernel may be built without routes over several next hops
    "ipv4/fib_multipath_hash_policy": "1",  # a flow takes one of them, by its addresses and ports
    "ipv6/fib_multipath_hash_policy": "1",
}
HASH_SEED = "ipv4/fib_multipath_hash_seed"  # Linux 6.11 and later, for both families; 0 is one seed for all
DESCRIPTORS = 12  # of a node: three for its network, the others if it has a container
SPARE_DESCRIPTORS = 256  # for everything else that this process opens


@dataclass(frozen=True)
class NodeSpace:
    """One node's namespace: the file that names it, and the rtnetlink socket inside."""

    node: str
    path: str
    netlink: Netlink


def namespace_path(run_id: str, node: str) -> str:
    """The file that holds a node's network namespace; `ip netns` lists it by its last part."""
    return f"{NAMESPACE_FOLDER}/isl-{run_id}-{node}"


def ipv6_available() -> bool:
    """Whether this kernel has IPv6 switched on; asking for a socket makes it load its module."""
    with suppress(OSError):
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    return Path("/proc/sys/net/ipv6/conf/all/forwarding").exists()


def make_spaces(
    run_id: str, nodes: Sequence[str], spaces: list[NodeSpace], numbers: Sequence[int] | None = None
) -> None:
    """Make one forwarding namespace per node and append it to `spaces`, so that a failure leaves a list to remove.

    Args:
        numbers: of the nodes in the plan, from which what a kernel spreads flows by follows; else they count from 0.

    Raises:
        NetworkError: not root, or too few descriptors.
    """
    _allow_descriptors(DESCRIPTORS * len(nodes) + SPARE_DESCRIPTORS)
    try:
        os.makedirs(NAMESPACE_FOLDER, exist_ok=True)
        in_own_thread(_make_spaces, run_id, nodes, spaces, numbers or range(len(nodes)))
    except OSError as error:
        raise NetworkError(
            f"network namespaces: {error}, but one per node is needed; run as root or with --machine guest"
        ) from error


def make_silent_space(run_id: str, name: str) -> str:
    """Make a namespace in which the kernel itself sends nothing, and return its path; `remove_space_file` removes it.

    Raises:
        OSError: not root.
    """
    os.makedirs(NAMESPACE_FOLDER, exist_ok=True)
    path = namespace_path(run_id, name)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0))
    try:
        in_own_thread(_hold_silent_space, path)
    except OSError:
        os.unlink(path)
        raise
    return path


def _hold_silent_space(path: str) -> None:
    unshare(CLONE_NEWNET)
    if ipv6_available():
        _set_sysctl("ipv6/conf/default/disable_ipv6", "1")
    mount(OWN_NETWORK, path, None, MS_BIND)


def remove_spaces(spaces: Sequence[NodeSpace]) -> None:
    """Let go of namespaces; the kernel deletes each, with its interfaces, when its last process has ended."""
    for space in spaces:
        space.netlink.close()
        remove_space_file(space.path)


def remove_space_file(path: str) -> None:
    """Unmount and delete the file that holds a namespace; nothing happens if it is gone."""
    with suppress(OSError):
        unmount(path)
    with suppress(FileNotFoundError):
        os.unlink(path)


def _make_spaces(run_id: str, nodes: Sequence[str], spaces: list[NodeSpace], numbers: Sequence[int]) -> None:
    seeded, wanted, held = Path(SYSCTL_FOLDER, HASH_SEED).exists(), dict[str, str](), dict[str, str]()
    for made, (number, node) in enumerate(zip(numbers, nodes, strict=True)):
        unshare(CLONE_NEWNET)
        path = namespace_path(run_id, node)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0))
        spaces.append(NodeSpace(node, path, Netlink()))
        mount(OWN_NETWORK, path, None, MS_BIND)
        if made == 0:
            wanted = _sysctls_here()
        elif made == 1:  # this one is made from the first, and all others alike: they may have some from the start
            wanted = {name: value for name, value in wanted.items() if _sysctl(name) != held[name]}
        for name, value in wanted.items():
            _set_sysctl(name, value)
        if made == 0:
            held = {name: _sysctl(name) for name in wanted}
        if seeded:
            _set_sysctl(HASH_SEED, str(number + 1))


def _sysctls_here() -> dict[str, str]:
    """All that nodes are told on this kernel."""
    wanted = SYSCTLS | (IPV6_SYSCTLS if ipv6_available() else {})
    return wanted | {name: value for name, value in IF_THERE.items() if Path(SYSCTL_FOLDER, name).exists()}


def _sysctl(name: str) -> str:
    return Path(SYSCTL_FOLDER, name).read_text()


def _set_sysctl(name: str, value: str) -> None:
    descriptor = os.open(f"{SYSCTL_FOLDER}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def _allow_descriptors(needed: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= needed:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, max(hard, needed)))
    except (ValueError, OSError) as error:
        raise NetworkError(
            f"descriptors: at most {hard} are allowed, but this many nodes need {needed}; raise `ulimit -n`"
        ) from error
