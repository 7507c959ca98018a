"""The manual of the command line: complete, and every example in it is understood."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from isl_emu.cli import cli
from isl_emu.limits import LIMITS
from isl_emu.manual import EXAMPLES, SECTIONS, SHELLS

VISIBLE = sorted(name for name, command in cli.commands.items() if not command.hidden)
LINES = [(name, line) for name, lines in EXAMPLES.items() for line in lines]


def test_each_command_has_its_place_and_examples() -> None:
    placed = [name for names in SECTIONS.values() for name in names]
    assert sorted(placed) == VISIBLE == sorted(EXAMPLES)
    assert all(EXAMPLES.values())


@pytest.mark.parametrize(("name", "line"), LINES, ids=[line for _, line in LINES])
def test_an_example_is_understood(name: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for run in ("first", "second"):
        Path("results", run).mkdir(parents=True)
    program, command, *words = shlex.split(line.partition(" > ")[0])
    assert (program, command) == ("isl-emu", name)
    with click.Context(cli) as parent, cli.commands[name].make_context(name, words, parent=parent):
        pass  # parsed, and not done


def test_help_says_what_holds_for_all_commands() -> None:
    text = CliRunner().invoke(cli, ["--help"]).output
    for heading in (*SECTIONS, "Exit status", "Environment", "Files"):
        assert f"\n{heading}:\n" in text
    assert all(limit.variable in text for limit in LIMITS)


@pytest.mark.parametrize("name", VISIBLE)
def test_help_of_a_command_ends_with_its_examples(name: str) -> None:
    text = CliRunner().invoke(cli, [name, "--help"]).output
    assert text.rstrip().endswith("\n".join(f"    {line}" for line in EXAMPLES[name]))


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_gets_its_script(shell: str) -> None:
    assert "_ISL_EMU_COMPLETE" in CliRunner().invoke(cli, ["completion", shell]).output


def test_names_of_scenarios_are_completed_beside_files() -> None:
    found = ShellComplete(cli, {}, "isl-emu", "_ISL_EMU_COMPLETE").get_completions(["run"], "three-body-20")
    assert [(item.value, item.type) for item in found] == [
        ("three-body-2030", "plain"),
        ("three-body-2035", "plain"),
        ("three-body-20", "file"),
    ]
