"""A real server held to the pace of a slower computer: which share of a core decodes as fast as that would.

Decoding takes so much CPU time a token, whoever else uses the machine. That is measured before the run, and a quota of
the wanted pace times that lets the server have just this pace: it computes whenever it may.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException

from isl_emu.errors import WorkloadError
from isl_emu.nodes.containers import Container
from isl_emu.nodes.namespaces import enter_network, in_own_thread
from isl_emu.runs.ports import MODEL_PORT
from isl_emu.units import NS_PER_S

PROMPT = "Count from one to one hundred in words."
FEW_TOKENS, MANY_TOKENS = 8, 56  # answers that differ only in length: the prompt's time is in both
SPAN_S = 2.0  # of the answer that checks the pace; the scheduler's period is 0.1 s
ROUNDS = 2
TIMEOUT_S = 300.0
MS_PER_S = 1000


@dataclass(frozen=True)
class Throttle:
    """A share of a core, and what was measured; paces in the machine's time.

    Args:
        native_tokens_s: decoding pace with the whole share.
        got_tokens_s: the same with `cpus`; None if the whole share is too slow.
    """

    cpus: float
    native_tokens_s: float
    got_tokens_s: float | None


def throttle(container: Container, wanted_tokens_s: float, most_cpus: float) -> Throttle:
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
        return Throttle(most_cpus, native, None)
    container.set_cpus(cpus)
    tokens = max(FEW_TOKENS, min(MANY_TOKENS, round(wanted_tokens_s * SPAN_S)))
    return Throttle(cpus, native, in_own_thread(_decode, container, tokens))


def cpu_s_per_token(container: Container) -> float:
    """The CPU time that a container's server takes to decode a token: the least of some, the least disturbed."""
    in_own_thread(_decode, container, FEW_TOKENS)  # the first answer touches the weights
    spent_ns = [_spent_ns(container, MANY_TOKENS) - _spent_ns(container, FEW_TOKENS) for _ in range(ROUNDS)]
    return min(spent_ns) / (MANY_TOKENS - FEW_TOKENS) / NS_PER_S


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
        return timings["predicted_n"] * MS_PER_S / timings["predicted_ms"]
    except (OSError, HTTPException, ValueError, KeyError) as error:
        raise WorkloadError(
            f"model server on {container.name}: did not answer when its pace was measured ({error}), but it must; "
            "see its log in the journal"
        ) from error
    finally:
        connection.close()
