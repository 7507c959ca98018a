"""Orbit mean-elements messages (OMM) in their four forms, as tables of satellites.

Source: CCSDS 502.0-B-3, Orbit data messages; CelesTrak's and Space-Track's JSON and CSV use the same key words.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any
from xml.etree import ElementTree

FIXED = {"CENTER_NAME": "EARTH", "REF_FRAME": "TEME", "TIME_SYSTEM": "UTC", "MEAN_ELEMENT_THEORY": "SGP4"}
VERSIONS = ("1.0", "2.0", "3.0")
SGP4_TYPES = ("0", "1", "2", "3")  # of ephemeris; 4 is SGP4-XP, whose drag and radiation terms these are
XP_TERMS = ("BTERM", "AGOM")
ELEMENTS = ("MEAN_MOTION", "ECCENTRICITY", "INCLINATION", "RA_OF_ASC_NODE", "ARG_OF_PERICENTER", "MEAN_ANOMALY")


def read_omm(text: str) -> list[tuple[str, str, dict[str, Any]]]:
    """All satellites of an OMM file (XML, KVN, JSON or CSV, told apart by how it begins).

    Returns:
        For each its name and catalogue number as in the file, and its elements as a scenario's table of a satellite.

    Raises:
        ValueError: it is none of the four forms, or an entry lacks an element or is not for SGP4.
    """
    entries = _entries(text.strip().removeprefix("\ufeff"))
    if not entries:
        raise ValueError("there is no OMM in it, but at least one is needed; name another file")
    return [_table(entry, number) for number, entry in enumerate(entries, start=1)]


def _entries(text: str) -> list[dict[str, str]]:
    """The key words of every message in the file."""
    try:
        if text.startswith("<"):
            messages = [node for node in ElementTree.fromstring(text).iter() if _plain(node.tag) == "omm"]
            said = [
                {_plain(node.tag): node.text.strip() for node in message.iter() if node.text} for message in messages
            ]
            versions = [message.get("version", VERSIONS[-1]) for message in messages]
            return [{"CCSDS_OMM_VERS": version, **entry} for version, entry in zip(versions, said, strict=True)]
        if text.startswith(("[", "{")):
            found = json.loads(text)
            entries = found if isinstance(found, list) else [found]
            return [{key: str(value) for key, value in entry.items() if value is not None} for entry in entries]
    except (ElementTree.ParseError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"it is not well formed ({error}), but an OMM is; fetch it again") from None
    if text.startswith(("CCSDS_OMM_VERS", "COMMENT")):
        return _kvn_entries(text)
    try:
        return _csv_entries(text)
    except csv.Error as error:
        raise ValueError(f"it is not well formed ({error}), but an OMM is; fetch it again") from None


def _csv_entries(text: str) -> list[dict[str, str]]:
    rows = csv.DictReader(io.StringIO(text))
    if "MEAN_MOTION" not in (rows.fieldnames or ()) and text:
        what = (
            "is a TLE, but an OMM is read here; name it by tle"
            if re.match(r"(.*\n)?1 [ A-Z\d]{5}", text)
            else "is none, but an OMM is XML, KVN, JSON or CSV; fetch it again"
        )
        raise ValueError(f"begins with {text.splitlines()[0][:60]!r}, which {what}")
    return [{key: value for key, value in row.items() if key and value} for row in rows]


def _plain(tag: Any) -> str:
    """The name of an element without its name space; "" for a comment."""
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def _kvn_entries(text: str) -> list[dict[str, str]]:
    entries: list[dict[str, str]] = []
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if key.strip() == "CCSDS_OMM_VERS":
            entries.append({key.strip(): value.strip()})
        elif equals and entries:
            entries[-1][key.strip()] = value.split("[")[0].strip()
    return entries


def _table(entry: Mapping[str, str], number: int) -> tuple[str, str, dict[str, Any]]:
    """Name, number and elements of one satellite; quantities as text with their unit."""
    name = entry.get("OBJECT_NAME", "").strip()
    where = f"entry {number} ({name or 'without a name'})"
    for key, rule in FIXED.items():
        found = entry.get(key, rule)
        if found.upper() != rule and not (key == "MEAN_ELEMENT_THEORY" and found.upper() in ("SGP", "SGP/SGP4")):
            raise ValueError(f"{where} has {key} {found}, but only {rule} is read; convert it")
    if (kind := entry.get("EPHEMERIS_TYPE", "0")) not in SGP4_TYPES or any(term in entry for term in XP_TERMS):
        found = f"EPHEMERIS_TYPE {kind}" if kind not in SGP4_TYPES else " and ".join(set(XP_TERMS) & set(entry))
        raise ValueError(f"{where} has {found}, which is for SGP4-XP, but SGP4 is applied; fetch elements for SGP4")
    if (version := entry.get("CCSDS_OMM_VERS", VERSIONS[-1])) not in VERSIONS:
        raise ValueError(f"{where} has version {version}, but {', '.join(VERSIONS)} are read; convert it")
    value = {key: _number(entry, key, where) for key in ELEMENTS}
    table = {
        "epoch": _epoch(entry, where),
        "mean_motion": f"{value['MEAN_MOTION']!r} rev/day",
        "eccentricity": value["ECCENTRICITY"],
        "inclination": f"{value['INCLINATION']!r} deg",
        "raan": f"{value['RA_OF_ASC_NODE']!r} deg",
        "argument_of_perigee": f"{value['ARG_OF_PERICENTER']!r} deg",
        "mean_anomaly": f"{value['MEAN_ANOMALY']!r} deg",
        "bstar": _number(entry, "BSTAR", where) if "BSTAR" in entry else 0.0,
    }
    return name, entry.get("NORAD_CAT_ID", str(number)), table


def _number(entry: Mapping[str, str], key: str, where: str) -> float:
    try:
        number = float(entry[key])
    except KeyError:
        raise ValueError(f"{where} has no {key}, but SGP4 needs it; fetch it again") from None
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{where} has {key} {entry[key]!r}, but it is a number; fetch it again")
    return number


def _epoch(entry: Mapping[str, str], where: str) -> datetime:
    text = entry.get("EPOCH", "")
    main, _, fraction = text.removesuffix("Z").partition(".")
    days = "%Y-%m-%d" if main.count("-") == 2 else "%Y-%j"  # a date, or the day of the year
    try:
        moment = datetime.strptime(main, f"{days}T%H:%M:%S").replace(tzinfo=timezone.utc)
        return moment.replace(microsecond=int((fraction + "000000")[:6]))
    except ValueError:
        raise ValueError(f"{where} has EPOCH {text!r}, but it is like 2026-03-20T04:00:00.123456; fix it") from None
