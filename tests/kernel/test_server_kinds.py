"""Real servers in containers: what they take together, one held to a slower pace, and a program of the user's own."""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from isl_emu.errors import WorkloadError
from isl_emu.nodes.containers import Container
from isl_emu.nodes.namespaces import in_own_thread
from isl_emu.nodes.nodespaces import NodeSpace
from isl_emu.parts.serving.model_file import resolve_model
from isl_emu.parts.serving.real import _decode, throttle
from isl_emu.parts.serving.servers import ModelServer, answers, serve, serve_with, start_program
from isl_emu.runs.directory import RunDirectory
from isl_emu.runs.endpoints import MODEL_PORT
from isl_emu.units import NS_PER_S
from tests.nets import loopback_spaces

NODES = ("p00s00", "p00s01")
CONTEXT_TOKENS = 1024
MEMORY_BYTE = 256 << 20
TWELVE, MOST_BYTE = 12, 1.2e9
WANTED_TOKENS_S = 4.0  # that any processor with AVX2 reaches
TOKENS = 12
a_third = 0.33


def _has_model() -> bool:
    try:
        return bool(resolve_model("bundled"))
    except WorkloadError:
        return False


pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netem")]
needs_model = pytest.mark.skipif(not _has_model(), reason="no bundled model, or a processor without AVX2")


@pytest.fixture
def spaces(run: RunDirectory) -> Iterator[list[NodeSpace]]:
    with loopback_spaces(run, NODES) as made:
        yield made


@pytest.fixture
def containers(run: RunDirectory, spaces: list[NodeSpace]) -> Iterator[list[Container]]:
    """One for each node, with its address on its own loopback."""
    hosts = {space.node: f"127.0.1.{number}" for number, space in enumerate(spaces, start=1)}
    files = (resolve_model("bundled"),) if _has_model() else ()
    made = [Container(space.node, space.path, run, 1.0, MEMORY_BYTE, hosts, files) for space in spaces]
    try:
        for container in made:
            container.start()
        yield made
    finally:
        for container in made:
            container.stop()


def _pss_byte(server: ModelServer) -> int:
    rollup = Path(f"/proc/{server.process.pid}/smaps_rollup").read_text()
    return 1024 * int(re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)[1])


@needs_model
def test_twelve_share_the_weights_and_one_is_held_to_a_pace(containers: list[Container], tmp_path: Path) -> None:
    model = resolve_model("bundled")
    with serve(containers, model, CONTEXT_TOKENS, tmp_path, lambda *_: None) as servers:
        found = throttle(containers[0], WANTED_TOKENS_S, 1.0)
        assert found.cpus == pytest.approx(WANTED_TOKENS_S / found.native_tokens_s)
        begun_s, spent_ns = time.monotonic(), containers[0].cpu_ns()
        in_own_thread(_decode, containers[0], TOKENS)
        used = (containers[0].cpu_ns() - spent_ns) / NS_PER_S / (time.monotonic() - begun_s)
        assert used < found.cpus * (1 + a_third)
        in_own_thread(_decode, containers[1], TOKENS)
        together = sum(_pss_byte(server) for server in servers)
        # each of two has a half of the weights in it; of twelve each would have a twelfth
        own = (together - model.stat().st_size) / len(servers)
        assert 0 < own * TWELVE + model.stat().st_size < MOST_BYTE


def test_a_program_of_the_users_serves_and_its_failure_is_told(containers: list[Container], tmp_path: Path) -> None:
    def starter(words: str) -> Callable[[Container], ModelServer]:
        return lambda container: start_program(container, [sys.executable, *shlex.split(words)], tmp_path)

    listen = starter(f"-m http.server {MODEL_PORT} --directory /usr/share")
    with serve_with(containers[:1], listen, lambda *_: None, "/") as (server,):
        assert answers(server.container.netns_path, server.container.address, "/", 5.0)
        assert not answers(server.container.netns_path, server.container.address, "/missing", 5.0)
    fail = starter("-c 'raise SystemExit(\"no such port\")'")
    with (
        pytest.raises(WorkloadError, match=r"on p00s01: ended with status 1 \(no such port\)"),
        serve_with(containers[1:], fail, lambda *_: None),
    ):
        pytest.fail("it became healthy")
