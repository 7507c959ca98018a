"""The table of model servers."""

from __future__ import annotations

from isl_emu.tables.schema import COUNT, RATIO, TEXT, column, schema

SERVERS = schema(
    column("group", COUNT, "", "number of the group in the scenario's compute"),
    column("server", TEXT, "", "kind of its servers: real, throttled, modelled or external"),
    column("satellites", COUNT, "satellites", "how many are in it"),
    column("model", TEXT, "", "what they serve: a file's name, a modelled model, or where an external one is"),
    column("board", TEXT, "", "the computer that they stand for; null when the scenario names none"),
    column("decode_tokens_s", RATIO, "tokens/s", "wanted decoding pace of one answer; null when it is its own"),
    column("paced_as", TEXT, "", "whose pace that is: a model on a board, or a stated rate; null when it is its own"),
    column("native_tokens_s", RATIO, "tokens/s", "decoding pace here with a whole core; null when not measured"),
    column("got_tokens_s", RATIO, "tokens/s", "decoding pace before the run with `cpus`; null when not measured"),
    column("cpus", RATIO, "CPUs", "share of a core that each server gets at the scenario's pace; null without any"),
)
