"""The shape of the model in a file of weights, for a roofline: what a slower board would make of the same file."""

from __future__ import annotations

from pathlib import Path

from isl_emu.errors import WorkloadError
from isl_emu.parts.serving.model_file import ModelHeader, read_header
from isl_emu.scenario.boards import BITS, Board
from isl_emu.scenario.models import Model
from isl_emu.scenario.roofline import Roofline


def file_roofline(path: Path, board: Board) -> Roofline:
    """The pace of a file's model on a board.

    Its weights count with 4, 8 or 16 bits, whichever is nearest to what the file has in the mean.

    Raises:
        WorkloadError: the file does not say how its layers look.
    """
    try:
        model = _shape(read_header(path), path.stem)
    except (TypeError, ValueError, ZeroDivisionError):
        raise WorkloadError(
            f"compute.model: {path} does not say how its layers look, but the pace of a board follows from that; "
            "give decode_tokens_s in place of board"
        ) from None
    mean_bits = 8 * path.stat().st_size / model.parameters
    return Roofline(board, model, min(BITS, key=lambda bits: abs(bits - mean_bits)))


def _shape(header: ModelHeader, name: str) -> Model:
    heads, hidden = header.count("attention.head_count"), header.count("embedding_length")
    return Model(
        name=name,
        description=header.name or name,
        layers=header.count("block_count"),
        hidden=hidden,
        intermediate=header.count("feed_forward_length"),
        heads=heads,
        kv_heads=header.count("attention.head_count_kv", heads),
        head=header.count("attention.key_length", hidden // heads),
        vocabulary=int(header.fields.get("tokenizer.ggml.tokens", 0)),  # an array: its length
        tied=True,  # only a few per cent of the mean bits depend on it
        context_tokens=header.count("context_length"),
    )
