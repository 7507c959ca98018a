from __future__ import annotations

from pathlib import Path

from isl_emu.parts.serving.modelled_state import ModelledState


def test_both_sides_see_what_the_other_writes(tmp_path: Path) -> None:
    servers = ModelledState.create(tmp_path / "state", ["p00s00", "a-shell-with-a-long-name-p00s01"])
    governor = ModelledState.open(tmp_path / "state")
    assert governor.names == ("p00s00", "a-shell-with-a-long-name-p00s01")
    assert governor.pace_ratio.tolist() == [1.0, 1.0]
    governor.pace_ratio[1] = 0.25
    servers.busy_ns[0] += 7
    servers.tokens[:] += 1
    assert servers.pace_ratio.tolist() == [1.0, 0.25]
    assert (governor.busy_ns.tolist(), governor.tokens.tolist()) == ([7, 0], [1, 1])


def test_there_may_be_none(tmp_path: Path) -> None:
    assert ModelledState.create(tmp_path / "state", []).names == ()
