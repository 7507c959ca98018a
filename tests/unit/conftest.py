"""What several tests read, read once."""

from __future__ import annotations

from typing import Any

import pytest

from isl_emu.parts.serving.model_file import resolve_model


@pytest.fixture(scope="session")
def bundled_gguf() -> Any:
    """The bundled model's file, as the format's own library reads it, which takes seconds."""
    gguf = pytest.importorskip("gguf", reason="gguf (extra pipeline) is not installed")
    return gguf.GGUFReader(resolve_model("bundled"))
