"""The published result, as its readers get it."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import siftline
from siftline.config.batch import BatchConfig
from siftline.engine import SerialExecutor
from siftline.errors import ConfigError, PartDamaged, RowError
from siftline.stages.combine import combine_results
from siftline.storage.parquet import read_scores
from siftline.types import FailedChunk
from tests.support import elsewhere, make_config, make_table, run_job, stage_job, write_files


def test_scores_are_a_dataset_of_key_score_and_label(config: BatchConfig) -> None:
    run_job(config)
    schema = siftline.open_results(config.output.path).scores.schema
    assert {field.name: str(field.type) for field in schema} == {
        "row": "int64",
        "score": "double",
        "label": "int8",
    }


def test_a_result_is_a_data_frame_for_pandas(config: BatchConfig) -> None:
    run_job(config)
    results = siftline.open_results(config.output.path)
    frame = results.to_pandas()
    assert list(frame.columns) == ["row", "score", "label"]
    assert frame["score"].tolist() == results.scores.to_table()["score"].to_pylist()
    assert int(frame["label"].sum()) == results.manifest.anomaly_count


def test_anomalies_have_keys_originals_score_rank_and_reasons(tmp_path: Path, source: Path) -> None:
    config = make_config(
        tmp_path, source, source={"key": ["id"]}, output={"columns": ["color", "at"]}, chunking={"rows": 100}
    )
    job = run_job(config)
    assert job.anomalies.column_names == ["id", "row", "x", "y", "color", "at", "score", "rank", "reasons"]
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


def test_many_chunks_make_several_files_of_the_result(config: BatchConfig) -> None:
    one = run_job(config)
    several = run_job(elsewhere(config), rows_per_file=150)
    assert len(one.manifest.scores) == 1
    assert len(several.manifest.scores) > 3
    assert sum(file.rows for file in several.manifest.scores) == 600
    assert several.outcome() == one.outcome()


def test_anomalies_of_many_files_with_equal_scores_are_by_rank_then_in_source_order(tmp_path: Path) -> None:
    table = make_table(300)
    data = write_files(tmp_path / "data", pa.concat_tables([table, table.slice(0, 100), table]))
    config = make_config(tmp_path, data, chunking={"rows": 60}, threshold={"contamination": 0.3})
    job = run_job(config, rows_per_file=60)
    places = [(row["rank"], row["row"]) for row in job.anomalies.to_pylist()]
    assert places == sorted(places)
    assert len({rank for rank, _ in places}) < len(places)
    assert (
        siftline.open_results(job.plan.config.output.path).top(3).to_pylist() == job.anomalies.to_pylist()[:3]
    )


@pytest.mark.parametrize(
    "harm",
    [
        lambda path, content: path.write_bytes(content[:-1] + bytes([content[-1] ^ 1])),
        lambda path, content: path.write_bytes(content[: len(content) // 2]),
        lambda path, content: path.unlink(),
    ],
    ids=["altered", "torn", "gone"],
)
def test_a_part_file_damaged_before_combining_is_refused_by_name(
    config: BatchConfig, harm: Callable[[Path, bytes], object]
) -> None:
    plan, detector, receipts, _ = stage_job(config)
    part = plan.parts / receipts.in_order[2].part.name
    harm(part, part.read_bytes())
    with pytest.raises(PartDamaged) as caught:
        combine_results(plan, detector, receipts, SerialExecutor())
    assert caught.value.problem.startswith(f"{part}: ")
    assert caught.value.remedy == "run the same command again: it is recomputed"


def test_a_part_file_that_can_be_read_but_was_altered_is_refused(config: BatchConfig) -> None:
    plan, detector, receipts, _ = stage_job(config)
    part = plan.parts / receipts.in_order[2].part.name
    scores = read_scores(plan.parts, receipts.in_order[2].part)
    part.write_bytes(part.read_bytes().replace(b"parquet-cpp", b"Parquet-cpp"))
    assert read_scores(plan.parts, receipts.in_order[2].part).tobytes() == scores.tobytes()
    with pytest.raises(PartDamaged) as caught:
        combine_results(plan, detector, receipts, SerialExecutor())
    assert caught.value.problem == f"{part}: does not match its receipt"


def test_a_flipped_bit_among_the_scores_is_noticed_before_the_threshold_is_found(
    config: BatchConfig,
) -> None:
    plan, _, receipts, _ = stage_job(config)
    part = receipts.in_order[0].part
    scores = read_scores(plan.parts, part)
    content = bytearray((plan.parts / part.name).read_bytes())
    content[content.index(scores.tobytes()) + 100] ^= 1
    (plan.parts / part.name).write_bytes(content)
    with pytest.raises(PartDamaged, match="CRC checksum verification failed"):
        read_scores(plan.parts, part)


def far_too_large(rows: int, *places: int) -> pa.Table:
    """Rows whose preprocessing gives no number at some places, though it was one before."""
    values = make_table(rows)["x"].to_numpy().copy()
    values[list(places)] = 1e300
    return make_table(rows).set_column(1, "x", pa.array(values))


TOO_LARGE = "feature x is infinite, or too large for 32-bit floating point"


def tolerant(home: Path, table: pa.Table, **sections: Any) -> BatchConfig:
    data = write_files(home / "data", table, row_group=20)
    given = {"chunking": {"rows": 20}, "tolerate": {"rows": 3}, "source": {"key": ["id"]}}
    return make_config(home, data, **{**given, **sections})


def test_a_row_that_cannot_be_scored_fails_the_job_by_its_place(tmp_path: Path) -> None:
    detector = {"sample_rows": 10, "seed": 1}
    table = far_too_large(100, 61)
    config = tolerant(tmp_path, table, tolerate={"rows": 0}, detector=detector)
    (path,) = (tmp_path / "data").iterdir()
    pq.write_table(table, path, row_group_size=20, write_statistics=False)  # they would show it at once
    with pytest.raises(RowError) as caught:
        run_job(config)
    (kept,) = Path(config.checkpoint.path).glob("jobs/*/failed-*/chunk-0000003-*.parquet")
    assert str(caught.value) == (
        f"row 61: {TOO_LARGE} (1 row so far cannot be scored, none is tolerated; see {kept}); "
        "correct the values, leave the feature out of source.features, or raise tolerate.rows"
    )
    assert [row["id"] for row in pq.read_table(kept).to_pylist()] == ["r000061"]


def test_a_row_that_misses_a_value_fails_the_job_by_its_place(tmp_path: Path) -> None:
    table = make_table(100)
    values = table["x"].to_numpy().copy()
    values[61] = np.nan
    data = write_files(tmp_path / "data", table.set_column(1, "x", pa.array(values)), row_group=20)
    detector = {"kind": "elliptic_envelope", "params": {}, "sample_rows": 10, "seed": 1}
    said = r"^row 61: a value is missing, which elliptic_envelope cannot score \(1 row so far "
    with pytest.raises(RowError, match=said):
        run_job(make_config(tmp_path, data, detector=detector, chunking={"rows": 20}))


def test_one_row_more_than_is_tolerated_fails_the_job(tmp_path: Path) -> None:
    table = far_too_large(200, 5, 7, 61, 130)
    detector = {"sample_rows": 10, "seed": 1}
    with pytest.raises(RowError, match=r"^row 130: .* \(4 rows so far cannot be scored, 3 are tolerated; "):
        run_job(tolerant(tmp_path, table, detector=detector))
    assert run_job(tolerant(tmp_path, table, tolerate={"rows": 4})).manifest.state == "CompletedWithRejects"


def test_rows_that_cannot_be_scored_are_told_with_the_results(tmp_path: Path) -> None:
    job = run_job(tolerant(tmp_path, far_too_large(200, 61, 130)))
    results = siftline.open_results(job.plan.config.output.path)
    assert results.failed is not None
    assert results.failed.to_pylist() == [
        {"id": f"r{row:06d}", "row": row, "error": "RowError", "message": TOO_LARGE, "attempts": 1}
        for row in (61, 130)
    ]
    assert results.scores.to_table()["id"].to_pylist() == [
        f"r{row:06d}" for row in range(200) if row not in (61, 130)
    ]
    assert np.isfinite(job.scores).all()
    assert (job.manifest.rows_failed, job.combined.rows) == (2, 198)


def test_the_others_are_judged_as_if_such_rows_were_not_there(tmp_path: Path) -> None:
    table, places = far_too_large(200, 61, 130), [61, 130]
    without = table.take(np.delete(np.arange(200), places))
    job = run_job(tolerant(tmp_path / "with", table))
    alone = run_job(tolerant(tmp_path / "without", without))
    assert job.outcome()[:3] == alone.outcome()[:3]
    # Not by position, which differs for the rows after those.
    assert job.anomalies.drop("row").equals(alone.anomalies.drop("row"))
    assert alone.manifest.state == "Completed"


def test_a_result_without_such_rows_has_none_to_tell(config: BatchConfig) -> None:
    run_job(config)
    assert siftline.open_results(config.output.path).failed is None


def test_such_rows_are_told_by_their_place_where_there_is_no_key(tmp_path: Path) -> None:
    job = run_job(tolerant(tmp_path, far_too_large(100, 61), source={}))
    failed = siftline.open_results(job.plan.config.output.path).failed
    assert failed is not None
    assert failed.to_pylist() == [{"row": 61, "error": "RowError", "message": TOO_LARGE, "attempts": 1}]


def test_every_table_has_the_position_of_a_row_beside_its_key(tmp_path: Path) -> None:
    job = run_job(tolerant(tmp_path, far_too_large(100, 61), chunking={"rows": 30}))
    results = siftline.open_results(job.plan.config.output.path)
    assert results.failed is not None
    for table in (results.scores.to_table(), results.anomalies, results.failed):
        assert table.schema.field("row").type == pa.int64()
        assert [f"r{row:06d}" for row in table["row"].to_pylist()] == table["id"].to_pylist()
    assert results.scores.schema.names == ["id", "row", "score", "label"]


@pytest.mark.parametrize("sections", [{"source": {"features": ["row"]}}, {"output": {"columns": ["row"]}}])
def test_a_column_called_row_is_refused_in_one_line(tmp_path: Path, sections: dict[str, Any]) -> None:
    table = make_table(100).rename_columns({"n": "row"})
    sections["source"] = {"key": ["id"], **sections.get("source", {})}
    with pytest.raises(ConfigError) as caught:
        run_job(make_config(tmp_path, write_files(tmp_path / "data", table), **sections))
    place = "source.features" if "features" in sections["source"] else "output.columns"
    assert str(caught.value) == f"{place}: row is the name of a result column; rename it in the source"


@pytest.mark.parametrize("name", ["row", "error", "message", "attempts"])
def test_a_key_may_be_called_as_what_is_told_of_such_rows(tmp_path: Path, name: str) -> None:
    table = far_too_large(100, 61).rename_columns({"id": name})
    job = run_job(tolerant(tmp_path, table, source={"key": [name]}))
    failed = siftline.open_results(job.plan.config.output.path).failed
    assert failed is not None
    assert failed.to_pylist() == [
        {f"key_{name}": "r000061", "row": 61, "error": "RowError", "message": TOO_LARGE, "attempts": 1}
    ]
    assert job.table[name].to_pylist() == [f"r{row:06d}" for row in range(100) if row != 61]


def test_keys_may_be_declared_in_other_ways_by_other_files(tmp_path: Path) -> None:
    data, table = tmp_path / "data", far_too_large(100, 10, 61)
    data.mkdir()
    required = pa.schema([field.with_nullable(field.name != "id") for field in table.schema])
    pq.write_table(table.slice(0, 50).cast(required), data / "a.parquet")
    pq.write_table(table.slice(50).replace_schema_metadata({"a": "b"}), data / "b.parquet")
    outcomes = []
    for rows in (100, 50):
        config = make_config(
            tmp_path / f"{rows}",
            data,
            source={"key": ["id"]},
            tolerate={"rows": 2},
            chunking={"rows": rows},
        )
        job = run_job(config)
        outcomes.append((job.outcome(), siftline.open_results(config.output.path).failed))
    assert outcomes[0] == outcomes[1]


def failed_chunk(chunk: int, first_row: int, rows: int) -> FailedChunk:
    return FailedChunk(
        chunk=chunk, first_row=first_row, rows=rows, error="SourceError", message="torn", attempts=3
    )


@pytest.mark.parametrize(
    ("chunks", "missing"),
    [
        ([], ()),
        ([(0, 0, 10)], ((0, 9),)),
        ([(0, 0, 10), (1, 10, 5), (2, 15, 1)], ((0, 15),)),
        ([(0, 0, 10), (2, 20, 10), (3, 30, 10), (9, 90, 1)], ((0, 9), (20, 39), (90, 90))),
    ],
)
def test_missing_rows_are_told_as_runs(
    config: BatchConfig, chunks: list[tuple[int, int, int]], missing: tuple[tuple[int, int], ...]
) -> None:
    manifest = run_job(config).manifest
    failed = tuple(failed_chunk(*chunk) for chunk in chunks)
    assert manifest.model_copy(update={"chunks_failed": failed}).missing == missing


@pytest.mark.parametrize(
    ("complete", "rows_failed", "state"),
    [
        (True, 0, "Completed"),
        (True, 1, "CompletedWithRejects"),
        (False, 0, "Partial"),
        (False, 9, "Partial"),
    ],
)
def test_a_manifest_tells_the_state_of_its_run(
    config: BatchConfig, complete: bool, rows_failed: int, state: str
) -> None:
    manifest = run_job(config).manifest
    told = manifest.model_copy(update={"complete": complete, "rows_failed": rows_failed})
    assert told.state == state


def test_a_result_is_one_line_where_it_is_printed(config: BatchConfig) -> None:
    job = run_job(config)
    threshold = f"{job.manifest.threshold:.4f}"
    assert repr(siftline.open_results(config.output.path)) == (
        f"Results('{config.output.path}': 12 anomalies among 600 rows (2.00%), score {threshold} or more)"
    )


def test_a_notebook_shows_counts_groups_and_top_rows_and_nothing_in_the_data_is_markup(
    tmp_path: Path,
) -> None:
    table = make_table(300)
    table = table.set_column(0, "id", [["<script>alert(1)</script>&\x1b"] * 300])
    config = make_config(tmp_path, write_files(tmp_path / "data", table), source={"key": ["id"]})
    results = siftline.open_results(run_job(config).plan.config.output.path)
    assert results.findings is not None
    html = results._repr_html_()
    assert f"{results.manifest.anomaly_count} anomalies among 300 rows" in html
    assert escape(results.findings.groups[0].sentence) in html
    assert html.count("<tr>") == 1 + min(10, results.manifest.anomaly_count)
    assert "<script" not in html
    assert "\x1b" not in html
    assert "id=&lt;script&gt;alert(1)&lt;/script&gt;&amp;�" in html


def test_without_findings_the_notebook_shows_the_rows(config: BatchConfig) -> None:
    run_job(config)
    for path in Path(config.output.path).glob(".publications/*/findings.json"):
        path.unlink()
    results = siftline.open_results(config.output.path)
    assert results.findings is None
    assert "<ul>" not in results._repr_html_()
    assert "<td>1</td>" in results._repr_html_()
