"""A workload in Python: bulk transfers from one node to another; docs/python.md explains it."""

from __future__ import annotations

import socket
import threading

from isl_emu import WorkloadContext

PORT = 5000


def transfer(context: WorkloadContext) -> None:
    """Send `size_byte` over TCP from the first node to the second, again and again, and record each goodput."""
    sender, receiver = context.nodes
    size_byte = context.options["size_byte"]
    listener = context.in_node(receiver, socket.create_server, (context.addresses[receiver], PORT))
    threading.Thread(target=_receive_all, args=(listener,), daemon=True).start()
    while context.wait_until_ns(context.now_ns() + 1_000_000_000):
        begun_ns = context.now_ns()
        connection = context.in_node(sender, socket.create_connection, (context.addresses[receiver], PORT), 10)
        with connection:
            connection.sendall(bytes(size_byte))
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)  # the receiver closes when it has everything
        took_ns = context.now_ns() - begun_ns
        context.record(sender=sender, size_byte=size_byte, took_ns=took_ns, goodput_bit_s=size_byte * 8e9 / took_ns)


def _receive_all(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        with connection:
            while connection.recv(1 << 16):
                pass
