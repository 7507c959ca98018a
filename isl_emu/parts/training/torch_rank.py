"""A rank that really learns: a process in its satellite's container, with PyTorch for the model and gloo for the sums.

Run as ``python -m isl_emu.parts.training.torch_rank``. It reads orders from standard input and tells what happens on
standard output, one JSON object a line; gloo's connections take the emulated way.

Its optimisers work on one flat vector of parameters: what they remember is a vector too, and can be sent. torch.optim
has the same, but loading it takes each rank 85 MB and several seconds in a guest.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from isl_emu.nodes.tcp_info import own_bytes
from isl_emu.parts.serving.modelled_state import UNLIMITED, Allowance
from isl_emu.parts.training.meeting import Reception, open_listener
from isl_emu.parts.training.transformer import Batches, Writer
from isl_emu.runs.clock import RunClock
from isl_emu.runs.endpoints import STORE_PORTS
from isl_emu.scenario.training import Training
from isl_emu.timebase import Clock


class AdamW:
    """Adam with decoupled weight decay, at a constant rate.

    Source: Loshchilov and Hutter 2019, Decoupled weight decay regularization, algorithm 2; constants as in torch.optim.
    """

    BETA_1, BETA_2, EPSILON, DECAY = 0.9, 0.999, 1e-8, 0.01

    def __init__(self, size: int, rate: float):
        self._rate = rate
        self.state = torch.zeros(2 * size + 1)  # first moments, second moments, number of steps
        self._first, self._second, self._steps = self.state.split([size, size, 1])

    def step(self, parameters: torch.Tensor, gradient: torch.Tensor) -> None:
        """Move the parameters, in place."""
        self._steps += 1
        steps = float(self._steps)
        self._first.lerp_(gradient, 1 - self.BETA_1)
        self._second.mul_(self.BETA_2).addcmul_(gradient, gradient, value=1 - self.BETA_2)
        spread = (self._second / (1 - self.BETA_2**steps)).sqrt_().add_(self.EPSILON)
        parameters.mul_(1 - self._rate * self.DECAY)
        parameters.addcdiv_(self._first, spread, value=-self._rate / (1 - self.BETA_1**steps))


class Nesterov:
    """Gradient descent with Nesterov's momentum: DiLoCo's outer optimiser.

    Source: Sutskever et al. 2013, On the importance of initialization and momentum, as torch.optim.SGD writes it.
    """

    def __init__(self, size: int, rate: float, momentum: float):
        self._rate, self._momentum = rate, momentum
        self.state = torch.zeros(size)

    def step(self, parameters: torch.Tensor, gradient: torch.Tensor) -> None:
        """Move the parameters, in place."""
        self.state.mul_(self._momentum).add_(gradient)
        parameters.add_(gradient + self._momentum * self.state, alpha=-self._rate)


class TorchRank:
    """A rank of a job.

    Args:
        setting: what all ranks have in common (`job`, `names`, `addresses`, `port`, `store_port`, `seed`, `exact`), and
            `name`.
        emit: takes the rank's events.
        allowance: what energy leaves of its computer in exact time.
    """

    def __init__(
        self,
        setting: Mapping[str, Any],
        clock: Clock,
        emit: Callable[[Mapping[str, Any]], None],
        allowance: Allowance = UNLIMITED,
    ):
        self._setting, self._clock, self._emit = setting, clock, emit
        self._job = Training.model_validate_json(setting["job"])
        assert self._job.real is not None, "only jobs with real gradients have such ranks"
        form, rank = self._job.real, setting["names"].index(setting["name"])
        self._model, self._batches = Writer(form, setting["seed"]), Batches(form, setting["seed"], rank)
        self._weights = parameters_to_vector(self._model.parameters()).detach()  # after the last finished step
        self._adam = AdamW(len(self._weights), form.learning_rate)
        outer = self._job.outer_learning_rate, self._job.outer_momentum
        self._outer = Nesterov(len(self._weights), *outer) if self._job.method == "diloco" else None
        self._ring: int | None = None
        self._allowance, self._work_ns = allowance, 0
        if setting["exact"]:  # computing takes no time, so what it would take is waited
            self._work_ns = self._job.local_steps * form.step_ns(len(self._weights), form.batch * form.context)

    def obey(self, order: Mapping[str, Any]) -> None:
        """Train as ordered, until it is done or the ring no longer works."""
        try:
            taken_byte = self._join(order)
            step, last = order["first"], order["last"]
            while last is None or step <= last:
                self._step(step, order, taken_byte)
                step, taken_byte = step + 1, 0
        except (RuntimeError, OSError) as error:  # gloo's are RuntimeErrors
            self._leave()
            why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            self._emit({"event": "failed", "ring": order["ring"], "why": why})

    def _join(self, order: Mapping[str, Any]) -> int:
        """Form the ring unless it stands; take over the weights if need be; the bytes that this took."""
        if order["ring"] == self._ring:
            return 0
        self._leave()
        members, addresses = order["members"], self._setting["addresses"]
        rank = members.index(self._setting["name"])
        timeout = timedelta(seconds=self._clock.real_s(self._job.timeout_ns))
        port = self._setting["store_port"] + order["ring"] % STORE_PORTS
        store = distributed.TCPStore(addresses[members[0]], port, len(members), rank == 0, timeout)
        distributed.init_process_group("gloo", store=store, rank=rank, world_size=len(members), timeout=timeout)
        self._ring = order["ring"]
        if order["source"] is None:
            return 0
        # Everybody has the weights, and what belongs to them, of one rank afterwards
        source, (_, before) = members.index(order["source"]), own_bytes()
        remembered = self._outer or self._adam
        everything = torch.cat([self._weights, remembered.state])
        distributed.broadcast(everything, source)
        weights, state = everything.split([len(self._weights), len(remembered.state)])
        self._weights.copy_(weights)
        remembered.state.copy_(state)
        return own_bytes()[1] - before if rank != source else 0

    def _leave(self) -> None:
        """Close the ring's connections: who waits at another end notices."""
        self._ring = None
        if distributed.is_initialized():
            with suppress(RuntimeError):
                distributed.destroy_process_group()
        gc.collect()  # the store of the ring's first rank closes its port with its last reference

    def _step(self, step: int, order: Mapping[str, Any], taken_byte: int) -> None:
        begun_ns = self._clock.now_ns()
        if self._outer:  # how far some steps alone lead back to the common weights, and the last one's loss
            weights, loss = self._weights.clone(), 0.0
            for inner in range(self._job.inner_steps):
                gradient, loss = self._gradient_at(weights, step * self._job.inner_steps + inner)
                self._adam.step(weights, gradient)
            moved = self._weights - weights
        else:
            moved, loss = self._gradient_at(self._weights, step)
        self._allowance.work(self._setting["name"], self._work_ns, self._clock, threading.Event())
        computed_ns = self._clock.now_ns()
        sent, received = own_bytes()
        distributed.all_reduce(moved)
        ended_ns, (sent_after, received_after) = self._clock.now_ns(), own_bytes()
        moved /= len(order["members"])
        (self._outer or self._adam).step(self._weights, moved)
        t0_ns = order["t0_ns"]
        self._emit({
            "event": "step", "ring": order["ring"], "step": step,
            "t_begun_ns": begun_ns - t0_ns, "t_computed_ns": computed_ns - t0_ns, "t_ended_ns": ended_ns - t0_ns,
            "sent_byte": sent_after - sent, "received_byte": received_after - received, "taken_byte": taken_byte,
            "loss": loss,
        })  # fmt: skip

    def _gradient_at(self, weights: torch.Tensor, number: int) -> tuple[torch.Tensor, float]:
        """The gradient of a batch, and its loss."""
        parameters = list(self._model.parameters())
        vector_to_parameters(weights, parameters)
        loss = self._model.loss(self._batches.batch(number))
        return parameters_to_vector(torch.autograd.grad(loss, parameters)).detach(), loss.item()


def main() -> None:
    """Obey orders until standard input ends."""
    parser = argparse.ArgumentParser(prog="isl_emu.parts.training.torch_rank", description=__doc__)
    parser.add_argument("--clock", type=Path, required=True, help="file of the run's clock")
    parser.add_argument("--state", type=Path, help="file of what energy leaves of the computers")
    options = parser.parse_args()
    told = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever else prints does not mix with what is told

    def emit(event: Mapping[str, Any]) -> None:
        told.write(json.dumps(event) + "\n")

    torch.set_num_threads(1)
    setting = json.loads(sys.stdin.readline())
    listener = open_listener(setting["addresses"][setting["name"]], setting["port"])
    with Reception({setting["names"].index(setting["name"]): listener}):
        allowance = Allowance.of(options.state) if options.state else UNLIMITED
        rank = TorchRank(setting, RunClock(options.clock), emit, allowance)
        emit({"event": "ready", "parameters": len(rank._weights)})
        for line in sys.stdin:
            rank.obey(json.loads(line))


if __name__ == "__main__":
    main()
