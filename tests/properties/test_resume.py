"""A job that is taken up again ends like one that was never interrupted, and repeats no work."""

from __future__ import annotations

import functools
import itertools
import json
import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siftline.config.batch import BatchConfig, RetriesConfig
from siftline.engine import SerialExecutor, Session
from siftline.errors import CheckpointError, RowError
from siftline.jobs.checkpoint import Checkpoint
from siftline.stages.detect import detect_chunks
from siftline.stages.fit import fit_detector
from siftline.stages.plan import plan_batch
from tests.support import Job, JsonStore, elsewhere, make_config, make_table, run_job, store_of, write_files

CHUNKS = 9
NUMBERS = itertools.count()
HARMS = (
    "no receipt",
    "torn receipt",
    "altered receipt",
    "part gone",
    "part torn",
    "part altered",
    "part empty",
)


class CountingExecutor(SerialExecutor):
    """Remembers which chunks it was asked to score."""

    def __init__(self) -> None:
        self.scored: list[int] = []

    def session(
        self, function: Any, bundle: int = 1, timeout_seconds: float | None = None
    ) -> AbstractContextManager[Session[Any, Any]]:
        @functools.wraps(function)
        def counted(item: Any) -> Any:
            if hasattr(item, "chunk"):
                self.scored.append(item.chunk.index)
            return function(item)

        return super().session(counted, bundle, timeout_seconds)


class Interrupted(Exception):
    """Stands for whatever ends a run."""


class StopsAfter(CountingExecutor):
    """Is interrupted after some chunks."""

    def __init__(self, chunks: int) -> None:
        super().__init__()
        self._left = chunks

    def session(
        self, function: Any, bundle: int = 1, timeout_seconds: float | None = None
    ) -> AbstractContextManager[Session[Any, Any]]:
        @functools.wraps(function)
        def interrupted(item: Any) -> Any:
            value = function(item)
            if self._left == 0:
                raise Interrupted
            self._left -= 1
            return value

        return super().session(interrupted, bundle, timeout_seconds)


def prepare(home: Path, every: int = 1) -> BatchConfig:
    data = write_files(home / "data", make_table(450), files=3, row_group=50)
    return make_config(
        home,
        data,
        chunking={"rows": 50},
        checkpoint={"every": every},
        retries={"delay_seconds": 0},
        threshold={"contamination": 0.05},
    )


def harm(job: Job, store: JsonStore, chunk: int, how: str) -> None:
    """Do to a chunk's receipt or part file what a crash, a full disk or a stray hand may do."""
    receipt = store.files()[chunk]
    part = job.plan.parts / job.receipts.in_order[chunk].part.name
    content = part.read_bytes()
    if how == "no receipt":
        receipt.unlink()
    elif how == "torn receipt":
        receipt.write_bytes(receipt.read_bytes()[:-20])
    elif how == "altered receipt":
        record = json.loads(receipt.read_text())
        record["receipts"][0]["summary"]["maximum"] = 9.0
        receipt.write_text(json.dumps(record))
    elif how == "part gone":
        part.unlink()
    elif how == "part torn":
        part.write_bytes(content[: len(content) // 2])
    elif how == "part empty":
        part.write_bytes(b"")
    else:
        middle = len(content) // 2
        part.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])


def digests(job: Job) -> list[str]:
    return [file.digest for file in (*job.manifest.scores, *job.manifest.anomaly_files)]


def again(config: BatchConfig, executor: SerialExecutor | None = None) -> Job:
    """The same job once more. Its result goes elsewhere, to be compared: there it would not be published."""
    return run_job(elsewhere(config, f"again-{next(NUMBERS)}"), executor)


@settings(max_examples=8)
@given(harms=st.dictionaries(st.integers(0, CHUNKS - 1), st.sampled_from(HARMS)))
def test_exactly_the_harmed_chunks_are_computed_again(
    tmp_path_factory: pytest.TempPathFactory, harms: dict[int, str]
) -> None:
    config = prepare(tmp_path_factory.mktemp("resume"))
    first = run_job(config)
    for chunk, how in sorted(harms.items(), reverse=True):
        harm(first, store_of(config), chunk, how)

    executor = CountingExecutor()
    second = again(config, executor)
    assert second.plan.job_id == first.plan.job_id
    assert sorted(executor.scored) == sorted(harms)
    assert (second.receipts.computed, second.receipts.reused) == (len(harms), CHUNKS - len(harms))
    assert second.outcome() == first.outcome()
    assert digests(second) == digests(first)


