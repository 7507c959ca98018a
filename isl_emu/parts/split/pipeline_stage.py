"""A satellite of a pipeline that is not the head: its layers are computed for every pass that comes by.

Run as ``python -m isl_emu.parts.split.pipeline_stage`` in the satellite's container; it ends with the container.
"""

from __future__ import annotations

import argparse
import threading
from dataclasses import dataclass
from pathlib import Path

import torch

from isl_emu.parts.serving.modelled_state import UNLIMITED, Allowance
from isl_emu.parts.split.decoder import Layers
from isl_emu.parts.split.ring import Ring, RingPass
from isl_emu.parts.split.shares import pace_of
from isl_emu.parts.split.weights import ModelFile
from isl_emu.runs.clock import RunClock
from isl_emu.scenario.models import Roofline
from isl_emu.timebase import Clock


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
