"""Which kernel a run takes, and what doctor says."""

from __future__ import annotations

import pytest

from isl_emu.errors import MachineError
from isl_emu.machine import doctor, place
from isl_emu.machine.doctor import Finding
from isl_emu.machine.kernel_cache import BuiltKernel
from isl_emu.machine.uml import UmlKernel

DEBIANS = UmlKernel("/usr/bin/linux.uml", "6.1.176")
NO_NETEM = "the kernel has no netem (sch_netem)"


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine outside any guest, with a guest kernel that needs no shim."""
    monkeypatch.delenv("ISL_EMU_GUEST", raising=False)
    monkeypatch.setattr(doctor, "missing_features", lambda: [NO_NETEM])
    for module in (place, doctor):
        monkeypatch.setattr(module, "find_uml", lambda: DEBIANS)
        monkeypatch.setattr(module, "needs_shim", lambda kernel: False)
    monkeypatch.setattr(doctor, "find_built", lambda source: None)
    monkeypatch.setattr(doctor, "obstacles", list)


def _lacking(monkeypatch, *sentences: str) -> None:
    monkeypatch.setattr(place, "missing_features", lambda: list(sentences))


def _no_uml():
    raise MachineError("guest kernel: linux.uml is not on this machine; apt-get install user-mode-linux")


def test_a_complete_host_is_taken(monkeypatch):
    _lacking(monkeypatch)
    assert place.choose_place("auto").kind == place.choose_place("host").kind == "host"


def test_a_host_without_netem_gives_way_to_the_guest_and_says_why(monkeypatch):
    _lacking(monkeypatch, NO_NETEM)
    assert place.choose_place("auto") == place.Place("guest", f"kernel 6.1.176: {NO_NETEM}", kernel=DEBIANS)


def test_the_guest_can_be_asked_for_on_a_complete_host(monkeypatch):
    _lacking(monkeypatch)
    assert place.choose_place("guest") == place.Place("guest", "kernel 6.1.176: as requested", kernel=DEBIANS)


def _ours(monkeypatch) -> UmlKernel:
    kernel = UmlKernel("/k/linux", "6.12.117-isl", "0123", exact=True)
    monkeypatch.setattr(place, "find_uml", lambda: kernel)
    return kernel


def test_exact_time_is_a_guests_on_the_kernel_that_was_built(monkeypatch):
    _lacking(monkeypatch)
    kernel = _ours(monkeypatch)
    wanted = place.Place("guest", "kernel 6.12.117-isl, in exact time", "exact", kernel)
    assert place.choose_place("auto", "auto") == place.choose_place("guest", "exact") == wanted


def test_what_needs_real_time_gets_it_and_says_why(monkeypatch):
    _lacking(monkeypatch)
    _ours(monkeypatch)
    chosen = place.choose_place("auto", "auto", "its servers compute")
    assert (chosen.kind, chosen.clock) == ("host", "real")
    assert chosen.reason.endswith("; in real time: its servers compute")
    with pytest.raises(MachineError, match="its servers compute, but exact time is asked for; use --clock real"):
        place.choose_place("auto", "exact", "its servers compute")


def test_a_host_has_no_exact_time(monkeypatch):
    _lacking(monkeypatch)
    _ours(monkeypatch)
    assert place.choose_place("host", "auto").clock == "real"
    with pytest.raises(MachineError, match="--clock exact: this machine's own kernel.*use --clock real"):
        place.choose_place("host", "exact")


def test_without_our_kernel_time_is_real_or_the_request_is_refused(monkeypatch):
    _lacking(monkeypatch)
    assert "in real time: the kernel that has exact time is not built" in place.choose_place("auto", "auto").reason
    with pytest.raises(
        MachineError,
        match="the kernel.*is not built, but exact .*; `isl-emu doctor` says",
    ):
        place.choose_place("auto", "exact")


def test_real_time_can_be_asked_for(monkeypatch):
    _lacking(monkeypatch, NO_NETEM)
    kernel = _ours(monkeypatch)
    assert place.choose_place("auto", "real") == place.Place("guest", f"kernel 6.12.117-isl: {NO_NETEM}", kernel=kernel)


def test_a_requested_host_must_be_complete(monkeypatch):
    _lacking(monkeypatch, NO_NETEM)
    with pytest.raises(MachineError, match="--machine host: the kernel has no netem.*--machine guest"):
        place.choose_place("host")


def test_no_place_at_all_names_the_package(monkeypatch):
    _lacking(monkeypatch, NO_NETEM)
    monkeypatch.setattr(place, "find_uml", _no_uml)
    with pytest.raises(MachineError, match="apt-get install user-mode-linux"):
        place.choose_place("auto")


def test_a_guest_boots_no_guest(monkeypatch):
    monkeypatch.setenv("ISL_EMU_GUEST", "1")
    _lacking(monkeypatch)
    assert place.choose_place("auto").kind == "host"
    with pytest.raises(MachineError, match="inside a guest kernel already"):
        place.choose_place("guest")


def test_what_the_guest_lacks_is_optional_where_the_host_can_do_it(monkeypatch):
    monkeypatch.setattr(doctor, "missing_features", lambda: [])
    monkeypatch.setattr(doctor.os, "geteuid", lambda: 0)
    monkeypatch.setattr(doctor, "find_uml", _no_uml)
    assert _finding("guest kernel").ok is None


def test_what_the_guest_lacks_is_missing_where_the_host_cannot_do_it(monkeypatch):
    monkeypatch.setattr(doctor, "find_uml", _no_uml)
    assert _finding("guest kernel") == Finding(
        "guest kernel", False, "linux.uml is not on this machine", "apt-get install user-mode-linux"
    )
    assert NO_NETEM in _finding("network namespaces, netem").detail


def test_missing_programs_are_named_with_their_packages(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name, path: None if name in ("ip", "tc") else f"/bin/{name}")
    found = _finding("programs")
    assert (found.ok, found.detail) == (False, "no ip, tc")
    assert found.fix == "apt-get install --no-install-recommends iproute2"


def test_a_processor_without_avx2_is_told(monkeypatch):
    monkeypatch.setattr(doctor.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(doctor, "processor_flags", lambda: frozenset({"sse2"}))
    assert "AVX2" in _finding("model server").detail


def test_conclusion_is_the_place_or_what_stands_in_the_way(monkeypatch):
    _lacking(monkeypatch, NO_NETEM)
    assert doctor.conclusion() == (True, f"isl-emu run would use: guest, kernel 6.1.176: {NO_NETEM}")
    monkeypatch.setattr(place, "find_uml", _no_uml)
    usable, sentence = doctor.conclusion()
    assert not usable
    assert "apt-get install user-mode-linux" in sentence


def test_a_machine_without_a_place_is_told_in_one_word(monkeypatch, capsys):
    _lacking(monkeypatch, NO_NETEM)
    monkeypatch.setattr(place, "find_uml", _no_uml)
    place.main()
    heard = capsys.readouterr()
    assert heard.out == "none\n"
    assert "apt-get install user-mode-linux" in heard.err


def test_a_kernel_that_is_built_is_told_with_its_digest(monkeypatch):
    built = BuiltKernel("/k/linux", "6.12.117-isl", "6.12.117-1", "abc", "0123456789abcdef", "gcc 12.2.0", 100.0)
    monkeypatch.setattr(doctor, "find_built", lambda source: built)
    assert _finding("exact time") == Finding(
        "exact time", True, "kernel 6.12.117-isl, sha256 0123456789ab, by gcc 12.2.0"
    )


def test_what_a_build_lacks_is_told_with_the_fix_and_is_no_failure(monkeypatch):
    monkeypatch.setattr(doctor, "obstacles", lambda: [("no flex", "apt-get install flex"), ("no space", "free some")])
    found = _finding("exact time")
    assert (found.ok, found.fix) == (None, "apt-get install flex; free some")
    assert "no flex; no space; runs take real time" in found.detail


def test_a_kernel_that_can_be_built_is_announced():
    found = _finding("exact time")
    assert found.ok is None
    assert found.fix.endswith("-m isl_emu.machine.kernel_build")


def _finding(subject: str) -> Finding:
    return next(finding for finding in doctor.examine() if finding.subject == subject)
