"""Records of runs and copies of input, altered in any place, are refused or made anew."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.csv as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, RootModel

from siftline.config.schedules import Interval
from siftline.errors import SiftlineError
from siftline.jobs.intervals import Entry, Ledger
from siftline.jobs.live import Alert, ChunkCounts, LiveRecord, RowCounts, Sample, StageTime, live_record
from siftline.jobs.record import JobRecord, concluded, write_job
from siftline.jobs.starting import Starting, find_starting, starting
from siftline.jobs.status import job_status
from siftline.notices.rate_limit import LastSent, rate_limited
from siftline.source.frames import stage_frame
from siftline.storage.layout import CheckpointFiles, Version
from siftline.storage.lease import Lease
from siftline.storage.lease_file import LeaseRecord
from siftline.storage.records import RecordFile
from siftline.types import BatchResult
from tests.support import Job, make_config, make_table, run_job
from tests.unit.stages.outside import (
    FOREIGN,
    altered,
    leaves,
    nothing_outside_changes,
    published_job,
    read_sealed,
    restore,
    save,
    write_sealed,
)

NOW = datetime.now(UTC)
INTERVAL = Interval(start=NOW - timedelta(days=1), end=NOW)
VALUES: list[object] = [*FOREIGN, -1, 2**70, None, "2020-01-01", 1e308, []]
MODELS: dict[str, tuple[type[BaseModel], int]] = {
    "live": (LiveRecord, Version.LIVE),
    "lease": (LeaseRecord, Version.LEASE),
    "job": (JobRecord, Version.JOB),
    "interval": (Entry, Version.INTERVAL),
    "starting": (Starting, Version.STARTING),
    "notified": (RootModel[dict[str, LastSent]], Version.NOTIFIED),
}


def records_of_runs(job: Job) -> dict[str, Path]:
    """Records of runs, beside those of the job's results, all of them written here."""
    files, name = job.plan.files, job.plan.config.name
    with Lease("run-a") as lease:
        lease.take(files.directory)
    live = LiveRecord(
        run="run-a",
        name=name,
        output=job.plan.config.output.path,
        token=job.plan.token,
        started=NOW,
        updated=NOW,
        stages=(StageTime(stage="detect", started=NOW),),
        chunks=ChunkCounts(total=2, done=1),
        rows=RowCounts(total=60, done=30),
        alerts=(Alert(at=NOW, kind="retried", text="chunk 1", chunk=1),),
        timeline=(Sample(at=NOW, rows=30, chunks=1, retries=0, workers=1, memory=5),),
        dashboard="http://127.0.0.1:8787/status",
    )
    live_record(files.directory).write(live)
    write_job(files.directory, concluded(JobRecord(told=("a",)), "failed", "run-a", "an error"))
    ledger = Ledger(files.checkpoint.root, name)
    counts = {"rows": 60, "rows_scored": 60, "rows_failed": 0, "chunks": 2, "anomalies": 1}
    result = BatchResult.model_validate(
        {
            **{field: counts.get(field, 0) for field in BatchResult.model_fields},
            "name": name,
            "job_id": job.plan.job_id,
            "flow_run_id": "run-a",
            "state": "Completed",
            "interval": INTERVAL,
            "output": job.plan.config.output.path,
            "threshold": 0.5,
        }
    )
    ledger.write(INTERVAL, "published", "run-a", result=result)
    begun = files.checkpoint.starting / f"{name}-{os.getpid()}.json"
    here = Starting(name=name, host=socket.gethostname(), pid=os.getpid(), at=datetime.now(UTC))
    RecordFile(begun, Starting, Version.STARTING).write(here)
    notified = files.checkpoint.notified(name)
    with rate_limited(notified, "slack/failed", timedelta(hours=1), NOW):
        pass
    return {
        "live": files.live,
        "lease": max(files.directory.glob("lease-*.json")),
        "job": files.job,
        "interval": ledger.directory(INTERVAL) / "entry.json",
        "starting": begun,
        "notified": notified,
    }


def use_records_of_runs(job: Job) -> None:
    """Read and renew the records as runs, commands and the page do."""
    checkpoint, name = job.plan.files.checkpoint.root, job.plan.config.name
    ledger = Ledger(checkpoint, name)
    job_status(job.plan.directory, with_size=True)
    find_starting(checkpoint, name)
    known, _ = ledger.published(INTERVAL), list(ledger.entries())
    notified = job.plan.files.checkpoint.notified(name)
    with rate_limited(notified, "slack/failed", timedelta(hours=1), NOW):
        pass
    with suppress(SiftlineError), Lease("run-b") as lease:
        lease.take(CheckpointFiles.at(checkpoint).job(known.job_id if known else "none").directory)
        lease.check()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A published job of few rows."""
    return published_job(tmp_path_factory.mktemp("kept"))


@pytest.fixture(scope="module")
def worked(kept: Job) -> dict[str, Path]:
    """The records of runs of a job, saved with it."""
    found = records_of_runs(kept)
    save(kept)
    return found


@pytest.mark.parametrize("kind", ["live", "lease", "job", "interval", "starting", "notified"])
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_record_of_a_run_with_anything_altered_is_refused_or_harmless(
    kept: Job, worked: dict[str, Path], kind: str, data: st.DataObject
) -> None:
    home = restore(kept)
    path = worked[kind]
    body, written = read_sealed(path)
    with nothing_outside_changes(home.parent):
        if data.draw(st.booleans()):
            at = data.draw(st.integers(0, leaves(body) - 1))
            value: object = data.draw(st.sampled_from(VALUES))
            write_sealed(path, altered(body, at, value), written)
        else:
            content = bytearray(path.read_bytes())
            content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
            path.write_bytes(content)
            model, version = MODELS[kind]
            believed = RecordFile(path, model, version).read_or(None)
            assert believed is None or believed == model.model_validate(body)
        use_records_of_runs(kept)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job on CSV input."""
    home = tmp_path_factory.mktemp("csv")
    pc.write_csv(make_table(60), home / "rows.csv")
    return run_job(make_config(home, home / "rows.csv", source={"key": ["id"]}))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_staged_copy_with_any_byte_altered_is_refused_or_made_anew(
    converted: Job, data: st.DataObject
) -> None:
    config, scores = converted.plan.config, converted.scores.tobytes()
    with nothing_outside_changes(Path(config.output.path).parent):
        run_job(config)
        (staged,) = converted.plan.files.checkpoint.staged.iterdir()
        content = bytearray(staged.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        staged.write_bytes(content)
        with suppress(SiftlineError):
            assert run_job(config, fresh=True).scores.tobytes() == scores
        assert run_job(config, fresh=True).scores.tobytes() == scores


def test_a_damaged_copy_of_a_data_frame_is_replaced(tmp_path: Path) -> None:
    staged = stage_frame(make_table(60), tmp_path)
    content = staged.read_bytes()
    staged.write_bytes(content[:100] + b"x" + content[101:])
    assert stage_frame(make_table(60), tmp_path) == staged
    assert staged.read_bytes() == content


@pytest.mark.parametrize("empty", [True, False])
def test_an_empty_directory_of_the_user_stays(tmp_path: Path, empty: bool) -> None:
    if empty:
        (tmp_path / "work").mkdir()
    with starting(tmp_path / "work", "batch"):
        pass
    assert list(tmp_path.iterdir()) == [tmp_path / "work"] * empty
