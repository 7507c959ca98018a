"""The figures of a run's questions and answers, by the names and definitions of the field.

Latencies are those of completed answers. Rates count over the window from the first question sent to the last answer
completed, so the time in which nobody asks yet or any more is not held against a run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from isl_emu.parts.finished_run import FinishedRun
from isl_emu.parts.questions.asking import POLLS_JOURNAL
from isl_emu.parts.serving.prefix_cache import BLOCK_TOKENS
from isl_emu.runs.journal import REQUESTS_JOURNAL
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.questions import Questions
from isl_emu.tables.text import Distribution
from isl_emu.units import NS_PER_S

MLPERF = {"poisson": "Server", "single-stream": "SingleStream", "offline": "Offline"}

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Rates:
    """What was served in a time; every figure is None when nothing was.

    Args:
        window_ns: from the first question sent to the last answer completed.
        goodput_per_s: completed answers within all service levels; None too if the scenario has none.
    """

    window_ns: int | None = None
    requests_per_s: float | None = None
    output_tokens_per_s: float | None = None
    goodput_per_s: float | None = None

    @classmethod
    def of(cls, requests: Rows) -> Rates:
        """Those of some requests."""
        done = completed(requests)
        if not done:
            return cls()
        window_ns = max(row["t_finish_ns"] for row in done) - min(row["t_send_ns"] for row in done)
        good = [row["slo_met"] for row in done if row["slo_met"] is not None]

        def per_s(count: int) -> float:
            return float(round(count * NS_PER_S / window_ns, 6))

        tokens = sum(row["answer_tokens"] or 0 for row in done)
        return cls(window_ns, per_s(len(done)), per_s(tokens), per_s(sum(good)) if good else None)


@dataclass(frozen=True)
class Concurrency:
    """How many closed-loop users there were, and how many by Little's law, over the window in which they asked.

    All questions that were sent count, answered or not: their users waited for them.

    Args:
        window_ns: from the first question sent to the last that ended.
        in_flight: mean number of users who waited for an answer.
        questions_per_s: that were sent in the window.
        wait_ns: mean time until a question ended. think_ns: mean time of thinking before one; 0 before a user's first.
        by_littles_law: questions_per_s x (wait + think): the number of users, as far as all of them asked from the
            window's beginning to its end.
    """

    users: int
    window_ns: int
    in_flight: float
    questions_per_s: float
    wait_ns: float
    think_ns: float
    by_littles_law: float

    @classmethod
    def of(cls, requests: Rows) -> Concurrency | None:
        """That of some requests; None without any of such users."""
        sent = [row for row in requests if row.get("user") is not None and row["t_send_ns"] is not None]
        window_ns = max((row["t_finish_ns"] for row in sent), default=0) - min(
            (row["t_send_ns"] for row in sent), default=0
        )
        if window_ns <= 0:
            return None
        waited_ns = sum(row["t_finish_ns"] - row["t_send_ns"] for row in sent)
        thought_ns = sum(row["think_ns"] or 0 for row in sent)
        return cls(
            users=len({row["user"] for row in sent}),
            window_ns=window_ns,
            in_flight=waited_ns / window_ns,
            questions_per_s=len(sent) * NS_PER_S / window_ns,
            wait_ns=waited_ns / len(sent),
            think_ns=thought_ns / len(sent),
            by_littles_law=(waited_ns + thought_ns) / window_ns,
        )


@dataclass(frozen=True)
class PromptTokens:
    """What servers read of the prompts of completed answers, as far as they told how much of it they had still known.

    Args:
        requests: whose servers told that.
        tokens: of their prompts, templates included; `cached` were known, and `computed` the rest.
    """

    requests: int
    tokens: int
    cached: int
    computed: int

    @classmethod
    def of(cls, requests: Rows) -> PromptTokens | None:
        """That of some requests; None if no server told it."""
        told = [row for row in completed(requests) if None not in (row.get("prompt_tokens"), row.get("cached_tokens"))]
        if not told:
            return None
        tokens, cached = _total(told, "prompt_tokens"), _total(told, "cached_tokens")
        return cls(len(told), tokens, cached, tokens - cached)


@dataclass(frozen=True)
class Contexts:
    """What became of conversations whose next turn another satellite answered.

    Args:
        changes: how many such turns were answered.
        moved: in how many the context came from the satellite before; `lost` in how many it was to and was computed
            again, for a satellite may know as much already.
        moved_tokens, recomputed_tokens: of the prompts of the turns before, what came and what was computed again.
        moved_byte: size of what came. move_ns: how long servers waited for each.
    """

    changes: int
    moved: int
    lost: int
    moved_tokens: int
    recomputed_tokens: int
    moved_byte: int
    move_ns: Distribution

    @classmethod
    def of(cls, requests: Rows) -> Contexts | None:
        """That of some requests; None where no conversation went on elsewhere."""
        changed = [row for row in completed(requests) if row.get("context_from") is not None]
        if not changed:
            return None
        came = [row for row in changed if row["moved_tokens"]]
        return cls(
            changes=len(changed),
            moved=len(came),
            lost=sum(row["moved_tokens"] == 0 and (row["recomputed_tokens"] or 0) >= BLOCK_TOKENS for row in changed),
            moved_tokens=_total(came, "moved_tokens"),
            recomputed_tokens=_total(changed, "recomputed_tokens"),
            moved_byte=_total(came, "moved_byte"),
            move_ns=Distribution.of(row["move_ns"] for row in came),
        )


def measured(requests: Rows) -> list[Mapping[str, Any]]:
    """The requests that figures are of: those due after the warm-up, if there is one."""
    return [row for row in requests if not row.get("warm_up")]


def completed(requests: Rows) -> list[Mapping[str, Any]]:
    """The requests that were answered whole."""
    return [row for row in requests if row["outcome"] == "completed"]


def serving_figures(requests: Rows, polls: Rows, questions: Questions) -> dict[str, Any]:
    """What serving.json holds; `docs/serving.md` describes it.

    Args:
        requests: rows of requests.parquet. polls: those of polls.parquet, if there were any.
    """
    asked, requests = len(requests), measured(requests)
    done = completed(requests)
    concurrency, contexts = Concurrency.of(requests), Contexts.of(requests)
    return {
        "arrivals": {"kind": questions.arrivals, "mlperf_scenario": MLPERF.get(questions.arrivals)},
        "target": questions.target,
        "requests": len(requests),
        "warm_up": {"limit_ns": questions.warm_up_ns, "requests": asked - len(requests)},
        "outcomes": dict(Counter(row["outcome"] for row in requests)),
        "attempts": sum(row["attempts"] or 0 for row in requests),
        "asked_again": sum((row["attempts"] or 0) > 1 for row in requests),
        "deadline": {"limit_ns": questions.deadline_ns, "met": sum(bool(row["deadline_met"]) for row in requests)},
        "slo": questions.slo and {**dict(questions.slo), "met": sum(bool(row["slo_met"]) for row in requests)},
        "rates": asdict(Rates.of(requests)),
        **({"concurrency": asdict(concurrency)} if concurrency else {}),
        "prompt_tokens": _prompt_tokens(requests),
        **({"contexts": asdict(contexts)} if contexts else {}),
        **_latencies(done),
        "send_lateness_ns": _spread(  # of sending after its due time: the emulator's own doing
            None if row["t_send_ns"] is None else row["t_send_ns"] - row["t_due_ns"] for row in requests
        ),
        "bytes": {
            "sent": _total(requests, "sent_byte"),
            "received": _total(requests, "received_byte"),
            "on_lasers": _total(requests, "laser_byte"),
            "polls_sent": _total(polls, "sent_byte"),
            "polls_received": _total(polls, "received_byte"),
        },
        "polls": {
            "sent": len(polls),
            "unanswered": sum(row["rtt_ns"] is None for row in polls),
            "rtt_ns": _spread(row["rtt_ns"] for row in polls),
        },
        "stations": _by(grouped(requests, lambda row: row["station"])),
        "satellites": _by(grouped(requests, lambda row: row["satellite"])),
    }


def read_serving_figures(run: FinishedRun) -> dict[str, Any]:
    """The figures of a run with questions, by its tables."""
    assert run.scenario.questions is not None
    requests = run.rows(REQUESTS_JOURNAL)
    figures = serving_figures(requests, run.rows(POLLS_JOURNAL), run.scenario.questions)
    return {**figures, "groups": _by(by_group(measured(requests), run.scenario))}


def by_group(requests: Rows, scenario: Scenario) -> dict[str, list[Mapping[str, Any]]]:
    """Requests by the number of the scenario's `compute` that their satellite is of; those of none are left out."""

    def group(row: Mapping[str, Any]) -> str | None:
        found = scenario.compute_of(row["satellite"]) if row["satellite"] else None
        return None if found is None else str(scenario.compute.index(found))

    return grouped(requests, group)


