"""However the rows are cut, the findings are the same; every point of the curve is exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from siftline.jobs.findings import Findings
from siftline.jobs.results import open_results
from tests.support import Job, make_config, make_table, run_job, write_files

ROWS = 400
SECTIONS: dict[str, Any] = {
    "source": {"features": ["x", "y", "n", "color"], "timestamp": "at", "key": ["id"], "label": "label"},
    "preprocess": {"missing": "median", "categorical": "onehot", "time_parts": ["hour"]},
    "threshold": {"contamination": 0.1},
    "output": {"columns": ["at", "machine", "n"]},
}
cuts = {
    "chunk_rows": st.integers(15, ROWS + 50),
    "files": st.integers(1, 4),
    "row_group": st.integers(20, ROWS),
}


def labelled_table() -> pa.Table:
    generator = np.random.default_rng(1)
    table = make_table(ROWS, missing=0.05)
    labels = pa.array(generator.choice(["normal", "anomaly", None], ROWS, p=[0.85, 0.1, 0.05]))
    table = table.append_column("machine", pa.array(generator.choice(["press", "lathe"], ROWS)))
    return table.append_column("label", labels)


def found(home: Path, chunk_rows: int, files: int, row_group: int) -> tuple[Job, Findings]:
    data = write_files(home / "data", labelled_table(), files, row_group)
    job = run_job(make_config(home, data, chunking={"rows": chunk_rows}, **SECTIONS))
    findings = open_results(job.plan.config.output.path).findings
    assert findings is not None
    return job, findings


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Findings]:
    """The job in one chunk of one file."""
    return found(tmp_path_factory.mktemp("whole"), ROWS, 1, ROWS)


@settings(max_examples=8)
@given(**cuts)
def test_any_cut_gives_the_same_findings(
    tmp_path_factory: pytest.TempPathFactory,
    whole: tuple[Job, Findings],
    chunk_rows: int,
    files: int,
    row_group: int,
) -> None:
    job, findings = found(tmp_path_factory.mktemp("cut"), chunk_rows, files, row_group)
    changing = {"publication": "", "curve": None}
    assert findings.model_copy(update=changing) == whole[1].model_copy(update=changing)
    curve, scores = findings.curve, job.scores
    assert curve is not None
    assert list(curve.rows) == [int((scores >= score).sum()) for score in curve.scores]
    assert job.combined.threshold in curve.scores


def test_the_findings_are_those_of_the_published_rows(whole: tuple[Job, Findings]) -> None:
    job, findings = whole
    anomalies, labels = job.anomalies, labelled_table()["label"].to_pylist()
    assert findings.publication == job.manifest.publication
    assert sum(group.rows for group in findings.groups) + findings.others == 40
    assert sum(findings.positions) == sum(count for _, count in findings.times) == 40
    flagged = np.flatnonzero(job.labels)
    assert findings.positions == tuple(np.bincount(flagged * 200 // ROWS, minlength=200).tolist())
    assert findings.timestamp == "at"
    assert findings.sample_rows == ROWS
    explained = [reason["feature"] for row in anomalies["reasons"].to_pylist() for reason in row]
    assert {one.name: one.reasons for one in findings.features} == {
        name: explained.count(name) for name in ("x", "y", "n", "color", "at.hour")
    }
    known = np.array([one is not None for one in labels])
    truth = np.array([one == "anomaly" for one in labels])
    quality = findings.quality
    assert quality is not None
    assert (quality.labelled, quality.positives) == (known.sum(), truth.sum())
    assert quality.roc_auc == pytest.approx(roc_auc_score(truth[known], job.scores[known]))
    assert quality.average_precision == pytest.approx(
        average_precision_score(truth[known], job.scores[known])
    )
    assert quality.recall == truth[flagged].sum() / truth.sum()
    assert quality.precision == truth[flagged].sum() / known[flagged].sum()


def test_known_labels_are_not_copied_into_the_anomalies(whole: tuple[Job, Findings]) -> None:
    assert whole[0].anomalies.column_names == [
        *("id", "row", "x", "y", "n", "color", "at", "machine"),
        *("score", "rank", "reasons"),
    ]
