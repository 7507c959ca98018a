"""The end of a run: journals become tables, the run is judged, and the summary is written."""

from __future__ import annotations

import shutil
from pathlib import Path

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.results.fidelity import Fidelity, assess
from isl_emu.results.provenance import completed, read_json, write_json
from isl_emu.results.report import render
from isl_emu.results.writer import JOURNAL_FOLDER, write_tables
from isl_emu.routing.forwarding import RoutePlan
from isl_emu.scenario.model import Scenario


def conclude(folder: Path, scenario: Scenario, plan: LinkPlan, routes: RoutePlan) -> Fidelity:
    """Write the tables, fidelity.json and summary.txt of a run folder, and complete its provenance.json.

    The journal is removed when the run came to its end without an error; otherwise it stays, with the servers' logs.
    """
    journal = folder / JOURNAL_FOLDER
    execution = read_json(journal / "execution.json")
    write_tables(folder, scenario, plan, routes)
    provenance = completed(read_json(folder / "provenance.json") or {}, execution)
    write_json(folder / "provenance.json", provenance)
    fidelity = assess(folder, scenario, execution)
    (folder / "fidelity.json").write_text(fidelity.to_json())
    (folder / "summary.txt").write_text(render(folder, scenario, fidelity, provenance))
    if execution and not execution.get("error"):
        shutil.rmtree(journal)
    return fidelity