@settings(max_examples=5)
@given(stop=st.integers(0, CHUNKS - 1), every=st.integers(1, 5))
def test_what_arrived_before_an_interruption_is_not_done_again(
    tmp_path_factory: pytest.TempPathFactory, stop: int, every: int
) -> None:
    config = prepare(tmp_path_factory.mktemp("resume"), every)
    with pytest.raises(Interrupted):
        run_job(config, StopsAfter(stop))

    executor = CountingExecutor()
    resumed = run_job(config, executor)
    assert executor.scored == list(range(stop, CHUNKS))
    assert (resumed.receipts.reused, resumed.receipts.computed) == (stop, CHUNKS - stop)

    uninterrupted = run_job(prepare(tmp_path_factory.mktemp("straight"), every))
    assert resumed.outcome() == uninterrupted.outcome()
    assert digests(resumed) == digests(uninterrupted)


@settings(max_examples=5)
@given(stops=st.lists(st.integers(0, 3), max_size=5), every=st.integers(1, 5))
def test_however_often_a_job_is_interrupted_no_chunk_is_done_twice(
    tmp_path_factory: pytest.TempPathFactory, stops: list[int], every: int
) -> None:
    config = prepare(tmp_path_factory.mktemp("resume"), every)
    kept: list[int] = []
    for stop in stops:
        executor = StopsAfter(stop)
        try:
            run_job(config, executor)
        except Interrupted:
            kept += executor.scored[:stop]
        else:
            kept += executor.scored
    last = CountingExecutor()
    run_job(config, last)
    assert kept + last.scored == list(range(CHUNKS))


@pytest.mark.parametrize("how", HARMS)
def test_every_harm_costs_its_chunk_only(tmp_path: Path, how: str) -> None:
    config = prepare(tmp_path)
    first = run_job(config)
    harm(first, store_of(config), 4, how)
    executor = CountingExecutor()
    assert digests(again(config, executor)) == digests(first)
    assert executor.scored == [4]


@pytest.mark.parametrize("how", ["torn receipt", "no receipt"])
def test_chunks_committed_together_are_lost_together(tmp_path: Path, how: str) -> None:
    config = prepare(tmp_path, every=4)
    first = run_job(config)
    assert store_of(config).commits == 0
    assert len(store_of(config).files()) == 3
    harm(first, store_of(config), 1, how)
    executor = CountingExecutor()
    assert digests(again(config, executor)) == digests(first)
    assert executor.scored == [4, 5, 6, 7]


def test_a_part_file_lost_from_a_group_costs_that_chunk_only(tmp_path: Path) -> None:
    config = prepare(tmp_path, every=4)
    first = run_job(config)
    (first.plan.parts / first.receipts.in_order[5].part.name).unlink()
    executor = CountingExecutor()
    second = again(config, executor)
    assert executor.scored == [5]
    third = CountingExecutor()
    assert digests(again(config, third)) == digests(second) == digests(first)
    assert third.scored == []


def test_a_group_that_is_not_complete_is_kept_beside_its_place(tmp_path: Path) -> None:
    config = prepare(tmp_path, every=4)
    with pytest.raises(Interrupted):
        run_job(config, StopsAfter(6))
    names = [path.name for path in store_of(config).files()]
    assert names == ["0000000.json", "0000001-partial.json"]
    executor = CountingExecutor()
    run_job(config, executor)
    assert executor.scored == [6, 7, 8]
    names = [path.name for path in store_of(config).files()]
    assert names == ["0000000.json", "0000001-partial.json", "0000001.json", "0000002.json"]


def test_a_group_that_is_complete_is_not_written_again(tmp_path: Path) -> None:
    config = prepare(tmp_path, every=4)
    first = run_job(config)
    before = {path: path.stat().st_mtime_ns for path in store_of(config).files()}
    for chunk in (4, 5, 6):
        (first.plan.parts / first.receipts.in_order[chunk].part.name).unlink()
    with pytest.raises(Interrupted):
        run_job(config, StopsAfter(2))
    after = {path: path.stat().st_mtime_ns for path in store_of(config).files()}
    assert {path.name for path in after.keys() - before.keys()} == {"0000001-partial.json"}
    assert {path: after[path] for path in before} == before


def test_what_was_done_in_the_place_of_lost_parts_is_not_done_again_either(tmp_path: Path) -> None:
    config = prepare(tmp_path, every=4)
    first = run_job(config)
    for chunk in (4, 5, 6):
        (first.plan.parts / first.receipts.in_order[chunk].part.name).unlink()
    with pytest.raises(Interrupted):
        run_job(config, StopsAfter(2))
    executor = CountingExecutor()
    assert digests(again(config, executor)) == digests(first)
    assert executor.scored == [6]


def test_a_part_file_that_no_receipt_names_is_removed_when_all_is_done(tmp_path: Path) -> None:
    config = prepare(tmp_path)
    first = run_job(config)
    harm(first, store_of(config), 4, "no receipt")
    second = again(config)
    old, new = (job.receipts.in_order[4].part.name for job in (first, second))
    assert old != new
    assert {path.name for path in second.plan.parts.iterdir()} == {
        receipt.part.name for receipt in second.receipts.in_order
    }


