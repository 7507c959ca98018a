"""Satellites, stations and laser links as Mininet nodes and links: a node is a namespace, with a shell only if asked.

A shell or program is started from a thread that has entered the node's namespaces, so it costs one exec, and no helper
program (Mininet's `mnexec` closes every possible descriptor) is needed.

Mininet has no types, so these classes declare what they use of it, with its types.
"""

from __future__ import annotations

import os
import pty
import select
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from mininet.link import Intf, Link
from mininet.node import Node
from mininet.util import isShellBuiltin

from isl_emu.nodes.containers import NODE_VARIABLE, OUT_VARIABLE, Container
from isl_emu.nodes.mounts import MS_BIND, MS_PRIVATE, MS_REC, mount
from isl_emu.nodes.namespaces import (
    CLONE_NEWNS,
    CLONE_NEWUTS,
    Result,
    enter_network,
    in_own_thread,
    set_host_name,
    unshare,
)

PROMPT = chr(127)  # what Mininet waits for
# A session leader that opens a terminal gets it as its own: then Ctrl-C in it reaches what the shell runs.
SHELL = ["/bin/sh", "-c", 'exec bash --norc --noediting -is "$0" 0<>/proc/self/fd/0 1>&0 2>&1']
ANNOUNCE_PID = r"printf '\001%d\012' $$; exec "  # what Mininet reads a program's process id from


