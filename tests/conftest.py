"""Fixtures for all tests."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from prefect.logging.handlers import APILogHandler
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from siftline.config.batch import BatchConfig
from siftline.config.clusters import LocalCluster
from siftline.detectors.forest.compilation import KERNELS
from siftline.engine import Executor, open_executor, prepare_workers
from tests.e2e.processes import PrefectServer, Shell
from tests.support import make_config, make_table, write_files

# In the background a shell has programs ignore Ctrl-C, and so would those that tests start and stop.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A server that is kept for the next command has tests of its own.
os.environ["SIFTLINE_KEEP_SERVER"] = "0"

# Examples that read and write files take their time on a busy machine.
settings.register_profile(
    "siftline",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("siftline")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, so that all processes of pytest-xdist end at about the same time."""
    folders = ["e2e", "flows", "contracts", "properties", "unit"]
    items.sort(key=lambda item: folders.index(item.path.relative_to(Path(__file__).parent).parts[0]))


@pytest.fixture(scope="session")
def prefect_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a copy of the database of a server is that has just been started."""
    return tmp_path_factory.mktemp("database") / "prefect.db"


@pytest.fixture(scope="session")
def api_url(tmp_path_factory: pytest.TempPathFactory, prefect_database: Path) -> Iterator[str]:
    """The API of one `prefect server start` for all tests of this process, with a database of its own."""
    shell = Shell(tmp_path_factory.mktemp("server"))
    server = PrefectServer(shell)
    server.copy_database(prefect_database)
    try:
        yield server.api_url
    finally:
        server.kill()
    shell.wait_for_nobody()


@pytest.fixture(scope="session")
def prefect_server(api_url: str) -> Iterator[str]:
    """The same server for flows that run in this process, and wait for no heartbeat."""
    prepare_workers()  # the server that workers are forked from stays as long as this process
    with temporary_settings({PREFECT_API_URL: api_url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield api_url
        APILogHandler().flush()  # before the server is gone


@pytest.fixture(scope="session")
def dask_executor() -> Iterator[Executor]:
    """Two worker processes, shared by the tests of this process that do them no harm."""
    with open_executor(LocalCluster(workers=2, memory_limit="1GiB")) as executor:
        yield executor


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory of Parquet: 600 rows, 3 files, row groups of 70."""
    return write_files(tmp_path / "data", make_table(600), files=3, row_group=70)


@pytest.fixture
def config(tmp_path: Path, source: Path) -> BatchConfig:
    """A small job on `source`, cut into chunks of 100 rows."""
    return make_config(tmp_path, source, chunking={"rows": 100})


@pytest.fixture(scope="session")
def kernels() -> Any:
    """The compiled kernels: from the cache, or compiled by one of the processes that run tests."""
    pytest.importorskip("numba")
    deadline = time.monotonic() + 300
    while KERNELS.find() is None and time.monotonic() < deadline:
        KERNELS.prepare(10**9)
        time.sleep(0.05)
    return KERNELS.find()
