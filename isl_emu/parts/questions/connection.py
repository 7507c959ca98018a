"""HTTP requests from any node's network namespace, thousands at once in one thread.

A socket stays in the namespace in which it is made, so the thread enters it for that moment only. What HTTP/1.1 says is
the library h11's matter: it gets the bytes as they come, and waits for nobody.

Answers are streamed as server-sent events, cut anywhere by the packets that carry them. Source:
https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any, Protocol

import h11

from isl_emu.parts.questions.exchange import SHOWN, STALL_NS, WireBytes, refused, wire_bytes
from isl_emu.runs.endpoints import Endpoint
from isl_emu.timebase import Clock

OK = 200
LONGEST_REFUSAL_BYTE = 65_536
LONGEST_HEAD_BYTE = 65_536
FIRST_PORT, PORTS = 32_768, 28_232  # that Linux gives to who asks for any (net.ipv4.ip_local_port_range)
CUT_OFF = "the connection ended before the answer did"


class Listener(Protocol):
    """Who waits for an answer."""

    def connected(self) -> None:
        """The connection stands."""

    def take(self, part: bytes, now_ns: int) -> bool:
        """A part of the body of an answer with status 200, and when it came; true once nothing more is wanted."""

    def patient_until_ns(self) -> int:
        """When to give up, on the clock; asked again whenever that moment has come."""

    def counted(self, wire: WireBytes) -> None:
        """What went over the wire, at the end of the connection."""


@dataclass(frozen=True)
class HttpRequest:
    """A request, and the body that it sends."""

    head: h11.Request
    body: bytes = b""


class HttpAnswer:
    """The answer to a request, fed with what arrives.

    `wire` is the request as it goes out; `status` and `reason` are there once the head of the answer has come,
    `complete` once its body has.
    """

    def __init__(self, request: HttpRequest) -> None:
        self.status: int | None = None
        self.reason = ""
        self.complete = False
        self._http = h11.Connection(h11.CLIENT, LONGEST_HEAD_BYTE)
        events = (request.head, h11.Data(request.body), h11.EndOfMessage())
        self.wire = b"".join(self._http.send(event) or b"" for event in events)

    def feed(self, data: bytes) -> bytes:
        """The part of the body that `data` brings; no data says that the connection has ended.

        Raises:
            HTTPException: it is no HTTP/1.1 answer, or ends before it is complete.
        """
        parts: list[bytes] = []
        try:
            self._http.receive_data(data)
            while not self.complete and (event := self._http.next_event()) is not h11.NEED_DATA:
                if isinstance(event, h11.Data):
                    parts.append(bytes(event.data))
                elif isinstance(event, h11.Response):  # one of 100 to 199 is no answer yet
                    self.status, self.reason = event.status_code, event.reason.decode("latin-1")
                elif isinstance(event, h11.ConnectionClosed):
                    raise HTTPException(CUT_OFF)
                self.complete = isinstance(event, h11.EndOfMessage)
        except h11.RemoteProtocolError as error:
            raise HTTPException(f"the answer is no HTTP/1.1: {error}" if data else CUT_OFF) from None
        return b"".join(parts)


class AnswerProtocol(asyncio.Protocol):
    """A connection on which an answer comes in.

    Args:
        now_ns: of the run's clock.
    """

    def __init__(self, request: HttpRequest, listener: Listener, now_ns: Callable[[], int]):
        self._listener, self._now_ns = listener, now_ns
        self._answer, self._refusal = HttpAnswer(request), b""
        self._wire = WireBytes()
        self._transport: asyncio.BaseTransport | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        transport.write(self._answer.wire)

    def data_received(self, data: bytes) -> None:
        if self.ended.done():
            return
        try:
            now_ns, answer = self._now_ns(), self._answer
            part = answer.feed(data)
            if answer.status != OK:
                self._refusal += part
                if answer.complete or len(self._refusal) > LONGEST_REFUSAL_BYTE:
                    raise refused(_told(self._refusal, answer.reason), answer.status)
            elif (part and self._listener.take(part, now_ns)) or answer.complete:
                self.ended.set_result(None)
        except Exception as error:  # whatever it was, who waits for the answer hears of it
            self.ended.set_exception(error)

    def connection_lost(self, error: Exception | None) -> None:
        self._count()
        if error is None:
            self.data_received(b"")
        elif not self.ended.done():
            self.ended.set_exception(error)

    def close(self) -> None:
        """End the connection, if it has not ended."""
        self._count()
        self._listener.counted(self._wire)
        self.ended.cancel()
        if self._transport:
            self._transport.close()

    def _count(self) -> None:
        if self._transport and (connection := self._transport.get_extra_info("socket")).fileno() >= 0:
            self._wire = wire_bytes(connection)


def _told(body: bytes, reason: str) -> Any:
    """What the body of a refusal says: JSON, a line of text, or nothing for people to read."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        text = " ".join(body.decode(errors="replace").split())
        return reason if not text or text.startswith("<") else text[:SHOWN]


