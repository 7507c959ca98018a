"""What a modelled server still knows of prompts."""

from __future__ import annotations

import pytest

from isl_emu.parts.prompts import text_tokens, token_texts
from isl_emu.parts.serving.modelled_engine import Engine, Job
from isl_emu.parts.serving.modelled_server import count_tokens, prompt_pieces
from isl_emu.parts.serving.prefix_cache import BLOCK_TOKENS, PrefixCache, block_digests
from isl_emu.scenario.boards import board_named
from isl_emu.scenario.models import Roofline, model_named

ROOFLINE = Roofline(board_named("three-body"), model_named("qwen3-8b"), 4)
FIRST = [str(number) for number in range(100)]
TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why is the sky blue? " * 20}]


@pytest.mark.parametrize("length", [0, 1, 4, 5, 46, 1000])
def test_a_text_is_cut_into_as_many_tokens_as_it_counts(length: int) -> None:
    text = "abcdefghij" * 100
    pieces = token_texts(text[:length])
    assert "".join(pieces) == text[:length]
    assert len(pieces) == text_tokens(text[:length])


def test_a_chat_that_goes_on_has_the_blocks_that_it_began_with() -> None:
    more = [*TALK, {"role": "assistant", "content": "It scatters."}, {"role": "user", "content": "And red?" * 9}]
    assert len(prompt_pieces(more)) == count_tokens(more)
    begun, gone_on = block_digests(prompt_pieces(TALK)), block_digests(prompt_pieces(more))
    assert gone_on[: len(begun)] == begun
    assert len(gone_on) > len(begun) > 0


def test_a_prompts_last_token_is_always_computed() -> None:
    assert [len(block_digests(FIRST[:length])) for length in (15, 16, 17, 32, 33)] == [0, 0, 1, 1, 2]


def test_a_block_is_known_by_all_that_stands_before_it() -> None:
    cache = PrefixCache(1000)
    cache.keep(block_digests(FIRST))
    assert cache.known_tokens(block_digests(FIRST)) == 96
    assert cache.known_tokens(block_digests([*FIRST[:40], "other", *FIRST[41:]])) == 32
    assert cache.known_tokens(block_digests(["other", *FIRST[1:]])) == 0


def test_what_was_used_longest_ago_goes_first_and_ends_before_beginnings() -> None:
    cache, other = PrefixCache(6 * BLOCK_TOKENS), [f"other {number}" for number in range(100)]
    cache.keep(block_digests(FIRST[:65]))  # four blocks
    cache.keep(block_digests(other[:65]))
    assert cache.known_tokens(block_digests(FIRST)) == 2 * BLOCK_TOKENS
    assert cache.known_tokens(block_digests(other)) == 4 * BLOCK_TOKENS
    cache.keep(block_digests(FIRST[:33]))  # used again
    cache.keep(block_digests([f"third {number}" for number in range(33)]))
    assert cache.known_tokens(block_digests(FIRST)) == 2 * BLOCK_TOKENS
    assert cache.known_tokens(block_digests(other)) == 2 * BLOCK_TOKENS


def test_a_server_reads_only_what_is_new() -> None:
    def read(engine: Engine, blocks: tuple[bytes, ...] | None) -> Job:
        job = Job(len(FIRST), 1, engine.due_ns or 0, blocks=blocks)
        engine.submit(job)
        while engine.due_ns is not None:
            engine.finish_step()
        return job

    engine, blocks = Engine(ROOFLINE, slots=1, cache_tokens=1000), block_digests(FIRST)
    first, second, may_not = read(engine, blocks), read(engine, blocks), read(engine, None)
    assert [(job.prompt_tokens, job.cached_tokens) for job in (first, second, may_not)] == [(100, 0), (4, 96), (100, 0)]
    assert second.read_ns == pytest.approx(ROOFLINE.prompt_ns(4), abs=2)
    assert read(engine.begun_anew(), blocks).cached_tokens == 0  # what is restarted knows nothing
    assert read(Engine(ROOFLINE, slots=1), blocks).cached_tokens == 0
