"""The most anomalous rows in words; none, where the result is not there or not the one that is meant."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from siftline import open_results
from siftline.config.batch import BatchConfig
from siftline.notices.top_rows import group_sentences, groups_of, top_of, top_rows
from tests.support import make_config, make_table, run_job, write_files
from tests.unit.notices.test_messages import RESULT


def test_rows_have_their_key_carried_columns_and_reasons(config: BatchConfig) -> None:
    output = config.output.model_copy(update={"columns": ("color",)})
    results = open_results(run_job(config.model_copy(update={"output": output})).plan.config.output.path)
    rows, found = top_rows(results, 2), results.top(2).to_pylist()
    assert [(row.rank, row.score) for row in rows] == [(row["rank"], row["score"]) for row in found]
    assert [row.identity for row in rows] == [{"row": row["row"], "color": row["color"]} for row in found]
    assert str(rows[0]) == f"score {rows[0].score:.4f}  row={found[0]['row']}  color={found[0]['color']}"
    assert all("typical" in reason for row in rows for reason in row.reasons)


def test_only_rows_published_by_the_run_are_shown(config: BatchConfig, tmp_path: Path) -> None:
    manifest = run_job(config).manifest
    mine = RESULT.model_copy(update={"output": config.output.path, "job_id": manifest.job_id})
    assert len(top_of(mine, 3)) == 3
    assert top_of(mine.model_copy(update={"job_id": "another"}), 3) == ()
    assert top_of(mine.model_copy(update={"output": str(tmp_path / "nothing")}), 3) == ()


@pytest.mark.parametrize(
    "damage", [shutil.rmtree, lambda path: next(path.glob("*/anomalies.parquet")).write_bytes(b"x")]
)
def test_a_result_that_cannot_be_read_shows_nothing(config: BatchConfig, damage: object) -> None:
    manifest = run_job(config).manifest
    assert callable(damage)
    damage(Path(config.output.path) / ".publications")
    mine = RESULT.model_copy(update={"output": config.output.path, "job_id": manifest.job_id})
    assert top_of(mine, 3) == ()


def test_the_largest_groups_of_the_runs_result_are_in_words(config: BatchConfig, tmp_path: Path) -> None:
    manifest = run_job(config).manifest
    results = open_results(config.output.path)
    assert results.findings is not None
    sentences = tuple(group.sentence for group in results.findings.groups)
    assert group_sentences(results, 2) == sentences[:2]
    mine = RESULT.model_copy(update={"output": config.output.path, "job_id": manifest.job_id})
    assert groups_of(mine, 1) == sentences[:1]
    assert groups_of(mine.model_copy(update={"job_id": "another"}), 1) == ()
    for path in Path(config.output.path).glob(".publications/*/findings.json"):
        path.write_text("{}")
    assert groups_of(mine, 1) == ()


def test_what_is_hostile_in_the_data_is_shown_harmlessly(tmp_path: Path) -> None:
    table = make_table(200)
    table = table.set_column(0, "id", [[f"\x1b[31m\u202e{'y' * 10_000}"] * 200])
    config = make_config(tmp_path, write_files(tmp_path / "data", table), source={"key": ["id"]})
    (row, *_) = top_rows(open_results(run_job(config).plan.config.output.path), 3)
    assert str(row) == f"score {row.score:.4f}  id=�[31m�{'y' * 53}…  row={row.identity['row']}"