def grouped(requests: Rows, name: Callable[[Mapping[str, Any]], str | None]) -> dict[str, list[Mapping[str, Any]]]:
    """Requests by their names, in the order of these; those without one are left out."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in requests:
        if (found := name(row)) is not None:
            groups.setdefault(found, []).append(row)
    return dict(sorted(groups.items()))


def slices(requests: Rows, questions: Questions) -> list[dict[str, Any]]:
    """Figures of each slice of time in which a question was due or an answer completed, in order; see `SLICES`."""
    length_ns = questions.slice_ns
    if length_ns is None:
        return []
    due: dict[int, list[Mapping[str, Any]]] = {}
    ended: dict[int, list[Mapping[str, Any]]] = {}
    for row in requests:
        due.setdefault(row["t_due_ns"] // length_ns, []).append(row)
    for row in completed(requests):
        ended.setdefault(row["t_finish_ns"] // length_ns, []).append(row)
    found = []
    for number in sorted(due.keys() | ended.keys()):
        own, answers = due.get(number, []), ended.get(number, [])
        done, tokens = completed(own), _total(answers, "answer_tokens")
        ttft, e2e = (Distribution.of(row[key] for row in done) for key in ("ttft_ns", "e2e_ns"))
        good = [row["slo_met"] for row in answers if row["slo_met"] is not None]
        found.append({
            "t_ns": number * length_ns,
            "t_end_ns": (number + 1) * length_ns,
            "warm_up": number * length_ns < questions.warm_up_ns,
            "requests": len(own),
            "completed": len(done),
            "deadline_met": sum(bool(row["deadline_met"]) for row in own),
            **{f"ttft_{name}_ns": getattr(ttft, name) for name in ("p50", "p99")},
            **{f"e2e_{name}_ns": getattr(e2e, name) for name in ("p50", "p99")},
            "answers": len(answers),
            "output_tokens_per_s": tokens * NS_PER_S / length_ns,
            "goodput_per_s": sum(good) * NS_PER_S / length_ns if good or questions.slo else None,
        })  # fmt: skip
    return found


def _latencies(done: Rows) -> dict[str, Any]:
    gaps = [gap for row in done for gap in row["itl_ns"] or ()]
    at_handover = [gap for row in done for gap in row["handover_itl_ns"] or ()]
    return {
        "ttft_ns": _spread(row["ttft_ns"] for row in done),
        "itl_ns": _spread(gaps),
        "itl_at_handover_ns": _spread(at_handover),
        "tpot_ns": _spread(row["tpot_ns"] for row in done),
        "e2e_ns": _spread(row["e2e_ns"] for row in done),
        "network_ns": _spread(row["network_ns"] for row in done),
        "network_ratio": _spread(row["network_ratio"] for row in done),
        "hops": _spread(row["hops_at_send"] for row in done),
        "handovers": _spread(row["handovers"] for row in done),
    }


def _by(groups: Mapping[str, Rows]) -> dict[str, Any]:
    """The main figures of each station, satellite or group of servers."""
    found = {}
    for name, rows in groups.items():
        done = completed(rows)
        found[name] = {
            "requests": len(rows),
            "completed": len(done),
            "deadline_met": sum(bool(row["deadline_met"]) for row in rows),
            "prompt_tokens": _prompt_tokens(rows),
            "answer_tokens": _total(done, "answer_tokens"),
            "ttft_ns": _spread(row["ttft_ns"] for row in done),
            "e2e_ns": _spread(row["e2e_ns"] for row in done),
        }
    return found


def _prompt_tokens(requests: Rows) -> dict[str, int] | None:
    found = PromptTokens.of(requests)
    return None if found is None else asdict(found)


def _total(rows: Rows, key: str) -> int:
    return sum(row[key] or 0 for row in rows)


def _spread(values: Iterable[float | None]) -> dict[str, Any]:
    return asdict(Distribution.of(values))
