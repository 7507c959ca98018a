"""The other architecture of the pipeline against llama.cpp, with small random weights made here."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from isl_emu.parts.split.shares import PIPELINE_MODULES
from tests.asking import asked

for module in PIPELINE_MODULES:
    pytest.importorskip(module, reason=f"{module} (extra pipeline) is not installed")

import torch  # noqa: E402
from gguf import GGUFReader, GGUFWriter  # noqa: E402

from isl_emu.parts.split.decoder import ModelFile  # noqa: E402
from isl_emu.parts.split.pipeline_head import ChatText  # noqa: E402

LAYERS, EMBEDDING, HEADS, KV_HEADS, HEAD, FEED_FORWARD = 2, 64, 4, 2, 32, 128  # 4 x 32 is not 64, as in Qwen3
PROMPT = [1, 500, 7, 12_345, 42, 42, 9_999]
A_HUNDREDTH = 0.01  # llama.cpp keeps keys and values in 16 bits


@pytest.fixture(scope="module")
def small_qwen3(tmp_path_factory: pytest.TempPathFactory, bundled_gguf: GGUFReader) -> Path:
    path = tmp_path_factory.mktemp("model") / "small.gguf"
    vocabulary, dice = bundled_gguf.fields, np.random.default_rng(3)
    writer = GGUFWriter(path, "qwen3")
    writer.add_block_count(LAYERS)
    writer.add_context_length(256)
    writer.add_embedding_length(EMBEDDING)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    tokens = vocabulary["tokenizer.ggml.tokens"].contents()
    writer.add_token_list(tokens)
    writer.add_token_types(vocabulary["tokenizer.ggml.token_type"].contents())
    writer.add_token_merges(vocabulary["tokenizer.ggml.merges"].contents())
    writer.add_eos_token_id(2)
    writer.add_chat_template(vocabulary["tokenizer.chat_template"].contents())

    def add(name: str, *shape: int) -> None:
        near = 1.0 if "norm" in name else 0.0
        writer.add_tensor(f"{name}.weight", (near + 0.2 * dice.standard_normal(shape)).astype(np.float32))

    add("token_embd", len(tokens), EMBEDDING)
    add("output_norm", EMBEDDING)
    for block in (f"blk.{number}" for number in range(LAYERS)):
        add(f"{block}.attn_norm", EMBEDDING)
        add(f"{block}.attn_q", HEADS * HEAD, EMBEDDING)
        add(f"{block}.attn_k", KV_HEADS * HEAD, EMBEDDING)
        add(f"{block}.attn_v", KV_HEADS * HEAD, EMBEDDING)
        add(f"{block}.attn_output", EMBEDDING, HEADS * HEAD)
        add(f"{block}.attn_q_norm", HEAD)
        add(f"{block}.attn_k_norm", HEAD)
        add(f"{block}.ffn_norm", EMBEDDING)
        add(f"{block}.ffn_gate", FEED_FORWARD, EMBEDDING)
        add(f"{block}.ffn_up", FEED_FORWARD, EMBEDDING)
        add(f"{block}.ffn_down", EMBEDDING, FEED_FORWARD)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@contextmanager
def served(model: Path) -> Iterator[str]:
    """llama.cpp's server with a model; its address."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    words = ["--model", str(model), "--host", "127.0.0.1", "--port", port, "--context", "256"]
    process = subprocess.Popen([sys.executable, "-m", "isl_emu.parts.serving.model_server", *words])
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def test_qwen3_weighs_the_next_words_as_llama_cpp_does(small_qwen3: Path) -> None:
    torch.set_num_threads(1)
    model = ModelFile(small_qwen3)
    x, ends = model.ends().embed(PROMPT), model.ends()
    for part in (range(1), range(1, 2)):
        x = model.layers(part, 256).forward(x, slot=0, position=0)
    ours = ends.logits(x).log_softmax(-1)
    words = "It's 2026; café №7\n\n  naïve—yes"
    with served(small_qwen3) as url:
        theirs = asked(f"{url}/completion", {"prompt": PROMPT, "n_predict": 1, "temperature": 0, "n_probs": 8})
        tokens = asked(f"{url}/tokenize", {"content": words})["tokens"]
    likely = theirs["completion_probabilities"][0]["top_logprobs"]
    assert len(likely) == 8
    for word in likely:
        assert abs(float(ours[word["id"]]) - word["logprob"]) < A_HUNDREDTH
    text = ChatText(model)
    whole = text.prompt([{"role": "user", "content": words}])
    assert any(whole[at : at + len(tokens)] == tokens for at in range(len(whole)))  # the same byte pairs, too
    assert text.text(tokens) == words
