"""The tables of a run's results: their columns, each with its unit and meaning.

The unit and description of a column travel inside the Parquet file, as metadata of its field (keys `unit` and
`description`); `docs/results.md` shows the same texts to users, and a test keeps the two equal.
"""

from __future__ import annotations

import pyarrow as pa

RESULTS_FORMAT = "2"  # raised when a column changes its meaning or disappears
LOST_LINES = b"journal_lines_lost"  # schema metadata: lines of the journal that were torn by a kill
PROBE_PAYLOAD_BYTE = 16
PROBE_FRAME_BYTE = 14 + 20 + 8 + PROBE_PAYLOAD_BYTE  # Ethernet, IPv4 and UDP headers before the payload

FAILURES = ("unreachable", "path_lost", "timed_out", "refused", "unavailable", "failed")  # of a question

_TEXT = pa.string()
_COUNT = pa.int32()
_NS = pa.int64()
_RATIO = pa.float64()
_REAL = pa.float64()
_FLAG = pa.bool_()
_TIMES = pa.list_(pa.field("element", pa.int64()))
_NAME = pa.dictionary(pa.int32(), pa.string())  # few different values in very many rows
_PATH = pa.list_(pa.field("element", pa.string()))  # "element" is what Parquet calls it


def _field(name: str, kind: pa.DataType, unit: str, description: str) -> pa.Field:
    return pa.field(name, kind, metadata={"unit": unit, "description": description})


def _schema(*fields: pa.Field) -> pa.Schema:
    return pa.schema(fields, metadata={"isl_emu_results_format": RESULTS_FORMAT})


REQUESTS = _schema(
    _field("id", _COUNT, "", "number of the planned request, in order of its due time"),
    _field("station", _TEXT, "", "ground station that asks"),
    _field("satellite", _TEXT, "", "satellite whose model server is asked; null when none was reachable"),
    _field("server", _TEXT, "", "its server: real, throttled, modelled, external or split; null when none was asked"),
    _field("question", _TEXT, "", "what was asked"),
    _field("answer", _TEXT, "", "what came back, as far as it came"),
    _field("outcome", _TEXT, "", f"completed, {', '.join(FAILURES)} or unfinished"),
    _field("error", _TEXT, "", "one sentence when the outcome is not completed"),
    _field("t_due_ns", _NS, "ns", "when the arrival process wanted it sent"),
    _field("t_send_ns", _NS, "ns", "when it was sent"),
    _field("t_last_send_ns", _NS, "ns", "when the attempt that counts, the last one, was sent"),
    _field("t_first_ns", _NS, "ns", "when the first token of the answer arrived"),
    _field("t_finish_ns", _NS, "ns", "when it ended, whatever the outcome"),
    _field("attempts", _COUNT, "attempts", "how often it was sent"),
    _field("ttft_ns", _NS, "ns", "TTFT, time to first token: t_first - t_send"),
    _field("itl_ns", _TIMES, "ns", "ITL, inter-token latencies: the gaps between consecutive tokens"),
    _field("tpot_ns", _NS, "ns", "TPOT, time per output token: (e2e - ttft) / (answer_tokens - 1)"),
    _field("e2e_ns", _NS, "ns", "E2E request latency: t_finish - t_send"),
    _field("prompt_tokens", _COUNT, "tokens", "length of the prompt, as the server counted it"),
    _field("answer_tokens", _COUNT, "tokens", "length of the answer"),
    _field("server_prompt_ns", _NS, "ns", "the server's own time for the prompt"),
    _field("server_predict_ns", _NS, "ns", "the server's own time for the answer"),
    _field("network_ns", _NS, "ns", "e2e - server_prompt - server_predict: network, and waiting for the server"),
    _field("network_ratio", _RATIO, "ratio", "network_ns / e2e_ns"),
    _field("deadline_met", _FLAG, "", "completed, and e2e within the scenario's deadline"),
    _field("slo_met", _FLAG, "", "completed, and within all service levels of the scenario; null if it has none"),
    _field("path_at_send", _PATH, "", "planned path from station to satellite at t_last_send, node names"),
    _field("path_at_finish", _PATH, "", "the same when it ended"),
    _field("hops_at_send", _COUNT, "links", "links on path_at_send"),
    _field("hops_at_finish", _COUNT, "links", "links on path_at_finish"),
    _field("planned_rtt_at_send_ns", _NS, "ns", "planned propagation delay there and back at t_last_send"),
    _field("handovers", _COUNT, "changes", "how often the planned path changed between t_last_send and t_finish"),
    _field("handover_itl_ns", _TIMES, "ns", "those of itl_ns during which the path back changed"),
    _field("sent_byte", _NS, "byte", "IP packets sent by the station, by TCP's own counts, all attempts"),
    _field("received_byte", _NS, "byte", "IP packets that came to the station"),
    _field("laser_byte", _NS, "byte", "both, each times the lasers on its path"),
    _field("satellites_answering", _RATIO, "satellites", "mean number that answered meanwhile, itself included"),
)

