"""The way out of a network in a guest kernel: programs in nodes ask a server in a network that the test has made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from isl_emu.errors import MachineError
from isl_emu.parts.way_out.nat import library
from tests.runs import INVALID, PATIENCE_S, ROOT
from tests.scenarios import quiet_ring, table

SERVER = "198.51.100.7"
ASK = f"""
import json, socket, time
told = {{}}
def ask(kind, to, port):
    with socket.socket(socket.AF_INET, kind) as one:
        one.settimeout(4)
        try:
            one.connect((to, port))
            one.send(b"hello")
            return one.recv(100).decode()
        except OSError as error:
            return type(error).__name__
told["tcp"] = ask(socket.SOCK_STREAM, "{SERVER}", 8000)
told["udp"] = ask(socket.SOCK_DGRAM, "{SERVER}", 8000)
told["no node"] = ask(socket.SOCK_STREAM, "10.9.9.9", 8000)
told["loopback"] = ask(socket.SOCK_STREAM, "192.0.0.1", 8000)
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
udp = socketserver.UDPServer(("{SERVER}", 8000), ToldByDatagram)
threading.Thread(target=udp.serve_forever, daemon=True).start()
tcp = socketserver.TCPServer(("", 8000), Told)
print("serving", flush=True)
tcp.serve_forever()
"""
INSIDE = f"""
ip link set lo up && ip address add {SERVER}/32 dev lo || exit 99
"$PYTHON" -c "$SERVE" | {{ read -r serving; "$@"; echo "$?" > "$STATUS"; ip -oneline link; ip route; kill 0; }}
"""


@pytest.mark.emulation
def test_programs_reach_what_the_machine_reaches_by_a_gateway(tmp_path: Path) -> None:
    try:
        library()
    except MachineError as error:
        pytest.skip(str(error))
    if subprocess.run(["unshare", "--net", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not make networks")
    text = quiet_ring("8 s", step="1 s") + table("way_out", gateway="gs-chengdu")
    for node in ("p00s05", "gs-chengdu"):
        words = ["/usr/bin/python3", "-S", "-c", ASK]
        text += table("[program]", name=f"asks-{node}", node=node, at="1 s", command=words, may_fail=True)
    (tmp_path / "scenario.toml").write_text(text)
    run = [sys.executable, "-m", "isl_emu", "run", str(tmp_path / "scenario.toml"), "--out", str(tmp_path / "out")]
    options = ["--machine", "guest", "--no-report", "--allow-network"]
    done = subprocess.run(
        ["unshare", "--net", "setsid", "sh", "-c", INSIDE, "sh", *run, *options],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHON": sys.executable, "SERVE": SERVE,
             "STATUS": str(tmp_path / "status"), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert int((tmp_path / "status").read_text()) in (0, INVALID), done.stdout + done.stderr
    for node in ("p00s05", "gs-chengdu"):
        told = json.loads((tmp_path / "out" / "files" / node / "told.json").read_text())
        assert (told["tcp"], told["udp"]) == (f"tcp from {SERVER}", f"udp from {SERVER}")
        assert told["no node"] == "OSError" and told["loopback"] == "OSError"  # there is no route
        assert told["names"] == "nameserver 192.0.0.3\n"
    left = done.stdout.splitlines()[-1]
    assert left.startswith("1: lo"), done.stdout  # neither an interface nor a route is on the machine
