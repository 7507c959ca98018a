"""The table of images that were taken, and its section of the summary: how soon the answers were on the ground."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from isl_emu.parts.finished_run import FinishedRun, Row
from isl_emu.runs.journal import joined
from isl_emu.scenario.boards import board_named
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.observation import Observation
from isl_emu.tables.schema import COUNT, FLAG, NS, PATH, RATIO, REAL, TEXT, column, schema
from isl_emu.tables.text import INDENT, Distribution, counted, facts, size_text, table, three_digits, time_text, wrapped
from isl_emu.units import NS_PER_S

TABLE = "observations"
ANSWERED, IMAGE_DOWN, FAILED = "answered", "image on the ground", "failed"

OBSERVATIONS = schema(
    column("observation", TEXT, "", "its name in the scenario"),
    column("number", COUNT, "", "of the image, among those of this observation, by time"),
    column("satellite", TEXT, "", "that took it"),
    column("latitude_deg", REAL, "deg", "of the place below"),
    column("longitude_deg", REAL, "deg", "of the place below"),
    column("t_exposed_ns", NS, "ns", "when it was taken, and placed"),
    column("analyst", TEXT, "", "satellite that was to look at it; null if the image itself was to go down"),
    column("reason", TEXT, "", "what the plan said then: the answer's time there and on board, and the image's"),
    column("charge_ratio", RATIO, "ratio", "of the analyst's battery then; null without power"),
    column("sunlit", FLAG, "", "the analyst was in the Sun then"),
    column("t_image_sent_ns", NS, "ns", "when it was first sent to the analyst; null on board"),
    column("t_image_there_ns", NS, "ns", "when all of it was there"),
    column("t_begun_ns", NS, "ns", "when the analyst began to look at it"),
    column("t_analysed_ns", NS, "ns", "when the answer was ready"),
    column("t_answer_sent_ns", NS, "ns", "when the answer, or the image itself, was first sent to the ground"),
    column("t_answer_there_ns", NS, "ns", "when all of that was there"),
    column("station", TEXT, "", "station that got it"),
    column("outcome", TEXT, "", "answered, image on the ground, failed, or where it was when the run ended"),
    column("error", TEXT, "", "what went wrong with the program that looks at it"),
    column("t_planned_ns", NS, "ns", "when that would be on the ground by the plan, as of its exposure"),
    column("t_image_planned_ns", NS, "ns", "when the image itself would be, as of then; null if not in this run"),
    column("gained_ns", NS, "ns", "how much sooner than that the answer was there"),
    column("contact_wait_ns", NS, "ns", "waited for a path, or for what went down before; image and answer together"),
    column("queue_ns", NS, "ns", "waited for the analyst's other images"),
    column("compute_ns", NS, "ns", "the analyst's time for it"),
    column("energy_j", REAL, "J", "full power of the board for as long as it takes at full pace; null without a board"),
    column("image_byte", NS, "byte", "length of the image"),
    column("answer_byte", NS, "byte", "length of the answer"),
    column("saved_byte", NS, "byte", "what was not sent to the ground: image less answer, of one that is answered"),
    column("image_wire_byte", NS, "byte", "of the image, sent to the analyst; less by rate_scale unless it is a file"),
    column("answer_wire_byte", NS, "byte", "of the answer, or the image itself, sent to the ground; likewise"),
    column("image_attempts", COUNT, "connections", "that it took to the analyst"),
    column("answer_attempts", COUNT, "connections", "that it took to the ground"),
    column("image_path", PATH, "", "planned path to the analyst when it was first sent, node names"),
    column("answer_path", PATH, "", "planned path to the station when it was first sent, node names"),
)

Rows = Sequence[Mapping[str, Any]]


def observation_rows(records: Iterable[Mapping[str, Any]], run: FinishedRun) -> list[Row]:
    """A row for each image that was taken, by time."""
    scenario = run.scenario
    by_name = {one.name: one for one in scenario.observation}
    rows = [_row(record, by_name[record["observation"]], run) for record in joined(records) if "observation" in record]
    return sorted(rows, key=lambda row: (row["t_exposed_ns"], row["observation"], row["number"]))


def _row(record: Mapping[str, Any], one: Observation, run: FinishedRun) -> Row:
    known = {name: record.get(name) for name in OBSERVATIONS.names}
    here, exposed_ns = record["analyst"] or record["satellite"], record["t_exposed_ns"]
    image_ns, begun_ns, ready_ns = (known[key] for key in ("t_image_there_ns", "t_begun_ns", "t_analysed_ns"))
    down_ns, outcome = known["t_answer_there_ns"], _outcome(known)
    image_byte = record["image_byte"] if one.size_byte is None else one.size_byte
    answer_byte = None
    if outcome == ANSWERED:
        answer_byte = record["answer_size_byte"] if one.file else one.answer_byte
    waits = (
        (known["t_image_sent_ns"], exposed_ns),
        (known["t_answer_sent_ns"], exposed_ns if record["analyst"] is None else ready_ns),
    )
    found = {
        "station": record.get("answer_to"),
        "outcome": outcome,
        "gained_ns": _less(known["t_image_planned_ns"], down_ns),
        "contact_wait_ns": sum(_less(sent_ns, since_ns) or 0 for sent_ns, since_ns in waits),
        "queue_ns": _less(begun_ns, image_ns or exposed_ns),
        "compute_ns": _less(ready_ns, begun_ns),
        "energy_j": _energy_j(one, _less(ready_ns, begun_ns)),
        "image_byte": image_byte,
        "answer_byte": answer_byte,
        "saved_byte": _less(image_byte, answer_byte),
        "image_path": _path(run, record["satellite"], record["analyst"], known["t_image_sent_ns"]),
        "answer_path": _path(run, here, record.get("answer_to"), known["t_answer_sent_ns"]),
    }
    return {**known, **found}


def _less(a: int | None, b: int | None) -> int | None:
    """The difference, if both are known."""
    return None if a is None or b is None else a - b


def _energy_j(one: Observation, compute_ns: int | None) -> float | None:
    if one.board is None or compute_ns is None:
        return None
    return board_named(one.board).busy_w * (one.work_ns or compute_ns) / NS_PER_S


def _path(run: FinishedRun, a: str, b: str | None, t_ns: int | None) -> list[str] | None:
    if b is None or t_ns is None:
        return None
    return run.paths.names(run.paths.at(a, b, run.paths.instant(t_ns)))


def _outcome(known: Mapping[str, Any]) -> str:
    """What became of an image, or where it was when the run ended."""
    if known["error"] is not None:
        return FAILED
    if known["t_answer_there_ns"] is not None:
        return IMAGE_DOWN if known["analyst"] is None else ANSWERED
    what = "image" if known["analyst"] is None else "answer"
    if known["t_answer_sent_ns"] is not None:
        return f"{what} on its way to the ground"
    if known["t_analysed_ns"] is not None or known["analyst"] is None:
        return f"{what} waiting to be sent down"
    if known["t_begun_ns"] is not None:
        return "being looked at"
    if known["analyst"] == known["satellite"] or known["t_image_there_ns"] is not None:
        return "waiting for the computer"
    return "image waiting for a path" if known["t_image_sent_ns"] is None else "image on its way to the analyst"


HEADER = ("observation", "images", "on ground", "median", "90 %", "image itself", "not sent", "over lasers", "an image")


def observation_section(scenario: Scenario, rows: Rows) -> Iterator[str]:
    """How many images were answered, how soon, and what was not sent."""
    yield "EARTH OBSERVATION  (from exposure to answer on the ground; beside it the image itself, by the plan)"
    yield from table(HEADER, observation_lines(scenario, rows), left=1)
    for remark in observation_remarks(rows):
        yield from wrapped(INDENT, remark)


def observation_lines(scenario: Scenario, rows: Rows) -> list[tuple[str, ...]]:
    """What `HEADER` names, of each observation."""
    lines: list[tuple[str, ...]] = []
    for one in scenario.observation:
        own = [row for row in rows if row["observation"] == one.name]
        spread = Distribution.of(_less(row["t_answer_there_ns"], row["t_exposed_ns"]) for row in own)
        image = Distribution.of(_less(row["t_image_planned_ns"], row["t_exposed_ns"]) for row in own)
        joules = Distribution.of(row["energy_j"] for row in own).p50
        lines.append((
            one.name,
            str(len(own)),
            str(spread.count),
            time_text(spread.p50),
            time_text(spread.p90),
            time_text(image.p50),
            size_text(sum(row["saved_byte"] or 0 for row in own)),
            size_text(sum(row["image_byte"] for row in own if row["t_image_there_ns"] is not None)),
            "-" if joules is None else f"{three_digits(joules)} J",
        ))  # fmt: skip
    return lines


def observation_remarks(rows: Rows) -> Iterator[str]:
    """Where images were looked at, what they waited for, and what became of those that were not answered."""
    looked = [row for row in rows if row["t_begun_ns"] is not None]
    if looked:
        board = sum(row["analyst"] == row["satellite"] for row in looked)
        dark = sum(row["sunlit"] is False for row in looked)
        yield "looked at: " + facts(
            f"{board} on board",
            f"{len(looked) - board} on another satellite",
            f"{dark} in the Earth's shadow" if dark else None,
            f"{time_text(sum(row['queue_ns'] for row in looked) / len(looked))} in a queue on average",
        )
    waited = Distribution.of(row["contact_wait_ns"] for row in rows if row["contact_wait_ns"])
    if waited.count:
        yield "waited for a contact, or for what went down before: " + facts(
            counted(waited.count, "image"), f"median {time_text(waited.p50)}", f"longest {time_text(waited.max)}"
        )
    never = sum(row["t_image_planned_ns"] is None for row in rows)
    if never:
        yield f"of {counted(never, 'image')} the plan had no way down for the image itself in this run"
    open_ones = Counter(row["outcome"] for row in rows if row["outcome"] not in (ANSWERED, IMAGE_DOWN))
    if open_ones:
        yield "when the run ended: " + facts(*(f"{count} {outcome}" for outcome, count in sorted(open_ones.items())))
    for error in dict.fromkeys(row["error"] for row in rows if row["error"]):
        yield f"not answered: {error}"
