"""An aiohttp server in a thread of its own, beside work that does not wait for it.

Where a socket was made, in that network namespace it listens, whichever thread answers there.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web


@contextmanager
def answering(application: web.Application, listening: socket.socket) -> Iterator[None]:
    """Answer at a listening socket while the block lasts; a handler is cancelled when whoever asked has gone."""
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(
        application, access_log=None, handle_signals=False, handler_cancellation=True, shutdown_timeout=0.0
    )
    loop.run_until_complete(runner.setup())
    loop.run_until_complete(web.SockSite(runner, listening).start())
    thread = threading.Thread(target=loop.run_forever, daemon=True, name="http")
    thread.start()
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
