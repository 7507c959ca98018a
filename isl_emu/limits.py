"""How much is read and computed at most, so that no input holds a machine up: each limit can be raised by a variable.

docs/robustness.md lists them for users.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from isl_emu.errors import ScenarioError


@dataclass(frozen=True)
class Limit:
    """The most of something.

    Args:
        variable: of the environment, that sets another limit than the usual one.
        usual: without it.
        what: is counted.
    """

    variable: str
    usual: int
    what: str

    @property
    def most(self) -> int:
        """The limit that is in force.

        Raises:
            ScenarioError: the variable holds no number.
        """
        text = os.environ.get(self.variable, "")
        if text and not (text.isascii() and text.isdecimal() and 0 < int(text[:19]) <= 10**18):
            raise ScenarioError(
                f"{self.variable}: is {text[:40]!r}, but it is a whole number above 0; correct or unset it"
            )
        return int(text or self.usual)

    def excess(self, amount: float, costs: str = "") -> str | None:
        """Why an amount is too much, as the rest of a sentence; None if it is not.

        Args:
            costs: what it comes to, such as "about 3 GB".
        """
        if amount <= self.most:
            return None
        return (
            f"comes to about {amount:,.0f} {self.what}{f' ({costs})' if costs else ''}, but the most is "
            f"{self.most:,}; lower it, or set {self.variable} to allow more"
        )


MIB = Limit("ISL_EMU_MOST_MIB", 64, "MiB")  # of a file that is read whole
INSTANTS = Limit("ISL_EMU_MOST_INSTANTS", 10_000_000, "instants")  # at one link each, a plan of half a gigabyte
PLAN_ROWS = Limit("ISL_EMU_MOST_PLAN_ROWS", 500_000_000, "rows of a plan")  # in temporary files, beyond a gigabyte
ROWS = Limit("ISL_EMU_MOST_ROWS", 100_000_000, "rows")  # of a table of results
QUESTIONS = Limit("ISL_EMU_MOST_QUESTIONS", 1_000_000, "questions")
PROBES = Limit("ISL_EMU_MOST_PROBES", 100_000_000, "probes")  # also polls of queues
FAULTS = Limit("ISL_EMU_MOST_FAULTS", 1_000_000, "events of faults")
POWERS = Limit("ISL_EMU_MOST_POWERS", 20_000_000, "powers")  # of a balance, satellites times steps: a gigabyte
STARTS = Limit("ISL_EMU_MOST_STARTS", 100_000, "starts of a program")
OBSERVATIONS = Limit("ISL_EMU_MOST_OBSERVATIONS", 100_000, "images of the Earth")
LOOKS = Limit("ISL_EMU_MOST_LOOKS", 20_000_000, "looks for passes")  # satellites times seconds: a gigabyte
IMAGE_MIB = Limit("ISL_EMU_MOST_IMAGE_MIB", 2_048, "MiB")
IMAGE_FILES = Limit("ISL_EMU_MOST_IMAGE_FILES", 500_000, "files of an image")
LIMITS = (
    MIB,
    INSTANTS,
    PLAN_ROWS,
    ROWS,
    QUESTIONS,
    PROBES,
    FAULTS,
    POWERS,
    STARTS,
    OBSERVATIONS,
    LOOKS,
    IMAGE_MIB,
    IMAGE_FILES,
)


def duration_text(seconds: float) -> str:
    """A time that was estimated: "8 s", "12 min", "3 h", "40 days"."""
    for size_s, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size_s:
            return f"{seconds / size_s:,.0f} {unit}"
    return f"{seconds:,.0f} s"


def size_text(size_byte: float) -> str:
    """A size that was estimated: "20 MB", "3 GB"."""
    return f"{size_byte / 1e9:,.0f} GB" if size_byte >= 2e9 else f"{size_byte / 1e6:,.0f} MB"
