"""When programs start: what the plan holds for a node, as a list of times."""

from __future__ import annotations

import fcntl
import os
import resource
import subprocess

import pytest

from isl_emu.errors import WorkloadError
from isl_emu.parts.programs.occasions import Occasion, occasions
from isl_emu.parts.programs.programs import _await_end
from isl_emu.planned import PlannedNetwork, plan_network
from isl_emu.scenario.parse import parse_scenario
from isl_emu.units import NS_PER_S
from tests.scenarios import head, ring_over_china, station, table

CHENGDU = station("gs-chengdu", latitude="30.66 deg", longitude="104.06 deg", antennas=2)


def _program(of: str | None = None, **keys: object) -> str:
    text = table("[program]", **{"name": "one", "node": "gs-chengdu", "command": ["true"], **keys})
    return text + (f'of = "{of}"\n' if of else "")


def _plan(faults: str = "", **keys: object) -> PlannedNetwork:
    text = head("occasions", start="2026-03-20T14:30:00Z", duration="20 min", step="10 s")
    text += ring_over_china() + CHENGDU + _program(**keys) + faults
    return plan_network(parse_scenario(text, "the test"))


def _due(planned: PlannedNetwork) -> list[Occasion]:
    return occasions(planned.scenario.program[0], planned.scenario, planned.link_plan)


def test_a_program_starts_once_or_in_a_rhythm() -> None:
    assert _due(_plan(at="5 s")) == [Occasion(5 * NS_PER_S)]
    assert [one.t_ns // NS_PER_S for one in _due(_plan(at="60 s", repeat="500 s"))] == [60, 560, 1060]


def test_steps_are_those_of_the_plan() -> None:
    assert [one.t_ns for one in _due(_plan(on="step", at="1185 s"))] == [1190 * NS_PER_S]


@pytest.mark.parametrize(("on", "column"), [("contact-begins", "start_ns"), ("contact-ends", "end_ns")])
def test_contacts_begin_and_end_as_the_plan_says(on: str, column: str) -> None:
    planned = _plan(on=on)
    wanted = [
        Occasion(row[column], str(row["a"]))
        for row in planned.contacts.to_pylist()
        if row["b"] == "gs-chengdu" and 0 < row[column] < planned.link_plan.grid.duration_ns
    ]
    assert _due(planned) == sorted(wanted)
    assert wanted
    chosen = _due(_plan(on=on, peer=wanted[0].about))
    assert chosen == [one for one in sorted(wanted) if one.about == wanted[0].about]


def test_a_handover_is_to_another_satellite() -> None:
    met = [row for row in _plan().contacts.to_pylist() if row["b"] == "gs-chengdu"]
    satellites = [str(row["a"]) for row in sorted(met, key=lambda row: row["start_ns"])]
    due = _due(_plan(node="p00s00", on="handover", of="gs-chengdu"))
    assert [one.about for one in due] == [b for a, b in zip(satellites, satellites[1:]) if a != b]


def test_faults_strike_a_node_its_links_and_what_runs_there() -> None:
    cut = table("[fault]", name="dark", satellites=["p00s03"], at=["100 s"], effect="power-off", reboot="1 s",
                **{"for": "10 s"})  # fmt: skip
    assert _due(_plan(cut, on="fault", of="p00s03")) == [Occasion(100 * NS_PER_S, "dark")]
    assert _due(_plan(cut, on="fault", of="p00s05")) == []


def test_too_many_starts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISL_EMU_MOST_STARTS", "100")
    with pytest.raises(WorkloadError, match="program one: is started on each step, which comes to about 120 starts"):
        _due(_plan(on="step"))


def test_a_program_is_waited_for_in_a_network_of_many_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand nodes hold a thousand descriptors, so that of a program has a larger number than select() takes."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, limits[1]), limits[1]))

    def high(pid: int) -> int:
        low = pidfd_open(pid)
        try:
            return fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 2000)
        finally:
            os.close(low)

    pidfd_open = os.pidfd_open
    monkeypatch.setattr(os, "pidfd_open", high)
    try:
        with subprocess.Popen(["true"]) as process:
            _await_end(process, 60)
            assert process.poll() == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
