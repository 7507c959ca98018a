"""Split models before anything is started: who has which layers, and what is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from isl_emu.errors import ScenarioError, WorkloadError
from isl_emu.live.room import all_needs
from isl_emu.parts.serving.model_file import resolve_model
from isl_emu.parts.split import shares as split_shares
from isl_emu.parts.split.shares import check_engine, check_split, shares
from isl_emu.scenario.parse import format_scenario, parse_scenario
from tests.scenarios import SMALL

SPLIT = '[[split]]\nsatellites = ["p00s03", "p00s0[12]"]\n'


def test_the_head_is_the_first_one_named() -> None:
    scenario = parse_scenario(SMALL + SPLIT, "small")
    (split,) = scenario.split
    assert split.members(scenario.satellite_names) == ("p00s03", "p00s01", "p00s02")
    assert scenario.serving_satellites == ("p00s03",)
    assert scenario.computing_satellites == ()
    assert parse_scenario(format_scenario(scenario), "again") == scenario


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('satellites = ["p09s00", "p00s00"]', r"split\[0\].satellites names 'p09s00', but there is no such satellite"),
        (
            'satellites = ["p09*"]\n[questions]\nmean_interval = "1 s"',
            r"split\[0\].satellites has 'p09\*', but it matches no satellite",
        ),
        ('satellites = ["p00s00"]', r"split\[0\].satellites means 1 satellite, but a model is split over at least two"),
        ('satellites = ["p00s0[01]"]\nlayers = [30]', r"split\[0\].layers has 1 numbers, but there are 2 satellites"),
        (
            'satellites = ["p00s0[01]"]\nlayers = [30, 0]',
            r"split\[0\].layers\[1\] is 0, but each satellite needs a layer",
        ),
        ('satellites = ["p00s0[01]"]\nengine = "mpi"', r"split\[0\].engine is 'mpi', but it should be"),
        (
            'satellites = ["p00s0[01]"]\n[compute]\nsatellites = ["p00s00"]',
            r"split\[0\].satellites begins with 'p00s00', but it answers for compute already",
        ),
        (
            'satellites = ["p00s0[01]"]\n[[split]]\nsatellites = ["p00s00", "p00s02"]',
            r"split\[1\].satellites begins with 'p00s00', but it answers for split\[0\] already",
        ),
    ],
)
def test_a_split_that_cannot_be_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(ScenarioError, match=sentence):
        parse_scenario(f"{SMALL}[[split]]\n{text}\n", "small")


def test_shares_are_even_and_the_first_ones_larger() -> None:
    assert [len(part) for part in shares(30, 4)] == [8, 8, 7, 7]
    assert shares(6, 3) == [range(2), range(2, 4), range(4, 6)]
    assert shares(6, 2, (1, 5)) == [range(1), range(1, 6)]


@pytest.mark.parametrize(
    ("layers", "members", "given", "sentence"),
    [
        (3, 4, (), "split.satellites: are 4, but the model has 3 layers"),
        (30, 2, (10, 10), "split.layers: come to 20, but the model has 30 layers"),
    ],
)
def test_shares_that_do_not_fit_are_refused(layers, members, given, sentence) -> None:
    with pytest.raises(WorkloadError, match=sentence):
        shares(layers, members, given)


@pytest.mark.parametrize("engine", ["pipeline", "llama-rpc"])
def test_too_little_memory_is_refused_before_anything_is_started(engine: str) -> None:
    scenario = parse_scenario(f'{SMALL}{SPLIT}engine = "{engine}"\nmemory = "50 MB"\n', "small")
    with pytest.raises(WorkloadError, match=r"split.memory: is 50 MB, but 10 layers of .* need about \d+ MB"):
        check_split(scenario.split[0], 3, resolve_model("bundled"))


def _header_only(path: Path, **fields: str) -> Path:
    """A GGUF file without tensors, and with metadata of text."""

    def text(words: str) -> bytes:
        return struct.pack("<Q", len(words)) + words.encode()

    pairs = b"".join(text(key) + struct.pack("<I", 8) + text(value) for key, value in fields.items())
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(fields)) + pairs)
    return path


@pytest.mark.parametrize(
    ("engine", "fields", "sentence"),
    [
        ("pipeline", {"general.architecture": "mamba"}, "architecture 'mamba', but the pipeline knows llama"),
        ("pipeline", {"general.architecture": "llama", "tokenizer.ggml.pre": "dbrx"}, "has tokenizer.ggml.pre 'dbrx'"),
        ("llama-rpc", {"general.architecture": "mamba"}, "does not say how many layers"),
    ],
)
def test_a_model_that_cannot_be_split_is_refused(tmp_path: Path, engine: str, fields: dict, sentence: str) -> None:
    scenario = parse_scenario(f'{SMALL}{SPLIT}engine = "{engine}"\n', "small")
    with pytest.raises(WorkloadError, match=sentence):
        check_split(scenario.split[0], 3, _header_only(tmp_path / "m.gguf", **fields))


def test_each_member_has_a_role() -> None:
    scenario = parse_scenario(SMALL + SPLIT + 'memory = "2 GB"\n', "small")
    needs = list(all_needs(scenario))
    assert [need.node for need in needs] == ["p00s03", "p00s01", "p00s02"]
    assert needs[0].expected_byte > needs[1].expected_byte == needs[2].expected_byte  # the head has both ends too
    assert all(need.expected_byte < need.memory_byte for need in needs)


def test_a_missing_library_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(split_shares, "find_spec", lambda name: None if name == "torch" else name)
    with pytest.raises(
        WorkloadError, match=r"torch is not installed; run `.*'isl-emu\[pipeline\]' .*scripts/setup pipeline"
    ):
        check_engine("pipeline")
    monkeypatch.setattr(split_shares, "backend_path", lambda: tmp_path / "libggml-rpc-1.so")
    with pytest.raises(WorkloadError, match=r"libggml-rpc-1.so does not exist; run `python -m isl_emu"):
        check_engine("llama-rpc")
