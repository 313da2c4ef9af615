"""The current result, read by name with any tool, without the manifest."""

from __future__ import annotations

import errno
import glob
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from siftline import open_results
from siftline.config.batch import BatchConfig
from siftline.errors import OutputConflict
from siftline.jobs.results import Manifest
from siftline.stages.inspection import inspect_batch
from siftline.storage.files import read_record, write_record
from siftline.storage.layout import Version
from tests.faults import wait_until
from tests.support import make_config, run_job
from tests.unit.stages.test_publish import with_rejects

PAGE = Path(__file__).parents[3] / "docs/how-to/read-results.md"
SHARES = (0.01, 0.03, 0.05)


def rows_of(found: Any) -> list[tuple[int, float]]:
    """Row numbers and scores of whatever a tool gives."""
    if isinstance(found, pl.LazyFrame):
        found = found.collect()
    if isinstance(found, ds.Dataset):
        found = found.to_table()
    if hasattr(found, "collect"):  # Spark's
        return sorted((row["row"], row["score"]) for row in found.collect())
    if not isinstance(found, pd.DataFrame):
        found = found.to_pandas()
    return sorted(zip(found["row"].tolist(), found["score"].tolist(), strict=True))


def lines_of_the_page() -> list[Any]:
    """The one-liners of the documentation: tool, all rows, anomalies."""
    rows = re.findall(r"^\| (\w+) \| `(.+?)` \| `(.+?)` \|$", PAGE.read_text(encoding="utf-8"), re.M)
    return [pytest.param(*row, id=row[0]) for row in rows]


def publish(config: BatchConfig, share: float, **limits: int) -> Manifest:
    threshold = config.threshold.model_copy(update={"contamination": share})
    return run_job(config.model_copy(update={"threshold": threshold}), **limits).manifest


@pytest.fixture
def tools() -> dict[str, Any]:
    return {"duckdb": duckdb, "pl": pl, "pd": pd, "ds": ds, "pq": pq}


def test_the_page_has_a_line_for_every_tool() -> None:
    assert [param.id for param in lines_of_the_page()] == ["DuckDB", "Polars", "pandas", "pyarrow", "Spark"]


