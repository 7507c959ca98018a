"""Every error that isl-emu raises on purpose.

IslEmuError
├── ScenarioError   what the user wrote is wrong
├── MachineError    this machine cannot do it, or the guest kernel died
├── NetworkError    the kernel refused, or holds something else than was planned
└── WorkloadError   a model, a server or a traffic source cannot be started

The message of each is one sentence a problem: ``<where>: <what> is <found>, but <rule>; <what to do>``. A sentence that
does not say what to do gets its class's remedy, so none is without; a test reads all that is raised for the rest.
The command line prints it without a traceback and exits with 1.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable
from typing import ClassVar, NamedTuple

FAILED = 1  # exit status of a command that said why
INVALID = 3  # exit status of a run that is done but marked invalid
SIGNALLED = 128  # by the shell's convention, what the exit status of a command is above the signal that ended it
INTERRUPTED = SIGNALLED + signal.SIGINT
PROBLEMS_SHOWN = 20

_SENTENCE = re.compile(
    r"(?P<where>.+?)(?:: | (?=is |has |are |says |does |cannot |begins |holds ))(?P<found>.+?),? but (?P<rule>.+); "
    r"(?P<remedy>.+)",
    re.DOTALL,
)


class Problem(NamedTuple):
    """The parts of a sentence: where, what was found, what is allowed, and what to do."""

    where: str
    found: str
    rule: str
    remedy: str


class IslEmuError(Exception):
    """The root of all errors raised on purpose.

    Args:
        problems: one sentence per problem; all of them are shown.
    """

    remedy: ClassVar[str] = "run it again as isl-emu --debug ..."

    def __init__(self, *problems: str):
        self.problems = tuple(
            one if "; " in (one.partition(" but ")[2] or one) else f"{one}; {self.remedy}" for one in problems
        )
        super().__init__("\n".join(self.problems))

    @property
    def parts(self) -> tuple[Problem, ...]:
        """The parts of each sentence; one that has not all of them is left out."""
        found = (_SENTENCE.fullmatch(sentence) for sentence in self.problems)
        return tuple(Problem(**match.groupdict()) for match in found if match)


class ScenarioError(IslEmuError):
    """A scenario, a plan, a run folder or an option that cannot be used."""

    remedy = "correct it there (docs/scenario.md has all keys)"


class MachineError(IslEmuError):
    """The machine lacks something, or a guest kernel did not end in order."""

    remedy = "`isl-emu doctor` says what this machine has"


class NetworkError(IslEmuError):
    """The kernel refused a change, or its state differs from the plan."""

    remedy = "call `isl-emu clean`, and `isl-emu doctor` if it happens again"


class WorkloadError(IslEmuError):
    """A model file, model server, container or traffic source is unusable."""

    remedy = "correct what the scenario names there, or look at its log in the run's folder"


def first_of(problems: Iterable[str]) -> tuple[str, ...]:
    """As many problems as somebody reads, and how many more there are."""
    told = tuple(problems)
    more = len(told) - PROBLEMS_SHOWN
    if more <= 1:
        return told
    said = f"there are {more:,} problems more, but {PROBLEMS_SHOWN} are told at once; correct these first"
    return (*told[:PROBLEMS_SHOWN], said)
