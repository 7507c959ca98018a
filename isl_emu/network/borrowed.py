"""Interfaces of the machine that a run has for a while: moved into another network, and given back as they were found.

A move takes all addresses and routes off an interface and sets it down. So these are written down in the run's folder
before it, in the kernel's own words, and put back from there: by the run itself, or after it was killed by `clean`.
Interfaces whose namespace is removed would be gone for ever if they are not hardware.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from typing import Any

from isl_emu.errors import MachineError, NetworkError
from isl_emu.files import read_json, write_json
from isl_emu.network import messages
from isl_emu.network.routes import RTA_OIF, RTM_GETROUTE, RTM_NEWROUTE, RTMSG, RTNH_F_ONLINK
from isl_emu.nodes.namespaces import enter_network, in_own_thread
from isl_emu.nodes.netlink import NLM_F_CREATE, NLM_F_EXCL, Netlink, attribute, change_here, message, split_attributes
from isl_emu.nodes.nodespaces import OWN_NETWORK
from isl_emu.runs.directory import RunDirectory

FILE = "interfaces.json"  # in a run's folder
RTM_GETADDR, IFLA_MASTER = 22, 10  # linux/rtnetlink.h, linux/if_link.h
SIOCETHTOOL, ETHTOOL_GGRO, ETHTOOL_SGRO = 0x8946, 0x2B, 0x2C  # linux/sockios.h, linux/ethtool.h
BY_THEMSELVES = {2, 9}  # protocols of routes that come with addresses and advertisements, linux/rtnetlink.h
FAMILIES = (socket.AF_INET, socket.AF_INET6)


def state_of(name: str) -> dict[str, Any]:
    """What is lost when an interface is moved: whether it is up, its addresses, and the routes that lead over it.

    Raises:
        MachineError: there is none, or it is one that this machine needs itself.
    """
    with closing(Netlink()) as netlink:
        for body in netlink.dump(messages.RTM_GETLINK, messages.links_question()):
            index, found, flags = messages.decode_link(body)
            if found == name:
                break
        else:
            raise MachineError(
                f"hardware: {name} is no interface of this machine, but a node is to have it; `ip link` lists them"
            )
        used = ""
        if index == messages.LOOPBACK_INDEX:
            used = "is the machine's loopback"
        elif IFLA_MASTER in split_attributes(body[messages.IFINFOMSG.size :]):
            used = "is part of a bridge or the like"
        routes = [*_routes_over(netlink, index)]
        if any(RTMSG.unpack_from(route)[1] == 0 for route in routes):
            used = "leads to the machine's default gateway"
        if used:
            raise MachineError(
                f"hardware: {name} {used}, but a node's interface is for it alone; name one that nothing else needs"
            )
        addresses = [
            body
            for family in FAMILIES
            for body in netlink.dump(RTM_GETADDR, messages.IFADDRMSG.pack(family, 0, 0, 0, 0))
            if messages.IFADDRMSG.unpack_from(body)[4] == index
        ]
    return {
        "name": name,
        "up": bool(flags & messages.IFF_UP),
        "addresses": [body.hex() for body in addresses],
        "routes": [route.hex() for route in routes],
        "joins": _joins(name),
    }


def _joins(name: str, wanted: int | None = None) -> int | None:
    """Whether an interface joins frames to longer ones (GRO), after that was set if it is given; None if it cannot."""
    command = ETHTOOL_GGRO if wanted is None else ETHTOOL_SGRO
    words = ctypes.create_string_buffer(struct.pack("=II", command, wanted or 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control, suppress(OSError):
        fcntl.ioctl(control, SIOCETHTOOL, struct.pack("16sP16x", name.encode(), ctypes.addressof(words)))
        found: int = struct.unpack("=II", words.raw[:8])[1]
        return found
    return None


def _routes_over(netlink: Netlink, index: int) -> Iterator[bytes]:
    """Routes over an interface that somebody has made; what the kernel says of their state is taken off."""
    for family in FAMILIES:
        for body in netlink.dump(RTM_GETROUTE, RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)):
            *head, flags = RTMSG.unpack_from(body)
            over = split_attributes(body[RTMSG.size :]).get(RTA_OIF)
            if over == struct.pack("=I", index) and head[5] not in BY_THEMSELVES:
                yield RTMSG.pack(*head, flags & RTNH_F_ONLINK) + body[RTMSG.size :]


def borrow(run: RunDirectory, name: str, netns_path: str, *, whole_frames: bool = False) -> None:
    """Move an interface of this machine's into another network, where it is down, until `give_back`.

    Args:
        whole_frames: it is to join none to longer ones.

    Raises:
        MachineError: it is not there, is needed here, or cannot be moved.
    """
    record = {**state_of(name), "netns": netns_path}
    kept = [*_kept(run), record]
    write_json(run.path / FILE, {"interfaces": kept})
    try:
        with open(netns_path, "rb") as target:
            change_here([messages.link_moved(socket.if_nametoindex(name), name, target.fileno())], f"interface {name}")
        if whole_frames:
            in_own_thread(_join_none, netns_path, name)
    except (OSError, NetworkError) as error:
        raise MachineError(
            f"hardware: {name} cannot be moved into a node ({error}), but it is to be there alone; only root may, "
            "and not each kind of interface can be"
        ) from None


def give_back(run: RunDirectory) -> list[str]:
    """Move all that a run has borrowed back to where this process is, as it was found; may be repeated.

    Returns:
        Their names.

    Raises:
        MachineError: one cannot be given back; all others are.
    """
    given, kept, problems = list[str](), list[Mapping[str, Any]](), list[str]()
    for record in _kept(run):
        try:
            if _give_one_back(record):
                given.append(record["name"])
        except (OSError, NetworkError) as error:
            kept.append(record)
            problems.append(
                f"interface {record['name']}: cannot be given back from {record['netns']} ({error}), but it is this "
                "machine's; put that right and call `isl-emu clean`"
            )
    if kept:
        write_json(run.path / FILE, {"interfaces": kept})
        raise MachineError(*problems)
    (run.path / FILE).unlink(missing_ok=True)
    return given


def _kept(run: RunDirectory) -> list[dict[str, Any]]:
    return list((read_json(run.path / FILE) or {}).get("interfaces", ()))


def _give_one_back(record: Mapping[str, Any]) -> bool:
    """Whether it is there to be given back."""
    with open(OWN_NETWORK, "rb") as here:
        if os.path.exists(record["netns"]):
            in_own_thread(_move_out, record["netns"], record["name"], here.fileno())
    index = next((index for index, name in socket.if_nameindex() if name == record["name"]), None)
    if index is None:  # it was pulled out
        return False
    if record["joins"] is not None:
        _joins(record["name"], record["joins"])
    with closing(Netlink()) as netlink:
        if record["up"]:
            netlink.demand([messages.link_up(index)], f"interface {record['name']}")
        again, there = NLM_F_CREATE | NLM_F_EXCL, (errno.EEXIST,)
        for text in record["addresses"]:
            body = bytes.fromhex(text)
            *head, _ = messages.IFADDRMSG.unpack_from(body)
            body = messages.IFADDRMSG.pack(*head, index) + body[messages.IFADDRMSG.size :]
            netlink.demand([message(messages.RTM_NEWADDR, again, body)], f"an address of {record['name']}", there)
        for text in record["routes"]:
            body = _over(bytes.fromhex(text), index)
            netlink.demand([message(RTM_NEWROUTE, again, body)], f"a route over {record['name']}", there)
    return True


def _over(route: bytes, index: int) -> bytes:
    """A route over the interface of this number: it may be another one than before."""
    attributes = split_attributes(route[RTMSG.size :]) | {RTA_OIF: struct.pack("=I", index)}
    rest = (attribute(kind, payload) for kind, payload in attributes.items())
    return route[: RTMSG.size] + b"".join(rest)


def _join_none(netns_path: str, name: str) -> None:
    enter_network(netns_path)
    _joins(name, 0)


def _move_out(netns_path: str, name: str, target: int) -> None:
    """Move an interface from one network into another; nothing happens if it is not there, as it never came."""
    try:
        enter_network(netns_path)
        index = socket.if_nametoindex(name)
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.EINVAL):  # EINVAL: the file is there, but no longer a network
            return
        raise
    change_here([messages.link_moved(index, name, target)], f"interface {name}")
