"""What the servers at a board's pace are: a file in a run's journal, written before they start and read by them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isl_emu.parts.serving.board_pace import BoardPace, StatedPace, group_roofline
from isl_emu.parts.serving.modelled_state import FILE as STATE_FILE
from isl_emu.parts.serving.modelled_state import ModelledState
from isl_emu.runs.ports import MODEL_PORT
from isl_emu.scenario.boards import board_named
from isl_emu.scenario.models import MODELS, Model, model_named
from isl_emu.scenario.roofline import Roofline

if TYPE_CHECKING:  # Mininet is slow to import, and the servers' process needs none of it
    from isl_emu.network.net import IslNet
    from isl_emu.parts.serving.server_kind import ServerGroup

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

    @property
    def roofline(self) -> Roofline:
        """The pace of its model on its board."""
        return Roofline(board_named(self.board), self.shape or model_named(self.model), self.bits)

    @property
    def pace(self) -> BoardPace:
        """Its pace."""
        return self.roofline if self.decode_tokens_s is None else StatedPace(self.decode_tokens_s)

    @property
    def label(self) -> str:
        """What its answers give as their model."""
        return f"modelled:{self.model}@{self.board}"


def specifications(group: ServerGroup, net: IslNet, words_port: int | None = None) -> list[Specification]:
    """One for each satellite of a group.

    Args:
        words_port: where a real server of theirs listens, if their words are real.
    """
    compute = group.compute
    shared: dict[str, Any] = {"port": MODEL_PORT, "slots": compute.board_slots, "words_port": words_port}
    shared |= {"context_tokens": compute.context_tokens}
    if compute.decode_tokens_s is not None:
        shared |= {"board": "", "model": "", "bits": 0, "decode_tokens_s": compute.decode_tokens_s}
    else:
        roofline = group_roofline(compute)
        shape = None if roofline.model == MODELS.get(roofline.model.name) else roofline.model
        shared |= {"board": roofline.board.name, "model": roofline.model.name, "bits": roofline.bits, "shape": shape}
    nodes = map(net.get, group.satellites)
    return [Specification(node.name, node.netns_path, node.address, **shared) for node in nodes]


def write_specifications(specs: Sequence[Specification], journal: Path) -> None:
    """Leave in a run's journal what its servers at a board's pace are, and the state that they share."""
    (journal / SPECIFICATIONS).write_text(json.dumps([asdict(spec) for spec in specs]))
    ModelledState.create(journal / STATE_FILE, [spec.satellite for spec in specs])


def read_specifications(journal: Path) -> list[Specification]:
    """What `write_specifications` left."""
    records = json.loads((journal / SPECIFICATIONS).read_text())
    return [Specification(**{**record, "shape": record["shape"] and Model(**record["shape"])}) for record in records]
