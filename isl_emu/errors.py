"""Every error that isl-emu raises on purpose.

IslEmuError
├── ScenarioError   what the user wrote is wrong
├── MachineError    this machine cannot do it, or the guest kernel died
├── NetworkError    the kernel refused, or holds something else than was planned
└── WorkloadError   a model, a server or a traffic source cannot be started

The message of each is one sentence: ``<where>: <what> is <found>, but <rule>; <what to do>``.
The command line prints it without a traceback and exits with 1.
"""

from __future__ import annotations

from collections.abc import Sequence

INVALID = 3  # exit status of a run that is done but marked invalid
INTERRUPTED = 130  # by the shell's convention, that of a command ended by SIGINT


class IslEmuError(Exception):
    """The root of all errors raised on purpose."""


class ScenarioError(IslEmuError):
    """A scenario that cannot be used.

    Args:
        problems: one sentence per problem; all of them are shown.
    """

    def __init__(self, *problems: str):
        self.problems: Sequence[str] = problems
        super().__init__("\n".join(problems))


class MachineError(IslEmuError):
    """The machine lacks something, or a guest kernel did not end in order."""


class NetworkError(IslEmuError):
    """The kernel refused a change, or its state differs from the plan."""


class WorkloadError(IslEmuError):
    """A model file, model server, container or traffic source is unusable."""
