"""A job that is killed at any of its durable steps goes on from there, and its readers see no half of it.

A step is whatever other processes can see: a file is renamed to where it counts, a record is committed,
what is obsolete is removed. `STEPS` are all that a job takes, in order; it is killed before and after each.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import pyarrow as pa
import pytest

from siftline.config.batch import BatchConfig
from siftline.errors import SourceError
from siftline.jobs.results import Results, open_results
from siftline.stages.plan import plan_batch
from siftline.storage.files import file_digest
from siftline.storage.lease import Lease
from tests.faults import holder
from tests.forks import Done, Forks, do
from tests.support import JsonStore, make_config, make_table, store_of, write_files

CHUNKS = 4
ROWS = 60 * CHUNKS
LOOKS = 500
KILLS = 12
BAD_ROW = 70  # in chunk 1

RECEIPTS = [f"commit receipt {chunk}" for chunk in range(CHUNKS)]
CURRENT = "replace out/.current"
STEPS = [
    "link */lease-000001.json",
    "replace */plan.json",
    "replace model/new.skops",
    "rename model/*.skops",
    "replace model/*.json",
    "replace */detector.json",
    "replace parts-*/chunk-0000000-*.parquet",
    RECEIPTS[0],
    "replace parts-*/chunk-0000001-*.parquet",
    "replace failed-*/chunk-0000001-*.parquet",
    RECEIPTS[1],
    "replace parts-*/chunk-0000002-*.parquet",
    RECEIPTS[2],
    "replace parts-*/chunk-0000003-*.parquet",
    RECEIPTS[3],
    "replace */flagged.npy",
    "replace scores/part-00000-*.parquet",
    "replace found/0-part-00000-*.parquet",
    "replace keys/part-00000-*.parquet.npy",
    "replace */anomalies.parquet",
    "remove */found",
    "remove */keys",
    "replace */findings.json",
    "replace */failed.parquet",
    "replace */manifest.json",
    "rename .publications/*",
    "replace out/scores",
    "replace out/anomalies.parquet",
    "replace out/failed.parquet",
    "replace out/findings.json",
    "replace out/manifest.json",
    CURRENT,
    "remove *",  # an older publication, by the descriptor of its directory
]
PUBLISHING = STEPS[STEPS.index("replace */manifest.json") :]

When = Literal["before", "amid", "after"]
BOUNDARIES: list[tuple[str, When]] = [
    (step, when)
    for step in STEPS
    for when in (("before", "amid", "after") if step in RECEIPTS else ("before", "after"))
]


# --------------------------------------------------------------------------------------- in the children


def watch_steps(pass_by: Callable[[str, When], None]) -> None:
    """Call a function before and after every step of this process."""

    def watch(module: Any, name: str, told: str, position: int) -> None:
        original = getattr(module, name)

        def step(*arguments: Any, **options: Any) -> None:
            what = f"{told} {short(Path(arguments[position]))}"
            pass_by(what, "before")
            original(*arguments, **options)
            pass_by(what, "after")

        setattr(module, name, step)

    watch(os, "link", "link", 1)
    watch(os, "replace", "replace", 1)
    watch(os, "rename", "rename", 1)
    watch(shutil, "rmtree", "remove", 0)


def short(path: Path) -> str:
    """The end of a path, without what is different every time."""
    return re.sub(r"[0-9a-f]{8}[0-9a-f-]*(?=\b)", "*", "/".join(path.parts[-2:]))


class WatchedStore(JsonStore):
    """Commits in steps."""

    def __init__(self, directory: Path, pass_by: Callable[[str, When], None]) -> None:
        super().__init__(directory)
        self._pass_by = pass_by

    def commit(self, key: str, record: dict[str, Any]) -> None:
        step = f"commit receipt {int(Path(key).stem)}"
        self._pass_by(step, "before")
        path = self.directory / key
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(record)
        path.write_text(text[: len(text) // 2])
        self._pass_by(step, "amid")
        path.write_text(text)
        self._pass_by(step, "after")


def record_steps(config: BatchConfig, path: Path) -> None:
    """Do a job, and write down its steps."""
    steps: list[str] = []

    def pass_by(step: str, when: When) -> None:
        if when == "after":
            steps.append(step)

    watch_steps(pass_by)
    do(config, WatchedStore(store_of(config).directory, pass_by))
    path.write_text(json.dumps(steps))


def die(config: BatchConfig, boundary: tuple[str, When]) -> None:
    """Do a job until a boundary, where the process is killed."""

    def pass_by(step: str, when: When) -> None:
        if (step, when) == boundary:
            os.kill(os.getpid(), signal.SIGKILL)

    watch_steps(pass_by)
    do(config, WatchedStore(store_of(config).directory, pass_by))


# -------------------------------------------------------------------------------------------------- the job


def make_job(home: Path, data: Path, seed: int = 0, share: float = 0.05) -> BatchConfig:
    """A job of four chunks with a row that cannot be scored."""
    return make_config(
        home,
        data,
        source={"key": ["id"]},
        chunking={"rows": ROWS // CHUNKS},
        detector={"seed": seed},
        threshold={"contamination": share},
        tolerate={"rows": 1},
    )


def write_source(directory: Path) -> Path:
    table = make_table(ROWS)
    values = table["x"].to_numpy().copy()
    values[BAD_ROW] = np.float64(1e300)
    return write_files(directory, table.set_column(1, "x", pa.array(values)), row_group=60)


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as forks:
        yield forks


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The input, and the output of another job, published twice, so that there is something to remove."""
    home = tmp_path_factory.mktemp("before")
    data = write_source(home / "data")
    for share in (0.1, 0.2):
        do(make_job(home, data, seed=1, share=share))
    return home


