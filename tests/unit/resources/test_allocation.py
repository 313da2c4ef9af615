"""Requirements of a job, what a pool can meet of them, and the cluster that follows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftline.config.batch import BatchConfig
from siftline.config.clusters import AddressCluster, FactoryCluster, LocalCluster, SerialCluster, WorkerRange
from siftline.config.loading import parse_config
from siftline.errors import ConfigError
from siftline.resources.allocation import (
    JobSize,
    Requirements,
    allotted,
    fitted,
    needs_no_cluster,
    requirements,
    size_of,
)
from siftline.resources.pool import Pool
from siftline.stages.plan import plan_batch
from siftline.system.machine import Machine

GIB = 1 << 30
MACHINE = Machine(cores=8, memory=64 * GIB)
SIZE = JobSize(rows=10_000_000, chunks=100, chunk_rows=100_000, features=10)
FACTORY = {"kind": "factory", "factory": "dask.Cluster"}
ADDRESS = {"kind": "address", "address": "tcp://127.0.0.1:8786"}


def config(**sections: Any) -> BatchConfig:
    return parse_config({"source": {"path": "data"}, "output": {"path": "results"}, **sections})


def asked(size: JobSize = SIZE, measured: int | None = None, **sections: Any) -> Requirements:
    return requirements(config(**sections), size, MACHINE, measured)


def workers(wanted: Requirements) -> tuple[int, int, int]:
    return wanted.least, wanted.start, wanted.most


def test_without_a_setting_a_job_takes_what_its_chunks_can_use_of_the_machine() -> None:
    assert workers(asked()) == (1, 8, 8)
    assert workers(asked(replace(SIZE, chunks=5))) == (1, 3, 3)
    assert workers(asked(replace(SIZE, chunks=5), resources={"threads": 2})) == (1, 2, 2)
    assert workers(asked(replace(SIZE, chunks=0, chunk_rows=0))) == (1, 1, 1)


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"resources": {"workers": 3}}, (3, 3, 3)),
        ({"cluster": {"workers": 2}, "resources": {"workers": 3}}, (2, 2, 2)),
        ({"cluster": {"workers": 20}}, (20, 20, 20)),
        # A range begins with its minimum, and grows with the work.
        ({"cluster": {"workers": {"minimum": 2, "maximum": 5}}}, (2, 2, 5)),
        ({"cluster": {"workers": {"maximum": 5}}}, (1, 1, 5)),
        ({"cluster": {**FACTORY, "workers": {"minimum": 2, "maximum": 40}}}, (2, 2, 40)),
        ({"cluster": ADDRESS, "resources": {"workers": 10}}, (10, 10, 10)),
    ],
)
def test_a_setting_of_the_workers_wins(sections: dict[str, Any], expected: tuple[int, int, int]) -> None:
    assert workers(asked(**sections)) == expected


@pytest.mark.parametrize(
    ("sections", "threads", "memory"),
    [
        ({"resources": {"threads": 3, "memory": "5GiB"}}, 3, 5 * GIB),
        (
            {
                "cluster": {"threads": 2, "memory_limit": "3GiB"},
                "resources": {"threads": 3, "memory": "5GiB"},
            },
            2,
            3 * GIB,
        ),
        ({"cluster": {**ADDRESS, "memory_limit": "7GiB"}, "resources": {"threads": 4}}, 4, 7 * GIB),
    ],
)
def test_a_setting_of_threads_and_memory_wins(sections: dict[str, Any], threads: int, memory: int) -> None:
    wanted = asked(**sections)
    assert (wanted.threads, wanted.memory) == (threads, memory)


def test_memory_follows_from_the_chunks_and_from_earlier_runs() -> None:
    small = asked(replace(SIZE, chunk_rows=1_000))
    large = asked(replace(SIZE, chunk_rows=20_000_000))
    assert 0 < small.memory < large.memory
    assert large.memory > 20_000_000 * 12 * 8
    assert asked(measured=40 * GIB).memory >= 40 * GIB
    assert asked(measured=1).memory == asked().memory
    assert asked(replace(SIZE, chunk_rows=20_000_000), resources={"threads": 2}).memory > 1.5 * large.memory


@given(
    st.integers(0, 10**9),
    st.integers(0, 10**6),
    st.integers(0, 10**7),
    st.integers(1, 500),
    st.integers(1, 256),
    st.integers(20, 42),
)
def test_requirements_are_in_order_and_never_beyond_the_machine(
    rows: int, chunks: int, chunk_rows: int, features: int, cores: int, memory: int
) -> None:
    size = JobSize(rows, chunks, chunk_rows, features)
    wanted = requirements(config(), size, Machine(cores, 1 << memory))
    assert 1 == wanted.least <= wanted.start <= wanted.most <= cores
    assert wanted.threads == 1
    assert wanted.memory > 0


def test_requirements_read_well() -> None:
    assert str(Requirements(1, 1, 1, 1, GIB)) == "1 worker, with 1,024 MiB"
    assert str(Requirements(1, 8, 8, 2, GIB)) == "1 to 8 workers with 2 threads, each with 1,024 MiB"
    assert str(Requirements(3, 3, 3, 1, GIB)) == "3 workers, each with 1,024 MiB"


def test_the_size_of_a_job_is_that_of_its_plan(config: BatchConfig) -> None:
    size = size_of(plan_batch(config))
    assert size == JobSize(600, size.chunks, size.chunk_rows, features=2, fit=size.fit)
    assert size.chunks * size.chunk_rows >= 600
    assert size.chunk_rows <= 100


# A pool


POOL = Pool("siftline", slots=6, memory=2 * GIB)


def test_a_job_is_fitted_to_the_workers_that_a_pool_has_slots_for() -> None:
    assert workers(fitted(Requirements(1, 8, 8, 1, GIB), POOL)) == (1, 6, 6)
    assert workers(fitted(Requirements(1, 8, 8, 1, 3 * GIB), POOL)) == (1, 3, 3)
    assert workers(fitted(Requirements(2, 2, 8, 1, GIB), POOL)) == (2, 2, 6)


def test_a_worker_gets_all_the_memory_of_its_slots() -> None:
    assert fitted(Requirements(1, 8, 8, 1, GIB), POOL).memory == 2 * GIB
    assert fitted(Requirements(1, 8, 8, 1, 3 * GIB), POOL).memory == 4 * GIB


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (Requirements(7, 7, 7, 1, GIB), "resources: 7 workers, each with 1,024 MiB take 7 slots"),
        (Requirements(4, 4, 4, 1, 3 * GIB), "resources: 4 workers, each with 3,072 MiB take 8 slots"),
        (Requirements(1, 1, 1, 1, 13 * GIB), "resources: 1 worker, with 13,312 MiB take 7 slots"),
    ],
)
def test_a_job_that_a_pool_never_has_slots_for_is_a_mistake(wanted: Requirements, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        fitted(wanted, POOL)
    assert str(caught.value) == (
        f"{text}, and pool siftline has 6; lower resources.workers or resources.memory, or enlarge the pool"
    )


@given(st.integers(1, 64), st.integers(0, 64), st.integers(1, 1 << 36), st.integers(1, 64))
def test_a_fitted_job_never_takes_more_slots_than_the_pool_has(
    least: int, more: int, memory: int, slots: int
) -> None:
    pool = Pool("siftline", slots, 2 * GIB)
    wanted = Requirements(least, least, least + more, 1, memory)
    try:
        found = fitted(wanted, pool)
    except ConfigError:
        assert pool.slots_for(least, memory) > slots
        return
    assert least == found.least <= found.start <= found.most <= wanted.most
    assert pool.slots_for(found.most, found.memory) <= slots
    assert found.memory >= memory
    assert pool.slots_for(1, found.memory) == pool.slots_for(1, memory)


# The cluster


def test_a_local_cluster_has_the_workers_threads_and_memory_of_the_allocation() -> None:
    wanted = Requirements(1, 4, 4, 2, 3 * GIB)
    cluster = allotted(LocalCluster(), 4, wanted)
    assert cluster == LocalCluster(workers=4, threads=2, memory_limit=str(3 * GIB))
    assert LocalCluster.model_validate(cluster.model_dump()) == cluster


def test_a_cluster_that_may_grow_begins_with_what_it_got() -> None:
    wanted = Requirements(1, 6, 6, 1, GIB)
    for cluster in (LocalCluster(), FactoryCluster(kind="factory", factory="dask.Cluster")):
        grown = allotted(cluster, 2, wanted)
        assert isinstance(grown, (LocalCluster, FactoryCluster))
        assert grown.workers == WorkerRange(minimum=2, maximum=6)


def test_clusters_of_others_stay_as_they_are(tmp_path: Path) -> None:
    wanted = Requirements(1, 6, 6, 1, GIB)
    for cluster in (
        SerialCluster(kind="serial"),
        AddressCluster(kind="address", address="tcp://127.0.0.1:8786"),
    ):
        assert allotted(cluster, 2, wanted) is cluster


@pytest.mark.parametrize(
    ("chunks", "sections", "expected"),
    [
        (2, {}, True),
        (3, {}, False),
        (2, {"cluster": {"kind": "local"}}, True),
        (2, {"cluster": {"kind": "local", "workers": 1}}, False),
        (2, {"resources": {"workers": 1}}, False),
        (2, {"resources": {"threads": 2}}, False),
        (2, {"cluster": {"kind": "serial"}}, False),
        (2, {"cluster": ADDRESS}, False),
        (2, {"cluster": FACTORY}, False),
    ],
)
def test_a_job_for_one_worker_needs_no_cluster_unless_its_workers_are_configured(
    chunks: int, sections: dict[str, Any], expected: bool
) -> None:
    wanted = asked(replace(SIZE, chunks=chunks), **sections)
    assert needs_no_cluster(config(**sections), wanted) is expected
