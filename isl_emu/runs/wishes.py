"""What a user wants of a live run before it begins."""

from __future__ import annotations

from dataclasses import dataclass

from isl_emu.errors import ScenarioError
from isl_emu.units import NS_PER_S


@dataclass(frozen=True)
class Wishes:
    """What a user wants of a live run, apart from what its scenario says.

    Args:
        interactive: open Mininet's command line on the live net; the run ends when the user leaves it.
        pause_at_ns: pause at this emulated time.
        until_ns: end at this emulated time, though the plan goes on.
        pace: emulated seconds per second of the wall at most; for exact time, which is paced from outside.
    """

    interactive: bool = False
    pause_at_ns: int | None = None
    until_ns: int | None = None
    pace: float | None = None

    def words(self) -> list[str]:
        """The options of `isl-emu execute` that say the same."""
        options = [word for name, t_ns in self._times().items() if t_ns is not None for word in (name, f"{t_ns}ns")]
        return [*options, *(["--cli"] if self.interactive else [])]

    def check(self, duration_ns: int) -> None:
        """Raise a ScenarioError if a time is none within a plan of this duration."""
        for name, t_ns in self._times().items():
            if t_ns is not None and not 0 < t_ns < duration_ns:
                raise ScenarioError(
                    f"{name}: is {t_ns / NS_PER_S:g} s, but the plan ends at {duration_ns / NS_PER_S:g} s and begins "
                    "at 0; choose a time between"
                )

    def _times(self) -> dict[str, int | None]:
        return {"--pause-at": self.pause_at_ns, "--until": self.until_ns}
