"""Lines that several kernels wrote of the same things become one line each; pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Records = Sequence[Mapping[str, Any]]


def merged_rows(parts: Sequence[Records], key: str, how: Mapping[str, Callable[[Sequence[Any]], Any]]) -> Records:
    """One record for each value of `key`, in the order in which the first part to tell of it did.

    Args:
        parts: the records of each part.
        how: from what the parts say to what is said; of other keys what the first of them says.
    """
    found: dict[Any, list[Mapping[str, Any]]] = {}
    for part in parts:
        for record in part:
            found.setdefault(record[key], []).append(record)
    return [
        {**same[0], **{name: function([record[name] for record in same]) for name, function in how.items()}}
        for same in found.values()
    ]


def first_told(parts: Sequence[Records]) -> Records:
    """Of what every part writes down alike, the first one's."""
    return next(filter(None, parts), ())
