"""All pictures of a plan, as files in a folder.

To add one: a function that draws it, in a module of this package, and a line in `draw`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from isl_emu.errors import ScenarioError
from isl_emu.planned import PlannedNetwork
from isl_emu.show.gantt import draw_gantt
from isl_emu.show.ground_map import draw_map
from isl_emu.show.measures import telling_links
from isl_emu.show.over_time import draw_degree, draw_links, draw_path_delays
from isl_emu.show.style import check_formats, save

PAIRS_AT_MOST = 4  # of those that are chosen for the user


def draw(
    plan: PlannedNetwork,
    folder: Path,
    pairs: Sequence[tuple[str, str]],
    links: Sequence[tuple[str, str]],
    formats: Sequence[str],
) -> list[Path]:
    """Write the pictures; the folder is made if need be.

    Args:
        plan: to draw.
        folder: to write to.
        pairs: of nodes, for the path delay; if empty, those that the scenario probes, else stations, else satellites.
        links: by the names of their ends; if empty, those of each kind whose delay changes most.
        formats: "png", "svg", "pdf": each picture in all of them.

    Returns:
        The files.

    Raises:
        ScenarioError: a node or link that is not in the plan, no format of pictures, or a folder that cannot be
            written.
    """
    check_formats(formats)
    numbers: list[int] = []
    for a, b in links:  # in whichever order they are named
        lower, upper = sorted((plan.index(a), plan.index(b)))
        found = ((plan.link_plan.links.a == lower) & (plan.link_plan.links.b == upper)).nonzero()[0]
        if not len(found):
            raise ScenarioError(f"link: is {a} - {b}, but these two are never linked in this plan; name two that are")
        numbers.append(int(found[0]))
    numbers = numbers or telling_links(plan.link_plan)
    figures = {
        "contacts": draw_gantt(plan),
        "map": draw_map(plan),
        "links": draw_links(plan, numbers),
        "degree": draw_degree(plan),
    }
    if chosen := list(pairs) or chosen_pairs(plan):
        figures["path-delay"] = draw_path_delays(plan, chosen)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [save(figure, folder / f"{name}.{suffix}") for name, figure in figures.items() for suffix in formats]
    except OSError as error:
        raise ScenarioError(
            f"{folder}: cannot be written ({error.strerror}), but pictures go there; name another folder"
        ) from None


def chosen_pairs(plan: PlannedNetwork) -> list[tuple[str, str]]:
    """The pairs whose delay is shown when nobody names any."""
    if watched := plan.scenario.watched_pairs:
        return list(watched[:PAIRS_AT_MOST])
    stations = list(plan.scenario.station_names)
    if len(stations) > 1:
        return [(stations[0], other) for other in stations[1 : PAIRS_AT_MOST + 1]]
    ends = [*stations, plan.nodes[0], plan.nodes[len(plan.scenario.satellite_names) // 2]]
    return [(ends[0], ends[-1])] if ends[0] != ends[-1] else []
