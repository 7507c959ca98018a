"""A part of a user's own (docs/examples/part) fits into the house: scenario, table, status and section."""

from __future__ import annotations

import re

import pytest

from tests.own_part import EXAMPLE, OwnHouse

STAGES = """
from pathlib import Path
from types import SimpleNamespace

from isl_emu.parts.gossip.part import GossipPart
from isl_emu.parts.registry import PARTS
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import Journal
from isl_emu.scenario.parse import load_scenario

scenario = load_scenario(Path("topologies/gossip.toml"))
(part,) = (part for part in PARTS if isinstance(part, GossipPart))
assert set(part.endpoints(scenario, None)) == set(scenario.satellite_names)
folder = RunFolder.create(Path("run"), "any")
with Journal(folder.journal / "gossip.jsonl") as journal:
    row = {"group": 0, "source": "p00s00", "target": "p00s04", "t_start_ns": 1, "size_byte": 100_000}
    journal.append({**row, "t_end_ns": 2_000_000_000})
print(*part.status(folder.journal))
rows = [{**row, "t_end_ns": 2_000_000_000}]
run = SimpleNamespace(scenario=scenario, rows=lambda name: rows)
for section in part.sections(run, {}):
    print(*section, sep="\\n")
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> OwnHouse:
    return OwnHouse(tmp_path_factory.mktemp("house"))


def test_its_table_of_a_scenario_is_checked(house):
    assert "gossip = [" in house.call("-m", "isl_emu", "check", "topologies/gossip.toml")
    wrong = (house.folder / "topologies" / "gossip.toml").read_text().replace('source = "p00s00"', 'source = "p09s00"')
    (house.folder / "wrong.toml").write_text(wrong)
    said = house.call("-m", "isl_emu", "check", "wrong.toml", status=[1])
    assert "gossip[0].source names 'p09s00', but there is no such satellite" in said


def test_its_journal_becomes_a_line_of_status_and_a_section(house):
    said = house.call("-c", STAGES)
    assert "satellites that were told by gossip: 1" in said
    assert re.search(r"p00s00 +100,000 +2 of 8 +2.00 s +2.00 s", said)


def test_its_page_names_every_file():
    page = (EXAMPLE / "README.md").read_text()
    for path in EXAMPLE.rglob("*"):
        if path.is_file() and path.stat().st_size and path.name not in ("README.md", "__init__.py"):
            assert f"`{path.relative_to(EXAMPLE)}`" in page
    changed = re.findall(r"^\+\+\+ b/isl_emu/(.*)$", (EXAMPLE / "house.diff").read_text(), re.MULTILINE)
    assert all(f"`{name}`" in page for name in changed)
