"""What a modelled server still knows of prompts: blocks of tokens, each known by all that stands before it.

As in vLLM's automatic prefix caching (docs.vllm.ai/en/latest/design/prefix_caching/): a block has 16 tokens, its
digest is made of the block's before it and of its own tokens, only whole blocks are kept, the one used longest ago goes
first, of a prompt its end before its beginning, and a prompt's last token is always computed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

BLOCK_TOKENS = 16
DIGEST_BYTE = 16


def block_digests(tokens: Sequence[str]) -> tuple[bytes, ...]:
    """One for each whole block that a prompt may find in a cache, so not that of its last token."""
    found, before = [], b""
    for end in range(BLOCK_TOKENS, len(tokens), BLOCK_TOKENS):
        own = "\0".join(tokens[end - BLOCK_TOKENS : end]).encode("utf-8", "replace")
        before = blake2b(before + own, digest_size=DIGEST_BYTE).digest()
        found.append(before)
    return tuple(found)


class PrefixCache:
    """The blocks that one server holds.

    Args:
        most_tokens: in all of them.
    """

    def __init__(self, most_tokens: int):
        self.most_tokens = most_tokens
        self._blocks = OrderedDict[bytes, None]()  # the one used longest ago first

    def known_tokens(self, blocks: Sequence[bytes]) -> int:
        """How many tokens of a prompt with these blocks are known, from its first one on."""
        known = next((n for n, block in enumerate(blocks) if block not in self._blocks), len(blocks))
        return known * BLOCK_TOKENS

    def keep(self, blocks: Sequence[bytes]) -> None:
        """Hold those of a prompt that has been read."""
        for block in reversed(blocks):
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) * BLOCK_TOKENS > self.most_tokens:
            self._blocks.popitem(last=False)
