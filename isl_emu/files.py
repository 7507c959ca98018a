"""Files: written in one step, JSON both ways, and TOML read by whichever library Python has for it."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["everybody_may_read", "read_json", "tomllib", "write_json", "write_whole"]


def everybody_may_read(path: Path) -> bool:
    """Whether each user of the machine may read a file, wherever its links lead."""
    found = path.resolve()
    entered = all(folder.stat().st_mode & stat.S_IXOTH for folder in found.parents)
    return entered and bool(found.stat().st_mode & stat.S_IROTH)


def write_whole(path: Path, text: str | bytes) -> None:
    """Write `text` so that whoever reads it meanwhile, or after a crash, finds the old file or the new one."""
    draft = path.with_name(path.name + ".new")
    draft.write_bytes(text.encode() if isinstance(text, str) else text)
    draft.replace(path)


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record in one step."""
    write_whole(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """The record in a file; None if there is no file, or only part of one."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found
