"""Help and completion come at once: no module of a command is imported for them."""

from __future__ import annotations

import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from siftline.cli import commands

_HELP = """
import sys
from click.testing import CliRunner
from siftline.cli import commands
answer = CliRunner().invoke(commands, ["--help"])
assert answer.exit_code == 0 and "validate" in answer.output, answer.output
print(sorted({"dask", "httpx", "numpy", "prefect", "pyarrow", "pydantic", "yaml"} & set(sys.modules)))
"""


def test_the_help_imports_no_library_of_a_command() -> None:
    found = subprocess.run([sys.executable, "-c", _HELP], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_every_command_of_the_help_is_there_and_says_what_it_does() -> None:
    context = click.Context(commands)
    for name in commands.list_commands(context):
        command = commands.get_command(context, name)
        assert command is not None and command.name == name
        assert command.help


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_asks_the_command(shell: str) -> None:
    answer = CliRunner().invoke(commands, ["completion", shell])
    assert answer.exit_code == 0
    assert f"_SIFTLINE_COMPLETE={shell}_complete" in answer.output


@pytest.mark.parametrize(("words", "found"), [("siftline val", "validate"), ("siftline run --se", "--set")])
def test_commands_and_options_are_completed(words: str, found: str) -> None:
    place = str(len(words.split()) - 1)
    asked = {**os.environ, "COMP_WORDS": words, "COMP_CWORD": place, "_SIFTLINE_COMPLETE": "bash_complete"}
    code = "from siftline.cli import main; main()"
    answer = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv = ['siftline']; {code}"],
        env=asked,
        capture_output=True,
        text=True,
    )
    assert f"plain,{found}" in answer.stdout.splitlines()
