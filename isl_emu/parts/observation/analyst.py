"""A user's program that looks at images, in a satellite's container.

Run there as ``python -m isl_emu.parts.observation.analyst``, it listens in the satellite's network at a Unix socket of
an abstract name, which only this machine's processes in that network see. It gets an image, lets the program read it
from a file, and gives back what the program has written into another.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from isl_emu.errors import WorkloadError

SIZE = struct.Struct("!q")  # of what follows; of an answer that there is not -1, and what went wrong follows to the end
FAILED = -1
READY = "ready"
IMAGE_NAME, ANSWER_NAME = "image", "answer"


def place_of(number: int) -> str:
    """Where the program of observation `number` is asked, in a satellite's network."""
    return f"\0isl-emu-observation-{number}"


async def ask_analyst(netns: str, number: int, image: bytes) -> bytes:
    """What the program of an observation in a satellite answers to an image.

    Raises:
        WorkloadError: it failed.
    """
    from isl_emu.nodes.namespaces import enter_network, in_own_thread  # noqa: PLC0415  not for who only analyses

    def asking() -> socket.socket:
        enter_network(netns)
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(place_of(number))
        return connection

    reader, writer = await asyncio.open_unix_connection(sock=in_own_thread(asking))
    try:
        writer.write(SIZE.pack(len(image)) + image)
        await writer.drain()
        (size_byte,) = SIZE.unpack(await reader.readexactly(SIZE.size))
        if size_byte == FAILED:
            raise WorkloadError((await reader.read()).decode())
        return await reader.readexactly(size_byte)
    finally:
        writer.close()


def look(command: Sequence[str], image: bytes) -> bytes:
    """What a program answers to an image.

    Args:
        command: with {image} and {answer} for the files.

    Raises:
        WorkloadError: it cannot be started, fails, or writes no answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        places = {"{image}": Path(folder, IMAGE_NAME), "{answer}": Path(folder, ANSWER_NAME)}
        places["{image}"].write_bytes(image)
        words = [str(places.get(word, word)) for word in command]
        try:
            done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
        except OSError as error:
            raise WorkloadError(
                f"{words[0]} cannot be started ({error.strerror}), but it looks at images; name another program"
            ) from None
        if done.returncode:
            raise WorkloadError(f"{words[0]} ended with status {done.returncode}, but it must end with 0; mend it")
        if not places["{answer}"].is_file():
            raise WorkloadError(f"{words[0]} wrote no answer, but it writes one into {{answer}}; let it do so")
        return places["{answer}"].read_bytes()


def main() -> None:
    """Look at images, one after another, until it is killed."""
    parser = argparse.ArgumentParser(prog="isl_emu.parts.observation.analyst", description=__doc__)
    parser.add_argument("--number", type=int, required=True, help="of the scenario's observation table")
    parser.add_argument("command", nargs="+", help="the program")
    options = parser.parse_args()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(place_of(options.number))
        listening.listen()
        print(READY, flush=True)
        while True:
            connection, _ = listening.accept()
            with connection, connection.makefile("rwb") as stream:
                (size_byte,) = SIZE.unpack(stream.read(SIZE.size))
                try:
                    answer = look(options.command, stream.read(size_byte))
                    stream.write(SIZE.pack(len(answer)) + answer)
                except WorkloadError as error:
                    stream.write(SIZE.pack(FAILED) + str(error).encode())


if __name__ == "__main__":
    main()
