"""How fast a board runs a language model, by a roofline: reading a prompt is bound by arithmetic, decoding by memory.

A decoding step reads the weights of all layers once, whatever the number of answers that it adds a token to, and each
answer's cache: ``t0 + (weights + context x cache of a token) / (eta x bandwidth)``. Each further answer in the step
adds the arithmetic of one token. A prompt takes ``2 x parameters x tokens / (eta_c x 16-bit rate)``.

Neglected: attention's own arithmetic (a tenth at some thousand tokens), the output layer, what several answers at once
cost beyond that (a published series on one board decodes eight at once 3.1 times as fast as one; this model says up to
six times), and heat, which the energy model has.

Source: S. Williams et al., "Roofline", CACM 52 (2009); constants of the boards: isl_emu/data/boards.toml.
"""

from __future__ import annotations

from dataclasses import dataclass

from isl_emu.scenario.boards import Board
from isl_emu.scenario.models import Model
from isl_emu.units import NS_PER_S


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
        read_byte = self.weight_byte + context_tokens * self.model.kv_byte_per_token
        reading_s = read_byte / (self.board.eta[self.bits] * self.board.memory_bandwidth_byte_s)
        return self.board.t0_ns + reading_s * NS_PER_S + self.prompt_ns(answers - 1)

    def memory_byte(self, context_tokens: int, answers: int) -> float:
        """What the weights, and the caches of so many answers of that length, take of the board's memory."""
        cache_byte = answers * context_tokens * self.model.kv_byte_per_token
        return self.model.parameters * self.bits / 8 + cache_byte
