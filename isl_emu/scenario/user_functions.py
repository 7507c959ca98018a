"""Functions of a user's own that a scenario names, such as a routing policy, a choice of laser links, or a workload.

Either by where they are, ``package.module:function``, importable from the folder in which isl-emu is called; or as
``plugin:NAME``, an entry point of the group `ENTRY_POINTS` of an installed package.

Whatever goes wrong in one is told as its user's: with the scenario's key, the function and the line.
"""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from isl_emu.errors import IslEmuError, ScenarioError
from isl_emu.timebase import LIMIT_S, TooLongError, time_limit

ENTRY_POINTS = "isl_emu.functions"
PLUGIN = "plugin"
OURS = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class UserFunction:
    """A function of a user's own; it is called like it.

    Args:
        name: as the scenario names it.
        where: the scenario's key.
        limited: whether a call must end soon.
    """

    function: Callable[..., Any]
    name: str
    where: str
    limited: bool = True

    def __call__(self, *arguments: Any) -> Any:
        """What the function returns.

        Raises:
            ScenarioError: it failed, tried to end the program, or did not return in time.
        """
        try:
            if not self.limited:
                return self.function(*arguments)
            with time_limit():
                return self.function(*arguments)
        except (KeyboardInterrupt, IslEmuError):
            raise
        except BaseException as error:  # SystemExit too: it is not for a function to end a run
            raise ScenarioError(
                f"{self.where}: {self.name} {_told(error)}, but it must return; mend the function"
            ) from error


def user_function(name: str, where: str, arguments: int, *, limited: bool = True) -> UserFunction:
    """The function that a scenario names as ``package.module:function`` or ``plugin:NAME``.

    Args:
        where: the scenario's key, for errors.
        arguments: how many it will be called with.
        limited: whether a call must end soon.

    Raises:
        ScenarioError: there is none, its module fails when it is imported, or it takes another number of arguments.
    """
    module, _, function = name.partition(":")
    plugin = _plugin(function, where) if module == PLUGIN else None
    try:
        with time_limit():
            found = plugin.load() if plugin else _attribute(module, function)
    except (KeyboardInterrupt, IslEmuError):
        raise
    except (ImportError, AttributeError) as error:
        what, remedy = (plugin.value, "mend its package") if plugin else ("that", "write package.module:function")
        raise ScenarioError(f"{where}: is {name!r}, but {what} cannot be imported ({error}); {remedy}") from error
    except BaseException as error:
        raise ScenarioError(f"{where}: is {name!r}, but importing it {_told(error)}; mend the module") from error
    if not callable(found):
        raise ScenarioError(f"{where}: is {name!r}, but that is a {type(found).__name__}; name a function")
    try:
        inspect.signature(found).bind(*range(arguments))
    except TypeError:
        raise ScenarioError(
            f"{where}: is {name!r}, which takes {inspect.signature(found)}, but it is called with {arguments} "
            f"argument{'' if arguments == 1 else 's'}; let it take as many"
        ) from None
    except ValueError:
        pass  # one that is not written in Python does not say
    return UserFunction(found, name, where, limited)


def planning_function(name: str, where: str, arguments: int) -> Callable[..., Any]:
    """A function that is asked while planning, outside of the guest: `load` says how it is called.

    Raises:
        ScenarioError: as `user_function`.
    """
    return load(name, where, arguments)


load: Callable[[str, str, int], Callable[..., Any]] = user_function  # `machine.functions` puts a wall around it


def _attribute(module: str, path: str) -> Any:
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found


def _plugin(name: str, where: str) -> EntryPoint:
    installed = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    if name not in installed:
        known = ", ".join(sorted(installed)) or "none"
        raise ScenarioError(
            f"{where}: is {PLUGIN}:{name}, but the installed plug-ins (entry points of {ENTRY_POINTS}) are: {known}; "
            "install its package"
        )
    return installed[name]


def _told(error: BaseException) -> str:
    """What went wrong in a user's code, and in which of its lines."""
    if isinstance(error, SyntaxError):
        return f"failed in line {error.lineno} of {error.filename}: {type(error).__name__} ({error.msg})"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _is_elsewhere(frame.filename)]
    place = f" in line {own[-1].lineno} of {own[-1].filename}" if own else ""
    if isinstance(error, TooLongError):
        return f"did not return{place} within {LIMIT_S:.0f} s of computing"
    if isinstance(error, SystemExit):
        return f"called exit({error.code!r}){place}"
    said = " ".join(str(error).split())
    return f"failed{place}: {type(error).__name__}" + (f" ({said})" if said else "")


def _is_elsewhere(file: str) -> bool:
    """Whether a file is none of the user's: Python's, a package's, or ours."""
    path = Path(file)
    return file.startswith("<") or OURS in path.parents or bool({"site-packages", "lib"} & set(path.parts))
