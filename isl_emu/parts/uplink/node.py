"""A node's part in spreading the weights: it serves what it has of the file, and fetches what it lacks.

Run as ``python -m isl_emu.parts.uplink.node`` in a station's network or in a satellite's container. Each attempt
leaves a line in the run's journal of transfers, and the whole verified file one in that of who holds it.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from aiohttp import ClientSession, ClientTimeout, TCPConnector

from isl_emu.parts.uplink.attempts import AttemptLog, sleep_until
from isl_emu.parts.uplink.fetch import READ_BUFFER_BYTE, Fetcher
from isl_emu.parts.uplink.pieces import Holding
from isl_emu.parts.uplink.plan import ATTEMPTS, HELD, Receiver, TransferPlan, read_transfer_plan
from isl_emu.parts.uplink.server import serve_file
from isl_emu.runs.clock import RunTimes, run_clock
from isl_emu.runs.endpoints import TRANSFER_PORT, read_endpoints
from isl_emu.runs.journal import Journal
from isl_emu.runs.loop import run_loop


async def take_part(name: str, plan: TransferPlan, journal: Path, times: RunTimes) -> None:
    """Serve and fetch until the end of the run or SIGTERM.

    Args:
        journal: the folder of the run's journals.
        times: of the run, on its clock.
    """
    receiver, clock = plan.receivers.get(name), run_clock(journal)
    addresses = {node: endpoint.address for node, endpoint in read_endpoints(journal).items()}
    holding = Holding.nothing(plan.manifest) if receiver else Holding.everything(plan.manifest)
    runner = await serve_file(plan.file, holding, addresses[name])
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    tasks = [asyncio.ensure_future(sleep_until(clock, times.until_ns)), asyncio.ensure_future(ended.wait())]
    if receiver:
        tasks.append(asyncio.ensure_future(_receive(name, plan, holding, addresses, journal, times.t0_ns)))
    await asyncio.wait(tasks[:2], return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await runner.cleanup()


async def _receive(
    name: str, plan: TransferPlan, holding: Holding, addresses: Mapping[str, str], journal: Path, t0_ns: int
) -> None:
    """Fetch the whole file, and write that down."""
    clock, urls = run_clock(journal), {node: f"http://{at}:{TRANSFER_PORT}" for node, at in addresses.items()}
    receiver, connector = plan.receivers[name], TCPConnector(local_addr=(addresses[name], 0), limit=0)
    with Journal(journal / f"{ATTEMPTS}.jsonl") as transfers, Journal(journal / f"{HELD}.jsonl") as held:
        log = AttemptLog(name, receiver.kind, holding, clock, t0_ns, plan.stall_ns, transfers.append)
        try:
            async with ClientSession(
                connector=connector, timeout=ClientTimeout(total=None), read_bufsize=READ_BUFFER_BYTE
            ) as http:
                await sleep_until(clock, t0_ns + plan.begin_ns)
                await _fetch(Fetcher(holding, http, urls, log, clock, t0_ns), receiver, f"{plan.seed} {name}")
            if holding.complete:
                held.append({"satellite": name, "t_ns": clock.now_ns() - t0_ns})
        finally:
            log.end()


async def _fetch(fetcher: Fetcher, receiver: Receiver, seed: str) -> None:
    if receiver.kind == "uplink":
        await fetcher.by_passes(receiver.passes)
    elif receiver.kind == "swarm":
        await fetcher.at_once(receiver.sources, random.Random(seed))
    else:
        await fetcher.in_turn(receiver.sources)


def main() -> None:
    """Say that it is ready, read begin and end of the run on its clock, and take part."""
    parser = argparse.ArgumentParser(prog="isl_emu.parts.uplink.node", description=__doc__)
    parser.add_argument("--name", required=True, help="of the node")
    parser.add_argument("--journal", type=Path, required=True, help="folder of the run's journals")
    options = parser.parse_args()
    plan = read_transfer_plan(options.journal)
    print("ready", flush=True)
    if times := sys.stdin.readline().split():
        run_loop(take_part(options.name, plan, options.journal, RunTimes(*map(int, times))))


if __name__ == "__main__":
    main()
