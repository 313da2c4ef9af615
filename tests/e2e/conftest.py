"""Shells to start commands in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import Shell
from tests.faults import nothing_left_behind


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture
def shell(tmp_path: Path, api_url: str) -> Iterator[Shell]:
    """Commands here use the session's Prefect server, and nothing may be left of them."""
    shell = Shell(tmp_path, api_url)
    with nothing_left_behind():
        try:
            yield shell
            shell.wait_for_nobody()
        finally:
            shell.kill_everybody()
