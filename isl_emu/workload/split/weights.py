"""The weights of some of a model's layers, read from a GGUF file and brought to 32 bits."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from torch import Tensor

from isl_emu.errors import WorkloadError
from isl_emu.workload.split.decoder import Ends, Layers, Shape

INTERLEAVED = {"llama": True, "qwen3": False}  # by architecture; no other can be computed here
_BLOCK_TENSORS = {
    *("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "attn_q_norm", "attn_k_norm"),
    *("ffn_norm", "ffn_gate", "ffn_up", "ffn_down"),
}
_END_TENSORS = {"token_embd.weight", "output_norm.weight", "output.weight"}


class ModelFile:
    """An open GGUF file whose tensors are read when they are asked for.

    Raises:
        WorkloadError: the architecture is none that is known here.
    """

    def __init__(self, path: Path):
        self._reader = GGUFReader(path)
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        self.path = path
        if self.architecture not in INTERLEAVED:
            known = " or ".join(INTERLEAVED)
            raise WorkloadError(
                f"split.model: {path} is of architecture {self.architecture!r}, but the pipeline computes {known}; "
                'use one of these, or engine = "llama-rpc"'
            )
        if strangers := [name for name in self._tensors if not _known(name)]:
            raise WorkloadError(
                f"split.model: {path} has a tensor {strangers[0]}, but the pipeline does not compute such a model; "
                'use engine = "llama-rpc"'
            )

    @property
    def architecture(self) -> str:
        """Such as "llama"."""
        return self.field("general.architecture")

    def field(self, key: str, default: Any = None) -> Any:
        """A value of the metadata; arrays as lists."""
        found = self._reader.get_field(key)
        return default if found is None else found.contents()

    def shape(self) -> Shape:
        """The sizes of the model."""

        def own(key: str, default: Any = None) -> Any:
            return self.field(f"{self.architecture}.{key}", default)

        heads, embedding = own("attention.head_count"), own("embedding_length")
        return Shape(
            layers=own("block_count"),
            embedding=embedding,
            heads=heads,
            kv_heads=own("attention.head_count_kv", heads),
            head=own("attention.key_length", embedding // heads),
            epsilon=own("attention.layer_norm_rms_epsilon"),
            rope_base=own("rope.freq_base", 10_000.0),
            interleaved=INTERLEAVED[self.architecture],
        )

    def layers(self, numbers: Iterable[int], context_tokens: int) -> Layers:
        """The layers with these numbers."""
        blocks = []
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
        tensor = self._tensors[name]
        return torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).astype("float32", copy=True))


def _known(name: str) -> bool:
    match = re.fullmatch(r"blk\.\d+\.(\w+)\.weight", name)
    return match.group(1) in _BLOCK_TENSORS if match else name in _END_TENSORS
