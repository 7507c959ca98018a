"""The manual of the command line: commands by what they are for, an example of each, and what holds for all of them.

`isl-emu --help` prints it, the man page and the documentation are made of it, and tests parse every example.
"""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import get_completion_class

from isl_emu.limits import LIMITS

SHELLS = ("bash", "zsh", "fish")

SECTIONS = {
    "Begin here": ("scenarios", "doctor", "run", "view", "completion"),
    "Scenarios and plans": ("check", "plan", "show", "path", "export", "energy", "sites", "validate"),
    "A live run, from a second terminal": (
        "status",
        "top",
        "link",
        "exec",
        "shell",
        "cp",
        "pause",
        "resume",
        "stop",
        "fault",
        "set",
        "restore",
        "capture",
    ),
    "Results": ("report", "sweep", "compare", "conclude", "clean"),
}
EXAMPLES = {
    "scenarios": ("isl-emu scenarios",),
    "doctor": ("isl-emu doctor",),
    "run": (
        "isl-emu run three-body --duration 60s --out results/first",
        "isl-emu run my.toml --clock exact --seed 7 --set questions.mean_interval=2s",
        "isl-emu run --resume results/first",
    ),
    "view": ("isl-emu view", "isl-emu view results/first --port 8000 --no-browser", "isl-emu view starlink-shell-1"),
    "completion": ("isl-emu completion bash > /etc/bash_completion.d/isl-emu",),
    "check": ("isl-emu check my.toml", "isl-emu check a-strangers.toml --no-programs"),
    "plan": ("isl-emu plan starlink-shell-1 --duration 10min --out shell.plan.parquet",),
    "show": (
        "isl-emu show three-body --pair gs-sanya p00s06 --out pictures --format svg",
        "isl-emu show three-body --film sky.gif",
    ),
    "path": ("isl-emu path three-body gs-sanya p00s06 --at 30s", "isl-emu path RUN p00s01 p00s02 --at 11s"),
    "export": ("isl-emu export three-body --format czml --out three-body.czml",),
    "energy": ("isl-emu energy dawn-dusk-energy --duration 24h --out pictures",),
    "sites": ("isl-emu sites sanya",),
    "validate": ("isl-emu validate --json checks.json", "isl-emu validate --measured"),
    "status": ("isl-emu status",),
    "top": ("isl-emu top", "isl-emu top results/first --once"),
    "link": ("isl-emu link p00s00 p00s01",),
    "exec": ("isl-emu exec p00s00 -- ping -c 3 gs-sanya", "isl-emu exec gs-sanya -- sh"),
    "shell": ("isl-emu shell p00s00",),
    "cp": ("isl-emu cp model.gguf p00s00:model.gguf", "isl-emu cp p00s00:log.txt ."),
    "pause": ("isl-emu pause --at 30s",),
    "resume": ("isl-emu resume --until 45s",),
    "stop": ("isl-emu stop",),
    "fault": ("isl-emu fault p00s00 p00s01 --loss 0.1 --for 20s", "isl-emu fault p00s03 --kill"),
    "set": ("isl-emu set p00s00 p00s01 --delay 40ms --rate 1Gbit/s",),
    "restore": ("isl-emu restore --all",),
    "capture": (
        "isl-emu capture p00s00 p00s01 --duration 10s --out laser.pcapng",
        'isl-emu capture p00s00 --filter "udp and host gs-sanya"',
    ),
    "report": ("isl-emu report results/first --figures figures --format pdf",),
    "sweep": (
        "isl-emu sweep three-body --set questions.mean_interval=4s,8s --seeds 5 --out results/load",
        "isl-emu sweep three-body --seeds 20 --cluster local:2",
    ),
    "compare": ("isl-emu compare results/first results/second",),
    "conclude": ("isl-emu conclude results/first",),
    "clean": ("isl-emu clean",),
}
STATUS = {
    "0": "done",
    "1": "failed; one sentence says where, what was found, what is allowed and what to do",
    "2": "wrong usage",
    "3": "the run is done, but marked invalid, or somebody changed its network meanwhile",
    "130": "interrupted",
    "141": "nobody reads its output any more",
}
ENVIRONMENT = {
    "ISL_EMU_DEBUG": "if set, a failure prints its traceback, as --debug does",
    **{limit.variable: f"the most {limit.what} ({limit.usual:,})" for limit in LIMITS},
}
FILES = {
    "results/NAME-TIME": "what a run leaves: tables (Parquet, JSON), summary.txt, report.html",
    "NAME.toml": "a scenario; a name alone is that of a shipped one if there is no such file, and - is standard input",
}


class _Command(click.Command):
    """A command whose help ends with its examples."""

    def __init__(self, name: str | None, **attributes: Any):
        examples = "\n".join(f"  {line}" for line in EXAMPLES.get(name or "", ()))
        super().__init__(name, epilog=f"\b\nExamples:\n{examples}", **attributes)


class Manual(click.Group):
    """All commands: its help lists them by what they are for, and ends with what holds for all."""

    command_class = _Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names, in the order of the manual."""
        return [name for names in SECTIONS.values() for name in names]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """A list for each purpose."""
        for heading, names in SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(200)) for name in names])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Exit status, environment, files."""
        for heading, entries in (("Exit status", STATUS), ("Environment", ENVIRONMENT), ("Files", FILES)):
            with formatter.section(heading):
                formatter.write_dl(list(entries.items()))


def completion_script(command: click.Command, shell: str) -> str:
    """What a shell has to read so that it completes the words of `isl-emu`."""
    kind = get_completion_class(shell)
    assert kind is not None, shell
    return kind(command, {}, "isl-emu", "_ISL_EMU_COMPLETE").source()
