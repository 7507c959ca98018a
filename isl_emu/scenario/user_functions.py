"""Functions of a user's own that a scenario names, such as a routing policy, a choice of laser links, or a workload.

Either by where they are, ``package.module:function``, importable from the folder in which isl-emu is called; or as
``plugin:NAME``, an entry point of the group `ENTRY_POINTS` of an installed package.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from isl_emu.errors import ScenarioError

ENTRY_POINTS = "isl_emu.functions"
PLUGIN = "plugin"


def user_function(name: str, where: str) -> Callable[..., Any]:
    """The function that a scenario names as ``package.module:function`` or ``plugin:NAME``.

    Args:
        where: the scenario's key, for the error.

    Raises:
        ScenarioError: there is none.
    """
    module, _, function = name.partition(":")
    if module == PLUGIN:
        return _plugin(function, where)
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ScenarioError(
            f"{where}: is {name!r}, but that cannot be imported ({error}); write package.module:function"
        ) from error
    return found


def _plugin(name: str, where: str) -> Callable[..., Any]:
    installed = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    if name not in installed:
        known = ", ".join(sorted(installed)) or "none"
        raise ScenarioError(
            f"{where}: is {PLUGIN}:{name}, but the installed plug-ins (entry points of {ENTRY_POINTS}) are: {known}; "
            "install its package"
        )
    try:
        found: Callable[..., Any] = installed[name].load()
    except (ImportError, AttributeError) as error:
        raise ScenarioError(
            f"{where}: is {PLUGIN}:{name}, but {installed[name].value} cannot be imported ({error}); mend its package"
        ) from error
    return found
