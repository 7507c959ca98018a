"""What a node gives away of a file: HTTP with byte ranges, of the pieces that it has verified and of no others."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from isl_emu.parts.uplink.pieces import Holding
from isl_emu.runs.endpoints import TRANSFER_PORT

FILE_PATH = "/file"
PIECES_PATH = "/pieces"  # which pieces are here: one character each, 0 or 1


async def serve_file(file: Path, holding: Holding, address: str, port: int = TRANSFER_PORT) -> web.AppRunner:
    """Begin to serve; the caller cleans the runner up.

    Args:
        file: where the bytes are.
        holding: which of them the node has; looked at with each request.
    """

    async def give(request: web.Request) -> web.StreamResponse:
        try:
            wanted, size_byte = request.http_range, holding.manifest.size_byte
        except ValueError:
            raise web.HTTPRequestRangeNotSatisfiable from None
        end = size_byte if wanted.stop is None else min(wanted.stop, size_byte)
        if not holding.has(wanted.start or 0, end):
            raise web.HTTPNotFound(text="not all of these bytes are here")
        return web.FileResponse(file)

    async def tell(request: web.Request) -> web.Response:
        return web.Response(text="".join(map(str, holding.held)))

    application = web.Application()
    application.add_routes([web.get(FILE_PATH, give), web.get(PIECES_PATH, tell)])
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.0)
    await runner.setup()
    await web.TCPSite(runner, address, port).start()
    return runner
