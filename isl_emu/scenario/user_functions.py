"""Functions of a user's own that a scenario names, such as a routing policy or a choice of laser links."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from isl_emu.errors import ScenarioError


def user_function(name: str, where: str) -> Callable[..., Any]:
    """The function that a scenario names as ``package.module:function``.

    Args:
        where: the scenario's key, for the error.

    Raises:
        ScenarioError: there is none.
    """
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ScenarioError(
            f"{where}: is {name!r}, but that cannot be imported ({error}); write package.module:function"
        ) from error
