"""The ledger keeps the outcome of each interval, and its last publication."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from siftline.config.schedules import Interval, Schedule, intervals_of
from siftline.errors import StorageError
from siftline.jobs.intervals import Ledger
from siftline.types import BatchResult

FIRST, SECOND, THIRD = intervals_of(Schedule(cron="0 0 * * *"), date(2026, 3, 1), date(2026, 3, 3))


def result(interval: Interval, job: str = "job") -> BatchResult:
    return BatchResult(
        name="test",
        interval=interval,
        job_id=job,
        flow_run_id="run",
        state="Completed",
        rows=9,
        chunks=1,
        chunks_reused=0,
        chunks_computed=1,
        chunks_failed=0,
        rows_failed=0,
        anomaly_count=1,
        threshold=0.5,
        output="out",
        wall_seconds=0.1,
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "work", "test")


def test_an_interval_without_a_run_is_unknown(ledger: Ledger) -> None:
    assert ledger.entry(FIRST) is None
    assert ledger.published(FIRST) is None
    assert list(ledger.entries()) == []


def test_the_outcome_of_an_interval_is_kept(ledger: Ledger, tmp_path: Path) -> None:
    ledger.write(FIRST, "published", "run-1", result=result(FIRST))
    ledger.write(SECOND, "skipped", None, "late")
    first, second = (Ledger(tmp_path / "work", "test").entry(one) for one in (FIRST, SECOND))
    assert first is not None
    assert (first.interval, first.outcome, first.run, first.reason) == (FIRST, "published", "run-1", None)
    assert first.result == result(FIRST)
    assert datetime.fromisoformat(first.at).tzinfo is not None
    assert second is not None
    assert (second.outcome, second.run, second.reason, second.result) == ("skipped", None, "late", None)


def test_a_publication_is_kept_when_later_runs_fail(ledger: Ledger) -> None:
    ledger.write(FIRST, "published", "run-1", result=result(FIRST))
    ledger.write(FIRST, "failed", "run-2", "no disk")
    entry = ledger.entry(FIRST)
    assert entry is not None
    assert (entry.outcome, entry.run, entry.reason) == ("failed", "run-2", "no disk")
    assert ledger.published(FIRST) == result(FIRST)
    ledger.write(FIRST, "published", "run-3", result=result(FIRST, "other"))
    assert ledger.published(FIRST) == result(FIRST, "other")


def test_an_interval_that_only_failed_is_not_published(ledger: Ledger) -> None:
    ledger.write(FIRST, "failed", "run", "no disk")
    assert ledger.published(FIRST) is None


def test_entries_come_oldest_first(ledger: Ledger) -> None:
    for interval in (SECOND, THIRD, FIRST):
        ledger.write(interval, "skipped", None, "late")
    assert [entry.interval for entry in ledger.entries()] == [FIRST, SECOND, THIRD]


def test_an_interval_is_the_same_in_every_timezone(ledger: Ledger) -> None:
    ledger.write(FIRST.local("Asia/Tokyo"), "published", "run", result=result(FIRST))
    assert ledger.published(FIRST.local("America/New_York")) == result(FIRST)


def test_pipelines_have_ledgers_of_their_own(ledger: Ledger, tmp_path: Path) -> None:
    ledger.write(FIRST, "published", "run", result=result(FIRST))
    assert Ledger(tmp_path / "work", "other").published(FIRST) is None
    assert Ledger(tmp_path / "elsewhere", "test").published(FIRST) is None


@pytest.mark.parametrize("content", ["", "{}", '{"interval": 3}', "no JSON"])
def test_an_entry_that_cannot_be_read_is_not_known(ledger: Ledger, content: str) -> None:
    ledger.write(FIRST, "published", "run", result=result(FIRST))
    ledger.write(SECOND, "skipped", None, "late")
    (ledger.directory(FIRST) / "entry.json").write_text(content)
    assert ledger.published(FIRST) is None
    assert [entry.interval for entry in ledger.entries()] == [SECOND]


def test_an_entry_that_was_changed_by_hand_is_not_believed(ledger: Ledger) -> None:
    ledger.write(FIRST, "failed", "run", "no disk")
    path = ledger.directory(FIRST) / "entry.json"
    path.write_text(path.read_text().replace('"failed"', '"skipped"'))
    assert ledger.entry(FIRST) is None


def test_other_files_in_the_directory_do_no_harm(ledger: Ledger) -> None:
    ledger.write(FIRST, "skipped", None, "late")
    (ledger.directory(FIRST).parent / "note.txt").write_text("mine")
    ledger.directory(SECOND).mkdir()
    assert [entry.interval for entry in ledger.entries()] == [FIRST]


def test_a_ledger_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "work").write_text("a file")
    with pytest.raises(StorageError, match="a file is where a directory should be"):
        Ledger(tmp_path / "work", "test").write(FIRST, "skipped", None, "late")


def test_moments_are_kept_exactly(ledger: Ledger) -> None:
    interval = Interval(start=datetime(2026, 3, 1, 0, 0, 1, tzinfo=UTC), end=FIRST.end)
    ledger.write(interval, "skipped", None, "late")
    assert [entry.interval for entry in ledger.entries()] == [interval]
