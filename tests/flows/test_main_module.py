"""What the children of a run's process import of its main module."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from multiprocessing.spawn import get_preparation_data
from types import ModuleType

import pytest

from siftline.tasks.adapters.main_module import spare_children_prefect


def prepared(monkeypatch: pytest.MonkeyPatch, name: str) -> set[str]:
    """What `multiprocessing` tells a child of the main module, when it is the one of this name."""
    main = ModuleType("__main__")
    main.__spec__ = ModuleSpec(name, None)
    main.__file__ = "/somewhere/module.py"
    monkeypatch.setitem(sys.modules, "__main__", main)
    spare_children_prefect()
    return {key for key in get_preparation_data("child") if key.startswith("init_main")}


def test_workers_of_a_run_that_prefect_started_do_not_import_its_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert prepared(monkeypatch, "prefect.engine") == set()


def test_a_main_module_of_the_users_own_is_imported_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    assert prepared(monkeypatch, "prefectly.mine") == {"init_main_from_name"}
