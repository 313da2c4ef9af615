"""Output of the `siftline` command, its streams and exit statuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from siftline import open_results
from tests.e2e.processes import Shell, settings, write_config
from tests.flows.batches import configuration, receipt_files, scores_digest
from tests.flows.commands import Siftline, call_siftline


@pytest.fixture
def config(shell: Shell) -> Path:
    """A small job, without a cluster."""
    return write_config(shell.directory / "job.yaml", configuration(shell.directory))


def test_running_again_reuses_fresh_computes_and_set_changes(
    shell: Shell, siftline: Siftline, config: Path
) -> None:
    first = siftline("run", config)
    assert first.status == 0, first.err
    assert "6 anomalies among 600 rows (1.00%)" in first.out
    assert "3 chunks, 3 computed, 0 reused" in first.out
    assert "most anomalous rows" in first.out
    assert f"Results: {shell.directory / 'output'}" in first.out
    digest = scores_digest(shell.directory / "output")

    same = siftline("run", config)
    assert same.status == 0, same.err
    job = open_results(shell.directory / "output").manifest.job_id
    said, _, summary = same.out.partition("\n")
    assert said == f"job {job} is published already: nothing to do (--fresh does it again)"
    assert "3 computed" not in summary
    differing = ("3 chunks, ", "Run: ")
    shown, before = (
        [line for line in text.splitlines() if not line.startswith(differing)]
        for text in (summary, first.out)
    )
    assert shown == before
    done = siftline("run", config, "--json").json()
    assert (done["state"], done["chunks_reused"], done["chunks_computed"]) == ("AlreadyPublished", 3, 0)

    overrides = settings(["threshold.contamination=0.05", "validation.anomaly_rate.max=0.06"])
    again = siftline("run", config, "--json", *overrides).json()
    assert (again["chunks_reused"], again["chunks_computed"], again["anomalies"]) == (3, 0, 30)

    fresh = siftline("run", config, "--json", "--fresh").json()
    assert (fresh["chunks_reused"], fresh["chunks_computed"]) == (0, 3)
    assert scores_digest(shell.directory / "output") == digest


def corrupt(directory: Path) -> list[str]:
    path = directory / "corrupt.parquet"
    path.write_bytes(b"PAR1 this is not Parquet PAR1")
    return [f"source.path={path}"]


def ragged(directory: Path) -> list[str]:
    path = directory / "ragged.csv"
    path.write_text("id,amount,duration,distance,place\n1,1,2,3,a\n2,1,2\n")
    return [f"source.path={path}"]


def torn(directory: Path) -> list[str]:
    """A whole footer, and garbage where the rows were."""
    path = directory / "torn.parquet"
    content = bytearray((directory / "rows-600.parquet").read_bytes())
    content[4:6000] = bytes(5996)
    path.write_bytes(content)
    return [f"source.path={path}"]


def taken(directory: Path) -> list[str]:
    path = directory / "taken"
    path.mkdir()
    (path / "thesis.docx").touch()
    return [f"output.path={path}"]


# What is wrong, as settings or a function that gives some, and what the complaint must say.
MISTAKES: dict[str, tuple[Any, str]] = {
    "missing file": (["source.path=nowhere.parquet"], "nowhere.parquet: no parquet or csv files there"),
    "unknown field": (["treshold.score=1"], "treshold: unknown field; did you mean threshold?"),
    "unknown feature": (["source.features=[amont]"], "source.features: the source has no column amont"),
    "text feature": (["source.features=[place]"], "source.features: column place is text, not a number"),
    "corrupt Parquet": (corrupt, "corrupt.parquet: cannot be read: "),
    "taken output": (taken, "taken: contains files that are not Siftline results"),
    "unknown parameter": (["detector.params.n_trees=3"], "IsolationForest has no such parameter"),
    "wrong value": (["threshold.contamination=2"], "threshold.contamination: "),
    "not YAML": (["threshold={"], "--set threshold={: the value is not YAML"),
}
# Known only once the rows are read.
WHILE_READING: dict[str, tuple[Any, str]] = {
    "torn Parquet": (torn, "torn.parquet: cannot be read: "),
    "ragged CSV": (ragged, "ragged.csv, row 3: "),
}
RUN = ["missing file", "unknown field", "unknown feature", "corrupt Parquet", "unknown parameter"]


def check_refused(
    shell: Shell, siftline: Siftline, command: str, config: Path, mistake: tuple[Any, str]
) -> None:
    given, complaint = mistake
    wrong = given(shell.directory) if callable(given) else given

    finished = siftline(command, config, *settings(wrong))

    assert finished.status == 2, finished
    assert complaint in finished.complaint()
    assert finished.out == ""
    assert not (shell.directory / "output").exists()


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_validate_exits_2_with_a_clear_line_and_writes_nothing(
    shell: Shell, siftline: Siftline, config: Path, mistake: tuple[Any, str]
) -> None:
    before = sorted(shell.directory.iterdir())

    check_refused(shell, siftline, "validate", config, mistake)

    added = {path.name for path in set(shell.directory.iterdir()).difference(before)}
    assert added <= {".prefect", "corrupt.parquet", "taken"}


@pytest.mark.parametrize("name", [*RUN, *WHILE_READING])
def test_run_exits_2_with_a_clear_line_and_publishes_nothing(
    shell: Shell, siftline: Siftline, config: Path, name: str
) -> None:
    check_refused(shell, siftline, "run", config, {**MISTAKES, **WHILE_READING}[name])


def test_the_output_of_another_pipeline_is_not_touched(
    shell: Shell, siftline: Siftline, config: Path
) -> None:
    assert siftline("run", config).status == 0
    before = (shell.directory / "output/manifest.json").read_bytes()

    finished = siftline("run", config, "--set", "name=other", "--json")

    assert finished.status == 2
    assert "output: contains the results of 'test', this is 'other'" in finished.complaint()
    assert finished.json()["state"] == "Failed"
    assert (shell.directory / "output/manifest.json").read_bytes() == before


def test_a_configuration_that_is_not_there_exits_2(siftline: Siftline) -> None:
    finished = siftline("run", "nowhere.yaml")

    assert finished.status == 2
    expected = "siftline: nowhere.yaml: no such file; give the path of a configuration file"
    assert finished.complaint() == expected


@pytest.mark.parametrize("arguments", [("run",), ("walk",), ("run", "job.yaml", "--sets", "a=b")])
def test_wrong_usage_exits_2_and_says_so(
    siftline: Siftline, config: Path, arguments: tuple[str, ...]
) -> None:
    finished = siftline(*arguments)

    assert finished.status == 2
    assert finished.err.startswith("Usage: ")
    assert "Traceback" not in finished.err


def test_a_starter_configuration_is_valid_and_runs(shell: Shell, siftline: Siftline, config: Path) -> None:
    written = siftline("init", "rows-600.parquet", "-o", "starter.yaml")
    assert written.status == 0, written.err

    validated = siftline("validate", "starter.yaml")
    assert validated.status == 0, validated.err
    assert validated.out.startswith("starter.yaml: ready to run\n")
    assert "features  amount, duration, distance" in validated.out
    assert not (shell.directory / "results").exists()

    finished = siftline("run", "starter.yaml", "--json", "--set", "cluster.kind=serial")
    assert finished.status == 2, "a memory limit is nothing that `serial` knows"
    assert "cluster.memory_limit: unknown field" in finished.complaint()

    finished = siftline("run", "starter.yaml", "--json", "--set", "cluster={kind: serial}")
    assert finished.status == 0, finished.err
    assert finished.json()["rows"] == 600

    again = siftline("init", "rows-600.parquet", "-o", "starter.yaml")
    assert again.status == 2
    assert "starter.yaml: already exists" in again.complaint()


def test_schema_prints_the_json_schema(siftline: Siftline) -> None:
    for arguments, title in (((), "BatchConfig"), (("pipeline",), "Pipeline")):
        finished = siftline("schema", *arguments)

        assert finished.status == 0, finished.err
        assert finished.json()["title"] == title


def test_a_prefect_server_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    shell = Shell(tmp_path, "http://127.0.0.1:1/api")
    config = write_config(tmp_path / "job.yaml", configuration(tmp_path))

    finished = call_siftline(shell, "run", config)

    assert finished.status == 1
    assert finished.complaint().count("\n") == 0


def test_a_scheduler_that_nobody_answers_for_exits_1_with_one_line(
    shell: Shell, siftline: Siftline, config: Path
) -> None:
    cluster = "cluster={kind: address, address: 'tcp://127.0.0.1:1', timeout_seconds: 2}"

    finished = siftline("run", config, "--set", cluster)

    assert finished.status == 1
    complaint = finished.complaint()
    assert complaint.startswith("siftline: cluster.address tcp://127.0.0.1:1: no scheduler answers there")
    assert complaint.count("\n") == 0
    assert not receipt_files(shell.directory / "checkpoint")
