"""The ports on which programs of ours listen in nodes: all of them, so that no two want the same one."""

from __future__ import annotations

MODEL_PORT = 8080  # of a model server, on every satellite that serves
WORDS_PORT = 8081  # of the real server behind that one, where its words are real and the time is a board's
TRANSFER_PORT = 8090  # where nodes offer the pieces of a model on its way into orbit
FIRST_CACHE_PORT = (
    8100  # where the source of the first series of KV hand-overs offers its caches; further ones count up
)
FIRST_SPLIT_PORT = 5100  # of the first split model; further ones count up
FIRST_STORE_PORT, STORE_PORTS = 20_000, 1_000  # where real training jobs meet: this many for each
FIRST_TRAINING_PORT = 29_500  # of the first training job; the port that PyTorch's examples use
PROBE_PORT = 862  # that of simple two-way active measurement (RFC 8762), on which nobody else listens in a node