@pytest.fixture(scope="module")
def undisturbed(before: Path, forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a job publishes, and its steps, when nothing happens to it."""
    config = prepare(before, tmp_path_factory.mktemp("undisturbed"))
    steps = Path(config.output.path).parent / "steps.json"
    assert forks.wait(forks.start(record_steps, config, steps)) == 0
    return {"steps": json.loads(steps.read_text()), **published(config)}


def prepare(before: Path, home: Path) -> BatchConfig:
    shutil.copytree(before / "out", home / "out", symlinks=True)
    return make_job(home, before / "data")


def published(config: BatchConfig) -> dict[str, Any]:
    """What is published, of one piece, without what is different every time."""
    results = open_results(config.output.path)
    check_whole(results)
    manifest = results.manifest
    files = (*manifest.scores, *manifest.anomaly_files, *manifest.failed_files)
    return {"digests": [file.digest for file in files], "threshold": manifest.threshold}


def check_whole(results: Results) -> None:
    """Whatever is published is of one publication, and every row is in it once."""
    manifest = results.manifest
    for file in (*manifest.scores, *manifest.anomaly_files, *manifest.failed_files):
        assert Path(file.name).parts[1] == manifest.publication
        assert file_digest(results.path / file.name) == file.digest
    scores, failed = results.scores.to_table(), results.failed
    assert failed is not None
    keys = scores["id"].to_pylist() + failed["id"].to_pylist()
    assert sorted(keys) == [f"r{number:06d}" for number in range(ROWS)]
    assert manifest.rows == ROWS
    assert manifest.rows_failed == failed.num_rows == 1
    labels = scores["label"].to_numpy()
    assert (labels == (scores["score"].to_numpy() >= manifest.threshold)).all()
    assert labels.sum() == results.anomalies.num_rows == manifest.anomaly_count


# ----------------------------------------------------------------------------------------------- the tests


def test_the_boundaries_are_all_that_there_are(undisturbed: dict[str, Any]) -> None:
    assert undisturbed["steps"] == STEPS


@pytest.mark.parametrize(
    "boundary", BOUNDARIES, ids=[f"{when} {step}".replace("/", ":") for step, when in BOUNDARIES]
)
def test_killed_at_a_boundary_the_job_goes_on_from_there(
    boundary: tuple[str, When], before: Path, undisturbed: dict[str, Any], forks: Forks, tmp_path: Path
) -> None:
    config = prepare(before, tmp_path)
    old = published(config)

    assert forks.wait(forks.start(die, config, boundary)) == -signal.SIGKILL

    passed = BOUNDARIES.index(boundary)
    new = {name: undisturbed[name] for name in old}
    is_published = passed >= BOUNDARIES.index((CURRENT, "after"))
    assert published(config) == (new if is_published else old)

    done = do(config)

    committed = sum((receipt, "after") in BOUNDARIES[: passed + 1] for receipt in RECEIPTS)
    assert done.computed == CHUNKS - committed
    assert (done.previous is not None) == (passed >= BOUNDARIES.index((STEPS[0], "after")))
    assert published(config) == new
    check_nothing_left(config, done)
    assert do(config).manifest == done.manifest, "a job that is published is not published again"


@pytest.mark.parametrize(
    "step", ["rename .publications/*", "replace out/scores", "replace out/manifest.json"]
)
def test_killed_amid_its_first_publication_the_job_goes_on(
    step: str, before: Path, undisturbed: dict[str, Any], forks: Forks, tmp_path: Path
) -> None:
    config = make_job(tmp_path, before / "data")
    assert forks.wait(forks.start(die, config, (step, "after"))) == -signal.SIGKILL
    with pytest.raises(SourceError, match="no results there"):
        open_results(config.output.path)

    assert do(config).computed == 0

    assert published(config) == {name: undisturbed[name] for name in ("digests", "threshold")}


def check_nothing_left(config: BatchConfig, done: Done) -> None:
    """There is nothing that no later publication would remove, and nobody holds the job."""
    assert holder(done.plan.directory) is None
    assert len(list(done.plan.parts.iterdir())) == CHUNKS
    assert len(list(done.plan.failed.iterdir())) >= 1
    output = Path(config.output.path)
    assert not list((output / ".staged").glob("*"))
    assert not list(output.glob(".manifest.*"))
    publication, replaces = done.manifest.publication, done.manifest.replaces
    assert {publication, replaces} <= {path.name for path in (output / ".publications").iterdir()}


def test_runs_that_die_one_after_the_other_are_all_known_to_the_next(
    before: Path, forks: Forks, tmp_path: Path
) -> None:
    config = prepare(before, tmp_path)
    for step in (RECEIPTS[1], RECEIPTS[3], CURRENT):
        assert forks.wait(forks.start(die, config, (step, "before"))) == -signal.SIGKILL
    directory = plan_batch(config).directory

    with Lease("the next") as lease:
        lease.take(directory)
        assert epochs_before(lease) == [3, 2, 1]
    with Lease("one more") as lease:
        lease.take(directory)
        assert epochs_before(lease) == [], "the one before it came to its end, and has ended the others"


def epochs_before(lease: Lease) -> list[int]:
    epochs = []
    while lease.previous is not None:
        epochs.append(lease.previous.epoch)
        lease.forget_previous()
    return epochs


# ------------------------------------------------------------------------------------- a reader meanwhile


def read_on(output: Path, log: Path, stop: Path) -> None:
    """Look at a result again and again, and check every time that it is of one piece."""
    with log.open("a", buffering=1) as file:
        while not stop.exists():
            results = open_results(output)
            try:
                check_whole(results)
            except OSError:
                # The files of the last two publications are kept; this reader has fallen behind them.
                now = open_results(output).manifest
                assert results.manifest.publication not in (now.publication, now.replaces)
            else:
                file.write(f"{results.manifest.publication}\n")


def test_a_reader_never_sees_a_mix_while_runs_publish_and_are_killed(
    before: Path, forks: Forks, tmp_path: Path
) -> None:
    chance = random.Random(0)
    config = prepare(before, tmp_path)
    output, log, stop = Path(config.output.path), tmp_path / "looks", tmp_path / "stop"
    log.touch()
    reader = forks.start(read_on, output, log, stop)
    killed = 0

    while killed < KILLS or len(log.read_text().splitlines()) < LOOKS:
        assert psutil.Process(reader).status() != psutil.STATUS_ZOMBIE, "the reader has seen a mix"
        share = chance.choice([0.02, 0.05, 0.1])
        # As often before the result is shown as after it.
        step = chance.choice([*PUBLISHING, *PUBLISHING[-2:] * 3])
        boundary = (step, chance.choice(["before", "after"]))
        status = forks.wait(forks.start(die, make_job(tmp_path, before / "data", share=share), boundary))
        assert status in (0, -signal.SIGKILL)
        killed += status != 0
    stop.touch()

    assert forks.wait(reader) == 0
    assert len(set(log.read_text().splitlines())) >= KILLS / 2, "publications that were seen"
