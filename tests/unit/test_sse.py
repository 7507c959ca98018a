"""Server-sent events, however the packets cut them."""

from __future__ import annotations

import pytest

from isl_emu.parts.questions.connection import EventParser

STREAM = (
    'data: {"a":"é"}\r\n\r\n: comment\nevent: x\ndata: one\ndata:two\n\nid: 3\n\ndata: [DONE]\r\rdata: open'.encode()
)
EVENTS = ['{"a":"é"}', "one\ntwo", "[DONE]"]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 11, len(STREAM)])
def test_events_do_not_depend_on_how_the_stream_is_cut(size: int) -> None:
    parser = EventParser()
    pieces = [STREAM[begin : begin + size] for begin in range(0, len(STREAM), size)]
    assert [event for piece in pieces for event in parser.feed(piece)] == EVENTS
