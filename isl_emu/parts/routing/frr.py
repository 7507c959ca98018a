"""FRR's daemons in each node: what they are told, and how they are started.

A pure part writes their configurations from the scenario and the plan. Stations are ends: their daemons tell the others
not to route through them, as our own policies do not. Routes are made to the nodes' own addresses alone, and packets
that a node sends by its own choice have that address.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from isl_emu.errors import MachineError
from isl_emu.linkplan.plan import LinkPlan, NodeKind
from isl_emu.network.naming import interface_name, ipv4_address, link_address
from isl_emu.parts.activity import Activity
from isl_emu.parts.live_run import LiveRun
from isl_emu.runs.process import Watched, end
from isl_emu.scenario.routing import Routing, RoutingDaemon
from isl_emu.units import NS_PER_S

PROGRAMS = Path("/usr/lib/frr")  # where Debian's package has them
DAEMONS = {"ospf": "ospfd", "isis": "isisd", "bgp": "bgpd"}
COST_WORDS = {"ospf": "ip ospf cost", "isis": "isis metric"}  # of an interface, before what it costs
OWN = "/dev/shm"  # private to each container, in memory, and no place of results: all files that daemons make
PREPARE = (  # where they and vtysh look for their sockets, and where they keep what a crash would tell
    f"mkdir -p /var/run /var/tmp && ln -sfn {OWN} /var/run/frr && ln -sfn {OWN} /var/tmp/frr"
)
PATIENCE = Path(__file__).with_name("patience.c")
COST_NS = 10_000  # of a delay: what a link costs at the least, so that 65,535 is two thirds of a second
MOST_COST = 65_535  # OSPF's, in 16 bits (RFC 2328); IS-IS counts further (RFC 5305)
FIRST_AS = 4_200_000_000  # private autonomous systems (RFC 6996)
READY_S, LOOK_S, LAST_WORDS_S = 60.0, 0.02, 3.0


def check_frr(protocol: str) -> None:
    """Refuse a run for which this machine lacks a daemon.

    Raises:
        MachineError: it is missing.
    """
    for name in ("zebra", DAEMONS[protocol]):
        if not (PROGRAMS / name).exists():
            raise MachineError(
                f"routing.daemon: there is no {PROGRAMS / name}, but FRR's daemons make the routes; "
                "install it: sudo apt-get install --no-install-recommends frr"
            )


def link_costs(plan: LinkPlan, daemon: RoutingDaemon) -> np.ndarray:
    """What each link costs: its mean planned delay in units of `COST_NS`, or 1; int64, (L,)."""
    if daemon.cost == "hops":
        return np.ones(len(plan.links.a), dtype=np.int64)
    count, total_ns = np.zeros((2, len(plan.links.a)))
    for piece in plan.pieces():
        link = plan.row_link[piece.rows]
        count += np.bincount(link, minlength=len(count))
        total_ns += np.bincount(link, plan.row_delay_ns[piece.rows], minlength=len(count))
    costs: np.ndarray = np.clip(np.rint(total_ns / np.maximum(count, 1) / COST_NS), 1, MOST_COST)
    return costs.astype(np.int64)


def configurations(plan: LinkPlan, routing: Routing, daemon: RoutingDaemon, node: int) -> Mapping[str, str]:
    """The configuration of each of a node's daemons, by the daemon's name."""
    links = plan.links
    ends = [int(end) for end in np.flatnonzero(np.stack([links.a, links.b], axis=1).ravel() == node)]
    peers = {end: int((links.a, links.b)[1 - end % 2][end // 2]) for end in ends}
    faces = {end: interface_name(plan.nodes.names[peer], end // 2) for end, peer in peers.items()}
    costs, station = link_costs(plan, daemon), plan.nodes.kind[node] == NodeKind.STATION
    name, own = plan.nodes.names[node], ipv4_address(node)
    hello_s, dead_s = daemon.hello_ns // NS_PER_S, daemon.dead_ns // NS_PER_S
    common = [f"hostname {name}", "log timestamp precision 6", "log stdout informational"]
    zebra = [
        *common,
        "no zebra nexthop kernel enable",  # so that a route names its links
        "ip prefix-list nodes seq 5 permit 10.0.0.0/8 ge 32",
        "route-map nodes permit 10",
        " match ip address prefix-list nodes",
        f" set src {own}",
        f"ip protocol {daemon.protocol} route-map nodes",
    ]
    lines = [*common]
    if daemon.protocol == "ospf":
        lines += ["interface lo", " ip ospf area 0", " ip ospf passive"]
        for end, face in faces.items():
            lines += [
                f"interface {face}", " ip ospf area 0", " ip ospf network point-to-point",
                f" ip ospf hello-interval {hello_s}", f" ip ospf dead-interval {dead_s}",
                f" {COST_WORDS['ospf']} {costs[end // 2]}",
            ]  # fmt: skip
        lines += ["router ospf", f" ospf router-id {own}", " maximum-paths 1"]
        lines += [" max-metric router-lsa administrative"] if station else []
    elif daemon.protocol == "isis":
        # The first lines are in force before a router has a name: what it tells first would hold for 30 s else.
        lines = [
            "router isis 1", " lsp-gen-interval 1", *common,
            "router isis 1", f" net 49.0001.0000.{node + 1 >> 16:04x}.{node + 1 & 0xFFFF:04x}.00",
            " is-type level-2-only",
        ]  # fmt: skip
        lines += [" set-overload-bit"] if station else []
        lines += ["interface lo", " ip router isis 1", " isis passive"]
        for end, face in faces.items():
            lines += [
                f"interface {face}", " ip router isis 1", " isis circuit-type level-2-only",
                " isis network point-to-point", " no isis hello padding", f" isis hello-interval {hello_s}",
                f" isis hello-multiplier {max(round(dead_s / hello_s), 2)}", f" {COST_WORDS['isis']} {costs[end // 2]}",
            ]  # fmt: skip
    else:
        lines += ["bgp as-path access-list own seq 5 permit ^$"] if station else []
        lines += [
            f"router bgp {FIRST_AS + node}", f" bgp router-id {own}", " no bgp ebgp-requires-policy",
            " no bgp default ipv4-unicast", f" timers bgp {hello_s} {dead_s}",
        ]  # fmt: skip
        for end, peer in peers.items():
            other = link_address(end ^ 1)
            lines += [
                f" neighbor {other} remote-as {FIRST_AS + peer}", f" neighbor {other} timers connect 1",
                f" neighbor {other} advertisement-interval 0", f" neighbor {other} interface {faces[end]}",
            ]  # fmt: skip
        lines += [" address-family ipv4 unicast", f"  network {own}/32", "  maximum-paths 1"]
        for end in ends:
            lines += [f"  neighbor {link_address(end ^ 1)} activate"]
            lines += [f"  neighbor {link_address(end ^ 1)} filter-list own out"] if station else []
        lines += [" exit-address-family"]
    return {"zebra": _text(zebra), DAEMONS[daemon.protocol]: _text(lines)}


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


class Daemons(Activity):
    """The daemons of all nodes here, from before instant 0 to the run's end; their logs stay in the nodes' files."""

    def __init__(self, live: LiveRun, daemon: RoutingDaemon):
        self._live = live
        self._processes: list[tuple[str, str, subprocess.Popen[bytes]]] = []
        live.undo.callback(self._stop)
        # in real time it only saves the CPU of asking again and again
        self._patience = _patience(live) if live.exact or shutil.which("cc") else None
        names = [live.plan.nodes.names[node] for node in live.portion.nodes]
        for node, name in zip(live.portion.nodes, names, strict=True):
            folder = live.folder.files_of(name).resolve() / "frr"
            folder.mkdir(parents=True, exist_ok=True)
            for program, text in configurations(live.plan, live.scenario.routing, daemon, node).items():
                (folder / f"{program}.conf").write_text(text)
            self._start(name, "zebra", folder)
        # To start them takes longer than neighbours wait for each other: none speaks before all are there.
        program, speakers = DAEMONS[daemon.protocol], []
        for name in names:
            self._await(name, "zebra", "zserv.api")
            speakers.append(self._start(name, program, live.folder.files_of(name).resolve() / "frr"))
            self._await(name, program, f"{program}.vty")
            speakers[-1].send_signal(signal.SIGSTOP)
        for speaker in speakers:  # not all greet at the same time
            speaker.send_signal(signal.SIGCONT)
            time.sleep(daemon.hello_ns / NS_PER_S / len(speakers))

    def watched(self) -> Iterator[Watched]:
        for node, program, process in self._processes:
            yield Watched(process, program, node, oom_kills=self._live.containers[node].oom_kills)

    def _start(self, node: str, program: str, folder: Path) -> subprocess.Popen[bytes]:
        words = [str(PROGRAMS / program), "-f", f"{OWN}/{program}.conf", "-i", f"{OWN}/{program}.pid", "-P", "0"]
        words += ["-e", "1"] if program == "zebra" else []  # over one next hop, of several that are as good
        shims = () if self._patience is None else (self._patience.fileno(),)
        preload = [f"LD_PRELOAD=/proc/self/fd/{shim}" for shim in shims]
        argv = ["/bin/sh", "-c", f'{PREPARE} && cat > {OWN}/{program}.conf && exec env "$@"', "sh", *preload, *words]
        with (folder / f"{program}.log").open("wb") as log, (folder / f"{program}.conf").open("rb") as told:
            process = self._live.containers[node].popen(
                argv, own=True, stdin=told, stdout=log, stderr=log, pass_fds=shims
            )
        self._processes.append((node, program, process))
        return process

    def _await(self, node: str, program: str, socket: str) -> None:
        """Wait until a daemon serves at its socket.

        Raises:
            MachineError: it does not.
        """
        deadline, container = time.monotonic() + READY_S, self._live.containers[node]
        path = Path(f"/proc/{container.pid}/root{OWN}") / socket
        while not path.exists():
            ended = [what for name, what, process in self._processes if name == node and process.poll() is not None]
            if ended or time.monotonic() > deadline:
                raise MachineError(
                    f"node {node}: {', '.join(ended) or program} is not ready, but makes the routes; see "
                    f"{self._live.folder.files_of(node)}/frr"
                )
            time.sleep(LOOK_S)

    def _stop(self) -> None:
        end([process for _, _, process in self._processes], LAST_WORDS_S)


def _patience(live: LiveRun) -> IO[bytes]:
    """What daemons need where time is virtual, compiled; open until the run ends.

    Raises:
        MachineError: there is no compiler.
    """
    file = Path(live.undo.enter_context(tempfile.TemporaryDirectory())) / "patience.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(file), str(PATIENCE), "-ldl"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = error.stderr.decode(errors="replace") if isinstance(error, subprocess.CalledProcessError) else str(error)
        raise MachineError(
            f"routing.daemon: {PATIENCE.name} cannot be compiled ({said.strip()[:200]}), but daemons need it in exact "
            "time; install gcc and libc6-dev, or use --clock real"
        ) from error
    return live.undo.enter_context(file.open("rb"))
