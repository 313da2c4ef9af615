"""Whatever happens to the files of a checkpoint: what is damaged is computed again, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect.filesystems import LocalFileSystem
from prefect.results import ResultStore

from siftline.errors import IntegrityError
from siftline.flows.batch_detection import batch_detection
from siftline.storage.files import unseal
from siftline.storage.layout import Version
from siftline.tasks.adapters.checkpoints import PrefectCheckpoints
from tests.faults import flip_bit, forge_pickle, truncate
from tests.flows.batches import configuration, part_files, receipt_files, scores_digest

CHUNKS = 5


class Job:
    """A finished job, and what it published."""

    def __init__(self, home: Path, **sections: Any) -> None:
        self.config = configuration(home, rows=500, chunk_rows=100, **sections)
        self.checkpoint = Path(self.config["checkpoint"]["path"])
        self.output = Path(self.config["output"]["path"])
        self.first = batch_detection(self.config)
        self.digest = scores_digest(self.output)
        self.runs = 0

    def again(self) -> tuple[int, int]:
        """Run it again: it must publish the same, and gives the chunks computed and reused.

        Elsewhere, because where its result is already there is nothing to do.
        """
        self.runs += 1
        output = self.output.with_name(f"output-{self.runs}")
        result = batch_detection({**self.config, "output": {**self.config["output"], "path": str(output)}})
        assert (result.job_id, result.state) == (self.first.job_id, "Completed")
        assert scores_digest(output) == self.digest
        return result.chunks_computed, result.chunks_reused


@pytest.fixture(scope="module")
def job(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Shared: every test leaves it as whole as it was found."""
    return Job(tmp_path_factory.mktemp("job"))


DAMAGE = [truncate, flip_bit, Path.unlink, lambda path: path.write_bytes(b"")]
NAMES = ["torn", "a bit flipped", "missing", "empty"]


@pytest.mark.parametrize("damage", DAMAGE, ids=NAMES)
def test_chunks_with_a_damaged_receipt_or_part_file_are_computed_again(
    job: Job, damage: Callable[[Path], None]
) -> None:
    receipts, parts = receipt_files(job.checkpoint), part_files(job.checkpoint)
    assert len(receipts) == len(parts) == CHUNKS
    damage(receipts[2])
    damage(parts[0])
    damage(parts[3])

    assert job.again() == (3, CHUNKS - 3)


def test_damage_to_all_that_was_kept_costs_all_the_work_and_nothing_else(job: Job) -> None:
    for receipt in receipt_files(job.checkpoint):
        truncate(receipt)
    for part in part_files(job.checkpoint):
        part.unlink()

    assert job.again() == (CHUNKS, 0)
    assert job.again() == (0, CHUNKS)


def test_a_finished_job_is_finished_whatever_happens_to_what_was_kept(tmp_path: Path) -> None:
    job = Job(tmp_path)
    for receipt in receipt_files(job.checkpoint):
        truncate(receipt)
    for part in part_files(job.checkpoint):
        part.unlink()

    result = batch_detection(job.config)

    assert (result.state, result.chunks_computed, result.chunks_reused) == ("AlreadyPublished", 0, CHUNKS)
    assert scores_digest(job.output) == job.digest


def test_a_receipt_of_another_chunk_is_not_believed(job: Job) -> None:
    receipts = receipt_files(job.checkpoint)
    receipts[1].write_bytes(receipts[4].read_bytes())

    assert job.again() == (1, CHUNKS - 1)
    assert job.again() == (0, CHUNKS)


def test_a_receipt_that_says_it_is_a_pickle_is_never_unpickled(job: Job, tmp_path: Path) -> None:
    marker = tmp_path / "unpickled"
    receipt = receipt_files(job.checkpoint)[2]
    forge_pickle(receipt, marker)

    assert job.again() == (1, CHUNKS - 1)
    assert not marker.exists()


