"""The audit: every check fails when it should, all failures are told, nothing is published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from siftline.config import BatchConfig
from siftline.errors import SiftlineError, ValidationFailed
from siftline.files import file_digest
from siftline.types import BatchPlan, CombinedScores, Receipts
from siftline.validate import validate_results
from tests.support import make_config, stage_job

Staged = tuple[BatchPlan, Receipts, CombinedScores]
CHECKS = ["coverage", "row counts", "finite scores", "anomaly rate", "schema", "digests"]


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


def rewrite(combined: CombinedScores, change: Callable[[pa.Table], pa.Table]) -> CombinedScores:
    """Change the staged scores, and say so: only what the change is about may be noticed."""
    file = combined.scores[0]
    path = Path(combined.staged) / file.name
    pq.write_table(change(pq.read_table(path)), path)
    renewed = file.model_copy(update={"digest": file_digest(path), "size": path.stat().st_size})
    return combined.model_copy(update={"scores": (renewed, *combined.scores[1:])})


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
    assert failures(plan, receipts, combined.model_copy(update={"summary": summary})) == ["finite scores"]


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


@pytest.mark.parametrize("kind", ["scores", "anomaly_files"])
def test_a_file_that_is_not_as_written_is_noticed(staged: Staged, kind: str) -> None:
    plan, receipts, combined = staged
    path = Path(combined.staged) / getattr(combined, kind)[0].name
    pq.write_table(pq.read_table(path), path, compression="gzip")
    assert failures(plan, receipts, combined) == ["digests"]


def test_all_failures_are_told(staged: Staged) -> None:
    plan, receipts, combined = staged
    summary = combined.summary.model_copy(update={"non_finite": 1})
    wrong = rewrite(combined, lambda table: table.drop(["label"])).model_copy(
        update={"summary": summary, "rows": 1}
    )
    found = failures(plan, Receipts(receipts.in_order[1:], 0), wrong)
    assert found == ["coverage", "row counts", "finite scores", "anomaly rate", "schema"]


@pytest.mark.parametrize("harm", ["gone", "torn"])
def test_a_file_that_cannot_be_read_is_a_failed_check(staged: Staged, harm: str) -> None:
    plan, receipts, combined = staged
    path = Path(combined.staged) / combined.scores[0].name
    content = path.read_bytes()
    path.unlink()
    if harm == "torn":
        path.write_bytes(content[:-20])
    with pytest.raises(SiftlineError):
        validate_results(plan, receipts, combined)
