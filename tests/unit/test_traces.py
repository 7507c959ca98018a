"""Traces as their authors publish them; the lines are ours, the form is theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from isl_emu.errors import ScenarioError
from isl_emu.parts.questions.traces import TracedRequest, read_trace
from isl_emu.scenario.questions import Trace
from isl_emu.units import NS_PER_S

BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45.5,GPT-4,1087,230,1317,API log
45.5,ChatGPT,417,0,417,Conversation log
118,ChatGPT,1360,647,2007,Conversation log
"""
AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:04.0319600,3180,8
2024-05-10 00:00:00.009930+00:00,110,27
"""
MOONCAKE = """{"timestamp": 0, "input_length": 1755, "output_length": 500, "hash_ids": [0, 1, 2, 3]}
{"timestamp": 3052, "input_length": 1030, "output_length": 52, "hash_ids": [0, 1, 9]}
"""
QWEN = """{"chat_id": 1, "timestamp": 0.5, "input_length": 40, "output_length": 132, "hash_ids": [7, 8, 9]}
{"chat_id": 2, "timestamp": 61.114, "input_length": 75, "output_length": 12, "hash_ids": [7, 8, 9, 10, 11]}
"""
YEARS_NS = 10 * 366 * 86_400 * NS_PER_S


def _read(folder: Path, text: str, end_ns: int = YEARS_NS, **settings: object) -> list[TracedRequest]:
    path = folder / "trace"
    path.write_text(text, encoding="utf-8")
    return read_trace(Trace.model_validate({"file": str(path), **settings}), end_ns)


def test_burstgpt_counts_seconds_and_leaves_out_what_was_never_answered(tmp_path: Path) -> None:
    assert _read(tmp_path, BURSTGPT) == [
        TracedRequest(0, 472, 18),
        TracedRequest(40_500_000_000, 1087, 230),
        TracedRequest(113 * NS_PER_S, 1360, 647),
    ]


def test_azure_has_moments_with_seven_decimals_or_a_zone(tmp_path: Path) -> None:
    first, second, third = _read(tmp_path, AZURE)
    assert (first, second) == (TracedRequest(0, 4808, 10), TracedRequest(52_000_000, 3180, 8))
    assert third.t_ns == 15_140_576_029_970_000  # 175 days, 5 h 42 min 56.02997 s later


def test_mooncake_has_milliseconds_and_shared_blocks(tmp_path: Path) -> None:
    assert _read(tmp_path, MOONCAKE) == [
        TracedRequest(0, 1755, 500, (0, 1, 2, 3)),
        TracedRequest(3_052_000_000, 1030, 52, (0, 1, 9)),
    ]


def test_mooncake_without_hash_ids_shares_no_prefixes(tmp_path: Path) -> None:
    text = '{"timestamp": 0, "input_length": 100, "output_length": 20}\n'
    assert _read(tmp_path, text) == [TracedRequest(0, 100, 20)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("2024-03-31 01:59:59+01:00", "2024-03-31 03:00:00+02:00"),  # the clocks of central Europe go forward
        ("2024-10-27 02:59:59+02:00", "2024-10-27 02:00:00+01:00"),  # and back
        ("2024-03-31 00:59:59Z", "2024-03-31 03:00:00+02:00"),
    ],
)
def test_a_change_of_the_offset_from_utc_costs_no_hour(tmp_path: Path, before: str, after: str) -> None:
    text = f"TIMESTAMP,ContextTokens,GeneratedTokens\n{before},10,5\n{after},10,5\n"
    assert [request.t_ns for request in _read(tmp_path, text)] == [0, NS_PER_S]


def test_a_byte_order_mark_and_blanks_in_the_heading_do_not_matter(tmp_path: Path) -> None:
    assert len(_read(tmp_path, "\ufeff" + BURSTGPT.replace(",", ", "))) == 3


def test_time_is_moved_and_stretched_and_lengths_are_scaled(tmp_path: Path) -> None:
    settings = {"offset": "40 s", "speed_up": 2.0, "token_scale": 0.1}
    assert _read(tmp_path, BURSTGPT, **settings) == [
        TracedRequest(250_000_000, 109, 23),
        TracedRequest(36_500_000_000, 136, 65),
    ]


def test_only_what_comes_before_the_end_and_no_more_than_the_limit(tmp_path: Path) -> None:
    assert len(_read(tmp_path, BURSTGPT, end_ns=113 * NS_PER_S)) == 2
    assert len(_read(tmp_path, BURSTGPT, limit=1)) == 1


@pytest.mark.parametrize(
    ("text", "settings", "complaint"),
    [
        ("", {}, "begins with '', but that is not the first line of a BurstGPT, Azure or Mooncake trace"),
        ("a,b\n1,2\n", {}, "begins with 'a,b'"),
        ('{"prompt": 3}\n', {}, "begins with"),
        (AZURE, {"format": "burstgpt"}, "is not the first line of the format burstgpt"),
        (BURSTGPT.replace("1087", "many"), {}, "line 3 is broken"),
        (BURSTGPT.replace("118", "soon"), {}, "line 5 is broken"),
        (BURSTGPT.replace("118", "4"), {}, "line 5 is earlier than the line before it"),
        (AZURE.replace("2023-11-16 18:17:04", "yesterday"), {}, "line 3 is broken"),
        (MOONCAKE + "{torn", {}, "line 3 is broken"),
        (MOONCAKE.replace('"output_length": 52, ', ""), {}, "line 2 is broken"),
        (
            MOONCAKE.replace("[0, 1, 9]", "[0, 1, 9, 10]"),
            {},
            "line 2 is broken (ValueError: 4 hash_ids for 1030 tokens",
        ),
        (QWEN, {}, "it has a chat_id, so it is of another publisher, who counts seconds and blocks of 16 tokens"),
        (QWEN.replace('"chat_id": 1, ', ""), {}, "3 hash_ids for 40 tokens"),
    ],
)
def test_what_is_no_trace_is_refused_with_its_line(
    tmp_path: Path, text: str, settings: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ScenarioError) as caught:
        _read(tmp_path, text, **settings)
    assert complaint in str(caught.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ScenarioError, match="no-such.csv cannot be read"):
        read_trace(Trace.model_validate({"file": "no-such.csv"}), YEARS_NS)
