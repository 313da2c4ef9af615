"""Small jobs: one forked process does them, with the bytes of a cluster's result."""

from __future__ import annotations

from pathlib import Path

import pytest

from siftline.flows.batch_detection import batch_detection
from siftline.progress import Report, Usage, listening
from tests.flows.batches import configuration, scores_digest
from tests.flows.records import log


def test_a_small_job_starts_no_cluster_and_has_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("siftline.engine.clusters.local_cluster", None)
    said: list[Report] = []
    with listening(said.append):
        small = batch_detection(configuration(tmp_path / "small", chunk_rows=300, cluster={"kind": "local"}))
    serial = batch_detection(configuration(tmp_path / "serial", chunk_rows=300))

    assert (small.state, small.chunks_computed) == ("Completed", 2)
    assert scores_digest(small.output) == scores_digest(serial.output)
    workers = {worker.address for report in said if isinstance(report, Usage) for worker in report.workers}
    assert len(workers) == 1
    assert "2 chunks for 1 worker" in log(small.flow_run_id)


def test_a_small_job_with_configured_workers_has_a_cluster(tmp_path: Path) -> None:
    said: list[Report] = []
    values = configuration(tmp_path, chunk_rows=300, cluster={"kind": "local", "workers": 1})
    with listening(said.append):
        result = batch_detection(values)

    assert result.state == "Completed"
    workers = [worker.address for report in said if isinstance(report, Usage) for worker in report.workers]
    assert all(address.startswith("tcp://") for address in workers)
