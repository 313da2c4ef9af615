"""Records of the jobs of a checkpoint: outcomes, counts, and jobs found by the beginning of their ids."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from siftline.errors import StorageError, UnknownJob
from siftline.jobs.record import (
    JobRecord,
    Outcome,
    concluded,
    find_job,
    job_directories,
    read_job,
    write_job,
)
from siftline.storage.files import write_record
from siftline.storage.layout import Version

FAILED = JobRecord(
    outcome="failed",
    run="run-1",
    at="2026-01-01T00:00:00+00:00",
    error="ClusterError: no worker",
    recoveries=2,
    told=("failed: ClusterError", "recovering: "),
)


def planned(checkpoint: Path, *names: str) -> list[Path]:
    """Directories of jobs, planned one after the other."""
    directories = [checkpoint / "jobs" / name for name in names]
    for number, directory in enumerate(directories):
        directory.mkdir(parents=True)
        (directory / "plan.json").touch()
        os.utime(directory / "plan.json", ns=(0, 10**9 * (number + 1)))
    return directories


def test_a_record_comes_back(tmp_path: Path) -> None:
    write_job(tmp_path, FAILED)
    assert read_job(tmp_path) == FAILED


def test_of_a_job_that_left_no_record_nothing_is_known(tmp_path: Path) -> None:
    assert read_job(tmp_path) == read_job(tmp_path / "none") == JobRecord()
    assert JobRecord().outcome == "interrupted"
    (tmp_path / "file").touch()
    assert read_job(tmp_path / "file") == JobRecord()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format_version": 1, "outcome": "published"}'])
def test_a_record_that_is_torn_or_forged_is_not_believed(tmp_path: Path, content: str) -> None:
    (tmp_path / "job.json").write_text(content)
    assert read_job(tmp_path) == JobRecord()


def test_a_record_of_another_format_is_not_believed(tmp_path: Path) -> None:
    write_record(tmp_path / "job.json", FAILED.model_dump(mode="json"), Version.JOB + 1)
    assert read_job(tmp_path) == JobRecord()
    write_record(tmp_path / "job.json", {"outcome": "lost"}, Version.JOB)
    assert read_job(tmp_path) == JobRecord()


def test_a_record_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        write_job(tmp_path / "file", FAILED)


@pytest.mark.parametrize("outcome", ["failed", "failed for good", "cancelled"])
def test_recoveries_and_notified_causes_are_kept_until_the_job_is_published(outcome: Outcome) -> None:
    record = concluded(FAILED, outcome, "run-2", "another error")
    assert (record.outcome, record.run, record.error) == (outcome, "run-2", "another error")
    assert (record.recoveries, record.told) == (FAILED.recoveries, FAILED.told)


def test_a_publication_resets_the_counts() -> None:
    record = concluded(FAILED, "published", "run-2")
    assert record == JobRecord(outcome="published", run="run-2", at=record.at)
    assert (record.recoveries, record.told, record.error) == (0, (), None)


def test_a_conclusion_has_its_time() -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    at = concluded(JobRecord(), "failed", None).at
    assert at is not None
    assert before <= datetime.fromisoformat(at) <= datetime.now(UTC)


def test_jobs_are_listed_as_they_were_planned_and_others_are_none(tmp_path: Path) -> None:
    directories = planned(tmp_path, "b2", "c3", "a1")
    (tmp_path / "jobs" / "never-planned").mkdir()
    assert job_directories(tmp_path) == directories
    assert job_directories(str(tmp_path)) == directories
    assert job_directories(tmp_path / "none") == []


@pytest.mark.parametrize("job_id", ["b2c3d4", "b2c3", "b"])
def test_a_job_is_found_by_the_beginning_of_its_id(tmp_path: Path, job_id: str) -> None:
    planned(tmp_path, "a1b2c3", "b2c3d4")
    assert find_job(tmp_path, job_id) == tmp_path / "jobs" / "b2c3d4"


@pytest.mark.parametrize(
    ("job_id", "problem"),
    [
        ("a1", "is ambiguous: it matches 2 jobs"),
        ("", "is ambiguous: it matches 3 jobs"),
        ("c", "matches no job"),
        ("2c3", "matches no job"),
        ("../jobs/b2c3d4", "matches no job"),
    ],
)
def test_a_prefix_of_no_job_or_of_several_is_refused(tmp_path: Path, job_id: str, problem: str) -> None:
    planned(tmp_path, "a1b2c3", "a1b2c4", "b2c3d4")
    with pytest.raises(UnknownJob) as caught:
        find_job(tmp_path, job_id)
    assert str(caught.value) == (
        f"job id {job_id!r} {problem} in {tmp_path}; "
        "see `siftline jobs`; if the checkpoint is not .siftline, give --checkpoint"
    )


def test_an_empty_id_matches_no_job_even_if_there_is_only_one(tmp_path: Path) -> None:
    planned(tmp_path, "a1b2c3")
    with pytest.raises(UnknownJob, match="is ambiguous"):
        find_job(tmp_path, "")


@pytest.mark.parametrize(
    ("record", "had_failed"),
    [
        (JobRecord(), False),
        (JobRecord(outcome="cancelled"), False),
        (JobRecord(outcome="published"), False),
        (JobRecord(outcome="failed"), True),
        (JobRecord(outcome="failed for good"), True),
        (JobRecord(recoveries=1), True),
        (JobRecord(outcome="cancelled", told=("failed: ClusterError",)), True),
        (concluded(FAILED, "published", "run-2"), False),
    ],
)
def test_a_job_had_failed_until_it_is_published(record: JobRecord, had_failed: bool) -> None:
    assert record.had_failed is had_failed
