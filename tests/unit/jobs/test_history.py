"""The history of a pipeline's publications: each once, the last thirty, and none where it is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from siftline.config.batch import BatchConfig
from siftline.errors import StorageError
from siftline.jobs.history import Publication, previous_rates, read_history, remember
from siftline.jobs.results import Manifest
from siftline.storage.files import write_record
from siftline.storage.layout import Version
from tests.support import run_job


@pytest.fixture
def manifest(config: BatchConfig) -> Manifest:
    return run_job(config).manifest


def numbered(manifest: Manifest, number: int) -> Manifest:
    """The manifest of another job, with as many anomalies as its number."""
    update = {
        "publication": f"p-{number}",
        "job_id": f"j-{number}",
        "anomaly_count": number,
        "rows_failed": 100,
    }
    return manifest.model_copy(update=update)


def test_a_publication_is_kept_once(tmp_path: Path, manifest: Manifest) -> None:
    for seconds in (1.23456, 9.0):
        remember(tmp_path / "history" / "flights.json", manifest, seconds, "2026-03-08 to 2026-03-09")
    assert read_history(tmp_path / "history" / "flights.json") == (
        Publication(
            publication=manifest.publication,
            published_at=manifest.published_at,
            job_id=manifest.job_id,
            rows=600,
            anomalies=manifest.anomaly_count,
            rows_failed=0,
            threshold=manifest.threshold,
            duration_seconds=1.235,
            output=manifest.config["output"]["path"],
            interval="2026-03-08 to 2026-03-09",
        ),
    )


def test_a_record_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    former = {
        "publication": "p",
        "published_at": "2026-03-08T00:00:00+00:00",
        "job_id": "j",
        "rows": 100,
        "anomalies": 5,
    }
    write_record(tmp_path / "flights.json", {"publications": [former]}, Version.HISTORY)
    (publication,) = read_history(tmp_path / "flights.json")
    assert (publication.rate, publication.threshold, publication.duration_seconds) == (0.05, None, None)


def test_the_last_thirty_are_kept(tmp_path: Path, manifest: Manifest) -> None:
    for number in range(33):
        remember(tmp_path / "history" / "flights.json", numbered(manifest, number))
    assert [one.publication for one in read_history(tmp_path / "history" / "flights.json")] == [
        f"p-{number}" for number in range(3, 33)
    ]


def test_the_rates_before_are_those_of_other_jobs_newest_first(tmp_path: Path, manifest: Manifest) -> None:
    for number in (5, 10, 20):
        remember(tmp_path / "history" / "flights.json", numbered(manifest, number))
    assert previous_rates(tmp_path / "history" / "flights.json", "j-20") == (10 / 500, 5 / 500)
    assert previous_rates(tmp_path / "history" / "flights.json", "j-9") == (20 / 500, 10 / 500, 5 / 500)
    assert previous_rates(tmp_path / "history" / "another.json", "j-9") == ()


def test_a_partial_publication_is_left_out(tmp_path: Path, manifest: Manifest) -> None:
    remember(tmp_path / "history" / "flights.json", manifest.model_copy(update={"complete": False}))
    assert read_history(tmp_path / "history" / "flights.json") == ()


@pytest.mark.parametrize("publications", [None, "none", [3], [{"publication": "p"}]])
def test_a_history_that_cannot_be_read_starts_anew(
    tmp_path: Path, manifest: Manifest, publications: object
) -> None:
    write_record(tmp_path / "history" / "flights.json", {"publications": publications}, Version.HISTORY)
    assert read_history(tmp_path / "history" / "flights.json") == ()
    remember(tmp_path / "history" / "flights.json", manifest)
    assert len(read_history(tmp_path / "history" / "flights.json")) == 1


def test_a_history_that_cannot_be_written_is_a_storage_error(tmp_path: Path, manifest: Manifest) -> None:
    (tmp_path / "history").touch()
    with pytest.raises(StorageError):
        remember(tmp_path / "history" / "flights.json", manifest)
    assert read_history(tmp_path / "history" / "flights.json") == ()
