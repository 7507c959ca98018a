"""What is decided before a guest boots, and how it is watched; no boots here."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from isl_emu.errors import MachineError
from isl_emu.machine import claims, guest, uml
from isl_emu.machine.calendar_control import CalendarState
from isl_emu.machine.console import Console, Interrupter
from isl_emu.machine.guardian import kill_processes_in
from isl_emu.machine.hang import Hang
from isl_emu.machine.uml import UmlKernel


def _shell(script: str) -> list[str]:
    """What a command script prints, line by line."""
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.splitlines()


def test_command_script_keeps_every_word_and_variable(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["a b", "it's", '"$HOME"', "*", "", "back\\slash"]
    argv = [sys.executable, "-c", "import os, sys; print(os.environ['X']); print(os.getcwd()); print(sys.argv[1:])"]
    script = guest._command_script([*argv, *words], {"X": "1 '2' $3"}, "pipe")
    assert _shell(script) == ["1 '2' $3", str(tmp_path), str(words)]


def test_variables_say_that_it_is_a_guest_and_let_the_caller_win(monkeypatch):
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.setenv("SECRET", "1")
    variables = guest._variables({"LANG": "C", "EXTRA": "2"})
    assert variables["ISL_EMU_GUEST"] == "1"
    assert (variables["LANG"], variables["EXTRA"]) == ("C", "2")
    assert "SECRET" not in variables
    assert "/usr/sbin" in variables["PATH"].split(":")


@pytest.mark.parametrize("home", ["/no/such/folder", "/run/user/1000"])
def test_a_home_that_the_guest_cannot_read_is_replaced(home, monkeypatch):
    monkeypatch.setenv("HOME", home)
    assert guest._variables({})["HOME"] == "/run/home"


def test_inner_folders_are_not_mounted_over_outer_ones(tmp_path):
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert guest._binds([inner, tmp_path, inner], [inner]) == [("rw", tmp_path)]


def test_only_what_the_guest_covers_is_mounted_for_reading():
    binds = guest._binds([], [Path("/usr"), Path("/dev/shm"), Path("/proc/self/cmdline")])
    assert ("ro", Path("/dev/shm")) in binds
    assert ("ro", Path("/usr")) not in binds
    assert ("ro", Path(f"/proc/{os.getpid()}")) in binds


def test_a_writable_folder_must_exist(tmp_path):
    with pytest.raises(MachineError, match="absent.*is not a folder"):
        guest._binds([tmp_path / "absent"], [])


@pytest.mark.parametrize(("release", "version"), [("6.1.176", (6, 1)), ("6.13", (6, 13)), ("6.12-rc3-um", (6, 12))])
def test_version_of_a_release(release, version):
    assert UmlKernel("linux.uml", release).version == version


@pytest.mark.parametrize(
    ("release", "flags", "needed"),
    [("6.1.176", {"amx_tile"}, True), ("6.13.1", {"amx_tile"}, False), ("6.1.176", {"avx512f"}, False)],
)
def test_shim_is_for_old_kernels_on_processors_with_amx(release, flags, needed, monkeypatch):
    monkeypatch.setattr(uml, "processor_flags", lambda: frozenset(flags))
    assert uml.needs_shim(UmlKernel("linux.uml", release)) is needed


def test_without_a_compiler_the_error_names_the_packages(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="apt-get install gcc libc6-dev"):
        uml.find_compiler()


def test_two_guests_do_not_share_a_cpu(monkeypatch, tmp_path):
    monkeypatch.setattr(claims, "_open_cpu", lambda cpu: os.open(tmp_path / str(cpu), os.O_CREAT | os.O_RDONLY))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3})
    taken = [claims.claim_cpu() for _ in range(3)]
    assert [claim.cpu for claim in taken] == [3, 0, 3]
    os.close(taken[1].lock)
    again = claims.claim_cpu()
    assert again.cpu == 0
    for claim in (taken[0], taken[2], again):
        os.close(claim.lock)


def test_too_little_memory_is_told_in_figures(monkeypatch):
    monkeypatch.setattr(claims, "available_memory_byte", lambda: 1000 * claims.MIB)
    with pytest.raises(MachineError, match="1,000 MiB of memory are available.*to have 2,000 MiB"):
        claims.choose_memory_folder(2000 * claims.MIB)


def test_a_small_dev_shm_gives_way_to_a_temporary_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(claims, "available_memory_byte", lambda: 1 << 60)
    monkeypatch.setattr(claims.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(claims, "_can_hold", lambda folder, _: folder == tmp_path)
    assert claims.choose_memory_folder(1 << 30) == tmp_path


def test_no_folder_for_the_memory_is_an_error(monkeypatch):
    monkeypatch.setattr(claims, "available_memory_byte", lambda: 1 << 60)
    with pytest.raises(MachineError, match="noexec"):
        claims.choose_memory_folder(1 << 55)


def test_processes_are_found_by_their_folder_and_killed(tmp_path):
    (tmp_path / "here").mkdir()
    inside = subprocess.Popen(["sleep", "99"], cwd=tmp_path / "here")
    outside = subprocess.Popen(["sleep", "99"], cwd=tmp_path)
    try:
        assert kill_processes_in(str(tmp_path / "here")) == [inside.pid]
        assert inside.wait() == -9
        assert outside.poll() is None
    finally:
        outside.kill()
        outside.wait()


@pytest.fixture
def kills():
    return []


def test_interrupt_before_the_command_began_kills_at_once(tmp_path, kills):
    interrupter = Interrupter(tmp_path, lambda: kills.append("killed"))
    interrupter.interrupt()
    assert kills == ["killed"]
    assert interrupter.was_used


def test_only_the_second_interrupt_kills_a_running_command(tmp_path, kills):
    (tmp_path / "started").touch()
    interrupter = Interrupter(tmp_path, lambda: kills.append("killed"))
    interrupter.interrupt()
    interrupter.kill_if_overdue()
    assert kills == []
    interrupter.interrupt()
    assert kills == ["killed"]


def test_a_command_that_does_not_end_is_killed_when_its_time_is_over(tmp_path, kills, monkeypatch):
    (tmp_path / "started").touch()
    interrupter = Interrupter(tmp_path, lambda: kills.append("killed"))
    now_s = 100.0
    monkeypatch.setattr("isl_emu.machine.console.time.monotonic", lambda: now_s)
    interrupter.interrupt()
    now_s = 129.9
    interrupter.kill_if_overdue()
    assert kills == []
    now_s = 130.1
    interrupter.kill_if_overdue()
    assert kills == ["killed"]


def test_console_copies_all_output_and_keeps_the_log(capfdbinary):
    console = Console()
    console.guest_end.sendall(b"one\ntwo")
    console.guest_log_end.sendall(b"\r\nKernel panic\r\n\nat last\n")
    ended, over = os.pipe()
    os.close(over)
    console.relay(ended, None, lambda: None)
    lines = console.log_lines()
    console.close()
    os.close(ended)
    assert capfdbinary.readouterr().out == b"one\ntwo"
    assert lines == ["Kernel panic", "at last"]


def test_a_guest_without_a_status_is_an_error_with_its_last_words(tmp_path):
    console = Console()
    console._note(b"first\nKernel panic - not syncing\n")
    with pytest.raises(MachineError, match="(?s)did not start.*Kernel panic"):
        guest._outcome(tmp_path, console, Interrupter(tmp_path, lambda: None), 1)
    (tmp_path / "status").write_text("7\n")
    assert guest._outcome(tmp_path, console, Interrupter(tmp_path, lambda: None), 0) == 7
    (tmp_path / "status").unlink()
    with pytest.raises(MachineError, match="signal 9 killed its guardian"):
        guest._outcome(tmp_path, console, Interrupter(tmp_path, lambda: None), -9)
    console.close()


@pytest.fixture
def standing(tmp_path):
    """A guest whose time stands still: its `Hang`, and what tells for how long and says what its kernel says."""
    console = Console()
    hang = Hang(0, tmp_path, tmp_path, console, {7: "spin in p00s04"}.get, 600)

    def goes_on(silent_s: float, said: str = "") -> bool:
        console._note(said.encode())
        guest_ = {"number": 0, "now_ns": 0, "next_ns": None, "computing_s": silent_s}
        state = {field.name: 0 for field in dataclasses.fields(CalendarState)} | {"guests": [guest_]}
        (tmp_path / "state.json").write_text(json.dumps(state))
        return not hang.look()

    yield hang, goes_on
    console.close()


def test_who_lets_time_stand_is_named_when_the_guest_has_said_it(standing, capsys):
    _, goes_on = standing
    for silent_s, said in ((29, ""), (31, ""), (31, "sysrq: Show Regs\n"), (32, "\nPid: 7, co")):
        assert goes_on(silent_s, said)
    assert capsys.readouterr().err == ""
    assert goes_on(33, "mm: python Not tainted\n")
    told = "Warning: time stands still, since something has computed for 33 s: python (spin in p00s04); after 600 s"
    assert capsys.readouterr().err.startswith(told)
    assert goes_on(0) and goes_on(31) and goes_on(40)
    assert capsys.readouterr().err == "", "what it said the last time is no answer"
    assert goes_on(41, "Pid: 9, comm: sh\n")
    assert "for 41 s: sh; after" in capsys.readouterr().err


def test_a_guest_is_killed_when_it_has_said_what_it_runs_or_does_not(standing, tmp_path, monkeypatch):
    hang, goes_on = standing
    (tmp_path / "failed").write_text("something computed for 600 s")
    assert goes_on(600) and goes_on(600, "sysrq: Show Regs\n")
    with pytest.raises(MachineError, match=r"for 600 s \(it runs its kernel\)"):
        hang.check()
    now_s = time.monotonic()
    monkeypatch.setattr("isl_emu.machine.hang.time.monotonic", lambda: now_s + 60)
    assert not goes_on(600)
    monkeypatch.undo()
    assert not goes_on(600, "Pid: 7, comm: python\n")
    with pytest.raises(MachineError, match=r"\(it runs python \(spin in p00s04\)\)"):
        hang.check()
