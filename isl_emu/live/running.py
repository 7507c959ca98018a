"""A live run from Python: what the commands of docs/running.md ask of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isl_emu.errors import MachineError, ScenarioError
from isl_emu.live.control import ask, find_live_run
from isl_emu.runs.directory import RunDirectory
from isl_emu.units import NS_PER_S, is_finite


@dataclass(frozen=True)
class RunningRun:
    """A run that emulates now; made by `running`. Every method returns what its command prints.

    Raises:
        MachineError: the run does not do it, with its reason, or has ended.
    """

    directory: RunDirectory
    folder: Path

    def status(self) -> str:
        """Where it stands."""
        return self._ask("status")

    def pause(self, at_s: float | None = None) -> str:
        """Pause now or at an emulated time to come, and return when all stands still."""
        return self._ask("pause", at_ns=_ns("at_s", at_s))

    def resume(self, until_s: float | None = None) -> str:
        """Go on, until another time or for good."""
        return self._ask("resume", until_ns=_ns("until_s", until_s))

    def stop(self, at_s: float | None = None) -> str:
        """End in order, now or at an emulated time to come."""
        return self._ask("stop", at_ns=_ns("at_s", at_s))

    def fault(
        self,
        a: str,
        b: str | None = None,
        *,
        effect: str | None = None,
        loss: float | None = None,
        corruption: float | None = None,
        duplication: float | None = None,
        jitter_s: float | None = None,
        rate_factor: float | None = None,
        delay_factor: float | None = None,
        for_s: float | None = None,
    ) -> str:
        """Break the link between two nodes, or a node; by itself it ends after `for_s`.

        Args:
            effect: on a node: "power-off" (the default), "kill", "stop" or "out-of-memory".
            loss: of a link, as the following; without any it is cut.
        """
        if b is None:
            return self._ask("fault", place=[a], effect=effect or "power-off", for_ns=_ns("for_s", for_s))
        changes = {
            "loss_ratio": loss, "corruption_ratio": corruption, "duplication_ratio": duplication,
            "jitter_ns": _ns("jitter_s", jitter_s), "rate_factor": rate_factor, "delay_factor": delay_factor,
        }  # fmt: skip
        given = {name: value for name, value in changes.items() if value is not None}
        return self._ask("fault", place=[a, b], changes=given or {"cut": True}, for_ns=_ns("for_s", for_s))

    def set(
        self,
        a: str,
        b: str,
        *,
        delay_s: float | None = None,
        rate_bit_s: int | None = None,
        loss: float | None = None,
        for_s: float | None = None,
    ) -> str:
        """Set what the link between two nodes is like while it is up, in place of the plan's."""
        changes = {"delay_ns": _ns("delay_s", delay_s), "rate_bit_s": rate_bit_s, "loss_ratio": loss}
        given = {name: value for name, value in changes.items() if value is not None}
        return self._ask("set", place=[a, b], changes=given, for_ns=_ns("for_s", for_s))

    def restore(self, *place: str) -> str:
        """Let a link (two nodes), a node, or all that was done by hand be as the plan has it now."""
        return self._ask("restore", place=list(place))

    def capture(
        self,
        *place: str,
        out: str | os.PathLike[str],
        filter: str = "",
        packets: int | None = None,
        duration_s: float | None = None,
    ) -> str:
        """Write packets of a link (two nodes), or of all links of a node, to a file, for so long or so many.

        Without either it returns when the run ends.

        Raises:
            OSError: the file cannot be written.
        """
        errors, request = bytearray(), {"verb": "capture", "place": list(place), "filter": filter, "packets": packets}
        request["for_ns"] = _ns("duration_s", duration_s)
        with open(out, "wb") as target:
            status = ask(self.directory, self.folder, request, target.write, errors.extend)
        if status:
            raise MachineError(errors.decode().strip().removeprefix("Error: "))
        return errors.decode().strip()

    def _ask(self, verb: str, **words: Any) -> str:
        said, errors = bytearray(), bytearray()
        status = ask(self.directory, self.folder, {"verb": verb, **words}, said.extend, errors.extend)
        if status:
            raise MachineError(errors.decode().strip().removeprefix("Error: ") or said.decode().strip())
        return said.decode().rstrip("\n")


def running(folder: str | os.PathLike[str] | None = None) -> RunningRun:
    """The live run with this results folder, or the only one of your own.

    Raises:
        MachineError: there is none, or which one is not clear.
    """
    return RunningRun(*find_live_run(None if folder is None else Path(folder)))


def _ns(name: str, seconds: float | None) -> int | None:
    if seconds is None:
        return None
    if not is_finite(seconds):
        raise ScenarioError(f"{name}: is {seconds!r}, but it is a number of seconds; give one, such as 60")
    return round(seconds * NS_PER_S)
