"""The table of split models."""

from __future__ import annotations

from isl_emu.tables.schema import COUNT, NS, PATH, TEXT, TIMES, column, schema

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