def test_part_files_are_named_by_their_chunk_and_never_alike(tmp_path: Path) -> None:
    config = prepare(tmp_path)
    jobs = [run_job(config), run_job(config, fresh=True)]
    names = [receipt.part.name for job in jobs for receipt in job.receipts.in_order]
    assert len(set(names)) == len(names)
    for chunk, name in enumerate(names[:CHUNKS]):
        assert re.fullmatch(rf"chunk-{chunk:07d}-[0-9a-f]{{8}}\.parquet", name)


@pytest.mark.parametrize("how", ["gone", "torn", "altered"])
def test_rows_set_aside_that_are_lost_cost_their_chunk_only(tmp_path: Path, how: str) -> None:
    values = make_table(450)["x"].to_numpy().copy()
    values[[7, 201, 249]] = 1e300
    table = make_table(450).set_column(1, "x", [values])
    data = write_files(tmp_path / "data", table, files=3, row_group=50)
    config = make_config(tmp_path, data, chunking={"rows": 50}, tolerate={"rows": 3})
    first = run_job(config)
    assert [receipt.rows_rejected for receipt in first.receipts.in_order] == [1, 0, 0, 0, 2, 0, 0, 0, 0]
    rejects = first.receipts.in_order[4].rejects
    assert rejects is not None
    path = first.plan.failed / rejects.file.name
    content = path.read_bytes()
    path.unlink()
    if how == "torn":
        path.write_bytes(content[:-10])
    elif how == "altered":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    executor = CountingExecutor()
    second = again(config, executor)
    assert executor.scored == [4]
    assert digests(second) == digests(first)
    assert second.manifest.rows_failed == first.manifest.rows_failed == 3


def test_a_job_that_failed_for_its_rows_fails_again_at_once_and_goes_on_when_they_are_tolerated(
    tmp_path: Path,
) -> None:
    values = make_table(450)["x"].to_numpy().copy()
    values[[7, 201]] = 1e300
    data = write_files(tmp_path / "data", make_table(450).set_column(1, "x", [values]), row_group=50)

    def tolerating(rows: int) -> BatchConfig:
        return make_config(tmp_path, data, chunking={"rows": 50}, tolerate={"rows": rows})

    for expected in ([0, 1, 2, 3, 4], []):
        executor = CountingExecutor()
        with pytest.raises(
            RowError, match=r"^row 201: .* \(2 rows so far cannot be scored, 1 is tolerated; "
        ):
            run_job(tolerating(1), executor)
        assert executor.scored == expected
    executor = CountingExecutor()
    assert run_job(tolerating(2), executor).manifest.rows_failed == 2
    assert executor.scored == [5, 6, 7, 8]


def test_a_finished_job_computes_nothing_again(tmp_path: Path) -> None:
    config = prepare(tmp_path)
    first, executor = run_job(config), CountingExecutor()
    second = again(config, executor)
    assert executor.scored == []
    assert (second.receipts.computed, second.receipts.reused) == (0, CHUNKS)
    assert second.detector == first.detector
    assert digests(second) == digests(first)


def test_another_chunk_size_keeps_the_chunks_of_the_started_job(tmp_path: Path) -> None:
    config = prepare(tmp_path)
    first = run_job(config)
    other = config.model_copy(update={"chunking": config.chunking.model_copy(update={"rows": 33})})
    second = again(other)
    assert second.receipts.computed == 0
    assert digests(second) == digests(first)


def test_another_threshold_needs_no_new_scores(tmp_path: Path) -> None:
    config = prepare(tmp_path)
    before = run_job(config).scores.tobytes()
    lower = make_config(tmp_path, tmp_path / "data", chunking={"rows": 50}, threshold={"contamination": 0.1})
    second = run_job(lower)
    assert second.receipts.computed == 0
    assert second.combined.anomalies == second.labels.sum() == 45
    assert second.scores.tobytes() == before


def test_fresh_starts_over_and_ends_the_same(tmp_path: Path) -> None:
    config = prepare(tmp_path)
    first = run_job(config)
    before = first.outcome()
    second = run_job(config, fresh=True)
    assert second.receipts.computed == CHUNKS
    assert second.plan.token != first.plan.token
    assert not first.plan.parts.exists()
    assert second.outcome() == before


def test_receipts_of_another_detector_do_not_count(tmp_path: Path) -> None:
    config = prepare(tmp_path)
    plan = plan_batch(config)
    detector = fit_detector(plan, SerialExecutor())
    detect_chunks(plan, detector, SerialExecutor(), store_of(config))
    checkpoint = Checkpoint(plan, store_of(config))
    assert len(checkpoint.load(detector.model_digest)) == CHUNKS
    assert Checkpoint(plan, store_of(config)).load("another") == {}


