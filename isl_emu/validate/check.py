"""One comparison of ours with an outside truth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

Value = float | str | None  # None: there is nothing, for example no path
Rule = Literal["near", "at least", "at most", "shown"]


@dataclass(frozen=True)
class Check:
    """What an authority says, what we computed, and how far they may be apart.

    Numbers pass when they differ by at most `tolerance`, or by their rule are at least or at most what is expected.
    What is only shown passes always; anything else passes when it is equal.
    """

    group: str  # the authority
    name: str
    expected: Value
    got: Value
    tolerance: float = 0.0
    unit: str = ""
    note: str = ""  # why the comparison is made as it is, where that is not plain
    rule: Rule = "near"
    basis: str = ""  # of ours, against measurements: "calibrated" with what it is compared with, or "predicted"

    @property
    def passed(self) -> bool:
        """Whether ours agrees with the authority."""
        if self.rule == "shown":
            return True
        if isinstance(self.expected, str) or isinstance(self.got, str) or self.expected is None or self.got is None:
            return self.expected == self.got
        if self.rule == "near":
            return math.isfinite(self.got) and abs(self.got - self.expected) <= self.tolerance
        return self.got >= self.expected if self.rule == "at least" else self.got <= self.expected

    def to_json(self) -> dict[str, Any]:
        """The check as plain data; a value that is not finite is None."""
        return {
            "group": self.group,
            "name": self.name,
            "expected": _plain(self.expected),
            "got": _plain(self.got),
            "tolerance": self.tolerance,
            "unit": self.unit,
            "note": self.note,
            "rule": self.rule,
            "basis": self.basis,
            "passed": self.passed,
        }


def _plain(value: Value) -> Value:
    return None if isinstance(value, float) and not math.isfinite(value) else value
