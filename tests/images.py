"""Images made on the spot: layers, and OCI layouts of them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Entry = tuple[str, bytes | str | None] | tuple[str, bytes | str | None, int]
"""A path with the bytes of a file, the target of a link, or None for a device; perhaps its mode."""


def layer(entries: Sequence[Entry]) -> bytes:
    """A layer, packed by gzip."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz") as tar:
        for name, content, *mode in entries:
            member = tarfile.TarInfo(name)
            member.mode = int(mode[0]) if mode else 0o755
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
            elif content is None:
                member.type = tarfile.BLKTYPE
            else:
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else None)
    return written.getvalue()


def oci_layout(folder: Path, layers: Sequence[bytes], **more: Any) -> None:
    """An OCI image layout with these layers, which wants MODE=own in the environment, and more."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"digest": f"sha256:{digest}", "size": len(content)}

    def record(content: dict[str, Any]) -> dict[str, Any]:
        return blob(json.dumps(content).encode())

    config = record({"config": {"Env": ["MODE=own", "PATH=/bin"], **more}})
    manifest = record({"schemaVersion": 2, "config": config, "layers": [blob(one) for one in layers]})
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
