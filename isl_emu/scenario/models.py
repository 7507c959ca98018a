"""Language models by their shapes, and how fast a board runs them.

They are decoder-only transformers with grouped attention and a gated feed-forward layer. `isl_emu/data/models.toml` has
the shapes; whatever else is needed follows from them.

A board's pace is a roofline: reading a prompt is bound by arithmetic, decoding by memory. A decoding step reads the
weights of all layers once, whatever the number n of answers that it adds a token to, and each answer's cache:
``(t0 + weights / (eta x bandwidth)) x (1 + batch_ratio x (n - 1)) + caches / (eta x bandwidth)``, where `batch_ratio`
is what a further answer was measured to cost. A prompt takes ``2 x parameters x tokens / (eta_c x 16-bit rate)``.

Neglected: attention's own arithmetic (a tenth at some thousand tokens), the output layer, and heat, which the energy
model has.

Source: S. Williams et al., "Roofline", CACM 52 (2009); constants of the boards: isl_emu/data/boards.toml.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from isl_emu.scenario.boards import Board, read_data
from isl_emu.units import NS_PER_S


@dataclass(frozen=True)
class Model:
    """A language model.

    Args:
        hidden: length of the vector that stands for a token between layers.
        intermediate: length inside the feed-forward layer.
        head: length of one attention head.
        tied: the embedding is the output layer too.
        context_tokens: the longest prompt and answer together.
    """

    name: str
    description: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    tied: bool
    context_tokens: int

    @property
    def layer_parameters(self) -> int:
        """Parameters of all layers, without embedding and output; norms, a thousandth or less, are left out."""
        attention = 2 * self.hidden * self.head * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.layer_parameters + (1 if self.tied else 2) * self.vocabulary * self.hidden

    @property
    def kv_byte_per_token(self) -> int:
        """Keys and values that a token leaves in the cache, with 16 bits a number."""
        return 2 * 2 * self.layers * self.kv_heads * self.head


def model_named(name: str) -> Model:
    """The model of that name.

    Raises:
        ValueError: there is none; the message names one that is spelled nearly so.
    """
    if name not in MODELS:
        close = difflib.get_close_matches(name.lower().replace(".", "-"), MODELS, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else "choose one of them"
        raise ValueError(f"is {name!r}, but the models that can be modelled are {', '.join(MODELS)}; {hint}")
    return MODELS[name]


MODELS: Mapping[str, Model] = MappingProxyType(
    {name: Model(name, **table) for name, table in read_data("models.toml").items()}
)


@dataclass(frozen=True)
class Roofline:
    """A model on a board.

    Args:
        bits: of a weight, 4, 8 or 16.
    """

    board: Board
    model: Model
    bits: int

    @property
    def weight_byte(self) -> float:
        """What a decoding step reads of the weights."""
        return self.model.layer_parameters * self.bits / 8

    def prompt_ns(self, tokens: float) -> float:
        """The time to read a prompt."""
        operations = 2 * self.model.layer_parameters * tokens
        return operations / (self.board.eta_c * self.board.fp16_flop_s) * NS_PER_S

    def step_ns(self, context_tokens: int, answers: int = 1) -> float:
        """The time to add one token to each of `answers` answers.

        Args:
            context_tokens: tokens in the caches of all these answers together, prompts included.
        """
        board, cache_byte = self.board, context_tokens * self.model.kv_byte_per_token
        ns_per_byte = NS_PER_S / (board.eta[self.bits] * board.memory_bandwidth_byte_s)
        one_ns = board.t0_ns + self.weight_byte * ns_per_byte
        return one_ns * (1 + board.batch_ratio * (answers - 1)) + cache_byte * ns_per_byte

    def memory_byte(self, context_tokens: int, answers: int) -> float:
        """What the weights, and the caches of so many answers of that length, take of the board's memory."""
        cache_byte = answers * context_tokens * self.model.kv_byte_per_token
        return self.model.parameters * self.bits / 8 + cache_byte
