"""Numbers of workers of a cluster: one number, or a range."""

from __future__ import annotations

from typing import Any

import pytest

from siftline.config.clusters import FactoryCluster, LocalCluster, WorkerRange, bounds
from siftline.config.loading import parse_config
from siftline.errors import ConfigError

MINIMAL = {"source": {"path": "data"}, "output": {"path": "results"}}
FACTORY = {"kind": "factory", "factory": "dask.Cluster"}


@pytest.mark.parametrize(
    ("workers", "expected"),
    [(3, (3, 3)), ({"maximum": 4}, (1, 4)), ({"minimum": 2, "maximum": 4}, (2, 4))],
)
def test_workers_are_a_number_or_a_range(workers: Any, expected: tuple[int, int]) -> None:
    for cluster in ({"workers": workers}, {**FACTORY, "workers": workers}):
        found = parse_config({**MINIMAL, "cluster": cluster}).cluster
        assert isinstance(found, (LocalCluster, FactoryCluster))
        assert found.workers is not None
        assert bounds(found.workers) == expected


def test_a_range_is_restored_from_its_record() -> None:
    config = parse_config({**MINIMAL, "cluster": {"workers": {"minimum": 2, "maximum": 4}}})
    assert parse_config(config.stated()).cluster == LocalCluster(workers=WorkerRange(minimum=2, maximum=4))


@pytest.mark.parametrize(
    ("workers", "mistake"),
    [
        ({"minimum": 4, "maximum": 2}, "minimum 4 is more than maximum 2"),
        ({"minimum": 0, "maximum": 2}, "greater than 0"),
        ({"minimum": 2}, "maximum"),
        ({"maximum": 2, "most": 3}, "most"),
        ({}, "maximum"),
        ("many", "workers"),
        (-1, "greater than 0"),
        (1.5, "workers"),
    ],
)
@pytest.mark.parametrize("cluster", [{}, FACTORY], ids=["local", "factory"])
def test_a_mistake_in_the_workers_is_one_line(cluster: dict[str, Any], workers: Any, mistake: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({**MINIMAL, "cluster": {**cluster, "workers": workers}})
    first, *lines, _ = str(caught.value).splitlines()
    assert first == "configuration: 1 mistake"
    (line,) = lines
    assert line.strip().startswith("cluster.workers")
    assert mistake in line
