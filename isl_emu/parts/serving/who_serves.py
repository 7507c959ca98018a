"""Which satellites serve: read from the run's journal while it grows, for models may arrive during the run."""

from __future__ import annotations

import json
from pathlib import Path

SERVING = "serving.jsonl"  # in a run's journal: a line for each satellite, {"satellite": name, "t_ns": since when}


class ServingSatellites:
    """The satellites whose servers have become healthy.

    Args:
        path: SERVING in a run's journal.
    """

    def __init__(self, path: Path):
        self._path = path
        self._read_byte = 0
        self._since_ns: dict[str, int] = {}
        self._all: frozenset[str] = frozenset()
        self._all_since_ns = 0

    def at(self, t_ns: int) -> frozenset[str]:
        """Those that serve at a time of the run."""
        if self._path.exists() and self._path.stat().st_size != self._read_byte:
            with self._path.open("rb") as file:
                file.seek(self._read_byte)
                whole, end, _ = file.read().rpartition(b"\n")
            self._read_byte += len(whole) + len(end)
            for line in whole.splitlines():
                record = json.loads(line)
                self._since_ns.setdefault(record["satellite"], record["t_ns"])
            self._all, self._all_since_ns = frozenset(self._since_ns), max(self._since_ns.values(), default=0)
        if t_ns >= self._all_since_ns:
            return self._all
        return frozenset(name for name, since_ns in self._since_ns.items() if since_ns <= t_ns)
