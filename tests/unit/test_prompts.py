"""What is asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from isl_emu.errors import ScenarioError
from isl_emu.parts.prompts import CHARACTERS_PER_TOKEN, read_prompts, text_of_blocks, text_of_length


def test_the_shipped_prompts_are_many_different_and_short() -> None:
    prompts = read_prompts("bundled")
    assert len(set(prompts)) == len(prompts) >= 100
    assert all(10 < len(prompt) < 200 and prompt == prompt.strip() for prompt in prompts)


def test_a_users_file_is_lines_with_a_prompt_and_whatever_else(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "Où?", "language": "fr"}\n\n{"prompt": "Why?"}\n', encoding="utf-8")
    assert read_prompts(str(path)) == ("Où?", "Why?")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"prompt": "a"}\n{"question": "b"}\n', "line 2 is"),
        ('{"prompt": ""}\n', "line 1 is"),
        ('["a"]\n', "line 1 is"),
        ("plain text\n", "line 1 is 'plain text'"),
        ("\n", "holds no prompt"),
    ],
)
def test_what_is_no_prompt_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "p.jsonl").write_text(text)
    with pytest.raises(ScenarioError, match=complaint):
        read_prompts(str(tmp_path / "p.jsonl"))


def test_a_file_that_cannot_be_read_is_named() -> None:
    with pytest.raises(ScenarioError, match=r"no-such\.jsonl cannot be read"):
        read_prompts("no-such.jsonl")


@pytest.mark.parametrize("tokens", [1, 2, 100, 3000])
def test_texts_have_the_length_that_is_asked_for(tokens: int) -> None:
    prompts, rng = read_prompts("bundled"), np.random.default_rng(1)
    assert len(text_of_length(tokens, "Why is the sky blue?", prompts, rng)) == round(tokens * CHARACTERS_PER_TOKEN)
    assert len(text_of_blocks(tokens, (3, 4), 1.0, prompts)) == round(tokens * CHARACTERS_PER_TOKEN)


def test_blocks_shrink_with_the_lengths_of_the_trace() -> None:
    prompts = read_prompts("bundled")
    a, b = (text_of_blocks(102, (1, other), 0.1, prompts) for other in (2, 3))
    assert a[: round(51 * CHARACTERS_PER_TOKEN)] == b[: round(51 * CHARACTERS_PER_TOKEN)]
    assert a != b
