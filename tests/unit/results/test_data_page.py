"""What docs/data.md tells people to do with results works, wherever its libraries are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from isl_emu.results.conclude import conclude

PAGE = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
BLOCKS = {
    title: re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE) for title, text in SECTIONS.items()
}


@pytest.mark.parametrize("title", [title for title, blocks in BLOCKS.items() if blocks])
def test_its_python_works(title: str, good_run: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    code = "".join(BLOCKS[title])
    for name in re.findall(r"^import (\w+)", code, re.MULTILINE):
        pytest.importorskip(name, reason="scripts/setup test, or pip install 'isl-emu[data]', brings it")
    far = {"hops_seen": 2, "delay_ns": 8_000_000}
    late = [good_run.far_probe(seq=at, t_send_ns=at * 10**9 + 1, **(far if at > 1 else {})) for at in range(4)]
    good_run.write("probes.jsonl", [good_run.probe(), *late])
    conclude(good_run.folder, good_run.scenario, good_run.plan, good_run.routes)
    monkeypatch.chdir(good_run.folder.path)
    exec(compile(code, "docs/data.md", "exec"), {})
    told = capsys.readouterr().out
    wanted = {
        "What a column means": "planned_rtt_before_ns ns planned propagation delay",
        "pandas": "300.0",
        "polars": "sent_byte",
        "DuckDB": "handover",
        "xarray": "gs-a to p00s02",
    }
    assert wanted[title] in told
