"""The table of probes where each has one planned way: all probes of a direction are compared with the plan at once.

It says the same as `results.probe_rows`, which is for ways that split, that headers name, or that programs make.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from isl_emu.parts.finished_run import Row
from isl_emu.parts.probes.packets import FRAME_BYTE
from isl_emu.parts.probes.results import PROBES
from isl_emu.parts.probes.traffic import OwnTrafficOver
from isl_emu.tables.planned_paths import PathOverTime, PlannedPaths
from isl_emu.tables.schema import PATH


@dataclass(frozen=True)
class _Direction:
    """The n probes from one node to another."""

    a: str
    b: str
    rows: np.ndarray  # int64 (n,), their places in the table
    k: np.ndarray  # int64 (n,), the instants at which they were sent
    way: PathOverTime

    def spells(self) -> Iterator[tuple[int, np.ndarray]]:
        """The spells of the path in which probes were sent, and which of the n these are."""
        spell = self.way.spell[self.k]
        for which in np.split(np.arange(len(spell)), np.flatnonzero(np.diff(spell)) + 1):
            if len(which):
                yield int(spell[which[0]]), which


def probe_table(
    records: Sequence[Mapping[str, Any]],
    paths: PlannedPaths,
    samples: Sequence[Row],
    disturbed: Sequence[tuple[int, float]] = (),
) -> pa.Table:
    """A journal's probes, by rising time of sending, with what the plan says about their ways.

    Args:
        paths: of which each has one way at most.
        samples: how many bytes had left the link ends on their ways, from the journal of `traffic`.
        disturbed: from when to when somebody had changed the network.
    """
    count = len(records)
    send_ns = np.array([record["t_send_ns"] for record in records], dtype=np.int64)
    delays = [record.get("delay_ns") for record in records]
    arrived = np.array([delay_ns is not None for delay_ns in delays], dtype=bool)
    delay_ns = np.array([delay_ns or 0 for delay_ns in delays], dtype=np.int64)
    k = paths.instants(send_ns)
    found = {
        name: np.zeros(count, dtype=np.int64) for name in ("planned", "sending", "jitter", "queued", "hops", "path")
    }
    straddles, cut = np.zeros((2, count), dtype=bool)
    ways: list[list[str] | None] = []
    directions = list(_directions(records, k, paths))
    for one in directions:
        rows, way = one.rows, one.way
        planned_ns, sending_ns = way.delay_ns[one.k], way.serialisation_ns[one.k]
        found["planned"][rows], found["sending"][rows], found["jitter"][rows] = (
            planned_ns,
            sending_ns,
            way.jitter_ns[one.k],
        )
        cut[rows] = way.dead[one.k]
        found["path"][rows] = len(ways) + way.spell[one.k]
        found["hops"][rows] = np.array([len(links) for _, links in way.paths])[way.spell[one.k]]
        ways += [paths.node_names(nodes) if nodes else None for nodes, _ in way.paths]
        lasted_ns = np.where(delay_ns[rows] != 0, delay_ns[rows], planned_ns + sending_ns)
        end_ns = send_ns[rows] + lasted_ns
        straddles[rows] = paths.straddling(way, send_ns[rows], end_ns)
        for from_ns, until_ns in disturbed:
            straddles[rows] |= (send_ns[rows] < until_ns) & (from_ns < end_ns)
    has_way = (
        np.array([way is not None for way in ways], dtype=bool)[found["path"]] if count else np.zeros(0, dtype=bool)
    )
    measured = arrived & has_way
    _queued(directions, paths, samples, send_ns, delay_ns, measured, found["queued"])
    error_ns = delay_ns - found["planned"] - found["sending"]
    most_ns = found["queued"] + found["jitter"]
    excess_ns = error_ns - np.minimum(np.maximum(error_ns, -found["jitter"]), most_ns)
    planned = {
        "hops": found["hops"], "hops_least": found["hops"], "hops_most": found["hops"],
        "planned_delay_ns": found["planned"], "planned_delay_most_ns": found["planned"],
        "planned_serialisation_ns": found["sending"], "cut": cut, "jitter_ns": found["jitter"],
    }  # fmt: skip
    beyond = {"error_ns": error_ns, "queued_most_ns": found["queued"], "excess_ns": excess_ns}
    columns: dict[str, Any] = {
        **{name: [record.get(name) for record in records] for name in ("a", "b", "seq", "lost_by", "hops_seen")},
        "t_send_ns": send_ns, "straddles_change": straddles,
        "delay_ns": pa.array(delay_ns, mask=~arrived),
        "path": pa.array(ways, PATH).take(pa.array(found["path"])),
        **{name: pa.array(column, mask=~has_way) for name, column in planned.items()},
        **{name: pa.array(column, mask=~measured) for name, column in beyond.items()},
    }  # fmt: skip
    arrays = [_array(columns[field.name], field.type) for field in PROBES]
    return pa.Table.from_arrays(arrays, schema=PROBES)


def _array(column: Any, kind: pa.DataType) -> pa.Array:
    return column.cast(kind) if isinstance(column, pa.Array) else pa.array(column, kind)


def _directions(records: Sequence[Mapping[str, Any]], k: np.ndarray, paths: PlannedPaths) -> Iterator[_Direction]:
    number: dict[tuple[str, str], int] = {}
    of_record = np.array([number.setdefault((one["a"], one["b"]), len(number)) for one in records], dtype=np.int64)
    for (a, b), own in number.items():
        rows = np.flatnonzero(of_record == own)
        yield _Direction(a, b, rows, k[rows], paths.over_time(a, b, FRAME_BYTE))


def _queued(
    directions: Sequence[_Direction],
    paths: PlannedPaths,
    samples: Sequence[Row],
    send_ns: np.ndarray,
    delay_ns: np.ndarray,
    measured: np.ndarray,
    queued_ns: np.ndarray,
) -> None:
    """Fill in for how long what else left the links on its way can have held each probe that was measured."""
    sent: dict[int, list[np.ndarray]] = {}
    groups = []
    for one in directions:
        for spell, which in one.spells():
            ends: list[int] = []
            if one.way.paths[spell][0]:
                ends = list(paths.ends(one.a, one.b, int(one.way.first_k[spell])))
            for end in ends:
                sent.setdefault(end, []).append(send_ns[one.rows[which]])
            asked = which[measured[one.rows[which]]]
            if len(asked):
                groups.append((ends, one.rows[asked], one.k[asked]))
    own = OwnTrafficOver(samples, {end: np.concatenate(times) for end, times in sent.items()}, FRAME_BYTE)
    for ends, rows, k in groups:
        from_ns = send_ns[rows]
        byte = [own.other_byte(end, from_ns, from_ns + delay_ns[rows]) for end in ends]
        queued_ns[rows] = paths.holding_over(np.stack(byte, axis=1), ends, k)
