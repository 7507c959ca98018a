"""Every parser of what a user names, each as a function of bytes, and the errors that may come of it.

Hypothesis (tests/properties/test_parsers.py) and atheris (scripts/fuzz) try the same ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from isl_emu.errors import IslEmuError
from isl_emu.files import read_json
from isl_emu.linkplan.plan_file import read_plan
from isl_emu.parts.prompts import read_prompts
from isl_emu.parts.questions.conversations import read_conversations
from isl_emu.parts.questions.traces import read_trace
from isl_emu.parts.serving.model_file import read_header
from isl_emu.runs.journal import read_journal
from isl_emu.scenario.omm import read_omm
from isl_emu.scenario.parse import parse_scenario
from isl_emu.scenario.questions import Trace
from isl_emu.scenario.tle import read_tles
from isl_emu.units import DURATION_NS, LENGTH_KM, NS_PER_S, RATE_BIT_S, parse_quantity
from tests.scenarios import SMALL, TOPOLOGIES

TLE = """ISS (ZARYA)
1 25544U 98067A   19343.69339541  .00001764  00000-0  38792-4 0  9991
2 25544  51.6439 211.2001 0007417  17.6667  85.6398 15.50103472202482
"""
OMM = {
    "OBJECT_NAME": "A", "NORAD_CAT_ID": 1, "EPOCH": "2026-03-20T04:00:00", "MEAN_MOTION": 15.0, "ECCENTRICITY": 0.001,
    "INCLINATION": 97.0, "RA_OF_ASC_NODE": 1.0, "ARG_OF_PERICENTER": 2.0, "MEAN_ANOMALY": 3.0,
}  # fmt: skip
BURSTGPT = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,API log\n"
MOONCAKE = '{"timestamp": 0, "input_length": 1030, "output_length": 52, "hash_ids": [0, 1, 9]}\n'
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,374,44\n"


def _number(value: int, size_byte: int = 8) -> bytes:
    return value.to_bytes(size_byte, "little")


GGUF = b"".join(
    [
        *(b"GGUF", _number(3, 4), _number(1), _number(1)),
        *(_number(20), b"general.architecture", _number(8, 4), _number(5), b"llama"),
        *(_number(1), b"t", _number(1, 4), _number(8), _number(0, 4), _number(0), bytes(64)),
    ]
)


@dataclass(frozen=True)
class Parser:
    """One of them.

    Args:
        parse: what is given it are the bytes, and a file that it may write them to.
        seeds: that it accepts, or nearly so.
        errors: what may come of bytes that it does not accept.
    """

    parse: Callable[[bytes, Path], object]
    seeds: tuple[bytes, ...]
    errors: tuple[type[Exception], ...] = (IslEmuError,)


def _of_text(parse: Callable[[str], object]) -> Callable[[bytes, Path], object]:
    return lambda data, _: parse(data.decode(errors="replace"))


def _of_file(parse: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    def given(data: bytes, file: Path) -> object:
        file.write_bytes(data)
        return parse(file)

    return given


def _quantities(text: str) -> None:
    for dimension in (LENGTH_KM, DURATION_NS, RATE_BIT_S):
        parse_quantity(text, dimension)


def _seeds(*texts: str) -> tuple[bytes, ...]:
    return tuple(text.encode() for text in texts)


PARSERS = {
    "scenario": Parser(
        _of_text(lambda text: parse_scenario(text, "text")),
        _seeds(SMALL, *((TOPOLOGIES / f"{name}.toml").read_text() for name in ("training", "dawn-dusk-energy"))),
    ),
    "tle": Parser(_of_text(read_tles), _seeds(TLE, TLE * 2), (ValueError,)),
    "omm": Parser(
        _of_text(read_omm),
        _seeds(
            json.dumps([OMM]),
            "\n".join([",".join(OMM), ",".join(map(str, OMM.values()))]),
            "CCSDS_OMM_VERS = 2.0\n" + "\n".join(f"{key} = {value}" for key, value in OMM.items()),
            "<omm>" + "".join(f"<{key}>{value}</{key}>" for key, value in OMM.items()) + "</omm>",
        ),
        (ValueError,),
    ),
    "trace": Parser(
        _of_file(lambda file: read_trace(Trace(file=str(file)), 60 * NS_PER_S)), _seeds(BURSTGPT, MOONCAKE, AZURE)
    ),
    "prompts": Parser(_of_file(lambda file: read_prompts(str(file))), _seeds('{"prompt": "Why?"}\n' * 2)),
    "conversations": Parser(
        _of_file(lambda file: read_conversations(str(file))),
        _seeds(
            '[{"id": "a", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}]',
            '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}\n' * 2,
        ),
    ),
    "plan": Parser(_of_file(read_plan), (b"PAR1" + bytes(24) + b"PAR1",)),
    "model": Parser(_of_file(read_header), (GGUF,)),
    "journal": Parser(_of_file(read_journal), _seeds('{"k": 0, "done_ns": 3}\n' * 3), ()),
    "record": Parser(_of_file(read_json), _seeds('{"pid": 1, "start_ticks": 2}'), ()),
    "quantity": Parser(_of_text(_quantities), _seeds("525 km", "1.5e3 ms", "10 Gbit/s"), (ValueError,)),
}
