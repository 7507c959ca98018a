"""Every column says its unit and meaning, in the file and in the documentation."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isl_emu.parts.registry import PARTS
from isl_emu.results.conclude import TABLES as OWN

DOCUMENT = Path(__file__).parents[3] / "docs" / "results.md"
TABLES = {**OWN, **{name: schema for part in PARTS for name, schema in {**part.lines, **part.tables}.items()}}
FIELDS = [(table, field) for table, schema in TABLES.items() for field in schema]
RATES = {"bit_s": "bit/s", "tokens_s": "tokens/s"}
UNIT_OF_SUFFIX = {**RATES, "ns": "ns", "ratio": "ratio", "packets": "packets", "tokens": "tokens"}


def _id(value: object) -> str:
    return value.name if isinstance(value, pa.Field) else str(value)


@pytest.mark.parametrize(("table", "field"), FIELDS, ids=_id)
def test_documentation_shows_the_column(table: str, field: pa.Field) -> None:
    unit, description = field.metadata[b"unit"].decode(), field.metadata[b"description"].decode()
    section = DOCUMENT.read_text().partition(f"### {table}.parquet")[2].partition("\n#")[0]
    assert f"| `{field.name}` | {unit} | {description} |" in section


def test_documentation_is_as_the_script_writes_it(tmp_path: Path) -> None:
    """No column too many, none in another order."""
    copy = shutil.copy(DOCUMENT, tmp_path)
    script = DOCUMENT.parents[1] / "scripts" / "column-tables"
    subprocess.run([sys.executable, script, copy], check=True)
    assert Path(copy).read_text() == DOCUMENT.read_text()


@pytest.mark.parametrize(("table", "field"), FIELDS, ids=_id)
def test_unit_in_the_name_is_the_unit_of_the_column(table: str, field: pa.Field) -> None:
    for suffix, unit in UNIT_OF_SUFFIX.items():
        if f"_{field.name}".endswith(f"_{suffix}"):
            assert field.metadata[b"unit"].decode() == unit


@pytest.mark.parametrize("table", TABLES)
def test_units_survive_a_parquet_file(table: str, tmp_path: Path) -> None:
    pq.write_table(TABLES[table].empty_table(), tmp_path / "t.parquet")
    assert pq.read_schema(tmp_path / "t.parquet").equals(TABLES[table], check_metadata=True)
