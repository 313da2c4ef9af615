"""A starter configuration is valid, and fits the data that it was made for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from siftline.cli.starter import starter_config
from siftline.config.batch import BatchConfig
from siftline.config.loading import load_config
from siftline.errors import SourceError
from siftline.stages.inspection import inspect_batch
from tests.support import make_table


def started(data: Path, monkeypatch: pytest.MonkeyPatch) -> BatchConfig:
    """The configuration, after the checks that `siftline validate` makes."""
    file = data.parent / "started.yaml"
    file.write_text(starter_config(data), encoding="utf-8")
    monkeypatch.chdir(data.parent)
    config = load_config(file)
    inspect_batch(config)
    return config


def test_columns_get_the_roles_that_their_names_and_types_suggest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table(20).append_column("hour", pa.array(np.arange(20.0)))
    table = table.append_column("is_anomaly", pa.array([0, 1] * 10))
    pq.write_table(table, tmp_path / "my flights.2013.parquet")
    config = started(tmp_path / "my flights.2013.parquet", monkeypatch)
    assert config.name == "my-flights"
    assert config.source.path == str(tmp_path / "my flights.2013.parquet")
    assert (config.source.key, config.source.timestamp, config.source.label) == (("id",), "at", "is_anomaly")
    assert config.source.features == ("x", "y", "n", "hour")
    assert config.preprocess.cyclic == {"hour": 24}
    assert config.output.columns == ("at", "color")
    assert config.output.path == "results/my-flights"


def test_a_starter_is_the_defaults_where_the_data_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(make_table(20).select(["x"]), tmp_path / "d.parquet")
    config = started(tmp_path / "d.parquet", monkeypatch)
    assert config.model_dump(include={"preprocess", "detector"}) == BatchConfig(
        source={"path": "a"}, output={"path": "b"}, detector={"params": {"n_estimators": 100}}
    ).model_dump(include={"preprocess", "detector"})
    assert config.source.key == ()


def test_a_starter_explains_itself(tmp_path: Path) -> None:
    pq.write_table(make_table(20), tmp_path / "d.parquet")
    text = starter_config(tmp_path / "d.parquet")
    assert "siftline validate" in text
    assert "Left out: color" in text
    assert set(yaml.safe_load(text)) >= {"name", "source", "detector", "threshold", "cluster", "output"}


@pytest.mark.parametrize("path", ["data", "data/*.parquet", "x.csv"])
def test_directories_globs_and_csv_have_starters_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    (tmp_path / "data").mkdir()
    pq.write_table(make_table(20), tmp_path / "data" / "a.parquet")
    (tmp_path / "x.csv").write_text("id,x,t\n1,2.5,a\n2,3.5,b\n")
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "started.yaml"
    file.write_text(starter_config(Path(path)))
    config = load_config(file)
    inspect_batch(config)
    assert config.source.path == path
    assert "x" in (config.source.features or ())


@pytest.mark.parametrize("name", ["yes", "1", "a: b", "null", "ä 'quoted\" #", "- x", "{{", "x,y", "{% x %}"])
def test_awkward_column_names_are_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    pq.write_table(pa.table({name: [1.0, 2.0], "other": [1, 2]}), tmp_path / "d.parquet")
    assert started(tmp_path / "d.parquet", monkeypatch).source.features == (name, "other")


def test_data_without_numbers_has_a_starter(tmp_path: Path) -> None:
    pq.write_table(pa.table({"t": ["a"]}), tmp_path / "d.parquet")
    values: dict[str, Any] = yaml.safe_load(starter_config(tmp_path / "d.parquet"))
    assert values["source"]["features"] is None


def test_missing_data_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no parquet or csv files there"):
        starter_config(tmp_path / "none.parquet")


@pytest.mark.parametrize("name", ["score", "rank", "row"])
def test_columns_that_the_results_add_are_not_proposed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pq.write_table(pa.table({name: [1.0, 2.0], "x": [1.0, 2.0]}), tmp_path / "d.parquet")
    assert started(tmp_path / "d.parquet", monkeypatch).source.features == ("x",)
