"""Every command on docs/running.md and docs/captures.md is one that isl-emu understands, with just these options."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from isl_emu.cli import cli

DOCS = Path(__file__).parents[2] / "docs"
PAGES = "".join((DOCS / name).read_text(encoding="utf-8") for name in ("running.md", "captures.md"))
IN_BLOCKS = [line.split(" | ")[0] for line in re.findall(r"^isl-emu (.*?) *(?:#.*)?$", PAGES, re.MULTILINE)]
COMMANDS = sorted({*re.findall(r"`isl-emu ([^`]+)`", PAGES), *IN_BLOCKS})


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_on_the_page_is_understood(line: str, tmp_path: Path) -> None:
    words = [str(tmp_path) if word == "FOLDER" else word for word in shlex.split(line)]
    command = cli.commands[words[0]]
    arguments = words[1:]
    if not arguments and command.params and any(param.required for param in command.params):
        return  # only named
    context = click.Context(cli)
    with context, command.make_context(words[0], arguments, parent=context):
        pass  # it is parsed, and its types are checked, but nothing is done


def test_the_page_has_commands() -> None:
    assert len(COMMANDS) > 10
