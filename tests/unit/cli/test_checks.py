"""Checks before a run: refusals and finished jobs, said without Prefect, Dask or scikit-learn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from siftline.cli.checks import check_batch, published_result
from siftline.config.batch import BatchConfig
from siftline.errors import OutputConflict, SourceError, SourceUnavailable
from siftline.jobs.record import concluded, read_job, write_job
from siftline.stages.plan import plan_batch
from siftline.storage.lease import Lease
from siftline.types import BatchResult
from tests.e2e.processes import write_config
from tests.flows.batches import configuration
from tests.support import make_config, run_job

CALL = """
import sys
from siftline.cli import main
sys.argv = ["siftline", *sys.argv[1:]]
try:
    main()
finally:
    print([name for name in ("dask", "distributed", "prefect", "sklearn") if name in sys.modules])
"""


def call(directory: Path, *arguments: str | Path) -> tuple[int, list[str], str, str]:
    """Call the command; return its status, its output, its complaint, and which slow imports it made."""
    environment = {**os.environ, "PREFECT_API_URL": "http://127.0.0.1:1/api"}
    done = subprocess.run(
        [sys.executable, "-c", CALL, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=directory,
        env=environment,
    )
    *out, imported = done.stdout.splitlines()
    return done.returncode, out, done.stderr, imported


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A configuration with common parameters, whose check needs no scikit-learn."""
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.docx").touch()
    detector = {"kind": "isolation_forest", "params": {"n_estimators": 20, "max_samples": 64}}
    values = configuration(tmp_path, detector=detector)
    return write_config(tmp_path / "job.yaml", values)


REFUSED: dict[str, tuple[list[str], str]] = {
    "source": (["--set", "source.path=nowhere.parquet"], "nowhere.parquet: no parquet or csv files there"),
    "column": (["--set", "source.features=[amont]"], "the source has no column amont"),
    "text": (["--set", "source.features=[place]"], "place"),
    "field": (["--set", "treshold.score=1"], "treshold: unknown field; did you mean threshold?"),
    "template": (["--set", "output.path=x/{{ interval.start }}"], "interval"),
    "output": (["--set", "output.path=taken"], "contains files that are not Siftline results"),
    "file": (["--set", "checkpoint.path=job.yaml/x"], "job.yaml"),
}


@pytest.mark.parametrize("case", [("run", name) for name in REFUSED] + [("submit", "source")])
def test_a_refusal_comes_before_slow_imports_and_stays_json(
    tmp_path: Path, job: Path, case: tuple[str, str]
) -> None:
    command, (arguments, complaint) = case[0], REFUSED[case[1]]
    before = sorted(tmp_path.rglob("*"))

    status, out, err, imported = call(tmp_path, command, job, *arguments, "--json")

    assert status in (1, 2), err
    assert err.startswith("siftline: ")
    assert complaint in err
    assert json.loads(out[0])["state"] == "Failed"
    assert imported == "[]"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", [("resume",), ("publish", "--partial")])
def test_an_unknown_job_is_refused_before_slow_imports(tmp_path: Path, command: tuple[str, ...]) -> None:
    status, out, err, imported = call(tmp_path, *command, "abc", "--json")

    assert (status, imported) == (2, "[]")
    assert "job id 'abc' matches no job" in err
    assert json.loads(out[0])["error"] == "UnknownJob"


def test_a_job_whose_source_is_gone_is_not_resumed(tmp_path: Path, config: BatchConfig, source: Path) -> None:
    plan = plan_batch(config)
    for file in source.iterdir():
        file.unlink()

    status, _, err, imported = call(tmp_path, "resume", plan.job_id, "--checkpoint", config.checkpoint.path)

    assert (status, imported) == (2, "[]"), err
    assert "no parquet or csv files there" in err


