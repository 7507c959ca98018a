"""Gossip: satellites pass a file on to each other, until all have it."""
