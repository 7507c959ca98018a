"""The table of split models, and its section of the summary: each pass of tokens, beside what the plan predicts.

The prediction takes the computing as it was measured and adds what the plan says of the network: for a pipeline the
one-way delays around the ring, for llama-rpc one round trip to each worker, and the time to put the bytes on the
slowest link of each way. It neglects headers, TCP's windows and waiting, so what is left is what these cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median
from typing import Any

import numpy as np

from isl_emu.parts.finished_run import FinishedRun, Row
from isl_emu.parts.split.start import METER, PASSES
from isl_emu.routing.paths import NodePath
from isl_emu.runs.journal import REQUESTS_JOURNAL
from isl_emu.scenario.split import Split
from isl_emu.tables.planned_paths import PlannedPaths
from isl_emu.tables.schema import COUNT, NS, PATH, TEXT, TIMES, column, schema
from isl_emu.tables.text import INDENT, counted, facts, table, three_digits, time_text, wrapped
from isl_emu.units import NS_PER_S

SPLIT = schema(
    column("head", TEXT, "", "satellite that answers for the split model"),
    column("engine", TEXT, "", "pipeline or llama-rpc"),
    column("satellites", PATH, "", "the model's satellites in the order of their layers, the head first"),
    column("kind", TEXT, "", "prompt or token: a pass around a pipeline; answer: means of its passes by llama-rpc"),
    column("t_ns", NS, "ns", "when it began"),
    column("tokens", COUNT, "tokens", "how many the pass carried; of an answer, how many passes it had"),
    column("loop_ns", NS, "ns", "from the beginning of the pass until the next token was chosen"),
    column("compute_ns", TIMES, "ns", "what each satellite computed; of an answer the processor time of a pass"),
    column("hop_ns", TIMES, "ns", "of a pipeline: from leaving each satellite until the next one took it up"),
    column("planned_hop_ns", TIMES, "ns", "planned delay of each hop, thrice for several tokens; RTT of each worker"),
    column("hop_byte", TIMES, "bytes", "activations on each hop; or payload of TCP to and from each worker"),
    column("predicted_ns", NS, "ns", "compute, planned delay and time to send hop_byte at the shaped rates"),
)


# Activations of one token travel with the frame for which the receiver waits; those of several wait for its consent.
JOURNEYS_OF_ONE, JOURNEYS_OF_MANY = 1, 3


def split_rows(run: FinishedRun) -> list[Row]:
    """The rows of all split models, by the time of their beginning, from the journals of a run."""
    scenario, paths, t0_ns = run.scenario, run.paths, run.t0_ns
    passes, requests = run.journal(PASSES).records, run.journal(REQUESTS_JOURNAL).records
    samples_of: dict[str, list[Row]] = {}
    for record in run.journal(METER).records:
        samples_of.setdefault(record["satellite"], []).append(record)
    meters = {
        name: RpcMeter(
            np.array([sample["t_ns"] - t0_ns for sample in samples]),
            np.array([sample["cpu_ns"] for sample in samples]),
            {peer: np.array([sum(sample["peers"][peer]) for sample in samples]) for peer in samples[0]["peers"]},
        )
        for name, samples in samples_of.items()
    }
    rows: list[Row] = []
    for split in scenario.split:
        members = split.members(scenario.satellite_names)
        if split.engine == "pipeline":
            rows += [_pass_row(members, record, paths, t0_ns) for record in passes if record["head"] == members[0]]
        else:
            for request in requests:  # means of its tokens after the first
                tokens, predict_ns = request.get("answer_tokens") or 0, request.get("server_predict_ns")
                answered = request["satellite"] == members[0] and request["outcome"] == "completed"
                if answered and tokens > 1 and predict_ns:
                    rows.append(_answer_row(split, members, request, tokens - 1, meters, paths))
    return sorted(rows, key=lambda row: row["t_ns"])


def _pass_row(members: Sequence[str], record: Mapping[str, Any], paths: PlannedPaths, t0_ns: int) -> Row:
    """A pass around a pipeline's ring: times are begin, leave, come, leave, ..., come, chosen."""
    times_ns = record["times_ns"]
    t_ns, tokens = times_ns[0] - t0_ns, record["tokens"]
    spans_ns = [later - earlier for earlier, later in pairwise(times_ns)]
    *computed_ns, choosing_ns = spans_ns[0::2]
    computed_ns[0] += choosing_ns
    k, hops = paths.instant(t_ns), list(zip(members, [*members[1:], members[0]], strict=True))
    planned = [paths.at(*hop, k) for hop in hops]
    journeys = JOURNEYS_OF_ONE if tokens == 1 else JOURNEYS_OF_MANY
    delays_ns = [None if path is None else journeys * path.delay_ns for path in planned]
    carried_byte = [record["activation_byte"]] * len(hops)
    return {
        "head": members[0],
        "engine": "pipeline",
        "satellites": list(members),
        "kind": "prompt" if record["number"] == 0 else "token",
        "t_ns": t_ns,
        "tokens": tokens,
        "loop_ns": times_ns[-1] - times_ns[0],
        "compute_ns": computed_ns,
        "hop_ns": spans_ns[1::2],
        "planned_hop_ns": delays_ns,
        "hop_byte": carried_byte,
        "predicted_ns": _predicted_ns(computed_ns, delays_ns, carried_byte, planned, paths, k),
    }


