"""The roofline against what others measured, and the shapes of models against their published sizes."""

from __future__ import annotations

import pytest

from isl_emu.errors import ScenarioError
from isl_emu.scenario.boards import board_named
from isl_emu.scenario.models import Roofline, model_named
from isl_emu.scenario.parse import parse_scenario
from tests.scenarios import SMALL

# Decoding, tokens/s of one answer: TensorRT-Edge-LLM, issue 60 (AGX Orin, Qwen3-4B-VL) and documentation (Thor, INT4);
# smolhub (Orin Nano Super).
MEASURED = [
    ("jetson-agx-orin", "qwen3-4b", 16, 20.2),
    ("jetson-agx-orin", "qwen3-4b", 8, 35.5),
    ("jetson-agx-orin", "qwen3-4b", 4, 52.2),
    ("jetson-agx-thor", "qwen3-0-6b", 4, 270.0),
    ("jetson-agx-thor", "qwen3-4b", 4, 76.0),
    ("jetson-agx-thor", "llama-3-1-8b", 4, 51.0),
    ("jetson-orin-nano-super", "smollm2-135m", 16, 165.0),
]
PROMPTS = [("qwen3-0-6b", 17_429.0), ("qwen3-4b", 3_133.0), ("llama-3-1-8b", 1_777.0)]  # tokens/s, Thor, same source
EIGHT = [("qwen3-0-6b", 828.0), ("qwen3-4b", 240.0)]  # tokens/s of eight answers together, Thor, same source
# Parameters: model cards on Hugging Face. Bytes of keys and values a token: hand count from the cards' shapes.
SIZES = [
    ("smollm2-135m", 134.5e6, 23_040),
    ("qwen3-0-6b", 0.596e9, 114_688),
    ("qwen3-1-7b", 1.72e9, 114_688),
    ("qwen3-4b", 4.02e9, 147_456),
    ("qwen3-8b", 8.19e9, 147_456),
    ("llama-3-1-8b", 8.03e9, 131_072),
]
a_tenth, a_third, half_a_percent = 0.1, 0.36, 0.005
NS = 1e9


@pytest.mark.parametrize(("board", "model", "bits", "tokens_s"), MEASURED)
def test_decoding_is_as_fast_as_measured(board: str, model: str, bits: int, tokens_s: float) -> None:
    roofline = Roofline(board_named(board), model_named(model), bits)
    assert NS / roofline.step_ns(0) == pytest.approx(tokens_s, rel=a_tenth)


@pytest.mark.parametrize(("model", "tokens_s"), PROMPTS)
def test_prompts_are_read_about_as_fast_as_measured(model: str, tokens_s: float) -> None:
    roofline = Roofline(board_named("jetson-agx-thor"), model_named(model), 4)
    assert NS / roofline.prompt_ns(1) == pytest.approx(tokens_s, rel=a_third)


@pytest.mark.parametrize(("model", "tokens_s"), EIGHT)
def test_eight_answers_at_once_are_as_fast_as_measured(model: str, tokens_s: float) -> None:
    roofline = Roofline(board_named("jetson-agx-thor"), model_named(model), 4)
    assert 8 * NS / roofline.step_ns(0, 8) == pytest.approx(tokens_s, rel=a_tenth)


@pytest.mark.parametrize(("model", "parameters", "kv_byte"), SIZES)
def test_models_have_their_published_sizes(model: str, parameters: float, kv_byte: int) -> None:
    assert model_named(model).parameters == pytest.approx(parameters, rel=half_a_percent)
    assert model_named(model).kv_byte_per_token == kv_byte


def test_a_step_grows_with_context_and_answers_but_less_than_in_proportion() -> None:
    roofline = Roofline(board_named("jetson-agx-thor"), model_named("qwen3-4b"), 4)
    assert roofline.step_ns(0) < roofline.step_ns(2000) < roofline.step_ns(2000, 2) < 2 * roofline.step_ns(1000)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ('server = "modelled"', "no board says at which pace; give board"),
        ('server = "modelled"\nboard = "three-body"\nmodel = "qwen3-9b"', "'qwen3-9b', but .* did you mean qwen3-8b"),
        ('server = "modelled"\nboard = "raspberry-pi-5"\nmodel = "qwen3-8b"\nbits = 16', "needs 17.6 GB .* has 8"),
        ('server = "modelled"\nboard = "three-body"\ncontext_tokens = 9000', "smollm2-135m has at most 8192"),
        ('server = "throttled"', "neither board nor decode_tokens_s says to which pace"),
        ('server = "external"', "one of command and url says which"),
        ('server = "external"\nurl = "gpu:8000"', r"url is 'gpu:8000', but it must be a URL"),
        (
            'server = "external"\nurl = "http://a"\nslots = 4',
            'slots .* belongs to "real", "throttled", "modelled"',
        ),
        ("decode_tokens_s = 4.0", 'for a server that is "real", but it belongs to "throttled"; remove it'),
        ("slots = 4", "they are those of a board, and a real server has one; give board"),
        ('pace_model = "qwen3-8b"', "no board says where it has its pace; give board"),
        ('board = "three-body"\nbits = 8', "the model's file has its own; give pace_model"),
        ('board = "three-body"\npace_model = "qwen3-9b"', "pace_model is 'qwen3-9b', but .* did you mean qwen3-8b"),
        (
            'board = "raspberry-pi-5"\npace_model = "qwen3-8b"\nbits = 16',
            "pace_model is .* needs 17.6 GB",
        ),
        (
            'server = "throttled"\nboard = "three-body"\npace_model = "qwen3-8b"\ndecode_tokens_s = 4.0',
            "each says",
        ),
    ],
)
def test_a_server_that_cannot_be_is_refused(keys: str, sentence: str) -> None:
    with pytest.raises(ScenarioError, match=sentence):
        parse_scenario(f"{SMALL}[compute]\n{keys}\n", "small")
