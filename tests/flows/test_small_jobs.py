"""Small jobs: one forked process does them, with the bytes of a cluster's result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from siftline.flows.batch_detection import batch_detection
from siftline.progress import Report, Usage, listening
from tests.e2e.processes import write_config
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


COMMAND = """
import sys
from siftline.cli import main

if __name__ == "__main__":
    try:
        main()
    finally:
        slow = {"dask", "matplotlib", "numba", "pandas", "sklearn", "skops"}
        print(sorted(slow & set(sys.modules)))
"""


def test_the_command_leaves_slow_imports_to_other_processes(tmp_path: Path) -> None:
    config = write_config(
        tmp_path / "job.yaml",
        configuration(
            tmp_path, chunk_rows=300, cluster={"kind": "local"}, detector={"kind": "isolation_forest"}
        ),
    )
    (tmp_path / "command.py").write_text(COMMAND)
    command = [sys.executable, "command.py", "run", str(config)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"
    assert (tmp_path / "output" / "report.html").exists()
