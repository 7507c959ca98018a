"""Which satellites pass what they are asked on to a server outside: a file in the journal for the process that does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = "relayed.json"  # in the journal folder


@dataclass(frozen=True)
class Relayed:
    """A satellite's server outside.

    Args:
        model: the name that it knows its model by; questions are given it.
        key_variable: the environment variable that holds its key.
    """

    netns: str
    address: str
    port: int
    url: str
    model: str | None
    key_variable: str | None


def write_relayed(relayed: Sequence[Relayed], journal: Path) -> None:
    """Leave in a run's journal what is to be passed on."""
    (journal / FILE).write_text(json.dumps([asdict(one) for one in relayed]))


def read_relayed(journal: Path) -> list[Relayed]:
    """What `write_relayed` left."""
    return [Relayed(**record) for record in json.loads((journal / FILE).read_text())]