@pytest.mark.parametrize("record", [None, [], {}, "text", 3, {"receipts": []}, {"format_version": 1}])
def test_a_foreign_record_is_a_miss(tmp_path: Path, record: object) -> None:
    config = prepare(tmp_path)
    first = run_job(config)
    store_of(config).files()[2].write_text(json.dumps(record))
    executor = CountingExecutor()
    assert digests(again(config, executor)) == digests(first)
    assert executor.scored == [2]


def test_a_record_of_other_chunks_is_a_miss_and_costs_its_chunks_once(tmp_path: Path) -> None:
    config = prepare(tmp_path)
    first = run_job(config)
    records = store_of(config).files()
    records[2].write_bytes(records[5].read_bytes())
    for expected in ([2], []):
        executor = CountingExecutor()
        assert digests(again(config, executor)) == digests(first)
        assert executor.scored == expected


class FullStore(JsonStore):
    """Has room for some records only."""

    def __init__(self, directory: Path, room: int) -> None:
        super().__init__(directory)
        self._room = room

    def commit(self, key: str, record: dict[str, Any]) -> None:
        if self.commits >= self._room:
            raise CheckpointError("checkpoint: no space left on device", "free some space")
        super().commit(key, record)


def test_a_receipt_that_cannot_be_kept_ends_the_run_and_keeps_the_others(tmp_path: Path) -> None:
    config = prepare(tmp_path)
    plan = plan_batch(config)
    detector = fit_detector(plan, SerialExecutor())
    with pytest.raises(CheckpointError, match="no space left"):
        detect_chunks(plan, detector, SerialExecutor(), FullStore(store_of(config).directory, 3))
    receipts = detect_chunks(plan, detector, SerialExecutor(), store_of(config))
    assert (receipts.reused, receipts.computed) == (3, CHUNKS - 3)


class AwayStore(JsonStore):
    """Cannot be written for a while."""

    def __init__(self, directory: Path, failures: int) -> None:
        super().__init__(directory)
        self.left = failures

    def commit(self, key: str, record: dict[str, Any]) -> None:
        if self.left:
            self.left -= 1
            raise CheckpointError("the storage is away", "bring it back")
        super().commit(key, record)


@pytest.mark.parametrize(("failures", "ends_well"), [(2, True), (3, False)])
def test_a_storage_that_is_away_for_a_while_is_tried_again_and_then_stops_the_run(
    tmp_path: Path, failures: int, ends_well: bool
) -> None:
    config = prepare(tmp_path)
    config = config.model_copy(update={"retries": RetriesConfig(attempts=3, delay_seconds=0)})
    plan = plan_batch(config)
    detector = fit_detector(plan, SerialExecutor())
    executor = CountingExecutor()
    store = AwayStore(tmp_path / "receipts", failures)
    if ends_well:
        detect_chunks(plan, detector, executor, store)
        assert executor.scored == list(range(CHUNKS))
        return
    with pytest.raises(CheckpointError, match="the storage is away; bring it back"):
        detect_chunks(plan, detector, executor, store)
    # The storage is back when the run ends: what it had scored is committed then.
    assert executor.scored == [0]
    again = CountingExecutor()
    detect_chunks(plan, detector, again, store)
    assert again.scored == list(range(1, CHUNKS))


class TruncatingStore(JsonStore):
    """Empties the record that it was to replace, as a full disk does."""

    full = False

    def commit(self, key: str, record: dict[str, Any]) -> None:
        if self.full:
            path = self.directory / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
            raise CheckpointError("no space left", "free some")
        super().commit(key, record)


@pytest.mark.parametrize("stops", [[3, 5], [2, 4, 6]])
def test_a_record_that_fails_half_way_costs_nothing_that_was_committed(
    tmp_path: Path, stops: list[int]
) -> None:
    config = prepare(tmp_path, every=8)
    config = config.model_copy(update={"retries": RetriesConfig(attempts=1)})
    plan = plan_batch(config)
    detector = fit_detector(plan, SerialExecutor())
    store = TruncatingStore(tmp_path / "receipts")
    done = 0
    for stop in stops:
        with pytest.raises(Interrupted):
            detect_chunks(plan, detector, StopsAfter(stop - done), store)
        done = stop
    store.full = True
    with pytest.raises((CheckpointError, Interrupted)):
        detect_chunks(plan, detector, StopsAfter(1), store)
    store.full = False
    executor = CountingExecutor()
    detect_chunks(plan, detector, executor, store)
    assert executor.scored == list(range(done, CHUNKS))