@dataclass(frozen=True)
class RpcMeter:
    """What a satellite's process had computed and carried by certain times (ns since instant 0).

    Args:
        carried_byte: to and from each peer.
    """

    times_ns: np.ndarray
    cpu_ns: np.ndarray
    carried_byte: Mapping[str, np.ndarray]

    def grown(self, counts: np.ndarray, from_ns: int, to_ns: int) -> float:
        """By how much one of its counts grew in that time, in straight lines between the samples."""
        before, after = np.interp([from_ns, to_ns], self.times_ns, counts)
        return float(after - before)


def _answer_row(
    split: Split,
    members: Sequence[str],
    request: Mapping[str, Any],
    passes: int,
    meters: Mapping[str, RpcMeter],
    paths: PlannedPaths,
) -> Row:
    """The means of an answer's passes; with several conversations at once, work and bytes are not known of one."""
    head, *workers = members
    to_ns = request["t_finish_ns"]
    from_ns = to_ns - request["server_predict_ns"]
    k = paths.instant(from_ns)
    ways = [(paths.at(head, worker, k), paths.at(worker, head, k)) for worker in workers]
    delays_ns = [there.delay_ns + back.delay_ns if there and back else None for there, back in ways]
    row = {
        "head": head,
        "engine": "llama-rpc",
        "satellites": list(members),
        "kind": "answer",
        "t_ns": from_ns,
        "tokens": passes,
        "loop_ns": request["server_predict_ns"] // passes,
        "hop_ns": None,
        "planned_hop_ns": delays_ns,
    }
    if split.conversations > 1 or not all(name in meters for name in members):
        return {**row, "compute_ns": None, "hop_byte": None, "predicted_ns": None}
    share = min(split.cpus, 1.0) * passes  # a part of a core takes longer for the same work
    computed_ns = [
        round(meter.grown(meter.cpu_ns, from_ns, to_ns) / share) for meter in (meters[name] for name in members)
    ]
    own = meters[head]
    carried_byte = [round(own.grown(own.carried_byte[name], from_ns, to_ns) / passes) for name in workers]
    backs = [back for _, back in ways]
    predicted_ns = _predicted_ns(computed_ns, delays_ns, carried_byte, backs, paths, k)
    return {**row, "compute_ns": computed_ns, "hop_byte": carried_byte, "predicted_ns": predicted_ns}


