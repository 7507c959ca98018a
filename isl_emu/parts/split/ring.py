"""Passes of tokens around a ring of satellites, over torch.distributed's gloo.

A pass is a few tokens of one conversation: their activations go from the head through every satellite and back. With it
travels a small header, to which each satellite adds when the pass came and when it left, by the clock that all share.

The activations of the first token travel with the header in a frame of fixed size, for which the receiver has posted a
buffer in advance: then gloo sends it at once. Those of further tokens (a prompt's) follow in a message of their own,
which waits for the receiver's consent: a round trip more.
"""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

FLOAT_BYTE = 4
FOREVER = timedelta(days=365)  # a link that is out is waited for; whoever asked gives up by himself
FRAME, REST = 0, 1  # tags, so that a buffer for a frame is never filled with what follows one
_FIXED = struct.Struct("=4q")  # slot, pass number, position of the first token, count of tokens


@dataclass
class RingPass:
    """Tokens of a conversation on their way around the ring.

    Args:
        slot: which of the conversations under way.
        number: of the pass within its conversation; 0 is the prompt.
        position: of the first token in its conversation.
        x: activations, [tokens, embedding].
        times_ns: when it left the head, came to and left each further satellite, by the run's clock.
    """

    slot: int
    number: int
    position: int
    x: Tensor
    times_ns: list[int] = field(default_factory=list)

    @property
    def activation_byte(self) -> int:
        """The size of what it carries over each hop."""
        tokens, embedding = self.x.shape
        return FLOAT_BYTE * int(tokens) * int(embedding)


class Ring:
    """This satellite's place in the ring; joining waits for all others.

    Args:
        address: of the head, and a port there at which the others find each other.
        rank: this satellite's place, 0 for the head.
        passes: how many can be under way at once.
    """

    def __init__(self, address: str, port: int, rank: int, size: int, embedding: int, passes: int):
        where = f"tcp://{address}:{port}"
        dist.init_process_group("gloo", init_method=where, rank=rank, world_size=size, timeout=FOREVER)
        self._frames = FrameLayout(size, embedding)
        self._before, self._after = (rank - 1) % size, (rank + 1) % size
        self._posted: deque[tuple[dist.Work, Tensor]] = deque()
        self._sent: deque[tuple[dist.Work, Tensor]] = deque()
        for _ in range(passes):
            self._post()

    def receive(self) -> RingPass:
        """The next pass from the satellite before; waits for it."""
        work, frame = self._posted.popleft()
        work.wait()
        self._post()
        travelling, rest = self._frames.unpack(frame)
        if len(rest):
            dist.recv(rest, self._before, tag=REST)
        return travelling

    def send(self, travelling: RingPass) -> None:
        """Hand a pass to the satellite after, without waiting until it is there."""
        while self._sent and self._sent[0][0].is_completed():
            self._sent.popleft()
        frame, rest = self._frames.pack(travelling)
        self._sent.append((dist.isend(frame, self._after, tag=FRAME), frame))
        if len(rest):
            self._sent.append((dist.isend(rest, self._after, tag=REST), rest))

    def _post(self) -> None:
        frame = self._frames.empty()
        self._posted.append((dist.irecv(frame, self._before, tag=FRAME), frame))


class FrameLayout:
    """The bytes of a frame: header, times, activations of the first token.

    Args:
        size: satellites in the ring.
    """

    def __init__(self, size: int, embedding: int):
        self._times = struct.Struct(f"={1 + 2 * size}q")  # their number, and room for them
        self._room = 2 * size
        self._embedding = embedding
        self._header_byte = _FIXED.size + self._times.size

    def empty(self) -> Tensor:
        """A frame to receive into."""
        return torch.empty(self._header_byte + FLOAT_BYTE * self._embedding, dtype=torch.uint8)

    def pack(self, travelling: RingPass) -> tuple[Tensor, Tensor]:
        """The frame of a pass, and the activations of its further tokens."""
        frame, times = self.empty(), travelling.times_ns
        fixed = _FIXED.pack(travelling.slot, travelling.number, travelling.position, len(travelling.x))
        padded = self._times.pack(len(times), *times, *[0] * (self._room - len(times)))
        frame[: self._header_byte] = torch.frombuffer(bytearray(fixed + padded), dtype=torch.uint8)
        frame[self._header_byte :].view(torch.float32).copy_(travelling.x[0])
        return frame, travelling.x[1:].contiguous()

    def unpack(self, frame: Tensor) -> tuple[RingPass, Tensor]:
        """The pass of a frame, and the part of its activations that is still to be filled."""
        header = frame[: self._header_byte].numpy().tobytes()
        slot, number, position, tokens = _FIXED.unpack_from(header)
        count, *times = self._times.unpack_from(header, _FIXED.size)
        x = torch.empty(tokens, self._embedding)
        x[0] = frame[self._header_byte :].view(torch.float32)
        return RingPass(slot, number, position, x, times[:count]), x[1:]
