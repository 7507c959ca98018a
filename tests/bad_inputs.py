"""Inputs that must be refused, as a table of one JSON object a line, and how each is given to isl-emu.

    {"kind": "scenario", "base": "small", "old": "525 km", "new": "525", "says": [where, found, rule, remedy]}

`python -m tests.bad_inputs` writes what is said now into the table; look at what has changed before you keep it.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from isl_emu.api import open_plan
from isl_emu.balance import power_balance
from isl_emu.cluster.connect import connect
from isl_emu.errors import IslEmuError
from isl_emu.experiment import load_source, prepare
from isl_emu.linkplan.plan_file import METADATA_KEY
from isl_emu.machine.place import Place
from isl_emu.parts.questions.part import planned_requests
from isl_emu.parts.serving.model_file import resolve_model
from isl_emu.planned import read_planned
from isl_emu.recovery import conclude_folder
from isl_emu.results.run_results import RunResults
from isl_emu.runs.folder import RunFolder
from isl_emu.scenario.parse import load_scenario, parse_scenario, with_changes
from tests.scenarios import SMALL, TOPOLOGIES

TABLE = Path(__file__).parent / "cases" / "bad_inputs.jsonl"
Case = Mapping[str, Any]


def cases() -> list[dict[str, Any]]:
    """The table."""
    return [json.loads(line) for line in TABLE.read_text().splitlines()]


def provoke(case: Case, folder: Path) -> IslEmuError:
    """The error that an input leads to; what is given lies in the folder, which its sentences call FOLDER."""
    try:
        KINDS[case["kind"]](case, folder)
    except IslEmuError as error:
        return type(error)(*(problem.replace(str(folder), "FOLDER") for problem in error.problems))
    raise AssertionError(f"accepted: {case}")


def _text(case: Case) -> str:
    """A base with one change, or a text of its own; `times` repeats what is new."""
    new = case.get("start", "") + case.get("new", "") * case.get("times", 1) + case.get("end", "")
    if "base" not in case:
        return new
    base = SMALL if case["base"] == "small" else (TOPOLOGIES / f"{case['base']}.toml").read_text()
    if "old" not in case:
        return f"{new}\n{base}" if case.get("before") else f"{base}\n{new}\n"
    assert case["old"] in base, case
    return base.replace(case["old"], new, 1)


def _written(case: Case, path: Path) -> Path:
    """A file with the case's content: a text, bytes in hexadecimal, a pipe, a folder or a link to something."""
    match case.get("as"):
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "nothing":
            pass
        case "sparse":
            with path.open("wb") as file:
                file.truncate(case["size"])
        case None:
            path.write_bytes(bytes.fromhex(case["hex"]) if "hex" in case else _text(case).encode())
        case target:
            path.symlink_to(target)
    return path


def _scenario(case: Case, folder: Path) -> None:
    load_scenario(_written(case, folder / "scenario.toml"))


def _orbits(key: str) -> Callable[[Case, Path], None]:
    def give(case: Case, folder: Path) -> None:
        _written(case, folder / "elements")
        text = SMALL.replace(
            SMALL.partition('name = "ring"\n')[2].partition("[shell.lasers]")[0], f'{key} = "elements"\n'
        )
        (folder / "scenario.toml").write_text(text.replace('topology = "ring"', 'topology = "none"'))
        load_scenario(folder / "scenario.toml")

    return give


def _asked(key: str) -> Callable[[Case, Path], None]:
    def give(case: Case, folder: Path) -> None:
        file = _written(case, folder / "asked")
        questions: dict[str, Any] = {
            "arrivals": "trace",
            "mean_interval": None,
            "trace": {"file": str(file), **case.get("keys", {})},
        }
        if key == "prompts":
            questions = {"prompts": None, "prompt_file": str(file)}
        if key == "conversations":
            questions = {"prompts": None, "conversations": str(file)}
        scenario = with_changes(load_scenario(TOPOLOGIES / "three-body.toml"), questions=questions)
        assert scenario.questions is not None
        planned_requests(scenario, scenario.questions, scenario.serving_satellites)

    return give


def _plan(case: Case, folder: Path) -> None:
    """A saved plan with a part of its description replaced, or a file that is none."""
    path = folder / "plan.parquet"
    if "set" not in case:
        read_planned(_written(case, path))
    table = pq.read_table(_small_plan())
    description = json.loads(table.schema.metadata[METADATA_KEY])
    place = description
    *path_to, last = case["set"]
    for key in path_to:
        place = place[key]
    place[last] = case["to"]
    metadata = {**table.schema.metadata, METADATA_KEY: json.dumps(description).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    read_planned(path)


@cache
def _small_plan() -> Path:
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    (folder / "small.toml").write_text(SMALL)
    open_plan(folder / "small.toml", {}).save(folder / "plan.parquet")
    return folder / "plan.parquet"


def _run(case: Case, folder: Path) -> None:
    """A prepared run folder of which a file is replaced, then concluded or read."""
    out = folder / "run"
    (folder / "small.toml").write_text(SMALL)
    run = RunFolder.create(out, "small")
    prepare(load_source(folder / "small.toml", {}), Place("host", "a test", "real"), [], run)
    file = run.path / case["file"]
    if file.is_dir():
        shutil.rmtree(file)
    else:
        file.unlink(missing_ok=True)
    _written(case, file)
    if case.get("read"):
        RunResults(run.path).table(case["read"])
    conclude_folder(run.path)


def _model(case: Case, folder: Path) -> None:
    resolve_model(str(_written(case, folder / "model.gguf")))


def _call(case: Case, folder: Path) -> None:
    """A call of Python's: a scenario changed, a path asked of a plan, a balance."""
    scenario = load_scenario(TOPOLOGIES / f"{case['base']}.toml")
    match case["call"]:
        case "changes":
            with_changes(scenario, **case["keys"])
        case "balance":
            power_balance(scenario, **case["keys"])
        case "path":
            open_plan(TOPOLOGIES / f"{case['base']}.toml", {}).paths(*case["keys"])


def _parse(case: Case, folder: Path) -> None:
    parse_scenario(_text(case), "text")


def _cluster(case: Case, folder: Path) -> None:
    """The text of `--cluster`, or the content of a scheduler file."""
    connect(case["text"] if "text" in case else str(_written(case, folder / "scheduler.json")))


KINDS: dict[str, Callable[[Case, Path], None]] = {
    "scenario": _scenario,
    "text": _parse,
    "tle": _orbits("tle"),
    "omm": _orbits("omm"),
    "trace": _asked("trace"),
    "prompts": _asked("prompts"),
    "conversations": _asked("conversations"),
    "plan": _plan,
    "run": _run,
    "model": _model,
    "call": _call,
    "cluster": _cluster,
}

if __name__ == "__main__":
    lines = []
    for each in cases():
        with tempfile.TemporaryDirectory() as temporary:
            error = provoke(each, Path(temporary))
        each["says"] = list(error.parts[0]) if error.parts else [str(error)]
        lines.append(json.dumps(each, ensure_ascii=False))
    TABLE.write_text("\n".join(lines) + "\n")
