"""Interfaces of the machine that a run borrows: gone meanwhile, and back as they were found, also after a kill."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from isl_emu.errors import MachineError
from isl_emu.network.borrowed import borrow, give_back, state_of
from isl_emu.nodes.namespaces import CLONE_NEWNET, in_own_thread, unshare
from isl_emu.nodes.nodespaces import make_silent_space, remove_space_file
from isl_emu.recovery import clean_runs
from isl_emu.runs.directory import RunDirectory

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netem")]

MAKE = """
link add eth7 type veth peer name far
link set eth7 mtu 1400
link set far up
link set eth7 up
address add 192.0.2.9/24 dev eth7
address add 198.51.100.1/32 dev eth7 valid_lft 5000 preferred_lft 4000
address add 2001:db8::9/64 dev eth7 nodad
route add 203.0.113.0/24 via 192.0.2.1 dev eth7 metric 7
route add 203.0.113.128/25 dev eth7 src 192.0.2.9 table 77
route add 2001:db8:7::/48 via 2001:db8::1 dev eth7
"""
SHOWN = ("-4 address show dev eth7", "-6 address show dev eth7", "route show table all", "-6 route show table all")
CHANGING = {"valid_life_time", "preferred_life_time", "operstate", "qdisc", "ifindex", "link_index", "pref"}


def _ip(lines: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input=lines, text=True, check=True)


def _shown() -> list[Any]:
    """What ip says of the interface that is to be as it was."""
    found = []
    for words in SHOWN:
        said = subprocess.run(["ip", "-json", *words.split()], capture_output=True, text=True, check=True).stdout
        found.append(sorted(map(_lasting, filter(None, json.loads(said or "[]"))), key=str))
    return found


def _lasting(record: Any) -> Any:
    if isinstance(record, list):
        return sorted(map(_lasting, record), key=str)
    if isinstance(record, dict):
        return {key: _lasting(value) for key, value in record.items() if key not in CHANGING}
    return record


def _on_a_machine(function: Callable[[], None]) -> None:
    """Call a function in a network that stands for a machine's, with an interface eth7."""

    def inside() -> None:
        unshare(CLONE_NEWNET)
        _ip(f"link set lo up{MAKE}")
        function()

    in_own_thread(inside)


@pytest.mark.parametrize("killed", [False, True], ids=["in order", "killed"])
@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_it_is_given_back_as_it_was_found(run: RunDirectory, killed: bool, up: bool) -> None:
    def borrowed() -> None:
        if not up:
            _ip("link set eth7 down")
        before = _shown()
        assert ("192.0.2.9" in str(before), "203.0.113.0/24" in str(before)) == (True, up)
        path = make_silent_space(run.run_id, "hardware-eth7")
        try:
            borrow(run, "eth7", path, whole_frames=True)
            there = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
            assert "eth7" not in there
            if killed:
                (run.path / "owner.json").write_text('{"pid": 1, "start_ticks": -1, "user": 0}')
                (said,) = clean_runs([run])
                assert "gave back eth7" in said
                run.path.mkdir()  # for the fixture
            else:
                assert give_back(run) == ["eth7"]
                assert give_back(run) == []
        finally:
            remove_space_file(path)
        assert _shown() == before

    _on_a_machine(borrowed)


@pytest.mark.parametrize(
    ("change", "name", "complaint"),
    [
        ("", "lo", "lo is the machine's loopback"),
        ("", "eth8", "eth8 is no interface of this machine"),
        ("route add default via 192.0.2.1", "eth7", "eth7 leads to the machine's default gateway"),
        ("link add bridge7 type bridge\nlink set eth7 master bridge7", "eth7", "eth7 is part of a bridge or the like"),
    ],
)
def test_what_the_machine_needs_is_refused(change: str, name: str, complaint: str) -> None:
    def refused() -> None:
        _ip(change)
        with pytest.raises(MachineError, match=complaint):
            state_of(name)

    _on_a_machine(refused)
