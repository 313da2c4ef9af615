"""Completion of commands and options in shells."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from siftline.cli import commands


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
