"""Mininet's command line, for nodes whose names hold hyphens."""

from __future__ import annotations

from mininet.cli import CLI
from mininet.log import error

from isl_emu.errors import IslEmuError


class NetCLI(CLI):
    """Mininet's command line: ``gs-chengdu ping p00s00`` is a command for one node, not for `gs`."""

    identchars = CLI.identchars + "-"

    def onecmd(self, line: str) -> bool | None:
        """Carry out one line; a command that fails says why, and the session goes on."""
        try:
            return super().onecmd(line)
        except IslEmuError as reason:
            error(f"*** {reason}\n")
            return None
