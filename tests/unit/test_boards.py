"""The catalogue of boards: every figure has a source, and the numbers are of one kind."""

from __future__ import annotations

from dataclasses import fields

import pytest

from isl_emu.errors import ScenarioError
from isl_emu.scenario.boards import BOARDS, Board, board_named
from isl_emu.scenario.parse import parse_scenario
from tests.scenarios import SMALL

FIGURES = {field.name for field in fields(Board)} - {"name", "description", "origins"}


@pytest.mark.parametrize("board", BOARDS.values(), ids=lambda board: board.name)
def test_every_figure_has_a_source_and_is_possible(board: Board) -> None:
    assert set(board.origins) == FIGURES
    assert all(origin.source for origin in board.origins.values())
    ratios = (*board.eta.values(), board.eta_c, board.batch_ratio)
    assert set(board.eta) == {4, 8, 16} and all(0 < ratio <= 1 for ratio in ratios)
    assert 0 < board.idle_w < board.busy_w
    assert 0 < board.fp16_flop_s < board.int8_ops_s
    assert isinstance(board.t0_ns, int) and board.t0_ns > 0
    assert board.memory_bandwidth_byte_s > 1e9 and board.memory_byte > 1e9


def test_press_totals_of_2035_are_those_of_its_satellites() -> None:
    a_percent = 0.01
    assert 2400 * board_named("inference-2035").fp16_flop_s == pytest.approx(100_000e15, rel=a_percent)
    assert 400 * board_named("training-2035").fp16_flop_s == pytest.approx(1_000_000e15, rel=a_percent)


def test_an_unknown_board_is_named_with_the_nearest() -> None:
    with pytest.raises(ScenarioError, match=r"board is 'jetson-orin', but the boards are .*; did you mean jetson-"):
        parse_scenario(SMALL + '[compute]\nboard = "jetson-orin"\n', "small")