ATTEMPTS = _schema(
    _field("id", _COUNT, "", "number of the request"),
    _field("attempt", _COUNT, "", "1 for the first"),
    _field("station", _TEXT, "", "ground station that asks"),
    _field("satellite", _TEXT, "", "satellite that is asked; null when none that serves was reachable"),
    _field("t_send_ns", _NS, "ns", "when it was sent"),
    _field("t_first_ns", _NS, "ns", "when the first token arrived"),
    _field("t_finish_ns", _NS, "ns", "when it ended, whatever the outcome"),
    _field("outcome", _TEXT, "", "as of a request"),
    _field("error", _TEXT, "", "one sentence when the outcome is not completed"),
    _field("answer_tokens", _COUNT, "tokens", "how many came"),
    _field("sent_byte", _NS, "byte", "IP packets sent by the station, by TCP's own counts"),
    _field("received_byte", _NS, "byte", "IP packets that came to the station"),
    _field("laser_byte", _NS, "byte", "both, each times the lasers on its path"),
)

POLLS = _schema(
    _field("station", _TEXT, "", "ground station that asks for the length of a queue"),
    _field("satellite", _TEXT, "", "satellite whose server is asked"),
    _field("t_send_ns", _NS, "ns", "when it was sent; negative before the start"),
    _field("rtt_ns", _NS, "ns", "until the answer was there; null when none came, or one without a queue"),
    _field("queue", _RATIO, "requests", "requests that the server works on or keeps waiting"),
    _field("sent_byte", _NS, "byte", "IP packets sent by the station, by TCP's own counts"),
    _field("received_byte", _NS, "byte", "IP packets that came to the station"),
)

PROBES = _schema(
    _field("a", _TEXT, "", "node that sends the probe"),
    _field("b", _TEXT, "", "node that receives it"),
    _field("seq", _COUNT, "", "number of the probe within its direction"),
    _field("t_send_ns", _NS, "ns", "when the first link got it"),
    _field("delay_ns", _NS, "ns", "measured one-way delay; null when lost (it did not arrive within 3 s)"),
    _field("hops_seen", _COUNT, "links", "links that it crossed, by its TTL"),
    _field("path", _PATH, "", "planned path from a to b when it was sent, node names; null when there was none"),
    _field("hops", _COUNT, "links", "links on path"),
    _field("hops_least", _COUNT, "links", "the fewest on any path that the probe may take (several by ecmp)"),
    _field("hops_most", _COUNT, "links", "the most"),
    _field("planned_delay_ns", _NS, "ns", "planned propagation delay of path when it was sent"),
    _field("planned_delay_most_ns", _NS, "ns", "the same of the longest path that the probe may take (ecmp)"),
    _field("planned_serialisation_ns", _NS, "ns", "time to put the probe on all links of path, at the shaped rates"),
    _field("error_ns", _NS, "ns", "delay - planned_delay - planned_serialisation; by ecmp 0 up to the longest path"),
    _field("straddles_change", _FLAG, "", "a change of its path was due or being applied while it was on its way"),
)

INSTANTS = _schema(
    _field("k", _COUNT, "", "number of the instant"),
    _field("t_planned_ns", _NS, "ns", "when its state was due"),
    _field("t_begun_ns", _NS, "ns", "when the first change was sent to the kernel; negative before the start"),
    _field("t_done_ns", _NS, "ns", "when the last change was in force"),
    _field("lateness_ns", _NS, "ns", "t_done - t_planned; 0 when it was early, as the first one is"),
    _field("links", _COUNT, "changes", "link ends that were changed"),
    _field("routes", _COUNT, "changes", "routes that were changed"),
    _field("mismatches", _COUNT, "", "settings that the kernel did not hold as planned when read back"),
)

