"""A record of what a run was made with; what cannot be found out is null."""

from __future__ import annotations

import hashlib
from pathlib import Path

from isl_emu.files import read_json, write_json
from isl_emu.results.provenance import (
    completed,
    file_facts,
    git_commit,
    provenance,
)
from isl_emu.runs.execution import Execution, cpu_model, kernel_facts, memory_byte

UML_CPUINFO = "processor\t: 0\nvendor_id\t: User Mode Linux\nmodel name\t: UML\nmode\t\t: skas\n"
MEMINFO = "MemTotal:        4096368 kB\nMemFree:         3859160 kB\n"


def test_real_texts_are_understood() -> None:
    assert cpu_model(UML_CPUINFO) == "UML"
    assert memory_byte(MEMINFO) == 4096368 * 1024


def test_unreadable_texts_are_gaps() -> None:
    assert cpu_model("") is None and memory_byte("") is None


def test_weights_are_named_by_their_content(tmp_path: Path) -> None:
    (tmp_path / "w.gguf").write_bytes(b"GGUF" * 1000)
    assert file_facts(tmp_path / "w.gguf") == {
        "file": "w.gguf",
        "size_byte": 4000,
        "sha256": hashlib.sha256(b"GGUF" * 1000).hexdigest(),
    }


def test_folder_outside_of_a_checkout_has_no_commit(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").touch()
    assert git_commit(tmp_path) is None


def test_record_is_complete_and_survives_its_file(tmp_path: Path) -> None:
    record = provenance(
        scenario_name="n", seed=7, rate_scale=0.1, plan_digest="ab", place="host", reason="root and netem", models=[]
    )
    assert record["versions"]["numpy"] and record["machine"]["kernel"] == kernel_facts()["kernel"]
    assert record["finished_utc"] is None and record["models"] == []
    write_json(tmp_path / "p.json", completed(record, Execution(bias_ns=1.0)))
    after = read_json(tmp_path / "p.json")
    assert after is not None and after["execution"]["bias_ns"] == 1.0 and after["finished_utc"]
    assert [path.name for path in tmp_path.iterdir()] == ["p.json"]


def test_half_a_file_is_no_record(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"a": ')
    assert read_json(tmp_path / "p.json") is None
    assert read_json(tmp_path / "missing.json") is None
