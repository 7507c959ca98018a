"""A satellite of a pipeline that is not the head, its layers computed for every pass that comes by; and the passes.

Run as ``python -m isl_emu.parts.split.pipeline_stage`` in the satellite's container; it ends with the container.

Passes of tokens go around a ring of satellites over torch.distributed's gloo. A pass is a few tokens of one
conversation: their activations go from the head through every satellite and back. With it travels a small header, to
which each satellite adds when the pass came and when it left, by the clock that all share.

The activations of the first token travel with the header in a frame of fixed size, for which the receiver has posted a
buffer in advance: then gloo sends it at once. Those of further tokens (a prompt's) follow in a message of their own,
which waits for the receiver's consent: a round trip more.
"""

from __future__ import annotations

import argparse
import struct
import threading
from collections import deque
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from isl_emu.parts.serving.modelled_state import UNLIMITED, Allowance
from isl_emu.parts.split.decoder import Layers, ModelFile
from isl_emu.parts.split.shares import pace_of
from isl_emu.runs.clock import RunClock
from isl_emu.scenario.models import Roofline
from isl_emu.timebase import Clock

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


def arguments(prog: str, description: str | None) -> argparse.ArgumentParser:
    """What the processes of a pipeline, the head among them, are told."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--head", required=True, help="address of the head")
    parser.add_argument("--ring-port", type=int, required=True, help="where the ring's satellites find each other")
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--size", type=int, required=True, help="satellites in the ring")
    parser.add_argument("--layers", type=int, nargs=2, required=True, help="first, and the one after the last")
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--conversations", type=int, required=True)
    parser.add_argument("--clock", type=Path, required=True, help="the file of the run's clock")
    parser.add_argument("--satellite", required=True, help="its name")
    parser.add_argument(
        "--pace", type=pace_of, help="of its board with the whole model; without it that of this machine"
    )
    parser.add_argument("--share", type=float, default=0.0, help="of the layers")
    parser.add_argument("--state", type=Path, help="file of what energy leaves of the computers")
    return parser


@dataclass(frozen=True)
class StageTime:
    """What a satellite's share of the layers takes its board, where computing takes no time.

    Args:
        roofline: of the whole model; none where computing takes its own time.
        share: of its layers.
    """

    satellite: str
    roofline: Roofline | None
    share: float
    allowance: Allowance
    clock: Clock

    @classmethod
    def of(cls, options: argparse.Namespace, clock: Clock) -> StageTime:
        """That among the options of `arguments`."""
        allowance = Allowance.of(options.state) if options.state else UNLIMITED
        return cls(options.satellite, options.pace, options.share, allowance, clock)

    def spend(self, number: int, position: int, tokens: int) -> None:
        """Wait for what a pass takes: pass 0 reads a prompt, the others add a token each."""
        if self.roofline is not None:
            whole_ns = self.roofline.prompt_ns(tokens) if number == 0 else self.roofline.step_ns(position)
            self.allowance.work(self.satellite, round(self.share * whole_ns), self.clock, threading.Event())


def relay(ring: Ring, layers: Layers, clock: Clock, time: StageTime) -> None:
    """Compute what comes and pass it on, without end."""
    while True:
        travelling = ring.receive()
        came_ns = clock.now_ns()
        x = layers.forward(travelling.x, travelling.slot, travelling.position)
        time.spend(travelling.number, travelling.position, len(x))
        times_ns = [*travelling.times_ns, came_ns, clock.now_ns()]
        ring.send(RingPass(travelling.slot, travelling.number, travelling.position, x, times_ns))


def main() -> None:
    """Load the layers, join the ring, and relay."""
    options = arguments("isl_emu.parts.split.pipeline_stage", __doc__).parse_args()
    torch.set_num_threads(1)
    model = ModelFile(options.model)
    layers, shape = model.layers(range(*options.layers), options.context), model.shape()
    ring = Ring(options.head, options.ring_port, options.rank, options.size, shape.embedding, options.conversations)
    print("joined the ring", flush=True)
    clock = RunClock(options.clock)
    relay(ring, layers, clock, StageTime.of(options, clock))


if __name__ == "__main__":
    main()
