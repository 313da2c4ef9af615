"""The commands: listed without their imports, each with a help of one sentence."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from siftline.cli import _call, commands

NAMES = commands.list_commands(click.Context(commands))
LISTING = """
import sys
from siftline.cli import commands
commands.main(["--help"], standalone_mode=False)
heavy = {"dask", "distributed", "httpx", "numpy", "prefect", "pyarrow", "pydantic", "sklearn", "yaml"}
print(sorted(heavy & set(sys.modules)))
"""


def test_the_help_lists_every_command_without_importing_what_they_need() -> None:
    done = subprocess.run([sys.executable, "-c", LISTING], capture_output=True, text=True, check=True)

    *lines, imported = done.stdout.splitlines()
    listed = lines[lines.index("Commands:") + 1 :]
    assert [line.split()[0] for line in listed if line[2:3].strip()] == NAMES
    assert imported == "[]"


@pytest.mark.parametrize("name", NAMES)
def test_a_command_has_its_name_and_a_help_that_begins_with_a_short_sentence(name: str) -> None:
    command = commands.get_command(click.Context(commands), name)

    assert command is not None
    assert command.name == name
    first = (command.help or "").partition("\n")[0]
    assert 3 <= len(first.split()) <= 17, first


@pytest.mark.parametrize("arguments", [["show"], ["verify"], ["jobs", "--checkpoint"]])
def test_a_path_that_cannot_be_is_one_line(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["siftline", *arguments, "x" * 300])
    assert _call() == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.endswith(": File name too long; choose another path\n")