@pytest.mark.parametrize(("tool", "scores", "anomalies"), lines_of_the_page())
def test_every_tool_reads_the_last_of_several_results(
    tool: str,
    scores: str,
    anomalies: str,
    source: Path,
    tmp_path: Path,
    tools: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    if tool == "Spark":
        if shutil.which("java") is None:
            pytest.skip("Spark needs Java")
        session = pytest.importorskip("pyspark.sql").SparkSession.builder.master("local[1]")
        tools["spark"] = session.config("spark.ui.enabled", "false").getOrCreate()
    config = make_config(tmp_path, source, chunking={"rows": 100}, output={"path": "results/readings"})
    for share in SHARES:
        publish(config, share, rows_per_file=200)

    results = open_results("results/readings")
    assert len(results.manifest.scores) == 3
    assert rows_of(eval(scores, tools)) == rows_of(results.scores)
    assert rows_of(eval(anomalies, tools)) == rows_of(results.anomalies)
    assert results.anomalies.num_rows == 30


@pytest.mark.parametrize("pattern", ["scores/*.parquet", "scores/**/*.parquet", "**/*.parquet"])
def test_a_glob_counts_no_row_twice(config: BatchConfig, pattern: str, tmp_path: Path) -> None:
    for share in SHARES:
        publish(config, share, rows_per_file=200)
    output = Path(config.output.path)
    under_scores = list(output.joinpath("scores").glob("*.parquet"))
    found = [Path(name) for name in glob.glob(str(output / pattern), recursive=True)]
    assert sum(pq.read_metadata(path).num_rows for path in found if path.parent.name == "scores") == 600
    assert len(under_scores) == 3


@contextmanager
def looking(look: Callable[[], None]) -> Iterator[list[int]]:
    """Look again and again in a thread; its error is that of the test."""
    stop = threading.Event()
    looks: list[int] = []
    problems: list[BaseException] = []

    def run() -> None:
        try:
            while not stop.is_set():
                look()
                looks.append(1)
        except BaseException as error:  # noqa: BLE001  raised below
            problems.append(error)
            looks.insert(0, -1)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield looks
    finally:
        stop.set()
        thread.join()
    if problems:
        raise problems[0]


def check_whole(table: pa.Table, wholes: set[int]) -> None:
    assert table.num_rows == 600
    assert int(table["label"].to_pandas().sum()) in wholes


def test_a_reader_by_name_sees_whole_results_or_that_they_are_gone(config: BatchConfig) -> None:
    publish(config, SHARES[0])
    output = Path(config.output.path)

    def look() -> None:
        with suppress(FileNotFoundError):
            table = pq.read_table(output / "scores")
            if table.column_names:  # Arrow leaves out a file that it has listed and no longer finds
                check_whole(table, {6, 18, 30})
        with (output / "anomalies.parquet").open("rb") as file:
            assert pq.read_table(file).num_rows in {6, 18, 30}

    with looking(look) as looks:
        for number in range(12):
            publish(config, SHARES[number % 3])
            seen = len(looks)
            wait_until(lambda seen=seen: len(looks) > seen or looks[0] < 0, "it is read")


@pytest.mark.parametrize("rows_per_file", [200, 1000])
def test_a_reader_that_has_listed_a_result_never_reads_another(
    config: BatchConfig, rows_per_file: int
) -> None:
    publish(config, SHARES[0], rows_per_file=rows_per_file)
    output = Path(config.output.path)
    listed = ds.dataset(output / "scores")
    check_whole(listed.to_table(), {6})

    publish(config, SHARES[1], rows_per_file=rows_per_file)

    with pytest.raises(FileNotFoundError):
        listed.to_table()
    check_whole(ds.dataset(output / "scores").to_table(), {18})


def make_former(output: Path) -> None:
    """Turn an output into one of the former layout: directories by publication, the manifest a file."""
    manifest = open_results(output).manifest
    home = output / ".publications" / manifest.publication
    record = read_record(home / "manifest.json", Version.MANIFEST)
    for field, kind in (("scores", "scores"), ("anomaly_files", "anomalies")):
        for file in record[field]:
            name = f"{kind}/{manifest.publication}/part-00000.parquet"
            (output / ".moved" / name).parent.mkdir(parents=True)
            shutil.move(output / file["name"], output / ".moved" / name)
            file["name"] = name
    for link in ("scores", "anomalies.parquet", "findings.json", "manifest.json", ".current"):
        (output / link).unlink()
    shutil.rmtree(output / ".publications")
    for kind in ("scores", "anomalies"):
        (output / ".moved" / kind).rename(output / kind)
    (output / ".moved").rmdir()
    write_record(output / "manifest.json", record, Version.MANIFEST)


def test_a_result_of_the_former_layout_is_read_and_gives_way_to_the_next(config: BatchConfig) -> None:
    first = run_job(config)
    output, before = Path(config.output.path), first.outcome()
    make_former(output)
    assert sorted(path.name for path in output.iterdir() if path.name[0] != ".") == [
        "anomalies",
        "manifest.json",
        "scores",
    ]
    assert first.outcome() == before
    inspect_batch(config)

    last = publish(config, 0.05)

    assert last.replaces == first.manifest.publication
    check_whole(pq.read_table(output / "scores"), {30})
    shown = {"scores", "anomalies.parquet", "findings.json", "manifest.json"}
    hidden = {".current", ".publications", ".publishing", ".staged"}
    assert {path.name for path in output.iterdir()} == shown | hidden
    assert [path.name for path in (output / ".publications").iterdir()] == [last.publication]


def test_a_copy_without_links_is_published_into_again(config: BatchConfig, tmp_path: Path) -> None:
    publish(config, 0.01)
    output = Path(config.output.path)
    shutil.copytree(output, tmp_path / "copy")
    shutil.rmtree(output)
    (tmp_path / "copy").rename(output)
    assert not (output / "scores").is_symlink()
    assert open_results(output).scores.count_rows() == 600

    publish(config, 0.05)

    check_whole(pq.read_table(output / "scores"), {30})
    assert (output / "manifest.json").is_symlink()


def test_a_moved_result_is_read_where_it_is(config: BatchConfig, tmp_path: Path) -> None:
    publish(config, 0.01)
    shutil.move(config.output.path, tmp_path / "archive")
    check_whole(pq.read_table(tmp_path / "archive/scores"), {6})
    assert open_results(tmp_path / "archive").scores.count_rows() == 600


def test_without_links_the_manifest_alone_names_the_result(
    config: BatchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    for share in SHARES:
        last = publish(config, share)
    output = Path(config.output.path)
    assert open_results(output).manifest == last
    assert open_results(output).anomalies.num_rows == 30
    shown = {path.name for path in output.iterdir() if path.name[0] != "."}
    assert shown == {"manifest.json"}
    assert len(list((output / ".publications").iterdir())) == 2


def test_the_failed_rows_are_there_only_with_failed_rows(config: BatchConfig, tmp_path: Path) -> None:
    rejecting = with_rejects(tmp_path / "rejecting")
    run_job(rejecting)
    output = Path(rejecting.output.path)
    assert pq.read_table(output / "failed.parquet").num_rows == 2

    run_job(config.model_copy(update={"name": rejecting.name, "output": rejecting.output}))

    assert not (output / "failed.parquet").is_symlink()
    assert pq.read_table(output / "scores").num_rows == 600


@pytest.mark.parametrize("name", ["scores", "anomalies.parquet", "notes.txt"])
def test_files_of_somebody_else_are_not_taken_for_a_result(config: BatchConfig, name: str) -> None:
    output = Path(config.output.path)
    output.mkdir(parents=True)
    (output / name).write_text("mine")
    with pytest.raises(OutputConflict, match="contains files that are not Siftline results"):
        inspect_batch(config)
