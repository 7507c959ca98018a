"""Real servers: llama.cpp's own in the satellites' containers, at the pace of this machine or a slower computer's.

In exact time, where computing takes none, their words are real and their time is that of a board: see `real_words`.

Throttled servers are held to a pace by a share of a core that decodes as fast. Decoding takes so much CPU time a token,
whoever else uses the machine. That is measured before the run, and a quota of the wanted pace times that lets the
server have just this pace: it computes whenever it may.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from statistics import median

import numpy as np

from isl_emu.errors import WorkloadError
from isl_emu.linkplan.fault_events import FaultThing
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.nodes.containers import Container
from isl_emu.nodes.namespaces import enter_network, in_own_thread
from isl_emu.parts.finished_run import FinishedRun
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.part import Need, Pace
from isl_emu.parts.serving.board_pace import wanted_tokens_s
from isl_emu.parts.serving.board_servers import pace_facts, specifications
from isl_emu.parts.serving.model_file import check_memory, estimate_memory_byte, resolve_model
from isl_emu.parts.serving.residents import enter_servers
from isl_emu.parts.serving.server_kind import Facts, PaceJudgement, ServerGroup, ServerKind, Started
from isl_emu.parts.serving.servers import serve
from isl_emu.runs.endpoints import MODEL_PORT, WORDS_PORT
from isl_emu.runs.journal import REQUESTS_JOURNAL, SERVERS_JOURNAL
from isl_emu.scenario.compute import Compute
from isl_emu.units import NS_PER_S


class RealServers(ServerKind):
    """A server has one thread, so it uses one CPU at the most."""

    key = "real"

    def needs(self, group: Compute, satellites: Sequence[str]) -> Iterable[Need]:
        model = resolve_model(group.model)
        expected_byte = min(group.memory_byte, 2 * estimate_memory_byte(model, group.context_tokens))
        return (Need(name, group.cpus, group.memory_byte, expected_byte, (model,)) for name in satellites)

    def check(self, group: Compute, place: str) -> Sequence[Path]:
        model = resolve_model(group.model)
        check_memory(model, group.context_tokens, group.memory_byte)
        return [model]

    def real_time(self, group: Compute) -> str | None:
        if group.board is None and group.decode_tokens_s is None:
            return (
                f'compute.server is "{group.server}", whose answers would take no time to compute unless board says '
                "whose time they take; add board, and pace_model if it is that of another model"
            )
        try:
            wanted_tokens_s(group)
        except WorkloadError:
            return f"compute.model: {group.model} does not say whose pace it has on {group.board}; add pace_model"
        return None

    def facts(self, group: Compute) -> Facts:
        return {"model": resolve_model(group.model).name, "cpus": group.cpus}

    def start(self, live: LiveRun, groups: Sequence[ServerGroup]) -> Started:
        loaded = []
        for group in groups:  # the servers of each, healthy in the containers that have their model
            model = resolve_model(group.compute.model)
            if group.ready:
                containers = group.containers(live)
                with live.phase("servers", f"loading {model.name} on {len(containers)} satellites") as report:
                    context_tokens, journal = group.compute.context_tokens, live.folder.journal
                    serving = serve(
                        containers, model, context_tokens, journal, report, live.exact, hit_weights(live.plan)
                    )
                    enter_servers(live, live.undo.enter_context(serving))
            loaded.append(self.facts(group.compute))
        if not live.exact:
            return Started([{**facts, **self._held(live, group)} for facts, group in zip(loaded, groups, strict=True)])
        specs = [spec for group in groups for spec in specifications(live, group, WORDS_PORT)]
        facts = [{**own, **pace_facts(group.compute)} for own, group in zip(loaded, groups, strict=True)]
        return Started(facts, specifications=specs)

    def _held(self, live: LiveRun, group: ServerGroup) -> Facts:
        """What is done in real time so that a loaded group has its pace: nothing, for it is its own."""
        return {}


PROMPT = "Count from one to one hundred in words."
FEW_TOKENS, MANY_TOKENS = 8, 56  # answers that differ only in length: the prompt's time is in both
SPAN_S = 2.0  # of the answer that checks the pace; the scheduler's period is 0.1 s
ROUNDS = 2
TIMEOUT_S = 300.0
MS_PER_S = 1000


def hit_weights(plan: LinkPlan) -> frozenset[str]:
    """The satellites in whose weights faults flip bits, so that each needs a copy to itself."""
    faults = plan.faults
    flips = np.array([effect == "flip-bits" for effect in faults.effects], bool)[faults.fault]
    hit = faults.target[flips & (faults.thing == FaultThing.SERVER)]
    return frozenset(plan.nodes.names[node] for node in hit.tolist())


class ThrottledServers(RealServers):
    """Real servers, each with so much of a core that it decodes at the wanted pace."""

    key = "throttled"

    def check(self, group: Compute, place: str) -> Sequence[Path]:
        wanted_tokens_s(group)
        return super().check(group, place)

    def _held(self, live: LiveRun, group: ServerGroup) -> Facts:
        """Measure which share of a core has the wanted pace on one satellite, and limit all of the group to it."""
        compute, containers, slowdown = group.compute, group.containers(live), live.scenario.time.slowdown
        wanted = wanted_tokens_s(compute)
        with live.phase("throttling", f"throttling {len(containers)} satellites to {wanted:.3g} tokens/s"):
            found = throttle(containers[0], wanted / slowdown, compute.cpus)
        native = found.native_tokens_s * slowdown
        if found.got_tokens_s is None:
            whose = f"as {compute.board} does" if compute.decode_tokens_s is None else "by decode_tokens_s"
            raise WorkloadError(
                f"compute.server: is throttled to {wanted:.3g} tokens/s, {whose}, but with {compute.cpus:g} of a core "
                f"this machine reaches {native:.3g} tokens/s with {resolve_model(compute.model).name}; use a modelled "
                "server, a slower board, or slow motion"
            )
        for container in containers:
            container.cpus += found.cpus - compute.cpus / slowdown  # besides what its other roles have
            container.set_cpus(container.cpus)
        measured = {"native_tokens_s": native, "got_tokens_s": found.got_tokens_s * slowdown}
        return {"cpus": found.cpus * slowdown, **pace_facts(compute), **measured}

    def pace_text(self, row: Facts) -> str:
        text = super().pace_text(row)
        return text if row["got_tokens_s"] is None else f"{text}, by {row['cpus']:.2g} of a core"

    def judge(self, run: FinishedRun, pace: Pace) -> PaceJudgement:
        ratios = list(self._ratios(run, pace))
        if not ratios:
            return PaceJudgement({"throttled_ratio": None})
        ratio, limit = median(ratios), run.scenario.fidelity.throttled_error_ratio
        reason = (
            f"throttled servers: they decoded at {ratio:.2f} times the wanted pace (median), but it may be off by "
            f"{limit:g} at the most; lower the load, or use a machine of its own"
        )
        return PaceJudgement({"throttled_ratio": ratio}, (reason,) if abs(ratio - 1.0) > limit else ())

    def pace_lines(self, figures: Facts) -> Iterator[str]:
        if figures["throttled_ratio"] is not None:
            yield f"throttled answers at {figures['throttled_ratio']:.2f} times the wanted pace (median)"

    def _ratios(self, run: FinishedRun, pace: Pace) -> Iterator[float]:
        """The decoding pace of each answer that such a server gave whole, over what was wanted of it."""
        if run.execution is not None and run.execution.clock == "exact":
            return  # nothing is throttled there
        wanted = {row["group"]: row["decode_tokens_s"] for row in run.rows(SERVERS_JOURNAL)}
        for row in run.rows(REQUESTS_JOURNAL) if wanted else ():
            spent_ns, tokens = row["server_predict_ns"], row["answer_tokens"]
            group = run.scenario.compute_of(row["satellite"]) if row["satellite"] else None
            if group is not None and group.kind == self.key and spent_ns and tokens:
                end_ns = row["t_finish_ns"]
                allowed = pace(row["satellite"], end_ns - spent_ns, end_ns)
                yield tokens * NS_PER_S / spent_ns / (wanted[run.scenario.compute.index(group)] * allowed)


@dataclass(frozen=True)
class ThrottledPace:
    """A share of a core, and what was measured; paces in the machine's time.

    Args:
        native_tokens_s: decoding pace with the whole share.
        got_tokens_s: the same with `cpus`; None if the whole share is too slow.
    """

    cpus: float
    native_tokens_s: float
    got_tokens_s: float | None


def throttle(container: Container, wanted_tokens_s: float, most_cpus: float) -> ThrottledPace:
    """Limit a container's server to a decoding pace, and measure it.

    Args:
        most_cpus: its whole share of a core.

    Raises:
        WorkloadError: the server does not answer.
    """
    container.set_cpus(most_cpus)
    cpu_s = cpu_s_per_token(container)
    cpus, native = wanted_tokens_s * cpu_s, min(most_cpus, 1.0) / cpu_s  # it decodes with one thread
    if native < wanted_tokens_s:
        return ThrottledPace(most_cpus, native, None)
    container.set_cpus(cpus)
    tokens = max(FEW_TOKENS, min(MANY_TOKENS, round(wanted_tokens_s * SPAN_S)))
    return ThrottledPace(cpus, native, in_own_thread(_decode, container, tokens))


def cpu_s_per_token(container: Container) -> float:
    """The CPU time that a container's server takes to decode a token.

    Of answers of each length the one that took least, which was disturbed least: a disturbed short one would make
    tokens cheaper than they are, down to nothing.
    """
    in_own_thread(_decode, container, FEW_TOKENS)  # the first answer touches the weights
    rounds = [(_spent_ns(container, FEW_TOKENS), _spent_ns(container, MANY_TOKENS)) for _ in range(ROUNDS)]
    few_ns, many_ns = min(few for few, _ in rounds), min(many for _, many in rounds)
    if many_ns <= few_ns:
        raise WorkloadError(
            f"model server on {container.name}: {MANY_TOKENS} tokens took no more CPU time than {FEW_TOKENS}, but its "
            "pace must be measured; give the run a machine of its own"
        )
    return (many_ns - few_ns) / (MANY_TOKENS - FEW_TOKENS) / NS_PER_S


def _spent_ns(container: Container, tokens: int) -> int:
    before_ns = container.cpu_ns()
    in_own_thread(_decode, container, tokens)
    return container.cpu_ns() - before_ns


def _decode(container: Container, tokens: int) -> float:
    """Answer with so many tokens, in a thread of its own: at which pace they came."""
    enter_network(container.netns_path)
    connection = HTTPConnection(container.address, MODEL_PORT, timeout=TIMEOUT_S)
    settings = {"max_tokens": tokens, "temperature": 0.0, "ignore_eos": True, "cache_prompt": False}
    body = json.dumps({"messages": [{"role": "user", "content": PROMPT}], **settings})
    try:
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        timings = json.loads(connection.getresponse().read())["timings"]
        return float(timings["predicted_n"] * MS_PER_S / timings["predicted_ms"])
    except (OSError, HTTPException, ValueError, KeyError) as error:
        raise WorkloadError(
            f"model server on {container.name}: did not answer when its pace was measured ({error}), but it must; "
            "see its log in the journal"
        ) from error
    finally:
        connection.close()
