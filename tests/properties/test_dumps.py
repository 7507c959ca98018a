"""What dumps say by column is what they say one object after another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isl_emu.errors import NetworkError
from isl_emu.nodes.dumps import joined_dumps
from isl_emu.nodes.netlink import NLA_TYPE_MASK, attribute, split_attributes

KINDS = (1, 2, 7, 300)
ATTRIBUTES = st.lists(st.tuples(st.sampled_from([*KINDS, 5, 1 | 0x8000]), st.binary(max_size=9)), max_size=6)
BODIES = st.tuples(ATTRIBUTES, st.binary(max_size=7)).map(
    lambda one: b"head" + b"".join(attribute(kind, held) for kind, held in one[0]) + one[1]
)  # with what is cut off at the end


@given(dumps=st.dictionaries(st.integers(0, 9_999), st.lists(BODIES, max_size=4), max_size=3))
def test_attributes_are_found_as_one_by_one(dumps: dict[int, list[bytes]]) -> None:
    node, bodies = joined_dumps(dumps)
    flat = [(number, body) for number, several in dumps.items() for body in several]
    assert node.tolist() == [number for number, _ in flat]
    found = bodies.attributes(*KINDS, skip=4)
    for row, (_, body) in enumerate(flat):
        alone = split_attributes(body[4:])
        assert [one.text(row) for one in found] == [alone.get(kind, b"") for kind in KINDS]
    for one, kind in zip(found, KINDS, strict=True):
        texts = [split_attributes(body[4:]).get(kind, b"") for _, body in flat]
        assert one.not_zero().tolist() == [any(text) for text in texts]
        assert one.are(b"\0\1").tolist() == [text == b"\0\1" for text in texts]
        wanted = [int.from_bytes(text[1:3], "big") if len(text) > 2 else 7 for text in texts]
        assert one.values(">u2", 1, otherwise=7).tolist() == wanted


@given(held=st.lists(st.lists(st.binary(max_size=9), max_size=4), min_size=1, max_size=4))
def test_all_parts_of_a_list_are_found(held: list[list[bytes]]) -> None:
    lists = [b"".join(attribute(number & NLA_TYPE_MASK, one) for number, one in enumerate(parts)) for parts in held]
    of, parts = joined_dumps({0: lists})[1].parts()
    found = sorted(zip(of.tolist(), (parts.text(row) for row in range(len(parts))), strict=True))
    assert found == sorted((number, one) for number, several in enumerate(held) for one in several)


def test_what_must_be_there_and_is_not_is_an_error() -> None:
    _, bodies = joined_dumps({3: [b"12345678", b"1234"]})
    assert bodies.values("u4").tolist() == np.frombuffer(b"12341234", "u4").tolist()
    with pytest.raises(NetworkError, match=r"^netlink: a kernel's answer lacks 4 bytes at 4 in 1 of 2 places"):
        bodies.values("u4", 4)
