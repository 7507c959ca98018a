"""The head of a pipeline: it asks the ring for one token after the other, and answers questions with them.

Run as ``python -m isl_emu.parts.split.pipeline_head`` in the head's container; it ends with the container. It holds
the first layers, the embedding and the output, so what goes around the ring are activations only, and the choice of a
token is made here; so is text to tokens and back, as the GGUF file describes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from isl_emu.errors import WorkloadError
from isl_emu.parts.split.decoder import Ends, Layers, ModelFile
from isl_emu.parts.split.front import Conversation, UnanswerableError, WantedAnswer, answering_questions
from isl_emu.parts.split.pipeline_stage import Ring, RingPass, StageTime, arguments
from isl_emu.runs.clock import RunClock
from isl_emu.runs.endpoints import MODEL_PORT
from isl_emu.runs.journal import Journal
from isl_emu.timebase import Clock

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
        # As the models' authors expect it; a template comes with the weights, from strangers, hence the sandbox
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["strftime_now"] = lambda layout: datetime.now(timezone.utc).strftime(layout)
        self._template = environment.from_string(template)

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


class Head:
    """Keeps conversations under way: the one waits for the ring while others are computed.

    Args:
        time: of its layers; it has the satellite's name.
        slots: how many at once; further ones wait.
        record: takes each pass that has come back.
    """

    def __init__(
        self,
        time: StageTime,
        ring: Ring,
        layers: Layers,
        ends: Ends,
        text: ChatText,
        clock: Clock,
        slots: int,
        context_tokens: int,
        record: Callable[[dict[str, Any]], None],
    ):
        self._time = time
        self._ring, self._layers, self._ends, self._text = ring, layers, ends, text
        self._clock, self._record, self._context_tokens = clock, record, context_tokens
        self._free, self._waiting = list(range(slots)), SimpleQueue[Conversation]()
        self._under_way: dict[int, Conversation] = {}
        self._dice: dict[int, torch.Generator] = {}
        self._predicted = 0

    def start(self, wish: WantedAnswer, tell: Callable[[int | None], None]) -> Conversation:
        """Queue a question; see `Answerer`."""
        prompt = self._text.prompt(wish.messages)
        room = self._context_tokens - len(prompt)
        if room < 1:
            raise UnanswerableError(
                f"the prompt has {len(prompt)} tokens, but the context holds {self._context_tokens}; ask less"
            )
        conversation = Conversation(prompt, min(wish.limit, room), wish.temperature, wish.seed, tell)
        self._waiting.put(conversation)
        return conversation

    def text(self, tokens: Sequence[int]) -> str:
        """What tokens mean."""
        return self._text.text(tokens)

    def counts(self) -> dict[str, int]:
        """How busy it is."""
        under_way, waiting = len(self._under_way), self._waiting.qsize()
        return {"processing": under_way, "deferred": waiting, "predicted": self._predicted}

    def run(self) -> None:
        """Answer without end."""
        while True:
            # Begin with waiting questions as long as there is room; with nothing to do, wait for one
            while self._free and not (self._under_way and self._waiting.empty()):
                conversation, slot = self._waiting.get(), self._free.pop()
                self._under_way[slot] = conversation
                self._dice[slot] = torch.Generator().manual_seed(conversation.seed)
                conversation.begin()
                self._send(slot, 0, 0, conversation.prompt)
            self._advance(self._ring.receive())

    def _send(self, slot: int, number: int, position: int, tokens: list[int]) -> None:
        begun_ns = self._clock.now_ns()
        x = self._layers.forward(self._ends.embed(tokens), slot, position)
        self._time.spend(number, position, len(tokens))
        self._ring.send(RingPass(slot, number, position, x, [begun_ns, self._clock.now_ns()]))

    def _advance(self, back: RingPass) -> None:
        """A pass is back: choose a token, and send it around unless the answer is finished."""
        came_ns = self._clock.now_ns()
        conversation, tokens = self._under_way[back.slot], len(back.x)
        logits = self._ends.logits(back.x)
        if conversation.temperature == 0.0:
            token = int(logits.argmax())
        else:
            chances = torch.softmax(logits / conversation.temperature, dim=-1)
            token = int(torch.multinomial(chances, 1, generator=self._dice[back.slot]))
        chosen_ns = self._clock.now_ns()
        self._record(
            {
                "head": self._time.satellite,
                "number": back.number,
                "tokens": tokens,
                "activation_byte": back.activation_byte,
                "times_ns": [*back.times_ns, came_ns, chosen_ns],
            }
        )
        self._predicted += 1
        conversation.take(token, self._text.ends)
        if conversation.cancelled and conversation.finish is None:
            conversation.end("cancelled")
        if conversation.finish is None:
            self._send(back.slot, back.number + 1, back.position + tokens, [token])
        else:
            del self._under_way[back.slot]
            self._free.append(back.slot)


def main() -> None:
    """Load the head's part, join the ring, and answer."""
    parser = arguments("isl_emu.parts.split.pipeline_head", __doc__)
    parser.add_argument("--journal", type=Path, required=True, help="file to which the passes are written")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = ModelFile(options.model)
    layers, ends, text = model.layers(range(*options.layers), options.context), model.ends(), ChatText(model)
    embedding, slots = model.shape().embedding, options.conversations
    ring = Ring(options.head, options.ring_port, options.rank, options.size, embedding, slots)
    journal, clock = Journal(options.journal), RunClock(options.clock)
    head = Head(StageTime.of(options, clock), ring, layers, ends, text, clock, slots, options.context, journal.append)
    with answering_questions(head, options.head, MODEL_PORT):
        print(f"answers at {options.head}:{MODEL_PORT}", flush=True)
        head.run()


if __name__ == "__main__":
    main()
