"""Fuzzes every parser by atheris, guided by coverage: scripts/fuzz [--seconds N] [PARSER]..., an equal time for "
"each."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HOW_TO_GET = "atheris: is not installed, but it is what fuzzes; run `pip install atheris` (CPython up to 3.13)"


def fuzz(name: str, seconds: int, folder: Path) -> None:
    """Fuzz one parser in this process; an error that is not ours ends it with its traceback and the input."""
    import atheris  # noqa: PLC0415  only scripts/fuzz needs it

    with atheris.instrument_imports(include=["isl_emu", "tomllib", "json", "csv"]):
        from tests.parsers import PARSERS  # noqa: PLC0415

    parser, file = PARSERS[name], folder / "given"
    (corpus := folder / "corpus").mkdir()
    for number, seed in enumerate(parser.seeds):
        (corpus / str(number)).write_bytes(seed)

    def give(data: bytes) -> None:
        try:
            parser.parse(data, file)
        except parser.errors:
            return

    bounds = [f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=4096", "-max_len=8192"]
    limits = [*bounds, f"-artifact_prefix={name}-"]
    atheris.Setup([sys.argv[0], str(corpus), *limits], give)
    atheris.Fuzz()


def main(arguments: list[str]) -> int:
    """Each parser in a process of its own; 1 if one let an error through that is not ours, or hung."""
    from tests.parsers import PARSERS  # noqa: PLC0415

    options = argparse.ArgumentParser(prog="fuzz", description="Fuzz the parsers of what users name.")
    options.add_argument("--seconds", type=int, default=60, help="for each parser")
    options.add_argument("--one", choices=list(PARSERS), help=argparse.SUPPRESS)
    options.add_argument("parsers", nargs="*", metavar="PARSER", help=f"of {', '.join(PARSERS)}; by default all")
    given = options.parse_args(arguments)
    if given.one:
        with tempfile.TemporaryDirectory() as folder:
            fuzz(given.one, given.seconds, Path(folder))
        return 0
    bad = 0
    for name in given.parsers or PARSERS:
        words = [sys.executable, "-m", "tests.fuzz_parsers", "--one", name, "--seconds", str(given.seconds)]
        begun_s = time.monotonic()
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        said = (done.stdout + done.stderr).splitlines()
        tried = next((line for line in reversed(said) if line.startswith("Done")), "")
        print(f"{name:10} {time.monotonic() - begun_s:5.0f} s  {tried or 'ended early'}", flush=True)
        if done.returncode:
            bad += 1
            print("\n".join(said[-40:]))
    return 1 if bad else 0


if __name__ == "__main__":
    try:
        import atheris  # noqa: F401
    except ImportError:
        sys.exit(HOW_TO_GET)
    sys.exit(main(sys.argv[1:]))
