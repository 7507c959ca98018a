"""Whatever is given to a parser, it accepts it or says in our words what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isl_emu.errors import IslEmuError
from tests.parsers import PARSERS

# what has broken parsers before: nesting, huge and odd numbers, ends of lines, quotes, other alphabets
TOKENS = [
    *(b"[" * 2000, b"{" * 50, b'{"a":' * 2000, b"a." * 200, b"9" * 5000, b" " * 100),
    *(b"1e999999999", b"-1", b"nan", b"inf", b"9223372036854775808", b"0x1", b"\xd9\xa3", b"1979-05-27"),
    *(
        b"\0",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\r",
        b"\n",
        b'"',
        b"'",
        b'"""',
        b"=",
        b",",
        b";",
        b"#",
        b"<",
        b"</",
        b"&#0;",
    ),
    *(b"null", b"true", b"[]", b"{}"),
]


@st.composite
def changed(draw, seeds):
    """A seed of which some parts are cut out, doubled, or replaced by bytes or by a token."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 4))):
        begin = draw(st.integers(0, len(data)))
        end = min(len(data), begin + draw(st.integers(0, 40)))
        new = draw(
            st.one_of(st.sampled_from(TOKENS), st.binary(max_size=8), st.just(data[begin:end] * 2), st.just(b""))
        )
        data = data[:begin] + new + data[end:]
    return data


@pytest.mark.parametrize("name", PARSERS)
def test_only_errors_of_ours_come_out(name: str, tmp_path: Path) -> None:
    parser = PARSERS[name]

    @settings(max_examples=200, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.one_of(changed(parser.seeds), st.binary(max_size=200)))
    def give(data: bytes) -> None:
        try:
            parser.parse(data, tmp_path / "given")
        except parser.errors as error:
            if isinstance(error, IslEmuError):
                assert len(error.parts) == len(error.problems), error.problems

    give()


@pytest.mark.parametrize("name", sorted(set(PARSERS) - {"plan", "quantity"}))
def test_the_seeds_are_accepted(name: str, tmp_path: Path) -> None:
    for seed in PARSERS[name].seeds:
        PARSERS[name].parse(seed, tmp_path / "given")
