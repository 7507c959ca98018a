"""What a user sees while isl-emu works: one line for each step done, and a live line for the one under way."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

Report = Callable[[float, str], None]  # how much is done (0..1), and what is happening
_PLAIN_INTERVAL_S = 10.0
_REDRAWS_PER_S = 2.0  # drawing takes time from a guest kernel's only CPU


class Screen(Console):
    """rich's console; when nobody reads it any more that is a BrokenPipeError, and no end of the process."""

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


class Steps:
    """Steps on a terminal (live bar), or as plain lines where the output is a file or a pipe.

    Args:
        console: where they are shown.
        wall_s: the time of the user's clock, for who works in a guest whose own time is virtual.
    """

    def __init__(self, console: Console, wall_s: Callable[[], float] = time.monotonic):
        self._console, self.wall_s = console, wall_s

    @property
    def quiet(self) -> bool:
        """Whether nothing is shown at all."""
        return self._console.quiet

    def note(self, text: str) -> None:
        """One line that stays."""
        self._print(escape(text))

    def show(self, summary: Text) -> None:
        """A longer text that stays."""
        self._console.print(summary, soft_wrap=True)

    @contextmanager
    def step(self, text: str) -> Iterator[Report]:
        """Show `text` while the block runs, then how long it took; the block may report how far it is."""
        begun = self.wall_s()
        show = self._bar if self._console.is_terminal else self._lines
        with show(text) as report:
            yield report
        self._print(f"[green]✓[/] {text} [dim]{self.wall_s() - begun:.1f} s[/]")

    def _print(self, markup: str) -> None:
        self._console.print(markup, highlight=False, soft_wrap=True)

    @contextmanager
    def _bar(self, text: str) -> Iterator[Report]:
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(30),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}"),
        )
        alive = self.wall_s is time.monotonic  # else pauses between drawings would be virtual, a hundred in a second
        bars = Progress(
            *columns,
            console=self._console,
            transient=True,
            refresh_per_second=_REDRAWS_PER_S,
            auto_refresh=alive,
            get_time=self.wall_s,
        )
        with bars:
            task, drawn = bars.add_task(text, total=None, detail=""), self.wall_s()

            def report(done: float, detail: str) -> None:
                nonlocal drawn
                now = self.wall_s()
                due = not alive and now - drawn >= 1 / _REDRAWS_PER_S
                drawn = now if due else drawn
                bars.update(task, total=1.0, completed=done, detail=detail, refresh=due)

            yield report

    @contextmanager
    def _lines(self, text: str) -> Iterator[Report]:
        self._print(f"  {text} ...")
        last = self.wall_s()

        def report(done: float, detail: str) -> None:
            nonlocal last
            if self.wall_s() - last >= _PLAIN_INTERVAL_S:
                last = self.wall_s()
                self._print(f"  {text}: {done:.0%}, {detail}")

        yield report
