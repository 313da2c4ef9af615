"""The executors of the contracts: in this process, in a forked one, and on a Dask cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from siftline.config.clusters import LocalCluster, SerialCluster
from siftline.engine import Executor, open_executor


@pytest.fixture(scope="session")
def forked() -> Iterator[Executor]:
    """One process, replaced when it ends."""
    with open_executor(LocalCluster(memory_limit="1GiB"), forked=True) as executor:
        yield executor


@pytest.fixture(params=["serial", "forked", "dask"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    if request.param == "dask":
        yield request.getfixturevalue("dask_executor")
        return
    if request.param == "forked":
        yield request.getfixturevalue("forked")
        return
    with open_executor(SerialCluster(kind="serial")) as serial:
        yield serial
