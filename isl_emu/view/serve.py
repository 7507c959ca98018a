"""Serves the page of a plan or a run until it is enough: at once for `isl-emu view`, and as a process beside a run.

Run as ``python -m isl_emu.view.serve FOLDER``, beside a run of `isl-emu run --view`: it writes its address to standard
output, and ends with the run, or when its standard input does.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aiohttp import web

from isl_emu.errors import IslEmuError, MachineError
from isl_emu.progress import Steps
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.process import module_command
from isl_emu.view.opened import open_live
from isl_emu.view.server import ViewServer
from isl_emu.view.sky import Sky

STDIN = 0
NICE = 10  # a run that is looked at has the CPU first
LAST_WORDS_S = 5.0  # for the verdict to reach who looks on


def serve(sky: Sky, port: int, say: Callable[[str], object], ends: threading.Event | None = None) -> None:
    """Serve the page until interrupted, or until a live run is over.

    Args:
        port: 0 for a free one.
        say: is told the address.
        ends: is set when a run that is looked at has ended.

    Raises:
        MachineError: the port is not free.
    """
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(ViewServer(sky), port, say, ends or threading.Event()))


async def _serve(server: ViewServer, port: int, say: Callable[[str], object], ends: threading.Event) -> None:
    listening = server.listen(port)
    runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=LAST_WORDS_S)
    await runner.setup()
    await web.SockSite(runner, listening).start()
    say(server.address)
    enough, loop = asyncio.Event(), asyncio.get_running_loop()
    waiting = threading.Thread(target=lambda: (ends.wait(), loop.call_soon_threadsafe(enough.set)), daemon=True)
    waiting.start()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ends.set)
    try:
        if server.live is None:
            await enough.wait()
        else:
            await server.follow(enough)
    finally:
        await runner.cleanup()


def open_page(address: str) -> None:
    """In the user's browser, where there is a desktop to have one."""
    if sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


@contextmanager
def looking_on(folder: RunFolder, port: int, steps: Steps, show: Callable[[str], object]) -> Iterator[None]:
    """Serve the page of a prepared run, by a process of its own, while the block lasts.

    Args:
        show: is given the address.

    Raises:
        MachineError: it cannot be served, for somebody else has the port.
    """
    command = module_command("isl_emu.view.serve", str(folder.path), "--port", str(port))
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the run
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        if not address:
            raise MachineError(
                "--view: its server ended with what stands above, but the page is to show the run; leave out --view, "
                "or --port"
            )
        steps.note(f"view: {address}")
        show(address)
        try:
            yield
        finally:
            process.stdin.close()
            try:
                process.wait(LAST_WORDS_S * 2)
            except subprocess.TimeoutExpired:
                process.kill()


def main() -> None:
    """Serve until standard input ends, which is when who started us is done."""
    parser = argparse.ArgumentParser(prog="isl_emu.view.serve", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    os.nice(NICE)
    ends = threading.Event()

    def wait_for_end() -> None:
        while os.read(STDIN, 1):  # nothing ever comes
            pass
        ends.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    try:
        serve(open_live(options.folder, buttons=True), options.port, lambda address: print(address, flush=True), ends)
    except IslEmuError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