class SpaceNode(Node):
    """A Mininet node that is a network namespace.

    Args:
        name: of the node.
        netns_path: the file that holds its namespace.
        files: what its shells and programs see in place of files of the machine, by their paths.
        entering: called before anything that is not ours is let in, whoever else may change the node's network.
        params: Mininet's; `ip` is the loopback address.
    """

    name: str
    params: dict[str, Any]
    shell: subprocess.Popen[bytes] | None
    out: Path | None = None  # a folder for the files of its programs, who find it as $ISL_EMU_OUT
    about: Path | None = None  # the file that tells of the node, if it is told: $ISL_EMU_NODE

    def __init__(
        self,
        name: str,
        netns_path: str,
        files: Mapping[str, str],
        entering: Callable[[], object] = lambda: None,
        **params: Any,
    ):
        self.netns_path, self._files, self._entering = netns_path, files, entering
        self._container: Container | None = None
        super().__init__(name, inNamespace=True, **params)

    @property
    def address(self) -> str:
        """The loopback IPv4 address."""
        ip: str = self.params["ip"]
        return ip.split("/", maxsplit=1)[0]

    @property
    def container(self) -> Container | None:
        """The container in this node, if the satellite computes; shells and programs then run inside it."""
        return self._container

    @container.setter
    def container(self, container: Container | None) -> None:
        self.terminate()
        self._entering()
        self._container = container

    def IP(self, intf: Any = None) -> str:
        """The loopback address: links have none."""
        return self.address

    def addIntf(self, intf: Intf, port: int | None = None, moveIntfFn: Callable[..., object] | None = None) -> None:
        """Add an interface; that of a link is in the node from the first, and Mininet would tell of it at length."""
        if port is None or moveIntfFn is not Link._ignore:
            super().addIntf(intf, port, *([moveIntfFn] if moveIntfFn else []))
            return
        self.intfs[port], self.ports[intf], self.nameToIntf[intf.name] = intf, port, intf

    def defaultIntf(self) -> Intf:
        """An interface whose address is the node's: its loopback where it has no link."""
        return super().defaultIntf() if self.intfs else Loopback(self)

    def restart_shell(self) -> None:
        """End the shell, and whatever it runs; the next command starts a new one."""
        self.terminate()
        self.waiting = False

    def startShell(self, mnopts: str | None = None) -> None:
        """Nothing: the shell starts with the first command."""

    def sendCmd(self, *args: Any, **kwargs: Any) -> None:
        """Send a command to the shell; read the answer with `monitor` or `waitOutput`."""
        self._need_shell()
        command = args[0] if len(args) == 1 else args
        command = command if isinstance(command, str) else " ".join(map(str, command))
        if kwargs.pop("printPid", False) and command.strip()[-1:] != "&" and not isShellBuiltin(command):
            command = f"bash -c {shlex.quote(ANNOUNCE_PID + command)}"
        super().sendCmd(command, **kwargs)

    def cmd(self, *args: Any, **kwargs: Any) -> str:
        """Send a command to the shell and return what it prints."""
        self._need_shell()
        printed: str = super().cmd(*args, **kwargs)
        return printed

    @overload
    def popen(self, *args: Any, text: Literal[True], **kwargs: Any) -> subprocess.Popen[str]: ...

    @overload
    def popen(self, *args: Any, text: Literal[False] = False, **kwargs: Any) -> subprocess.Popen[bytes]: ...

    def popen(self, *args: Any, **kwargs: Any) -> subprocess.Popen[Any]:
        """Start a program in this node; arguments as for `subprocess.Popen`, or a string that is split at blanks."""
        process: subprocess.Popen[Any] = super().popen(*args, **{"mncmd": [], **kwargs})
        return process

    def popen_in_out(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a program in this node whose working directory is the folder of the node's files, if it has one."""
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)
        return self._popen(argv, cwd=self.out, **options)

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function in a thread that sees this node's files, and return what it returns."""
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)
        if self._container is not None:
            return self._container.call(function, *arguments)
        self._entering()
        return in_own_thread(function, *arguments)

    def config(self, **_params: Any) -> dict[str, Any]:
        """Nothing: the namespace is configured when the net is made."""
        return {}

    @classmethod
    def setup(cls) -> None:
        """Nothing: neither mnexec nor ifconfig is needed."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {self.address} {','.join(self.intfNames())} pid={self.pid}> "

    def _popen(self, cmd: Sequence[str], **params: Any) -> subprocess.Popen[Any]:
        """What Mininet starts every program with."""
        if self._container is not None:
            return self._container.popen(cmd, own=True, **params)
        self._entering()
        places = {OUT_VARIABLE: self.out, NODE_VARIABLE: self.about}
        own = {variable: str(place) for variable, place in places.items() if place is not None}
        params["env"] = {**(os.environ if params.get("env") is None else params["env"]), **own}
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)

        def start() -> subprocess.Popen[Any]:
            enter_network(self.netns_path)
            unshare(CLONE_NEWNS | CLONE_NEWUTS)
            set_host_name(self.name)
            mount("none", "/", None, MS_REC | MS_PRIVATE)
            for place, own in self._files.items():
                if os.path.exists(place):  # not every machine has each
                    mount(own, place, None, MS_BIND)
            return subprocess.Popen(cmd, **{"start_new_session": True, **params})

        return in_own_thread(start)

    @property
    def waiting(self) -> bool:
        """Whether its shell works on a command; one that has ended does not."""
        return self._waiting and self.shell is not None and self.shell.poll() is None

    @waiting.setter
    def waiting(self, waiting: bool) -> None:
        self._waiting = waiting

    def _need_shell(self) -> None:
        if self.shell and self.shell.poll() is None:
            return
        self.restart_shell()
        self.master, self.slave = pty.openpty()
        environment = {**os.environ, "PS1": PROMPT}
        environment.pop("PROMPT_COMMAND", None)
        streams = {"stdin": self.slave, "stdout": self.slave, "stderr": self.slave}
        self.shell = self.popen_in_out([*SHELL, f"mininet:{self.name}"], env=environment, **streams)
        os.close(self.slave)  # so that it is heard when the shell ends; Mininet closes what stands for it here
        self.slave = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self.stdin = self.stdout = os.fdopen(self.master, "r")
        self.pid = self.shell.pid
        self.pollOut = select.poll()
        self.pollOut.register(self.stdout)
        self.outToNode[self.stdout.fileno()] = self.inToNode[self.stdin.fileno()] = self
        self.readbuf = ""
        while not self.read(1024).endswith(PROMPT):
            self.pollOut.poll()
        self.cmd("unset HISTFILE; stty -echo; set +m")


class SatelliteNode(SpaceNode):
    """A satellite."""


class StationNode(SpaceNode):
    """A ground station."""


class PlaceNode(SpaceNode):
    """A node on the ground without antennas."""


class LaserInterface(Intf):
    """One end of a link; it exists, is up and is shaped without any command of Mininet's."""

    name: str
    node: SpaceNode
    mac: str

    def config(self, **_params: Any) -> dict[str, Any]:
        """Nothing: the interface is configured when the net is made."""
        return {}

    def IP(self) -> str:
        """The node's loopback address: links have none."""
        return self.node.address

    def updateIP(self) -> str:
        """The node's loopback address, without asking the kernel: it never changes."""
        return self.node.address

    def updateMAC(self) -> str:
        """The hardware address, without asking the kernel: it never changes."""
        return self.mac

    def updateAddr(self) -> tuple[str, str]:
        """Loopback and hardware address."""
        return self.node.address, self.mac

    def ifconfig(self, *args: str) -> str:
        """Set the interface up or down, or show it: Mininet's `link a b down` comes here."""
        return self.node.cmd("ip", "link", *(("set", self.name, *args) if args else ("show", self.name)))

    def isUp(self, setUp: bool = False) -> bool:
        """Whether the interface is up, after setting it up if asked."""
        if setUp:
            self.ifconfig("up")
        return ",UP" in self.ifconfig()

    def status(self) -> str:
        """OK or MISSING."""
        return "OK" if f": {self.name}@" in self.node.cmd("ip", "link", "show") else "MISSING"


class Loopback:
    """The loopback interface of a node, for who asks an interface for the node's address."""

    name = "lo"

    def __init__(self, node: SpaceNode):
        self.node = node

    def updateIP(self) -> str:
        """The node's address."""
        return self.node.address


class LaserLink(Link):
    """A laser or ground link between two nodes whose interfaces exist already."""

    intf1: LaserInterface
    intf2: LaserInterface

    @classmethod
    def makeIntfPair(cls, *_args: Any, **_kwargs: Any) -> None:
        """Nothing: all pairs are made at once when the net is made."""
