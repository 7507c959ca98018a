"""What a live run answers when it is asked from a second terminal: its status, a link's state, a command in a node."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from isl_emu.errors import MachineError, NetworkError
from isl_emu.files import read_json
from isl_emu.linkplan.contacts import comes_back
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.live.commands import in_terminal, run_command
from isl_emu.live.control import Answer, Handler, pack, unpack
from isl_emu.live.course import Course, seconds
from isl_emu.live.interventions import Interventions
from isl_emu.network.net import IslNet
from isl_emu.network.overrides import Override, least_delay_ns
from isl_emu.network.queues import queue_name
from isl_emu.nodes.mounts import IMAGE_ROOT
from isl_emu.nodes.namespaces import enter_network, in_own_thread
from isl_emu.parts.node_faults import NodeFaults
from isl_emu.parts.registry import PARTS
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.portion import FILE as CUT
from isl_emu.scenario.model import Scenario
from isl_emu.units import DURATION_NS, NS_PER_MS, NS_PER_S, RATE_BIT_S, format_quantity, seconds_text

POLL_S = 0.05
RESULTS_VARIABLE = "ISL_EMU_RESULTS"  # where results go in the end, of a run that is on another machine


@dataclass(frozen=True)
class LiveAnswers:
    """The answers of one live run."""

    plan: LinkPlan
    net: IslNet
    folder: RunFolder
    scenario: Scenario
    course: Course
    interventions: Interventions
    node_faults: NodeFaults
    of_parts: Mapping[str, Handler]

    def handlers(self) -> dict[str, Handler]:
        """The answers by verb."""
        own = {"status": self.status, "link": self.link, "exec": self.exec, "push": self.push, "pull": self.pull}
        own |= {"pause": self.pause, "resume": self.resume, "stop": self.stop}
        own |= {"stand": self.stand, "release": self.release}
        return {**self.of_parts, **own, "fault": self.fault, "set": self.override, "restore": self.restore}

    def status(self, request: Mapping[str, Any], answer: Answer) -> int:
        """Where the run stands."""
        grid, t_ns = self.plan.grid, self.course.t_ns()
        paused = "paused at " if self.course.paused else ""
        lines = [
            f"{paused}t = {t_ns / NS_PER_S:.1f} s of {seconds_text(grid.duration_ns)}, "
            f"{grid.utc(t_ns):%Y-%m-%d %H:%M:%S} UTC",
            f"{len(self.plan.nodes.names)} nodes, {len(self._up().link)} of {len(self.plan.links.a)} links up",
        ]
        if not self._shared:  # otherwise who asks counts what all guests have
            lines += [line for part in PARTS for line in part.status(self.folder.journal)]
        lines += [f"by hand: {one}" for one in self.interventions.in_force]
        lines.append(f"results: {os.environ.get(RESULTS_VARIABLE, self.folder.path)}")
        answer.output.write(("\n".join(lines) + "\n").encode())
        return 0

    def link(self, request: Mapping[str, Any], answer: Answer) -> int:
        """What the plan says of the link between two nodes now, and what the kernel says at the ends that it has."""
        link, place = self._link("link", self._known(request["a"]), self._known(request["b"]))
        if not request.get("ends_alone"):
            answer.output.write(f"plan: {self._planned(link)}\n".encode())
            for one in self.interventions.in_force:
                if one.override is not None and link in one.override.links:
                    answer.output.write(f"by hand: {one}\n".encode())
            if cut := self._cut_by_hand(link):
                answer.output.write(f"now: {cut}\n".encode())
        for end, name in enumerate(place, 2 * link):
            if name in self.net:
                interface = self.net.backend.wiring.interface[end]
                answer.output.write(f"{name} {interface}:\n".encode())
                answer.output.write(in_own_thread(_shaping, self.net.get(name).netns_path, interface))
        return 0

    @property
    def _shared(self) -> bool:
        """Whether several guests share the run."""
        return self.net.portion.count > 1

    def exec(self, request: Mapping[str, Any], answer: Answer) -> int:
        """Run a command in a node until it ends or nobody waits for it any more; its status is as a shell has it."""
        node = self._node(request["node"])
        if self.course.frozen and node.container is not None:
            raise MachineError(
                f"exec: {node.name} stands still, but a program is to run in it; use `isl-emu resume` first"
            )
        if node.container is not None and node.container.suspended:
            raise MachineError(
                f"exec: the computer of {node.name} is off, but a program is to run in it; wait until its battery or "
                f"temperature lets it go on (`isl-emu status`)"
            )
        if request.get("terminal"):
            return in_terminal(node, request, answer)
        return run_command(node, request, answer)

    def push(self, request: Mapping[str, Any], answer: Answer) -> int:
        """Write a file or folder, which comes as a tar archive, to a path in a node."""
        node = self._node(request["node"])
        with _copying(node, request["path"]), io.BufferedReader(_Input(answer)) as archive:
            node.call(unpack, archive, request["path"], node.out, _root_of(node))
        return 0

    def pull(self, request: Mapping[str, Any], answer: Answer) -> int:
        """Print a file or folder of a node as a tar archive."""
        node = self._node(request["node"])
        with _copying(node, request["path"]):
            node.call(pack, request["path"], node.out, answer.output, _root_of(node))
        return 0

    def pause(self, request: Mapping[str, Any], answer: Answer) -> int:
        """Pause; answered when the run stands."""
        return _say_time(answer.output, "paused at", self.course.pause(request["at_ns"], answer.cancelled))

    def resume(self, request: Mapping[str, Any], answer: Answer) -> int:
        """Go on; answered at once, or with a next pause when the run stands again."""
        _say_time(answer.output, "goes on at", self.course.resume())
        if request["until_ns"] is None:
            return 0
        return _say_time(answer.output, "paused at", self.course.pause(request["until_ns"], answer.cancelled))

    def stop(self, request: Mapping[str, Any], answer: Answer) -> int:
        """End the run in order; answered when it ends."""
        if self._in_step(request):
            return _say_time(answer.output, "ends at", self.course.end_here(last=self.folder.part == 0))
        return _say_time(answer.output, "ends at", self.course.end(request["at_ns"], answer.cancelled))

    def stand(self, request: Mapping[str, Any], answer: Answer) -> int:
        """Have all guests stand at one instant, for what is asked of all of them then, until `release`: the instant."""
        t_ns = self.course.stand(request["asked"], request["at_ns"], answer.cancelled)
        if t_ns is None:
            return _say_time(answer.errors, "", None)
        answer.output.write(str(t_ns).encode())
        return 0

    def release(self, request: Mapping[str, Any], answer: Answer) -> int:
        """Let the guests go on."""
        self.course.release()
        return 0

    def _in_step(self, request: Mapping[str, Any]) -> bool:
        """Whether it is asked of all guests of the run; they do it where they stand."""
        if (t_ns := request.get("stand_ns")) is None:
            return False
        self.course.reach(t_ns)
        return True

    def fault(self, request: Mapping[str, Any], answer: Answer) -> int:
        """Break a link between two nodes, or a node, by hand, for a while or until it is restored."""
        if len(request["place"]) > 1:
            return self.override(request, answer)
        node, effect = self._known(request["place"][0]), request["effect"]
        here, for_ns, found = node in self.net, self._lasting(request), self.node_faults.of(node)
        if here and not found and effect != "power-off":
            raise NetworkError(
                f"fault: {node} is to have its programs broken, but nothing runs in it; name another node"
            )
        if any(one.place == (node,) for one in self.interventions.in_force):
            raise NetworkError(
                f"fault: {node} is broken by hand already, but only once at a time; use `isl-emu restore {node}` first"
            )
        ends, number = self.plan.links, self.plan.nodes.index(node)
        links = tuple(np.flatnonzero((ends.a == number) | (ends.b == number)).tolist())
        override = Override(links, cut=True) if effect == "power-off" and links else None
        whole = node if effect == "power-off" else None

        def do() -> None:
            if here:
                self.node_faults.begin(effect, found, whole)

        def undo() -> None:
            self.node_faults.end(effect, found)

        self._in_step(request)
        t_ns = self.interventions.begin((node,), effect, override, for_ns, do, undo)
        answer.output.write(f"{node}: {effect} at t = {seconds(t_ns)}\n".encode())
        return 0

    @staticmethod
    def _lasting(request: Mapping[str, Any]) -> int | None:
        for_ns: int | None = request["for_ns"]
        if for_ns is not None and for_ns <= 0:
            raise NetworkError(f"{request['verb']}: is to last {seconds(for_ns)}, but that is no time; give more")
        return for_ns

    def override(self, request: Mapping[str, Any], answer: Answer) -> int:
        """Change the link between two nodes by hand, for a while or until it is restored."""
        verb, (a, b) = request["verb"], map(self._known, request["place"])
        link, place = self._link(verb, a, b)
        for_ns, override = self._lasting(request), Override((link,), **request["changes"])
        self._check_lookahead(verb, link, override)
        self._in_step(request)
        t_ns = self.interventions.begin(place, override.text(), override, for_ns)
        note = "" if self._planned(link) != "down" else "; it is down by the plan, and stays so until that has it up"
        answer.output.write(f"{' - '.join(place)}: {override.text()} from t = {seconds(t_ns)}{note}\n".encode())
        return 0

    def restore(self, request: Mapping[str, Any], answer: Answer) -> int:
        """Let a link, a node or all be as the plan has it now, whatever was done by hand."""
        place: tuple[str, ...] | None = tuple(map(self._known, request["place"]))
        if place is not None and len(place) > 1:
            _, place = self._link("restore", *place)
        self._in_step(request)
        ended = self.interventions.end(place or None)
        if not ended and place:
            raise NetworkError(
                f"restore: {' - '.join(place)} is as planned, but something done by hand is to be taken back; "
                "`isl-emu status` lists what is"
            )
        lines = [f"{' - '.join(one.place)}: as planned from t = {seconds(t_ns)}" for one, t_ns in ended]
        answer.output.write(("\n".join(lines or ["nothing was done by hand"]) + "\n").encode())
        return 0

    def _check_lookahead(self, verb: str, link: int, override: Override) -> None:
        """Raise a NetworkError if a packet would be on a link between two guests for less than they may be apart."""
        links, part = self.plan.links, self.net.portion.part
        if part[links.a[link]] == part[links.b[link]]:
            return
        cut = read_json(self.folder.path / CUT)
        assert cut is not None, "the run is spread"
        least_ns = cut["lookahead_ns"]
        others = [one.override for one in self.interventions.in_force if one.override and link in one.override.links]
        found_ns = least_delay_ns(self.plan, link, [*others, override])
        if found_ns < least_ns:
            raise NetworkError(
                f"{verb}: {override.text()} lets packets arrive after {max(found_ns, 0) / NS_PER_MS:g} ms, but the "
                f"link leads from one guest of the run to another, where none takes less than {least_ns / NS_PER_MS:g} "
                "ms; choose a longer delay, or run it with --guests 1"
            )

    def _link(self, verb: str, a: str, b: str) -> tuple[int, tuple[str, str]]:
        """The number of a link, and its ends as the plan orders them."""
        nodes, links = self.plan.nodes, self.plan.links
        first, second = sorted((nodes.index(a), nodes.index(b)))
        found = np.flatnonzero((links.a == first) & (links.b == second))
        if not len(found):
            raise NetworkError(f"{verb}: {a} and {b} are two nodes, but this plan never links them; see `isl-emu plan`")
        return int(found[0]), (nodes.names[first], nodes.names[second])

    def _known(self, name: str) -> str:
        if name not in self.plan.nodes.names:
            raise NetworkError(f"node: {name!r} is asked for, but the net has no such node; see `isl-emu plan`")
        return name

    def _node(self, name: str) -> Any:
        return self.net.get(self._known(name))

    def _planned(self, link: int) -> str:
        nodes, links, up = self.plan.nodes, self.plan.links, self._up()
        at = np.flatnonzero(up.link == link)
        if not len(at):
            from isl_emu.linkplan.reasons import why_down  # noqa: PLC0415  slow to import, as it plans; few runs ask

            k, grid = self.plan.grid.instant_at(self.course.t_ns()), self.plan.grid
            again, reason = comes_back(self.plan, link, k), why_down(self.scenario, self.plan, link, k)
            when = "stays down until the end" if again is None else f"comes back at t = {seconds(again * grid.step_ns)}"
            return f"down: {reason}; {when}"
        row, scale = int(at[0]), self.plan.rate_scale
        rates = (int(rates[row] * scale) for rates in (up.rate_ab_bit_s, up.rate_ba_bit_s))
        there, back = (format_quantity(rate, RATE_BIT_S) for rate in rates)
        a, b = (nodes.names[int(ends[link])] for ends in (links.a, links.b))
        delay = format_quantity(int(up.delay_ns[row]), DURATION_NS)
        return f"up, {delay} one way, {there} from {a} to {b}, {back} back, as shaped"

    def _cut_by_hand(self, link: int) -> str | None:
        """Why a link is down that somebody has cut by hand, and when it comes back; None if nobody has."""
        laid = [one for one in self.interventions.in_force if one.override and link in one.override.links]
        cutting = [one for one in laid if one.override and (one.override.cut or one.override.loss_ratio == 1)]
        if not cutting:
            return None
        ends_ns = [one.until_ns for one in cutting if one.until_ns is not None]
        when, grid, until_ns = "stays down until the end", self.plan.grid, max(ends_ns, default=0)
        if len(ends_ns) < len(cutting):
            when = "stays down until somebody restores it"
        elif until_ns < grid.duration_ns:
            k = grid.instant_at(until_ns)
            up = link in self.plan.snapshot(k).link
            again = comes_back(self.plan, link, k)
            if up or again is not None:
                when = f"comes back at t = {seconds(until_ns if up or again is None else again * grid.step_ns)}"
        told = " and ".join(f"{' - '.join(one.place)}: {one.text}" for one in cutting)
        return f"down: an intervention ({told}); {when}"

    def _up(self) -> Any:
        return self.plan.snapshot(self.plan.grid.instant_at(self.course.t_ns()))


class _Input(io.RawIOBase):
    """What the asking side gives to read, as a file."""

    def __init__(self, answer: Answer):
        self._answer, self._rest = answer, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = self._answer.read()
            if piece == b"":
                return 0
            if self._answer.cancelled():
                raise InterruptedError("nobody waits for it any more")
            self._rest = piece or b""
            if piece is None:
                time.sleep(POLL_S)
        taken, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)


@contextmanager
def _copying(node: Any, path: str) -> Iterator[None]:
    """Say of a file in a node that cannot be read or written which it is, and why."""
    try:
        yield
    except OSError as error:
        raise MachineError(
            f"cp: {node.name}:{path} cannot be copied ({error.strerror or error}), but it must be there and readable, "
            "or its folder writable; name another"
        ) from None


def _root_of(node: Any) -> str:
    """The root folder of the user's programs in a node, as it is seen there; empty if it is the machine's."""
    return IMAGE_ROOT if node.container is not None and node.container.image is not None else ""


def _say_time(output: BinaryIO, what: str, t_ns: int | None) -> int:
    if t_ns is None:
        output.write(b"the run has gone on or ended before\n")
        return 1
    output.write(f"{what} t = {seconds(t_ns)}\n".encode())
    return 0


def _shaping(netns_path: str, interface: str) -> bytes:
    """What the kernel says of an interface, and of the managed queue before it if there is one.

    Asked in the node itself, since its container may stand still.
    """
    enter_network(netns_path)
    here = {name: index for index, name in socket.if_nameindex()}
    names = [interface, queue_name(here[interface])]
    show = [["tc", "-s", "qdisc", "show", "dev", name] for name in names if name in here]
    return b"".join(subprocess.run(words, stdout=subprocess.PIPE, check=False).stdout for words in show)
