"""Records are read as they were written, by this version or an earlier one, and refused otherwise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from siftline.config.batch import BatchConfig
from siftline.config.schedules import Interval
from siftline.errors import IntegrityError, StorageError
from siftline.jobs.history import previous_rates, read_history
from siftline.jobs.intervals import Ledger
from siftline.jobs.plans import read_plan
from siftline.jobs.record import read_job
from siftline.jobs.results import read_manifest
from siftline.notices.rate_limit import rate_limited
from siftline.pipelines.assignment import kept_assignment
from siftline.stack import read_stack
from siftline.storage.files import read_record, unseal, write_record
from siftline.storage.layout import ENTRY, CheckpointFiles, JobFiles, Version, lease_path
from siftline.storage.lease import last_holder
from siftline.storage.lease_file import Holder
from siftline.storage.records import Record, RecordFile
from siftline.types import ChunkReceipt, DetectorRef

WRITTEN = Path(__file__).parent / "records"  # by the code before `RecordFile`


class Count(Record):
    number: int


class Tally(BaseModel):
    counts: dict[str, Count] = {}


@pytest.fixture
def file(tmp_path: Path) -> RecordFile[Count]:
    return RecordFile(tmp_path / "counts" / "a.json", Count, 3)


def test_a_record_comes_back_as_it_was_written(file: RecordFile[Count]) -> None:
    file.write(Count(number=7))
    assert file.read() == file.read_or(None) == Count(number=7)


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def altered(path: Path) -> None:
    path.write_text(path.read_text().replace("7", "8"))


def of_another_version(path: Path) -> None:
    write_record(path, {"number": 7}, 4)


def of_another_model(path: Path) -> None:
    write_record(path, {"number": "many"}, 3)


@pytest.mark.parametrize("spoil", [damaged, altered, of_another_version, of_another_model])
def test_a_spoiled_record_is_refused_or_passed_over(
    file: RecordFile[Count], spoil: Callable[[Path], None]
) -> None:
    file.write(Count(number=7))
    spoil(file.path)
    with pytest.raises(IntegrityError, match=r"a\.json: .*; .* run again"):
        file.read()
    assert file.read_or("default") == "default"


def test_a_missing_record_is_a_missing_file(file: RecordFile[Count], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for missing in (file, RecordFile(tmp_path / "file" / "a.json", Count, 3)):
        with pytest.raises(FileNotFoundError):
            missing.read()
        assert missing.read_or(None) is None


def test_a_record_that_cannot_be_read_is_a_storage_error(file: RecordFile[Count]) -> None:
    file.path.mkdir(parents=True)
    for read in (file.read, lambda: file.read_or(None)):
        with pytest.raises(StorageError, match=r"a\.json"):
            read()


def test_an_update_starts_empty_and_is_written_only_if_changed(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "tally.json", Tally, 1)
    with file.updating() as tally:
        assert tally == Tally()
    assert not file.path.exists()
    for name in ("a", "b"):
        with file.updating() as tally:
            tally.counts[name] = Count(number=1)
    assert file.read() == Tally(counts={"a": Count(number=1), "b": Count(number=1)})


def test_an_update_that_fails_writes_nothing(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "tally.json", Tally, 1)
    with pytest.raises(ZeroDivisionError), file.updating() as tally:
        tally.counts["a"] = Count(number=1 // 0)
    assert not file.path.exists()


def test_an_update_does_not_wait_for_a_frozen_holder_for_ever(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "tally.json", Tally, 1)
    with file.updating():
        with file.updating(seconds=0) as tally:
            tally.counts["a"] = Count(number=1)
        assert file.read() == Tally(counts={"a": Count(number=1)})


# ------------------------------------------------------------------------- records of earlier versions

INTERVAL = Interval(start=datetime(2026, 3, 8, tzinfo=UTC), end=datetime(2026, 3, 9, tzinfo=UTC))
JOB = "db3ad8d95eaa57cb"


def written(name: str, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(WRITTEN / f"{name}.json", path)
    return path


@pytest.fixture
def job(tmp_path: Path) -> JobFiles:
    return CheckpointFiles(tmp_path).job(JOB)


def test_an_earlier_plan_is_read(job: JobFiles) -> None:
    written("plan", job.plan)
    plan = read_plan(job.directory)
    assert (plan.job_id, plan.config.name, plan.rows) == (JOB, "flights", 200)
    assert [chunk.rows for chunk in plan.chunks] == [100, 100]
    assert [feature.name for feature in plan.features] == ["x", "y"]


def test_an_earlier_job_is_read(job: JobFiles) -> None:
    written("job", job.job)
    record = read_job(job.directory)
    assert (record.outcome, record.run, record.error) == ("failed", "run-1", "no disk")
    assert (record.recoveries, record.told, record.steps) == (2, ("failed: ClusterError: #",), ("mine",))


def test_an_earlier_detector_is_read(job: JobFiles) -> None:
    written("detector", job.detector)
    ref = RecordFile(job.detector, DetectorRef, Version.DETECTOR).read()
    assert (ref.kind, ref.sample_rows, Path(ref.path).stem) == ("isolation_forest", 200, ref.model_digest)


def test_an_earlier_assignment_is_read(job: JobFiles) -> None:
    written("plan", job.plan)
    written("assignment", job.assignment)
    assignment = kept_assignment(read_plan(job.directory).config, job.directory)
    assert assignment.parameters == {"region": "eu"}
    assert assignment.interval == INTERVAL
    assert [schedule.cron for schedule in assignment.schedules] == ["0 6 * * *"]


def test_an_earlier_lease_is_read(job: JobFiles) -> None:
    path = written("lease-000002", lease_path(job.directory, 2))
    record: dict[str, Any] = json.loads(path.read_text())
    expected = Holder("calm-otter", record["host"], record["pid"], record["since"], 2)
    assert last_holder(job.directory) == (expected, "released")


def test_earlier_receipts_are_read() -> None:
    record = json.loads((WRITTEN / "receipts.json").read_bytes())
    (receipt,) = unseal(record, Version.RECEIPTS, "receipts")["receipts"]
    assert ChunkReceipt.model_validate(receipt).rows == 100


def test_an_earlier_interval_is_read(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "flights")
    written("interval", ledger.directory(INTERVAL) / ENTRY)
    result = ledger.published(INTERVAL)
    assert result is not None
    assert (result.job_id, result.interval, result.rows) == (JOB, INTERVAL, 200)


def test_an_earlier_history_is_read_although_it_names_intervals(tmp_path: Path) -> None:
    path = written("history", CheckpointFiles(tmp_path).history("flights"))
    assert "interval_start" in path.read_text()
    (publication,) = read_history(tmp_path / "history" / "flights.json")
    assert (publication.job_id, publication.rows, publication.anomalies) == (JOB, 200, 2)
    assert previous_rates(tmp_path / "history" / "flights.json", "another") == (0.01,)


def test_earlier_notifications_are_remembered(tmp_path: Path) -> None:
    path = written("notified", CheckpointFiles(tmp_path).notified("flights"))
    at = datetime(2026, 3, 9, 12, 30, tzinfo=UTC)
    with rate_limited(path, "slack-webhook/ops failed", timedelta(hours=1), at) as taken:
        assert not taken.granted
    with rate_limited(path, "slack-webhook/ops failed", timedelta(hours=1), at + timedelta(hours=1)) as taken:
        assert taken.note == "2 more since 2026-03-09 12:00 UTC."


def test_an_earlier_manifest_is_read(tmp_path: Path) -> None:
    written("manifest", tmp_path / "manifest.json")
    manifest = read_manifest(tmp_path)
    assert (manifest.name, manifest.job_id, manifest.state) == ("flights", JOB, "Completed")
    assert manifest.scores


def test_an_earlier_stack_is_read(tmp_path: Path) -> None:
    written("stack", tmp_path / "stack.json")
    record = read_stack(tmp_path)
    assert record is not None
    assert (record.stack.server_port, record.stack.workers, record.ready) == (4200, 2, False)


def test_an_earlier_backfill_is_read() -> None:
    record = read_record(WRITTEN / "backfill.json", 1)
    assert (record["first"], record["last"], record["token"]) == ("2026-03-01", "2026-03-03", "0123abcd")


def test_the_earlier_configuration_is_still_a_configuration(job: JobFiles) -> None:
    written("plan", job.plan)
    config = read_plan(job.directory).config
    assert BatchConfig.model_validate(config.model_dump(mode="json")) == config
