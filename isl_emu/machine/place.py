"""Where a run's networks are made, and by which clock: on this machine's own kernel, or in a guest kernel."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from typing import Literal

from isl_emu.errors import MachineError
from isl_emu.machine.uml import UmlKernel, build_shim, find_uml, inside_guest, needs_shim
from isl_emu.network.probing import missing_features

BUILD_IT = "`isl-emu doctor` says what its build needs; or use --clock real"


@dataclass(frozen=True)
class Place:
    """The kernel for a run, and in one line which it is and why.

    Args:
        clock: "exact" where time is virtual, "real" where it is the machine's.
        kernel: the guest's; None on the host.
    """

    kind: Literal["host", "guest"]
    reason: str
    clock: Literal["exact", "real"] = "real"
    kernel: UmlKernel | None = None


def choose_place(requested: str, clock: str = "real", real_because: str = "") -> Place:
    """The host if its kernel can do it and we are root; otherwise, or for exact time, the guest.

    Args:
        requested: "auto", or "host" or "guest" for just that one.
        clock: "exact" or "real", or "auto" for exact time where it can be had.
        real_because: why what is to run there needs real time; empty if it does not.

    Raises:
        MachineError: the requested place or clock, or with "auto" either place, cannot be used, and what would help.
    """
    if clock == "exact":
        if against := real_because or _against_exact(requested):
            raise MachineError(
                f"--clock exact: {against}, but exact time is asked for; "
                f"{BUILD_IT if 'built' in against else 'use --clock real'}"
            )
        return _exact()
    if clock == "real":
        return _in_real_time(requested)
    against = real_because or _against_exact(requested)
    if not against:
        return _exact()
    place = _in_real_time(requested)
    return Place(place.kind, f"{place.reason}; in real time: {against}", kernel=place.kernel)


def _against_exact(requested: str) -> str:
    """Why this machine has no exact time, or none where the network is to be; empty if it has."""
    if requested == "host":
        return "this machine's own kernel has the machine's clock, and only a guest kernel can have another"
    if inside_guest():
        return "a guest kernel cannot boot another"
    try:
        kernel = find_uml()
    except MachineError:
        kernel = None
    return "" if kernel is not None and kernel.exact else "the kernel that has exact time is not built"


def _exact() -> Place:
    kernel = find_uml()
    return Place("guest", f"kernel {kernel.release}, in exact time", "exact", kernel)


def _in_real_time(requested: str) -> Place:
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


def _host_reason() -> str:
    if inside_guest():
        return f"inside the guest kernel {platform.release()}"
    return f"kernel {platform.release()}, which has all that networks need"


def _guest(reason: str) -> Place:
    if inside_guest():
        raise MachineError(
            f"--machine: is guest ({reason}), but this is inside a guest kernel already, which cannot boot "
            "another; use host"
        )
    kernel = find_uml()
    if needs_shim(kernel):
        build_shim()
    return Place("guest", f"kernel {kernel.release}: {reason}", kernel=kernel)


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
