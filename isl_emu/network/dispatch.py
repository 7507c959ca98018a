"""Messages to many nodes: each node's go out in one send, because a send costs more than a message."""

from __future__ import annotations

import select
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from isl_emu.errors import NetworkError
from isl_emu.network.nodespaces import NodeSpace


@dataclass(frozen=True)
class Batch:
    """Messages of one layout, each for a node.

    Args:
        node: whose kernel tables each changes; shape (C,).
        rows: the messages; shape (C,).
        describe: what the message of an index sets, for an error.
    """

    node: np.ndarray
    rows: np.ndarray
    describe: Callable[[int], str]


class Dispatch:
    """Sends batches to the nodes' sockets and raises what any of them refuses."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._spaces: Sequence[NodeSpace] = ()

    def watch(self, spaces: Sequence[NodeSpace]) -> None:
        """Take the nodes that messages are sent to."""
        self._spaces = spaces
        for space in spaces:
            self._epoll.register(space.netlink, select.EPOLLIN)

    def close(self) -> None:
        """Stop watching."""
        self._epoll.close()

    def send(self, *batches: Batch) -> None:
        """Send all messages; those of one node in the order of the batches.

        Raises:
            NetworkError: a message was refused.
        """
        parts: dict[int, list[memoryview]] = {}
        first = 0
        for batch in batches:
            batch.rows["sequence"] = np.arange(first, first + len(batch.rows))
            _split(batch, parts)
            first += len(batch.rows)
        for node, messages in parts.items():
            self._spaces[node].netlink.send_parts(messages)
        if parts:
            self._raise_refusals(batches)

    def _raise_refusals(self, batches: Sequence[Batch]) -> None:
        ready = {descriptor for descriptor, _ in self._epoll.poll(0)}
        for space in self._spaces if ready else ():
            if space.netlink.fileno() in ready and (refused := space.netlink.refusals()):
                raise NetworkError(
                    f"{space.node}: {_described(batches, refused[0].sequence)} cannot be set ({refused[0]}), "
                    "but the plan needs it; leave tc and ip alone during a run"
                )


def _split(batch: Batch, parts: dict[int, list[memoryview]]) -> None:
    """Add each node's messages to its parts."""
    if not len(batch.rows):
        return
    order = np.argsort(batch.node, kind="stable")
    node, size = batch.node[order], batch.rows.itemsize
    data = memoryview(np.ascontiguousarray(batch.rows[order])).cast("B")
    starts = np.flatnonzero(np.diff(node, prepend=-1))
    stops = [*starts[1:].tolist(), len(node)]
    for where, start, stop in zip(node[starts].tolist(), starts.tolist(), stops, strict=True):
        parts.setdefault(where, []).append(data[start * size : stop * size])


def _described(batches: Sequence[Batch], sequence: int) -> str:
    for batch in batches:
        if sequence < len(batch.rows):
            return batch.describe(sequence)
        sequence -= len(batch.rows)
    return "a setting"
