"""How the summary writes numbers, and how it fills its lines; percentiles, as the field reports them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from isl_emu.units import DURATION_NS, NS_PER_S, format_quantity


@dataclass(frozen=True)
class Distribution:
    """How one quantity is spread; every figure is None when there are no values: a gap stays a gap.

    Percentiles interpolate linearly between the closest values (numpy's default, Hyndman and Fan's type 7).
    """

    count: int
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    max: float | None

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Distribution:
        """The distribution of `values`; those that are None are left out."""
        known = np.array([value for value in values if value is not None], dtype=np.float64)
        if not known.size:
            return cls(0, None, None, None, None, None)
        return cls(known.size, *(round(float(figure), 3) for figure in np.percentile(known, (50, 90, 95, 99, 100))))


WIDTH = 100
INDENT = "  "
_UNBROKEN = "\u00a0"  # a space at which no line is broken; written as a plain one


def time_text(value_ns: float | None) -> str:
    """A time with three digits in the unit that suits it; "-" where there is none."""
    if value_ns is None:
        return "-"
    for size_ns, unit in ((NS_PER_S, "s"), (1_000_000, "ms")):
        if abs(value_ns) >= 0.9995 * size_ns:
            return f"{three_digits(value_ns / size_ns)} {unit}"
    return f"{value_ns / 1000:.0f} us"


def three_digits(value: float) -> str:
    """A number with three digits that count."""
    return f"{value:.2f}" if abs(value) < 9.995 else f"{value:.1f}" if abs(value) < 99.95 else f"{value:.0f}"


def share(ratio: float | None) -> str:
    """A ratio as per cent."""
    return "-" if ratio is None else f"{ratio:.0%}" if ratio >= 0.1 or ratio == 0 else f"{ratio:.1%}"


def wall_text(seconds: float) -> str:
    """A long time by the clock on the wall, as people say it: "14 min", "3.2 h"."""
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:,.1f} h"


def counted(number: int, noun: str) -> str:
    """A number of things."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def times(values: Iterable[float | None]) -> tuple[str, str, str, str]:
    """The median, 90th, 95th and 99th percentile of times."""
    spread = Distribution.of(values)
    return time_text(spread.p50), time_text(spread.p90), time_text(spread.p95), time_text(spread.p99)


def shares(values: Iterable[float | None]) -> tuple[str, str, str, str]:
    """The median, 90th, 95th and 99th percentile of ratios."""
    spread = Distribution.of(values)
    return share(spread.p50), share(spread.p90), share(spread.p95), share(spread.p99)


def size_text(size_byte: float) -> str:
    """A number of bytes with three digits in the unit that suits it."""
    for unit_byte, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size_byte >= 0.9995 * unit_byte:
            return f"{three_digits(size_byte / unit_byte)} {unit}"
    return f"{size_byte:.0f} B"


def wrapped(prefix: str, text: str) -> list[str]:
    """Lines of at most `WIDTH`, the first after `prefix`, the others below its end."""
    lines = textwrap.wrap(
        text, WIDTH, break_on_hyphens=False, initial_indent=prefix, subsequent_indent=" " * len(prefix)
    )
    return [line.replace(_UNBROKEN, " ") for line in lines]


def facts(*known: str | None) -> str:
    """Facts that are not None, as one text that only breaks between them."""
    return " · ".join(fact.replace(" ", _UNBROKEN) for fact in known if fact)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> Iterator[str]:
    """Aligned columns: the first `left` ones to the left, the others to the right; an empty header is left out."""
    shown = [header, *rows] if any(header) else rows
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        cells = [cell.ljust(width) for cell, width in zip(row[:left], widths, strict=False)]
        cells += [cell.rjust(width) for cell, width in zip(row[left:], widths[left:], strict=True)]
        yield INDENT + "  ".join(cells)


def beyond(what: str, found_ns: float, limit_ns: int, remedy: str) -> str:
    """The sentence on a time that is beyond its limit."""
    limit = format_quantity(limit_ns, DURATION_NS)
    return f"{what} is {time_text(found_ns)}, but at most {limit} is allowed; {remedy}"