def _predicted_ns(
    computed_ns: Sequence[int],
    delays_ns: Sequence[int | None],
    carried_byte: Sequence[int],
    planned: Sequence[NodePath | None],
    paths: PlannedPaths,
    k: int,
) -> int | None:
    """None where the plan has no way."""
    total_ns = sum(computed_ns)
    for path, delay_ns, byte in zip(planned, delays_ns, carried_byte, strict=True):
        if path is None or delay_ns is None:
            return None
        total_ns += delay_ns + paths.sending_ns(path, k, byte)
    return total_ns


Rows = Sequence[Mapping[str, Any]]


SPLIT_HEADER = ("head", "engine", "satellites", "tokens/s", "predicted", "a token", "computing", "network", "bytes")


def split_section(rows: Rows) -> Iterator[str]:
    yield "SPLIT MODELS  (one token through all satellites; predicted: computing as measured, network as planned)"
    heads = rows_by_head(rows)
    if lines := [split_line(own) for own in heads.values() if token_rows(own)]:
        yield from table(SPLIT_HEADER, lines, left=2)
    for own in heads.values():
        yield from wrapped(INDENT, hop_facts(own))


def rows_by_head(rows: Rows) -> dict[str, Rows]:
    """The rows of each split model, by the satellite that answers for it."""
    return {head: [row for row in rows if row["head"] == head] for head in dict.fromkeys(row["head"] for row in rows)}


def token_rows(rows: Rows) -> Rows:
    """The rows of single tokens: a prompt is another thing."""
    return [row for row in rows if row["kind"] != "prompt"]


def split_line(rows: Rows) -> tuple[str, ...]:
    """What `SPLIT_HEADER` names, of one split model."""
    tokens = token_rows(rows)
    loop_ns, predicted_ns = _mean(tokens, "loop_ns"), _mean(tokens, "predicted_ns")
    computed_ns, carried_byte = _mean(tokens, "compute_ns"), _mean(tokens, "hop_byte")
    assert loop_ns is not None, "every row has it"
    return (
        tokens[0]["head"],
        tokens[0]["engine"],
        str(len(tokens[0]["satellites"])),
        three_digits(NS_PER_S / loop_ns),
        "-" if predicted_ns is None else three_digits(NS_PER_S / predicted_ns),
        time_text(loop_ns),
        time_text(computed_ns),
        time_text(None if computed_ns is None else loop_ns - computed_ns),
        "-" if carried_byte is None else f"{carried_byte:,.0f}",
    )


def _mean(rows: Rows, key: str) -> float | None:
    """Of a column over all tokens, or of the sums of a column of lists; an answer's row stands for many tokens."""
    known = [(row[key], row["tokens"]) for row in rows if row[key] is not None]
    if not known:
        return None
    total: float = sum((sum(value) if isinstance(value, list) else value) * weight for value, weight in known)
    tokens: int = sum(weight for _, weight in known)
    return total / tokens


def hop_facts(rows: Rows) -> str:
    """The ring's hops, or the workers, each with its delay as planned and as measured."""
    members, tokens = rows[0]["satellites"], token_rows(rows)
    if rows[0]["engine"] != "pipeline":
        ways = [f"{members[0]} and back to {worker}" for worker in members[1:]]
        return facts(*(f"{way} {_planned(tokens, hop)} planned" for hop, way in enumerate(ways)))
    ways = [f"{before} to {after}" for before, after in zip(members, [*members[1:], members[0]], strict=True)]
    taken = [time_text(median(row["hop_ns"][hop] for row in tokens)) if tokens else "-" for hop in range(len(ways))]
    hops = [f"{way} {taken[hop]}, {_planned(tokens, hop)} planned" for hop, way in enumerate(ways)]
    prompts = [row["loop_ns"] for row in rows if row["kind"] == "prompt"]
    return facts(*hops, f"{counted(len(prompts), 'prompt')}, {time_text(median(prompts))} each" if prompts else None)


def _planned(rows: Rows, hop: int) -> str:
    known = [row["planned_hop_ns"][hop] for row in rows if row["planned_hop_ns"][hop] is not None]
    return time_text(fmean(known)) if known else "-"