@pytest.mark.parametrize("url", ["localhost:4200", "http://127.0.0.1:1/api"])
def test_a_wrong_api_is_refused_before_slow_imports(
    tmp_path: Path, job: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    code = CALL.replace("main()", f"__import__('os').environ['PREFECT_API_URL'] = {url!r}; main()")
    done = subprocess.run(
        [sys.executable, "-c", code, "run", str(job)], capture_output=True, text=True, cwd=tmp_path
    )

    assert done.stdout == "[]\n"
    assert done.stderr.count("\n") == 1
    assert url in done.stderr


def test_a_fault_that_may_pass_is_left_to_the_run(
    config: BatchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object) -> None:
        raise SourceUnavailable("the storage is away", "wait")

    monkeypatch.setattr("siftline.cli.checks.inspect_batch", fail)

    assert check_batch(config) is None


def test_a_failure_to_be_announced_is_shown_and_left_to_the_run(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = {"path": str(tmp_path / "nowhere")}
    quiet = make_config(tmp_path, source, notify=[{"block": "slack-webhook/ops", "on": ["completed"]}])
    told = make_config(tmp_path, source, notify=[{"block": "slack-webhook/ops"}])

    with pytest.raises(SourceError):
        check_batch(quiet.model_copy(update={"source": quiet.source.model_copy(update=missing)}))
    assert check_batch(told.model_copy(update={"source": told.source.model_copy(update=missing)})) is None

    assert "nowhere: no parquet or csv files there" in capsys.readouterr().err


@pytest.fixture
def published(config: BatchConfig) -> BatchConfig:
    """The configuration of a job that a run has published and recorded."""
    job = run_job(config)
    write_job(job.plan.directory, concluded(read_job(job.plan.directory), "published", "a run"))
    return config


def result_of(config: BatchConfig) -> BatchResult | None:
    """Check a batch as `siftline run` does, and return its published result."""
    checked = check_batch(config)
    assert checked is not None
    return published_result(*checked)


def test_a_published_job_is_known_with_its_counts(published: BatchConfig) -> None:
    result = result_of(published)

    assert result is not None
    assert (result.state, result.rows, result.chunks_computed) == ("AlreadyPublished", 600, 0)
    assert result.chunks_reused == result.chunks
    assert result.output == published.output.path


def test_a_published_job_of_csv_is_known_by_its_staged_copy(tmp_path: Path, source: Path) -> None:
    csv = tmp_path / "rows.csv"
    pq.read_table(source).to_pandas().to_csv(csv, index=False)
    config = make_config(tmp_path, csv)
    job = run_job(config)
    write_job(job.plan.directory, concluded(read_job(job.plan.directory), "published", "a run"))
    assert result_of(config) is not None

    (copy,) = Path(config.checkpoint.path).rglob("staged/*.parquet")
    copy.unlink()

    assert result_of(config) is None
    assert not copy.exists(), "the check staged it again"


def other_threshold(config: BatchConfig) -> BatchConfig:
    return config.model_copy(update={"threshold": config.threshold.model_copy(update={"contamination": 0.2})})


def interrupted(config: BatchConfig) -> BatchConfig:
    (directory,) = (Path(config.checkpoint.path) / "jobs").iterdir()
    write_job(directory, concluded(read_job(directory), "interrupted", "a run"))
    return config


def damaged(config: BatchConfig) -> BatchConfig:
    next(Path(config.output.path).resolve().rglob("*.parquet")).unlink()
    return config


def changed(config: BatchConfig) -> BatchConfig:
    file = next(Path(config.source.path).iterdir())
    os.utime(file, (1, 1))
    return config


def verified(config: BatchConfig) -> BatchConfig:
    return config.model_copy(update={"source": config.source.model_copy(update={"verify": "content"})})


@pytest.mark.parametrize("change", [other_threshold, interrupted, damaged, changed, verified])
def test_whatever_leaves_something_to_do_is_left_to_a_run(published: BatchConfig, change: Any) -> None:
    assert result_of(change(published)) is None


def test_a_published_job_that_another_run_holds_is_left_to_a_run(published: BatchConfig) -> None:
    (directory,) = (Path(published.checkpoint.path) / "jobs").iterdir()
    with Lease("another run") as lease:
        lease.take(directory)
        assert result_of(published) is None


def test_an_output_conflict_is_refused(published: BatchConfig) -> None:
    with pytest.raises(OutputConflict):
        check_batch(published.model_copy(update={"name": "other"}))
