"""What the servers at a board's pace are: a file in a run's journal, written before they start and read by them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from isl_emu.parts.serving.board_pace import BoardPace, StatedPace
from isl_emu.parts.serving.modelled_state import FILE as STATE_FILE
from isl_emu.parts.serving.modelled_state import ModelledState
from isl_emu.scenario.boards import board_named
from isl_emu.scenario.models import Model, Roofline, model_named

SPECIFICATIONS = "modelled_servers.json"  # in the journal
PACE = "pace.jsonl"  # beside it: what the servers say of themselves at their end


@dataclass(frozen=True)
class Specification:
    """One server at a board's pace.

    Args:
        board, model, bits: whose pace it is, where nothing else is stated.
        shape: of a model that is none of those known by name.
        decode_tokens_s: the stated pace of a computer that is no board.
        words_port: of the real server in the satellite whose words it gives; None if its words are at random.
        rate_scale: of the network, by which less is sent of what only its size is known of.
    """

    satellite: str
    netns: str
    address: str
    port: int
    board: str
    model: str
    bits: int
    slots: int
    context_tokens: int
    shape: Model | None = None
    decode_tokens_s: float | None = None
    words_port: int | None = None
    rate_scale: float = 1.0

    @property
    def roofline(self) -> Roofline:
        """The pace of its model on its board."""
        return Roofline(board_named(self.board), self.shape or model_named(self.model), self.bits)

    @property
    def pace(self) -> BoardPace:
        """Its pace."""
        return self.roofline if self.decode_tokens_s is None else StatedPace(self.decode_tokens_s)

    @property
    def kv_byte_per_token(self) -> int:
        """What a token of its model takes in the cache."""
        return self.roofline.model.kv_byte_per_token

    @property
    def label(self) -> str:
        """What its answers give as their model."""
        return f"modelled:{self.model}@{self.board}"


def write_specifications(specs: Sequence[Specification], journal: Path) -> None:
    """Leave in a run's journal what its servers at a board's pace are, and the state that they share."""
    (journal / SPECIFICATIONS).write_text(json.dumps([asdict(spec) for spec in specs]))
    ModelledState.create(journal / STATE_FILE, [spec.satellite for spec in specs])


def read_specifications(journal: Path) -> list[Specification]:
    """What `write_specifications` left."""
    records = json.loads((journal / SPECIFICATIONS).read_text())
    return [Specification(**{**record, "shape": record["shape"] and Model(**record["shape"])}) for record in records]
