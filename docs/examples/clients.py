"""OpenAI's own Python client, or AIPerf, in a ground station, and beside its figures those of `[questions]`.

    python docs/examples/clients.py --out results/openai    (two runs in exact time)
    python docs/examples/clients.py --out results/aiperf --client aiperf --python aiperf/bin/python
    python docs/examples/clients.py --out results/busy --users 4                  (one run, with others who ask)

In a node this same file is the program: it asks a satellite's server as one would ask any, and measures by its own
clock, which in exact time is the emulated one. Then `[questions]` asks the same at the same times under the same sky.
With `--users` it has company in its own run: closed-loop users of isl-emu ask the same satellite from the same station,
and the figures of both are printed side by side, with the run's summary of its users below.
`--python`: which Python has the client, if another than isl-emu's; below the current folder, so that nodes see it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SCENARIO = Path(__file__).with_name("clients.toml")
STATION = "gs-chengdu"
START_NS = 5 * 10**9
MS = 10**6  # ns
Found = list[dict[str, Any]]  # of each question: when it was sent, TTFT, ITLs and E2E, in ns, and tokens
TOKENIZER = {  # AIPerf wants one; what it counts by it is not used
    "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
    "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
    "model": {"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"},
}  # fmt: skip


# in a node


def ask_by_openai(satellite: str, prompt: str, count: int, tokens: int) -> None:
    """Ask so many times, one after another, and write down what it took."""
    from openai import OpenAI  # noqa: PLC0415  in a node alone

    each_alone = {"Connection": "close"}  # else the first question needs no new connection, which saves it a round trip
    client = OpenAI(base_url=f"http://{satellite}:8080/v1", api_key="none", max_retries=0, default_headers=each_alone)
    (model,) = (one.id for one in client.models.list())
    found: Found = []
    for _ in range(count):
        t_ns, sent_ns, came_ns, usage = time.time_ns(), time.monotonic_ns(), [], None
        stream = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": prompt}],
            max_tokens=tokens,
            stream=True,
            stream_options={"include_usage": True},
        )
        for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                came_ns.append(time.monotonic_ns())
            usage = chunk.usage or usage
        done_ns = time.monotonic_ns()
        gaps_ns = [after - before for before, after in zip(came_ns, came_ns[1:])]
        times = {"t": t_ns, "ttft": came_ns[0] - sent_ns, "itl": gaps_ns, "e2e": done_ns - sent_ns}
        found.append({**times, "prompt": usage.prompt_tokens, "answer": usage.completion_tokens})
    Path("openai.json").write_text(json.dumps(found))


def ask_by_aiperf(satellite: str, prompt: str, count: int, tokens: int) -> None:
    """Become AIPerf, with what it reads from files written before."""
    Path("tokenizer").mkdir()
    Path("tokenizer", "tokenizer.json").write_text(json.dumps(TOKENIZER))
    Path("tokenizer", "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    Path("prompts.jsonl").write_text(json.dumps({"text": prompt}) + "\n")
    options = {
        "--model": "qwen3-8b", "--url": f"http://{satellite}:8080", "--endpoint-type": "chat",
        "--tokenizer": str(Path("tokenizer").resolve()), "--input-file": str(Path("prompts.jsonl").resolve()),
        "--custom-dataset-type": "single_turn", "--extra-inputs": f"max_tokens:{tokens}",
        "--request-count": str(count), "--concurrency": "1", "--workers-max": "1",
        "--artifact-dir": "aiperf", "--ui": "none",
    }  # fmt: skip
    words = [word for option in options.items() for word in option]
    own = ["-m", "aiperf", "profile", "--streaming", "--use-server-token-count", *words]
    os.execv(sys.executable, [sys.executable, *own])


# outside


def read_openai(folder: Path) -> Found:
    """What the first of them has written."""
    return json.loads((folder / "openai.json").read_text())


def read_aiperf(folder: Path) -> Found:
    """What AIPerf has written of each question."""
    found: Found = []
    for line in (folder / "aiperf" / "profile_export.jsonl").read_text().splitlines():
        record = json.loads(line)
        figures = {name: one["value"] for name, one in record["metrics"].items()}
        times = {"ttft": figures["time_to_first_token"] * MS, "e2e": figures["request_latency"] * MS}
        counts = {"prompt": figures["usage_prompt_tokens"], "answer": figures["output_sequence_length"]}
        gaps_ns = [gap * MS for gap in figures["inter_chunk_latency"]]
        found.append({"t": record["metadata"]["request_start_ns"], **times, "itl": gaps_ns, **counts})
    return sorted(found, key=lambda one: one["t"])


CLIENTS = {"openai": (ask_by_openai, read_openai), "aiperf": (ask_by_aiperf, read_aiperf)}


def theirs(out: Path, client: str, python: str, users: int = 0) -> tuple[Found, Any]:
    """What a client measures that runs in the station, and the run, in which so many users ask beside it."""
    import isl_emu  # noqa: PLC0415  not in a node

    scenario = isl_emu.load(SCENARIO)
    questions = scenario.questions
    words = [questions.target, questions.prompts[0], str(questions.count), str(questions.max_answer_tokens)]
    command = [python, str(Path(__file__).resolve()), "--client", client, "--ask", *words]
    program = {"name": client, "node": STATION, "at": f"{START_NS} ns", "memory": "3 GiB", "command": command}
    beside = {
        "arrivals": "users", "users_per_station": users, "think_time": {"distribution": "exponential", "mean": "2 s"},
        "stop_after": "40 s", "target": questions.target, "max_answer_tokens": questions.max_answer_tokens,
    }  # fmt: skip
    run = isl_emu.run(scenario, out=out, report=False, questions=beside if users else None, program=[program])
    try:
        return CLIENTS[client][1](run.path / "files" / STATION), run
    except (OSError, KeyError) as error:
        raise SystemExit(f"{client} told nothing ({error}); see {run.path}/programs/{client}.log") from None


def ours(out: Path, start_ns: int, one_connection: bool) -> Found:
    """What `[questions]` measures that begins at the same time.

    Args:
        one_connection: take off the round trip that a new connection costs it, by the plan, but for the first question:
            as of a client that has one for all.
    """
    import isl_emu  # noqa: PLC0415  not in a node

    scenario = isl_emu.load(SCENARIO)
    asked = {**scenario.questions.model_dump(by_alias=True, exclude_none=True), "start_after": f"{start_ns} ns"}
    rows = isl_emu.run(scenario, out=out, report=False, questions=asked).table("requests").to_pylist()
    return measured(rows, one_connection)


def measured(rows: Sequence[dict[str, Any]], one_connection: bool = False) -> Found:
    """What rows of requests.parquet say; see `ours`."""
    saved_ns = [one_connection and number > 0 and row["planned_rtt_at_send_ns"] for number, row in enumerate(rows)]
    return [
        {
            "t": row["t_send_ns"],
            "ttft": row["ttft_ns"] - less_ns,
            "itl": row["itl_ns"],
            "e2e": row["e2e_ns"] - less_ns,
            "prompt": row["prompt_tokens"],
            "answer": row["answer_tokens"],
        }
        for row, less_ns in zip(rows, saved_ns)
    ]


def values(found: Found, key: str) -> list[float]:
    """One figure of all questions, of ITL of all their tokens."""
    return [value for one in found for value in (one[key] if key == "itl" else [one[key]])]


def company(client: str, other: Found, run: Any) -> None:
    """Print the client's figures beside those of the users who asked in its run, and the run's summary of these."""
    done = [row for row in run.table("requests").to_pylist() if row["outcome"] == "completed"]
    both = {client: other, "[questions]": measured(done)}
    print(f"{'':8}" + "".join(f"{name + ', p50':>20}{'p95':>12}" for name in both) + "   (ms)")
    for key in ("ttft", "itl", "e2e"):
        cells = [statistics.quantiles(values(found, key), n=100, method="inclusive") for found in both.values()]
        print(f"{key.upper():8}" + "".join(f"{cuts[49] / MS:20.3f}{cuts[94] / MS:12.3f}" for cuts in cells))
    print(f"{'asked':8}" + "".join(f"{len(found):20}{'':12}" for found in both.values()) + "   (questions)\n")
    print(next(part for part in run.summary.split("\n\n") if part.startswith("ANSWERS")))


def beside(client: str, other: Found, mine: Found) -> None:
    """Print both figures of each time, as medians, and how far apart those of any one question are."""
    print(f"{'':8}{client:>12}{'[questions]':>14}{'farthest apart':>17}   (ms)")
    for key in ("ttft", "itl", "e2e"):
        both = values(other, key), values(mine, key)
        apart = max(abs(a - b) for a, b in zip(*both, strict=True))
        shown = zip((*map(statistics.median, both), apart), (12, 14, 17))
        print(f"{key.upper():8}" + "".join(f"{value / MS:{width}.3f}" for value, width in shown))
    for key in ("prompt", "answer"):
        print(f"{key:8}{sum(values(other, key)):12}{sum(values(mine, key)):14}{'':17}   (tokens)")


def main() -> None:
    """Ask, in a node; else run both and compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for both runs")
    parser.add_argument("--client", choices=CLIENTS, default="openai", help="which client")
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="the Python that has it")
    parser.add_argument("--users", type=int, default=0, help="how many users of isl-emu ask beside it, in its run")
    parser.add_argument("--ask", nargs=4, metavar=("SATELLITE", "PROMPT", "COUNT", "TOKENS"), help="in a node: ask")
    options = parser.parse_args()
    if options.ask:
        satellite, prompt, count, tokens = options.ask
        CLIENTS[options.client][0](satellite, prompt, int(count), int(tokens))
        return
    if options.out is None:
        parser.error("--out says where to")
    import isl_emu  # noqa: PLC0415  not in a node

    folder, python = options.out / options.client, str(options.python.absolute())
    other, run = theirs(folder, options.client, python, options.users)
    if options.users:
        company(options.client, other, run)
        return
    start_ns = round(isl_emu.load(SCENARIO).time.start.timestamp()) * 10**9
    beside(options.client, other, ours(options.out / "questions", other[0]["t"] - start_ns, options.client == "aiperf"))


if __name__ == "__main__":
    main()
