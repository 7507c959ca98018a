"""Workloads that go wrong, for the tests; one that does not is in docs/examples."""

from __future__ import annotations


def broken(context) -> None:
    """Fails."""
    raise RuntimeError("this workload is broken")
