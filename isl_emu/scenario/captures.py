"""Captures of a scenario: where packets are written down as they pass, and how much of them is kept."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from isl_emu.scenario.matching import repeated, unknown
from isl_emu.scenario.quantities import NodeName, NodePair, Quantity, Record
from isl_emu.units import SIZE_BYTE, format_quantity

MOST_FILTER = 1_000  # characters
WHOLE_BYTE = 256 * 1024  # longer than any packet, as tcpdump and dumpcap have it
LEAST_FILE_BYTE = 2 * 1024 * 1024  # of which the names of a large network take half
TOKEN = re.compile(r"[\w.:/-]+|[()\[\]&|!=<>+*^%]|\s+")
WORDS = frozenset({  # of filters (pcap-filter(7)) that ask no name service and mean the same on every machine
    *("host", "net", "mask", "port", "portrange", "src", "dst", "and", "or", "not", "len", "less", "greater"),
    *("ether", "ip", "ip6", "arp", "tcp", "udp", "icmp", "icmp6", "sctp", "proto", "protochain", "broadcast"),
    *("multicast", "tcpflags", "tcp-fin", "tcp-syn", "tcp-rst", "tcp-push", "tcp-ack", "tcp-urg", "tcp-ece", "tcp-cwr"),
    *("icmptype", "icmpcode", "icmp-echo", "icmp-echoreply", "icmp-unreach", "icmp-timxceed", "icmp6type", "icmp6code"),
})  # fmt: skip
NUMBERS = re.compile(r"\d+|0x[0-9a-f]+|\d+-\d+|\d+:\d+")


def _filter(text: str) -> str:
    if len(text) > MOST_FILTER:
        raise ValueError(f"has {len(text)} characters, but the most allowed is {MOST_FILTER}; shorten it")
    if "".join(TOKEN.findall(text)) != text:
        raise ValueError(f"is {text!r}, but a filter has words, numbers, addresses and operators alone; correct it")
    return text


Snap = Annotated[int, Quantity(SIZE_BYTE, 14, WHOLE_BYTE)]
FileSize = Annotated[int, Quantity(SIZE_BYTE, LEAST_FILE_BYTE, 2**40)]


class Capture(Record):
    """Packets of a link (`link`, its two ends) or of all links of a `node`, as pcapng.

    `direction`: of a link, those from its first to its second end ("there"), the others ("back"), or both. `filter`: as
    for tcpdump, with names of nodes for their IPv4 addresses. `snap`: so much of each packet. `file_size`, `files`: a
    file that is full is followed by another, and the oldest of too many is removed. `packets`: so many at the most.
    """

    name: NodeName
    link: NodePair | None = None
    node: NodeName | None = None
    direction: Literal["both", "there", "back"] = "both"
    filter: Annotated[str, AfterValidator(_filter)] = ""
    snap_byte: Snap = Field(alias="snap", default=WHOLE_BYTE)
    file_size_byte: FileSize = Field(alias="file_size", default=64 * 1024 * 1024)
    files: int = Field(ge=1, le=1_000, default=4)
    packets: int | None = Field(ge=1, default=None)

    @model_validator(mode="after")
    def _one_place(self) -> Capture:
        if (self.link is None) == (self.node is None):
            found = "neither link nor node" if self.link is None else "both link and node"
            raise ValueError(f"has {found}, but it is at one place; give one of them")
        if self.node is not None and self.direction != "both":
            raise ValueError(f"has direction {self.direction!r}, but that is of a link; leave it out for a node")
        return self

    @property
    def place(self) -> str:
        """Where it is, as people write it."""
        return " - ".join(self.link) if self.link else f"all links of {self.node}"

    def told(self) -> str:
        """What it writes, in one line."""
        way = {"both": "", "there": ", from the first to the second", "back": ", from the second to the first"}
        chosen = f", {self.filter}" if self.filter else ""
        most = format_quantity(self.files * self.file_size_byte, SIZE_BYTE)
        return (
            f"capture.{self.name}: writes packets of {self.place}{way[self.direction]}{chosen}, at most {most}, "
            "into the results"
        )


def capture_contradictions(captures: Sequence[Capture], nodes: Sequence[str]) -> Iterator[str]:
    """Problems of captures that show beside the nodes and each other."""
    yield from repeated("capture", (capture.name for capture in captures))
    for index, capture in enumerate(captures):
        where = f"capture[{index}]"
        if capture.link:
            yield from unknown(f"{where}.link", capture.link, nodes, "node")
            if capture.link[0] == capture.link[1]:
                yield f"{where}.link names {capture.link[0]!r} twice, but a link has two ends; name another"
        else:
            yield from unknown(f"{where}.node", filter(None, [capture.node]), nodes, "node")
        yield from filter_problems(f"{where}.filter", capture.filter, nodes)


def filter_problems(where: str, text: str, nodes: Collection[str]) -> Iterator[str]:
    """A sentence for each word of a filter that is none of ours, no number, no address and no node."""
    for word in dict.fromkeys(re.findall(r"[\w.:/-]+", text)):
        if word in WORDS or word in nodes or NUMBERS.fullmatch(word) or _is_address(word):
            continue
        yield (
            f"{where} has {word!r}, but that is no word of filters here, no number, no address and no node; "
            "see docs/captures.md"
        )


def _is_address(word: str) -> bool:
    try:
        ipaddress.ip_network(word)
    except ValueError:
        return bool(re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", word))
    return True
