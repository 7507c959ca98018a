"""The way from satellites to a model server outside: what is asked on a satellite is answered by a URL, as it streams.

Run as ``python -m isl_emu.parts.serving.relay``. It listens in each satellite's network namespace, so questions and
answers take the emulated path; from there on they take the machine's own network, whose time counts as the server's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from aiohttp import ClientError, ClientSession, ClientTimeout, web

from isl_emu.parts.serving.completions import refusal
from isl_emu.parts.serving.listening import ListeningPlace, listen_at, own_address
from isl_emu.parts.serving.relay_orders import Relayed, read_relayed

HOP_BY_HOP = {"connection", "content-encoding", "content-length", "keep-alive", "host", "transfer-encoding"}
SESSION = web.AppKey("session", ClientSession)


def application(relayed: Mapping[str, Relayed]) -> web.Application:
    """Everything that is asked, passed on.

    Args:
        relayed: by the address at which each is asked.
    """

    async def session(app: web.Application) -> AsyncIterator[None]:
        async with ClientSession(timeout=ClientTimeout(total=None), auto_decompress=False) as opened:
            app[SESSION] = opened
            yield

    async def answer(request: web.Request) -> web.StreamResponse:
        outside = relayed[own_address(request)]
        try:
            return await _pass_on(request, outside, request.app[SESSION])
        except ClientError as error:
            return web.json_response(refusal(502, "server_error", f"{outside.url}: {error}"), status=502)

    app = web.Application(client_max_size=1 << 30)
    app.cleanup_ctx.append(session)
    app.router.add_route("*", "/{path:.*}", answer)
    return app


async def _pass_on(request: web.Request, outside: Relayed, session: ClientSession) -> web.StreamResponse:
    headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
    if outside.key_variable:
        headers["Authorization"] = f"Bearer {os.environ[outside.key_variable]}"
    body = await request.read()
    if body and outside.model is not None:
        with suppress(ValueError):
            if isinstance(question := json.loads(body), dict):  # with the name by which that server knows its model
                body = json.dumps({**question, "model": outside.model}).encode()
    url = outside.url.rstrip("/") + request.path_qs
    async with session.request(request.method, url, data=body or None, headers=headers) as found:
        kept = {name: value for name, value in found.headers.items() if name.lower() not in HOP_BY_HOP}
        response = web.StreamResponse(status=found.status, headers=kept)
        await response.prepare(request)
        async for part in found.content.iter_any():
            await response.write(part)
        return response


async def serve(relayed: Sequence[Relayed]) -> None:
    """Pass on until SIGTERM; prints a word when all listen."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    runner = web.AppRunner(application({one.address: one for one in relayed}), access_log=None, handle_signals=False)
    await runner.setup()
    for listening in listen_at([ListeningPlace(one.netns, one.address, one.port) for one in relayed]):
        await web.SockSite(runner, listening).start()
    print("ready", flush=True)
    await stop.wait()
    await runner.cleanup()


def main() -> None:
    """Pass on what a run's journal asks for."""
    parser = argparse.ArgumentParser(prog="isl_emu.parts.serving.relay", description=__doc__)
    parser.add_argument("--journal", type=Path, required=True, help="folder of the run's journals")
    journal = parser.parse_args().journal
    asyncio.run(serve(read_relayed(journal)))


if __name__ == "__main__":
    main()
