"""All servers at a board's pace in one process: an OpenAI-compatible server on each satellite.

Run as ``python -m isl_emu.parts.serving.modelled_server``. A listening socket in each satellite's network namespace
makes the packets take the emulated path; the tokens' times come from an `Engine` on the run's clock, so slow motion and
pauses hold for them. When it ends it writes into pace.jsonl how late tokens were against the model.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from aiohttp import web

from isl_emu.parts.serving.listening import ListeningPlace, listen_at
from isl_emu.parts.serving.modelled_pages import application
from isl_emu.parts.serving.modelled_satellite import ModelledSatellite
from isl_emu.parts.serving.modelled_specification import PACE, Specification, read_specifications
from isl_emu.parts.serving.modelled_state import FILE as STATE_FILE
from isl_emu.parts.serving.modelled_state import ModelledState
from isl_emu.runs.clock import run_clock
from isl_emu.runs.journal import Journal
from isl_emu.runs.loop import run_loop
from isl_emu.timebase import Clock

READY = "ready"


async def serve(specs: Sequence[Specification], state: ModelledState, clock: Clock, journal: Path) -> None:
    """Serve until SIGTERM; prints a word when all listen."""
    late_ns, stop = array("q"), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    rows = {name: row for row, name in enumerate(state.names)}
    servers = {spec.address: ModelledSatellite(spec, rows[spec.satellite], state, clock, late_ns) for spec in specs}
    runner = web.AppRunner(application(servers), access_log=None, handle_signals=False)
    await runner.setup()
    for listening in listen_at([ListeningPlace(spec.netns, spec.address, spec.port) for spec in specs]):
        await web.SockSite(runner, listening).start()
    print(READY, flush=True)
    await stop.wait()
    late = np.array(late_ns, dtype=np.int64)
    p50, p99, most = (int(value) for value in np.percentile(late, (50, 99, 100))) if len(late) else (None,) * 3
    with Journal(journal / PACE) as pace:
        pace.append({"steps": len(late), "late_p50_ns": p50, "late_p99_ns": p99, "late_max_ns": most})


def main() -> None:
    """Serve what a run's journal asks for."""
    parser = argparse.ArgumentParser(prog="isl_emu.parts.serving.modelled_server", description=__doc__)
    parser.add_argument("--journal", type=Path, required=True, help="folder of the run's journals")
    journal = parser.parse_args().journal
    state = ModelledState.open(journal / STATE_FILE)
    run_loop(serve(read_specifications(journal), state, run_clock(journal), journal))


if __name__ == "__main__":
    main()
