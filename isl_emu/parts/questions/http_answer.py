"""HTTP/1.1 answers from bytes, as they come: status, headers, and the body freed from its chunks.

Python's own client waits for each answer in a thread; thousands of streams at once need a parser that waits for
nobody. Source: RFC 9112, sections 6 and 7.
"""

from __future__ import annotations

from http.client import HTTPException, HTTPMessage, parse_headers
from io import BytesIO

HEAD_END = b"\r\n\r\n"
LONGEST_HEAD_BYTE = 65_536


class HttpAnswer:
    """One answer, fed with what arrives.

    `status`, `reason` and `headers` are there once the head has come; `complete` once the body has.
    """

    def __init__(self) -> None:
        self.status: int | None = None
        self.reason = ""
        self.headers = HTTPMessage()
        self.complete = False
        self._rest = b""
        self._left_byte: int | None = None  # of the body, or of the chunk; None: until the connection ends
        self._chunked = False

    def feed(self, data: bytes) -> bytes:
        """The part of the body that `data` brings.

        Raises:
            HTTPException: it is no HTTP/1.1 answer.
        """
        self._rest += data
        if self.status is None and not self._take_head():
            return b""
        return self._chunks() if self._chunked else self._plain()

    def _take_head(self) -> bool:
        head, end, rest = self._rest.partition(HEAD_END)
        if not end:
            if len(head) > LONGEST_HEAD_BYTE:
                raise HTTPException("the head of the answer does not end")
            return False
        line, _, fields = head.partition(b"\r\n")
        version, _, status = line.decode("latin-1").partition(" ")
        if not version.startswith("HTTP/1.") or not status[:3].isdigit():
            raise HTTPException(f"the answer begins with {line[:40]!r}, which is no HTTP/1.1")
        self.headers = parse_headers(BytesIO(fields + HEAD_END))
        self.status, self.reason, self._rest = int(status[:3]), status[4:], rest
        self._chunked = self.headers.get("Transfer-Encoding", "").lower() == "chunked"
        if not self._chunked and (length := self.headers.get("Content-Length")) is not None:
            self._left_byte = int(length)
        return True

    def _plain(self) -> bytes:
        body, self._rest = self._rest, b""
        if self._left_byte is not None:
            body = body[: self._left_byte]
            self._left_byte -= len(body)
            self.complete = self._left_byte == 0
        return body

    def _chunks(self) -> bytes:
        parts = []
        while not self.complete and (part := self._next_part()) is not None:
            parts.append(part)
        return b"".join(parts)

    def _next_part(self) -> bytes | None:
        """Data of the current chunk, or nothing after the line that begins one; None if more has to come first."""
        if self._left_byte is None:
            line, end, rest = self._rest.partition(b"\r\n")
            if not end:
                return None
            size_byte = int(line.partition(b";")[0], 16)
            self._rest, self._left_byte = rest, size_byte
            self.complete = size_byte == 0
            return b""
        if not self._left_byte:
            if len(self._rest) < 2:
                return None
            self._rest, self._left_byte = self._rest[2:], None  # the line end after a chunk
            return b""
        part = self._rest[: self._left_byte]
        self._rest = self._rest[len(part) :]
        self._left_byte -= len(part)
        return part or None
