"""Figures of a run as Prometheus reads them: text, a line for each figure (exposition format 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from isl_emu.view.board import Board

Labels = Mapping[str, str]
Sample = tuple[Labels, float]


def metrics_text(board: Board) -> str:
    """All figures of what a board knows."""
    return "".join(_lines(board))


def _lines(board: Board) -> Iterator[str]:
    link = [({"from": a, "to": b}, one) for (a, b), one in board.busy.items()]
    servers = [({"node": node}, float(queue)) for node, (_, queue) in board.servers.items() if queue is not None]
    states = [({"node": node, "state": state}, 1.0) for node, (state, _) in board.servers.items() if state]
    yield from _figure("time_seconds", "gauge", "emulated time of the run", [({}, board.now_s)])
    yield from _figure("rate", "gauge", "emulated seconds in one of the wall", [({}, board.rate)])
    yield from _figure("live", "gauge", "1 while the run is live", [({}, float(board.state in ("live", "paused")))])
    if board.valid is not None:
        yield from _figure("valid", "gauge", "1 if the run is valid", [({}, float(board.valid))])
    if board.lateness_ms is not None:
        late_s = board.lateness_ms / 1e3
        yield from _figure(
            "lateness_seconds", "gauge", "by which the latest change of the network was late", [({}, late_s)]
        )
    yield from _figure("nodes", "gauge", "nodes of the plan", [({}, float(board.nodes))])
    yield from _figure("links", "gauge", "links of the plan", [({}, float(board.links))])
    yield from _figure("links_up", "gauge", "links that are up, by the plan and by hand", [({}, float(len(board.up)))])
    ends = [({"a": a, "b": b}, float(one)) for (a, b), one in sorted(board.changed.items())]
    yield from _figure("link_up", "gauge", "whether a link is up, of those that have changed", ends)
    yield from _figure("link_bits_per_second", "gauge", "sent over the busiest directions of links", _of(link, 1))
    yield from _figure("link_load_ratio", "gauge", "the same over what they could carry", _of(link, 0))
    asked = [({"phase": phase}, float(count)) for phase, count in sorted(board.questions.items())]
    yield from _figure("questions_total", "counter", "questions that came to each phase", asked)
    sent = [({"kind": kind, "phase": phase}, float(n)) for (kind, phase), n in sorted(board.transfers.items())]
    yield from _figure("transfers_total", "counter", "transfers that began and ended", sent)
    yield from _figure("server_queue", "gauge", "requests of a server, as stations last heard", servers)
    yield from _figure("server_state", "gauge", "what a server or computer was last said to be", states)
    yield from _figure("faults", "gauge", "faults and interventions in force", [({}, float(len(board.faults)))])


def _of(link: Iterable[tuple[Labels, tuple[float, float]]], place: int) -> Sequence[Sample]:
    return [(labels, values[place]) for labels, values in link]


def _figure(name: str, kind: str, meaning: str, samples: Sequence[Sample]) -> Iterator[str]:
    """One figure with all its samples; none if there are none."""
    if samples:
        yield f"# HELP isl_emu_{name} {meaning}\n# TYPE isl_emu_{name} {kind}\n"
    for labels, value in samples:
        told = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        yield f"isl_emu_{name}{f'{{{told}}}' if told else ''} {value:.10g}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
