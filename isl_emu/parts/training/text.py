"""A text to learn from, made up as it is needed: short reports from orbit, of a few words in a fixed grammar.

It is endless and free, each satellite has its own part of it, and a small model soon notices how it goes on.
"""

from __future__ import annotations

import random

ALPHABET = "\n abcdefghijklmnopqrstuvwxyz.,0123456789"

_SUBJECTS = ("the fore laser", "the aft laser", "the star tracker", "the battery", "the radiator", "the solar panel",
             "the camera", "the router")  # fmt: skip
_STATES = ("works as planned", "is warmer than before", "points at the next satellite", "waits for the eclipse to end",
           "was tested and is well", "needs a rest")  # fmt: skip
_PLACES = ("over the pacific", "above the north pole", "near the equator", "on the night side", "at the terminator",
           "in view of the ground")  # fmt: skip
_FOLLOWS = ("so we go on", "so we slow down", "and nothing else is new", "and the link is up again")


def reports(seed: int, characters: int) -> str:
    """So many characters of reports, the same for the same seed; all of them are in `ALPHABET`."""
    generator, text = random.Random(seed), ""
    while len(text) < characters:
        subject, state, place, follows = map(generator.choice, (_SUBJECTS, _STATES, _PLACES, _FOLLOWS))
        text += f"orbit {generator.randrange(100)}, {place}. {subject} {state}, {follows}.\n"
    return text[:characters]


def encoded(text: str) -> list[int]:
    """The place of each character in `ALPHABET`."""
    places = {character: place for place, character in enumerate(ALPHABET)}
    return [places[character] for character in text]
