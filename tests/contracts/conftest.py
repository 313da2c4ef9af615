"""The executors of the contracts: in this process, and on a Dask cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from siftline.config.clusters import SerialCluster
from siftline.engine import Executor, open_executor


@pytest.fixture(params=["serial", "dask"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    if request.param == "dask":
        yield request.getfixturevalue("dask_executor")
        return
    with open_executor(SerialCluster(kind="serial")) as serial:
        yield serial
