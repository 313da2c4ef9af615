"""Validating: the staged result is audited before anybody can see it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from siftline.errors import ValidationFailed
from siftline.files import file_digest
from siftline.progress import Progress, report
from siftline.types import BatchPlan, Check, CombinedScores, Receipts, ValidationReport

Footers = dict[str, pq.FileMetaData | str]


def validate_results(plan: BatchPlan, receipts: Receipts, combined: CombinedScores) -> ValidationReport:
    """Audit a staged result: every check is made, whatever the others say.

    Raises
    ------
    ValidationFailed
        With all failures; the staged result stays for inspection.
    """
    report(Progress("validate", rows_total=plan.rows))
    footers = _footers(combined)
    checks = (
        _coverage(plan, receipts),
        _row_counts(plan, combined, footers),
        _finite(combined),
        _anomaly_rate(plan, combined),
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
    """Every chunk has one receipt, and together they cover the source without gap or overlap."""
    expected = [(chunk.index, chunk.first_row, chunk.rows) for chunk in plan.chunks]
    found = [(receipt.chunk, receipt.first_row, receipt.rows) for receipt in receipts.in_order]
    detail = f"{len(found)} receipts for {len(expected)} chunks"
    return Check(name="coverage", passed=found == expected, detail=detail)


def _footers(combined: CombinedScores) -> Footers:
    """Read the footers of the staged files; what cannot be read gives the reason why."""
    footers: Footers = {}
    for file in (*combined.scores, *combined.anomaly_files):
        try:
            footers[file.name] = pq.read_metadata(Path(combined.staged) / file.name)
        except (pa.ArrowException, OSError) as error:
            footers[file.name] = " ".join(str(error).split())
    return footers


def _row_counts(plan: BatchPlan, combined: CombinedScores, footers: Footers) -> Check:
    rows = {name: 0 if isinstance(footer, str) else footer.num_rows for name, footer in footers.items()}
    written = sum(rows[file.name] for file in combined.scores)
    found = sum(rows[file.name] for file in combined.anomaly_files)
    passed = plan.rows == combined.rows == written and combined.anomalies == found
    detail = (
        f"{plan.rows} rows in the source, {combined.rows} scored, {written} written; "
        f"{combined.anomalies} labelled, {found} in the anomalies table"
    )
    return Check(name="row counts", passed=passed, detail=detail)


def _finite(combined: CombinedScores) -> Check:
    count = combined.summary.non_finite
    return Check(name="finite scores", passed=not count, detail=f"{count} scores are not finite")


def _anomaly_rate(plan: BatchPlan, combined: CombinedScores) -> Check:
    bounds = plan.config.validation.anomaly_rate
    rate = combined.anomalies / combined.rows
    detail = f"{rate:.6g} of the rows are anomalies, allowed are {bounds.min:g} to {bounds.max:g}"
    return Check(name="anomaly rate", passed=bounds.min <= rate <= bounds.max, detail=detail)


def _schema(plan: BatchPlan, combined: CombinedScores, footers: Footers) -> Check:
    key = plan.config.source.key
    expected = {name: plan.snapshot.columns[name] for name in key} or {"row": str(pa.int64())}
    expected |= {"score": str(pa.float64()), "label": str(pa.int8())}
    wrong = []
    for file in combined.scores:
        footer = footers[file.name]
        if isinstance(footer, str):
            continue
        if {field.name: str(field.type) for field in footer.schema.to_arrow_schema()} != expected:
            wrong.append(file.name)
    detail = f"not as planned in {', '.join(wrong)}" if wrong else "as planned"
    return Check(name="schema", passed=not wrong, detail=detail)


def _digests(combined: CombinedScores, footers: Footers) -> Check:
    wrong = []
    for file in (*combined.scores, *combined.anomaly_files):
        footer = footers[file.name]
        if isinstance(footer, str):
            wrong.append(f"{file.name} ({footer})")
        elif file_digest(Path(combined.staged) / file.name) != file.digest:
            wrong.append(file.name)
    detail = f"not as written: {', '.join(wrong)}" if wrong else "as written"
    return Check(name="digests", passed=not wrong, detail=detail)
