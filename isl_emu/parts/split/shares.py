"""How the layers of a model are given out, and whether that can be done: the engine is there, and memory for a share.

Known from the file's header alone, before anything is started.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path

from isl_emu.errors import WorkloadError
from isl_emu.parts.serving.board_pace import file_roofline
from isl_emu.parts.serving.model_file import ModelHeader, estimate_memory_byte, read_header, resolve_model
from isl_emu.parts.split.rpc_build import backend_path
from isl_emu.scenario.boards import board_named
from isl_emu.scenario.models import Model, Roofline
from isl_emu.scenario.split import Split
from isl_emu.units import SIZE_BYTE, format_quantity

PIPELINE_MODULES = ("torch", "gguf", "tokenizers", "jinja2")
PIPELINE_ARCHITECTURES = ("llama", "qwen3")
PIPELINE_VOCABULARIES = ("smollm", "gpt-2", "qwen2")  # ways to cut a text into words, by tokenizer.ggml.pre
FLOAT_BYTE = 4
TORCH_BYTE = 260_000_000  # Python, PyTorch and gloo before any weights: resident memory, measured with torch 2.13
FRONT_BYTE = 11_000_000  # aiohttp, which only the head loads; measured with aiohttp 3.14
RPC_BYTE = 60_000_000  # Python and llama.cpp's RPC worker, with its buffers for computing; measured with SmolLM2


def shares(layers: int, members: int, given: Sequence[int] = ()) -> list[range]:
    """The layers of each member, in order.

    Args:
        given: how many each has; even shares, the first ones larger, if empty.

    Raises:
        WorkloadError: they do not come to all layers of the model, or there are fewer layers than members.
    """
    if members > layers:
        raise WorkloadError(
            f"split.satellites: are {members}, but the model has {layers} layers and each satellite needs one; "
            "name fewer"
        )
    counts = list(given) or [layers // members + (member < layers % members) for member in range(members)]
    if sum(counts) != layers:
        raise WorkloadError(f"split.layers: come to {sum(counts)}, but the model has {layers} layers; share out all")
    ends = list(accumulate(counts))
    return [range(end - count, end) for count, end in zip(counts, ends, strict=True)]


def split_roofline(split: Split) -> Roofline:
    """The pace of the whole model on the board of each of its satellites.

    Raises:
        WorkloadError: the file of weights does not say how its layers look.
    """
    assert split.board is not None, "the scenario was checked"
    if split.pace_model is not None:
        return split.roofline
    return file_roofline(resolve_model(split.model), board_named(split.board))


def pace_text(roofline: Roofline) -> str:
    """A roofline for a process's command line; `pace_of` reads it."""
    return json.dumps({"board": roofline.board.name, "model": asdict(roofline.model), "bits": roofline.bits})


def pace_of(text: str) -> Roofline:
    """What `pace_text` wrote."""
    told = json.loads(text)
    return Roofline(board_named(told["board"]), Model(**told["model"]), told["bits"])


def check_engine(engine: str) -> None:
    """Refuse an engine whose libraries, which isl-emu does not bring along, are not installed.

    Raises:
        WorkloadError: what is missing, and how to get it.
    """
    if engine == "pipeline":
        missing = [name for name in PIPELINE_MODULES if find_spec(name) is None]
        if missing:
            raise WorkloadError(
                f'split.engine: is "pipeline", but {", ".join(missing)} is not installed; '
                f"run `{sys.executable} -m pip install 'isl-emu[pipeline]' --extra-index-url "
                "https://download.pytorch.org/whl/cpu` (0.9 GB; in a checkout: `scripts/setup pipeline`), "
                "or use llama-rpc"
            )
    elif not backend_path().exists():
        raise WorkloadError(
            f'split.engine: is "llama-rpc", but {backend_path()} does not exist; '
            "run `python -m isl_emu.parts.split.rpc_build` (half a minute; it needs a C++ compiler)"
        )


def check_split(split: Split, members: int, path: Path) -> None:
    """Refuse a split that cannot work, from the model's header.

    Raises:
        WorkloadError: too many satellites for the layers, or too little memory for a share.
    """
    header = read_header(path)
    if split.engine == "pipeline":
        # Refuse what the pipeline cannot compute, as far as the header tells
        known = {"general.architecture": PIPELINE_ARCHITECTURES, "tokenizer.ggml.pre": PIPELINE_VOCABULARIES}
        for key, kinds in known.items():
            if header.fields.get(key) not in kinds:
                raise WorkloadError(
                    f"split.model: {path} has {key} {header.fields.get(key)!r}, but the pipeline knows "
                    f'{", ".join(kinds)}; use one of these, or engine = "llama-rpc"'
                )
    parts = shares(layer_count(path), members, split.layers)
    for number, part in enumerate(parts):
        needed_byte = share_byte(split, path, part, head=number == 0)
        if split.memory_byte < needed_byte:
            raise WorkloadError(
                f"split.memory: is {format_quantity(split.memory_byte, SIZE_BYTE)}, but {len(part)} layers of "
                f"{path.name} need about {needed_byte / 1e6:.0f} MB on satellite {number + 1} of {members}; "
                "raise it, or split over more satellites"
            )


def layer_count(path: Path) -> int:
    """How many layers a model has.

    Raises:
        WorkloadError: its file does not say.
    """
    return _told(path, lambda header: header.count("block_count"))


def share_byte(split: Split, path: Path, part: range, head: bool) -> int:
    """The memory that a member's process needs, about.

    Raises:
        WorkloadError: the model's file does not say what that follows from.
    """

    def estimated(header: ModelHeader) -> int:
        if split.engine != "pipeline":
            whole_byte = estimate_memory_byte(path, split.context_tokens)
            if head:  # it maps the file as any server does; a worker is sent its layers and keeps them
                return whole_byte
            share = len(part) / header.count("block_count")
            return RPC_BYTE + round(share * (path.stat().st_size + whole_byte))
        # PyTorch, the weights in 32 bits, and keys and values in 32 bits
        embedding, heads = header.count("embedding_length"), header.count("attention.head_count")
        head_numbers = header.count("attention.key_length", embedding // heads)
        query, kv = heads * head_numbers, header.count("attention.head_count_kv", heads) * head_numbers
        layer = embedding * (2 * query + 2 * kv + 3 * header.count("feed_forward_length"))
        cache = 2 * kv * split.context_tokens * split.conversations
        ends = 2 * embedding * header.fields["tokenizer.ggml.tokens"] if head else 0
        return TORCH_BYTE + (FRONT_BYTE if head else 0) + FLOAT_BYTE * (len(part) * (layer + cache) + ends)

    return _told(path, estimated)


def _told(path: Path, ask: Callable[[ModelHeader], int]) -> int:
    try:
        return ask(read_header(path))
    except (TypeError, KeyError, ValueError, ZeroDivisionError):
        raise WorkloadError(
            f"split.model: {path} does not say how many layers, heads and embeddings it has, but its shares follow "
            "from them; use a language model with attention"
        ) from None
