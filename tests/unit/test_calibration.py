"""What calibration takes for netem's own delay."""

from __future__ import annotations

from isl_emu.network.calibration import DELAY_NS, HOPS, _per_netem

PING_BYTE = 14 + 20 + 8 + 56  # Ethernet, IPv4, ICMP, and what ping sends by default
AT_1_GBIT_S = 8  # ns a byte


def test_a_netem_that_is_exact_has_no_bias() -> None:
    """Its serialisation of the request is planned, as that of every packet is."""
    exact_ns = DELAY_NS + PING_BYTE * AT_1_GBIT_S
    assert _per_netem({hops: (2 * hops * exact_ns,) * 4 for hops in HOPS}) == (0, 0)


def test_what_netems_and_end_points_add_is_told_apart() -> None:
    late_ns, ends_ns = 30_000, 70_000
    found = {hops: (2 * hops * (DELAY_NS + PING_BYTE * AT_1_GBIT_S + late_ns) + ends_ns,) * 4 for hops in HOPS}
    assert _per_netem(found) == (late_ns, ends_ns)
