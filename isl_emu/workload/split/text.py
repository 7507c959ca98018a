"""Text to tokens and back, as a GGUF file describes it: its byte-pair vocabulary, its chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone

from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from isl_emu.errors import WorkloadError
from isl_emu.workload.split.weights import ModelFile

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
        self._tokenizer = _tokenizer(file)
        self._tokens = file.field("tokenizer.ggml.tokens")
        self._begin, end = file.field("tokenizer.ggml.bos_token_id"), file.field("tokenizer.ggml.eos_token_id")
        self._adds_begin = bool(file.field("tokenizer.ggml.add_bos_token", False))
        self.ends = {end, *self._named("<|im_end|>", "<|endoftext|>", "<|eot_id|>")} - {None}
        self._template = _environment().from_string(file.field("tokenizer.chat_template") or _missing(file))

    def prompt(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The tokens of a conversation up to where the model's answer begins."""
        text = self._template.render(
            messages=messages,
            add_generation_prompt=True,
            enable_thinking=False,
            bos_token=self._text_of(self._begin),
            eos_token="",
        )
        begin = [self._begin] if self._adds_begin else []
        return [*begin, *self._tokenizer.encode(text, add_special_tokens=False).ids]

    def text(self, tokens: Sequence[int]) -> str:
        """What tokens of an answer mean; an unfinished character at the end is left out."""
        return self._tokenizer.decode(list(tokens), skip_special_tokens=True).rstrip("\ufffd")

    def _named(self, *names: str) -> list[int | None]:
        return [self._tokenizer.token_to_id(name) for name in names]

    def _text_of(self, token: int | None) -> str:
        return "" if token is None else self._tokens[token]


def _tokenizer(file: ModelFile) -> Tokenizer:
    kind, words = file.field("tokenizer.ggml.model"), file.field("tokenizer.ggml.pre")
    if kind != "gpt2" or words not in WORDS:
        raise WorkloadError(
            f"split.model: {file.path} has a vocabulary of kind {kind}/{words}, but the pipeline reads "
            f'{", ".join(f"gpt2/{name}" for name in WORDS)}; use engine = "llama-rpc"'
        )
    tokens, types = file.field("tokenizer.ggml.tokens"), file.field("tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ", 1)) for merge in file.field("tokenizer.ggml.merges")]
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


def _missing(file: ModelFile) -> str:
    raise WorkloadError(f"split.model: {file.path} has no chat template, but questions need one; use another model")
