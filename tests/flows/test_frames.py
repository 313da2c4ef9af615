"""Data frames of any library are a source of runs from Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prefect import Flow, get_client

import siftline
from siftline import SiftlineError, open_results
from siftline.config.batch import BatchConfig
from siftline.errors import SourceError
from siftline.flows.batch_detection import batch_detection
from siftline.pipelines.steps import Step
from siftline.source.frames import stage_frame

ROWS = 500


def rows() -> pd.DataFrame:
    random = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "id": np.arange(100, 100 + ROWS),
            "x": random.normal(0, 1, ROWS),
            "y": random.normal(5, 2, ROWS),
            "color": random.choice(["red", "blue"], ROWS),
        }
    )


def frames() -> dict[str, Any]:
    frame = rows()
    table = pa.Table.from_pandas(frame)
    return {
        "pandas": frame,
        "pandas-filtered": pd.concat([frame, frame])[: 2 * ROWS : 1].iloc[:ROWS].set_axis(range(7, 7 + ROWS)),
        "polars": pl.from_pandas(frame),
        "polars-categorical": pl.from_pandas(frame).with_columns(pl.col("color").cast(pl.Categorical)),
        "duckdb": duckdb.sql("SELECT * FROM frame"),
        "pyarrow": table,
        "reader": table.to_reader(max_chunksize=7),
    }


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Scores of the same rows from a file."""
    home = tmp_path_factory.mktemp("file")
    rows().to_parquet(home / "rows.parquet", index=False)
    return scores_of(home / "rows.parquet", home)


def scores_of(source: Any, home: Path) -> list[dict[str, Any]]:
    results = siftline.score(
        source,
        key=["id"],
        features=["x", "y"],
        output=home / "out",
        checkpoint={"path": str(home / "checkpoint")},
        detector={"params": {"n_estimators": 20}},
    )
    found: list[dict[str, Any]] = results.scores.to_table().to_pylist()
    return found


@pytest.mark.parametrize("kind", list(frames()))
def test_a_frame_of_any_library_is_scored_as_a_file_of_its_rows(
    kind: str, expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    assert scores_of(frames()[kind], tmp_path) == expected
    (staged,) = (tmp_path / "checkpoint/staged").iterdir()
    assert pq.read_schema(staged).names == ["id", "x", "y", "color"]


@pytest.mark.parametrize("place", ["source", "path"])
def test_the_flow_takes_a_frame_and_the_server_only_knows_a_path(place: str, tmp_path: Path) -> None:
    frame = rows()
    features = {"key": ["id"], "features": ["x", "y"]}
    config = {
        "name": "frame",
        "source": frame[["x", "y"]] if place == "source" else {"path": frame, **features},
        "detector": {"params": {"n_estimators": 20}},
        "output": {"path": str(tmp_path / "out")},
        "checkpoint": {"path": str(tmp_path / "checkpoint")},
        "cluster": {"kind": "serial"},
    }

    first = batch_detection(config)
    again = batch_detection.with_options(name="batch-detection")(config=config)

    assert (first.rows, first.state, again.state) == (ROWS, "Completed", "AlreadyPublished")
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(first.flow_run_id)
    (staged,) = (tmp_path / "checkpoint/staged").iterdir()
    assert run.parameters["config"]["source"]["path"] == str(staged)
    names = ["row", "score", "label"] if place == "source" else ["id", "row", "score", "label"]
    assert list(open_results(first.output).to_pandas()) == names


def test_the_same_frame_is_the_same_file_and_another_is_another(tmp_path: Path) -> None:
    first = stage_frame(rows(), tmp_path)
    before = first.stat().st_mtime_ns
    assert stage_frame(rows(), tmp_path) == first
    assert first.stat().st_mtime_ns == before
    assert stage_frame(rows().assign(x=0.0), tmp_path) != first
    assert len(list(tmp_path.iterdir())) == 2, "nothing else is left"


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"x": [1, "one"]}),
        pd.DataFrame([[1, 2]], columns=["x", "x"]),
        pd.Series([1, 2]),
    ],
    ids=["mixed", "twice", "series"],
)
def test_a_frame_that_is_no_table_is_told_in_one_line(frame: Any, tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=r"the data frame cannot be read as a table: .+; give every"
    ) as told:
        stage_frame(frame, tmp_path)
    assert "\n" not in str(told.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("frame", [pd.DataFrame(), pd.DataFrame({"x": []}), pd.DataFrame({"color": ["red"]})])
def test_a_frame_without_rows_or_numbers_is_told_in_one_line(frame: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(SiftlineError) as told:
        siftline.score(frame, output=tmp_path / "out", checkpoint={"path": str(tmp_path / "checkpoint")})
    assert "\n" not in str(told.value)


def test_a_list_is_not_a_frame(tmp_path: Path) -> None:
    with pytest.raises(SiftlineError, match=r"source\.path"):
        siftline.score([{"x": 1}], output=tmp_path / "out")


def test_parameters_of_a_run_are_what_prefect_would_make_of_them(tmp_path: Path) -> None:
    config = BatchConfig.model_validate({"source": {"path": "in.csv"}, "output": {"path": str(tmp_path)}})
    steps = (Step(uses="batch_processing", settings={"retries": {"attempts": 2}}),)
    parameters = {"share": float("nan"), "on": None}
    given = {"config": config, "fresh": True, "steps": steps, "parameters": parameters}
    found = batch_detection.serialize_parameters(given)
    assert repr(found) == repr(Flow.serialize_parameters(batch_detection, given))


def test_a_parameter_that_is_no_json_has_a_placeholder() -> None:
    assert batch_detection.serialize_parameters({"config": object(), "fresh": False}) == {
        "config": "<object>",
        "fresh": False,
    }
