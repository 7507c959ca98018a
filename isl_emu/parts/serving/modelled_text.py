"""What modelled servers answer: words at random, as long as a language model's tokens, and marked as what they are.

A token of English text is four to five characters with its space. Questions are counted by that too, since a modelled
model has no vocabulary: as many tokens as prompts of a given length are made of, and some for each message's template.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from isl_emu.parts.prompts import CHARACTERS_PER_TOKEN

MESSAGE_TOKENS = 5  # role and delimiters
MARK = "(modelled)"  # the first token of every answer
_TEXT = (
    "the of and to in is it as at by on an for that with from this are was its will may can has each more than over "
    "into near far low high up down out off one two three ten all some most least first last next same other few many "
    "orbit plane star sun moon sky sea ice land rain wind heat light dark shadow night day year time rate range pass "
    "link laser beam route path node data bit token model layer image sensor wave field power watt panel battery cold "
    "warm fast slow long short small large wide deep clear dense thin bright red blue green north south east west "
    "ground space earth ocean river lake forest desert city coast cloud storm fire smoke dust snow field crop ship "
    "road sees finds shows reads sends takes gives keeps holds turns moves rises sets falls grows drops waits ends"
)
WORDS = tuple(_TEXT.split())


def count_tokens(messages: Sequence[Mapping[str, Any]]) -> int:
    """How long a chat is, in tokens."""
    texts = [str(message.get("content") or "") for message in messages]
    return sum(MESSAGE_TOKENS + math.ceil(len(text) / CHARACTERS_PER_TOKEN) for text in texts)


def answer_tokens(seed: str) -> Iterator[str]:
    """The tokens of an answer, without end; the same for the same seed."""
    choose = random.Random(seed)
    yield MARK
    while True:
        yield f" {choose.choice(WORDS)}"
