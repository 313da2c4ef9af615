"""Small inputs and configurations for the tests that run whole jobs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from siftline import open_results

FEATURES = ["amount", "duration", "distance"]


def write_rows(path: Path, rows: int, seed: int = 0) -> Path:
    """Write a Parquet file of `rows` rows: an id, three features with a few odd rows, and a text."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(rows, len(FEATURES)))
    values[:: max(rows // 5, 1)] += 8
    columns: dict[str, Any] = {"id": np.arange(rows) + 1000}
    columns |= {name: values[:, column] for column, name in enumerate(FEATURES)}
    columns["place"] = np.where(values[:, 0] > 0, "north", "south")
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def configuration(directory: Path, rows: int = 600, chunk_rows: int = 200, **sections: Any) -> dict[str, Any]:
    """A configuration whose input, checkpoint and output are in `directory`; `sections` replace its own.

    The input is written if it isn't there, so that the same call means the same job.
    """
    source = directory / f"rows-{rows}.parquet"
    if not source.exists():
        write_rows(source, rows)
    return {
        "name": "test",
        "source": {"path": str(source), "key": ["id"], "features": FEATURES},
        "detector": {"params": {"n_estimators": 10}},
        "chunking": {"rows": chunk_rows},
        "cluster": {"kind": "serial"},
        "checkpoint": {"path": str(directory / "checkpoint")},
        "output": {"path": str(directory / "output"), "columns": ["place"]},
        **sections,
    }


def scores_digest(output: Path | str) -> str:
    """SHA-256 of the bytes of the published score column."""
    scores = open_results(output).scores.to_table(columns=["score"])["score"]
    return hashlib.sha256(scores.to_numpy().tobytes()).hexdigest()


def part_files(checkpoint: Path) -> list[Path]:
    """The part files of the one job in a checkpoint, in chunk order."""
    return sorted(checkpoint.glob("jobs/*/parts-*/chunk-*.parquet"))


def receipt_files(checkpoint: Path) -> list[Path]:
    """The committed receipts of the one job in a checkpoint, in chunk order."""
    return sorted(checkpoint.glob("jobs/*/receipts/*/*.json"))
