"""What is asked: the shipped prompts, a user's, and texts of a given length made from either.

A trace says how long a prompt was, not what it said. A prompt of n tokens is made of the prompts of the set, one after
the other, cut at `CHARACTERS_PER_TOKEN` x n characters. The tokeniser of the model decides what that makes: the
server's own count is in the results, and its chat template adds some 30 tokens for SmolLM2 (measured).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import cycle, pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np

from isl_emu.errors import ScenarioError
from isl_emu.files import encoding_of, read_whole, why_unread

CHARACTERS_PER_TOKEN = 4.6  # of the shipped prompts: 4.49 to 4.69 with the tokeniser of SmolLM2, measured
MOST_CHARACTERS_PER_TOKEN = 8  # no text in words has more over its length: what is longer surely does not fit
BUNDLED = "bundled"
BLOCK_TOKENS = 512  # of a prompt, for each of Mooncake's hash_ids; the traces' README
T = TypeVar("T")
LINE = '{"prompt": "Why is the sky blue?"}'


def read_prompts(name: str) -> tuple[str, ...]:
    """The prompts that ship with isl-emu (`BUNDLED`), or those of a file of JSON lines.

    Raises:
        ScenarioError: the file cannot be read, or one of its lines has no text under the key `prompt`.
    """
    where = f"questions.prompt_file: {name}"
    try:
        data = (
            files("isl_emu.data").joinpath("prompts.jsonl").read_bytes() if name == BUNDLED else read_whole(Path(name))
        )
        text = data.decode(encoding_of(data))
    except (OSError, ValueError) as error:
        raise ScenarioError(
            f"{where} cannot be read ({why_unread(error)}), but it must be a file of lines like {LINE}; name one"
        ) from None
    found = tuple(_prompt(line, f"{where} line {n}") for n, line in enumerate(text.splitlines(), 1) if line.strip())
    if not found:
        raise ScenarioError(f"{where} holds no prompt, but at least one is needed; add a line")
    return found


def _prompt(line: str, where: str) -> str:
    try:
        prompt = json.loads(line)["prompt"]
    except (ValueError, TypeError, KeyError, RecursionError):
        prompt = None
    if not isinstance(prompt, str) or not prompt.strip():
        raise ScenarioError(f"{where} is {line[:40]!r}, but a line is like {LINE}; correct it")
    return prompt


def shuffled_for_ever(prompts: Sequence[T], rng: np.random.Generator) -> Iterator[T]:
    """Each prompt once in a random order, then each once again, without end."""
    while True:
        for place in rng.permutation(len(prompts)):
            yield prompts[place]


def text_of_length(tokens: int, first: str, prompts: Sequence[str], rng: np.random.Generator) -> str:
    """A text of about `tokens` tokens that begins with `first`, or with as much of it as fits."""
    wanted, parts = _characters(tokens), [first]
    length, others = len(first), shuffled_for_ever(prompts, rng)
    while length < wanted:
        parts.append(next(others))
        length += 1 + len(parts[-1])
    return " ".join(parts)[:wanted]


def text_of_blocks(tokens: int, blocks: Sequence[int], scale: float, prompts: Sequence[str]) -> str:
    """A text of about `tokens` tokens, of which each block is told by its number alone: equal numbers, equal text.

    Args:
        scale: by which the lengths of the trace were multiplied, so that a block has `BLOCK_TOKENS` x scale tokens.
    """
    size = max(1, round(BLOCK_TOKENS * scale))
    text = "".join(text_of_length(size, f"({n})", prompts, np.random.default_rng([n])) for n in blocks)
    filler = cycle(prompts)
    while len(text) < _characters(tokens):
        text += " " + next(filler)
    return text[: _characters(tokens)]


def text_tokens(text: str) -> int:
    """How long a text is in tokens of a modelled model, which has no vocabulary."""
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def token_texts(text: str) -> list[str]:
    """The same tokens: what the text has at each of them."""
    begins = [int(number * CHARACTERS_PER_TOKEN) for number in range(text_tokens(text))]
    return [text[begin:end] for begin, end in pairwise([*begins, len(text)])]


def _characters(tokens: int) -> int:
    return max(1, round(tokens * CHARACTERS_PER_TOKEN))
