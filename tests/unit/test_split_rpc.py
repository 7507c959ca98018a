"""llama.cpp's RPC: which layers lie where, what is measured, and, where the backend was made, that it answers alike."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from isl_emu.parts.split.rpc_build import backend_path, source_version, unpack
from isl_emu.parts.split.rpc_member import placement, traffic_byte
from isl_emu.runs.clock import RunClock
from isl_emu.runs.journal import read_journal
from tests.asking import asked
from tests.runs import wait_for


def test_the_last_layers_are_the_workers_and_the_output_lies_behind_them() -> None:
    assert placement([10, 10, 10]) == (21, [10.0, 11.0])
    assert placement([29, 1]) == (2, [2.0])


def test_the_version_of_a_source_is_read_from_its_build_file() -> None:
    text = "project(ggml)\nset(GGML_VERSION_MAJOR 0)\nset(GGML_VERSION_MINOR 26)\nset(GGML_VERSION_PATCH 3)\n"
    assert source_version(text) == "0.26.3"


def test_only_plain_files_of_the_source_are_unpacked_and_none_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("set(GGML_VERSION_MAJOR 0)")
    (tmp_path / "out").mkdir()
    with tarfile.open(tmp_path / "package.tar.gz", "w:gz") as archive:
        for name in ("p/llama.cpp/ggml/CMakeLists.txt", "p/llama.cpp/other", "p/llama.cpp/ggml/../../../../escaped"):
            archive.add(tmp_path / "file", name)
        link = tarfile.TarInfo("p/llama.cpp/ggml/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(link)
    ggml = unpack(tmp_path / "package.tar.gz", tmp_path / "out")
    assert [path for path in (tmp_path / "out").rglob("*") if not path.is_dir()] == [ggml / "CMakeLists.txt"]
    assert not (tmp_path / "escaped").exists()


def test_traffic_is_counted_by_peer() -> None:
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.2", 0)))
        here = stack.enter_context(socket.create_connection(listening.getsockname(), source_address=("127.0.0.3", 0)))
        there, _ = listening.accept()
        stack.enter_context(there)
        here.sendall(b"x" * 1000)
        there.recv(1000, socket.MSG_WAITALL)
        there.sendall(b"y" * 10)
        here.recv(10, socket.MSG_WAITALL)
        counted = traffic_byte({"127.0.0.2": "worker", "127.0.0.3": "head", "127.0.0.9": "nobody"})
    assert counted["worker"][1] == 10  # what a peer has acknowledged may be known later, so only what came is exact
    assert counted["head"][1] == 1000
    assert counted["nobody"] == [0, 0]


@contextmanager
def member(*words: str) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen([sys.executable, "-m", "isl_emu.parts.split.rpc_member", *words])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(not backend_path().exists(), reason="llama.cpp's RPC backend (rpc_build) is not made")
def test_a_split_model_answers_as_a_whole_one_does(tmp_path: Path) -> None:
    from tests.unit.test_split_decoder import BLUE, QUESTION, bundled  # noqa: PLC0415

    RunClock.create(tmp_path, slowdown=1.0)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    common = ["--port", port, "--clock", str(tmp_path / "clock"), "--journal", str(tmp_path / "meter.jsonl")]
    net = f"127.{os.getpid() % 250 + 1}.{os.getpid() // 250 % 250}"  # nobody else's: the head's port is a fixed one
    head, worker = ["--satellite", "a", "--address", f"{net}.1"], ["--satellite", "b", "--address", f"{net}.2"]
    model = ["--model", str(bundled()), "--layers", "10", "20", "--context", "256", "--conversations", "1"]
    with member(*common, *worker, f"--peer=a={net}.1"), member(*common, *head, *model, f"--peer=b={net}.2"):
        answer = asked(f"http://{net}.1:8080/v1/chat/completions", QUESTION)

        def all_is_counted() -> bool:
            lines = read_journal(tmp_path / "meter.jsonl").records
            sent, received = [line for line in lines if line["satellite"] == "a"][-1]["peers"]["b"]
            return sent > 40_000_000 and received > 16 * 4 * 49_152  # twenty layers; logits of sixteen tokens

        wait_for(all_is_counted, "the count of the last bytes")
    assert answer["choices"][0]["message"]["content"].startswith(BLUE)
