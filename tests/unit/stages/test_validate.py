"""The audit: every check fails when it should, all failures are told, nothing is published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from siftline.batch_plan import BatchPlan
from siftline.config.batch import BatchConfig
from siftline.engine import SerialExecutor
from siftline.errors import ValidationFailed
from siftline.stages.combine import combine_results
from siftline.stages.validate import validate_results
from siftline.storage.files import file_digest, write_record
from siftline.storage.layout import Version
from siftline.types import CombinedScores, FailedChunk, Receipts
from tests.support import make_config, make_table, stage_job, write_files

Staged = tuple[BatchPlan, Receipts, CombinedScores]
CHECKS = ["coverage", "row counts", "failed rows", "anomaly rate", "schema", "digests"]


@pytest.fixture
def staged(config: BatchConfig) -> Staged:
    plan, _, receipts, combined = stage_job(config)
    return plan, receipts, combined


def failures(plan: BatchPlan, receipts: Receipts, combined: CombinedScores) -> list[str]:
    with pytest.raises(ValidationFailed) as caught:
        validate_results(plan, receipts, combined)
    error = caught.value
    assert error.remedy == f"nothing was published; the staged result is in {combined.staged}"
    assert Path(combined.staged).is_dir()
    assert not (Path(plan.config.output.path) / "manifest.json").exists()
    assert error.problem == (
        f"the result did not pass {len(error.failures)} of {len(CHECKS)} checks: " + "; ".join(error.failures)
    )
    return [failure.partition(":")[0] for failure in error.failures]


def rewrite(
    combined: CombinedScores, change: Callable[[pa.Table], pa.Table], kind: str = "scores"
) -> CombinedScores:
    """Change a staged file, and say so: only what the change is about may be noticed."""
    file, *others = getattr(combined, kind)
    path = Path(combined.staged) / file.name
    pq.write_table(change(pq.read_table(path)), path)
    renewed = file.model_copy(update={"digest": file_digest(path), "size": path.stat().st_size})
    return combined.model_copy(update={kind: (renewed, *others)})


def test_a_good_result_passes_every_check(staged: Staged) -> None:
    report = validate_results(*staged)
    assert [check.name for check in report.checks] == CHECKS
    assert report.failures == ()


def test_a_missing_receipt_is_noticed(staged: Staged) -> None:
    plan, receipts, combined = staged
    assert failures(plan, Receipts(receipts.in_order[1:], 0), combined) == ["coverage"]


def test_a_receipt_twice_is_noticed(staged: Staged) -> None:
    plan, receipts, combined = staged
    twice = Receipts([*receipts.in_order[1:], receipts.in_order[1]], 0)
    assert failures(plan, twice, combined) == ["coverage"]


@pytest.mark.parametrize("field", ["rows", "anomalies"])
def test_counts_that_do_not_reconcile_are_noticed(staged: Staged, field: str) -> None:
    plan, receipts, combined = staged
    wrong = combined.model_copy(update={field: getattr(combined, field) - 1})
    assert failures(plan, receipts, wrong) == ["row counts"]


def test_rows_lost_on_the_way_are_noticed(staged: Staged) -> None:
    plan, receipts, combined = staged
    assert failures(plan, receipts, rewrite(combined, lambda table: table.slice(1))) == ["row counts"]


def test_scores_that_are_not_finite_are_noticed(staged: Staged) -> None:
    plan, receipts, combined = staged
    summary = combined.summary.model_copy(update={"non_finite": 2})
    assert failures(plan, receipts, combined.model_copy(update={"summary": summary})) == ["failed rows"]


@pytest.fixture
def staged_with_rejects(tmp_path: Path) -> Staged:
    """Three rows of 200 cannot be scored, and as many are tolerated."""
    values = make_table(200)["x"].to_numpy().copy()
    values[[5, 61, 130]] = 1e300
    table = make_table(200).set_column(1, "x", pa.array(values))
    data = write_files(tmp_path / "rejects", table, row_group=20)
    plan, _, receipts, combined = stage_job(
        make_config(tmp_path, data, tolerate={"rows": 3}, chunking={"rows": 20})
    )
    assert [receipt.rows_rejected for receipt in receipts.in_order] == [1, 0, 0, 1, 0, 0, 1, 0, 0, 0]
    return plan, receipts, combined


def tolerating(plan: BatchPlan, rows: int | str) -> BatchPlan:
    tolerate = plan.config.tolerate.model_copy(update={"rows": rows})
    return replace(plan, config=plan.config.model_copy(update={"tolerate": tolerate}))


@pytest.mark.parametrize(
    ("tolerated", "passes"), [(3, True), (2, False), ("1.5%", True), ("1.49%", False), (0, False)]
)
def test_rows_set_aside_pass_up_to_the_tolerance_and_no_further(
    staged_with_rejects: Staged, tolerated: int | str, passes: bool
) -> None:
    plan, receipts, combined = staged_with_rejects
    plan = tolerating(plan, tolerated)
    if passes:
        (check,) = [
            one for one in validate_results(plan, receipts, combined).checks if one.name == "failed rows"
        ]
        assert check.detail == ("3 rows set aside (3 tolerated), 3 without a score, 3 in the failed table")
    else:
        assert failures(plan, receipts, combined) == ["failed rows"]


def test_rows_in_are_rows_scored_and_rows_failed(staged_with_rejects: Staged) -> None:
    report = validate_results(*staged_with_rejects)
    (check,) = [one for one in report.checks if one.name == "row counts"]
    assert check.detail.startswith("200 rows in the source, 197 scored, 3 failed, 197 written; ")


def test_a_reject_missing_from_the_failed_table_is_noticed(staged_with_rejects: Staged) -> None:
    plan, receipts, combined = staged_with_rejects
    fewer = rewrite(combined, lambda table: table.slice(1), "failed_files")
    assert failures(plan, receipts, fewer) == ["failed rows"]
    untold = combined.model_copy(update={"failed_files": ()})
    assert failures(plan, receipts, untold) == ["failed rows"]


def test_a_row_set_aside_that_has_a_score_is_noticed(staged_with_rejects: Staged) -> None:
    plan, receipts, combined = staged_with_rejects
    summary = combined.summary.model_copy(update={"non_finite": 2})
    assert failures(plan, receipts, combined.model_copy(update={"summary": summary})) == ["failed rows"]


def test_rows_neither_scored_nor_set_aside_are_noticed(staged_with_rejects: Staged) -> None:
    plan, receipts, combined = staged_with_rejects
    forgetful = [receipts.in_order[0].model_copy(update={"rejects": None}), *receipts.in_order[1:]]
    assert failures(plan, Receipts(forgetful, 0), combined) == ["row counts", "failed rows"]


def without_chunks(plan: BatchPlan, receipts: Receipts, chunks: set[int]) -> Receipts:
    """The receipts without those of some chunks, which are told as failed."""
    return Receipts(
        [receipt for receipt in receipts.in_order if receipt.chunk not in chunks],
        0,
        [
            FailedChunk(
                chunk=chunk.index,
                first_row=chunk.first_row,
                rows=chunk.rows,
                error="SourceError",
                message="torn",
                attempts=3,
            )
            for chunk in plan.chunks
            if chunk.index in chunks
        ],
    )


def test_a_chunk_that_failed_is_accounted_for_by_its_rows(config: BatchConfig) -> None:
    plan, detector, receipts, _ = stage_job(config)
    some = without_chunks(plan, receipts, {1, 4})
    combined = combine_results(plan, detector, some, SerialExecutor())
    report = validate_results(plan, some, combined)
    told = {check.name: check.detail for check in report.checks}
    assert told["coverage"] == f"{len(plan.chunks) - 2} receipts and 2 failures for {len(plan.chunks)} chunks"
    assert told["row counts"].startswith(
        f"600 rows in the source, {combined.rows} scored, {600 - combined.rows} failed, "
    )


def test_a_chunk_that_is_done_and_failed_as_well_is_noticed(config: BatchConfig) -> None:
    plan, _, receipts, combined = stage_job(config)
    failed = without_chunks(plan, receipts, {1}).failed
    both = Receipts(receipts.in_order, 0, failed)
    assert failures(plan, both, combined) == ["coverage", "row counts"]


@pytest.mark.parametrize(
    ("bounds", "passes"),
    [({"max": 0.019}, False), ({"max": 0.02}, True), ({"min": 0.021}, False), ({"min": 0.02}, True)],
)
def test_the_anomaly_rate_must_be_within_its_bounds(
    tmp_path: Path, source: Path, bounds: dict[str, float], passes: bool
) -> None:
    config = make_config(tmp_path, source, validation={"anomaly_rate": bounds})
    plan, _, receipts, combined = stage_job(config)
    if passes:
        assert validate_results(plan, receipts, combined).failures == ()
    else:
        assert failures(plan, receipts, combined) == ["anomaly rate"]


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.drop(["label"]),
        lambda table: table.append_column("extra", pa.array([0] * table.num_rows)),
        lambda table: table.set_column(2, "label", table["label"].cast(pa.int64())),
    ],
    ids=["column lost", "column added", "type changed"],
)
def test_another_schema_than_planned_is_noticed(staged: Staged, change: Any) -> None:
    plan, receipts, combined = staged
    assert failures(plan, receipts, rewrite(combined, change)) == ["schema"]


@pytest.mark.parametrize("kind", ["scores", "anomaly_files", "failed_files"])
def test_a_file_that_is_not_as_written_is_noticed(staged_with_rejects: Staged, kind: str) -> None:
    plan, receipts, combined = staged_with_rejects
    path = Path(combined.staged) / getattr(combined, kind)[0].name
    pq.write_table(pq.read_table(path), path, compression="gzip")
    assert failures(plan, receipts, combined) == ["digests"]


def test_all_failures_are_listed(staged: Staged) -> None:
    plan, receipts, combined = staged
    summary = combined.summary.model_copy(update={"non_finite": 1})
    wrong = rewrite(combined, lambda table: table.drop(["label"])).model_copy(
        update={"summary": summary, "rows": 1}
    )
    found = failures(plan, Receipts(receipts.in_order[1:], 0), wrong)
    assert found == ["coverage", "row counts", "failed rows", "anomaly rate", "schema"]


@pytest.mark.parametrize("harm", ["gone", "torn"])
def test_a_file_that_cannot_be_read_is_a_failed_check(staged: Staged, harm: str) -> None:
    plan, receipts, combined = staged
    path = Path(combined.staged) / combined.scores[0].name
    content = path.read_bytes()
    path.unlink()
    if harm == "torn":
        path.write_bytes(content[:-20])
    assert failures(plan, receipts, combined) == ["row counts", "digests"]


def with_history(tmp_path: Path, rates: list[float], within: float, last: int = 10) -> Staged:
    """A staged result with 2 % anomalies, after publications of other jobs with these rates."""
    source = write_files(tmp_path / "data", make_table(600))
    config = make_config(tmp_path, source, validation={"anomaly_rate": {"within": within, "last": last}})
    plan, _, receipts, combined = stage_job(config)
    publications = [
        {
            "publication": f"p-{number}",
            "published_at": "2026-03-08T00:00:00+00:00",
            "job_id": f"j-{number}",
            "rows": 1_000,
            "anomalies": round(1_000 * rate),
        }
        for number, rate in enumerate(rates)
    ]
    record = {"publications": publications}
    write_record(plan.files.checkpoint.history(config.name), record, Version.HISTORY)
    return plan, receipts, combined


@pytest.mark.parametrize(
    ("rates", "within", "last", "passes"),
    [
        ([0.02] * 3, 0.1, 10, True),
        ([0.04] * 3, 0.5, 10, True),  # just half of what is usual
        ([0.041] * 3, 0.5, 10, False),
        ([0.009] * 5, 1.0, 10, False),  # more than twice
        ([0.001] * 5, 30.0, 10, True),
        ([0.5, 0.5, 0.5, 0.5, 0.02, 0.02, 0.02], 0.1, 3, True),  # the last three alone
        ([0.5, 0.5], 0.1, 10, True),  # too few to compare with
        ([], 0.1, 10, True),
    ],
)
def test_the_rate_is_compared_with_the_median_of_the_last_publications(
    tmp_path: Path, rates: list[float], within: float, last: int, passes: bool
) -> None:
    plan, receipts, combined = with_history(tmp_path, rates, within, last)
    if passes:
        check = validate_results(plan, receipts, combined).checks[4]
        assert (check.name, check.passed) == ("usual rate", True)
        return
    with pytest.raises(ValidationFailed, match=r"% of the rows are flagged, .* in the median of the last"):
        validate_results(plan, receipts, combined)


def test_the_check_of_the_usual_rate_says_what_it_compares(tmp_path: Path) -> None:
    plan, receipts, combined = with_history(tmp_path, [0.01, 0.2, 0.03], 0.5)
    assert validate_results(plan, receipts, combined).checks[4].detail == (
        "2 % of the rows are flagged, 3 % in the median of the last 3 publications; "
        "validation.anomaly_rate.within allows 1.5 to 4.5 %"
    )
    few = with_history(tmp_path / "few", [0.01], 0.5)
    assert validate_results(*few).checks[4].detail == "1 earlier publications are too few to compare with"


def tied(home: Path, equal: int, rows: int = 800, **validation: str) -> Staged:
    """Stage a batch in which so many of the rows are the same, and the others nearer to the middle."""
    table = make_table(rows)
    for name in ("x", "y"):
        values = np.where(np.arange(rows) < equal, 5.0, np.linspace(-0.1, 0.1, rows))
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    config = make_config(
        home, write_files(home / "data", table), threshold={"contamination": 0.01}, validation=validation
    )
    plan, _, receipts, combined = stage_job(config)
    return plan, receipts, combined


@pytest.mark.parametrize(("equal", "rows"), [(800, 800), (100, 800), (20, 20)])
def test_far_more_tied_rows_than_asked_for_are_refused(tmp_path: Path, equal: int, rows: int) -> None:
    plan, receipts, combined = tied(tmp_path, equal, rows)
    with pytest.raises(ValidationFailed) as caught:
        validate_results(plan, receipts, combined)
    asked = -(-rows // 100)
    assert caught.value.failures == (
        f"ties: Ties: {equal} of {rows} rows are flagged instead of {asked}, because too many have the same "
        f"score, {combined.threshold:.6g}. Score by other features, set threshold.score, or allow it with "
        "validation.ties: warn",
    )


@pytest.mark.parametrize(("equal", "rows"), [(8, 800), (16, 800), (5, 5), (11, 20)])
def test_a_few_tied_rows_are_published(tmp_path: Path, equal: int, rows: int) -> None:
    report = validate_results(*tied(tmp_path, equal, rows))
    assert not report.failures


def test_ties_that_are_allowed_are_published_with_a_caution(tmp_path: Path) -> None:
    plan, receipts, combined = tied(tmp_path, 800, ties="warn")
    *_, check = (one for one in validate_results(plan, receipts, combined).checks if one.name == "ties")
    assert check.passed
    assert check.detail.startswith("Ties: 800 of 800 rows are flagged instead of 8, because")


def test_a_fixed_score_asks_for_no_number_of_rows(tmp_path: Path) -> None:
    plan, _, receipts, combined = stage_job(
        make_config(tmp_path, write_files(tmp_path / "data", make_table(100)), threshold={"score": 0.0})
    )
    assert combined.anomalies == 100
    assert not validate_results(plan, receipts, combined).failures


def test_ties_at_a_quantile_of_the_sample_are_refused_too(tmp_path: Path) -> None:
    table = (
        make_table(100).set_column(1, "x", pa.array([1.0] * 100)).set_column(2, "y", pa.array([1.0] * 100))
    )
    data = write_files(tmp_path / "data", table)
    plan, _, receipts, combined = stage_job(make_config(tmp_path, data, threshold={"quantile": 0.99}))
    with pytest.raises(ValidationFailed, match="100 of 100 rows are flagged instead of 1, because"):
        validate_results(plan, receipts, combined)
