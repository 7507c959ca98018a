"""What belongs at a place of a scenario, by the records that read it; for sentences that say what is wrong there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

BARE = re.compile(r"[A-Za-z0-9_-]+")  # a key of TOML that needs no quotes


def place_of(location: Sequence[str | int], record: type[BaseModel]) -> tuple[str, Any, Any]:
    """A place as one writes it; the type of what belongs there; and an example of it, where its field gives one.

    Args:
        location: as pydantic has it: keys by their aliases, numbers in lists, and at a union the name of that of its
            members which was tried. ("shell", 0, "altitude") is `shell[0].altitude`.
        record: in which it is.
    """
    kind: Any = record
    place, example, tried = "", None, False
    for part in location:
        members = list(members_of(kind))
        if len(members) > 1 and not tried:
            tried = True
            continue
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else part
        kind, tried = next((item for one in members for item in _items(one, part)), None), False
        example = _item(example, part) or next(_examples(kind), None)
    return place, kind, example


def members_of(kind: Any) -> Iterator[Any]:
    """What a type may be: itself, without marks, or the members of a union but for None."""
    if get_origin(kind) is Annotated:
        yield from members_of(get_args(kind)[0])
    elif get_origin(kind) in (Union, UnionType):
        for member in get_args(kind):
            yield from members_of(member)
    elif kind not in (None, NoneType):
        yield kind


def is_record(kind: Any) -> bool:
    """Whether a type is that of a table with keys of its own."""
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def fields_of(record: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    """The keys of a table, and the type of each with all its marks."""
    for name, field in record.model_fields.items():
        kind_and_marks = (field.annotation, *field.metadata, field)
        yield field.alias or name, Annotated[kind_and_marks]


def keys_of(kind: Any) -> list[str]:
    """The keys of a table, or of each table in a list of them; none where it is no such thing."""
    for one in members_of(kind):
        if is_record(one):
            return sorted([key for key, _ in fields_of(one)] + list(getattr(one, "SHORTHANDS", ())))
        if get_origin(one) is tuple:
            return keys_of(get_args(one)[0])
    return []


def as_toml(example: Any) -> str:
    """A list or table on one line."""
    if isinstance(example, dict):
        keys = {key if BARE.fullmatch(key) else json.dumps(key): value for key, value in example.items()}
        return f"{{ {', '.join(f'{key} = {json.dumps(value)}' for key, value in keys.items())} }}"
    return json.dumps(example)


def _items(kind: Any, part: str | int) -> Iterator[Any]:
    """The type of what a list, table or record has at a number or key."""
    inner = get_args(kind)
    if isinstance(part, int) and get_origin(kind) is tuple:
        yield inner[0] if inner[-1] is ... else inner[min(part, len(inner) - 1)]
    elif get_origin(kind) is dict:
        yield inner[1]
    elif is_record(kind):
        yield from (belongs for key, belongs in fields_of(kind) if key == part)


def _item(example: Any, part: str | int) -> Any:
    """What an example has at a number; its last item, where it has not so many."""
    return example[min(part, len(example) - 1)] if isinstance(example, list) and isinstance(part, int) else None


def _examples(kind: Any) -> Iterator[Any]:
    """The examples that a type's own marks give, or those of the members of a union."""
    if get_origin(kind) is Annotated:
        inner, *marks = get_args(kind)
        yield from (mark.examples[0] for mark in marks if isinstance(mark, FieldInfo) and mark.examples)
        yield from _examples(inner)
    elif get_origin(kind) in (Union, UnionType):
        for member in get_args(kind):
            yield from _examples(member)
