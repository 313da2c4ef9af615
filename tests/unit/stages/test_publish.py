"""Publishing replaces the result at once, or not at all."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from siftline.config.batch import BatchConfig
from siftline.engine import SerialExecutor
from siftline.errors import IntegrityError, JobBusy, LeaseLost, SourceError, StorageError
from siftline.jobs.plans import planned_config
from siftline.jobs.results import Manifest, open_results
from siftline.stages.combine import combine_results
from siftline.stages.detect import collect_receipts
from siftline.stages.plan import plan_batch
from siftline.stages.publish import publish_results, published_already
from siftline.stages.validate import validate_results
from siftline.storage.files import file_digest, read_record, write_record
from siftline.storage.layout import Version
from siftline.storage.lease import Lease
from siftline.storage.records import RecordFile
from siftline.types import ValidationReport
from tests.support import (
    elsewhere,
    make_config,
    make_table,
    run_job,
    stage_job,
    store_of,
    visible_files,
    write_files,
)

PASSED = ValidationReport(checks=())


def publications(output: Path) -> set[str]:
    return {path.name for path in (output / ".publications").iterdir()}


def shown(output: Path) -> list[str]:
    """The files that are there for readers by name, of a publication with one file of scores."""
    return sorted(str(path.relative_to(output)) for path in [*output.glob("*.*"), *output.glob("scores/*")])


def flagging(config: BatchConfig, share: float) -> BatchConfig:
    """The same job with another threshold, which is another result."""
    threshold = config.threshold.model_copy(update={"contamination": share})
    return config.model_copy(update={"threshold": threshold})


def with_rejects(home: Path, **sections: Any) -> BatchConfig:
    """A job with two rows, 61 and 130, that cannot be scored; as many are tolerated."""
    table = make_table(200)
    values = table["x"].to_numpy().copy()
    values[[61, 130]] = [1e300, -1e300]
    data = write_files(home / "data", table.set_column(1, "x", pa.array(values)), row_group=20)
    return make_config(home, data, **{"tolerate": {"rows": 2}, "chunking": {"rows": 20}, **sections})


def publish_partially(config: BatchConfig, left_out: set[int]) -> Manifest:
    """Publish a job without some of its chunks, as if these had never been done."""
    plan, detector, receipts, _ = stage_job(config)
    store = store_of(config)
    for chunk in left_out:
        (store.directory / plan.token / f"{chunk:07d}.json").unlink()
    some = collect_receipts(plan, detector, store)
    assert {chunk.chunk for chunk in some.failed} == left_out
    assert len(some.in_order) + len(left_out) == len(receipts.in_order)
    combined = combine_results(plan, detector, some, SerialExecutor())
    validation = validate_results(plan, some, combined)
    return publish_results(plan, detector, some, combined, validation, complete=False)


@contextmanager
def publishing(output: Path) -> Iterator[None]:
    """Another run is publishing there."""
    with (output / ".publishing").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def test_the_manifest_names_every_file_and_nothing_else_is_there(config: BatchConfig) -> None:
    job = run_job(config)
    output = Path(config.output.path)
    named = [file.name for file in (*job.manifest.scores, *job.manifest.anomaly_files)]
    home = f".publications/{job.manifest.publication}"
    records = ["findings.json", "manifest.json"]
    own = [f"{home}/{name}" for name in records]
    assert visible_files(output) == sorted([*named, *own, ".publishing", "anomalies.parquet", *records])
    assert (output / ".publishing").stat().st_size == 0
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
    assert (manifest.complete, manifest.chunks_failed, manifest.failed_files) == (True, (), ())
    assert (manifest.state, manifest.missing) == ("Completed", ())
    assert manifest.anomaly_count == 12 == job.anomalies.num_rows
    assert manifest.config == config.stated()
    assert manifest.features == ("x", "y")
    assert {"siftline", "scikit-learn", "numpy", "python"} <= manifest.versions.keys()
    assert (manifest.score_minimum, manifest.score_maximum) == (job.scores.min(), job.scores.max())
    assert all(check.passed for check in manifest.validation.checks)
    assert open_results(config.output.path).manifest == manifest


def test_the_publication_before_is_kept_and_older_ones_go(config: BatchConfig) -> None:
    output = Path(config.output.path)
    manifests = [run_job(flagging(config, share)).manifest for share in (0.01, 0.02, 0.03, 0.04)]
    assert len({manifest.publication for manifest in manifests}) == 4
    assert [manifest.replaces for manifest in manifests] == [
        None,
        *(manifest.publication for manifest in manifests[:-1]),
    ]
    assert publications(output) == {manifests[-1].publication, manifests[-2].publication}


def test_a_reader_can_finish_after_the_result_was_replaced(config: BatchConfig) -> None:
    first = run_job(config)
    reader = open_results(config.output.path)
    before = first.outcome()
    assert run_job(flagging(config, 0.05)).manifest.replaces == first.manifest.publication
    assert reader.scores.to_table()["score"].to_numpy().tobytes() == before[0]
    assert reader.scores.to_table()["label"].to_numpy().tobytes() == before[1]
    assert reader.anomalies.to_pylist() == before[3]


def test_a_failure_before_the_manifest_leaves_the_result(
    config: BatchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, other = run_job(config), flagging(config, 0.05)
    plan, detector, receipts, combined = stage_job(other)
    before = first.outcome()

    def refuse(*args: object) -> None:
        raise StorageError("manifest.json: No space left on device", "free some space")

    with monkeypatch.context() as patch:
        patch.setattr(RecordFile, "write", refuse)
        with pytest.raises(StorageError, match="No space left"):
            publish_results(plan, detector, receipts, combined, PASSED)
    assert open_results(config.output.path).manifest == first.manifest
    assert first.outcome() == before

    last = run_job(other).manifest
    assert last.replaces == first.manifest.publication
    assert publications(Path(config.output.path)) == {last.publication, first.manifest.publication}


def test_a_failure_before_the_links_leaves_the_result_and_can_be_tried_again(
    config: BatchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, other = run_job(config), flagging(config, 0.05)
    before = first.outcome()
    plan, detector, receipts, combined = stage_job(other)

    def refuse(path: Path, target: str) -> bool:
        raise StorageError(f"{path}: Input/output error", "check the disk")

    with monkeypatch.context() as patch:
        patch.setattr("siftline.stages.publish.link", refuse)
        with pytest.raises(StorageError, match="Input/output"):
            publish_results(plan, detector, receipts, combined, PASSED)
    assert open_results(config.output.path).manifest == first.manifest
    assert first.outcome() == before

    last = publish_results(plan, detector, receipts, combined, PASSED)
    assert (last.replaces, last.anomaly_count) == (first.manifest.publication, 30)
    assert publications(Path(config.output.path)) == {last.publication, first.manifest.publication}


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
    write_record(tmp_path / "manifest.json", {"rows": 3}, Version.MANIFEST)
    with pytest.raises(IntegrityError, match="not a valid Manifest record; delete it and run again"):
        open_results(tmp_path)


def test_a_manifest_of_another_format_version_is_refused(config: BatchConfig) -> None:
    run_job(config)
    path = Path(config.output.path) / "manifest.json"
    assert Version.MANIFEST == 2
    write_record(path, read_record(path, Version.MANIFEST), 1)
    with pytest.raises(IntegrityError) as caught:
        open_results(config.output.path)
    assert str(caught.value) == (
        f"{path}: format version 1, this version of Siftline reads 2; "
        "use the version of Siftline that wrote it, or run again with --fresh"
    )


def test_what_is_published_is_not_published_again(config: BatchConfig) -> None:
    first = run_job(config)
    before = visible_files(Path(config.output.path))
    plan, detector, receipts, combined = stage_job(config)
    assert published_already(plan) == first.manifest
    again = publish_results(plan, detector, receipts, combined, PASSED, flow_run_id="another")
    assert again == first.manifest == open_results(config.output.path).manifest
    assert not Path(combined.staged).exists()
    assert visible_files(Path(config.output.path)) == before


def test_nothing_is_published_already_before_it_was(config: BatchConfig) -> None:
    assert published_already(stage_job(config)[0]) is None


def test_a_fresh_start_is_published_anew(config: BatchConfig) -> None:
    first, second = run_job(config), run_job(config, fresh=True)
    assert second.manifest.replaces == first.manifest.publication
    assert open_results(config.output.path).manifest == second.manifest


@pytest.mark.parametrize(
    "sections",
    [
        {"threshold": {"contamination": 0.03}},
        {"tolerate": {"rows": 1}},
        {"tolerate": {"chunks": "1%"}},
        {"validation": {"anomaly_rate": {"max": 0.5}}},
        {"output": {"columns": ["color"]}},
    ],
    ids=str,
)
def test_another_result_of_the_same_job_is_published(
    config: BatchConfig, tmp_path: Path, source: Path, sections: dict[str, Any]
) -> None:
    first = run_job(config)
    other = make_config(tmp_path, source, **{"chunking": {"rows": 100}, **sections})
    assert plan_batch(other).job_id == first.plan.job_id
    assert published_already(plan_batch(other)) is None
    second = run_job(other)
    assert second.manifest.replaces == first.manifest.publication
    assert second.receipts.computed == 0
    assert published_already(plan_batch(config)) is None
    assert published_already(plan_batch(other)) == second.manifest


def test_another_output_is_published_there(config: BatchConfig) -> None:
    first = run_job(config)
    assert published_already(plan_batch(elsewhere(config))) is None
    second = run_job(elsewhere(config))
    assert second.manifest.publication != first.manifest.publication
    assert second.outcome() == first.outcome()


@pytest.mark.parametrize(
    "sections",
    [
        {"chunking": {"rows": 50}},
        {"cluster": {"kind": "local", "workers": 3}},
        {"retries": {"attempts": 7}},
        {"notify": [{"block": "slack-webhook/ops"}]},
    ],
    ids=str,
)
def test_what_does_not_change_the_result_leaves_it_published(
    config: BatchConfig, tmp_path: Path, source: Path, sections: dict[str, Any]
) -> None:
    first = run_job(config)
    other = make_config(tmp_path, source, **{"chunking": {"rows": 100}, **sections})
    assert published_already(plan_batch(other)) == first.manifest


def test_a_result_is_the_same_by_a_relative_path_and_from_the_plan(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    relative = make_config(Path(), "data", chunking={"rows": 100})
    first = run_job(relative)
    assert first.manifest.config["output"]["path"] == "out"
    assert published_already(plan_batch(relative)) == first.manifest
    monkeypatch.chdir(source)
    assert published_already(plan_batch(planned_config(first.plan.directory))) == first.manifest


@pytest.mark.parametrize("kind", ["scores", "anomaly_files", "failed_files"])
@pytest.mark.parametrize("harm", ["gone", "torn"])
def test_a_result_whose_files_are_lost_is_published_anew(tmp_path: Path, kind: str, harm: str) -> None:
    config = with_rejects(tmp_path)
    first = run_job(config)
    path = Path(config.output.path) / getattr(first.manifest, kind)[0].name
    content = path.read_bytes()
    path.unlink()
    if harm == "torn":
        path.write_bytes(content[:-1])
    assert published_already(first.plan) is None
    second = run_job(config)
    assert second.receipts.computed == 0
    assert second.manifest.publication != first.manifest.publication
    assert second.labels.sum() == second.combined.anomalies
    assert open_results(config.output.path).failed is not None


def test_rows_without_a_score_are_published_beside_the_others(tmp_path: Path) -> None:
    job = run_job(with_rejects(tmp_path))
    output, manifest = Path(job.plan.config.output.path), job.manifest
    assert (manifest.state, manifest.complete, manifest.missing) == ("CompletedWithRejects", True, ())
    assert (manifest.rows, manifest.rows_failed, manifest.chunks_failed) == (200, 2, ())
    assert sum(file.rows for file in manifest.scores) == 198
    (failed,) = manifest.failed_files
    assert failed.name == f".publications/{manifest.publication}/failed.parquet"
    assert (failed.rows, failed.size) == (2, (output / failed.name).stat().st_size)
    assert failed.digest == file_digest(output / failed.name)
    named = [file.name for file in (*manifest.scores, *manifest.anomaly_files, failed)]
    home = f".publications/{manifest.publication}"
    records = ["findings.json", "manifest.json"]
    own = [f"{home}/{name}" for name in records]
    links = ["anomalies.parquet", "failed.parquet", *records]
    assert visible_files(output) == sorted([*named, *own, ".publishing", *links])


def test_nothing_is_shown_that_the_new_publication_lacks(config: BatchConfig) -> None:
    output = Path(config.output.path)
    run_job(config)
    (output / ".current" / "report.html").touch()
    (output / "report.html").symlink_to(".current/report.html")
    plan, detector, receipts, combined = stage_job(flagging(config, 0.03))
    (Path(combined.staged) / "findings.json").unlink()
    publish_results(plan, detector, receipts, combined, validate_results(plan, receipts, combined))
    assert not (output / "findings.json").is_symlink()
    assert not (output / "report.html").is_symlink()
    assert open_results(output).findings is None


def test_the_failed_rows_of_the_publication_before_are_kept_and_older_ones_go(tmp_path: Path) -> None:
    config = with_rejects(tmp_path)
    names = [run_job(flagging(config, share)).manifest.publication for share in (0.01, 0.02, 0.03)]
    kept = Path(config.output.path).glob(".publications/*/failed.parquet")
    assert {path.parent.name for path in kept} == set(names[1:])


def test_a_partial_result_says_what_is_missing(config: BatchConfig) -> None:
    manifest = publish_partially(config, left_out={1, 2, 5})
    assert (manifest.complete, manifest.state) == (False, "Partial")
    assert [failed.chunk for failed in manifest.chunks_failed] == [1, 2, 5]
    assert {failed.error for failed in manifest.chunks_failed} == {"NotComputed"}
    chunks = plan_batch(config).chunks
    rows = [chunk.rows for chunk in chunks]
    assert manifest.missing == (
        (chunks[1].first_row, chunks[2].first_row + rows[2] - 1),
        (chunks[5].first_row, chunks[5].first_row + rows[5] - 1),
    )
    assert (manifest.rows, manifest.rows_failed) == (600, rows[1] + rows[2] + rows[5])
    results = open_results(config.output.path)
    there = [row for first, last in manifest.missing for row in range(first, last + 1)]
    assert results.scores.to_table()["row"].to_pylist() == sorted({*range(600)} - {*there})
    assert results.failed is None


def test_a_partial_result_does_not_count_as_published_and_gives_way_to_the_whole_one(
    config: BatchConfig,
) -> None:
    partial = publish_partially(config, left_out={3})
    assert published_already(plan_batch(config)) is None
    whole = run_job(config)
    assert (whole.receipts.computed, whole.manifest.state) == (1, "Completed")
    assert whole.manifest.replaces == partial.publication
    assert open_results(config.output.path).scores.count_rows() == 600


def test_a_run_that_was_replaced_publishes_nothing(config: BatchConfig) -> None:
    first = run_job(config)
    plan, detector, receipts, combined = stage_job(flagging(config, 0.05))
    with Lease("one") as lease:
        lease.take(plan.directory)
        (plan.directory / "lease-000001.json").unlink()
        with pytest.raises(LeaseLost):
            publish_results(plan, detector, receipts, combined, PASSED, lease=lease)
    assert open_results(config.output.path).manifest == first.manifest
    assert Path(combined.staged).is_dir()


def test_two_runs_never_publish_in_one_place_at_once(config: BatchConfig) -> None:
    first = run_job(config)
    plan, detector, receipts, combined = stage_job(flagging(config, 0.05))
    with publishing(Path(config.output.path)), pytest.raises(JobBusy) as caught:
        publish_results(plan, detector, receipts, combined, PASSED, lock_seconds=0)
    assert str(caught.value) == (
        f"{config.output.path}: another run has been publishing there for a while; end that run"
    )
    assert open_results(config.output.path).manifest == first.manifest
    assert publish_results(plan, detector, receipts, combined, PASSED).anomaly_count == 30