@dataclass(frozen=True)
class Connector:
    """Makes requests from nodes.

    Each node's connections have one port after another: what the kernel would draw depends on all that is drawn in it,
    and where flows are spread over several ways, a connection's port decides which it takes.

    Args:
        enter: moves the calling thread into a network namespace.
        begun: how many connections each node has made, by its address.
    """

    clock: Clock
    enter: Callable[[str], None]
    begun: Counter[str] = field(default_factory=Counter)

    async def ask(self, source: Endpoint, target: Endpoint, request: HttpRequest, listener: Listener) -> None:
        """Send a request, and let the listener have its answer as it comes.

        Raises:
            TimeoutError: it was given up. RefusedError: another status than 200, UnavailableError if it may serve
                later. OSError, HTTPException: no route, no server, or a broken connection.
        """
        self.enter(source.netns)
        connection, loop = socket.socket(socket.AF_INET, socket.SOCK_STREAM), asyncio.get_running_loop()
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.bind(connection, source.address)
            connecting = loop.create_task(loop.sock_connect(connection, (target.address, target.port)))
            try:
                await self._patiently(connecting, listener)
            finally:
                connecting.cancel()
                await asyncio.wait({connecting})  # until the loop has let go of the socket
        except BaseException:
            connection.close()
            raise
        listener.connected()
        answering = AnswerProtocol(request, listener, self.clock.now_ns)
        try:
            await loop.create_connection(lambda: answering, sock=connection)
            await self._patiently(answering.ended, listener)
        finally:
            answering.close()

    def bind(self, connection: socket.socket, address: str) -> None:
        """Give a connection the next port of its node that nobody else there has.

        Raises:
            OSError: there is none, or no such address.
        """
        for _ in range(PORTS):
            port = FIRST_PORT + self.begun[address] % PORTS
            self.begun[address] += 1
            try:
                connection.bind((address, port))
                return
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

    async def sleep_until(self, t_ns: int) -> None:
        """Wait for a time of the clock."""
        while self.clock.now_ns() < t_ns:
            await asyncio.sleep(self.clock.timeout_s(t_ns))

    async def _patiently(self, future: asyncio.Future[Any], listener: Listener) -> None:
        """Wait for a future as long as the listener does."""
        while not future.done():
            look_ns = min(listener.patient_until_ns(), self.clock.now_ns() + STALL_NS)  # patience may also shorten
            timeout_s = self.clock.timeout_s(look_ns)
            done, _ = await asyncio.wait({future}, timeout=timeout_s)
            if not done and self.clock.now_ns() >= listener.patient_until_ns():
                raise TimeoutError("timed out")
        future.result()


def post(path: str, target: Endpoint, content: Any) -> HttpRequest:
    """A request that sends JSON."""
    data = json.dumps(content).encode()
    fields = {"Content-Type": "application/json", "Content-Length": str(len(data))}
    return HttpRequest(_head("POST", path, target, fields), data)


def get(path: str, target: Endpoint) -> HttpRequest:
    """A request that asks for something."""
    return HttpRequest(_head("GET", path, target, {"Connection": "close"}))


def _head(method: str, path: str, target: Endpoint, fields: Mapping[str, str]) -> h11.Request:
    headers = {"Host": f"{target.address}:{target.port}", **fields}
    return h11.Request(method=method, target=path, headers=list(headers.items()))


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
