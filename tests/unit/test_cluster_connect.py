"""What is taken for a cluster, and what is refused of one."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from isl_emu.cluster import connect as connecting
from isl_emu.cluster.connect import check_versions, connect, versions
from isl_emu.errors import MachineError, ScenarioError


def test_without_dask_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MachineError, match=r"Dask is not installed.*pip install 'isl-emu\[cluster\]'"):
        connect("local:2")


@pytest.mark.parametrize("text", ["nowhere", "local:0", "local:two", "tcp://host", ""])
def test_what_is_no_cluster_is_refused(text: str) -> None:
    with pytest.raises(ScenarioError, match=f"--cluster: is {text}, but a cluster is the address"):
        connect(text)


@pytest.mark.parametrize("text", ["{}", "no JSON", '{"address": 3}', '{"address": "here"}'])
def test_a_file_that_is_no_scheduler_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "scheduler.json").write_text(text)
    with pytest.raises(ScenarioError, match=r"scheduler.json, but a cluster is the address .* its scheduler file"):
        connect(str(tmp_path / "scheduler.json"))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "tls://127.0.0.1:1", "nowhere://x:1"])
def test_where_nobody_answers_is_said(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(connecting, "CONNECT_WITHIN_S", 0.2)
    with pytest.raises(MachineError, match=f"{address} is named, and nobody answers"):
        connect(address)
    for name in ("distributed.client", "distributed.comm"):  # of a scheduler that dies we tell, without a traceback
        assert not logging.getLogger(name).isEnabledFor(logging.ERROR)


class WithoutWorkers:
    """A client of a cluster that nobody works for."""

    def nthreads(self) -> dict[str, int]:
        return {}

    def wait_for_workers(self, count: int, timeout: float) -> None:
        raise TimeoutError

    def run(self, function: Any) -> dict[str, Any]:
        raise ModuleNotFoundError("No module named 'isl_emu'")


def test_workers_are_waited_for_and_that_is_said() -> None:
    said: list[str] = []
    with pytest.raises(MachineError, match="tcp://a:1 has had no workers for 60 s"):
        connecting._await_workers(WithoutWorkers(), "tcp://a:1", said.append)
    assert said == ["--cluster: tcp://a:1 has no workers yet; waiting 60 s for the first"]


def test_a_worker_with_something_else_is_refused() -> None:
    own = versions()
    check_versions({"tcp://b:1": own}, own)
    for other, told in (
        ({**own, "Python": "3.9"}, rf"worker tcp://b:1 has Python 3\.9 and this machine {own['Python']}"),
        ({**own, "isl-emu": "0.0"}, r"has isl-emu 0\.0 and this machine"),
        ({}, "has isl-emu None"),
    ):
        with pytest.raises(MachineError, match=told):
            check_versions({"tcp://a:1": own, "tcp://b:1": other}, own)
    with pytest.raises(MachineError, match="a worker cannot load isl-emu .*'isl_emu'.*install it in the workers'"):
        connecting._check_versions(WithoutWorkers())