CHANGES = _schema(
    _field("k", _COUNT, "", "number of the instant"),
    _field("t_planned_ns", _NS, "ns", "when the change was due"),
    _field("t_applied_ns", _NS, "ns", "when the kernel had it"),
    _field("lateness_ns", _NS, "ns", "t_applied - t_planned; 0 when it was early"),
    _field("link", _COUNT, "", "number of the link in the plan"),
    _field("node", _NAME, "", "node at this end of the link; the state is that of sending from here"),
    _field("peer", _NAME, "", "node at the other end"),
    _field("up", _FLAG, "", "the link carries packets"),
    _field("planned_delay_ns", _NS, "ns", "one-way propagation delay of the plan"),
    _field("set_delay_ns", _NS, "ns", "delay given to the kernel: planned, less what the kernel adds by itself"),
    _field("rate_bit_s", _NS, "bit/s", "rate given to the kernel: the physical rate times rate_scale"),
    _field("limit_packets", _COUNT, "packets", "queue limit given to the kernel: in flight plus waiting"),
    _field("loss_ratio", _RATIO, "ratio", "share of packets that the kernel drops at random; 1 when the link is down"),
)

LOAD = _schema(
    _field("t_ns", _NS, "ns", "end of the second that the row describes"),
    _field("cpus", _COUNT, "CPUs", "CPUs of the kernel that ran the network"),
    _field("busy_ratio", _RATIO, "ratio", "share of CPU time that was not idle"),
    _field("steal_ratio", _RATIO, "ratio", "share of CPU time that a hypervisor took"),
    _field("pressure_ratio", _RATIO, "ratio", "share of time some process waited for a CPU; null if not known"),
    _field("wakeup_lateness_ns", _NS, "ns", "how late the sampler itself woke up"),
)

SERVERS = _schema(
    _field("group", _COUNT, "", "number of the group in the scenario's compute"),
    _field("server", _TEXT, "", "kind of its servers: real, throttled, modelled or external"),
    _field("satellites", _COUNT, "satellites", "how many are in it"),
    _field("model", _TEXT, "", "what they serve: a file's name, a modelled model, or where an external one is"),
    _field("board", _TEXT, "", "the computer that they stand for; null when the scenario names none"),
    _field("decode_tokens_s", _RATIO, "tokens/s", "wanted decoding pace of one answer; null when it is its own"),
    _field("native_tokens_s", _RATIO, "tokens/s", "decoding pace here with a whole core; null when not measured"),
    _field("got_tokens_s", _RATIO, "tokens/s", "decoding pace before the run with `cpus`; null when not measured"),
    _field("cpus", _RATIO, "CPUs", "share of a core that each server gets at the scenario's pace; null without any"),
)

OUTSIDE = _schema(
    _field("utc_ns", _NS, "ns", "end of the second that the row describes, UTC"),
    _field("guest_busy_ratio", _RATIO, "ratio", "share of time for which the guest kernel and what is in it ran"),
    _field("guest_waiting_ratio", _RATIO, "ratio", "share of time for which it could have run, but others had its CPU"),
    _field("steal_ratio", _RATIO, "ratio", "share of the machine's CPU time that a hypervisor took"),
    _field("pressure_ratio", _RATIO, "ratio", "share of time some process there waited for a CPU; null if not known"),
)

PAUSES = _schema(
    _field("t_ns", _NS, "ns", "where the emulated time stood"),
    _field("lasted_ns", _NS, "ns", "for how long, in the machine's time"),
)

SPLIT = _schema(
    _field("head", _TEXT, "", "satellite that answers for the split model"),
    _field("engine", _TEXT, "", "pipeline or llama-rpc"),
    _field("satellites", _PATH, "", "the model's satellites in the order of their layers, the head first"),
    _field("kind", _TEXT, "", "prompt or token: a pass around a pipeline; answer: means of its passes by llama-rpc"),
    _field("t_ns", _NS, "ns", "when it began"),
    _field("tokens", _COUNT, "tokens", "how many the pass carried; of an answer, how many passes it had"),
    _field("loop_ns", _NS, "ns", "from the beginning of the pass until the next token was chosen"),
    _field("compute_ns", _TIMES, "ns", "what each satellite computed; of an answer the processor time of a pass"),
    _field("hop_ns", _TIMES, "ns", "of a pipeline: from leaving each satellite until the next one took it up"),
    _field("planned_hop_ns", _TIMES, "ns", "planned delay of each hop, thrice for several tokens; RTT of each worker"),
    _field("hop_byte", _TIMES, "bytes", "activations on each hop; or payload of TCP to and from each worker"),
    _field("predicted_ns", _NS, "ns", "compute, planned delay and time to send hop_byte at the shaped rates"),
)

