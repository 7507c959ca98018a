"""What flipped bits do to the answers of a model in orbit.

Takes copies of the bundled model, flips bits in their tensors as a fault with `effect = "flip-bits"` does, serves each
copy as a satellite does, and asks it: how well it foretells a short text (perplexity), and how many questions that the
intact model answers rightly it still does.

    python docs/examples/radiation.py --out results/radiation          (a quarter of an hour)
    python docs/examples/radiation.py --out results/radiation --quick  (0 and 300,000 flips, once each)
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from isl_emu.parts.residents import flip_bits
from isl_emu.parts.serving.model_file import read_header, resolve_model

TEXT = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").strip()
FLIPS = (1, 10, 100, 1_000, 10_000)
QUICK_FLIPS = (300_000,)
SEEDS = 5
CONTEXT_TOKENS = 512
ANSWER_TOKENS = 16
FORCED = 1e6  # added to the score of a token, so that it is chosen
PATIENCE_S = 120
QUESTIONS = {
    "What is the capital of Japan?": "tokyo",
    "What is the capital of Germany?": "berlin",
    "What is the capital of England?": "london",
    "What is the capital of China?": "beijing",
    "What is the capital of Russia?": "moscow",
    "What is the capital of Egypt?": "cairo",
    "What is the capital of Greece?": "athens",
    "What is the capital of India?": "delhi",
    "What is the capital of Australia?": "canberra",
    "What is the chemical formula of water?": "h2o",
    "What is the largest ocean on Earth?": "pacific",
    "Which language is spoken in Brazil?": "portuguese",
    "Which language is spoken in Mexico?": "spanish",
    "How many days are in a week?": "7",
    "Who wrote Romeo and Juliet?": "shakespeare",
    "Who developed the theory of relativity?": "einstein",
    "What gas do humans need to breathe?": "oxygen",
    "What is the opposite of hot?": "cold",
    "What is the tallest mountain on Earth?": "everest",
    "Who was the first person to walk on the Moon?": "armstrong",
}


class Dead(Exception):
    """The server ended, or gave an answer that is none."""


@dataclass(frozen=True)
class Point:
    """One damaged model, and what it still can."""

    flips: int
    seed: int
    perplexity: float  # infinite where it gives a token of the text no probability, or no number
    right: int  # answers of len(QUESTIONS)
    served: bool  # to the end


class Server:
    """A model server at a port of this machine."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]):
        self._port, self.process = port, process

    def call(self, path: str, body: Any = None) -> Any:
        """The answer to a request, decoded.

        Raises:
            Dead: there is none.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
        try:
            if body is None:
                connection.request("GET", path)
            else:
                connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            if answer.status != http.HTTPStatus.OK:
                raise Dead(f"{path}: status {answer.status}")
            return json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Dead(f"{path}: {error}") from None
        finally:
            connection.close()


@contextmanager
def serving(model: Path, log: Path) -> Iterator[Server]:
    """A server of a model, as a satellite's, once it is ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "isl_emu.parts.serving.model_server", "--model", model, "--host", "127.0.0.1"]
    with log.open("wb") as written:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--context", str(CONTEXT_TOKENS)], stdout=written, stderr=written
        )
    try:
        server, end_s = Server(port, process), time.monotonic() + PATIENCE_S
        while True:
            try:
                server.call("/health")
                break
            except Dead:
                if process.poll() is not None or time.monotonic() > end_s:
                    raise
                time.sleep(0.1)
        yield server
    finally:
        process.kill()
        process.wait()


def perplexity(server: Server, text: str) -> float:
    """exp of the mean of -ln p over all tokens of a text but the first, each after all those before it.

    The server tells the probability of the token that it chose: the text's next one, by a bias that does not count in
    the probability.
    """
    tokens = server.call("/tokenize", {"content": text})["tokens"]
    logs = []
    for index in range(1, len(tokens)):
        body = {"prompt": tokens[:index], "n_predict": 1, "n_probs": 1, "temperature": 0}
        (told,) = server.call("/completion", {**body, "logit_bias": [[tokens[index], FORCED]]})[
            "completion_probabilities"
        ]
        logs.append(told["logprob"] if told["id"] == tokens[index] and told["logprob"] is not None else -math.inf)
    with np.errstate(over="ignore"):
        return float(np.exp(-np.mean(logs)))


def right_answers(server: Server) -> int:
    """To how many of the questions the answer has the word that it must have."""
    right = 0
    for question, word in QUESTIONS.items():
        body = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": ANSWER_TOKENS}
        (choice,) = server.call("/v1/chat/completions", body)["choices"]
        right += word in (choice["message"]["content"] or "").lower()
    return right


def point(folder: Path, flips: int, seed: int) -> Point:
    """Damage a copy of the model, and measure it."""
    name = f"{flips}-flips-seed-{seed}"
    model = folder / f"{name}.gguf"
    shutil.copyfile(resolve_model("bundled"), model)
    found, right, served = math.inf, 0, False
    try:
        with model.open("r+b", buffering=0) as file:
            flip_bits(file, read_header(model).data_byte, model.stat().st_size, flips, np.random.default_rng(seed))
        with serving(model, folder / f"{name}.log") as server:
            found = perplexity(server, TEXT)
            right = right_answers(server)
            served = True
    except Dead as error:
        print(f"{name}: {error}", flush=True)
    finally:
        model.unlink()
    print(f"{name}: perplexity {found:.4g}, {right} of {len(QUESTIONS)} right", flush=True)
    return Point(flips, seed, found, right, served)


def main() -> None:
    """Measure all, write points.parquet, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="new folder for the table and the servers' logs")
    parser.add_argument("--quick", action="store_true", help="0 and 300,000 flips only, once each")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"damaged models for each number of flips ({SEEDS})")
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    flips, seeds = (QUICK_FLIPS, 1) if options.quick else (FLIPS, options.seeds)
    points = [point(options.out, 0, 0)]
    points += [point(options.out, number, seed) for number in flips for seed in range(seeds)]
    pq.write_table(pa.Table.from_pylist([asdict(one) for one in points]), options.out / "points.parquet")
    print(f"| bits flipped | perplexity: median (range) | right of {len(QUESTIONS)}: median (range) |\n|---|---|---|")
    for number in (0, *flips):
        own = [one for one in points if one.flips == number]
        columns = ([one.perplexity for one in own], [one.right for one in own])
        told = [f"{statistics.median(each):.4g} ({min(each):.4g} to {max(each):.4g})" for each in columns]
        print(f"| {number:,} | {' | '.join(told)} |")


if __name__ == "__main__":
    main()
