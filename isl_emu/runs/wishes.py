"""What a user wants of a run before it begins, and what a scenario may do in it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from isl_emu.errors import ScenarioError
from isl_emu.files import everybody_may_read
from isl_emu.units import seconds_text

GGUF = b"GGUF"  # how a file of weights begins


@dataclass(frozen=True)
class Trust:
    """What a scenario may do, apart from what isl-emu itself does; by default it may run programs behind a wall.

    Args:
        all: it is as good as the user's own programs: it may run them where no wall is.
        programs: it may name commands, functions and URLs.
        keys: the environment variables that it may send to URLs.
        network: it may lead its packets to this machine's own network.
        interfaces: of this machine, which its nodes may have.
    """

    all: bool = False
    programs: bool = True
    keys: tuple[str, ...] = ()
    network: bool = False
    interfaces: tuple[str, ...] = ()

    def check(self, foreign: Sequence[str], keys_sent: Sequence[str]) -> None:
        """Raise a ScenarioError if a scenario runs, imports, asks or sends what it may not.

        Args:
            foreign, keys_sent: of the scenario.
        """
        if foreign and not self.programs:
            raise ScenarioError(
                f"--no-programs: the scenario has {'; '.join(foreign)}, but it is to have none; leave the option out "
                "if you trust these"
            )
        if strange := [name for name in keys_sent if name not in self.keys]:
            raise ScenarioError(
                f"compute.key_variable: is {strange[0]}, but the contents of a variable leave this machine only if you "
                f"say so; add --allow-key {strange[0]} if you trust the scenario with it"
            )

    def words(self) -> list[str]:
        """The options of `isl-emu run` that say the same."""
        flags = {"--trust": self.all, "--no-programs": not self.programs, "--allow-network": self.network}
        allowed = [word for key in self.keys for word in ("--allow-key", key)]
        allowed += [word for name in self.interfaces for word in ("--allow-interface", name)]
        return [*(word for word, said in flags.items() if said), *allowed]

    def check_network(self, leading_out: Sequence[str], wanted: Sequence[str] = ()) -> None:
        """Raise a ScenarioError if a scenario leads packets to the machine's network that may not.

        Args:
            leading_out: the nodes that do so.
            wanted: interfaces of this machine that its nodes are to have.
        """
        if strange := [name for name in wanted if name not in self.interfaces]:
            raise ScenarioError(
                f"hardware.interface: is {strange[0]}, but a node gets one of this machine only if you say so; "
                f"add --allow-interface {strange[0]} if you trust the scenario with it, or leave the table out"
            )
        if leading_out and not self.network:
            raise ScenarioError(
                f"way_out: {', '.join(leading_out)} leads out to this machine's own network, but packets of a scenario "
                "get there only if you say so; add --allow-network if you trust the scenario with it, or leave the "
                "table out"
            )

    def check_files(self, paths: Iterable[Path]) -> None:
        """Raise a ScenarioError if a scenario's programs would be shown a file that is not for everybody's eyes.

        What lies where isl-emu was called or where Python's modules are they see anyway, and weights are no secret.

        Args:
            paths: files and folders that the scenario names, or that its programs need.
        """
        shown = [Path(folder).resolve() for folder in (Path.cwd(), sys.prefix, sys.base_prefix)]
        for path in paths:
            found = path.resolve()
            if self.all or not found.is_file() or everybody_may_read(found):
                continue
            if any(found.is_relative_to(folder) for folder in shown) or found.open("rb").read(4) == GGUF:
                continue
            raise ScenarioError(
                f"{path}: is named by the scenario, whose programs would read it, but not every user of this machine "
                "may; copy it into the folder where isl-emu is called, or --trust a scenario that is as good as your "
                "own programs"
            )

    def check_images(self, paths: Iterable[Path]) -> None:
        """Raise a ScenarioError if a scenario names an image elsewhere than where isl-emu was called."""
        for path in paths:
            if not self.all and not path.resolve().is_relative_to(Path.cwd().resolve()):
                raise ScenarioError(
                    f"{path}: is an image of the scenario, whose programs would read it, but it is not in the folder "
                    "where isl-emu is called; copy it there, or --trust a scenario that is as good as your own programs"
                )


USUAL_TRUST = Trust()


@dataclass(frozen=True)
class Wishes:
    """What a user wants of a live run, apart from what its scenario says.

    Args:
        interactive: open Mininet's command line on the live net; the run ends when the user leaves it.
        pause_at_ns: pause at this emulated time.
        until_ns: end at this emulated time, though the plan goes on.
        trust: what the scenario may do.
        pace: emulated seconds per second of the wall at most; for exact time, which is paced from outside.
    """

    interactive: bool = False
    pause_at_ns: int | None = None
    until_ns: int | None = None
    pace: float | None = None
    trust: Trust = USUAL_TRUST

    def words(self) -> list[str]:
        """The options of `isl-emu execute` that say the same."""
        options = [word for name, t_ns in self._times().items() if t_ns is not None for word in (name, f"{t_ns}ns")]
        return [*options, *(["--cli"] if self.interactive else [])]

    def check(self, duration_ns: int) -> None:
        """Raise a ScenarioError if a time is none within a plan of this duration."""
        for name, t_ns in self._times().items():
            if t_ns is not None and not 0 < t_ns < duration_ns:
                raise ScenarioError(
                    f"{name}: is {seconds_text(t_ns)}, but the plan ends at {seconds_text(duration_ns)} and begins "
                    "at 0; choose a time between"
                )

    def _times(self) -> dict[str, int | None]:
        return {"--pause-at": self.pause_at_ns, "--until": self.until_ns}
