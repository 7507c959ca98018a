"""What a guest's network has of the machine: a way out to its network, and an interface; both made by the test."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from isl_emu.errors import MachineError
from isl_emu.parts.way_out.nat import library
from tests.runs import INVALID, PATIENCE_S, ROOT
from tests.scenarios import quiet_ring, table

SERVER, SERVER6 = "198.51.100.7", "2001:db8::7"
ASK = f"""
import json, socket, time
told = {{}}
def ask(kind, to, port):
    with socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, kind) as one:
        one.settimeout(4)
        try:
            one.connect((to, port))
            one.send(b"hello")
            return one.recv(100).decode()
        except OSError as error:
            return type(error).__name__
told["tcp"] = ask(socket.SOCK_STREAM, "{SERVER}", 8000)
told["udp"] = ask(socket.SOCK_DGRAM, "{SERVER}", 8000)
told["tcp6"] = ask(socket.SOCK_STREAM, "{SERVER6}", 8000)
told["udp6"] = ask(socket.SOCK_DGRAM, "{SERVER6}", 8000)
told["no node6"] = ask(socket.SOCK_STREAM, "fd00::9:9", 8000)
told["no node"] = ask(socket.SOCK_STREAM, "10.9.9.9", 8000)
told["loopback"] = ask(socket.SOCK_STREAM, "192.0.0.1", 8000)
told["hardware"] = ask(socket.SOCK_STREAM, "192.168.50.2", 8000)
told["hardware"] = ask(socket.SOCK_STREAM, "192.168.50.2", 8000)
told["names"] = open("/etc/resolv.conf").read()
json.dump(told, open("told.json", "w"))
"""
SERVE = f"""
import socketserver
class Told(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(b"tcp from " + self.client_address[0].encode())
class ToldByDatagram(socketserver.BaseRequestHandler):
    def handle(self):
        self.request[1].sendto(b"udp from " + self.client_address[0].encode(), self.client_address)
import threading
import socket
class Tcp6(socketserver.TCPServer):
    address_family = socket.AF_INET6
class Udp6(socketserver.UDPServer):
    address_family = socket.AF_INET6
udp = socketserver.UDPServer(("{SERVER}", 8000), ToldByDatagram)
udp6, tcp6 = Udp6(("{SERVER6}", 8000), ToldByDatagram), Tcp6(("{SERVER6}", 8000), Told)
for one in (udp, udp6, tcp6):
    threading.Thread(target=one.serve_forever, daemon=True).start()
tcp = socketserver.TCPServer(("", 8000), Told)
print("serving", flush=True)
tcp.serve_forever()
"""
SERVE_FAR = """
import fcntl, socket, socketserver, struct, ctypes
words = ctypes.create_string_buffer(struct.pack("=II", 0x17, 0))  # ETHTOOL_STXCSUM: it writes checksums itself
place = struct.pack("16sP16x", b"far7", ctypes.addressof(words))
fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0x8946, place)
class Told(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(b"hardware to " + self.client_address[0].encode())
tcp = socketserver.TCPServer(("", 8000), Told)
tcp.serve_forever()
"""
# A network that stands for the machine's, with a server, and an interface eth7 behind whose other end is another one.
INSIDE = f"""
ip link set lo up && ip address add {SERVER}/32 dev lo && ip address add {SERVER6}/128 dev lo || exit 99
ip netns add "$FAR" && ip link add eth7 type veth peer name far7 netns "$FAR" || exit 99
ip link set eth7 up && ip address add 192.0.2.9/24 dev eth7 && ip route add 203.0.113.0/24 via 192.0.2.1 || exit 99
ip -n "$FAR" link set far7 up; ip -n "$FAR" address add 192.168.50.2/24 dev far7
ip -n "$FAR" route add default via 192.168.50.1
echo before; ip -oneline link | cut -d ' ' -f 2; ip -4 -oneline address; ip route
ip netns exec "$FAR" "$PYTHON" -c "$SERVE_FAR" &
"$PYTHON" -c "$SERVE" | {{
    read -r serving; "$@" > "$SAID" 2>&1; echo "$?" > "$STATUS"
    echo after; ip -oneline link | cut -d ' ' -f 2; ip -4 -oneline address; ip route; ip netns del "$FAR"; kill 0
}}
"""


@pytest.mark.emulation
def test_programs_reach_the_machines_network_and_what_is_plugged_in(tmp_path: Path) -> None:
    try:
        library()
    except MachineError as error:
        pytest.skip(str(error))
    if subprocess.run(["unshare", "--net", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not make networks")
    text = quiet_ring("8 s", step="1 s") + table("way_out", gateway="gs-chengdu")
    text += table("[hardware]", node="p00s00", interface="eth7", address="192.168.50.1/24")
    for node in ("p00s05", "gs-chengdu"):
        words = ["/usr/bin/python3", "-S", "-c", ASK]
        text += table("[program]", name=f"asks-{node}", node=node, at="1 s", command=words, may_fail=True)
    (tmp_path / "scenario.toml").write_text(text)
    run = [sys.executable, "-m", "isl_emu", "run", str(tmp_path / "scenario.toml"), "--out", str(tmp_path / "out")]
    options = ["--machine", "guest", "--no-report", "--allow-network", "--allow-interface", "eth7"]
    done = subprocess.run(
        ["unshare", "--net", "setsid", "sh", "-c", INSIDE, "sh", *run, *options],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        env={
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHON": sys.executable, "PYTHONPATH": str(ROOT),
            "SERVE": SERVE, "SERVE_FAR": SERVE_FAR, "FAR": f"isl-test-{os.getpid()}",
            "SAID": str(tmp_path / "said"), "STATUS": str(tmp_path / "status"),
        },
    )  # fmt: skip
    assert int((tmp_path / "status").read_text()) in (0, INVALID), (tmp_path / "said").read_text()
    for node in ("p00s05", "gs-chengdu"):
        told = json.loads((tmp_path / "out" / "files" / node / "told.json").read_text())
        assert (told["tcp"], told["udp"]) == (f"tcp from {SERVER}", f"udp from {SERVER}")
        assert (told["tcp6"], told["udp6"]) == (f"tcp from {SERVER6}", f"udp from {SERVER6}")
        assert told["no node6"] == "OSError"
        assert told["no node"] == "OSError" and told["loopback"] == "OSError"  # there is no route
        assert told["names"] == "nameserver 192.0.0.3\n"
        assert told["hardware"].startswith("hardware to 10.0.0.")
    assert "this machine has no route by IPv6" in (tmp_path / "said").read_text()  # but to itself
    _, before, after = (part.strip() for part in re.split("before|after", done.stdout))
    assert "eth7" in before and "203.0.113.0/24 via 192.0.2.1" in before and "default" not in before
    assert after == before  # nothing of ours is there, and what was lent is as it was