KV_HANDOVERS = _schema(
    _field("source", _TEXT, "", "satellite that has computed the conversation"),
    _field("target", _TEXT, "", "satellite where it goes on"),
    _field("t_due_ns", _NS, "ns", "when the handover was due"),
    _field("t_ns", _NS, "ns", "when it began; null if it never did"),
    _field("outcome", _TEXT, "", "completed, failed or unfinished"),
    _field("error", _TEXT, "", "what went wrong, unless completed"),
    _field("tokens", _COUNT, "tokens", "length of the conversation"),
    _field("prefill_ns", _NS, "ns", "the source's time to compute it"),
    _field("kv_byte", _NS, "bytes", "size of the saved cache"),
    _field("received_byte", _NS, "bytes", "what arrived at the target"),
    _field("save_ns", _NS, "ns", "time to write the cache to a file at the source"),
    _field("transfer_ns", _NS, "ns", "time to fetch the file over the network"),
    _field("restore_ns", _NS, "ns", "time to read it into the target's server"),
    _field("resume_ns", _NS, "ns", "the target's time for what was not in the cache"),
    _field("cached_tokens", _COUNT, "tokens", "how much of the conversation the target found in its cache"),
    _field("reprefill_ns", _NS, "ns", "the target's time to compute the whole conversation anew"),
    _field("same_answer", _FLAG, "", "both ways led to the same next tokens"),
)

TABLES = {
    "requests": REQUESTS,
    "attempts": ATTEMPTS,
    "probes": PROBES,
    "instants": INSTANTS,
    "changes": CHANGES,
    "load": LOAD,
}

PROGRAMS = _schema(
    _field("name", _TEXT, "", "name of the program in the scenario"),
    _field("node", _TEXT, "", "node in which it ran"),
    _field("command", _PATH, "", "what was run, word by word"),
    _field("t_start_ns", _NS, "ns", "when it was started; null if the run ended first"),
    _field("t_end_ns", _NS, "ns", "when it had ended"),
    _field("status", _COUNT, "", "its exit status, negative for a signal; null if it was never started"),
    _field("outcome", _TEXT, "", "ended, ended by isl-emu, cannot be started or not started"),
)

ENERGY = _schema(
    _field("t_ns", _NS, "ns", "end of the interval that the row describes"),
    _field("satellite", _NAME, "", "node name"),
    _field("interval_ns", _NS, "ns", "length of the interval; the powers and ratios below are means over it"),
    _field("sunlit_ratio", _RATIO, "ratio", "share of the interval outside the Earth's shadow"),
    _field("solar_w", _REAL, "W", "what the panel could give"),
    _field("board_w", _REAL, "W", "what the computer drew"),
    _field("battery_w", _REAL, "W", "into the battery, at its terminals; negative when it gave"),
    _field("unmet_w", _REAL, "W", "what bus and computer wanted, but panel and battery could not give"),
    _field("busy_ratio", _RATIO, "ratio", "share of its full work that the computer did"),
    _field("pace_ratio", _RATIO, "ratio", "share of its full pace that the computer was allowed"),
    _field("limited_ratio", _RATIO, "ratio", "share of the interval in which its pace was below 1 or it was off"),
    _field("off_ratio", _RATIO, "ratio", "share of the interval in which the computer was off"),
    _field("charge_ratio", _RATIO, "ratio", "state of charge of the battery at the end of the interval"),
    _field("temperature_k", _REAL, "K", "temperature of the satellite at the end of the interval"),
    _field("mode", _NAME, "", "from then on: nominal, power-limited, heat-limited or off"),
)

