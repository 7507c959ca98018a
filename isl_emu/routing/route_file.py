"""A route plan in a file of the run folder: planned once, applied by the live part, looked up for the results.

The file belongs to its run and is never read from anywhere else, so Python's own format will do.
"""

from __future__ import annotations

import pickle
from pathlib import Path

from isl_emu.errors import ScenarioError
from isl_emu.routing.forwarding import RoutePlan


def write_routes(routes: RoutePlan, path: Path) -> None:
    """Write a route plan to `path`."""
    with path.open("wb") as file:
        pickle.dump(routes, file, pickle.HIGHEST_PROTOCOL)


def read_routes(path: Path) -> RoutePlan:
    """The route plan in a file that `write_routes` wrote.

    Raises:
        ScenarioError: there is no such file.
    """
    try:
        with path.open("rb") as file:
            routes: RoutePlan = pickle.load(file)
            return routes
    except OSError as error:
        raise ScenarioError(
            f"{path}: cannot be read ({error.strerror}), but it holds the routes of the run; run the scenario again"
        ) from None
