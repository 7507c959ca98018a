"""Find what glows in an image: a stand-in for a small vision model, for `command` of an observation.

    python docs/examples/find_fires.py IMAGE ANSWER

IMAGE is a grey PGM of 8 bits (P5); ANSWER gets a line of JSON for each group of bright pixels: its middle and
size. `--make IMAGE` writes such an image, dark with noise and three fires, to try it.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np

BRIGHT = 200


def read_pgm(path: Path) -> np.ndarray:
    """A grey image of 8 bits, shape (rows, columns)."""
    data = path.read_bytes()
    head = re.match(rb"P5\s+(\d+)\s+(\d+)\s+255\s", data)
    if head is None:
        sys.exit(f"{path}: is no PGM of 8 bits, but that is what is read; convert it")
    columns, rows = int(head[1]), int(head[2])
    return np.frombuffer(data, np.uint8, rows * columns, head.end()).reshape(rows, columns)


def fires(image: np.ndarray) -> list[dict[str, float]]:
    """Groups of bright pixels that touch each other."""
    left = {(int(row), int(column)) for row, column in np.argwhere(image > BRIGHT)}
    found = []
    while left:
        group, ahead = [], [min(left)]
        left.remove(ahead[0])
        while ahead:
            row, column = ahead.pop()
            group.append((row, column))
            for place in [(row + dr, column + dc) for dr in (-1, 0, 1) for dc in (-1, 0, 1)]:
                if place in left:
                    left.remove(place)
                    ahead.append(place)
        row, column = np.mean(group, axis=0)
        found.append({"row": round(float(row), 1), "column": round(float(column), 1), "pixels": len(group)})
    return found


def make(path: Path, size: int = 256) -> None:
    """Write a dark image with noise and three fires."""
    rng = np.random.default_rng(1)
    image = rng.integers(20, 90, (size, size)).astype(np.uint8)
    for row, column, radius in ((40, 60, 3), (128, 200, 5), (220, 30, 2)):
        image[row - radius : row + radius + 1, column - radius : column + radius + 1] = 250
    path.write_bytes(b"P5\n%d %d\n255\n" % (size, size) + image.tobytes())


if __name__ == "__main__":
    if sys.argv[1] == "--make":
        make(Path(sys.argv[2]))
    else:
        Path(sys.argv[2]).write_text("".join(f"{json.dumps(one)}\n" for one in fires(read_pgm(Path(sys.argv[1])))))
