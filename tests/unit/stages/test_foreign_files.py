"""Nothing outside of the checkpoint and the output is moved, changed or removed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pyarrow.csv as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from siftline.config.batch import BatchConfig
from siftline.config.schedules import Interval
from siftline.errors import LeaseLost, OutputConflict, SiftlineError, StorageError
from siftline.flows.run.frames import with_file
from siftline.jobs.history import remember
from siftline.jobs.intervals import Ledger
from siftline.jobs.plans import read_plan
from siftline.jobs.results import open_results
from siftline.jobs.starting import starting
from siftline.stages.inspection import inspect_batch
from siftline.stages.plan import plan_batch
from siftline.stages.publish import publish_results, published_already
from siftline.stages.validate import validate_results
from siftline.storage.layout import CheckpointFiles
from siftline.storage.lease import Lease
from tests.support import Job, make_config, make_table, run_job, stage_job, store_of, write_files
from tests.unit.stages.outside import (
    FOREIGN,
    altered,
    leaves,
    nothing_outside_changes,
    published_job,
    read_sealed,
    restore,
    save,
    write_sealed,
)

INTERVAL = Interval(start=datetime(2026, 1, 1, tzinfo=UTC), end=datetime(2026, 1, 2, tzinfo=UTC))


@pytest.fixture
def published(config: BatchConfig) -> Job:
    return run_job(config)


def flagging(config: BatchConfig, share: float) -> BatchConfig:
    return config.model_copy(
        update={"threshold": config.threshold.model_copy(update={"contamination": share})}
    )


@pytest.mark.parametrize(
    "name", ["scores", "anomalies.parquet", ".current", ".publications", ".publishing", ".staged"]
)
def test_a_link_in_the_output_is_refused_in_one_line(
    published: Job, config: BatchConfig, tmp_path: Path, name: str
) -> None:
    path = Path(config.output.path) / name
    with nothing_outside_changes(tmp_path) as victim:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        path.symlink_to(victim)
        with pytest.raises(SiftlineError) as caught:
            run_job(flagging(config, 0.05))
        assert "\n" not in str(caught.value)
        assert path.readlink() == victim


@pytest.mark.parametrize("name", CheckpointFiles.OWN)
@pytest.mark.parametrize("kind", ["parquet", "csv", "frame"])
def test_nothing_is_written_through_a_link_in_a_new_checkpoint(tmp_path: Path, name: str, kind: str) -> None:
    table = make_table(60)
    data = write_files(tmp_path / "data", table)
    if kind == "csv":
        data = tmp_path / "data.csv"
        pc.write_csv(table, data)
    config = make_config(tmp_path, data)
    with nothing_outside_changes(tmp_path) as victim:
        (tmp_path / "work").mkdir()
        (tmp_path / "work" / name).symlink_to(victim)
        work = {"path": config.checkpoint.path}
        begin: Callable[[], object] = partial(run_job, config)
        if kind == "frame":
            begin = partial(with_file, {"source": table, "checkpoint": work})
        with pytest.raises(StorageError, match="is a link, and Siftline does not write through it"):
            begin()
        with pytest.raises(StorageError), starting(config.checkpoint.path, "batch"):
            pass


@pytest.mark.parametrize("place", ["intervals/batch", "intervals/batch/{key}", "jobs/{job}"])
def test_no_lease_is_taken_and_nothing_recorded_through_a_link(tmp_path: Path, place: str) -> None:
    with nothing_outside_changes(tmp_path) as victim:
        link = tmp_path / "work" / place.format(key=INTERVAL.key, job="0123456789abcdef")
        link.parent.mkdir(parents=True)
        link.symlink_to(victim)
        with pytest.raises(StorageError), Lease("a") as lease:
            lease.take(link)
        if "intervals" in place:
            with pytest.raises(StorageError):
                Ledger(tmp_path / "work", "batch").write(INTERVAL, "skipped", "run")


def test_a_loss_is_not_noted_through_a_link(tmp_path: Path) -> None:
    with nothing_outside_changes(tmp_path) as victim, Lease("a") as lease:
        job = tmp_path / "jobs" / "a"
        lease.take(job)
        (job / "audit.jsonl").symlink_to(victim / "a.parquet")
        (job / "lease-000002.json").touch()
        with pytest.raises(LeaseLost):
            lease.check()


@pytest.mark.parametrize("name", ["parts", "failed", "receipts", "model"])
def test_a_link_in_the_checkpoint_is_refused_in_one_line(
    published: Job, config: BatchConfig, tmp_path: Path, name: str
) -> None:
    files = published.plan.files
    path = {"parts": published.plan.parts, "failed": published.plan.failed}.get(name, files.directory / name)
    for fresh in (False, True):
        with nothing_outside_changes(tmp_path) as victim:
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)
            path.symlink_to(victim)
            with pytest.raises(SiftlineError, match="is a link, and Siftline does not write through it"):
                run_job(flagging(config, 0.05), fresh=fresh)


def test_a_directory_of_others_in_place_of_the_scores_is_refused(published: Job, config: BatchConfig) -> None:
    scores = Path(config.output.path) / "scores"
    scores.unlink()
    scores.mkdir()
    (scores / "mine.csv").write_text("1")
    with pytest.raises(OutputConflict, match="contains files that are not Siftline results"):
        run_job(flagging(config, 0.05))
    assert (scores / "mine.csv").read_text() == "1"


def test_directories_of_others_beside_the_result_stay(published: Job, config: BatchConfig) -> None:
    output = Path(config.output.path)
    for name in ("anomalies/plot.svg", ".publications/mine/a", ".staged/mine/a", ".mine.01234567.tmp/a"):
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_text("mine")
    for share in (0.05, 0.06, 0.07):
        run_job(flagging(config, share))
    assert len(list(output.rglob("plot.svg"))) == 1
    assert len([path for path in output.rglob("a") if path.read_text() == "mine"]) == 3


def test_output_and_checkpoint_may_be_links_themselves(tmp_path: Path, source: Path) -> None:
    for name in ("out", "work"):
        (tmp_path / f"real-{name}").mkdir()
        (tmp_path / name).symlink_to(f"real-{name}")
    config = make_config(tmp_path, source)
    for share in (0.02, 0.03, 0.04):
        run_job(flagging(config, share))
    assert open_results(config.output.path).manifest.anomaly_count == 24
    assert len(list((tmp_path / "real-out" / ".publications").iterdir())) == 2


def test_the_loser_of_two_pipelines_keeps_its_work(tmp_path: Path, source: Path) -> None:
    first = make_config(tmp_path, source, name="first")
    second = make_config(
        tmp_path, source, name="second", checkpoint={"path": str(tmp_path / "other")}, chunking={"rows": 100}
    )
    staged = [stage_job(config) for config in (first, second)]
    manifest = publish_results(*staged[0], validate_results(staged[0][0], *staged[0][2:]))
    with pytest.raises(OutputConflict) as caught:
        publish_results(*staged[1], validate_results(staged[1][0], *staged[1][2:]))
    assert str(caught.value) == (
        f"output.path {first.output.path}: contains the results of 'first', this is 'second'; "
        "use another directory, or the same name"
    )
    assert open_results(first.output.path).manifest == manifest
    assert not list((Path(first.output.path) / ".staged").iterdir())
    elsewhere = second.model_copy(
        update={"output": second.output.model_copy(update={"path": str(tmp_path / "b")})}
    )
    again = run_job(elsewhere)
    assert (again.receipts.computed, again.manifest.name) == (0, "second")


def records(job: Job) -> dict[str, Path]:
    output, files = Path(job.plan.config.output.path), job.plan.files
    receipts = store_of(job.plan.config).files()
    return {
        "manifest": output / "manifest.json",
        "findings": output / "findings.json",
        "plan": files.plan,
        "detector": files.detector,
        "receipt": receipts[0],
        "history": files.checkpoint.history(job.plan.config.name),
    }


def use_everything(config: BatchConfig) -> None:
    """Do with the records all that a later run does; any refusal is one line."""
    steps: list[Callable[[], object]] = [
        lambda: run_job(flagging(config, 0.05)),
        lambda: published_already(plan_batch(config)),
        lambda: open_results(config.output.path).anomalies,
        lambda: open_results(config.output.path).findings,
        partial(inspect_batch, config),
    ]
    for step in steps:
        with suppress(SiftlineError):
            step()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A published job of few rows with its history."""
    job = published_job(tmp_path_factory.mktemp("kept"))
    remember(job.plan.files.checkpoint.history(job.plan.config.name), job.manifest)
    save(job)
    return job


@pytest.mark.parametrize("kind", ["manifest", "findings", "plan", "detector", "receipt", "history"])
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_record_with_any_altered_field_touches_nothing_outside(
    kept: Job, kind: str, data: st.DataObject
) -> None:
    home = restore(kept)
    path = records(kept)[kind]
    body, written = read_sealed(path)
    at = data.draw(st.integers(0, leaves(body) - 1))
    value = data.draw(st.sampled_from([*FOREIGN, -1, 2**70, None]))
    with nothing_outside_changes(home.parent):
        write_sealed(path, altered(body, at, value), written)
        use_everything(kept.plan.config)


@pytest.mark.parametrize("token", FOREIGN)
def test_a_forged_token_makes_a_new_plan(
    published: Job, config: BatchConfig, tmp_path: Path, token: str
) -> None:
    path = published.plan.files.plan
    body, written = read_sealed(path)
    write_sealed(path, {**body, "token": token}, written)
    with nothing_outside_changes(tmp_path):
        with pytest.raises(SiftlineError):
            read_plan(published.plan.directory)
        assert len(plan_batch(config).token) == 8
