"""Files: written in one step, JSON both ways, and TOML read by whichever library Python has for it."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["encoding_of", "everybody_may_read", "read_json", "tomllib", "why_no_text", "write_json", "write_whole"]

PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


def everybody_may_read(path: Path) -> bool:
    """Whether each user of the machine may read a file, wherever its links lead."""
    found = path.resolve()
    entered = all(folder.stat().st_mode & stat.S_IXOTH for folder in found.parents)
    return entered and bool(found.stat().st_mode & stat.S_IROTH)


def write_whole(path: Path, text: str | bytes) -> None:
    """Write `text` so that whoever reads it meanwhile, or after a crash, finds the old file or the new one.

    Who else may write into the folder cannot lead it elsewhere by a link.
    """
    draft = path.with_name(path.name + ".new")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666), "wb") as file:
        file.write(text.encode() if isinstance(text, str) else text)
    draft.replace(path)


def encoding_of(head: bytes) -> str:
    """How a text that begins with these bytes is encoded: UTF-16, as PowerShell writes it, says so; all else is UTF-8.

    Raises:
        ValueError: it is packed.
    """
    for mark, packer in PACKED.items():
        if head.startswith(mark):
            raise ValueError(f"it is packed by {packer}, but text is read; unpack it first")
    return "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


def why_no_text(error: Exception) -> str:
    """What `encoding_of` or decoding said, as a reason."""
    return "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error).partition(",")[0]


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
