"""The bounds on the memory of wide data change no result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from siftline.jobs.findings import findings_record
from siftline.source import reading
from siftline.stages import labelling
from siftline.stages.findings import groups
from tests.support import Job, make_config, make_table, run_job, write_files

ROWS, WIDTH = 300, 40


def job(home: Path, width: int = WIDTH, **sections: Any) -> Job:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(ROWS, width))
    values[::30, :3] *= 20
    table = pa.table({f"f{column}": values[:, column] for column in range(width)})
    data = write_files(home / "data", table, files=2, row_group=50)
    values_of = {"source": {"features": None}, "threshold": {"contamination": 0.3}, "chunking": {"rows": 70}}
    return run_job(make_config(home, data, **{**values_of, **sections}))


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return job(tmp_path_factory.mktemp("usual"))


@pytest.mark.parametrize("cells", [1, 500, 5_000])
def test_a_result_does_not_depend_on_the_cells_held_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, usual: Job, cells: int
) -> None:
    monkeypatch.setattr("siftline.batch_plan._BATCH_CELLS", cells)
    monkeypatch.setattr(reading, "_COLUMNS_AT_ONCE", 7)
    monkeypatch.setattr(labelling, "_HELD_CELLS", cells)
    assert job(tmp_path).outcome() == usual.outcome()


def test_the_findings_of_very_many_features_describe_those_that_are_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, usual: Job
) -> None:
    monkeypatch.setattr(groups, "_MOST_FEATURES", WIDTH - 1)
    few = findings_record(job(tmp_path, threshold={"contamination": 0.01}).plan.output.root).read()
    assert 0 < len(few.features) < WIDTH
    assert all(feature.reasons for feature in few.features)
    assert len(findings_record(usual.plan.output.root).read().features) == WIDTH


def test_a_category_that_the_sample_has_not_is_in_the_reasons_as_in_the_source(tmp_path: Path) -> None:
    table = make_table(400)
    colors = table["color"].to_pylist()
    sections: dict[str, Any] = {
        "source": {"features": ["color"]},
        "preprocess": {"categorical": "ordinal"},
        "detector": {"sample_rows": 40, "seed": 1},
        "validation": {"ties": "warn"},
    }
    colors[::50] = [f"never {row}" for row in range(0, 400, 50)]
    table = table.set_column(table.column_names.index("color"), "color", pa.array(colors))
    data = write_files(tmp_path / "data", table)
    found = run_job(make_config(tmp_path, data, **sections)).anomalies
    shown = {row["row"]: row["reasons"][0]["value"] for row in found.to_pylist()}
    assert any(value.startswith("never") for value in shown.values())
    assert all(value == colors[row] for row, value in shown.items())
