"""What a run was made with: everything that someone else needs to judge or repeat it. What is unknown stays null."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from isl_emu.runs.execution import Execution

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
) -> dict[str, Any]:
    """The record that is written before a run; `completed` adds its end.

    Args:
        place: where the network is built, host or guest, and `reason` why.
        models: the weights that the satellites serve.
        inputs: what else was read: a trace, a file of prompts.
    """
    return {
        "format": PROVENANCE_FORMAT,
        "scenario": scenario_name,
        "seed": seed,
        "rate_scale": rate_scale,
        "plan_sha256": plan_digest,
        "place": {"kind": place, "reason": reason},
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


def kernel_facts() -> dict[str, Any]:
    """The kernel and the machine under it, as this process sees them: call it where the network is built."""
    return {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpu_model": cpu_model(_text(Path("/proc/cpuinfo"))),
        "cpus": os.cpu_count(),
        "cpus_usable": len(os.sched_getaffinity(0)),
        "memory_byte": memory_byte(_text(Path("/proc/meminfo"))),
        "congestion_control": _word(Path("/proc/sys/net/ipv4/tcp_congestion_control")),
        "clock_source": _word(Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")),
    }


def cpu_model(cpuinfo: str) -> str | None:
    """The processor's name in the text of /proc/cpuinfo."""
    match = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return match.group(1).strip() if match else None


def memory_byte(meminfo: str) -> int | None:
    """The memory in the text of /proc/meminfo, whose kB are 1,024 bytes."""
    match = re.search(r"^MemTotal:\s*(\d+) kB$", meminfo, re.MULTILINE)
    return int(match.group(1)) * 1024 if match else None


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


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _word(path: Path) -> str | None:
    return _text(path).strip() or None


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
