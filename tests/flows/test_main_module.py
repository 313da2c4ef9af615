"""What the children of a run's process import of its main module."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import sysconfig
from importlib.machinery import ModuleSpec
from multiprocessing.spawn import get_preparation_data
from pathlib import Path
from types import ModuleType

import pytest

from siftline.errors import ConfigError
from siftline.flows.embedded import _guard
from siftline.tasks.adapters.main_module import refuse_repetition, spare_children


def prepared(monkeypatch: pytest.MonkeyPatch, name: str) -> set[str]:
    """What `multiprocessing` tells a child of the main module, when it is the one of this name."""
    main = ModuleType("__main__")
    main.__spec__ = ModuleSpec(name, None)
    main.__file__ = "/somewhere/module.py"
    monkeypatch.setitem(sys.modules, "__main__", main)
    spare_children()
    return {key for key in get_preparation_data("child") if key.startswith("init_main")}


def test_workers_of_a_run_that_prefect_started_do_not_import_its_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert prepared(monkeypatch, "prefect.engine") == set()


def test_a_main_module_of_the_users_own_is_imported_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    assert prepared(monkeypatch, "prefectly.mine") == {"init_main_from_name"}


@pytest.mark.parametrize(("file", "kept"), [("siftline", False), ("own-siftline", True)])
def test_of_scripts_only_that_of_our_command_is_not_imported(
    monkeypatch: pytest.MonkeyPatch, file: str, kept: bool
) -> None:
    main = ModuleType("__main__")
    main.__file__ = str(Path(sysconfig.get_path("scripts")) / file)
    monkeypatch.setitem(sys.modules, "__main__", main)
    spare_children()
    assert ("init_main_from_path" in get_preparation_data("child")) is kept


CALL = "refuse_repetition()"
GUARDED = [
    f"if __name__ == '__main__':\n    {CALL}",
    f"if __name__ == '__main__' and True:\n    for _ in range(1):\n        {CALL}",
    f"__name__ == '__main__' and {CALL}",
    f"def main():\n    {CALL}\nif __name__ == '__main__':\n    main()",
]
UNGUARDED = [
    CALL,
    f"def main():\n    {CALL}\nmain()",
    f"with open(__file__):\n    for _ in range(1):\n        result = {CALL}",
    f"if __name__ == '__main__':\n    pass\n{CALL}",
]


def script(tmp_path: Path, body: str) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "script.py"
    file.write_text(f"from siftline.tasks.adapters.main_module import refuse_repetition\n{body}\n")
    return subprocess.run([sys.executable, str(file)], capture_output=True, text=True)


@pytest.mark.parametrize("body", GUARDED)
def test_a_guarded_call_of_a_script_is_allowed(tmp_path: Path, body: str) -> None:
    done = script(tmp_path, body)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("body", UNGUARDED)
def test_an_unguarded_call_is_refused_with_its_line_and_the_guard(tmp_path: Path, body: str) -> None:
    said = script(tmp_path, body).stderr.splitlines()[-1]

    assert said.startswith(f"siftline.errors.ConfigError: {tmp_path}/script.py, line ")
    assert said.endswith("guard the call with if __name__ == '__main__':")


def test_a_call_from_a_module_that_a_child_imports_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    process = multiprocessing.current_process()
    monkeypatch.setattr(process, "_inheriting", True, raising=False)

    with pytest.raises(ConfigError, match="guard the call with"):
        refuse_repetition()


def test_an_embedded_server_ends_when_the_process_that_guards_it_does() -> None:
    server = subprocess.Popen(["sleep", "600"])
    guard = _guard(server.pid)
    assert guard.stdin is not None

    guard.stdin.close()  # as with the end of this process, whatever ends it

    assert server.wait(60) == -signal.SIGTERM
    assert guard.wait(60) == 0
