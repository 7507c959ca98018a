"""The computers of satellites as the energy model sees them: how much they do, and how fast they may."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from isl_emu.nodes.containers import Container
from isl_emu.parts.serving.modelled_state import ModelledState

FINEST_PACE = 0.01  # smaller changes are not worth a change of the kernel's limits


class Computers(Protocol):
    """Some satellites' computers."""

    def busy_ratio(self, span_ns: int) -> np.ndarray:
        """Which share of its full work each did in the emulated `span_ns` since the last call."""

    def set_pace(self, pace_ratio: np.ndarray) -> None:
        """Let each work at this share of its full pace from now on; 0 switches it off."""


class ContainerComputers:
    """Computers whose programs run in containers: their work is CPU time, their pace a CPU limit.

    All of a container's CPU share, used all the time, is its full work. A program with one thread never uses more than
    one CPU, whatever its share.

    Args:
        slowdown: of the run's clock; a container's share is smaller by that.
    """

    def __init__(self, containers: Sequence[Container], slowdown: float):
        self._containers = containers
        self._full_cpus = np.array([container.cpus * slowdown for container in containers])
        self._pace = np.ones(len(containers))
        self._used_ns = self._read()

    def busy_ratio(self, span_ns: int) -> np.ndarray:
        used_ns = self._read()
        spent_ns, self._used_ns = used_ns - self._used_ns, used_ns
        busy_ratio: np.ndarray = np.clip(spent_ns / (self._full_cpus * span_ns), 0.0, 1.0)
        return busy_ratio

    def set_pace(self, pace_ratio: np.ndarray) -> None:
        coarse = np.where(pace_ratio > 0.0, np.maximum(np.round(pace_ratio / FINEST_PACE), 1.0) * FINEST_PACE, 0.0)
        for container, before, now in zip(self._containers, self._pace.tolist(), coarse.tolist(), strict=True):
            if now == 0.0:
                container.suspend()  # again if it was off before: something may have been started since
            elif now != before:
                container.set_cpus(container.cpus * now)
                container.resume()
        self._pace = coarse

    def _read(self) -> np.ndarray:
        return np.array([container.cpu_ns() for container in self._containers], dtype=np.int64)


class ModelledComputers:
    """Computers of which only the pace is modelled: their servers read it, and say how much they worked at full pace.

    A server counts a prompt or a token when it is done, so work may be told all at once: what does not fit into a span
    at the pace that held in it is counted in the next ones.

    Args:
        rows: of `state`.
    """

    def __init__(self, state: ModelledState, rows: np.ndarray):
        self._state, self._rows = state, rows
        self._pace = state.pace_ratio[rows].copy()
        self._counted_ns = state.busy_ns[rows].astype(float)

    def busy_ratio(self, span_ns: int) -> np.ndarray:
        told_ns = self._state.busy_ns[self._rows] - self._counted_ns
        counted_ns: np.ndarray = np.minimum(told_ns, self._pace * span_ns)
        self._counted_ns += counted_ns
        return counted_ns / span_ns

    def set_pace(self, pace_ratio: np.ndarray) -> None:
        self._state.pace_ratio[self._rows] = self._pace = pace_ratio.copy()
