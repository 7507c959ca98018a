"""Server-sent events: the format in which answers are streamed, cut anywhere by the packets that carry it.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

import re

_LINE_END = re.compile(rb"\r\n|\n|\r(?!$)")  # a CR at the very end may be the first half of CR LF


class EventParser:
    """Collects bytes and gives the data of each event that has become complete."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[str] = []

    def feed(self, data: bytes) -> list[str]:
        """The data of the events that end within `data`; other fields and comments are passed over."""
        *lines, self._rest = _LINE_END.split(self._rest + data)
        return [event for line in lines if (event := self._line(line.decode())) is not None]

    def _line(self, line: str) -> str | None:
        """Take one line; a blank one ends an event."""
        if line:
            field, _, value = line.partition(":")
            if field == "data":
                self._data.append(value.removeprefix(" "))
            return None
        event, self._data = self._data, []
        return "\n".join(event) if event else None
