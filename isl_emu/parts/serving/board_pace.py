"""The pace of a board: how long it takes for prompts and tokens, and whose pace a group of servers has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from isl_emu.errors import WorkloadError
from isl_emu.parts.serving.model_file import read_header, resolve_model
from isl_emu.scenario.boards import BITS, Board, board_named
from isl_emu.scenario.compute import Compute
from isl_emu.scenario.models import Model, Roofline
from isl_emu.units import NS_PER_S

# llama.cpp reads a prompt about twice as fast as it decodes, with one thread: 23 ms a token and 50, the bundled model
PROMPT_TO_ANSWER = 2.0


class BoardPace(Protocol):
    """How long a board takes; a `Roofline` is one."""

    def prompt_ns(self, tokens: float) -> float:
        """The time to read a prompt."""

    def step_ns(self, context_tokens: int, answers: int = 1) -> float:
        """The time to add one token to each of `answers` answers, with so many tokens in their caches together."""


@dataclass(frozen=True)
class StatedPace:
    """A computer of which only the decoding pace is known: one that computes one token after the other."""

    decode_tokens_s: float

    def prompt_ns(self, tokens: float) -> float:
        return tokens * NS_PER_S / (PROMPT_TO_ANSWER * self.decode_tokens_s)

    def step_ns(self, context_tokens: int, answers: int = 1) -> float:
        return answers * NS_PER_S / self.decode_tokens_s


def group_roofline(group: Compute) -> Roofline:
    """The pace of a group's board with the model that it names for it, or the one in its file.

    Raises:
        WorkloadError: the file of weights does not say how its layers look.
    """
    if group.server == "modelled" or group.pace_model is not None:
        return group.roofline
    return file_roofline(resolve_model(group.model), board_named(group.board or ""))


def wanted_tokens_s(group: Compute) -> float:
    """The decoding pace that a group with a board's pace is to have, one answer at a time.

    Raises:
        WorkloadError: it is that of a board, and the file of weights does not say how its layers look.
    """
    if group.decode_tokens_s is not None:
        return group.decode_tokens_s
    return NS_PER_S / group_roofline(group).step_ns(0)


def pace_name(group: Compute) -> str:
    """Whose pace it is, as records have it: a model on a board, or a number of tokens a second."""
    if group.decode_tokens_s is not None:
        return f"{group.decode_tokens_s:g} tokens/s"
    roofline = group_roofline(group)
    return f"{roofline.model.name}@{roofline.board.name}"


def file_roofline(path: Path, board: Board) -> Roofline:
    """The pace of a file's model on a board.

    Its weights count with 4, 8 or 16 bits, whichever is nearest to what the file has in the mean.

    Raises:
        WorkloadError: the file does not say how its layers look.
    """
    try:
        header = read_header(path)
        heads, hidden = header.count("attention.head_count"), header.count("embedding_length")
        model = Model(
            name=path.stem,
            description=header.name or path.stem,
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
    except (TypeError, ValueError, ZeroDivisionError):
        raise WorkloadError(
            f"compute.model: {path} does not say how its layers look, but the pace of a board follows from that; "
            "give decode_tokens_s in place of board"
        ) from None
    mean_bits = 8 * path.stat().st_size / model.parameters
    return Roofline(board, model, min(BITS, key=lambda bits: abs(bits - mean_bits)))
