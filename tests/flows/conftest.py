"""A Prefect server for the flows that run in the tests' own process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prefect.testing.utilities import prefect_test_harness

from siftline.engine import prepare_workers
from tests.faults import nothing_left_behind


@pytest.fixture(scope="session", autouse=True)
def prefect_server() -> Iterator[None]:
    """One real server for the whole session, with a database of its own."""
    prepare_workers()  # the server that workers are forked from stays as long as this process
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(autouse=True)
def no_process_left_behind(prefect_server: None) -> Iterator[None]:
    with nothing_left_behind():
        yield
