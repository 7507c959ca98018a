"""Adds up pytest runs: prints one summary line in pytest's form, and exits as pytest would.

usage: tally.py REPORT.xml...      reports of ``pytest --junit-xml``; a missing one counts as an error
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

WORDS = {"failures": "failed", "passed": "passed", "skipped": "skipped", "errors": "errors"}


def tally(reports: list[Path]) -> tuple[Counter[str], float]:
    """How many tests ended how, and the seconds they took."""
    counts: Counter[str] = Counter()
    seconds = 0.0
    for report in reports:
        if not report.exists():
            counts["errors"] += 1
            continue
        for suite in ElementTree.parse(report).iter("testsuite"):
            found = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "skipped", "errors")}
            counts.update(found)
            counts["passed"] += found["tests"] - found["failures"] - found["skipped"] - found["errors"]
            seconds += float(suite.get("time", 0))
    return counts, seconds


def main(arguments: list[str]) -> int:
    """Print the line; 0 if all passed, 1 if any failed, 5 if there was none."""
    counts, seconds = tally([Path(argument) for argument in arguments])
    ended = [f"{counts[name]} {word}" for name, word in WORDS.items() if counts[name]]
    print(f" {', '.join(ended) or 'no tests ran'} in {seconds:.2f}s ".center(80, "="))
    if counts["failures"] or counts["errors"]:
        return 1
    return 0 if counts["tests"] else 5


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
