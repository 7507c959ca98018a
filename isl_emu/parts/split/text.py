"""Text to tokens and back, as a GGUF file describes it: its byte-pair vocabulary, its chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from isl_emu.errors import WorkloadError
from isl_emu.parts.split.weights import ModelFile

END_NAMES = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>")  # what ends an answer besides the file's own end
CONTROL, USER_DEFINED = 3, 4  # token types: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
# How a text falls into words, by tokenizer.ggml.pre; the patterns are those of the models' own tokenizer.json files.
_DIGIT = r"\p{N}"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORDS = {"smollm": (_DIGIT, _GPT2), "gpt-2": (_GPT2,), "qwen2": (_QWEN,)}


class ChatText:
    """The tokens of conversations with a model.

    Raises:
        WorkloadError: its vocabulary is of a kind that is not known here.
    """

    def __init__(self, file: ModelFile):
        vocabulary = file.vocabulary()
        self._tokenizer = _tokenizer(vocabulary, file.path)
        begin = vocabulary.get("tokenizer.ggml.bos_token_id")
        self._begin = [begin] if vocabulary.get("tokenizer.ggml.add_bos_token") else []
        self._begin_text = "" if begin is None else vocabulary["tokenizer.ggml.tokens"][begin]
        end = vocabulary.get("tokenizer.ggml.eos_token_id")
        self.ends = {end, *map(self._tokenizer.token_to_id, END_NAMES)} - {None}
        template = vocabulary.get("tokenizer.chat_template")
        if template is None:
            raise WorkloadError(
                f"split.model: {file.path} has no chat template, but questions need one; use another model"
            )
        self._template = _environment().from_string(template)

    def prompt(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The tokens of a conversation up to where the model's answer begins."""
        text = self._template.render(
            messages=messages,
            add_generation_prompt=True,
            enable_thinking=False,
            bos_token=self._begin_text,
            eos_token="",
        )
        return [*self._begin, *self._tokenizer.encode(text, add_special_tokens=False).ids]

    def text(self, tokens: Sequence[int]) -> str:
        """What tokens of an answer mean; an unfinished character at the end is left out."""
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text.rstrip("\ufffd")


def _tokenizer(vocabulary: Mapping[str, Any], path: Path) -> Tokenizer:
    kind, words = vocabulary.get("tokenizer.ggml.model"), vocabulary.get("tokenizer.ggml.pre")
    if kind != "gpt2" or words not in WORDS:
        raise WorkloadError(
            f"split.model: {path} has a vocabulary of kind {kind}/{words}, but the pipeline reads "
            f'{", ".join(f"gpt2/{name}" for name in WORDS)}; use engine = "llama-rpc"'
        )
    tokens, types = vocabulary["tokenizer.ggml.tokens"], vocabulary["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ", 1)) for merge in vocabulary["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({text: number for number, text in enumerate(tokens)}, merges))
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in WORDS[words]]
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    special = [text for text, kind in zip(tokens, types, strict=True) if kind in (CONTROL, USER_DEFINED)]
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in special])
    return tokenizer


def _environment() -> ImmutableSandboxedEnvironment:
    """As the models' authors expect it; a template comes with the weights, from strangers, hence the sandbox."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["strftime_now"] = lambda layout: datetime.now(timezone.utc).strftime(layout)
    return environment
