"""The weights of some of a model's layers, read from a GGUF file and brought to 32 bits."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize, quant_shape_to_byte_shape
from torch import Tensor

from isl_emu.errors import WorkloadError
from isl_emu.parts.serving.model_file import read_header
from isl_emu.parts.split.decoder import Ends, Layers, Shape, Weights

INTERLEAVED = {"llama": True, "qwen3": False}  # by architecture; no other can be computed here
PLAIN = {GGMLQuantizationType.F32: np.float32, GGMLQuantizationType.F16: np.float16}
_BLOCK_TENSORS = {
    *("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "attn_q_norm", "attn_k_norm"),
    *("ffn_norm", "ffn_gate", "ffn_up", "ffn_down"),
}
_END_TENSORS = {"token_embd.weight", "output_norm.weight", "output.weight"}


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
        if strangers := [name for name in self._tensors if not _known(name)]:
            raise WorkloadError(
                f"split.model: {path} has a tensor {strangers[0]}, but the pipeline does not compute such a model; "
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


def _known(name: str) -> bool:
    match = re.fullmatch(r"blk\.\d+\.(\w+)\.weight", name)
    return match.group(1) in _BLOCK_TENSORS if match else name in _END_TENSORS
