"""Sockets that listen on nodes: each belongs to the network namespace in which it was made, whoever answers there."""

from __future__ import annotations

import resource
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web

from isl_emu.errors import WorkloadError
from isl_emu.nodes.namespaces import enter_network, in_own_thread

BACKLOG = 128
SPARE_DESCRIPTORS = 4096  # for the connections


@dataclass(frozen=True)
class ListeningPlace:
    """Where a node listens: its network namespace, its address, and a port."""

    netns: str
    address: str
    port: int


def listen_at(places: Sequence[ListeningPlace]) -> list[socket.socket]:
    """A listening TCP socket at each place.

    Raises:
        WorkloadError: this process may not open so many, or something listens there already.
    """
    needed, (soft, hard) = len(places) + SPARE_DESCRIPTORS, resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, max(hard, needed)))
        except (ValueError, OSError):
            raise WorkloadError(
                f"descriptors: at most {hard} are allowed, but this many servers need {needed}; raise `ulimit -n`"
            ) from None
    return in_own_thread(lambda: [_listen(place) for place in places])


def _listen(place: ListeningPlace) -> socket.socket:
    """In a thread of its own."""
    enter_network(place.netns)
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((place.address, place.port))
    except OSError as error:
        raise WorkloadError(
            f"server at {place.address}:{place.port}: cannot listen ({error.strerror}), but it must; "
            "let nothing else listen there"
        ) from None
    listening.listen(BACKLOG)
    listening.setblocking(False)
    return listening


def own_address(request: web.BaseRequest) -> str:
    """The address at which a request came in, which tells the node that is asked."""
    assert request.transport is not None, "it is answered on the connection on which it came"
    return str(request.transport.get_extra_info("sockname")[0])
