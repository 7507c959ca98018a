"""Some of the layers of a decoder transformer, in PyTorch, with the weights of a GGUF file.

Computes in 32 bits whatever the file's quantisation, so its answers are those of llama.cpp up to rounding.
Architectures: `llama` (also SmolLM2 and Mistral) and `qwen3`; a file with a tensor that these do not have is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize, quant_shape_to_byte_shape
from torch import Tensor
from torch.nn import functional as F

from isl_emu.errors import WorkloadError
from isl_emu.parts.serving.model_file import read_header

INTERLEAVED = {"llama": True, "qwen3": False}  # by architecture; no other can be computed here
PLAIN = {GGMLQuantizationType.F32: np.float32, GGMLQuantizationType.F16: np.float16}
_BLOCK_TENSORS = {
    *("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "attn_q_norm", "attn_k_norm"),
    *("ffn_norm", "ffn_gate", "ffn_up", "ffn_down"),
}
_END_TENSORS = {"token_embd.weight", "output_norm.weight", "output.weight"}

Weights = Mapping[str, Tensor]
Cache = tuple[Tensor, Tensor]  # keys and values of one layer: [positions, heads, numbers]


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder.

    Args:
        interleaved: rotary positions turn neighbouring numbers (llama) instead of the two halves of a head (qwen3).
    """

    layers: int
    embedding: int
    heads: int
    kv_heads: int
    head: int
    epsilon: float
    rope_base: float
    interleaved: bool


class Layers:
    """Consecutive layers with the keys and values of every conversation that passes through them.

    Args:
        blocks: the weights of each layer by their GGUF name without ``blk.N.``.
        context_tokens: the most positions of a conversation.
    """

    def __init__(self, shape: Shape, blocks: Sequence[Weights], context_tokens: int):
        self._shape = shape
        self._blocks = blocks
        self._caches: dict[int, list[Cache]] = {}
        self._turns = rotations(shape, context_tokens)
        self._context_tokens = context_tokens

    def forward(self, x: Tensor, slot: int, position: int) -> Tensor:
        """The activations after these layers.

        Args:
            x: activations of consecutive tokens, [tokens, embedding].
            slot: which conversation they continue; position 0 begins a new one.
            position: of the first of them.
        """
        size = self._context_tokens, self._shape.kv_heads, self._shape.head
        if slot not in self._caches:
            self._caches[slot] = [(torch.empty(size), torch.empty(size)) for _ in self._blocks]
        with torch.inference_mode():
            for block, cache in zip(self._blocks, self._caches[slot], strict=True):
                x = x + self._attention(self._norm(x, block["attn_norm.weight"]), block, cache, position)
                y = self._norm(x, block["ffn_norm.weight"])
                gate = F.silu(F.linear(y, block["ffn_gate.weight"]))
                x = x + F.linear(gate * F.linear(y, block["ffn_up.weight"]), block["ffn_down.weight"])
        return x

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self._shape.epsilon)

    def _attention(self, x: Tensor, block: Weights, cache: Cache, position: int) -> Tensor:
        shape, end = self._shape, position + len(x)
        queries = F.linear(x, block["attn_q.weight"]).view(-1, shape.heads, shape.head)
        keys = F.linear(x, block["attn_k.weight"]).view(-1, shape.kv_heads, shape.head)
        if "attn_q_norm.weight" in block:
            queries = self._norm(queries, block["attn_q_norm.weight"])
            keys = self._norm(keys, block["attn_k_norm.weight"])
        turns = self._turns[position:end]
        cache[0][position:end] = rotated(keys, turns, shape.interleaved)
        cache[1][position:end] = F.linear(x, block["attn_v.weight"]).view(-1, shape.kv_heads, shape.head)
        seen = torch.arange(end)[None, :] <= torch.arange(position, end)[:, None]
        mixed = F.scaled_dot_product_attention(
            rotated(queries, turns, shape.interleaved).transpose(0, 1),
            *(part[:end].transpose(0, 1) for part in cache),
            attn_mask=seen,
            enable_gqa=True,
        )
        return F.linear(mixed.transpose(0, 1).reshape(len(x), -1), block["attn_output.weight"])


class Ends:
    """What comes before the first layer and after the last one.

    Args:
        embedding: the vector of each token, [vocabulary, embedding].
        output: the same shape; often the same weights.
    """

    def __init__(self, shape: Shape, embedding: Tensor, norm: Tensor, output: Tensor):
        self._epsilon = shape.epsilon
        self._embedding = embedding
        self._norm = norm
        self._output = output

    def embed(self, tokens: list[int]) -> Tensor:
        """The activations with which the tokens enter the first layer, [tokens, embedding]."""
        return self._embedding[tokens]

    def logits(self, x: Tensor) -> Tensor:
        """How likely each token of the vocabulary follows the last of the activations, unnormalised."""
        with torch.inference_mode():
            return F.linear(F.rms_norm(x[-1], self._norm.shape, self._norm, self._epsilon), self._output)


