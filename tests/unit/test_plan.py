"""The plan of a job: its identity, its chunks, and what it leaves behind."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from siftline.chunks import chunk_rows
from siftline.config import AddressCluster, BatchConfig, ChunkingConfig, LocalCluster, SerialCluster
from siftline.errors import ConfigError
from siftline.plan import plan_batch
from tests.support import make_config, make_table


def test_the_plan_covers_the_source(config: BatchConfig) -> None:
    plan = plan_batch(config)
    assert plan.rows == 600
    assert sum(chunk.rows for chunk in plan.chunks) == 600
    assert [file.rows for file in plan.snapshot.files] == [200, 200, 200]
    assert plan.snapshot.columns == {"x": "double", "y": "double"}


def test_the_plan_is_written_down_sealed(config: BatchConfig) -> None:
    plan = plan_batch(config)
    record = json.loads((plan.directory / "plan.json").read_text())
    assert (record["job_id"], record["token"], record["format_version"]) == (plan.job_id, plan.token, 2)
    assert len(record["digest"]) == 64


def test_the_same_job_takes_up_its_plan(config: BatchConfig) -> None:
    first, second = plan_batch(config), plan_batch(config)
    assert second.token == first.token
    assert list(second.chunks) == list(first.chunks)


def test_fresh_makes_a_new_start_of_the_same_job(config: BatchConfig) -> None:
    first, second = plan_batch(config), plan_batch(config, fresh=True)
    assert second.job_id == first.job_id
    assert second.token != first.token


@pytest.mark.parametrize("content", ["", "{", "{}", '{"format_version": 1}', "[]"])
def test_a_plan_that_cannot_be_read_is_made_anew(config: BatchConfig, content: str) -> None:
    first = plan_batch(config)
    (first.directory / "plan.json").write_text(content)
    second = plan_batch(config)
    assert second.job_id == first.job_id
    assert second.token != first.token


@pytest.mark.parametrize(
    "sections",
    [
        {"name": "other"},
        {"threshold": {"contamination": 0.3}},
        {"threshold": {"score": 0.5}},
        {"chunking": {"rows": 7}},
        {"cluster": {"kind": "local", "workers": 3}},
        {"checkpoint": {"every": 5}},
        {"validation": {"anomaly_rate": {"max": 0.5}}},
        {"output": {"columns": ["color"]}},
        {"notify": [{"block": "slack-webhook/ops"}]},
        {"source": {"label": "color"}},
    ],
)
def test_what_does_not_change_scores_does_not_change_the_job(
    config: BatchConfig, source: Path, tmp_path: Path, sections: dict[str, Any]
) -> None:
    assert plan_batch(make_config(tmp_path, source, **sections)).job_id == plan_batch(config).job_id


@pytest.mark.parametrize(
    "sections",
    [
        {"source": {"features": ["x"]}},
        {"source": {"features": ["y", "x"]}},
        {"source": {"key": ["id"]}},
        {"preprocess": {"scale": "robust"}},
        {"preprocess": {"missing": "median"}},
        {"source": {"timestamp": "at"}, "preprocess": {"time_parts": ["hour"]}},
        {"detector": {"params": {"n_estimators": 11}}},
        {"detector": {"seed": 1}},
        {"detector": {"sample_rows": 100}},
        {"detector": {"kind": "elliptic_envelope", "params": {}}},
    ],
)
def test_what_changes_scores_changes_the_job(
    config: BatchConfig, source: Path, tmp_path: Path, sections: dict[str, Any]
) -> None:
    assert plan_batch(make_config(tmp_path, source, **sections)).job_id != plan_batch(config).job_id


def test_a_changed_source_is_another_job(config: BatchConfig, source: Path) -> None:
    before = {plan_batch(config).job_id}
    file = source / "part-001.parquet"
    os.utime(file, ns=(1, 1))
    before.add(plan_batch(config).job_id)
    pq.write_table(make_table(10), source / "part-009.parquet")
    before.add(plan_batch(config).job_id)
    assert len(before) == 3


def test_another_scoring_version_is_another_job(config: BatchConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    before = plan_batch(config).job_id
    monkeypatch.setattr("siftline.plan._SCORING_VERSION", 2)
    assert plan_batch(config).job_id != before


def test_automatic_chunks_use_every_slot_but_not_too_finely() -> None:
    auto, cluster = ChunkingConfig(), LocalCluster(workers=2, memory_limit="2GiB")
    assert chunk_rows(auto, cluster, 1_000, 80) == 10_000
    assert chunk_rows(auto, cluster, 1_000_000, 80) == 125_000
    assert chunk_rows(auto, cluster, 10**9, 80) == 262_144


def test_automatic_chunks_fit_into_memory() -> None:
    size = chunk_rows(ChunkingConfig(), LocalCluster(workers=2, memory_limit="64MiB"), 10**9, 8000)
    assert 8 * size * 8000 <= 64 << 20


def test_chunks_may_be_given_in_bytes() -> None:
    chunking = ChunkingConfig(bytes="1MiB")
    assert chunk_rows(chunking, LocalCluster(workers=1), 10**9, 1024) == 1024
    assert chunk_rows(chunking, LocalCluster(workers=1), 10**9, 2 << 20) == 1


def test_threads_share_a_workers_memory() -> None:
    chunking = ChunkingConfig(rows=100_000)
    assert chunk_rows(chunking, LocalCluster(threads=1, memory_limit="100MB"), 10**6, 100) == 100_000
    with pytest.raises(ConfigError) as caught:
        chunk_rows(chunking, LocalCluster(threads=4, memory_limit="100MB"), 10**6, 100)
    assert str(caught.value) == (
        "chunking: a chunk of 100,000 rows needs about 76 MiB, a worker's slot has 23 MiB; "
        "lower chunking.rows, or raise cluster.memory_limit"
    )


def test_a_chunk_counts_for_what_the_input_can_fill() -> None:
    cluster = AddressCluster(kind="address", address="tcp://here:1", memory_limit="1MiB")
    assert chunk_rows(ChunkingConfig(rows=10**9), cluster, 100, 100) == 10**9


def test_without_a_cluster_memory_is_the_users_own_affair() -> None:
    assert chunk_rows(ChunkingConfig(rows=10**9), SerialCluster(kind="serial"), 10**9, 1000) == 10**9
