"""What a run was made with: everything that someone else needs to judge or repeat it. What is unknown stays null."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from isl_emu.runs.execution import Execution, kernel_facts

PACKAGES = ("isl-emu", "numpy", "scipy", "skyfield", "sgp4", "mininet", "scapy", "xllamacpp", "pyarrow", "pydantic")
PROVENANCE_FORMAT = 1
_CHUNK_BYTE = 1 << 20


def provenance(
    *,
    scenario_name: str,
    seed: int,
    rate_scale: float,
    plan_digest: str,
    place: str,
    reason: str,
    models: Sequence[Path],
    inputs: Sequence[Path] = (),
    clock: str = "real",
    kernel: Mapping[str, Any] | None = None,
    scenario_digest: str | None = None,
) -> dict[str, Any]:
    """The record that is written before a run; `completed` adds its end.

    Args:
        place: where the network is built, host or guest, and `reason` why.
        models: the weights that the satellites serve.
        inputs: what else was read: a trace, a file of prompts.
        clock: "exact" or "real".
        kernel: a guest's kernel, with the digest of its program.
        scenario_digest: SHA-256 of the run's own scenario file.
    """
    return {
        "format": PROVENANCE_FORMAT,
        "scenario": scenario_name,
        "seed": seed,
        "rate_scale": rate_scale,
        "plan_sha256": plan_digest,
        "scenario_sha256": scenario_digest,
        "place": {"kind": place, "reason": reason, "clock": clock, "kernel": kernel},
        "command": sys.argv,
        "started_utc": _now(),
        "finished_utc": None,
        "versions": versions(),
        "git_commit": git_commit(Path(__file__).parents[1]),
        "machine": kernel_facts(),
        "models": [file_facts(model) for model in models],
        "inputs": [file_facts(path) for path in inputs],
        "execution": None,
    }


def completed(record: Mapping[str, Any], execution: Execution | None) -> dict[str, Any]:
    """The record of a run that is over, with what its execution wrote down about itself."""
    return {**record, "finished_utc": _now(), "execution": execution and execution.to_json()}


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that shape the results."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def file_facts(path: Path) -> dict[str, Any]:
    """Name, size and SHA-256 of a file."""
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTE):
            hasher.update(chunk)
    return {"file": path.name, "size_byte": path.stat().st_size, "sha256": hasher.hexdigest()}


def git_commit(package: Path) -> str | None:
    """The commit of the checkout that `package` belongs to, "-dirty" if changed; None outside of one."""
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    return _git(package, "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*")


def _git(folder: Path, *words: str) -> str | None:
    try:
        command = ["git", "-C", str(folder), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
