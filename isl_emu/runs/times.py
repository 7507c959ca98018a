"""When a live run begins and ends, and how processes of ours are told."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunTimes:
    """The emulated time of a run, on its clock.

    Args:
        t0_ns: instant 0.
        until_ns: the end of its plan.
    """

    t0_ns: int
    until_ns: int

    @property
    def duration_ns(self) -> int:
        """How long the run lasts."""
        return self.until_ns - self.t0_ns

    def words(self, journal: Path) -> list[str]:
        """The options by which a process of ours learns of a run; `run_parser` reads them."""
        return ["--journal", str(journal), "--t0-ns", str(self.t0_ns), "--until-ns", str(self.until_ns)]

    @classmethod
    def of(cls, options: argparse.Namespace) -> RunTimes:
        """The times among the options that `run_parser` has read."""
        return cls(options.t0_ns, options.until_ns)


def run_parser(module: str, purpose: str | None) -> argparse.ArgumentParser:
    """The command line of a process of ours that takes part in a run; it may add options of its own.

    Args:
        module: its name, as after ``python -m``.
        purpose: its docstring.
    """
    parser = argparse.ArgumentParser(prog=module, description=purpose)
    parser.add_argument("--journal", type=Path, required=True, help="folder of the run's journals")
    parser.add_argument("--t0-ns", type=int, required=True, help="start of the run, on its clock")
    parser.add_argument("--until-ns", type=int, required=True, help="end of the run, on its clock")
    return parser
