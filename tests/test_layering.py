"""The house is built one way: who may import whom, and what pure packages never touch."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "isl_emu"
MAP = PACKAGE.parent / "docs" / "architecture.md"
FILES_ONLY = {"data"}

FACES = {"__init__", "__main__", "api", "balance", "captures", "cli", "manual"}  # what users call; nobody imports them
PARTS = sorted(path.parent.name for path in PACKAGE.glob("parts/*/part.py"))

TABLES_OF_PARTS = {  # what a scenario has of them
    *("compute", "questions", "uplink", "split", "kv_handover", "training", "program", "workload", "power", "probes"),
    *("capture", "metadata", "node", "observation", "way_out", "hardware"),
}

# part -> the other parts whose modules it may import
PARTS_BELOW = {
    "serving": set(),
    "questions": {"serving"},
    "split": {"serving"},
    "uplink": {"serving"},
    "kv_handover": {"serving", "questions"},
    "training": {"serving"},
    "power": {"serving"},
    "metadata": {"power"},
    "nodes": set(),
    "observation": {"power", "serving"},
    "way_out": {"nodes"},
    "hardware": set(),
    "programs": {"serving"},
    "probes": set(),
    "routing": set(),
    "faults": set(),
    "substrate": set(),
    "captures": set(),
}
PURE = ("scenario", "geometry", "linkplan", "routing", "partition", "export", "energy")
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


def _rows() -> dict[str, int]:
    """The row of each package and module in the table of docs/architecture.md."""
    table = MAP.read_text(encoding="utf-8").partition("## Rooms")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE)
    return {name: row for row, cell in enumerate(cells) for name in re.findall(r"`(\w+)`", cell)}


ROWS = _rows()


def test_the_map_has_every_room() -> None:
    rooms = {_dotted(path).split(".")[0] for path in MODULES} - FILES_ONLY
    assert rooms == set(ROWS)


@pytest.mark.parametrize("path", MODULES, ids=_dotted)
def test_imports_follow_the_flow(path: Path) -> None:
    """A package imports what stands above it in the map, or in its own row."""
    own = _dotted(path).split(".")[0]
    imported = _ours(_imports(path)) - {f"data.{path.stem}"}
    strangers = sorted(name for name in imported if ROWS[name.split(".")[0]] > ROWS.get(own, -1))
    assert not strangers, f"{_dotted(path)} imports {strangers}, which stand below {own} in {MAP.name}"


@pytest.mark.parametrize("path", [path for path in MODULES if _dotted(path) not in FACES], ids=_dotted)
def test_nobody_imports_a_face(path: Path) -> None:
    assert not sorted(name for name in _ours(_imports(path)) if name.split(".")[0] in FACES)


def test_the_map_names_only_what_is_there() -> None:
    text = MAP.read_text(encoding="utf-8")
    named = {name for name in re.findall(r"`([\w/.]+/[\w/.]+|\w+\.py)`", text) if not re.search("NAME|KIND", name)}
    rooms = (PACKAGE, *(PACKAGE.parent / name for name in ("docs", "tests", "topologies", "scripts")))
    there = {str(path.relative_to(PACKAGE.parent)) for room in rooms for path in (room, *room.rglob("*"))}
    assert named
    assert not sorted(name for name in named if not any(f"/{path}".endswith(f"/{name.rstrip('/')}") for path in there))


@pytest.mark.parametrize("path", [path for path in MODULES if _dotted(path).split(".")[0] in PURE], ids=_dotted)
def test_pure_packages_touch_no_machine(path: Path) -> None:
    touched = sorted(name for name in _imports(path) if name.split(".")[0] in IMPURE)
    assert not touched, f"{_dotted(path)} imports {touched}"


@pytest.mark.parametrize("part", PARTS)
def test_parts_import_each_other_one_way(part: str) -> None:
    allowed = {"parts.part", f"parts.{part}", *(f"parts.{other}" for other in PARTS_BELOW[part])}
    for path in (PACKAGE / "parts" / part).glob("*.py"):
        rooms = {name for name in _ours(_imports(path)) if name.split(".")[:1] == ["parts"] and name.count(".") > 1}
        strangers = sorted(name for name in rooms if not _within(name, allowed))
        assert not strangers, f"{_dotted(path)} imports {strangers}"


@pytest.mark.parametrize("path", [path for path in MODULES if _dotted(path).split(".")[0] not in FACES], ids=_dotted)
def test_nobody_outside_names_a_part(path: Path) -> None:
    """The rest of the house loops over the parts; only the scenario knows their tables, and faces their names."""
    top, *rest = _dotted(path).split(".")
    if top == "scenario" or (top == "parts" and (len(rest) > 1 or rest == ["registry"])):
        return
    named = sorted(name for name in _ours(_imports(path)) if any(_within(name, {f"parts.{part}"}) for part in PARTS))
    assert not named, f"{_dotted(path)} imports {named}"
    read = sorted(
        f"scenario.{node.attr}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in TABLES_OF_PARTS and _is_scenario(node.value)
    )
    assert not read, f"{_dotted(path)} reads {read}"


def _is_scenario(node: ast.AST) -> bool:
    """Whether an expression is called `scenario`, or is the `.scenario` of something."""
    return (isinstance(node, ast.Name) and node.id == "scenario") or (
        isinstance(node, ast.Attribute) and node.attr == "scenario"
    )


def test_only_the_command_line_imports_click() -> None:
    users = {_dotted(path) for path in MODULES if any(name.split(".")[0] == "click" for name in _imports(path))}
    assert users == {"cli", "manual"}


def test_network_never_sees_geometry() -> None:
    for path in (PACKAGE / "network").glob("*.py"):
        assert not any(name.startswith("geometry") for name in _ours(_imports(path))), path


def test_no_module_comes_back_to_itself() -> None:
    """Imports make no circle, wherever in a module they stand: not within a package, and not for types alone."""
    modules = {_dotted(path): path for path in MODULES}
    graph = {name: {one for one in _ours(_imports_of_names(path)) if one in modules} for name, path in modules.items()}
    while removable := [name for name, above in graph.items() if not above & graph.keys()]:
        for name in removable:
            del graph[name]
    assert not graph, f"these import each other, or what does: {sorted(graph)}"


def _imports_of_names(path: Path) -> set[str]:
    """All modules that a file imports, also where one is named as an attribute of its package."""
    names = _imports(path)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names
