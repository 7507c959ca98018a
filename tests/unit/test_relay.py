"""The relay to a server outside, on this machine's loopback."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from isl_emu.parts.serving.relay import application
from isl_emu.parts.serving.relay_orders import Relayed, read_relayed, write_relayed

ADDRESS = "127.0.0.1"
KEY = "ISL_EMU_TEST_KEY"


class Outside(BaseHTTPRequestHandler):
    """Streams back, in two parts, what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(404 if self.path == "/base/missing" else 200, b"fine")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        seen = {"path": self.path, "body": body, "key": self.headers.get("Authorization")}
        self._answer(200, json.dumps(seen).encode())

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in (content[:2], content[2:]):
            self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    """Where the server outside is."""
    server = ThreadingHTTPServer((ADDRESS, 0), Outside)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://{ADDRESS}:{server.server_port}/base/"
    server.shutdown()
    thread.join()
    server.server_close()


def relayed(url: str, ask: Callable[[int], Any], model: str | None = None, key: str | None = None) -> Any:
    """What `ask` returns, called with the port of a satellite's end."""

    async def serve() -> Any:
        runner = web.AppRunner(application({ADDRESS: Relayed("", ADDRESS, 0, url, model, key)}), handle_signals=False)
        await runner.setup()
        listening = socket.create_server((ADDRESS, 0))
        await web.SockSite(runner, listening).start()
        try:
            return await asyncio.to_thread(ask, listening.getsockname()[1])
        finally:
            await runner.cleanup()

    return asyncio.run(serve())


def request(port: int, method: str, path: str, body: Any = None) -> tuple[int, str | None, bytes]:
    connection = HTTPConnection(ADDRESS, port, timeout=60)
    connection.request(method, path, None if body is None else json.dumps(body))
    response = connection.getresponse()
    return response.status, response.getheader("Content-Type"), response.read()


def test_questions_and_answers_pass_through_under_the_urls_own_path(url: str) -> None:
    status, kind, content = relayed(url, lambda port: request(port, "POST", "/v1/chat/completions", {"stream": True}))
    assert (status, kind) == (200, "text/event-stream")
    assert json.loads(content) == {"path": "/base/v1/chat/completions", "body": {"stream": True}, "key": None}


def test_a_question_is_given_the_models_name_and_the_key(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "secret")
    _, _, content = relayed(url, lambda port: request(port, "POST", "/v1", {"model": "sat"}), "qwen3:8b", KEY)
    assert json.loads(content) == {"path": "/base/v1", "body": {"model": "qwen3:8b"}, "key": "Bearer secret"}


def test_what_the_server_outside_refuses_is_refused(url: str) -> None:
    assert relayed(url, lambda port: request(port, "GET", "/missing"))[0] == 404
    assert relayed(url, lambda port: request(port, "GET", "/health"))[::2] == (200, b"fine")


def test_a_server_that_cannot_be_reached_is_named() -> None:
    with socket.create_server((ADDRESS, 0)) as held:  # bound, and then closed: nobody listens there
        closed = held.getsockname()[1]
    status, _, content = relayed(f"http://{ADDRESS}:{closed}", lambda port: request(port, "GET", "/health"))
    assert status == 502 and f"{ADDRESS}:{closed}" in json.loads(content)["error"]["message"]


def test_what_is_relayed_survives_its_file(tmp_path: Path) -> None:
    one = Relayed("/run/netns/x", "10.0.0.1", 8080, "https://gpu.example", None, "KEY")
    write_relayed([one], tmp_path)
    assert read_relayed(tmp_path) == [one]
