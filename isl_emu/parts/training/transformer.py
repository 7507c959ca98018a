"""A small transformer that predicts the next character, and a text to learn from.

The text is made up as it is needed: short reports from orbit, of a few words in a fixed grammar. It is endless and
free, each satellite has its own part of it, and a small model soon notices how it goes on.
"""

from __future__ import annotations

import random

import torch
from torch import nn
from torch.nn import functional

from isl_emu.scenario.training import Real

TEXT_CHARACTERS = 50_000  # of one satellite
ALPHABET = "\n abcdefghijklmnopqrstuvwxyz.,0123456789"

_SUBJECTS = ("the fore laser", "the aft laser", "the star tracker", "the battery", "the radiator", "the solar panel",
             "the camera", "the router")  # fmt: skip
_STATES = ("works as planned", "is warmer than before", "points at the next satellite", "waits for the eclipse to end",
           "was tested and is well", "needs a rest")  # fmt: skip
_PLACES = ("over the pacific", "above the north pole", "near the equator", "on the night side", "at the terminator",
           "in view of the ground")  # fmt: skip
_FOLLOWS = ("so we go on", "so we slow down", "and nothing else is new", "and the link is up again")


class Block(nn.Module):
    """Attention to what came before, then a perceptron; each added to what goes in (pre-norm)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self._heads = heads
        self.norm_attention, self.norm_perceptron = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, context, width) to the same."""
        batch, context, width = x.shape
        parts = self.queries_keys_values(self.norm_attention(x)).split(width, dim=2)
        by_head = (part.view(batch, context, self._heads, -1).transpose(1, 2) for part in parts)
        attended = functional.scaled_dot_product_attention(*by_head, is_causal=True)
        x = x + self.mix(attended.transpose(1, 2).reshape(batch, context, width))
        return x + self.perceptron(self.norm_perceptron(x))


class Writer(nn.Module):
    """A character-level language model; the same weights for the same seed."""

    def __init__(self, form: Real, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.characters = nn.Embedding(len(ALPHABET), form.width)
        self.places = nn.Embedding(form.context, form.width)
        self.blocks = nn.Sequential(*(Block(form.width, form.heads) for _ in range(form.layers)))
        self.norm, self.head = nn.LayerNorm(form.width), nn.Linear(form.width, len(ALPHABET))

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Places in the alphabet (batch, context) to scores of what comes next (batch, context, characters)."""
        x = self.characters(text) + self.places(torch.arange(text.shape[1]))
        return self.head(self.norm(self.blocks(x)))

    def loss(self, text: torch.Tensor) -> torch.Tensor:
        """The mean cross-entropy of each next character, in nats."""
        scores = self(text[:, :-1])
        return functional.cross_entropy(scores.flatten(0, 1), text[:, 1:].flatten())


class Batches:
    """What one satellite trains on: the same for the same step, however often it is repeated."""

    def __init__(self, form: Real, seed: int, rank: int):
        self._form, self._seed = form, (seed * 10_007 + rank) * 1_000_003
        self._text = torch.tensor(encoded(reports(self._seed, TEXT_CHARACTERS)))

    def batch(self, number: int) -> torch.Tensor:
        """Sequences one longer than the context, (batch, context + 1)."""
        generator = torch.Generator().manual_seed(self._seed + number)
        last = len(self._text) - self._form.context - 1
        starts = torch.randint(last, (self._form.batch, 1), generator=generator)
        return self._text[starts + torch.arange(self._form.context + 1)]


def reports(seed: int, characters: int) -> str:
    """So many characters of reports, the same for the same seed; all of them are in `ALPHABET`."""
    generator, text = random.Random(seed), ""
    while len(text) < characters:
        subject, state, place, follows = map(generator.choice, (_SUBJECTS, _STATES, _PLACES, _FOLLOWS))
        text += f"orbit {generator.randrange(100)}, {place}. {subject} {state}, {follows}.\n"
    return text[:characters]


def encoded(text: str) -> list[int]:
    """The place of each character in `ALPHABET`."""
    places = {character: place for place, character in enumerate(ALPHABET)}
    return [places[character] for character in text]
