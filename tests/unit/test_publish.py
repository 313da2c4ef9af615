"""Publishing replaces the result at once, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from siftline.config import BatchConfig
from siftline.errors import IntegrityError, SourceError, StorageError
from siftline.files import file_digest
from siftline.publish import publish_results
from siftline.results import open_results
from siftline.types import ValidationReport
from tests.support import run_job, stage_job, visible_files


def publications(output: Path) -> set[str]:
    return {path.name for kind in ("scores", "anomalies") for path in (output / kind).iterdir()}


def test_the_manifest_names_every_file_and_nothing_else_is_there(config: BatchConfig) -> None:
    job = run_job(config)
    output = Path(config.output.path)
    named = [file.name for file in (*job.manifest.scores, *job.manifest.anomaly_files)]
    assert visible_files(output) == sorted([*named, "manifest.json"])
    for file in (*job.manifest.scores, *job.manifest.anomaly_files):
        assert (output / file.name).stat().st_size == file.size
        assert file_digest(output / file.name) == file.digest


def test_the_manifest_says_what_was_done(config: BatchConfig) -> None:
    job = run_job(config)
    manifest = job.manifest
    assert (manifest.name, manifest.job_id, manifest.rows, manifest.rows_failed) == (
        "batch",
        job.plan.job_id,
        600,
        0,
    )
    assert manifest.chunks == len(job.plan.chunks)
    assert manifest.anomalies == 12 == job.anomalies.num_rows
    assert manifest.config == config.stated()
    assert manifest.features == ("x", "y")
    assert {"siftline", "scikit-learn", "numpy", "python"} <= manifest.versions.keys()
    assert (manifest.score_minimum, manifest.score_maximum) == (job.scores.min(), job.scores.max())
    assert all(check.passed for check in manifest.validation.checks)
    assert open_results(config.output.path).manifest == manifest


def test_the_publication_before_is_kept_and_older_ones_go(config: BatchConfig) -> None:
    output = Path(config.output.path)
    manifests = [run_job(config).manifest for _ in range(4)]
    assert len({manifest.publication for manifest in manifests}) == 4
    assert [manifest.replaces for manifest in manifests] == [
        None,
        *(manifest.publication for manifest in manifests[:-1]),
    ]
    assert publications(output) == {manifests[-1].publication, manifests[-2].publication}


def test_a_reader_can_finish_after_the_result_was_replaced(config: BatchConfig) -> None:
    first = run_job(config)
    reader = open_results(config.output.path)
    run_job(config)
    assert reader.scores.to_table()["score"].to_numpy().tobytes() == first.scores.tobytes()
    assert reader.anomalies.num_rows == 12


def test_a_failure_before_the_manifest_leaves_the_result(
    config: BatchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, (plan, detector, _, combined) = run_job(config), stage_job(config)
    before = first.outcome()

    def refuse(*args: object) -> None:
        raise StorageError("manifest.json: No space left on device", "free some space")

    with monkeypatch.context() as patch:
        patch.setattr("siftline.publish.write_record", refuse)
        with pytest.raises(StorageError, match="No space left"):
            publish_results(plan, detector, combined, ValidationReport(checks=()))
    assert open_results(config.output.path).manifest == first.manifest
    assert first.outcome() == before

    last = run_job(config).manifest
    assert last.replaces == first.manifest.publication
    assert publications(Path(config.output.path)) == {last.publication, first.manifest.publication}


def test_a_failure_between_the_files_leaves_the_result(
    config: BatchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, (plan, detector, _, combined) = run_job(config), stage_job(config)
    moved: list[Path] = []

    def once(source: Path, target: Path) -> None:
        if moved:
            raise StorageError(f"{target}: Input/output error", "check the disk")
        moved.append(target)
        source.rename(target)

    with monkeypatch.context() as patch:
        patch.setattr("siftline.publish.rename", once)
        with pytest.raises(StorageError, match="Input/output"):
            publish_results(plan, detector, combined, ValidationReport(checks=()))
    assert open_results(config.output.path).manifest == first.manifest
    assert run_job(config).outcome() == first.outcome()


def test_staging_shows_nothing_to_readers(config: BatchConfig) -> None:
    stage_job(config)
    with pytest.raises(SourceError, match="no results there"):
        open_results(config.output.path)


def test_the_staged_result_of_an_earlier_run_is_swept_away(config: BatchConfig) -> None:
    staged = [Path(stage_job(config)[3].staged) for _ in range(2)]
    assert [path.exists() for path in staged] == [False, True]


def test_a_directory_without_results_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        open_results(tmp_path)
    assert str(caught.value) == f"{tmp_path}: no results there; give the output.path of a finished job"


def test_an_altered_manifest_is_refused(config: BatchConfig) -> None:
    run_job(config)
    path = Path(config.output.path) / "manifest.json"
    record = json.loads(path.read_text())
    record["anomalies"] = 0
    path.write_text(json.dumps(record))
    with pytest.raises(IntegrityError, match="does not match its digest"):
        open_results(config.output.path)


def test_a_sealed_record_that_is_no_manifest_is_refused(tmp_path: Path) -> None:
    from siftline.files import write_record

    write_record(tmp_path / "manifest.json", {"rows": 3}, 1)
    with pytest.raises(IntegrityError, match="not a manifest; run the job again into an empty directory"):
        open_results(tmp_path)
