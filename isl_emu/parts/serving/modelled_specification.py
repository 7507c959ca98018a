"""What the modelled servers of a run are: a file in its journal, written before they start and read by them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from isl_emu.parts.serving.modelled_state import FILE as STATE_FILE
from isl_emu.parts.serving.modelled_state import ModelledState
from isl_emu.scenario.boards import board_named
from isl_emu.scenario.models import model_named
from isl_emu.scenario.roofline import Roofline

SPECIFICATIONS = "modelled_servers.json"  # in the journal
PACE = "pace.jsonl"  # beside it: what the servers say of themselves at their end


@dataclass(frozen=True)
class Specification:
    """One modelled server."""

    satellite: str
    netns: str
    address: str
    port: int
    board: str
    model: str
    bits: int
    slots: int
    context_tokens: int

    @property
    def roofline(self) -> Roofline:
        """Its pace."""
        return Roofline(board_named(self.board), model_named(self.model), self.bits)

    @property
    def label(self) -> str:
        """What its answers give as their model."""
        return f"modelled:{self.model}@{self.board}"


def write_specifications(specs: Sequence[Specification], journal: Path) -> None:
    """Leave in a run's journal what its modelled servers are, and the state that they share."""
    (journal / SPECIFICATIONS).write_text(json.dumps([asdict(spec) for spec in specs]))
    ModelledState.create(journal / STATE_FILE, [spec.satellite for spec in specs])


def read_specifications(journal: Path) -> list[Specification]:
    """What `write_specifications` left."""
    return [Specification(**record) for record in json.loads((journal / SPECIFICATIONS).read_text())]
