"""Files of pools, and the slots of workers."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftline.errors import ConfigError
from siftline.resources.pool import Pool, pool_name
from siftline.resources.pool_file import is_pool, load_pools, sizes

GIB = 1 << 30


def write(directory: Path, text: str) -> Path:
    path = directory / "shared.yaml"
    path.write_text(text)
    return path


def test_a_file_has_the_pool_of_all_and_those_of_work_pools(tmp_path: Path) -> None:
    text = (
        "workers: 8\nmemory: 4GiB\nwork_pools:\n  large: {workers: 2, memory: 16GiB}\n  any: {workers: 1}\n"
    )
    path = write(tmp_path, text)
    assert is_pool(path)
    assert sizes(load_pools(path)) == {
        "siftline": Pool("siftline", 8, 4 * GIB),
        "siftline-large": Pool("siftline-large", 2, 16 * GIB),
        "siftline-any": Pool("siftline-any", 1, 2 * GIB),
    }
    assert (pool_name(None), pool_name("large")) == ("siftline", "siftline-large")


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("workers: 0", "workers: input should be greater than 0, not 0"),
        ("memory: 2GiB", "workers: missing; it has no default"),
        ("workers: 2\nmemory: much", "memory: "),
        ("workers: 2\nmemory: 0", "memory: must be more than 0"),
        ("workers: 2\nworkpools: {}", "workpools: unknown field; did you mean work_pools?"),
        ("workers: 2\nwork_pools: {large: {}}", "work_pools.large.workers: missing; it has no default"),
        ("workers: 2\nwork_pools: {large: 3}", "work_pools.large: "),
        ("workers: [2]", "workers: input should be a valid integer"),
    ],
)
def test_a_mistake_in_a_pool_is_one_clear_line(tmp_path: Path, text: str, mistake: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_pools(path)
    first, line, last = str(caught.value).splitlines()
    assert first == f"{path}: 1 mistake"
    assert line.strip().startswith(mistake)
    assert "`siftline schema pool`" in last


@pytest.mark.parametrize("text", ["", "- 1", "workers: {", "8"])
def test_a_file_that_is_no_mapping_is_one_line(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_pools(path)
    assert str(path) in str(caught.value)


def test_other_files_are_no_pools(tmp_path: Path) -> None:
    assert not is_pool(write(tmp_path, "name: flights\nbatch: {source: {path: x}}\n"))
    assert not is_pool(write(tmp_path, "name: flights\nbatch: {}\nworkers: 3\n"))


@given(st.integers(1, 100), st.integers(1, 1 << 40), st.integers(1, 1 << 40), st.integers(0, 50))
def test_the_most_workers_of_a_pool_fit_and_one_more_does_not(
    slots: int, each: int, memory: int, workers: int
) -> None:
    pool = Pool("siftline", slots, each)
    most = pool.most_workers(memory)
    assert pool.slots_for(most, memory) <= slots < pool.slots_for(most + 1, memory)
    assert pool.slots_for(workers, memory) >= workers
    assert pool.slots_for(workers, memory) * each >= workers * memory
