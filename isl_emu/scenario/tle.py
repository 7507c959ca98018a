"""Two-line element sets: their form, checksums, names and epochs. The elements in them are read by `geometry`.

Source: T. S. Kelso, Frequently asked questions: two-line element set format, CelesTrak.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

LINE_LENGTH = 69
OTHERS = ("{", "[", "<", "OBJECT_NAME,", "CCSDS_OMM_VERS")  # how JSON, XML, HTML, CSV and KVN begin
NUMBER = re.compile(r"\.\d")  # names of satellites hold at most one
UNSEEN = dict.fromkeys(map(ord, "\ufeff\u200b\u200c\u200d\u2060"))  # marks of no width
EPOCH = re.compile(r"[ \d]\d[ \d]{2}\d\.[\d ]{8}")
ELEMENT_COLUMNS = {  # of the second line, from 0
    "inclination": slice(8, 16),
    "right ascension": slice(17, 25),
    "argument of perigee": slice(34, 42),
    "mean anomaly": slice(43, 51),
    "mean motion": slice(52, 63),
}
EPHEMERIS_TYPE, SGP4_TYPES = 62, " 0123"  # of the first line; SGP, SGP4 and SDP4 are all read as SGP4 since 1980
ECCENTRICITY = slice(26, 33)  # after an implied decimal point


@dataclass(frozen=True)
class NamedTle:
    """One entry of a TLE file: the name on the line before it, or "" without one, and its two lines."""

    name: str
    lines: tuple[str, str]


def read_tles(text: str) -> list[NamedTle]:
    """All entries of a TLE file, with or without name lines; blank lines and lines that begin with "#" or ";" are
    skipped.

    Blanks of any kind count as blanks, also before a line; whatever follows the 69th column after a space is not part
    of the format, and left out. Every other line belongs to an entry, or the file is refused.

    Raises:
        ValueError: a line is out of place, damaged or fails its checksum; it names the line's number.
    """
    if text.lstrip("\ufeff \r\n").startswith(OTHERS):
        raise ValueError(
            f"begins with {text.strip()[:24]!r}, but TLEs are lines of text; name elements in JSON, XML, CSV or KVN by "
            "omm, and fetch a page that is none again"
        )
    lines = list(_content(text))
    promised = (
        re.fullmatch(r"(\d+) +(\d+)", lines[0][1]) if len(lines) > 1 else None
    )  # Hypatia's heading: planes, slots
    entries, first = [], ""
    name: tuple[int, str] | None = None
    for number, line in lines[1:] if promised else lines:
        try:
            if first:
                entries.append(NamedTle(name[1] if name else "", _checked(first, line)))
                name, first = None, ""
            elif line.startswith("1 ") and not _is_name(line):
                first = _standard(line)
            elif line.startswith("2 ") and not _is_name(line):
                raise ValueError("is a second line of a TLE, but no first line comes before it; add or remove one")
            elif not _is_name(line):
                raise ValueError(f"is {line[:24]!r}..., but a line of elements begins with '1 ' or '2 '; copy it whole")
            elif name:
                found = f"follows the name {name[1]!r} of line {name[0]}, but after a name come its lines of elements"
                raise ValueError(f"{found}; add them, or remove the name")
            else:
                name = number, line.removeprefix("0 ").strip()
        except ValueError as error:
            raise ValueError(f"line {number} {error}") from None
    if first:
        raise ValueError("the last line is the first of a TLE, but its second is missing; complete the file")
    if not entries:
        said = f" but {name[1][:60]!r}" if name else ""
        raise ValueError(
            f"there is no TLE in it{said}, but at least one is needed; fetch it again, or name another file"
        )
    if name:
        raise ValueError(f"line {name[0]} is the name {name[1]!r}, but no lines of elements follow; add or remove them")
    if promised and len(entries) != int(promised[1]) * int(promised[2]):
        raise ValueError(
            f"has {len(entries)} TLEs, but begins with {promised[0]!r} (planes and slots); complete the file"
        )
    return entries


def check_tle(lines: Sequence[str]) -> None:
    """Raise ValueError unless `lines` are the two lines of one TLE, with right checksums."""
    first, second = lines
    for number, line in enumerate(lines, start=1):
        if len(line) != LINE_LENGTH:
            raise ValueError(f"has a TLE line {number} of {len(line)} characters, but it has 69; copy it whole")
    _checked(first, second)


def catalogue_number(lines: Sequence[str]) -> str:
    """The five characters of a TLE's satellite number (letters occur, for numbers above 99,999)."""
    return lines[0][2:7].strip()


