"""Where a run's networks are made: on this machine's own kernel, or in a guest kernel."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from typing import Literal

from isl_emu.errors import MachineError
from isl_emu.machine.uml import build_shim, find_uml, needs_shim
from isl_emu.network.probing import missing_features


@dataclass(frozen=True)
class Place:
    """The kernel for a run, and in one line which it is and why."""

    kind: Literal["host", "guest"]
    reason: str


def choose_place(requested: str) -> Place:
    """The host if its kernel can do it and we are root; otherwise the guest.

    Args:
        requested: "auto", or "host" or "guest" for just that one.

    Raises:
        MachineError: the requested place, or with "auto" either place, cannot be used; it says what would help.
    """
    if requested == "guest":
        return _guest("as requested")
    missing = missing_features()
    if not missing:
        return Place("host", _host_reason())
    if requested == "host":
        raise MachineError(
            f"--machine host: {_joined(missing)}, but networks need it; use --machine guest, or a kernel that has it"
        )
    return _guest(_joined(missing))


def inside_guest() -> bool:
    """Whether this process runs in a guest kernel of ours."""
    return os.environ.get("ISL_EMU_GUEST") == "1"


def _host_reason() -> str:
    if inside_guest():
        return f"inside the guest kernel {platform.release()}"
    return f"kernel {platform.release()}, which has all that networks need"


def _guest(reason: str) -> Place:
    if inside_guest():
        raise MachineError(f"--machine: already inside a guest kernel, which cannot boot another ({reason}); use host")
    kernel = find_uml()
    if needs_shim(kernel):
        build_shim()
    return Place("guest", f"kernel {kernel.release}: {reason}")


def _joined(sentences: list[str]) -> str:
    return "; ".join(sentences)


def main() -> None:
    """Print which kernel runs would use here: host, guest, or none, and then why."""
    try:
        print(choose_place("auto").kind)
    except MachineError as error:
        print("none")
        print(error, file=sys.stderr)


if __name__ == "__main__":
    main()
