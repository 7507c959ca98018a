"""How users ask, as far as it is decided while the run is live: a small file for the process that asks.

Beside it in the run's journal lie what is asked, and what that process writes down.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isl_emu.scenario.questions import POLICIES, Questions

FILE = "asking.json"  # in a run's journal
OUTLOOK = "outlook.npz"  # where a policy decides live
PLANNED_JOURNAL = "planned_requests"  # all requests of the run
ASKED_JOURNAL = "asked"  # for who looks on: when each attempt was sent, and when its first token came
ATTEMPTS_JOURNAL, POLLS_JOURNAL = "attempts", "polls"  # of the process that asks; also the tables' names


@dataclass(frozen=True)
class Asking:
    """The settings of the process that asks; see `scenario.questions.Questions` for their meaning.

    Args:
        satellites: who may be asked: not all that serve have routes to them in a large network.
        known_down: those of whom it is known by faults that they do not serve, from when until when.
    """

    deadline_ns: int
    satellites: Sequence[str] = ()
    target: str = "uniform"
    candidates: int = 8
    poll_interval_ns: int | None = None
    retries: int = 0
    retry_at: str = "other"
    retry_backoff_ns: int = 0
    attempt_timeout_ns: int | None = None
    start_after_ns: int = 0
    stop_after_ns: int | None = None
    ramp: Sequence[tuple[int, float]] | None = None
    context: str = "recompute"
    known_down: Sequence[tuple[str, int, int]] = ()

    @classmethod
    def of(
        cls, questions: Questions, satellites: Sequence[str], known_down: Sequence[tuple[str, int, int]] = ()
    ) -> Asking:
        """Those of a scenario."""
        same = set(cls.__dataclass_fields__) & set(Questions.model_fields)
        given = {name: getattr(questions, name) for name in same}
        return cls(**given, satellites=satellites, known_down=known_down)

    @property
    def pinned(self) -> bool:
        """Whether always the same satellite is asked, serving or not."""
        return self.target not in POLICIES and ":" not in self.target

    def write(self, journal: Path) -> None:
        """Leave it in a run's journal for `read_asking`."""
        (journal / FILE).write_text(json.dumps(asdict(self)))


def read_asking(journal: Path) -> Asking:
    """What `Asking.write` left."""
    record: Mapping[str, Any] = json.loads((journal / FILE).read_text())
    known_down = tuple((name, from_ns, until_ns) for name, from_ns, until_ns in record["known_down"])
    return Asking(**{**record, "satellites": tuple(record["satellites"]), "known_down": known_down})
