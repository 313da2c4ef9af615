"""A Prefect server as users run one, and shells to start commands in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.processes import Shell, free_port, running
from tests.faults import nothing_left_behind, wait_until


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="package")
def sqlite_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One `prefect server start` for all tests of this folder, with a database of its own."""
    shell = Shell(tmp_path_factory.mktemp("server"))
    port = free_port()
    log = shell.directory / "server.log"
    command = ("prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui")
    with running(shell.start(*command, log=log)) as server:

        def healthy() -> bool:
            assert server.poll() is None, log.read_text()
            try:
                return httpx.get(f"http://127.0.0.1:{port}/api/health", timeout=5).is_success
            except httpx.TransportError:
                return False

        wait_until(healthy, "the Prefect server is up", 120)
        yield f"http://127.0.0.1:{port}/api"
    shell.wait_for_nobody()


@pytest.fixture(scope="package")
def api_url(sqlite_server: str) -> str:
    """The API of the Prefect server that the tests of a module use."""
    return sqlite_server


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
