"""Findings, live records and histories to make reports of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np

from siftline.config.batch import BatchConfig
from siftline.jobs.findings import (
    EVERY_POINT,
    Curve,
    FeatureFindings,
    Findings,
    Group,
    GroupReason,
    Overrepresented,
    Quality,
)
from siftline.jobs.history import Publication
from siftline.jobs.live import Alert, ChunkCounts, LiveRecord, Sample, StageTime
from siftline.stages.publish import publish_results
from siftline.stages.validate import validate_results
from tests.support import Job, stage_job

RUN = "6cb49a12-fcf9-4f05-93a5-4350839847ed"
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOSTILE = {
    "markup": "</td></script><script>alert(1)</script><img src=x onerror=alert(2)>",
    "attribute": '" onmouseover="alert(3)" x=\'',
    "template": "{{ 7 * 7 }}{% raw %}",
    "terminal": "\x1b[31mred\x1b]0;title\x07",
    "direction": "abc\u202egnirts\u2066",
    "long": "x" * 10_000,
}


def published(config: BatchConfig) -> Job:
    """Publish a job by a run with an id."""
    plan, detector, receipts, combined = stage_job(config)
    validation = validate_results(plan, receipts, combined)
    manifest = publish_results(plan, detector, receipts, combined, validation, flow_run_id=RUN)
    return Job(plan, detector, receipts, combined, manifest)


def curve_of(scores: np.ndarray, every: int = 1, thinned: bool = False) -> Curve:
    """Scores of rows, and the rows that each would flag: the highest, then one in `every`."""
    values, counts = np.unique(scores, return_counts=True)
    rows = np.cumsum(counts[::-1])
    kept = np.union1d(np.arange(min(EVERY_POINT, len(values))), np.arange(0, len(values), every))
    return Curve(
        scores=tuple(values[::-1][kept].tolist()),
        rows=tuple(rows[kept].tolist()),
        exact_from=float(values[0]),
        thinned=thinned,
    )


def feature(name: str = "x", kind: str = "numeric") -> FeatureFindings:
    """A feature around 0, or a text."""
    if kind != "numeric":
        return FeatureFindings(name=name, kind=kind, values=(("red", 0.5), ("blue", 0.25)), reasons=3)
    quantiles = (-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0)
    return FeatureFindings(
        name=name, kind=kind, quantiles=quantiles, missing=0.01, anomalies=(5.0, 6.0, 8.0), reasons=7
    )


def group(name: str = "x", rows: int = 5, value: str = "red") -> Group:
    """A group with high values of one feature, in which one value is frequent."""
    reason = GroupReason(feature=name, direction="high", value="6.5", typical="0", distance=6.5)
    return Group(
        reasons=(reason,),
        rows=rows,
        share=0.5,
        score=0.9,
        rank=1,
        worst={"id": "r7", name: "12.25", "place": value},
        overrepresented=(Overrepresented(column="place", value=value, share=0.8, lift=4.0),),
        sentence=f"{rows} anomalies: {name} far above normal; 80 % are place={value}.",
    )


def findings_of(job: Job, text: str = "red") -> Findings:
    """Findings of a job's publication, with a text from its data."""
    return Findings(
        publication=job.manifest.publication,
        groups=(group(value=text), group("y", 3, text)),
        others=2,
        curve=curve_of(job.scores),
        features=(feature("x"), feature("y"), feature("color", "categorical")),
        positions=tuple(range(50)),
        quality=Quality(
            labelled=100, positives=4, roc_auc=0.99, average_precision=0.8, precision=0.5, recall=0.75
        ),
        sample_rows=600,
    )


def live_of(job: Job, text: str = "chunk 3: lost") -> LiveRecord:
    """The record of a run with two retries."""
    moments = [START + timedelta(seconds=second) for second in range(20)]
    return LiveRecord(
        run=RUN,
        name=job.manifest.name,
        interval="2026-03-01",
        started=START,
        updated=moments[-1],
        stages=(StageTime(stage="plan", started=START, ended=moments[2]),),
        chunks=ChunkCounts(total=6, done=6, retried=2),
        average_rows_per_second=30.0,
        alerts=(Alert(at=moments[3], kind="retried", text=text, chunk=3),),
        timeline=tuple(
            Sample(at=at, rows=30 * n, chunks=n // 4, retries=n // 8, workers=2, memory=n << 20)
            for n, at in enumerate(moments)
        ),
    )


def history_of(count: int = 5) -> list[Publication]:
    """Publications of a pipeline, one a day."""
    return [
        Publication(
            publication=f"p{day}",
            published_at=(START + timedelta(days=day)).isoformat(),
            job_id="0123456789abcdef",
            rows=600 + day,
            anomalies=12,
            duration_seconds=20.0 + day,
            threshold=0.6,
        )
        for day in range(count)
    ]
