"""Recorded series of requests that other people have published, read from their files row by row.

Three formats are known by their first line:

    burstgpt   CSV: Timestamp (s), Model, Request tokens, Response tokens, Total tokens, Log Type
    azure      CSV: TIMESTAMP (date and time), ContextTokens, GeneratedTokens
    mooncake   JSON lines: timestamp (ms), input_length, output_length, hash_ids (one for each 512 tokens of the prompt;
               without them no prompts share text)

Alibaba's Qwen traces use the same names for seconds and blocks of 16 tokens, and are refused.

Sources: github.com/HPMLL/BurstGPT, github.com/Azure/AzurePublicDataset (AzureLLMInferenceDataset2023),
github.com/kvcache-ai/Mooncake (FAST'25 traces),
github.com/alibaba-edu/qwen-bailian-usagetraces-anon.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from decimal import Decimal
from io import TextIOWrapper
from itertools import chain, islice
from pathlib import Path
from typing import Any

from isl_emu.errors import ScenarioError
from isl_emu.files import bounded_lines, encoding_of, open_regular, why_unread
from isl_emu.limits import QUESTIONS
from isl_emu.parts.prompts import BLOCK_TOKENS
from isl_emu.scenario.questions import Trace
from isl_emu.units import NS_PER_MS, NS_PER_S

MOST_DIGITS = 18  # of a whole number that 64 bits hold


@dataclass(frozen=True)
class TracedRequest:
    """One request of a trace.

    Args:
        t_ns: since the first request of the file, or since the start of the run.
        blocks: what stands for each `BLOCK_TOKENS` of the prompt, where the trace tells: equal numbers, equal text.
    """

    t_ns: int
    prompt_tokens: int
    answer_tokens: int
    blocks: tuple[int, ...] = ()


def read_trace(trace: Trace, end_ns: int) -> list[TracedRequest]:
    """The requests of a trace that come before `end_ns` of the run, at the run's times and with scaled lengths.

    Requests that were never answered (no answer tokens, as BurstGPT marks failures) are left out.

    Raises:
        ScenarioError: the file cannot be read, is in none of the formats, or one of its lines is broken.
    """
    path = Path(trace.file)
    where = f"questions.trace.file: {path}"
    try:
        with open_regular(path) as data:
            encoding = encoding_of(data.read(8))
            data.seek(0)
            rows = _rows(bounded_lines(TextIOWrapper(data, encoding, newline="")), trace.format, where)
            answered = (row for row in rows if row.answer_tokens > 0)
            most = QUESTIONS.most
            found = list(islice(_in_the_run(answered, trace, end_ns), min(trace.limit or most + 1, most + 1)))
    except (OSError, ValueError, csv.Error) as error:
        raise ScenarioError(
            f"{where} cannot be read ({why_unread(error)}), but it must be a BurstGPT, Azure or Mooncake trace; "
            "name one"
        ) from None
    if excess := QUESTIONS.excess(len(found)):
        raise ScenarioError(f"{where} has requests for the run, which {excess}")
    return found


def _in_the_run(rows: Iterable[TracedRequest], trace: Trace, end_ns: int) -> Iterator[TracedRequest]:
    for row in rows:
        t_ns = round((row.t_ns - trace.offset_ns) / trace.speed_up)
        if t_ns >= end_ns:
            return
        if t_ns >= 0:
            prompt, answer = row.prompt_tokens * trace.token_scale, row.answer_tokens * trace.token_scale
            yield TracedRequest(t_ns, max(1, round(prompt)), max(1, round(answer)), row.blocks)


def _rows(file: Iterable[str], kind: str, where: str) -> Iterator[TracedRequest]:
    """All rows, at times since the first."""
    lines = iter(file)
    head = next(lines, "")
    found = _kind_of(head)
    if found is None or kind not in ("auto", found):
        wanted = "of a BurstGPT, Azure or Mooncake trace" if kind == "auto" else f"of the format {kind}"
        begins = f"{where} begins with {head.strip()[:60]!r}"
        raise ScenarioError(f"{begins}, but that is not the first line {wanted}; see docs/serving.md")
    lines = chain([head], lines)
    begin_ns = before_ns = None
    records: Iterable[Any]  # one for each line after the heading
    if found == "mooncake":
        records, first = (line for line in lines if line.strip()), 1
    else:
        records, first = csv.DictReader(lines, skipinitialspace=True), 2
    for number, record in enumerate(records, start=first):
        try:
            row = PARSERS[found](record)
        except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
            broken = f"{where} line {number} is broken ({type(error).__name__}: {str(error)[:200]})"
            raise ScenarioError(f"{broken}, but each line is a request; correct or remove it") from None
        begin_ns = row.t_ns if begin_ns is None else begin_ns
        if before_ns is not None and row.t_ns < before_ns:
            early = f"{where} line {number} is earlier than the line before it"
            raise ScenarioError(f"{early}, but a trace is in order of time; sort the file")
        before_ns = row.t_ns
        yield replace(row, t_ns=row.t_ns - begin_ns)


def _kind_of(head: str) -> str | None:
    """The format of a file that begins with this line."""
    if head.lstrip().startswith("{"):
        return "mooncake" if '"input_length"' in head else None
    columns = {column.strip() for column in next(csv.reader([head], skipinitialspace=True), [])}
    return next((kind for kind, needed in COLUMNS.items() if columns >= needed), None)


def burstgpt(row: Mapping[str, str]) -> TracedRequest:
    """A request of a trace in this format."""
    t_ns = _whole(Decimal(row["Timestamp"]) * NS_PER_S)
    return TracedRequest(t_ns, _count(row["Request tokens"]), _count(row["Response tokens"]))


def azure(row: Mapping[str, str]) -> TracedRequest:
    """A request of a trace in this format."""
    return TracedRequest(_moment_ns(row["TIMESTAMP"]), _count(row["ContextTokens"]), _count(row["GeneratedTokens"]))


def _count(tokens: object) -> int:
    """A number of tokens, such as 472 or "472.0"."""
    number = Decimal(str(tokens))
    count = _whole(number)
    if number != count or count < 0:
        raise ValueError(f"{tokens} is no number of tokens")
    return count


def _whole(number: Decimal) -> int:
    """A number without its decimals."""
    if not number.is_finite() or number.adjusted() > MOST_DIGITS:
        raise ValueError(f"{number:.3e} is beyond 64 bits")
    return int(number)


def _moment_ns(text: str) -> int:
    """A date and time with any number of decimals, such as "2023-11-16 18:17:03.9799600", in ns since 1970."""
    second, _, rest = text.strip().partition(".")
    decimals = re.split(r"\D", rest, maxsplit=1)[0]
    zone = rest.removeprefix(decimals)
    moment = datetime.fromisoformat(second + zone.strip().replace("Z", "+00:00"))
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return int(moment.timestamp()) * NS_PER_S + int(Decimal(f"0.{decimals or 0}") * NS_PER_S)


def mooncake(line: str) -> TracedRequest:
    """A request of a trace in this format."""
    row = json.loads(line)
    length, blocks = _count(row["input_length"]), row.get("hash_ids")
    if "chat_id" in row or "parent_chat_id" in row:
        raise ValueError("it has a chat_id, so it is of another publisher, who counts seconds and blocks of 16 tokens")
    if blocks is not None and len(blocks) not in (length // BLOCK_TOKENS, -(-length // BLOCK_TOKENS)):
        raise ValueError(f"{len(blocks)} hash_ids for {length} tokens, where there is one for each {BLOCK_TOKENS}")
    t_ns = _whole((Decimal(str(row["timestamp"])) * NS_PER_MS).to_integral_value())
    return TracedRequest(t_ns, length, _count(row["output_length"]), tuple(map(int, blocks or ())))


COLUMNS = {
    "burstgpt": {"Timestamp", "Request tokens", "Response tokens"},
    "azure": {"TIMESTAMP", "ContextTokens", "GeneratedTokens"},
}
PARSERS: Mapping[str, Callable[[Any], TracedRequest]] = {
    "burstgpt": burstgpt,
    "azure": azure,
    "mooncake": mooncake,
}
