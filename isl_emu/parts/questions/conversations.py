"""Conversations from a file: what users say turn by turn, and how long the replies were.

Two shapes are known, as a JSON list or as JSON lines, one conversation each:

    ShareGPT   {"id": "a", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}
    OpenAI     {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}

Either set of roles may stand in either shape. Sources: data/dummy_conversation.json of github.com/lm-sys/FastChat for
the first, OpenAI's format of chat data for the second.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isl_emu.errors import ScenarioError
from isl_emu.files import encoding_of, read_whole, why_unread
from isl_emu.parts.prompts import text_tokens

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
SHOWN = 40  # signs of what is found wrong
LONGEST_ID = 200
LINE = '{"messages": [{"role": "user", "content": "Why is the sky blue?"}]}'

Message = tuple[str, str]  # OpenAI's role, and the text


@dataclass(frozen=True)
class Turn:
    """One question of a conversation.

    Args:
        before: what was said since the question before it: the reply; of the first one, what it begins with.
        answer_tokens: how long the file's reply to it is, as modelled models count; None if there is none.
    """

    question: str
    before: tuple[Message, ...] = ()
    answer_tokens: int | None = None


@dataclass(frozen=True)
class Conversation:
    """A conversation of a file, named by its `id` there, or else by its number, from 1."""

    id: str
    turns: tuple[Turn, ...]

    @property
    def has_system(self) -> bool:
        """Whether it begins with a system message of its own."""
        return any(role == "system" for role, _ in self.turns[0].before)


def read_conversations(name: str) -> tuple[Conversation, ...]:
    """All conversations of a file.

    Raises:
        ScenarioError: it cannot be read, is of neither shape, or one of its entries is broken or has no user's turn.
    """
    where = f"questions.conversations: {name}"
    try:
        data = read_whole(Path(name))
        text = data.decode(encoding_of(data))
        entries = list(_entries(text, where))
    except (OSError, ValueError, RecursionError) as error:
        why = "it is no JSON" if isinstance(error, (json.JSONDecodeError, RecursionError)) else why_unread(error)
        raise ScenarioError(
            f"{where} cannot be read ({why}), but it must be a JSON list of conversations, or lines like {LINE}; "
            "name one"
        ) from None
    if not entries:
        raise ScenarioError(f"{where} holds no conversation, but at least one is needed; add one")
    return tuple(_conversation(entry, number, place) for number, (place, entry) in enumerate(entries, 1))


def _entries(text: str, where: str) -> Iterator[tuple[str, Any]]:
    """Each entry with its place."""
    if text.lstrip().startswith("["):
        for number, entry in enumerate(json.loads(text), 1):
            yield f"{where} entry {number}", entry
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            place = f"{where} line {number}"
            try:
                yield place, json.loads(line)
            except (ValueError, RecursionError):
                raise ScenarioError(
                    f"{place} is {line[:SHOWN]!r}, but a line is like {LINE}; correct or remove it"
                ) from None


def _conversation(entry: Any, number: int, place: str) -> Conversation:
    given = entry if isinstance(entry, dict) else {}
    said = given.get("conversations", given.get("messages"))
    if not isinstance(said, list):
        raise ScenarioError(
            f'{place} is {_shown(entry)}, but it has a list under "conversations" or "messages"; correct or remove it'
        )
    messages = [_message(one, f"{place} message {n}") for n, one in enumerate(said, 1)]
    asked = [at for at, (role, _) in enumerate(messages) if role == "user"]
    if not asked:
        raise ScenarioError(f"{place} has no user's turn, but a conversation has one at least; remove it")
    turns = []
    for begin, at, end in zip([-1, *asked], asked, [*asked[1:], len(messages)], strict=False):
        replies = [text for role, text in messages[at + 1 : end] if role == "assistant"]
        tokens = max(1, sum(map(text_tokens, replies))) if replies else None
        turns.append(Turn(messages[at][1], tuple(messages[begin + 1 : at]), tokens))
    name = given.get("id")
    return Conversation(_id(name) if isinstance(name, (str, int)) and name != "" else str(number), tuple(turns))


def _id(name: str | int) -> str:
    """As results can hold it."""
    return str(name)[:LONGEST_ID].encode("utf-8", "replace").decode()


def _message(found: Any, place: str) -> Message:
    message: Mapping[str, Any] = found if isinstance(found, dict) else {}
    role, text = message.get("from", message.get("role")), message.get("value", message.get("content"))
    if not isinstance(role, str) or role not in ROLES or not isinstance(text, str):
        allowed = ", ".join(f'"{name}"' for name in ROLES)
        raise ScenarioError(
            f'{place} is {_shown(found)}, but it has a role ("from" or "role": {allowed}) and a text ("value" or '
            '"content"); correct it'
        )
    if ROLES[role] == "user" and not text.strip():
        raise ScenarioError(f"{place} is empty, but a user's turn asks something; correct or remove it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ScenarioError(f"{place} has half a character (a lone surrogate), but it is text; correct it") from None
    return ROLES[role], text


def _shown(found: Any) -> str:
    """The begin of what is wrong."""
    return repr(json.dumps(found)[:SHOWN])
