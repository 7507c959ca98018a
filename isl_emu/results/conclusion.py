"""The end of a run: journals become tables, the run is judged, and the summary is written."""

from __future__ import annotations

import shutil

import pyarrow.parquet as pq

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.parts.power.totals import energy_totals, read_energy_table, write_energy
from isl_emu.parts.questions.figures import read_serving_figures
from isl_emu.results.fidelity import Fidelity, assess
from isl_emu.results.provenance import completed, read_json, write_json
from isl_emu.results.render import render
from isl_emu.results.writer import write_tables
from isl_emu.routing.forwarding import RoutePlan
from isl_emu.runs.folder import RunFolder
from isl_emu.scenario.model import Scenario

INTERRUPTED_BY_USER = "it was interrupted by the user"


def conclude(
    folder: RunFolder, scenario: Scenario, plan: LinkPlan, routes: RoutePlan, failure: str | None = None
) -> Fidelity:
    """Write the tables, fidelity.json and summary.txt of a run folder, and complete its provenance.json.

    The journal is removed when the run came to its end without an error; otherwise it stays, with the servers' logs.

    Args:
        failure: why the run did not come to its end, as far as the caller knows; what the live part wrote down about
            its end goes before it.
    """
    execution = read_json(folder.execution)
    if failure and not (execution or {}).get("error"):
        execution = {**(execution or {}), "error": failure}
    write_tables(folder, scenario, plan, routes)
    provenance = completed(read_json(folder.provenance) or {}, execution)
    write_json(folder.provenance, provenance)
    fidelity = assess(folder, scenario, execution)
    folder.fidelity.write_text(fidelity.to_json())
    if scenario.questions:
        write_json(folder.serving, read_serving_figures(folder, scenario))
    _conclude_energy(folder, scenario)
    folder.summary.write_text(render(folder, scenario, fidelity, provenance))
    if execution and not execution.get("error"):
        shutil.rmtree(folder.journal)
    return fidelity


def _conclude_energy(folder: RunFolder, scenario: Scenario) -> None:
    if (table := read_energy_table(folder.table("energy"))) is not None:
        requests = pq.read_table(folder.table("requests")).to_pylist()
        write_energy(folder.energy, energy_totals(table, requests, scenario))
