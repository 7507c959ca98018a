"""The server of a page that shows a plan or a run, and of the same data for other programs, as in docs/stream.md.

It listens on the loopback alone, and answers who knows its token and names it as its host: no page of another site, by
whatever name it reaches this machine, gets anything. Whatever takes long to make is made once, beside the loop.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web

from isl_emu.errors import IslEmuError, MachineError
from isl_emu.parts.part import Event
from isl_emu.view.board import Board, board_of
from isl_emu.view.events import events_of
from isl_emu.view.live import ACTS, LiveEvents
from isl_emu.view.metrics import metrics_text
from isl_emu.view.sky import Sky

LOOPBACK = "127.0.0.1"
HOSTS = (LOOPBACK, "localhost")
TOKEN_BYTE = 24
MOST_ACT_BYTE = 10_000
MOST_PAST, MOST_WAITING = 200_000, 100_000  # events that who comes late gets; that may wait for one who is slow
LOOK_S = 0.25  # between two looks at a live run
HEARTBEAT_S = 20.0
PASSING = ("clock", "load")  # events that are of no use later
NEEDS_PLACE = ("fault", "capture")
BINARY, TEXT = "application/octet-stream", "text/plain"
HEADERS = {
    # the page's own scripts and styles, and the workers and pictures that it makes itself
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "worker-src 'self' blob:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}
PAGE = "index.html"
ASSET = re.compile(r'((?:src|href)="/?assets/[^"?]+)"')  # what the page asks for
NO_PAGE = (
    "web/index.html: is not there, but it is the page that shows this; build it with ./scripts/build-web, which needs "
    "npm\n"
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ViewServer:
    """What is shown of one plan or run.

    Args:
        web_folder: where the page is; that of this package by default.
    """

    def __init__(self, sky: Sky, web_folder: Path | None = None):
        self.sky, self.token = sky, secrets.token_urlsafe(TOKEN_BYTE)
        self.live = LiveEvents(sky) if sky.kind == "live" else None
        self._board, self._past = Board.of(sky), deque[Event](maxlen=MOST_PAST)
        self._readers: set[asyncio.Queue[Event | None]] = set()
        self._web = web_folder or Path(str(files("isl_emu.view") / "web"))
        self._making = asyncio.Lock()
        self._made: dict[str, bytes] = {}
        self._port = 0

    @cached_property
    def events(self) -> list[Event]:
        """Of a run that is over, or of a plan."""
        return events_of(self.sky.planned, self.sky.concluded)

    async def follow(self, enough: asyncio.Event) -> None:
        """Pass on what a live run does until it is over, or it is enough; a last look comes after that."""
        assert self.live is not None
        while not self.live.gone:
            last = enough.is_set()
            for event in await asyncio.to_thread(self.live.poll):
                self._board.take(event)
                if event["type"] not in PASSING:
                    self._past.append(event)
                for reader in self._readers.copy():
                    try:
                        reader.put_nowait(event)
                    except asyncio.QueueFull:  # whoever cannot keep up must come again
                        self._readers.discard(reader)
            if last:
                break
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(enough.wait(), LOOK_S)
        for reader in self._readers:
            with suppress(asyncio.QueueFull):
                reader.put_nowait(None)

    def application(self) -> web.Application:
        """The routes of all that it answers."""
        application = web.Application(middlewares=[self._guard], client_max_size=MOST_ACT_BYTE)
        made: dict[str, tuple[str, Callable[[], bytes]]] = {
            "/sky.json": ("application/json", lambda: _json(self.sky.to_json())),
            "/positions.f32": (BINARY, lambda: _floats(self.sky.positions)),
            "/sun.f32": (BINARY, lambda: _floats(self.sky.sun)),
            "/states.json": ("application/json", lambda: _json({"links": self.sky.states})),
            "/load.f32": (BINARY, lambda: _floats(self.sky.load)),
        }
        passing: dict[str, tuple[str, Callable[[], bytes]]] = {
            "/events.json": ("application/json", lambda: _json(list(self._past) if self.live else self.events)),
            "/metrics": (TEXT, lambda: metrics_text(self._board if self.live else self._final).encode()),
        }
        for path, (kind, make) in (made | passing).items():
            application.router.add_get(path, self._answer(path, kind, make, whole=path in made or self.live is None))
        application.router.add_get("/events", self._stream)
        application.router.add_post("/act", self._act)
        application.router.add_get("/", self._page)
        application.router.add_get("/assets/{name}", self._asset)
        application.router.add_get("/node", self._node)
        application.router.add_get("/link", self._link)
        return application

    @cached_property
    def _final(self) -> Board:
        return board_of(self.sky, self.events)

    def listen(self, port: int = 0) -> socket.socket:
        """A socket on the loopback, at a free port if it is 0.

        Raises:
            MachineError: somebody else has that port.
        """
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((LOOPBACK, port))
        except (OSError, OverflowError) as error:
            listening.close()
            raise MachineError(
                f"--port: {port} cannot be used ({error}), but the page is served there; leave it out for a free one"
            ) from None
        self._port = listening.getsockname()[1]
        return listening

    @property
    def address(self) -> str:
        """Where a browser finds the page."""
        return f"http://{LOOPBACK}:{self._port}/?token={self.token}"

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Only who knows the token, at this host's own name; errors as sentences."""
        given = request.query.get("token", "")
        if request.headers.get("Host") not in {f"{host}:{self._port}" for host in HOSTS}:
            return _refusal(403, "Host: is not this server, but only pages of its own are answered; use its address\n")
        if request.headers.get("Origin", self._origin(request)) != self._origin(request):
            return _refusal(403, "Origin: is another site, but only pages of its own are answered; use its address\n")
        if not secrets.compare_digest(given.encode(), self.token.encode()):
            return _refusal(403, "token: is not that of this server, but it is needed; use the address it printed\n")
        try:
            response = await handler(request)
        except web.HTTPException as error:
            response = _refusal(error.status, f"{error.reason}\n")
        except IslEmuError as error:
            response = _refusal(404, f"{error}\n")
        except ValueError as error:
            response = _refusal(400, f"{error}\n")
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    @staticmethod
    def _origin(request: web.Request) -> str:
        return f"http://{request.headers.get('Host')}"

    def _answer(self, path: str, kind: str, make: Callable[[], bytes], *, whole: bool) -> Handler:
        """Answer with what is made once, in a thread so that others are answered meanwhile, or anew each time."""

        async def answer(request: web.Request) -> web.StreamResponse:
            async with self._making:
                body = self._made.get(path)
                if body is None:
                    body = await asyncio.to_thread(make) if whole else make()
                if whole:
                    self._made[path] = body
            response = web.Response(body=body, content_type=kind)
            response.enable_compression()
            return response

        return answer

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """All events up to now, and those of a live run as they come."""
        socket_, reader = web.WebSocketResponse(heartbeat=HEARTBEAT_S), asyncio.Queue[Event | None](MOST_WAITING)
        await socket_.prepare(request)
        if self.live is None:
            hello: Event = {"type": "hello", "format": 1, "now_s": self.sky.duration_s, "state": "ended"}
            past, ended = await asyncio.to_thread(lambda: self.events), True
        else:
            hello, past, ended = self.live.hello(), list(self._past), self.live.gone
            self._readers.add(reader)
        listening = asyncio.create_task(_until_closed(socket_))
        try:
            for event in (hello, *past):
                await socket_.send_str(_json(event).decode())
            while not ended and (new := await _next(reader, listening)) is not None:
                await socket_.send_str(_json(new).decode())
        except ConnectionError:  # it has gone
            pass
        finally:
            self._readers.discard(reader)
            listening.cancel()
        await socket_.close()
        return socket_

    async def _act(self, request: web.Request) -> web.StreamResponse:
        """Do what a button says, to one's own live run."""
        if self.live is None or not self.sky.buttons:
            return _refusal(403, "act: is asked for, but only one's own live run can be acted on; start it yourself\n")
        if request.content_type != "application/json":
            return _refusal(415, "act: is no JSON, but a verb comes as JSON; see docs/stream.md\n")
        asked = await request.json()
        verb = str(asked.get("verb")) if isinstance(asked, dict) else ""
        if verb not in ACTS:
            return _refusal(400, f"verb: is {verb!r}, but it is one of {', '.join(ACTS)}; choose one\n")
        place = [str(asked[key]) for key in ("a", "b") if asked.get(key) is not None]
        if not set(place) <= set(self.sky.planned.nodes) or (verb in NEEDS_PLACE and not place):
            return _refusal(400, "a, b: are no nodes of this plan, but a verb needs its place; name them\n")
        done, text = await asyncio.to_thread(self.live.press, verb, place)
        return web.json_response({"ok": done, "text": text})

    async def _page(self, request: web.Request) -> web.StreamResponse:
        """The page, whose scripts and styles are asked for with the token too."""
        if (path := self._file(PAGE)) is None:
            return _refusal(404, NO_PAGE)
        text = ASSET.sub(rf'\1?token={self.token}"', path.read_text(encoding="utf-8"))
        return web.Response(text=text, content_type="text/html")

    async def _asset(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        path = self._file(name)
        return _refusal(404, f"{name}: there is no such file\n") if path is None else web.FileResponse(path)

    def _file(self, name: str) -> Path | None:
        """A file of the page; nothing outside of its folder, also by no link."""
        root = self._web.resolve()
        path = (root / name).resolve()
        return path if path.is_relative_to(root) and path.is_file() else None

    async def _node(self, request: web.Request) -> web.StreamResponse:
        number, t_s = _number(request, "i"), _time(request)
        return web.json_response(await asyncio.to_thread(self.sky.node, number, t_s))

    async def _link(self, request: web.Request) -> web.StreamResponse:
        a, b, t_s = _number(request, "a"), _number(request, "b"), _time(request)
        return web.json_response(await asyncio.to_thread(self.sky.link, a, b, t_s))


async def _until_closed(socket_: web.WebSocketResponse) -> None:
    """Read, and pass over, what whoever reads the stream sends, until they close it."""
    async for _ in socket_:
        pass


async def _next(reader: asyncio.Queue[Event | None], listening: asyncio.Task[None]) -> Event | None:
    """The next event; None if there are no more, or nobody listens any more."""
    getting = asyncio.create_task(reader.get())
    done, _ = await asyncio.wait({getting, listening}, return_when=asyncio.FIRST_COMPLETED)
    if getting in done:
        return getting.result()
    getting.cancel()
    return None


def _number(request: web.Request, key: str) -> int:
    try:
        return int(request.query[key])
    except (KeyError, ValueError):
        raise ValueError(f"{key}: is no whole number, but a node is named by its number; see sky.json") from None


def _time(request: web.Request) -> float:
    text = request.query.get("t", "0")
    try:
        t_s = float(text)
    except ValueError:
        t_s = float("nan")
    if t_s != t_s:
        raise ValueError(f"t: is {text!r}, but it is a time in seconds; leave it out for the start")
    return t_s


def _floats(values: np.ndarray | None) -> bytes:
    return b"" if values is None else values.tobytes()


def _refusal(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text, headers=HEADERS)


def _json(record: Any) -> bytes:
    return json.dumps(record, separators=(",", ":"), allow_nan=False).encode()
