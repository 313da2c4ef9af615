"""Output of commands that nothing can fail: a full disk, a closed stream, no reader, a small encoding."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys, warnings
import click
from siftline.cli.streams import lost_output, make_output_safe, reader_left
make_output_safe()
for number in range(20_000):
    click.echo(f"line {number} of σ, 🙂 and \\udc80")
print("out σ")
print("err σ", file=sys.stderr)
sys.stdout.flush()
with open(sys.argv[1], "w") as file:
    lost = lost_output()
    file.write(f"{lost.strerror if lost else None} {reader_left()}")
"""


def shell(command: str, tmp_path: Path) -> tuple[int, str, str, str]:
    """Run the script in a shell; return its status, outputs, and what it knows of its output."""
    (tmp_path / "script.py").write_text(SCRIPT)
    script = f"{sys.executable} script.py knows"
    line = command.replace("SCRIPT", script)
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], cwd=tmp_path, capture_output=True)
    knows = (tmp_path / "knows").read_text()
    return done.returncode, done.stdout.decode(), done.stderr.decode(), knows


@pytest.mark.parametrize(
    ("command", "knows"),
    [
        ("SCRIPT | head -1", "None True"),
        ("SCRIPT 2>&1 | head -2", "None True"),
        ("SCRIPT >/dev/full", "No space left on device True"),
        ("SCRIPT 2>/dev/full", "None False"),
        ("SCRIPT >&-", "None False"),
        ("SCRIPT 2>&-", "None False"),
        ("SCRIPT <&- >&- 2>&-", "None False"),
        ("PYTHONIOENCODING=ascii SCRIPT", "None False"),
        ("LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 SCRIPT", "None False"),
        ("PYTHONUNBUFFERED=1 SCRIPT | head -1", "None True"),
    ],
)
def test_no_output_stream_fails_a_command(tmp_path: Path, command: str, knows: str) -> None:
    status, _, err, known = shell(command, tmp_path)

    assert status == 0, err
    assert known == knows
    assert "Traceback" not in err
    assert "Exception ignored" not in err


def test_a_closed_stream_leaves_no_place_for_files(tmp_path: Path) -> None:
    shell("SCRIPT >&- 2>&-", tmp_path)

    assert (tmp_path / "knows").read_text() == "None False"


def test_characters_that_an_encoding_lacks_stay_json() -> None:
    code = (
        "from siftline.cli.streams import make_output_safe; import sys; make_output_safe();"
        'sys.stdout.write(\'{"a": "é σ 🙂"}\')'
    )
    environment = {"PYTHONIOENCODING": "ascii", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)

    assert done.stdout.isascii()
    assert json.loads(done.stdout) == {"a": "é σ 🙂"}
