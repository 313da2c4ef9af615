"""Files of the working directory: importable where that is promised, and never in place of a library."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from siftline.system.imports import (
    children_import_safely,
    environment,
    import_own,
    put_working_directory_last,
)


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The import path of a process that works in a new directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return sys.path


def path_of_child(*arguments: str) -> list[str]:
    """The import path of a Python process, its entries resolved."""
    command = [sys.executable, *arguments, "-c", "import sys; print(*sys.path, sep='\\n')"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    return [str(Path(line).resolve()) for line in lines[:-1]]


def test_an_own_module_is_found_in_the_working_directory_and_may_import_others_later(path: list[str]) -> None:
    Path("own_step.py").write_text("def send():\n    import own_helper\n    return own_helper.VALUE\n")
    Path("own_helper.py").write_text("VALUE = 7\n")
    assert import_own("own_step:send")() == 7
    assert path[-1] == str(Path.cwd())
    before = list(path)
    import_own("own_step:send")
    assert path == before


@pytest.mark.parametrize("name", ["colorsys", "wsgiref", "dask.blockwise"])
def test_a_file_of_the_working_directory_shadows_no_library(path: list[str], name: str) -> None:
    Path(f"{name.partition('.')[0]}.py").write_text("raise AssertionError('imported')\n")
    assert import_own(f"{name}:__name__") == name


@pytest.mark.parametrize("entry", ["", ".", "here"])
def test_a_working_directory_in_front_is_put_last(path: list[str], entry: str) -> None:
    entry = str(Path.cwd()) if entry == "here" else entry
    before = list(path)
    path.insert(0, entry)
    put_working_directory_last()
    assert path == [*before, entry]


@pytest.mark.parametrize("given", [None, "here", "elsewhere", "both"])
def test_children_have_no_working_directory_on_their_path(
    path: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str | None
) -> None:
    entries = {"here": [str(tmp_path)], "elsewhere": ["/elsewhere"], "both": ["/elsewhere", ".", "/other"]}
    if given is None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
    else:
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(entries[given]))
    before = dict(os.environ)
    with children_import_safely():
        found = path_of_child()
    assert str(tmp_path.resolve()) not in found
    assert [entry for entry in found if entry in ("/elsewhere", "/other")] == [
        entry for entry in entries.get(given or "", []) if entry in ("/elsewhere", "/other")
    ]
    assert dict(os.environ) == before
    assert str(tmp_path.resolve()) in path_of_child()


def test_a_checkout_stays_importable_for_children(monkeypatch: pytest.MonkeyPatch) -> None:
    import siftline

    checkout = Path(siftline.__file__).resolve().parents[1]
    monkeypatch.chdir(checkout)
    monkeypatch.setenv("PYTHONPATH", str(checkout))
    with children_import_safely():
        assert os.environ["PYTHONPATH"] == str(checkout)


def test_the_environment_is_as_before_even_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIFTLINE_ONE", "1")
    before = dict(os.environ)
    with suppress(ZeroDivisionError), environment({"SIFTLINE_ONE": "2", "SIFTLINE_TWO": "2"}):
        assert (os.environ["SIFTLINE_ONE"], os.environ["SIFTLINE_TWO"]) == ("2", "2")
        raise ZeroDivisionError
    assert dict(os.environ) == before


def test_a_run_that_prefect_started_imports_no_file_in_place_of_a_library(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('numpy of the working directory')\n")
    variables = {**os.environ, "PYTHONPATH": str(tmp_path), "PREFECT__FLOW_RUN_ID": "a run"}
    code = "import sys, siftline.flows, numpy; print(numpy.__version__, sys.path[-1])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env=variables, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.split()[-1:]) == (0, [str(tmp_path)]), done.stderr


def test_the_command_as_a_module_imports_no_file_of_the_working_directory(tmp_path: Path) -> None:
    # Those that runpy itself imports come before ours.
    for name in ("click", "pydantic", "typing_extensions", "signal", "yaml", "queue", "random"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} of the working directory')\n")
    done = subprocess.run(
        [sys.executable, "-m", "siftline", "schema"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_blocks_that_overlap_leave_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIFTLINE_SET", "before")
    monkeypatch.delenv("SIFTLINE_UNSET", raising=False)
    values = {"SIFTLINE_SET": "1", "SIFTLINE_UNSET": "1"}
    first, second = ExitStack(), ExitStack()
    first.enter_context(environment(values))
    second.enter_context(environment(values))
    first.close()
    assert (os.environ["SIFTLINE_SET"], os.environ["SIFTLINE_UNSET"]) == ("1", "1")
    second.close()
    assert (os.environ["SIFTLINE_SET"], os.environ.get("SIFTLINE_UNSET")) == ("before", None)
