"""Jobs of checkpoints are read as they are now, and those that have ended seldom."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from siftline.jobs.record import JobRecord, concluded, write_job
from siftline.monitoring import checkpoints
from siftline.monitoring.checkpoints import Checkpoints
from siftline.storage.lease import Lease
from tests.support import Job, make_config, make_table, run_job, write_files


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job that was published, with its outcome on record."""
    source = write_files(tmp_path / "data", make_table(300))
    job = run_job(make_config(tmp_path, source, chunking={"rows": 100}))
    write_job(directory(job), concluded(JobRecord(), "published", "run-1"))
    return job


def directory(job: Job) -> Path:
    return Path(job.plan.config.checkpoint.path) / "jobs" / job.plan.job_id


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The jobs that were read from their files."""
    found: list[str] = []
    read = checkpoints.job_status

    def counted(job: Path) -> object:
        found.append(job.name)
        return read(job)

    monkeypatch.setattr(checkpoints, "job_status", counted)
    return found


def test_a_job_that_has_ended_is_read_again_when_something_of_it_changes(job: Job, reads: list[str]) -> None:
    jobs = Checkpoints([Path(job.plan.config.checkpoint.path)])

    assert [status.state for status in jobs.read()] == ["completed"]
    assert jobs.read() == jobs.read()
    assert len(reads) == 1

    write_job(directory(job), concluded(JobRecord(), "failed", "run-2", "no space left"))
    assert [(status.state, status.error) for status in jobs.read()] == [("failed", "no space left")]

    with Lease("run-3") as lease:
        lease.take(directory(job))
        assert [status.state for status in jobs.read()] == ["recovering"]
        jobs.read()
        assert len(reads) == 4


def test_a_job_that_has_ended_is_read_again_after_a_while(job: Job, reads: list[str]) -> None:
    jobs = Checkpoints([Path(job.plan.config.checkpoint.path)], seconds=0.0)

    jobs.read()
    jobs.read()

    assert len(reads) == 2


def test_several_checkpoints_are_shown_and_what_is_deleted_is_gone(job: Job, tmp_path: Path) -> None:
    one, other = Path(job.plan.config.checkpoint.path), tmp_path / "other"
    shutil.copytree(one / "jobs" / job.plan.job_id, other / "jobs" / ("f" * 16))
    jobs = Checkpoints([one, other, tmp_path / "none"])

    assert [status.job_id for status in jobs.read()] == [job.plan.job_id, "f" * 16]
    shutil.rmtree(other)
    assert [status.job_id for status in jobs.read()] == [job.plan.job_id]