def rotations(shape: Shape, positions: int) -> Tensor:
    """Unit complex numbers by which pairs of a head's numbers are turned, [positions, head / 2].

    Source: Su et al., RoFormer, https://arxiv.org/abs/2104.09864, section 3.2.2.
    """
    speeds = shape.rope_base ** (-torch.arange(0, shape.head, 2, dtype=torch.float64) / shape.head)
    angles = torch.arange(positions, dtype=torch.float64)[:, None] * speeds
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64)


def rotated(x: Tensor, turns: Tensor, interleaved: bool) -> Tensor:
    """`x` [tokens, heads, head] with each pair of numbers turned by its position."""
    if not interleaved:
        x = x.unflatten(-1, (2, -1)).transpose(-1, -2)
    pairs = torch.view_as_complex(x.reshape(*x.shape[:2], -1, 2).contiguous())
    turned = torch.view_as_real(pairs * turns[:, None])
    return (turned if interleaved else turned.transpose(-1, -2)).flatten(-2)


class ModelFile:
    """A GGUF file whose tensors are read when they are asked for.

    Raises:
        WorkloadError: the architecture is none that is known here.
    """

    def __init__(self, path: Path):
        self.path = path
        self._header = read_header(path)
        self._tensors = {tensor.name: tensor for tensor in read_header(path).tensors}
        self._bytes = np.memmap(path, mode="r")
        if self._header.architecture not in INTERLEAVED:
            known = " or ".join(INTERLEAVED)
            raise WorkloadError(
                f"split.model: {path} is of architecture {self._header.architecture!r}, but the pipeline computes "
                f'{known}; use one of these, or engine = "llama-rpc"'
            )
        for name in self._tensors:
            block = re.fullmatch(r"blk\.\d+\.(\w+)\.weight", name)
            if not (block.group(1) in _BLOCK_TENSORS if block else name in _END_TENSORS):
                raise WorkloadError(
                    f"split.model: {path} has a tensor {name}, but the pipeline does not compute such a model; "
                    'use engine = "llama-rpc"'
                )

    def vocabulary(self) -> dict[str, Any]:
        """All metadata whose keys begin with "tokenizer.", arrays as lists; slow, some seconds."""
        fields = GGUFReader(self.path).fields
        return {key: field.contents() for key, field in fields.items() if key.startswith("tokenizer.")}

    def shape(self) -> Shape:
        """The sizes of the model."""
        header, count = self._header, self._header.count
        heads, embedding = count("attention.head_count"), count("embedding_length")
        return Shape(
            layers=count("block_count"),
            embedding=embedding,
            heads=heads,
            kv_heads=count("attention.head_count_kv", heads),
            head=count("attention.key_length", embedding // heads),
            epsilon=header.fields[f"{header.architecture}.attention.layer_norm_rms_epsilon"],
            rope_base=header.fields.get(f"{header.architecture}.rope.freq_base", 10_000.0),
            interleaved=INTERLEAVED[header.architecture],
        )

    def layers(self, numbers: Iterable[int], context_tokens: int) -> Layers:
        """The layers with these numbers."""
        blocks: list[Weights] = []
        for number in numbers:
            prefix = f"blk.{number}."
            names = [name for name in self._tensors if name.startswith(prefix)]
            blocks.append({name.removeprefix(prefix): self._tensor(name) for name in names})
        return Layers(self.shape(), blocks, context_tokens)

    def ends(self) -> Ends:
        """The embedding and the output; one and the same where the file has no output of its own."""
        embedding = self._tensor("token_embd.weight")
        output = self._tensor("output.weight") if "output.weight" in self._tensors else embedding
        return Ends(self.shape(), embedding, self._tensor("output_norm.weight"), output)

    def _tensor(self, name: str) -> Tensor:
        stored = self._tensors[name]
        kind = GGMLQuantizationType(stored.kind)
        shape = quant_shape_to_byte_shape(stored.shape, kind)
        data = self._bytes[stored.begin_byte : stored.begin_byte + int(np.prod(shape))].reshape(shape)
        if kind in PLAIN:  # numbers as they are; blocks are taken as bytes
            data = data.view(PLAIN[kind])
        return torch.from_numpy(dequantize(data, kind).astype(np.float32, copy=True))