def test_the_forged_receipt_is_dangerous_to_a_reader_that_believes_it(job: Job, tmp_path: Path) -> None:
    marker = tmp_path / "unpickled"
    receipt = tmp_path / "forged.json"
    receipt.write_bytes(receipt_files(job.checkpoint)[2].read_bytes())
    forge_pickle(receipt, marker)

    ResultStore(result_storage=LocalFileSystem(basepath=str(tmp_path))).read("forged.json")

    assert marker.exists()


def test_no_altered_byte_of_a_receipt_goes_unnoticed(job: Job, tmp_path: Path) -> None:
    store = PrefectCheckpoints(LocalFileSystem(basepath=str(tmp_path)))
    receipt = tmp_path / "receipt.json"
    whole = receipt_files(job.checkpoint)[2].read_bytes()
    receipt.write_bytes(whole)
    body = unseal(store.load(receipt.name), Version.RECEIPTS, "whole")

    for place in range(len(whole)):
        altered = bytearray(whole)
        altered[place] ^= 1 << place % 8
        receipt.write_bytes(altered)
        record = store.load(receipt.name)
        if record is not None:
            try:
                assert unseal(record, Version.RECEIPTS, "altered") == body, f"byte {place}"
            except IntegrityError:
                continue


@pytest.mark.parametrize("damage", [truncate, flip_bit], ids=["torn", "a bit flipped"])
def test_a_damaged_plan_starts_the_job_over(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    job = Job(tmp_path)
    (plan,) = job.checkpoint.glob("jobs/*/plan.json")
    damage(plan)

    assert job.again() == (CHUNKS, 0)


def test_receipts_committed_in_groups_are_lost_and_found_in_groups(tmp_path: Path) -> None:
    job = Job(tmp_path, checkpoint={"path": str(tmp_path / "checkpoint"), "every": 2})
    receipts = receipt_files(job.checkpoint)
    assert len(receipts) == 3

    truncate(receipts[0])
    assert job.again() == (2, 3)

    part_files(job.checkpoint)[0].unlink()
    assert job.again() == (1, 4)
    assert job.again() == (0, 5)


def test_receipts_can_be_kept_in_a_storage_block(tmp_path: Path) -> None:
    LocalFileSystem(basepath=str(tmp_path / "elsewhere")).save("receipts", overwrite=True, _sync=True)
    checkpoint = {"path": str(tmp_path / "checkpoint"), "block": "local-file-system/receipts"}
    job = Job(tmp_path, checkpoint=checkpoint)

    kept = sorted((tmp_path / "elsewhere").glob("*/*/*.json"))
    assert len(kept) == CHUNKS
    assert not receipt_files(job.checkpoint)
    truncate(kept[1])
    assert job.again() == (1, CHUNKS - 1)


def test_another_detector_another_feature_and_another_input_are_other_jobs(tmp_path: Path) -> None:
    job = Job(tmp_path)
    ids = {job.first.job_id}
    for change in (
        {"detector": {"params": {"n_estimators": 11}}},
        {"source": {**job.config["source"], "features": ["amount", "distance"]}},
    ):
        result = batch_detection({**job.config, **change})
        assert (result.chunks_computed, result.chunks_reused) == (CHUNKS, 0)
        ids.add(result.job_id)
    assert len(ids) == 3


def test_what_does_not_change_scores_does_not_change_the_job(tmp_path: Path) -> None:
    job = Job(tmp_path)
    changed = {
        **job.config,
        "threshold": {"contamination": 0.1},
        "chunking": {"rows": 50},
        "validation": {"anomaly_rate": {"max": 0.5}},
        "output": {"path": str(tmp_path / "elsewhere")},
    }

    result = batch_detection(changed)

    assert (result.job_id, result.chunks_computed, result.chunks_reused) == (job.first.job_id, 0, CHUNKS)
    assert result.anomaly_count == 50
    assert scores_digest(tmp_path / "elsewhere") == job.digest
