"""The house is built one way: who may import whom, and what pure packages never touch."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "isl_emu"
BASE = {"errors", "files", "units", "timebase"}
RECORDS = {"linkplan.plan", "routing.forwarding", "routing.outlook", "routing.paths"}  # result types that all may read

# package or module -> the packages of ours that it may import, besides BASE and itself
ALLOWED = {
    "errors": set(),
    "files": set(),
    "units": set(),
    "timebase": {"units"},
    "runclock": set(),
    "scenario": set(),
    "geometry": {"scenario"},
    "linkplan": {"scenario", "geometry"},
    "routing": {"scenario", "linkplan"},
    "energy": {"scenario", "geometry"},
    "validate": {"scenario", "geometry", "linkplan", "routing", "energy"},
    "network": {"linkplan", "routing"},
    "machine": {"network.probing", "network.rundir"},
    "workload": {
        *("scenario", "runclock", "network.containers", "network.namespaces", "results.journal"),
        *("linkplan.plan_file", "routing.laser_paths"),
    },
    "export": {"scenario", "geometry", "linkplan"},
    "show": {"scenario", "geometry", "linkplan", "routing", "energy", "api", "balance"},
    "results": {"scenario", "linkplan", "routing", "runclock", "network.namespaces"},
}
PURE = ("scenario", "geometry", "linkplan", "routing", "export", "energy")
IMPURE = {"os", "subprocess", "socket", "time", "ctypes", "threading", "mininet", "pyroute2", "click", "rich", "random"}
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))


def _imports(path: Path) -> set[str]:
    """All modules that the file names in an import, anywhere in it, as dotted names."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names if node.module == "isl_emu")
    return names


def _ours(names: set[str]) -> set[str]:
    return {name.removeprefix("isl_emu.") for name in names if name.startswith("isl_emu.")}


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def _within(name: str, allowed: set[str]) -> bool:
    return any(name == entry or name.startswith(f"{entry}.") for entry in allowed)


# the composition root and the command line may import every stage; everything else is checked
@pytest.mark.parametrize("path", [path for path in MODULES if _dotted(path).split(".")[0] in ALLOWED], ids=_dotted)
def test_imports_follow_the_flow(path: Path) -> None:
    top = _dotted(path).split(".")[0]
    allowed = ALLOWED[top] | BASE | RECORDS | {top}
    strangers = sorted(name for name in _ours(_imports(path)) if not _within(name, allowed))
    assert not strangers, f"{_dotted(path)} imports {strangers}, but {top} may only import {sorted(allowed)}"


@pytest.mark.parametrize("path", [path for path in MODULES if _dotted(path).split(".")[0] in PURE], ids=_dotted)
def test_pure_packages_touch_no_machine(path: Path) -> None:
    touched = sorted(name for name in _imports(path) if name.split(".")[0] in IMPURE)
    assert not touched, f"{_dotted(path)} imports {touched}"


def test_only_the_command_line_imports_click() -> None:
    users = {_dotted(path) for path in MODULES if any(name.split(".")[0] == "click" for name in _imports(path))}
    assert users == {"cli"}


def test_network_never_sees_geometry() -> None:
    for path in (PACKAGE / "network").glob("*.py"):
        assert not any(name.startswith("geometry") for name in _ours(_imports(path))), path
