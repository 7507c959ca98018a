"""Texts of scenarios, made of parts of which a test says only what matters to it.

    head("test", step="10 s") + shell(12, lasers="ring") + station("gs", site="chengdu")

Each part is TOML, so what a test adds is written as a user would write it. A shell ends with its lasers: keys that
follow are theirs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TOPOLOGIES = Path(__file__).parents[1] / "topologies"


def head(name: str = "test", *, start: str = "2026-03-20T14:00:00Z", duration: str = "60 s", step: str | None = None,
         slowdown: float | None = None, **keys: Any) -> str:  # fmt: skip
    """The top of a scenario: its name, other keys of the top such as `seed`, and its time."""
    pace = {key: value for key, value in {"step": step, "slowdown": slowdown}.items() if value is not None}
    return f'name = "{name}"\n{_lines(keys)}[time]\nstart = {start}\nduration = "{duration}"\n{_lines(pace)}'


def shell(total: int | None = None, planes: int = 1, phasing: int | None = None, *, name: str = "ring",
          pattern: str = "delta", lasers: str | dict[str, Any] = "ring", **keys: Any) -> str:  # fmt: skip
    """A shell; low and sun-synchronous if its keys say nothing else; `lasers` are their topology, or all their keys.

    Without a total its satellites are in its keys: code = "D:550:53.0:4/2/0".
    """
    if total is not None:
        walker = {"pattern": pattern, "total": total, "planes": planes}
        walker |= {} if phasing is None else {"phasing": phasing}
        keys = {"walker": walker, "altitude": "525 km", "inclination": "97.5 deg", **keys}
    lasers = {"topology": lasers} if isinstance(lasers, str) else lasers
    return table("[shell]", name=name, **keys) + table("shell.lasers", **lasers)


def station(name: str = "gs", **keys: Any) -> str:
    """A ground station: its place is in its keys, and what they leave out of its terms is usual."""
    return table(
        "[station]", name=name, **{"min_elevation": "5 deg", "uplink": "1 Gbit/s", "downlink": "1 Gbit/s", **keys}
    )


def ring_over_china(**lasers: Any) -> str:
    """Twelve satellites in a plane that passes over China at half past two on 2026-03-20."""
    lasers = {"topology": "ring", "rate": "100 Gbit/s", **lasers}
    return shell(12, inclination="sun-synchronous", ltan="22:30", argument_of_latitude="16 deg", lasers=lasers)


def quiet_ring(duration: str = "30 s", step: str | None = None, **limits: Any) -> str:
    """That ring and a station, judged by limits that no crowded machine breaks but for those that a test names."""
    lax = {
        "lateness_p99": "20 s",
        "probe_error_per_hop_p50": "50 ms",
        "probe_error_p95": "10 s",
        "cpu_saturated_ratio": 1.0,
        "cpu_waiting_ratio": 1.0,
    }
    chengdu = {"latitude": "30.66 deg", "longitude": "104.06 deg", "uplink": "10 Gbit/s", "downlink": "10 Gbit/s"}
    return (
        head("quiet-ring", rate_scale=0.001, start="2026-03-20T14:30:00Z", duration=duration, step=step)
        + ring_over_china(grazing_altitude="80 km")
        + station("gs-chengdu", antennas=2, **chengdu)
        + table("fidelity", **{**lax, **limits})
    )


def table(of: str, **keys: Any) -> str:
    """A table, or with a name in brackets one of an array: table("[station]", name="gs")."""
    return f"[{of}]\n{_lines(keys)}"


def shipped(name: str, changes: Mapping[str, str]) -> str:
    """A scenario of topologies/ with other text at some places, each of which must be there."""
    text = (TOPOLOGIES / f"{name}.toml").read_text()
    for old, new in changes.items():
        assert old in text, f"{name}.toml has no {old!r} any more"
        text = text.replace(old, new)
    return text


def _lines(keys: dict[str, Any]) -> str:
    return "".join(f"{key} = {_value(value)}\n" for key, value in keys.items())


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)  # text, numbers and truth look alike in both


SMALL = (
    head("small", start="2026-01-01T00:00:00Z")
    + shell(12)
    + station("gs-berlin", latitude="52.5 deg", longitude="13.4 deg", min_elevation="10 deg")
)
