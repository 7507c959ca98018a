"""Server-sent events: the format in which answers are streamed, cut anywhere by the packets that carry it.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

import json
import re

LONGEST_EVENT_BYTE = 1 << 22
_MARK = b"\xef\xbb\xbf"  # a byte order mark, which may stand before the first line
_LINE_END = re.compile(rb"\r\n|\n|\r(?!$)")  # a CR at the very end may be the first half of CR LF


class EventParser:
    """Collects bytes and gives the data of each event that has become complete.

    Errors come as events too, whatever their form: the line ``error:`` of llama.cpp's server, and the event ``error``;
    both are given as a JSON object with the key "error".
    """

    def __init__(self) -> None:
        self._rest, self._begun = b"", False
        self._data: list[str] = []
        self._error = False

    def feed(self, data: bytes) -> list[str]:
        """The data of the events that end within `data`; other fields and comments are passed over.

        Raises:
            ValueError: an event without end.
        """
        self._rest += data
        if not self._begun and (len(self._rest) >= len(_MARK) or not _MARK.startswith(self._rest)):
            self._rest, self._begun = self._rest.removeprefix(_MARK), True
        *lines, self._rest = _LINE_END.split(self._rest)
        events = [event for line in lines if (event := self._line(line.decode(errors="replace"))) is not None]
        if len(self._rest) + sum(map(len, self._data)) > LONGEST_EVENT_BYTE:
            raise ValueError(f"an event of the answer is longer than {LONGEST_EVENT_BYTE:,} bytes")
        return events

    def end(self) -> list[str]:
        """The data of an event that the end of the stream has completed."""
        return self.feed(b"\n\n") if self._rest or self._data else []

    def _line(self, line: str) -> str | None:
        """Take one line; a blank one ends an event."""
        if line:
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field in ("data", "error"):
                self._data.append(value)
            self._error = self._error or field == "error" or (field, value) == ("event", "error")
            return None
        event, error, self._data, self._error = "\n".join(self._data), self._error, [], False
        if not (event and error):
            return event or None
        try:
            content = json.loads(event)
        except (ValueError, RecursionError):
            content = event
        return json.dumps(content if isinstance(content, dict) and content.get("error") else {"error": content})