TRAINING = _schema(
    _field("job", _TEXT, "", "name of the training in the scenario"),
    _field("gradients", _TEXT, "", "real, or modelled: bytes of the right number after a stated computing time"),
    _field("collective", _TEXT, "", "how the sum was formed: ring, tree or hierarchical"),
    _field("step", _COUNT, "", "number of the synchronisation, from 0; it occurs again if it had to be repeated"),
    _field("outcome", _TEXT, "", "completed, handed-over, lost, interrupted, stopped or unfinished"),
    _field("local_steps", _COUNT, "", "steps that each satellite took by itself since the synchronisation before"),
    _field("ring", _COUNT, "", "number of the ring; raised whenever its lines are made anew"),
    _field("participants", _PATH, "", "satellites that took part, in the order of the ring"),
    _field("lost", _PATH, "", "those among them that could not be reached afterwards"),
    _field("t_start_ns", _NS, "ns", "when the first participant began to compute; null if none came to the end"),
    _field("t_end_ns", _NS, "ns", "when the last participant had the sum, or when the step was given up"),
    _field("compute_ns", _TIMES, "ns", "of each participant: its computing; null if it did not come to the end"),
    _field("communication_ns", _TIMES, "ns", "of each participant: the wait from its computing until it had the sum"),
    _field("sent_byte", _TIMES, "byte", "of each participant: sent for the sum, without headers and repetitions"),
    _field("received_byte", _TIMES, "byte", "of each participant: received for the sum"),
    _field("theory_byte", _NS, "byte", "what each has to send, in the mean; in a ring 2 (n - 1) / n x size"),
    _field("collective_ns", _NS, "ns", "from the last participant's end of computing until all had the sum"),
    _field("predicted_ns", _NS, "ns", "the least for that: propagation and serialisation on the planned paths"),
    _field("handed_over_byte", _NS, "byte", "weights that participants took over from another before the step"),
    _field("tokens", _NS, "tokens", "trained on by all participants; 0 unless completed"),
    _field("loss", _RATIO, "", "training loss, mean of the participants; null if the gradients are modelled"),
)

TRANSFERS = _schema(
    _field("source", _TEXT, "", "node that sends"),
    _field("destination", _TEXT, "", "satellite that receives"),
    _field("kind", _TEXT, "", "uplink from a station; ring, tree or swarm between satellites"),
    _field("t_start_ns", _NS, "ns", "when it asked for the first bytes"),
    _field("t_end_ns", _NS, "ns", "when it ended, whatever the outcome"),
    _field("resumed_from_byte", _NS, "byte", "how much of the file the destination had before"),
    _field("received_byte", _NS, "byte", "how much of the file came, without headers"),
    _field("goodput_bit_s", _NS, "bit/s", "received_byte over the time of the attempt"),
    _field("outcome", _TEXT, "", "completed, stalled, moved_on, corrupt, broken, refused, unreachable or unfinished"),
    _field("error", _TEXT, "", "one sentence when there is something to say"),
    _field("digest_ok", _FLAG, "", "no piece had another SHA-256 than it must; null if nothing came"),
    _field("tries", _COUNT, "attempts", "this one, and those in vain since the last from the same source"),
    _field("path_at_start", _PATH, "", "planned path when it began, node names; null when there was none"),
    _field("hops_at_start", _COUNT, "links", "links on path_at_start"),
    _field("handovers", _COUNT, "changes", "how often the planned path changed meanwhile"),
    _field("contacts", _COUNT, "contacts", "contacts of the station that it used; null between satellites"),
    _field("capacity_byte", _NS, "byte", "what the slowest link of the planned path could carry meanwhile"),
)

DELIVERIES = _schema(
    _field("satellite", _TEXT, "", "satellite that was to get the file"),
    _field("kind", _TEXT, "", "how: uplink, ring, tree or swarm"),
    _field("size_byte", _NS, "byte", "size of the file"),
    _field("received_byte", _NS, "byte", "how much came, with what was refused"),
    _field("contacts", _COUNT, "contacts", "contacts of the stations that it used; null for the others"),
    _field("t_planned_ns", _NS, "ns", "when the planned rates alone would have had it up; null for the others"),
    _field("t_held_ns", _NS, "ns", "when all of it was there and verified"),
    _field("t_serving_ns", _NS, "ns", "when the satellite's model server was healthy"),
    _field("error", _TEXT, "", "why it does not serve at the end of the run"),
)

# Tables that only some runs have, and that are more than the lines of a journal.
DERIVED = {"transfers": TRANSFERS, "deliveries": DELIVERIES, "split": SPLIT}

# Tables whose rows are the lines of the journal of the same name, as they are: each where the run has such a journal.
JOURNALLED = {
    "energy": ENERGY,
    "kv_handovers": KV_HANDOVERS,
    "outside": OUTSIDE,
    "pauses": PAUSES,
    "polls": POLLS,
    "programs": PROGRAMS,
    "servers": SERVERS,
    "training": TRAINING,
}
