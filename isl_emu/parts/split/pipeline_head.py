"""The head of a pipeline: it asks the ring for one token after the other, and answers questions with them.

Run as ``python -m isl_emu.parts.split.pipeline_head`` in the head's container; it ends with the container. It holds
the first layers, the embedding and the output, so what goes around the ring are activations only, and the choice of a
token is made here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from isl_emu.parts.split.decoder import Ends, Layers
from isl_emu.parts.split.front import Conversation, UnanswerableError, WantedAnswer, answering_questions
from isl_emu.parts.split.pipeline_stage import StageTime, arguments
from isl_emu.parts.split.ring import Ring, RingPass
from isl_emu.parts.split.text import ChatText
from isl_emu.parts.split.weights import ModelFile
from isl_emu.runs.clock import RunClock
from isl_emu.runs.endpoints import MODEL_PORT
from isl_emu.runs.journal import Journal
from isl_emu.timebase import Clock


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
            self._admit()
            self._advance(self._ring.receive())

    def _admit(self) -> None:
        """Begin with waiting questions as long as there is room; with nothing to do, wait for one."""
        while self._free and not (self._under_way and self._waiting.empty()):
            conversation, slot = self._waiting.get(), self._free.pop()
            self._under_way[slot] = conversation
            self._dice[slot] = torch.Generator().manual_seed(conversation.seed)
            conversation.begin()
            self._send(slot, 0, 0, conversation.prompt)

    def _send(self, slot: int, number: int, position: int, tokens: list[int]) -> None:
        begun_ns = self._clock.now_ns()
        x = self._layers.forward(self._ends.embed(tokens), slot, position)
        self._time.spend(number, position, len(tokens))
        self._ring.send(RingPass(slot, number, position, x, [begun_ns, self._clock.now_ns()]))

    def _advance(self, back: RingPass) -> None:
        """A pass is back: choose a token, and send it around unless the answer is finished."""
        came_ns = self._clock.now_ns()
        conversation, tokens = self._under_way[back.slot], len(back.x)
        token = self._choose(self._ends.logits(back.x), conversation.temperature, self._dice[back.slot])
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

    @staticmethod
    def _choose(logits: torch.Tensor, temperature: float, dice: torch.Generator) -> int:
        if temperature == 0.0:
            return int(logits.argmax())
        chances = torch.softmax(logits / temperature, dim=-1)
        return int(torch.multinomial(chances, 1, generator=dice))


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
