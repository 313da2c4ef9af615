"""Planning an input of very many row groups in many files: how long, and how much memory it takes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.bench import COLUMNS, Bench
from benchmarks.peers.common import KEY
from benchmarks.records import Expectation

_FILES = 1_000
_GROUPS_A_FILE = 100
_ROWS_A_GROUP = 10
_SECONDS = 10.0


def planning(bench: Bench) -> Expectation:
    groups = _FILES * _GROUPS_A_FILE
    print(f"\n## Planning: {groups:,} row groups in {_FILES:,} files\n")
    took = json.loads(bench.script("plan", _many_files(bench.directory / "many-files"), {}))
    found = Expectation(
        what=f"{groups:,} row groups in {_FILES:,} files are planned within {_SECONDS:.0f} s",
        met=took["seconds"] < _SECONDS,
        found=f"{took['seconds']:.1f} s, {took['bytes'] / 1e6:,.0f} MB",
    )
    print(found, flush=True)
    return found


def _many_files(directory: Path) -> Path:
    directory.mkdir()
    rows = _GROUPS_A_FILE * _ROWS_A_GROUP
    values = np.random.default_rng(0).standard_normal((COLUMNS, rows))
    features = {f"x{number}": column for number, column in enumerate(values)}
    for number in range(_FILES):
        ids = np.arange(number * rows, (number + 1) * rows)
        path = directory / f"part-{number:04d}.parquet"
        pq.write_table(pa.table({KEY: ids, **features}), path, row_group_size=_ROWS_A_GROUP)
    return directory
