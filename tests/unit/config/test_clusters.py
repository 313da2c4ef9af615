"""Clusters: their workers, what they overrule, and their secrets."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from pydantic import ValidationError

from siftline.batch_plan import BatchPlan
from siftline.config.batch import BatchConfig
from siftline.config.clusters import (
    FactoryCluster,
    LocalCluster,
    WorkerRange,
    asked_memory,
    asked_workers,
    bounds,
    overruled,
)
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


KWARGS = {"password": "hunter2"}
SECRET = {**MINIMAL, "cluster": {**FACTORY, "kwargs": KWARGS}}


def test_the_arguments_of_a_cluster_are_never_shown() -> None:
    config = parse_config(SECRET)
    assert isinstance(config.cluster, FactoryCluster)
    assert config.cluster.kwargs.reveal() == KWARGS
    for shown in (repr(config), str(config.cluster), f"{config.cluster.kwargs}", str(config.model_dump())):
        assert "hunter2" not in shown
    assert "kwargs" not in config.stated()["cluster"]


def test_the_arguments_of_a_cluster_travel_with_the_parameters_of_a_run() -> None:
    config = parse_config(SECRET)
    assert parse_config(config.model_dump(mode="json")) == config
    assert pickle.loads(pickle.dumps(config)) == config
    assert parse_config(config.stated()) != config


@pytest.mark.parametrize(
    "cluster",
    [
        {**FACTORY, "kwargs": "hunter2"},
        {**FACTORY, "kwarg": KWARGS},
        {**FACTORY, "kind": "facory", "kwargs": KWARGS},
        [KWARGS],
    ],
)
def test_a_mistake_in_a_cluster_shows_no_secret(cluster: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({**MINIMAL, "cluster": cluster})
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ValidationError) as raised:
        BatchConfig.model_validate({**MINIMAL, "cluster": cluster})
    assert "hunter2" not in str(raised.value)


def test_the_plan_of_a_job_is_shown_by_its_id() -> None:
    plan = BatchPlan("0123456789abcdef", "t", parse_config(SECRET), *[None] * 6)  # type: ignore[arg-type]
    assert repr(plan) == str(plan) == "BatchPlan(0123456789abcdef)"


ADDRESS = {"kind": "address", "address": "tcp://here:1"}


@pytest.mark.parametrize(
    ("cluster", "resources", "workers", "memory"),
    [
        ({}, {}, None, None),
        ({}, {"workers": 3, "memory": "1GiB"}, 3, 1 << 30),
        ({"workers": 2}, {"workers": 3}, 2, None),
        (FACTORY, {}, 2, 2 << 30),
        (FACTORY, {"workers": 8, "memory": "4GiB"}, 8, 4 << 30),
        ({**FACTORY, "workers": 5, "memory_limit": "1GiB"}, {"workers": 8, "memory": "4GiB"}, 5, 1 << 30),
        (ADDRESS, {}, None, 2 << 30),
        (ADDRESS, {"memory": "4GiB"}, None, 4 << 30),
        ({"kind": "serial"}, {"workers": 4}, 4, None),
    ],
)
def test_resources_count_where_the_cluster_states_nothing(
    cluster: dict[str, Any], resources: dict[str, Any], workers: int | None, memory: int | None
) -> None:
    config = parse_config({**MINIMAL, "cluster": cluster, "resources": resources})
    assert asked_workers(config.cluster, config.resources) == workers
    assert asked_memory(config.cluster, config.resources) == memory


def test_resources_that_a_cluster_overrules_are_one_line_each() -> None:
    def lines(cluster: dict[str, Any], **resources: Any) -> list[str]:
        config = parse_config({**MINIMAL, "cluster": cluster, "resources": resources})
        return overruled(config.cluster, config.resources)

    assert lines({"workers": 2}, workers=4) == [
        "cluster.workers is 2 and wins over resources.workers, 4: drop one of them"
    ]
    assert lines({**FACTORY, "workers": {"minimum": 1, "maximum": 8}}, workers=4) == [
        "cluster.workers is 1 to 8 and wins over resources.workers, 4: drop one of them"
    ]
    every = {"workers": 2, "threads": 1, "memory_limit": "1GiB"}
    assert len(lines(every, workers=1, threads=2, memory="2GiB")) == 3
    assert lines({"workers": 2, "memory_limit": "1GiB"}, workers=2, memory="1024MiB") == []
    assert lines(ADDRESS, workers=2, memory="1GiB") == []
