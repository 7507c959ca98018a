"""What a modelled server has computed of a conversation (its KV cache) moves to another, which need not read it again.

A request names the server that has read its conversation so far, in the words of vLLM's disaggregated prefill
(`kv_transfer_params` with `do_remote_prefill`, `remote_host`, `remote_port`). The server that is asked first fetches
from there, by HTTP from its own node, what it lacks of the prompt's blocks; meanwhile it answers others. What goes over
the network has the size of keys and values, and is zeros: of a modelled model only the size is known. A server that
does not have them, has another model or cannot be reached costs that time, and the prompt is read.

Source: https://docs.vllm.ai/en/latest/features/disagg_prefill/
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, web

from isl_emu.nodes.namespaces import enter_network, in_own_thread
from isl_emu.parts.serving.modelled_engine import ModelledSatellite, Move
from isl_emu.parts.serving.modelled_specification import Specification
from isl_emu.parts.serving.prefix_cache import BLOCK_TOKENS
from isl_emu.units import NS_PER_S

PATH = "/kv_cache"
TOKENS = "X-KV-Tokens"  # a header: of how many tokens the body is
PATIENCE_NS = 5 * NS_PER_S  # with a server of which nothing comes
_PIECE = bytes(1 << 16)

Holder = tuple[str, int]  # address and port


def holder_of(question: Mapping[str, Any]) -> Holder | None:
    """The server that has read a request's conversation so far, if it names one.

    Raises:
        ValueError, TypeError, KeyError: it does so wrongly.
    """
    told = question.get("kv_transfer_params") or {}
    return (str(told["remote_host"]), int(told["remote_port"])) if told.get("do_remote_prefill") else None


async def fetch(server: ModelledSatellite, holder: Holder, blocks: Sequence[bytes]) -> Move | None:
    """Get what a server lacks of a prompt's blocks from another one, and keep it; None if it lacks none."""
    spec, clock, known = server.spec, server.clock, server.engine.known_tokens(blocks)
    begun_ns, tokens = clock.now_ns(), 0
    if known == len(blocks) * BLOCK_TOKENS:
        return None
    wanted = {**_cached_by(spec), "known": known, "blocks": [block.hex() for block in blocks]}
    patience_s = clock.real_s(PATIENCE_NS)
    patience = ClientTimeout(total=None, sock_connect=patience_s, sock_read=patience_s)
    connector = TCPConnector(socket_factory=partial(_socket_at, spec), force_close=True)
    try:
        async with (
            ClientSession(connector=connector, timeout=patience, raise_for_status=True) as session,
            session.post(f"http://{holder[0]}:{holder[1]}{PATH}", json=wanted) as response,
        ):
            async for _ in response.content.iter_any():
                pass
            tokens = int(response.headers[TOKENS])
    except (ClientError, OSError, asyncio.TimeoutError, ValueError, KeyError):
        tokens = 0  # which is in the record; the prompt is read
    server.engine.keep(blocks[: (known + tokens) // BLOCK_TOKENS])
    return Move(tokens, tokens * spec.kv_byte_per_token, clock.now_ns() - begun_ns)


def _cached_by(spec: Specification) -> dict[str, Any]:
    """Whose keys and values they are: only the same model knows them."""
    return {"model": spec.model, "bits": spec.bits}


def _socket_at(spec: Specification, address: Any) -> socket.socket:
    """A socket in a server's node, for a connection from its address."""

    def made() -> socket.socket:
        if spec.netns:
            enter_network(spec.netns)
        found = socket.socket(*address[:3])
        found.bind((spec.address, 0))
        return found

    return in_own_thread(made)


async def give(request: web.Request, server: ModelledSatellite) -> web.StreamResponse:
    """What a server knows of the blocks that another one asks it for, beyond what that one knows itself."""
    try:
        wanted = json.loads(await request.read())
        blocks, known = [bytes.fromhex(block) for block in wanted["blocks"]], int(wanted["known"])
        same = {key: wanted.get(key) for key in ("model", "bits")} == _cached_by(server.spec)
    except (ValueError, TypeError, KeyError):
        raise web.HTTPBadRequest from None
    tokens = max(0, server.engine.known_tokens(blocks) - known) if same else 0
    server.engine.keep(blocks[: (known + tokens) // BLOCK_TOKENS] if tokens else ())
    left = round(tokens * server.spec.kv_byte_per_token * server.spec.rate_scale)
    response = web.StreamResponse(headers={TOKENS: str(tokens), "Content-Length": str(left)})
    await response.prepare(request)
    while left:
        piece = memoryview(_PIECE)[:left]
        await response.write(piece)
        left -= len(piece)
    await response.write_eof()
    return response