def tle_epoch(lines: Sequence[str]) -> datetime:
    """When the elements of a TLE hold, UTC, to the microsecond; two digits of the year are those of 1957 to 2056."""
    year, day = int(lines[0][18:20]), float(lines[0][20:32].replace(" ", "0"))
    return datetime(2000 + year if year < 57 else 1900 + year, 1, 1, tzinfo=timezone.utc) + timedelta(days=day - 1)


def _content(text: str) -> Iterator[tuple[int, str]]:
    """The lines that matter, each with its number in the file; blanks of any kind are spaces."""
    for number, line in enumerate(text.splitlines(), start=1):
        plain = re.sub(r"\s", " ", line.translate(UNSEEN)).strip()
        if plain and not plain.startswith(("#", ";")):
            yield number, plain


def _is_name(line: str) -> bool:
    """Whether a line can be the name of a satellite: it has no two numbers with decimals, as lines of elements have."""
    return len(NUMBER.findall(line)) < 2 and len(line) < LINE_LENGTH - 1


def _standard(line: str) -> str:
    """The 69 characters of a line of elements whose checksum is right."""
    if len(line) < LINE_LENGTH or line[LINE_LENGTH : LINE_LENGTH + 1].strip():
        raise ValueError(f"has {len(line)} characters, but a line of a TLE has 69; copy it whole")
    line = line[:LINE_LENGTH]
    expected = sum(int(char) if char.isdigit() else char == "-" for char in line[:-1]) % 10
    if line[-1] != str(expected):
        raise ValueError(f"ends in checksum {line[-1]!r}, but its characters add up to {expected}; copy it again")
    return line


def _checked(first: str, second: str) -> tuple[str, str]:
    """Both lines, once they are known to be of one satellite."""
    if not first.startswith("1 "):
        raise ValueError(f"begins with {first[:2]!r}, but the first line of a TLE begins with '1 '; put them in order")
    if not second.startswith("2 "):
        raise ValueError(
            f"begins with {second[:2]!r}, but the second line of a TLE begins with '2 '; put them in order"
        )
    first, second = _standard(first), _standard(second)
    if first[2:7] != second[2:7]:
        raise ValueError(f"is of satellite {second[2:7]}, but the line before is of {first[2:7]}; pair them rightly")
    if not EPOCH.fullmatch(first[18:32]):
        raise ValueError(f"follows an epoch {first[18:32]!r}, but one is YYDDD.DDDDDDDD; copy the TLE again")
    if first[EPHEMERIS_TYPE] not in SGP4_TYPES:
        raise ValueError(
            f"follows a first line of ephemeris type {first[EPHEMERIS_TYPE]!r} (column 63), but SGP4's are 0, and 4 is "
            "for SGP4-XP, whose elements lead it kilometres astray; fetch elements for SGP4"
        )
    if not second[ECCENTRICITY].replace(" ", "0").isdigit():
        raise ValueError(f"has the eccentricity {second[ECCENTRICITY]!r}, but it is seven digits; copy it again")
    for what, columns in ELEMENT_COLUMNS.items():
        try:
            float(second[columns])
        except ValueError:
            raise ValueError(f"has the {what} {second[columns]!r}, but it is a number; copy it again") from None
    return first, second
