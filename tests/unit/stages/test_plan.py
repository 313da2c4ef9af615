"""The plan of a job: its identity, its chunks, and what it leaves behind."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from siftline.batch_plan import _tolerated
from siftline.config.batch import BatchConfig, ChunkingConfig
from siftline.config.clusters import AddressCluster, LocalCluster, SerialCluster, TlsConfig
from siftline.errors import ConfigError, JobBusy, UnknownJob
from siftline.jobs.plans import planned_config, read_plan
from siftline.jobs.record import JobRecord, read_job, write_job
from siftline.source.chunks import chunk_rows
from siftline.stages.plan import plan_batch
from siftline.storage.files import read_record, write_record
from siftline.storage.layout import Version
from siftline.storage.lease import Lease
from tests.support import make_config, make_table, run_job


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
        {"retries": {"attempts": 9}},
        {"tolerate": {"rows": "5%", "chunks": 3}},
        {"chunking": {"timeout_seconds": 5}},
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
    monkeypatch.setattr("siftline.stages.plan._SCORING_VERSION", 2)
    assert plan_batch(config).job_id != before


def test_a_plan_is_read_as_it_was_made(config: BatchConfig) -> None:
    made = plan_batch(config)
    read = read_plan(made.directory)
    assert list(read.chunks) == list(made.chunks)
    for name in ("job_id", "token", "config", "snapshot", "features", "bundle", "commit_every", "directory"):
        assert getattr(read, name) == getattr(made, name), name
    assert (read.batch_divisor, read.parts, read.failed) == (1, made.parts, made.failed)


def test_a_plan_that_is_taken_up_again_is_planned_in_other_blocks(config: BatchConfig) -> None:
    first, second = plan_batch(config), plan_batch(config, batch_divisor=4)
    assert (first.batch_divisor, second.batch_divisor) == (1, 4)
    assert second.token == first.token
    assert plan_batch(config, fresh=True, batch_divisor=4).batch_divisor == 4


@pytest.mark.parametrize(
    "content", [None, "", "{", "{}", '{"format_version": 2}', '{"format_version": 1}', "[]"]
)
def test_a_job_without_a_plan_that_can_be_read_is_unknown(config: BatchConfig, content: str | None) -> None:
    plan = plan_batch(config)
    path = plan.directory / "plan.json"
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    for read in (read_plan, planned_config):
        with pytest.raises(UnknownJob) as caught:
            read(plan.directory)
        assert str(caught.value) == (
            f"job {plan.job_id}: no plan of it in {plan.directory}; "
            "see `siftline jobs`; if the checkpoint is not .siftline, give --checkpoint"
        )


def test_a_sealed_record_that_is_no_plan_is_unknown(config: BatchConfig) -> None:
    plan = plan_batch(config)
    path = plan.directory / "plan.json"
    record = read_record(path, Version.PLAN)
    write_record(path, {**record, "config": {}}, Version.PLAN)
    with pytest.raises(UnknownJob):
        read_plan(plan.directory)


def test_a_planned_configuration_has_paths_that_hold_anywhere(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = make_config(tmp_path / "first", source)
    model = run_job(given).detector.path
    monkeypatch.chdir(tmp_path)
    sections = {"detector": {"model": os.path.relpath(model)}, "name": "relative"}
    plan = plan_batch(make_config(Path("here"), "data", **sections))
    assert plan.config.output.path == "here/out"

    planned = planned_config(plan.directory)
    assert planned.source.path == str(tmp_path / "data")
    assert planned.checkpoint.path == str(tmp_path / "here" / "work")
    assert planned.output.path == str(tmp_path / "here" / "out")
    assert planned.detector.model == model
    monkeypatch.chdir("/")
    again = plan_batch(planned)
    assert (again.job_id, again.token, again.directory) == (plan.job_id, plan.token, plan.directory)


def test_certificates_of_a_planned_configuration_are_found_anywhere(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tls = {"ca": "ca.pem", "cert": "sub/cert.pem", "key": "/etc/key.pem"}
    cluster = {"kind": "address", "address": "tls://here:1", "tls": tls}
    planned = planned_config(plan_batch(make_config(tmp_path, source, cluster=cluster)).directory)
    assert isinstance(planned.cluster, AddressCluster)
    assert planned.cluster.tls == TlsConfig(
        ca=f"{tmp_path}/ca.pem", cert=f"{tmp_path}/sub/cert.pem", key="/etc/key.pem"
    )


def test_a_planned_configuration_is_the_one_that_was_planned(tmp_path: Path, source: Path) -> None:
    config = make_config(
        tmp_path,
        source,
        source={"path": str(source / "*.parquet"), "key": ["id"], "timestamp": "at"},
        preprocess={"time_parts": ["hour"], "cyclic": {"x": 12}},
        tolerate={"rows": "0.1%", "chunks": 2},
        retries={"attempts": 5, "jitter": 0},
        cluster={"kind": "local", "workers": 3},
        notify=[{"block": "slack-webhook/ops", "on": ["failed"]}],
    )
    assert planned_config(plan_batch(config).directory) == config


def test_a_job_is_planned_as_it_was_last_asked_for(config: BatchConfig) -> None:
    first = plan_batch(config)
    retries = config.retries.model_copy(update={"attempts": 9})
    plan_batch(config.model_copy(update={"retries": retries}))
    assert planned_config(first.directory).retries.attempts == 9
    assert read_plan(first.directory).token == first.token


def test_arguments_of_a_cluster_are_not_written_down_and_so_cannot_be_planned_with(
    tmp_path: Path, source: Path
) -> None:
    cluster = {"kind": "factory", "factory": "a.Cluster", "kwargs": {"token": "confidential"}}
    plan = plan_batch(make_config(tmp_path, source, cluster=cluster))
    assert "confidential" not in (plan.directory / "plan.json").read_text()
    with pytest.raises(ConfigError) as caught:
        planned_config(plan.directory)
    assert str(caught.value) == (
        f"job {plan.job_id}: the arguments of its cluster may be secret and were not written down; "
        "run the job again with its configuration"
    )


@pytest.mark.parametrize(
    ("tolerance", "of", "number"),
    [
        (0, 40, 0),
        (3, 40, 3),
        (50, 40, 50),
        ("5%", 40, 2),
        ("5%", 39, 1),
        ("5%", 19, 0),
        ("29%", 100, 29),  # in floating point 28
        ("0.1%", 1000, 1),
        ("0.1%", 999, 0),
        ("57%", 100, 57),
        ("0%", 40, 0),
        ("100%", 40, 40),
        ("100%", 1, 1),
        ("0.0001%", 10**9, 1000),
    ],
)
def test_a_tolerance_is_counted_exactly_and_never_rounded_up(
    tolerance: int | str, of: int, number: int
) -> None:
    assert _tolerated(tolerance, of) == number


def test_a_plan_says_how_many_rows_and_chunks_may_fail(tmp_path: Path, source: Path) -> None:
    tolerate = {"rows": "0.5%", "chunks": "34%"}
    plan = plan_batch(make_config(tmp_path, source, chunking={"rows": 100}, tolerate=tolerate))
    assert (plan.rows, plan.tolerated_rows) == (600, 3)
    assert (len(plan.chunks), plan.tolerated_chunks) == (9, 3)


def test_taking_the_lease_comes_before_anything_of_the_job_is_touched(config: BatchConfig) -> None:
    with Lease("first") as held:
        plan = plan_batch(config, lease=held)
        assert held.directory == plan.directory
        before = {path: path.stat().st_mtime_ns for path in plan.directory.rglob("*.json")}
        with Lease("second") as refused, pytest.raises(JobBusy, match="run first is working on it"):
            plan_batch(config, fresh=True, lease=refused)
        assert {path: path.stat().st_mtime_ns for path in plan.directory.rglob("*.json")} == before
    with Lease("third") as free:
        assert plan_batch(config, lease=free).token == plan.token


def test_fresh_removes_what_was_done_but_not_who_works_on_it(config: BatchConfig) -> None:
    first = run_job(config).plan
    write_job(first.directory, JobRecord(recoveries=2))
    with Lease("one") as lease:
        second = plan_batch(config, fresh=True, lease=lease)
        lease.check()
        assert read_job(second.directory).recoveries == 2
    left = {path.name for path in first.directory.iterdir()}
    assert left == {"plan.json", "job.json", "lease-000001.json"}


def test_automatic_chunks_use_every_slot_but_not_too_finely() -> None:
    auto, cluster = ChunkingConfig(), LocalCluster(workers=2, memory_limit="2GiB")
    assert chunk_rows(auto, cluster, 1_000, 80) == 10_000
    assert chunk_rows(auto, cluster, 1_000_000, 80) == 125_000
    assert chunk_rows(auto, cluster, 10**9, 80) == 1 << 20


def test_automatic_chunks_do_not_cut_row_groups_that_keep_every_slot_busy() -> None:
    auto, cluster = ChunkingConfig(), LocalCluster(workers=2, memory_limit="2GiB")
    assert chunk_rows(auto, cluster, 2_000_000, 80, row_group=500_000) == 500_000
    assert chunk_rows(auto, cluster, 1_000_000, 80, row_group=500_000) == 125_000
    small = LocalCluster(workers=2, memory_limit="64MiB")
    assert chunk_rows(auto, small, 2_000_000, 80, row_group=500_000) < 250_000


def test_automatic_chunks_fit_into_memory() -> None:
    size = chunk_rows(ChunkingConfig(), LocalCluster(workers=2, memory_limit="64MiB"), 10**9, 8000)
    assert 3 * size * 8000 <= 64 << 20


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
        "chunking: a chunk of 100,000 rows needs about 28 MiB, a worker's slot has 23 MiB; "
        "lower chunking.rows, or raise cluster.memory_limit"
    )


def test_a_chunk_counts_for_what_the_input_can_fill() -> None:
    cluster = AddressCluster(kind="address", address="tcp://here:1", memory_limit="1MiB")
    assert chunk_rows(ChunkingConfig(rows=10**9), cluster, 100, 100) == 10**9


def test_without_a_cluster_memory_is_the_users_own_affair() -> None:
    assert chunk_rows(ChunkingConfig(rows=10**9), SerialCluster(kind="serial"), 10**9, 1000) == 10**9
