"""The size of this machine, under the limits of control groups of both versions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from siftline.system.machine import Machine, this_machine

CORES, MEMORY = 16, 64 << 30
V2 = "0::/kubepods/pod1\n"
V1 = "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n"


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host of 16 cores and 64 GiB."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(CORES)), raising=False)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"total": MEMORY}))


def machine(home: Path, files: Mapping[str, str], own: str = V2) -> Machine:
    """Return the machine of a tree of control groups."""
    for name, content in files.items():
        path = home / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (home / "own").write_text(own)
    return this_machine(home / "cgroup", home / "own")


@pytest.mark.parametrize(
    ("files", "cores", "memory"),
    [
        ({}, CORES, MEMORY),
        ({"cpu.max": "200000 100000\n", "memory.max": "4294967296\n"}, 2, 4 << 30),
        ({"cpu.max": "max 100000\n", "memory.max": "max\n"}, CORES, MEMORY),
        ({"kubepods/pod1/cpu.max": "400000 50000", "kubepods/pod1/memory.max": "1073741824"}, 8, 1 << 30),
        # Of all enclosing groups the smallest counts.
        ({"kubepods/pod1/cpu.max": "800000 100000", "kubepods/cpu.max": "300000 100000"}, 3, MEMORY),
        ({"kubepods/pod1/memory.max": "max", "kubepods/memory.max": "2147483648"}, CORES, 2 << 30),
        # Part of a core is none, but there is always one.
        ({"cpu.max": "350000 100000"}, 3, MEMORY),
        ({"cpu.max": "50000 100000"}, 1, MEMORY),
        ({"cpu.max": "30000 10000"}, 3, MEMORY),
        # More than the host has.
        ({"cpu.max": "6400000 100000", "memory.max": str(1 << 50)}, CORES, MEMORY),
        # Nothing that can be understood.
        ({"cpu.max": "", "memory.max": "much"}, CORES, MEMORY),
        ({"cpu.max": "many 100000", "memory.max": ""}, CORES, MEMORY),
        ({"cpu.max": "100000 0"}, CORES, MEMORY),
    ],
)
def test_limits_of_version_2(tmp_path: Path, files: Mapping[str, str], cores: int, memory: int) -> None:
    assert machine(tmp_path, files) == Machine(cores, memory)


@pytest.mark.parametrize(
    ("files", "cores", "memory"),
    [
        ({}, CORES, MEMORY),
        (
            {"cpu/docker/abc/cpu.cfs_quota_us": "150000\n", "cpu/docker/abc/cpu.cfs_period_us": "50000\n"},
            3,
            MEMORY,
        ),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2, MEMORY),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, CORES, MEMORY),
        ({"cpu/cpu.cfs_quota_us": "200000"}, CORES, MEMORY),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "0"}, CORES, MEMORY),
        ({"memory/docker/abc/memory.limit_in_bytes": "3221225472\n"}, CORES, 3 << 30),
        ({"memory/docker/memory.limit_in_bytes": "1073741824"}, CORES, 1 << 30),
        ({"memory/memory.limit_in_bytes": "9223372036854771712"}, CORES, MEMORY),
    ],
)
def test_limits_of_version_1(tmp_path: Path, files: Mapping[str, str], cores: int, memory: int) -> None:
    assert machine(tmp_path, files, V1) == Machine(cores, memory)


def test_groups_of_both_versions_count(tmp_path: Path) -> None:
    files = {
        "unified/cpu.max": "100000 100000",  # where it is mounted beside version 1: not looked for
        "cpu/docker/abc/cpu.cfs_quota_us": "400000",
        "cpu/docker/abc/cpu.cfs_period_us": "100000",
        "memory.max": str(8 << 30),
        "memory/memory.limit_in_bytes": str(4 << 30),
    }
    assert machine(tmp_path, files, V1 + "0::/docker/abc\n") == Machine(4, 4 << 30)


def test_groups_that_cannot_be_read_are_no_limit(tmp_path: Path) -> None:
    assert this_machine(tmp_path / "none", tmp_path / "missing") == Machine(CORES, MEMORY)
    for name in ("cpu.max", "memory.max"):
        (tmp_path / "cgroup" / name).mkdir(parents=True)  # reading a directory fails
    assert machine(tmp_path, {}) == Machine(CORES, MEMORY)
    assert machine(tmp_path, {}, own="nonsense\n\n0:\n::::\n") == Machine(CORES, MEMORY)


def test_limits_of_the_root_count_without_a_list_of_own_groups(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("200000 100000")
    assert this_machine(tmp_path, tmp_path / "missing").cores == 2


def test_a_path_outside_the_tree_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1073741824")
    assert machine(tmp_path, {"memory.max": str(2 << 30)}, own="0::/../..\n").memory == 2 << 30
