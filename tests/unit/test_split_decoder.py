"""The pipeline's own arithmetic against llama.cpp's, with the same weights; and frames around the ring."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from isl_emu.errors import WorkloadError
from isl_emu.parts.serving.model_file import read_header, resolve_model
from isl_emu.parts.split.shares import PIPELINE_MODULES

for module in PIPELINE_MODULES:
    pytest.importorskip(module, reason=f"{module} (extra pipeline) is not installed")

import torch  # noqa: E402
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter  # noqa: E402

from isl_emu.parts.split.decoder import INTERLEAVED, ModelFile, rotated, rotations  # noqa: E402
from isl_emu.parts.split.pipeline_head import WORDS, ChatText  # noqa: E402
from isl_emu.parts.split.pipeline_stage import FrameLayout, RingPass  # noqa: E402
from isl_emu.parts.split.shares import PIPELINE_ARCHITECTURES, PIPELINE_VOCABULARIES  # noqa: E402

QUESTION = {"messages": [{"role": "user", "content": "Why is the sky blue?"}], "max_tokens": 16, "temperature": 0}
BLUE = "The answer to this question lies in the intricate dance of light and color."
# What llama.cpp (xllamacpp 2026.10.11549) says of the first token after that question (top_logprobs): the logarithm of
# its probability. It computes with activations of 8 bits, so it agrees to some tenths only.
FIRST = {"The": -0.10, "the": -4.24, "Blue": -4.70}
SOME_TENTHS = 0.3


def bundled() -> Path:
    return resolve_model("bundled")


@pytest.fixture(scope="module")
def model() -> ModelFile:
    torch.set_num_threads(1)
    return ModelFile(bundled())


@pytest.fixture(scope="module")
def text(model: ModelFile) -> ChatText:
    return ChatText(model)


def greedy(model: ModelFile, parts: list[range], prompt: list[int], count: int) -> tuple[list[int], torch.Tensor]:
    """The tokens that are most likely, one after the other, and the first of the logits."""
    stages, ends = [model.layers(part, 256) for part in parts], model.ends()
    tokens, new, position, first = [], prompt, 0, None
    for _ in range(count):
        x = ends.embed(new)
        for stage in stages:
            x = stage.forward(x, slot=3, position=position)
        position += len(new)
        logits = ends.logits(x)
        first = logits if first is None else first
        new = [int(logits.argmax())]
        tokens += new
    return tokens, first


def test_the_prompt_is_that_of_llama_cpp(text: ChatText) -> None:
    tokens = text.prompt([{"role": "user", "content": "What is the capital of France?"}])
    # fmt: off
    assert tokens == [
        1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182, 2,
        198, 1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198,
    ]  # as its /tokenize says
    # fmt: on


def test_three_stages_write_what_llama_cpp_writes(model: ModelFile, text: ChatText) -> None:
    prompt = text.prompt(QUESTION["messages"])
    tokens, first = greedy(model, [range(10), range(10, 20), range(20, 30)], prompt, 16)
    assert text.text(tokens).startswith(BLUE)
    likely = first.log_softmax(-1).topk(5)
    found = {text.text([token]): value for token, value in zip(likely.indices.tolist(), likely.values.tolist())}
    for word, log_chance in FIRST.items():
        assert abs(found[word] - log_chance) < SOME_TENTHS, word


def test_how_the_layers_are_shared_changes_nothing(model: ModelFile, text: ChatText) -> None:
    prompt = text.prompt([{"role": "user", "content": "Who wrote Hamlet?"}])
    whole, first = greedy(model, [range(30)], prompt, 3)
    parts, again = greedy(model, [range(1), range(1, 28), range(28, 30)], prompt, 3)
    assert whole == parts
    assert torch.equal(first, again)


def test_weights_are_read_as_the_format_s_own_library_reads_them(bundled_gguf: GGUFReader) -> None:
    ours = {tensor.name: tensor for tensor in read_header(bundled()).tensors}
    theirs = bundled_gguf.tensors
    assert len(ours) == len(theirs)
    for tensor in theirs:
        mine = ours[tensor.name]
        assert (mine.kind, mine.begin_byte) == (int(tensor.tensor_type), tensor.data_offset)
        assert mine.shape == tuple(reversed(tensor.shape.tolist()))


@pytest.mark.parametrize("interleaved", [True, False])
def test_positions_turn_pairs_and_keep_lengths(model: ModelFile, interleaved: bool) -> None:
    shape = model.shape()
    turns = rotations(shape, 100)
    x = torch.randn(100, shape.heads, shape.head, generator=torch.Generator().manual_seed(1))
    turned = rotated(x, turns, interleaved)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(turned[0], x[0])
    first, second = (0, 1) if interleaved else (0, shape.head // 2)  # the pair that turns by one radian a position
    expected = x[5, 0, first] * np.cos(5.0) - x[5, 0, second] * np.sin(5.0)
    torch.testing.assert_close(turned[5, 0, first], expected.float())


@pytest.mark.parametrize("tokens", [1, 4])
def test_a_pass_survives_its_frame(tokens: int) -> None:
    layout = FrameLayout(size=3, embedding=8)
    sent = RingPass(2, 5, 77, torch.arange(8.0 * tokens).reshape(tokens, 8), [11, -12, 13])
    frame, rest = layout.pack(sent)
    assert len(frame) == len(layout.empty())
    received, room = layout.unpack(frame)
    room.copy_(rest)
    assert (received.slot, received.number, received.position, received.times_ns) == (2, 5, 77, [11, -12, 13])
    assert torch.equal(received.x, sent.x)
    assert received.activation_byte == 4 * 8 * tokens


def test_what_is_refused_early_is_what_is_not_known() -> None:
    assert set(PIPELINE_ARCHITECTURES) == set(INTERLEAVED)
    assert set(PIPELINE_VOCABULARIES) == set(WORDS)


def _written(path: Path, architecture: str, tensors: dict[str, np.ndarray]) -> Path:
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(1)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor, raw_dtype=GGMLQuantizationType.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("architecture", "tensor", "sentence"),
    [
        ("mamba", "token_embd.weight", "is of architecture 'mamba', but the pipeline computes llama or qwen3"),
        ("llama", "rope_freqs.weight", "has a tensor rope_freqs.weight, but the pipeline does not compute such"),
    ],
)
def test_a_model_of_another_kind_is_refused(tmp_path: Path, architecture: str, tensor: str, sentence: str) -> None:
    path = _written(tmp_path / "m.gguf", architecture, {tensor: np.ones((2, 2), np.float32)})
    with pytest.raises(WorkloadError, match=sentence):
        ModelFile(path)
