"""The page of a live run, in a real browser: its button cuts a link of the network that packets then do not cross."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.browser import browser_page, find_browser
from tests.exact_guest import needs_exact_time
from tests.runs import COMMAND, INVALID, PATIENCE_S, isl_emu, rows, wait_for
from tests.scenarios import quiet_ring, table

pytestmark = [
    pytest.mark.emulation,
    needs_exact_time,
    pytest.mark.skipif(find_browser() is None, reason="this machine has no Chromium to open the page in"),
]

PROBED = table("probes", interval="200 ms", pairs=[["p00s00", "p00s01"]])


def test_the_fault_button_cuts_a_link(tmp_path: Path) -> None:
    (tmp_path / "ring.toml").write_text(quiet_ring("6 s") + PROBED)
    out = tmp_path / "out"
    command = [*COMMAND, "run", str(tmp_path / "ring.toml"), "--clock", "exact", "--pause-at", "2s", "--no-report"]
    with ExitStack() as undo:
        run = undo.enter_context(
            subprocess.Popen(
                [*command, "--view", "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
        undo.callback(run.terminate)  # one that stands paused would not end
        assert run.stdout is not None
        lines = iter(run.stdout.readline, "")
        address = next(line.split("view: ")[1].strip() for line in lines if "view: http" in line)
        wait_for(lambda: "paused at t = 2" in isl_emu("status", "--run", out).stdout, "the pause")
        page = undo.enter_context(browser_page())
        page.open(address, 1000, 640)
        wait_for(lambda: page.evaluate("globalThis.islEmuView?.state.frames > 0"), "the page")
        assert page.evaluate("islEmuView.state.faulty") == 0
        page.evaluate("islEmuView.find('p00s00 p00s01')")
        page.evaluate("document.querySelector('[data-act=fault]').click()")
        wait_for(lambda: page.evaluate("islEmuView.state.faulty") == 1, "the cut on the page")
        wait_for(lambda: "p00s00 - p00s01" in page.evaluate("document.getElementById('log').innerText"), "its line")
        page.evaluate("document.querySelector('[data-act=resume]').click()")
        run.communicate(timeout=PATIENCE_S)
    assert run.returncode == INVALID  # somebody changed it
    (cut,) = [row for row in rows(out, "incidents") if row["kind"] == "intervention"]
    assert cut["cause"] == "p00s00 - p00s01 by hand: cut"
    sent = [(row["t_send_ns"] > cut["t_ns"], row["delay_ns"] is None) for row in rows(out, "probes")]
    assert set(sent) == {(False, False), (True, True)}  # each probe came before the cut, and none after it
