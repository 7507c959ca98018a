"""The end of a run: journals become tables, the run is judged, and the summary is written."""

from __future__ import annotations

import shutil
from dataclasses import replace

from isl_emu.files import read_json, write_json
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.parts.finished_run import FinishedRun
from isl_emu.results.fidelity import Fidelity, assess
from isl_emu.results.provenance import completed
from isl_emu.results.render import render
from isl_emu.results.tables import write_tables
from isl_emu.routing.forwarding import RoutePlan
from isl_emu.runs.execution import Execution
from isl_emu.runs.folder import RunFolder
from isl_emu.scenario.model import Scenario


def conclude(
    folder: RunFolder, scenario: Scenario, plan: LinkPlan, routes: RoutePlan, failure: str | None = None
) -> Fidelity:
    """Write the tables, fidelity.json and summary.txt of a run folder, and complete its provenance.json.

    The journal is removed when the run came to its end without an error; otherwise it stays, with the servers' logs.

    Args:
        failure: why the run did not come to its end, as far as the caller knows; what the live part wrote down about
            its end goes before it.
    """
    execution = Execution.read(folder.execution)
    if failure and not (execution and execution.error):
        execution = replace(execution or Execution(), error=failure)
    run = FinishedRun(folder, scenario, plan, routes, execution)
    write_tables(run)
    provenance = completed(read_json(folder.provenance) or {}, execution)
    write_json(folder.provenance, provenance)
    fidelity = assess(run)
    folder.fidelity.write_text(fidelity.to_json())
    folder.summary.write_text(render(run, fidelity, provenance))
    if execution and not execution.error:
        shutil.rmtree(folder.journal)
    return fidelity
