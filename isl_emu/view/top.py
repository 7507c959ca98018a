"""`isl-emu top`: how a run stands, as one page of a terminal, by the same events as the page of a browser."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from isl_emu.results.link_load import rate_text
from isl_emu.results.report import printable
from isl_emu.tables.text import share, time_text
from isl_emu.units import NS_PER_S
from isl_emu.view.board import Board, board_of
from isl_emu.view.events import events_of
from isl_emu.view.live import LiveEvents
from isl_emu.view.sky import Sky

LOOK_S = 0.5  # of the wall, between two looks at a live run
ROWS = 8  # of each table
WIDTH = 130  # of a page that goes to a file or a pipe
STYLES = {"live": "green", "paused": "yellow", "building": "cyan", "ended": "bold"}


def top(sky: Sky, *, once: bool) -> None:
    """Show how a run stands until it is over, or once; on anything but a terminal once."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    if sky.kind != "live":
        console.print(page(board_of(sky, events_of(sky.planned, sky.concluded))))
        return
    live, board = LiveEvents(sky), Board.of(sky)
    while _take(live, board):  # all that there is already
        pass
    if once or not console.is_terminal:
        console.print(page(board))
        return
    with Live(page(board), console=console, screen=True, auto_refresh=False) as screen:
        while not live.gone:
            _take(live, board)
            screen.update(page(board, console.height), refresh=True)
            time.sleep(LOOK_S)
    console.print(page(board))


def _take(live: LiveEvents, board: Board) -> bool:
    """Take in what is new; whether anything was but the time."""
    events = live.poll()
    for event in events:
        board.take(event)
    board.now_s, board.state = max(board.now_s, live.now_s), live.state
    return any(event["type"] not in ("clock", "verdict") for event in events)


def page(board: Board, height: int | None = None) -> RenderableType:
    """What a board says; of a terminal with few lines, the first rows of each table.

    Args:
        height: lines of the terminal; None for as many as it takes.
    """
    rows = ROWS if height is None else max((height - 16) // 4, 1)
    blocks = [_head(board), _links(board, rows), _questions(board, rows), _servers(board, rows), _faults(board, rows)]
    return Group(*(part for block in blocks if block is not None for part in (block, Text())))


def _head(board: Board) -> RenderableType:
    text = Text.assemble(
        (_plain(board.title).plain, "bold"),
        "  ",
        (board.state, STYLES.get(board.state, "")),
        f"  t = {board.now_s:.1f} s of {board.duration_s:g} s",
    )
    if board.rate:
        text.append(f"  {board.rate:.3g} s in a second here")
    if board.lateness_ms is not None:
        text.append(f"  last change {board.lateness_ms:.3g} ms late")
    text.append(f"\n{board.nodes} nodes, {len(board.up)} of {board.links} links up")
    if board.verdict:
        text.append(f"\n{_plain(board.verdict).plain}", "green" if board.valid else "red")
    return text


def _links(board: Board, rows: int) -> RenderableType:
    """The busiest directions of links, and beside them what went down last."""
    busy = sorted(board.busy.items(), key=lambda one: (-one[1][0], one[0]))[:rows]
    down = sorted(board.went_down.items(), key=lambda one: (-one[1], one[0]))[:rows]
    left = _table("busiest links", 3, right=(1, 2))
    for (a, b), (ratio, bit_s) in busy:
        left.add_row(f"{a} → {b}", rate_text(bit_s), "< 0.1%" if 0 < ratio < 0.001 else share(ratio))
    right = _table(f"went down ({len(board.went_down)})", 2, right=(1,))
    for (a, b), t_s in down:
        right.add_row(f"{a} - {b}", f"at {t_s:.1f} s")
    return _beside(left, right)


def _questions(board: Board, rows: int) -> RenderableType | None:
    if not board.questions:
        return None
    counts = board.questions
    title = (
        f"questions: {counts['asked']} sent, {len(board.open)} open, {counts['done']} done, {counts['failed']} failed"
    )
    table = _table(title, 5, right=(2, 3))
    for event in list(board.latest)[-rows:][::-1]:
        how = event["outcome"] if event["phase"] == "failed" else "done"
        waits = ("TTFT", event.get("ttft_s")), ("E2E", event.get("e2e_s"))
        told = [f"{name} {time_text(value * NS_PER_S)}" if value else "" for name, value in waits]
        table.add_row(f"{event['id']}  {event['from']} → {event['to']}", _plain(how), *told, _short(event.get("text")))
    return table


def _servers(board: Board, rows: int) -> RenderableType | None:
    if not board.servers:
        return None
    table = _table(f"servers: state and queue, as last heard ({len(board.servers)})", 3, right=(2,))
    first = sorted(board.servers.items(), key=lambda one: (-(one[1][1] or 0), one[0]))[:rows]
    for node, (state, queue) in first:
        table.add_row(_plain(node), _plain(state), "" if queue is None else f"{queue:g}")
    return table


def _faults(board: Board, rows: int) -> RenderableType | None:
    if not board.faults:
        return None
    table = _table(f"faults in force ({len(board.faults)})", 3, right=(2,))
    for event in sorted(board.faults.values(), key=lambda one: -one["t_s"])[:rows]:
        place = ", ".join([*(" - ".join(ends) for ends in event["links"][:2]), *event["nodes"]])
        by_hand = event["what"] if not event["intervention"] else "by hand"
        table.add_row(_plain(f"{by_hand}: {event['how']}"), _plain(place), f"since {event['t_s']:.1f} s")
    return table


def _table(title: str, columns: int, right: tuple[int, ...] = ()) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, show_header=False)
    for number in range(columns):
        table.add_column(justify="right" if number in right else "left", no_wrap=True, overflow="ellipsis")
    return table


def _beside(left: Table, right: Table) -> Table:
    both = Table.grid(padding=(0, 6))
    both.add_row(left, right)
    return both


def _plain(text: Any) -> Text:
    """Text that others wrote: no markup, and nothing that moves a terminal's cursor."""
    return Text(printable(" ".join(str(text or "").split())))


def _short(text: Any) -> Text:
    told = _plain(text)
    told.truncate(60, overflow="ellipsis")
    return told
