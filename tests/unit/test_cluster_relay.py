"""Streams between guests on several machines: only who knows the secret is connected, and every byte arrives."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from isl_emu.cluster import relay
from isl_emu.cluster.relay import CALENDAR, TRUNK, meet, serve
from isl_emu.errors import MachineError
from isl_emu.machine.calendar import Message, Operation

SECRET, LOCALHOST = b"of this run", "127.0.0.1"
SHORT_S = 0.5


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "ANSWERED_WITHIN_S", SHORT_S)


@pytest.fixture
def listener() -> Iterator[Callable[[], socket.socket]]:
    """Makes sockets that listen here."""
    made: list[socket.socket] = []

    def make() -> socket.socket:
        made.append(socket.create_server((LOCALHOST, 0)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_each_part_meets_each_other_and_all_the_calendar_whatever_strangers_do(listener) -> None:
    listeners = [listener() for _ in range(3)]
    addresses = [one.getsockname() for one in listeners]
    strangers = [socket.create_connection(address) for address in addresses]  # one that says nothing
    for address in addresses:
        with socket.create_connection(address) as talker:
            talker.sendall(bytes(200))
    with ThreadPoolExecutor(3) as pool:
        streams = list(pool.map(lambda own: meet(own, listeners[own], addresses, SECRET), range(3)))
    assert streams[0].keys() == {(TRUNK, 1), (TRUNK, 2), (CALENDAR, 1), (CALENDAR, 2)}
    assert streams[1].keys() == {(TRUNK, 0), (TRUNK, 2), (CALENDAR, 0)}
    for own, other in ((0, 1), (0, 2), (1, 2)):
        streams[own][TRUNK, other].sendall(f"{own} to {other}".encode())
        assert streams[other][TRUNK, own].recv(99) == f"{own} to {other}".encode()
    for other in (1, 2):
        streams[other][CALENDAR, 0].sendall(b"start")
        assert streams[0][CALENDAR, other].recv(99) == b"start"
    for connection in [*strangers, *(one for found in streams for one in found.values())]:
        connection.close()


def test_in_real_time_nobody_calls_a_calendar(listener) -> None:
    listeners = [listener() for _ in range(2)]
    addresses = [one.getsockname() for one in listeners]
    with ThreadPoolExecutor(2) as pool:
        streams = list(pool.map(lambda own: meet(own, listeners[own], addresses, SECRET, calendar=False), range(2)))
    assert [found.keys() for found in streams] == [{(TRUNK, 1)}, {(TRUNK, 0)}]
    for found in streams:
        for connection in found.values():
            connection.close()


def test_who_does_not_know_the_secret_is_not_connected(listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "MEET_WITHIN_S", SHORT_S)
    listeners = [listener() for _ in range(2)]
    addresses = [one.getsockname() for one in listeners]
    with ThreadPoolExecutor(2) as pool:
        met = [pool.submit(meet, own, listeners[own], addresses, secret) for own, secret in ((0, SECRET), (1, b"no"))]
    with pytest.raises(MachineError, match="guest 0 was not called by guest 1"):
        met[0].result()
    with pytest.raises(MachineError, match="guest 1 cannot reach guest 0 .*does not know the secret"):
        met[1].result()


def test_both_ways_of_a_stream_go_by_themselves_to_the_last_byte() -> None:
    guest, near = socket.socketpair()
    far, other = socket.socketpair()
    serving = threading.Thread(target=serve, args=([(near, far, False)],))
    serving.start()
    data = os.urandom(3_000_000)  # more than any buffer: nobody reads the other way meanwhile
    sending = threading.Thread(target=lambda: (guest.sendall(data), guest.shutdown(socket.SHUT_WR)))
    sending.start()
    other.sendall(b"the other way")
    assert guest.recv(99) == b"the other way"
    found = bytearray()
    while more := other.recv(1 << 16):
        found += more
    assert found == data
    other.close()
    assert guest.recv(99) == b""
    sending.join()
    serving.join()
    guest.close()


def test_a_guest_reads_whole_messages_of_its_calendar_and_two_descriptors_with_the_first(tmp_path) -> None:
    path = str(tmp_path / "calendar")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    far, calendar = socket.socketpair()
    serving = threading.Thread(target=serve, args=([(listening, far, True)],))
    serving.start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as guest:
        guest.connect(path)
        guest.sendall(Message(Operation.START, 1, 7).pack())
        assert calendar.recv(99) == Message(Operation.START, 1, 7).pack()
        answer, run = Message(Operation.ACK, 1, 7).pack(), Message(Operation.RUN, 1, 5).pack()
        calendar.sendall(answer + run[:5])
        data, descriptors, _, _ = socket.recv_fds(guest, len(answer), 2)
        assert (data, len(descriptors)) == (answer, 2)
        guest.settimeout(SHORT_S / 10)
        with pytest.raises(TimeoutError):
            guest.recv(99)
        guest.settimeout(None)
        calendar.sendall(run[5:] + run)
        assert guest.recv(2 * len(run), socket.MSG_WAITALL) == 2 * run
        calendar.close()
        assert guest.recv(99) == b""
    serving.join()
    for descriptor in descriptors:
        os.close(descriptor)
