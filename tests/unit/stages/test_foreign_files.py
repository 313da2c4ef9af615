"""Nothing outside of the checkpoint and the output is moved, changed or removed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from siftline.config.batch import BatchConfig
from siftline.errors import OutputConflict, SiftlineError
from siftline.jobs.history import remember
from siftline.jobs.plans import read_plan
from siftline.jobs.results import open_results
from siftline.stages.inspection import inspect_batch
from siftline.stages.plan import plan_batch
from siftline.stages.publish import publish_results, published_already
from siftline.stages.validate import validate_results
from siftline.storage.files import seal
from tests.support import Job, make_config, make_table, run_job, stage_job, store_of, write_files

FOREIGN = ["../victim", "x/../../victim", "/tmp", "..", "", "a\0b", "a" * 300, "victim/a.parquet", "~"]


def photograph(directory: Path) -> dict[str, str]:
    """Every file below a directory with its content, links and times."""
    found = {}
    for path in sorted(directory.rglob("*")):
        what = str(path.readlink()) if path.is_symlink() else "directory"
        if path.is_file():
            what = hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path)] = f"{what} {path.lstat().st_mtime_ns}"
    return found


@contextmanager
def nothing_outside_changes(home: Path) -> Iterator[Path]:
    """A directory of others, full of names like ours, that stays as it is."""
    victim = home / "victim"
    if not victim.exists():
        for name in ("a.parquet", "manifest.json", "chunk-0000000-00000000.parquet", "scores/part-0.parquet"):
            (victim / name).parent.mkdir(parents=True, exist_ok=True)
            (victim / name).write_text(name)
        (victim / "0123456789abcdef-01234567-89abcdef").mkdir()
    before = photograph(victim)
    yield victim
    assert photograph(victim) == before


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


def leaves(node: Any) -> int:
    """The number of texts, numbers and so on in a record."""
    if isinstance(node, (dict, list)):
        return sum(map(leaves, node.values() if isinstance(node, dict) else node))
    return 1


def altered(node: Any, at: int, value: object) -> Any:
    """The record with its text or number at a place changed."""
    if isinstance(node, dict):
        names = list(node)
        return dict(zip(names, altered(list(node.values()), at, value), strict=True))
    if not isinstance(node, list):
        return value if at == 0 else node
    changed = []
    for one in node:
        changed.append(altered(one, at, value))
        at -= leaves(one)
    return changed


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
    home = tmp_path_factory.mktemp("kept") / "home"
    home.mkdir()
    config = make_config(
        home, write_files(home / "data", make_table(60)), source={"key": ["id"]}, chunking={"rows": 30}
    )
    job = run_job(config)
    remember(job.plan.files.checkpoint.history(config.name), job.manifest)
    shutil.copytree(home, home.with_name("saved"), symlinks=True)
    return job


@pytest.mark.parametrize("kind", ["manifest", "findings", "plan", "detector", "receipt", "history"])
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_record_with_any_altered_field_touches_nothing_outside(
    kept: Job, kind: str, data: st.DataObject
) -> None:
    home = Path(kept.plan.config.output.path).parent
    shutil.rmtree(home)
    shutil.copytree(home.with_name("saved"), home, symlinks=True)
    path = records(kept)[kind]
    record = json.loads(path.read_bytes())
    body = {name: one for name, one in record.items() if name not in ("format_version", "digest")}
    at = data.draw(st.integers(0, leaves(body) - 1))
    value = data.draw(st.sampled_from([*FOREIGN, -1, 2**70, None]))
    with nothing_outside_changes(home.parent):
        path.write_text(json.dumps(seal(altered(body, at, value), record["format_version"])))
        use_everything(kept.plan.config)


@pytest.mark.parametrize("token", FOREIGN)
def test_a_forged_token_makes_a_new_plan(
    published: Job, config: BatchConfig, tmp_path: Path, token: str
) -> None:
    path = published.plan.files.plan
    record = json.loads(path.read_bytes())
    body = {name: one for name, one in record.items() if name not in ("format_version", "digest")}
    path.write_text(json.dumps(seal({**body, "token": token}, record["format_version"])))
    with nothing_outside_changes(tmp_path):
        with pytest.raises(SiftlineError):
            read_plan(published.plan.directory)
        assert len(plan_batch(config).token) == 8
