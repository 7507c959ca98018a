"""The tables that every run has, and those on the machine and on pauses."""

from __future__ import annotations

from isl_emu.tables.schema import COUNT, FLAG, NAME, NS, RATIO, column, schema

INSTANTS = schema(
    column("k", COUNT, "", "number of the instant"),
    column("t_planned_ns", NS, "ns", "when its state was due"),
    column("t_begun_ns", NS, "ns", "when the first change was sent to the kernel; negative before the start"),
    column("t_done_ns", NS, "ns", "when the last change was in force"),
    column("lateness_ns", NS, "ns", "t_done - t_planned; 0 when it was early, as the first one is"),
    column("links", COUNT, "changes", "link ends that were changed"),
    column("routes", COUNT, "changes", "routes that were changed"),
    column("mismatches", COUNT, "", "settings that the kernel did not hold as planned when read back"),
)

CHANGES = schema(
    column("k", COUNT, "", "number of the instant"),
    column("t_planned_ns", NS, "ns", "when the change was due"),
    column("t_applied_ns", NS, "ns", "when the kernel had it"),
    column("lateness_ns", NS, "ns", "t_applied - t_planned; 0 when it was early"),
    column("link", COUNT, "", "number of the link in the plan"),
    column("node", NAME, "", "node at this end of the link; the state is that of sending from here"),
    column("peer", NAME, "", "node at the other end"),
    column("up", FLAG, "", "the link carries packets"),
    column("planned_delay_ns", NS, "ns", "one-way propagation delay of the plan"),
    column("set_delay_ns", NS, "ns", "delay given to the kernel: planned, less what the kernel adds by itself"),
    column("rate_bit_s", NS, "bit/s", "rate given to the kernel: the physical rate times rate_scale"),
    column("limit_packets", COUNT, "packets", "queue limit given to the kernel: in flight plus waiting"),
    column("loss_ratio", RATIO, "ratio", "share of packets that the kernel drops at random; 1 when the link is down"),
)

LOAD = schema(
    column("t_ns", NS, "ns", "end of the second that the row describes"),
    column("cpus", COUNT, "CPUs", "CPUs of the kernel that ran the network"),
    column("busy_ratio", RATIO, "ratio", "share of CPU time that was not idle"),
    column("steal_ratio", RATIO, "ratio", "share of CPU time that a hypervisor took"),
    column("pressure_ratio", RATIO, "ratio", "share of time some process waited for a CPU; null if not known"),
    column("wakeup_lateness_ns", NS, "ns", "how late the sampler itself woke up"),
)

OUTSIDE = schema(
    column("utc_ns", NS, "ns", "end of the second that the row describes, UTC"),
    column("guest_busy_ratio", RATIO, "ratio", "share of time for which the guest kernel and what is in it ran"),
    column("guest_waiting_ratio", RATIO, "ratio", "share of time for which it could have run, but others had its CPU"),
    column("steal_ratio", RATIO, "ratio", "share of the machine's CPU time that a hypervisor took"),
    column("pressure_ratio", RATIO, "ratio", "share of time some process there waited for a CPU; null if not known"),
)

PAUSES = schema(
    column("t_ns", NS, "ns", "where the emulated time stood"),
    column("lasted_ns", NS, "ns", "for how long, in the machine's time"),
)

TABLES = {"instants": INSTANTS, "changes": CHANGES, "load": LOAD, "outside": OUTSIDE, "pauses": PAUSES}
