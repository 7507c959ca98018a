"""Writing a file so that whoever reads it meanwhile, or after a crash, finds the old one or the new one, never half."""

from __future__ import annotations

from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write `text` to `path` in one step."""
    draft = path.with_name(path.name + ".new")
    draft.write_text(text)
    draft.replace(path)
