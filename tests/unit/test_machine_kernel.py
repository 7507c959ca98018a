"""The kernel's cache and what a build needs; nothing is compiled here."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from isl_emu.errors import MachineError
from isl_emu.machine import kernel_build, kernel_cache, uml
from isl_emu.machine.calendar_control import CalendarControl, Wish
from isl_emu.machine.guest import VirtualClock, run_in_guest
from isl_emu.machine.kernel_cache import RECIPE, BuiltKernel, KernelSource, find_built, recipe_digest
from isl_emu.machine.uml import UmlKernel
from isl_emu.runs.directory import RunDirectory

SOURCE = KernelSource(Path("/usr/src/linux.tar.xz"), "6.12.117-1")
PROGRAM = b"#!/bin/sh\necho 6.12.117-isl\n"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, of this user and of root."""
    monkeypatch.setattr(kernel_cache, "ROOTS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(kernel_cache, "_own_caches", lambda: (tmp_path / "cache", tmp_path / "other"))
    return tmp_path / "cache"


def _put(cache: Path, name: str = "k", source: str = SOURCE.version, recipe: str | None = None) -> Path:
    """A kernel in the cache."""
    entry = cache / "kernels" / name
    entry.mkdir(parents=True)
    (entry / "linux").write_bytes(PROGRAM)
    (entry / "linux").chmod(0o755)
    digest = hashlib.sha256(PROGRAM).hexdigest()
    BuiltKernel("", "6.12.117-isl", source, recipe or recipe_digest(), digest, "gcc", 1.0).save(entry)
    return entry


def test_a_kernel_is_found_by_its_source_and_recipe(cache):
    _put(cache, "other", source="6.12.115-2")
    wanted = _put(cache, "wanted")
    _put(cache, "later", source="6.12.118-1")
    assert find_built(SOURCE).program == str(wanted / "linux")


def test_without_the_source_the_last_kernel_of_the_recipe_serves(cache):
    entry = _put(cache, source="6.12.115-2")
    assert find_built(None).program == str(entry / "linux")


def test_a_kernel_of_another_recipe_is_not_found(cache):
    _put(cache, recipe="another")
    assert find_built(SOURCE) is None


@pytest.mark.parametrize("spoilt", ["linux", "kernel.json"])
def test_a_broken_kernel_is_not_found(cache, spoilt):
    path = _put(cache) / spoilt
    path.write_bytes(path.read_bytes()[:-3])
    assert find_built(SOURCE) is None


def test_a_strangers_kernel_is_not_found(cache, monkeypatch):
    _put(cache)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(kernel_cache, "ROOT", 54321)
    assert find_built(SOURCE) is None


def test_our_kernel_is_taken_before_the_distributions(cache, monkeypatch):
    entry = _put(cache)
    monkeypatch.setattr(uml, "find_source", lambda: SOURCE)
    uml.find_uml.cache_clear()
    kernel = uml.find_uml()
    uml.find_uml.cache_clear()
    assert (kernel.program, kernel.exact, kernel.release) == (str(entry / "linux"), True, "6.12.117-isl")
    assert not uml.needs_shim(kernel)


def test_the_digest_of_the_recipe_follows_every_file_but_the_readme(tmp_path, monkeypatch):
    copy = tmp_path / "kernel"
    shutil.copytree(RECIPE, copy)
    monkeypatch.setattr(kernel_cache, "RECIPE", copy)
    digests = set()
    for path in [None, copy / "README.md", copy / "cc", sorted((copy / "patches").iterdir())[0]]:
        if path is not None:
            path.write_bytes(path.read_bytes() + b"\n")
        recipe_digest.cache_clear()
        digests.add(recipe_digest())
    recipe_digest.cache_clear()
    assert len(digests) == 3


def test_every_patch_says_what_it_does_before_it_does_it():
    for path in (RECIPE / "patches").iterdir():
        head, _, changes = path.read_text().partition("\ndiff --git ")
        assert re.fullmatch(r"\d-[a-z-]+\.patch", path.name)
        assert len(head.split()) > 10
        assert changes


def test_missing_programs_are_named_with_their_packages(monkeypatch):
    monkeypatch.setattr(kernel_build, "find_source", lambda: SOURCE)
    monkeypatch.setattr(shutil, "which", lambda name: None if name in ("flex", "bc", "xz") else f"/usr/bin/{name}")
    ((what, fix),) = kernel_build.obstacles()
    assert what == "no flex, bc, xz"
    assert fix == "apt-get install --no-install-recommends bc flex xz-utils"


def test_a_missing_source_is_named_with_its_package(monkeypatch, tmp_path):
    monkeypatch.setattr(kernel_build, "find_source", lambda: None)
    assert ("no package linux-source-6.12", kernel_build._install("linux-source-6.12")) in kernel_build.obstacles()
    monkeypatch.setenv(kernel_cache.SOURCE_VARIABLE, str(tmp_path / "absent"))
    assert any("absent, which is no file" in what for what, _ in kernel_build.obstacles())


def test_too_little_space_is_told_in_numbers(monkeypatch):
    monkeypatch.setattr(kernel_build, "SPACE_BYTE", 1 << 60)
    assert any("are needed: free some" in fix for _, fix in kernel_build.obstacles())


def test_a_build_that_cannot_begin_says_why_in_one_sentence(monkeypatch):
    monkeypatch.setattr(kernel_build, "find_source", lambda: None)
    monkeypatch.setattr(kernel_build, "obstacles", lambda: [("no flex", "install it"), ("no bc", "install it")])
    with pytest.raises(MachineError, match="cannot be built .no flex., but exact time needs it; install it$"):
        kernel_build.build_kernel(lambda done, detail: None)


def test_a_kernel_that_is_there_is_not_built_again(cache, monkeypatch):
    entry = _put(cache)
    monkeypatch.setattr(kernel_build, "find_source", lambda: SOURCE)
    monkeypatch.setattr(kernel_build, "_build", lambda *_: pytest.fail("built again"))
    assert kernel_build.build_kernel(lambda done, detail: None).program == str(entry / "linux")


def test_an_interrupted_build_goes_on_and_a_spoilt_one_begins_again(cache, monkeypatch):
    calls = []

    def compile_(source: KernelSource, folder: Path, report) -> None:
        calls.append((folder / "tree").is_dir())
        if calls[-1]:
            raise MachineError("the interruption left half a file")
        (folder / "linux").write_bytes(PROGRAM)
        (folder / "linux").chmod(0o755)

    monkeypatch.setattr(kernel_build, "_compile", compile_)
    monkeypatch.setattr(kernel_build, "_try_out", lambda kernel: None)
    building = cache / "kernels" / "building"
    (building / "tree").mkdir(parents=True)
    (building / "key").write_text(f"{SOURCE.version} {recipe_digest()}")
    built = kernel_build._build(SOURCE, lambda done, detail: None)
    assert calls == [True, False]
    assert not building.exists()
    assert find_built(SOURCE) == built


def test_only_the_latest_kernels_are_kept(cache, monkeypatch):
    def compile_(source: KernelSource, folder: Path, report) -> None:
        (folder / "linux").write_bytes(PROGRAM)
        (folder / "linux").chmod(0o755)

    monkeypatch.setattr(kernel_build, "_compile", compile_)
    monkeypatch.setattr(kernel_build, "_try_out", lambda kernel: None)
    for number in range(6):
        os.utime(_put(cache, f"k{number}") / "kernel.json", (number, number))
    kernel_build._build(SOURCE, lambda done, detail: None)
    kept = [path.name for path in kernel_cache.entries(cache / "kernels")]
    assert kept[1:] == ["k5", "k4", "k3"]


def test_what_is_left_of_another_sources_build_is_thrown_away(cache, monkeypatch):
    monkeypatch.setattr(kernel_build, "_compile", lambda *_: pytest.fail("unreachable"))
    building = cache / "kernels" / "building"
    (building / "tree").mkdir(parents=True)
    (building / "key").write_text("another")
    monkeypatch.setattr(kernel_build, "_compile", lambda source, folder, report: 1 / (folder / "tree").exists())
    with pytest.raises(ZeroDivisionError):
        kernel_build._build(SOURCE, lambda done, detail: None)


def test_a_kernel_that_does_not_work_is_not_published(cache, monkeypatch):
    def compile_(source: KernelSource, folder: Path, report) -> None:
        (folder / "linux").write_bytes(PROGRAM)
        (folder / "linux").chmod(0o755)

    def try_out(kernel: UmlKernel) -> None:
        raise MachineError("guest kernel: did not start")

    monkeypatch.setattr(kernel_build, "_compile", compile_)
    monkeypatch.setattr(kernel_build, "_try_out", try_out)
    with pytest.raises(MachineError, match="did not start"):
        kernel_build._build(SOURCE, lambda done, detail: None)
    assert find_built(SOURCE) is None


def test_exact_time_is_refused_on_the_distributions_kernel(tmp_path):
    run = RunDirectory("abc123", tmp_path)
    with pytest.raises(MachineError, match="only the one that isl-emu builds has exact time"):
        run_in_guest(
            ["true"],
            run=run,
            writable=[],
            memory_byte=1 << 20,
            kernel=UmlKernel("/usr/bin/linux.uml", "6.1.176"),
            clock=VirtualClock(0),
        )


def test_a_wish_is_written_whole_and_numbered(tmp_path):
    control = CalendarControl(tmp_path)
    assert control.state() is None
    assert control.wish() == Wish()
    control.pace(2.0)
    control.hold(5)
    assert control.wish() == Wish(serial=2, hold_ns=5, factor=2.0)
    control.go_on()
    assert control.wish() == Wish(serial=3, hold_ns=None, factor=2.0)


def test_a_build_needs_nothing_but_python_itself():
    """The set-up begins it before anything is installed."""
    command = [sys.executable, "-S", "-c", "import isl_emu.machine.kernel_build"]
    root = Path(kernel_build.__file__).parents[2]
    subprocess.run(command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, check=True)
