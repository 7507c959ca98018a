"""A wheel, made of this checkout's source distribution and installed into an environment of its own, is all that a user
needs anywhere else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHIPPED = sorted(path.stem for path in (ROOT / "topologies").glob("*.toml"))
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def isl_emu(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command of an installed wheel, in a folder where nothing is; what it depends on is this environment's."""
    folder = tmp_path_factory.mktemp("wheel")
    source, venv = folder / "source", folder / "venv"
    source.mkdir()
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, source)
    for name in ("docs", "isl_emu", "scripts", "tests", "topologies"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    make = "from setuptools import build_meta; print(build_meta.build_sdist('dist'))"
    subprocess.run(
        [sys.executable, "-c", make], cwd=source, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    (archive,) = (source / "dist").iterdir()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = ["wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(archive)]
    subprocess.run([*pip, *build], check=True, stdout=subprocess.PIPE)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (wheel,) = folder.glob("*.whl")
    install = ["--python", str(venv / "bin" / "python"), "install", "--no-index", "--no-deps", str(wheel)]
    subprocess.run([*pip, *install], check=True, stdout=subprocess.PIPE)
    shutil.rmtree(source)
    environment = {**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")}

    assert (venv / "share" / "man" / "man1" / "isl-emu.1").is_file()

    def command(*words: str, cwd: Path = folder) -> subprocess.CompletedProcess[str]:
        argv = [str(venv / "bin" / "isl-emu"), *words]
        return subprocess.run(argv, cwd=cwd, env=environment, capture_output=True, text=True, check=False)

    where = [str(venv / "bin" / "python"), "-c", "import isl_emu; print(isl_emu.__file__)"]
    found = subprocess.run(where, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout
    assert found.startswith(str(venv))
    assert {"index.html", "app.js", "style.css", "THIRD-PARTY.txt"} <= {
        path.name for path in (Path(found.strip()).parent / "view" / "web").iterdir()
    }
    return command


def test_it_lists_the_shipped_scenarios(isl_emu: Command) -> None:
    listed = isl_emu("scenarios").stdout
    assert [line.split()[0] for line in listed.splitlines()[1:] if not line.startswith(" ")] == SHIPPED


def test_a_shipped_scenario_is_found_by_its_name(isl_emu: Command) -> None:
    checked = isl_emu("check", "training")
    assert checked.returncode == 0, checked.stderr
    assert 'name = "training"' in checked.stdout


def test_a_file_of_the_current_folder_goes_before_a_shipped_scenario(isl_emu: Command, tmp_path: Path) -> None:
    own = (ROOT / "topologies" / "training.toml").read_text()
    (tmp_path / "three-body.toml").write_text(own.replace("seed = 1\n", "seed = 4711\n"))
    assert "seed = 4711\n" in isl_emu("check", "three-body", cwd=tmp_path).stdout


def test_a_name_that_is_neither_says_where_names_are(isl_emu: Command) -> None:
    asked = isl_emu("check", "four-body")
    assert asked.returncode == 1
    assert "isl-emu scenarios" in asked.stderr
    assert "such as three-body" in isl_emu("check", "topologies/three-body.toml").stderr


@pytest.mark.emulation
def test_a_shipped_scenario_runs(isl_emu: Command, tmp_path: Path) -> None:
    ran = isl_emu("run", "three-body", "--duration", "20s", "--out", str(tmp_path / "out"))
    assert ran.returncode in (0, 3), ran.stdout + ran.stderr
    assert (tmp_path / "out" / "requests.parquet").exists()
    assert (tmp_path / "out" / "report.html").exists()  # its page is in the wheel
