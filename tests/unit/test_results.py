"""The published result, as its readers get it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import siftline
from siftline.combine import combine_results
from siftline.config import BatchConfig
from siftline.errors import FeatureError, IntegrityError
from siftline.executor import SerialExecutor
from tests.support import make_config, make_table, run_job, stage_job, write_files


def test_scores_are_a_dataset_of_key_score_and_label(config: BatchConfig) -> None:
    run_job(config)
    schema = siftline.open_results(config.output.path).scores.schema
    assert {field.name: str(field.type) for field in schema} == {
        "row": "int64",
        "score": "double",
        "label": "int8",
    }


def test_anomalies_have_keys_originals_score_rank_and_reasons(tmp_path: Path, source: Path) -> None:
    config = make_config(
        tmp_path, source, source={"key": ["id"]}, output={"columns": ["color", "at"]}, chunking={"rows": 100}
    )
    job = run_job(config)
    assert job.anomalies.column_names == ["id", "x", "y", "color", "at", "score", "rank", "reasons"]
    originals = {row["id"]: row for row in make_table(600).to_pylist()}
    for row in job.anomalies.to_pylist():
        for name in ("x", "y", "color", "at"):
            assert row[name] == originals[row["id"]][name]


def test_the_anomalies_are_the_flagged_rows_by_rank(config: BatchConfig) -> None:
    job = run_job(config)
    flagged = job.table.filter(job.table["label"].to_numpy() == 1)
    assert sorted(flagged["row"].to_pylist()) == sorted(job.anomalies["row"].to_pylist())
    scores = job.anomalies["score"].to_pylist()
    higher = [sum(other > score for other in scores) for score in scores]
    assert job.anomalies["rank"].to_pylist() == [1 + count for count in higher]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] == job.combined.threshold


def test_the_top_is_the_beginning_of_the_anomalies(config: BatchConfig) -> None:
    job = run_job(config)
    results = siftline.open_results(config.output.path)
    assert results.top(5).to_pylist() == job.anomalies.to_pylist()[:5]
    assert results.top(100).num_rows == 12
    assert results.top(0).num_rows == 0


@pytest.mark.parametrize(("score", "count"), [(-1.0, 600), (2.0, 0)])
def test_a_fixed_score_may_flag_every_row_or_none(
    tmp_path: Path, source: Path, score: float, count: int
) -> None:
    job = run_job(make_config(tmp_path, source, threshold={"score": score}, chunking={"rows": 100}))
    assert job.combined.threshold == score
    assert int(job.labels.sum()) == job.combined.anomalies == job.anomalies.num_rows == count


def test_a_score_at_the_threshold_is_an_anomaly(tmp_path: Path, source: Path, config: BatchConfig) -> None:
    exact = float(np.sort(run_job(config).scores)[-7])
    job = run_job(make_config(tmp_path, source, threshold={"score": exact}))
    assert (job.scores == exact).any()
    assert job.combined.anomalies == (job.scores >= exact).sum()
    assert (job.labels == (job.scores >= exact)).all()


def test_the_samples_quantile_is_the_threshold(tmp_path: Path, source: Path) -> None:
    job = run_job(make_config(tmp_path, source, threshold={"quantile": 0.9}))
    assert job.combined.threshold == np.quantile(job.scores, 0.9)
    assert job.combined.anomalies == 60


def test_a_fitted_model_scores_like_the_job_that_fitted_it(tmp_path: Path, source: Path) -> None:
    first = run_job(make_config(tmp_path / "a", source))
    second = run_job(
        make_config(tmp_path / "b", source, detector={"model": first.detector.path}, chunking={"rows": 90})
    )
    assert second.outcome() == first.outcome()
    assert second.detector.model_digest == first.detector.model_digest


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("dictionary", make_table(60)["color"].dictionary_encode()),
        ("large_string", make_table(60)["id"].cast(pa.large_string())),
        ("timestamp", make_table(60)["at"].cast(pa.timestamp("ms"))),
        ("date", make_table(60)["at"].cast(pa.date32())),
    ],
)
def test_keys_of_any_type_come_out_as_they_are(tmp_path: Path, name: str, column: Any) -> None:
    data = write_files(tmp_path / "data", make_table(60).append_column(name, column), files=2)
    job = run_job(make_config(tmp_path, data, source={"key": [name]}, chunking={"rows": 25}))
    assert job.table[name].to_pylist() == column.to_pylist()


def test_many_chunks_make_several_files_of_the_result(
    config: BatchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = run_job(config)
    before = one.outcome()
    monkeypatch.setattr("siftline.combine._ROWS_PER_FILE", 150)
    several = run_job(config)
    assert len(one.manifest.scores) == 1
    assert len(several.manifest.scores) > 3
    assert sum(file.rows for file in several.manifest.scores) == 600
    assert several.outcome() == before


def test_very_many_anomalies_are_left_in_source_order(
    config: BatchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    sorted_rows = run_job(config).anomalies.to_pylist()
    monkeypatch.setattr("siftline.combine._SORTED_ROWS", 5)
    job = run_job(config)
    rows = job.anomalies.to_pylist()
    assert [row["row"] for row in rows] == sorted(row["row"] for row in rows)
    assert sorted(rows, key=lambda row: row["rank"]) == sorted_rows
    assert siftline.open_results(config.output.path).top(3).to_pylist() == sorted_rows[:3]


def test_a_part_file_altered_before_combining_is_refused(config: BatchConfig) -> None:
    plan, detector, receipts, _ = stage_job(config)
    part = plan.parts / receipts.in_order[2].part
    content = part.read_bytes()
    part.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(IntegrityError):
        combine_results(plan, detector, receipts, SerialExecutor())


def test_a_row_that_cannot_be_scored_is_named(tmp_path: Path) -> None:
    table = make_table(100)
    values = table["x"].to_numpy().copy()
    values[61] = np.nan
    data = write_files(tmp_path / "data", table.set_column(1, "x", pa.array(values)), row_group=20)
    detector = {"kind": "elliptic_envelope", "params": {}, "sample_rows": 10, "seed": 1}
    with pytest.raises(FeatureError, match="row 61 misses a value, and elliptic_envelope cannot score that"):
        run_job(make_config(tmp_path, data, detector=detector, chunking={"rows": 20}))
