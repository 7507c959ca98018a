"""The tables of questions, of the attempts to have them answered, and of polls."""

from __future__ import annotations

from isl_emu.tables.schema import COUNT, FLAG, NS, PATH, RATIO, TEXT, TIMES, column, schema

FAILURES = ("unreachable", "path_lost", "timed_out", "refused", "unavailable", "failed")  # of a question

REQUESTS = schema(
    column("id", COUNT, "", "number of the planned request, in order of its due time"),
    column("station", TEXT, "", "ground station that asks"),
    column("satellite", TEXT, "", "satellite whose model server is asked; null when none was reachable"),
    column("server", TEXT, "", "its server: real, throttled, modelled, external or split; null when none was asked"),
    column("question", TEXT, "", "what was asked"),
    column("answer", TEXT, "", "what came back, as far as it came"),
    column("outcome", TEXT, "", f"completed, {', '.join(FAILURES)} or unfinished"),
    column("error", TEXT, "", "one sentence when the outcome is not completed"),
    column("t_due_ns", NS, "ns", "when the arrival process wanted it sent"),
    column("t_send_ns", NS, "ns", "when it was sent"),
    column("t_last_send_ns", NS, "ns", "when the attempt that counts, the last one, was sent"),
    column("t_first_ns", NS, "ns", "when the first token of the answer arrived"),
    column("t_finish_ns", NS, "ns", "when it ended, whatever the outcome"),
    column("attempts", COUNT, "attempts", "how often it was sent"),
    column("ttft_ns", NS, "ns", "TTFT, time to first token: t_first - t_send"),
    column("itl_ns", TIMES, "ns", "ITL, inter-token latencies: the gaps between consecutive tokens"),
    column("tpot_ns", NS, "ns", "TPOT, time per output token: (e2e - ttft) / (answer_tokens - 1)"),
    column("e2e_ns", NS, "ns", "E2E request latency: t_finish - t_send"),
    column("prompt_tokens", COUNT, "tokens", "length of the prompt, as the server counted it"),
    column("answer_tokens", COUNT, "tokens", "length of the answer"),
    column("server_prompt_ns", NS, "ns", "the server's own time for the prompt"),
    column("server_predict_ns", NS, "ns", "the server's own time for the answer"),
    column("network_ns", NS, "ns", "e2e - server_prompt - server_predict: network, and waiting for the server"),
    column("network_ratio", RATIO, "ratio", "network_ns / e2e_ns"),
    column("deadline_met", FLAG, "", "completed, and e2e within the scenario's deadline"),
    column("slo_met", FLAG, "", "completed, and within all service levels of the scenario; null if it has none"),
    column("path_at_send", PATH, "", "planned path from station to satellite at t_last_send, node names"),
    column("path_at_finish", PATH, "", "the same when it ended"),
    column("hops_at_send", COUNT, "links", "links on path_at_send"),
    column("hops_at_finish", COUNT, "links", "links on path_at_finish"),
    column("planned_rtt_at_send_ns", NS, "ns", "planned propagation delay there and back at t_last_send"),
    column("handovers", COUNT, "changes", "how often the planned path changed between t_last_send and t_finish"),
    column("handover_itl_ns", TIMES, "ns", "those of itl_ns during which the path back changed"),
    column("sent_byte", NS, "byte", "IP packets sent by the station, by TCP's own counts, all attempts"),
    column("received_byte", NS, "byte", "IP packets that came to the station"),
    column("laser_byte", NS, "byte", "both, each times the lasers on its path"),
    column("satellites_answering", RATIO, "satellites", "mean number that answered meanwhile, itself included"),
)

ATTEMPTS = schema(
    column("id", COUNT, "", "number of the request"),
    column("attempt", COUNT, "", "1 for the first"),
    column("station", TEXT, "", "ground station that asks"),
    column("satellite", TEXT, "", "satellite that is asked; null when none that serves was reachable"),
    column("t_send_ns", NS, "ns", "when it was sent"),
    column("t_first_ns", NS, "ns", "when the first token arrived"),
    column("t_finish_ns", NS, "ns", "when it ended, whatever the outcome"),
    column("outcome", TEXT, "", "as of a request"),
    column("error", TEXT, "", "one sentence when the outcome is not completed"),
    column("answer_tokens", COUNT, "tokens", "how many came"),
    column("sent_byte", NS, "byte", "IP packets sent by the station, by TCP's own counts"),
    column("received_byte", NS, "byte", "IP packets that came to the station"),
    column("laser_byte", NS, "byte", "both, each times the lasers on its path"),
)

POLLS = schema(
    column("station", TEXT, "", "ground station that asks for the length of a queue"),
    column("satellite", TEXT, "", "satellite whose server is asked"),
    column("t_send_ns", NS, "ns", "when it was sent; negative before the start"),
    column("rtt_ns", NS, "ns", "until the answer was there; null when none came, or one without a queue"),
    column("queue", RATIO, "requests", "requests that the server works on or keeps waiting"),
    column("sent_byte", NS, "byte", "IP packets sent by the station, by TCP's own counts"),
    column("received_byte", NS, "byte", "IP packets that came to the station"),
)
