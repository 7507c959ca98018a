"""Parts of a run that several guests share tell each other something before it begins, by files in their journals.

All of them see the run folder; where they are on several machines, these files travel between them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from isl_emu.files import read_json, write_json
from isl_emu.runs.folder import RunFolder

LOOK_AGAIN_S = 0.01
SAID = re.compile(r"journal(\.\d+)?(/\w+\.said)?")
"""The files, and the folders in which they are, by their paths in a run folder."""


def meet(folder: RunFolder, parts: int, name: str, said: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Say something to all parts, and wait until each has: what they said, by their numbers.

    Who waits for one that has ended is interrupted with all others.

    Args:
        name: of this meeting.
    """
    write_json(folder.journal / f"{name}.said", said)
    heard: dict[int, Mapping[str, Any]] = {}
    while len(heard) < parts:
        for number in set(range(parts)) - heard.keys():
            if (found := read_json(RunFolder(folder.path, number).journal / f"{name}.said")) is not None:
                heard[number] = found
        if len(heard) < parts:
            time.sleep(LOOK_AGAIN_S)
    return [heard[number] for number in range(parts)]
