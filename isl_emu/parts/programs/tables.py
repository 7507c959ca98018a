"""The tables of a user's programs and workloads."""

from __future__ import annotations

from isl_emu.tables.schema import COUNT, NAME, NS, PATH, TEXT, column, schema

PROGRAMS = schema(
    column("name", TEXT, "", "name of the program in the scenario"),
    column("node", TEXT, "", "node in which it ran"),
    column("command", PATH, "", "what was run, word by word"),
    column("t_start_ns", NS, "ns", "when it was started; null if the run ended first"),
    column("t_end_ns", NS, "ns", "when it had ended"),
    column("status", COUNT, "", "its exit status, negative for a signal; null if it was never started"),
    column("outcome", TEXT, "", "ended, ended by isl-emu, cannot be started or not started"),
)
PROGRAM_CPU = schema(
    column("node", NAME, "", "node whose programs and workloads computed"),
    column("t_ns", NS, "ns", "end of the interval; there is no row where they did not compute"),
    column("interval_ns", NS, "ns", "length of the interval"),
    column("cpu_ns", NS, "ns", "CPU time that they took in it, all together; in slow motion more than fits into it"),
)
