"""What docs/data.md tells people to do with results works, wherever its libraries are."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from isl_emu.results.conclude import conclude

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
BLOCKS = {
    title: re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE) for title, text in SECTIONS.items()
}


@pytest.mark.parametrize("title", [title for title, blocks in BLOCKS.items() if blocks])
def test_its_python_works(title: str, good_run: Any) -> None:
    """In a process of its own: these libraries have threads, of which no copy of a process can be made safely."""
    code = "".join(BLOCKS[title])
    for name in re.findall(r"^import (\w+)", code, re.MULTILINE):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not there; scripts/setup test, or pip install 'isl-emu[data]', brings it")
    far = {"hops_seen": 2, "delay_ns": 8_000_000}
    late = [good_run.far_probe(seq=at, t_send_ns=at * 10**9 + 1, **(far if at > 1 else {})) for at in range(4)]
    good_run.write("probes.jsonl", [good_run.probe(), *late])
    conclude(good_run.folder, good_run.scenario, good_run.plan, good_run.routes)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=good_run.folder.path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    wanted = {
        "What a column means": "planned_rtt_before_ns ns planned propagation delay",
        "pandas": "300.0",
        "polars": "sent_byte",
        "DuckDB": "handover",
        "xarray": "gs-a to p00s02",
    }
    assert wanted[title] in done.stdout
