"""Flows that run in the tests' own process, on the session's Prefect server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults import nothing_left_behind


@pytest.fixture(autouse=True)
def no_process_left_behind(prefect_server: str) -> Iterator[None]:
    with nothing_left_behind():
        yield
