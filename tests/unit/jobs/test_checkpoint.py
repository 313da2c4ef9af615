"""A receipt that cannot be believed is named, and its chunks are scored again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from siftline.config.batch import BatchConfig
from siftline.progress import Incident, Report, listening
from siftline.storage.files import seal, unseal
from siftline.storage.layout import Version
from tests.support import JsonStore, elsewhere, run_job, store_of


def receipt_of(config: BatchConfig) -> tuple[Path, dict[str, Any]]:
    path = next(iter(store_of(config).files()))
    return path, json.loads(path.read_bytes())


def recomputed(config: BatchConfig) -> tuple[int, list[str]]:
    """The chunks that another run computes, and what it says of receipts."""
    said: list[Report] = []
    with listening(said.append):
        job = run_job(elsewhere(config))
    return job.receipts.computed, [one.text for one in said if isinstance(one, Incident)]


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_truncated_receipt_is_named(config: BatchConfig, part: int) -> None:
    run_job(config)
    path, _ = receipt_of(config)
    content = path.read_bytes()
    path.write_bytes(content[: part * len(content) // 3])
    computed, said = recomputed(config)
    assert computed == 1
    assert said == [
        f"receipt {path.relative_to(store_of(config).directory)} is torn or altered (IntegrityError)"
    ]


FORGED: dict[str, Any] = {
    "a name elsewhere": {"part": {"name": "../victim.parquet"}},
    "an absolute name": {"part": {"name": "/etc/passwd"}},
    "a count too large": {"summary": {"counts": [2**70]}},
    "counts that do not add up": {"summary": {"counts": [1]}},
    "no counts": {"summary": {"counts": [], "buckets": []}},
    "a bucket too high": {"summary": {"counts": [100], "buckets": [2**40], "non_finite": 0}},
    "too many rows": {"summary": {"rows": 10**9}},
}


@pytest.mark.parametrize("change", FORGED.values(), ids=FORGED.keys())
def test_a_forged_receipt_is_not_believed(config: BatchConfig, change: dict[str, Any]) -> None:
    before = run_job(config)
    path, record = receipt_of(config)
    body = unseal(record, Version.RECEIPTS, path)
    for field, values in change.items():
        body["receipts"][0][field].update(values)
    path.write_text(json.dumps(seal(body, Version.RECEIPTS)))
    after = run_job(elsewhere(config))
    assert after.receipts.computed == 1
    assert after.manifest.threshold == before.manifest.threshold


def test_the_store_tells_torn_from_missing(tmp_path: Path) -> None:
    store = JsonStore(tmp_path)
    (tmp_path / "torn").write_text("{")
    assert (store.load("torn"), store.load("missing")) == ({}, None)
