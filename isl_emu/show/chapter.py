"""What a report is made of: chapters of text, facts, tables, pictures and cards.

Pictures are functions that draw them, so that making a chapter needs no library of pictures yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A picture with what stands under it, and what it tells to who cannot see it.

    Args:
        name: of its file.
        caption: what is shown and how to read it.
        alt: what is to be seen, in words and figures.
    """

    name: str
    draw: Callable[[], Figure]
    caption: str
    alt: str


@dataclass(frozen=True)
class DataTable:
    """A table: the first `left` columns are words, the others figures.

    Args:
        caption: what its rows are.
        rest: what is left out, and where it is; empty if nothing is.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    rest: str = ""


@dataclass(frozen=True)
class Card:
    """Something that somebody said, or did: a heading, lines that each have a label, and how it ended."""

    heading: str
    lines: Sequence[tuple[str, str]]
    ending: str


@dataclass(frozen=True)
class Preformatted:
    """Lines that keep their columns, under what they are."""

    caption: str
    text: str


Item = str | Picture | DataTable | Card | Preformatted


@dataclass(frozen=True)
class Chapter:
    """A chapter of a report; its texts are paragraphs.

    Args:
        network: whether it is about the network itself, and so stands before what the run carried.
    """

    title: str
    items: Sequence[Item]
    network: bool = False
