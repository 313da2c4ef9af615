"""Validation: an audit of the staged result before it is published."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from siftline.batch_plan import BatchPlan
from siftline.errors import ValidationFailed
from siftline.jobs.history import previous_rates
from siftline.progress import Progress, emit
from siftline.shown import listed
from siftline.storage.files import file_digest
from siftline.storage.records import PublishedFile
from siftline.types import Check, CombinedScores, Receipts, ValidationReport

_FEWEST_EARLIER = 3
# Rows that ties may flag in any batch, however small.
_MOST_TIED = 10

Footers = dict[str, pq.FileMetaData | str]  # a text says why a footer cannot be read


def validate_results(
    plan: BatchPlan, receipts: Receipts, combined: CombinedScores, partial: bool = False
) -> ValidationReport:
    """Audit a staged result; a partial one may have more rejects than tolerated.

    All checks are made; `ValidationFailed` has all failures, and the staged result stays for inspection.
    """
    emit(Progress("validate", rows_total=plan.rows))
    footers = _footers(combined)
    checks = (
        _coverage(plan, receipts),
        _row_counts(plan, receipts, combined, footers),
        _failed(plan, receipts, combined, footers, partial),
        _anomaly_rate(plan, combined),
        *_usual_rate(plan, combined),
        *_ties(plan, combined),
        _schema(plan, combined, footers),
        _digests(combined, footers),
    )
    validation = ValidationReport(checks=checks)
    if validation.failures:
        raise ValidationFailed(
            f"the result did not pass {len(validation.failures)} of {len(checks)} checks: "
            + "; ".join(validation.failures),
            f"nothing was published; the staged result is in {combined.staged}",
            validation.failures,
        )
    return validation


def _coverage(plan: BatchPlan, receipts: Receipts) -> Check:
    """Check that receipts and failures cover every chunk once."""
    expected = [(chunk.index, chunk.first_row, chunk.rows) for chunk in plan.chunks]
    scored, failed = receipts.in_order, receipts.failed
    found = sorted((one.chunk, one.first_row, one.rows) for one in (*scored, *failed))
    detail = f"{len(scored)} receipts and {len(failed)} failures for {len(expected)} chunks"
    return Check(name="coverage", passed=found == expected, detail=detail)


def _files(combined: CombinedScores) -> tuple[PublishedFile, ...]:
    return (*combined.scores, *combined.anomaly_files, *combined.failed_files)


def _footers(combined: CombinedScores) -> Footers:
    """Return the footer of each staged file, or why it cannot be read."""
    footers: Footers = {}
    for file in _files(combined):
        try:
            footers[file.name] = pq.read_metadata(Path(combined.staged) / file.name)
        except (pa.ArrowException, OSError) as error:
            footers[file.name] = " ".join(str(error).split())
    return footers


def _row_counts(plan: BatchPlan, receipts: Receipts, combined: CombinedScores, footers: Footers) -> Check:
    """Check that every source row was either scored or failed."""
    written = _rows(combined.scores, footers)
    found = _rows(combined.anomaly_files, footers)
    failed = receipts.rows_failed
    passed = plan.rows == combined.rows + failed and combined.rows == written and combined.anomalies == found
    detail = (
        f"{plan.rows} rows in the source, {combined.rows} scored, {failed} failed, {written} written; "
        f"{combined.anomalies} labelled, {found} in the anomalies table"
    )
    return Check(name="row counts", passed=passed, detail=detail)


def _rows(files: Iterable[PublishedFile], footers: Footers) -> int:
    found = [footers[file.name] for file in files]
    return sum(0 if isinstance(footer, str) else footer.num_rows for footer in found)


def _failed(
    plan: BatchPlan, receipts: Receipts, combined: CombinedScores, footers: Footers, partial: bool
) -> Check:
    """Check that rejects are tolerated, and all listed in the failed table."""
    rows, limit = receipts.rows_rejected, plan.tolerated_rows
    without = combined.summary.non_finite
    listed = _rows(combined.failed_files, footers)
    detail = (
        f"{rows} rows set aside ({limit} tolerated), {without} without a score, {listed} in the failed table"
    )
    passed = rows == without == listed and (partial or rows <= limit)
    return Check(name="failed rows", passed=passed, detail=detail)


def _anomaly_rate(plan: BatchPlan, combined: CombinedScores) -> Check:
    bounds = plan.config.validation.anomaly_rate
    rate = combined.anomalies / combined.rows
    detail = (
        f"{100 * rate:.6g} % of the rows are flagged; "
        f"validation.anomaly_rate allows {100 * bounds.min:g} to {100 * bounds.max:g} %"
    )
    if rate < bounds.min:
        detail += ". Lower min, or flag more"
    if rate > bounds.max:
        detail += ". Raise max, or flag fewer"
    return Check(name="anomaly rate", passed=bounds.min <= rate <= bounds.max, detail=detail)


def _ties(plan: BatchPlan, combined: CombinedScores) -> Iterator[Check]:
    """Refuse equal scores that flag far more rows than asked for, unless that is allowed."""
    if combined.asked is None or combined.ties is None:
        return
    few = combined.anomalies - combined.asked <= _MOST_TIED
    remedy = "Score by other features, set threshold.score, or allow it with validation.ties: warn"
    passed = few or plan.config.validation.ties == "warn"
    yield Check(name="ties", passed=passed, detail=combined.ties if passed else f"{combined.ties} {remedy}")


def _usual_rate(plan: BatchPlan, combined: CombinedScores) -> Iterator[Check]:
    """Compare the share of flagged rows with the median of earlier publications, if configured."""
    bounds = plan.config.validation.anomaly_rate
    if bounds.within is None:
        return
    earlier = previous_rates(plan.files.checkpoint.history(plan.config.name), plan.job_id)[: bounds.last]
    rate = combined.anomalies / combined.rows
    if len(earlier) < _FEWEST_EARLIER:
        detail = f"{len(earlier)} earlier publications are too few to compare with"
        yield Check(name="usual rate", passed=True, detail=detail)
        return
    usual = statistics.median(earlier)
    lowest, highest = max(0.0, (1 - bounds.within) * usual), (1 + bounds.within) * usual
    passed = lowest <= rate <= highest
    detail = (
        f"{100 * rate:.6g} % of the rows are flagged, {100 * usual:.6g} % in the median of the last "
        f"{len(earlier)} publications; validation.anomaly_rate.within allows {100 * lowest:.6g} to "
        f"{100 * highest:.6g} %"
    )
    yield Check(name="usual rate", passed=passed, detail=detail if passed else f"{detail}. Check the input")


def _schema(plan: BatchPlan, combined: CombinedScores, footers: Footers) -> Check:
    key = plan.config.source.key
    expected = {"row": str(pa.int64())} | {name: plan.snapshot.columns[name] for name in key}
    expected |= {"score": str(pa.float64()), "label": str(pa.int8())}
    found = {file.name: footers[file.name] for file in combined.scores}
    wrong = [
        name
        for name, footer in found.items()
        if not isinstance(footer, str)
        and {field.name: str(field.type) for field in footer.schema.to_arrow_schema()} != expected
    ]
    detail = f"not as planned in {listed(wrong)}" if wrong else "as planned"
    return Check(name="schema", passed=not wrong, detail=detail)


def _digests(combined: CombinedScores, footers: Footers) -> Check:
    def problem(file: PublishedFile) -> str | None:
        footer = footers[file.name]
        if isinstance(footer, str):
            return f"{file.name} ({footer})"
        return file.name if file_digest(Path(combined.staged) / file.name) != file.digest else None

    with ThreadPoolExecutor() as pool:  # hashing needs no lock of Python's
        wrong = [name for name in pool.map(problem, _files(combined)) if name is not None]
    detail = f"not as written: {listed(wrong)}" if wrong else "as written"
    return Check(name="digests", passed=not wrong, detail=detail)
