"""A benchmark of programs that compute different things would prove nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from benchmarks.bench import Bench
from benchmarks.measure import CommandFailed
from benchmarks.peers.catalogue import PEERS
from benchmarks.peers.common import KEY, SAMPLE_ROWS
from benchmarks.records import LABELS, Expectation, Proof
from siftline import open_results
from siftline.batch_plan import SourceFile
from siftline.source.files import open_parquet
from siftline.source.sample import draw_sample


def check_equal(bench: Bench, proof: Proof, peers: list[str], rows: int) -> None:
    """Run everybody once on the very sample that Siftline draws; those who cannot run are left out."""
    data = bench.data(rows)
    sample = bench.directory / "sample.parquet"
    pq.write_table(siftlines_sample(data), sample)
    bench.siftline(data, keep=True)
    ours = open_results(bench.home("siftline") / "results").scores.to_table(columns=[KEY, "score", "label"])
    for name in peers:
        try:
            bench.peer(name, data, "--sample", str(sample), keep=True)
        except CommandFailed as error:
            proof.drop(name, str(error).strip().splitlines()[-1])
            continue
        if PEERS[name].exact:
            theirs = ds.dataset(bench.home(name) / "scores.parquet", exclude_invalid_files=True).to_table()
            what = f"scores and labels bit-equal to those of {LABELS[name]} on the same sample"
            proof.equal.append(Expectation(what=what, met=_same(ours, theirs), found=f"{rows:,} rows"))
            print(proof.equal[-1], flush=True)
        shutil.rmtree(bench.home(name))
    shutil.rmtree(bench.home("siftline"))


def _same(ours: pa.Table, theirs: pa.Table) -> bool:
    ours, theirs = (table.sort_by(KEY) for table in (ours, theirs))
    return all(
        np.array_equal(ours[name].to_numpy(), theirs[name].to_numpy()) for name in (KEY, "score", "label")
    )


def siftlines_sample(data: Path) -> pa.Table:
    """The very rows that Siftline fits on."""
    file = open_parquet(data)
    source = SourceFile(
        path=str(data), size=file.size, mtime_ns=file.mtime_ns, rows=file.rows, origin=str(data)
    )
    sizes = [(0, group, rows) for group, rows in enumerate(file.row_groups)]
    features = [name for name in file.schema.names if name != KEY]
    return draw_sample([source], sizes, features, SAMPLE_ROWS, 0)
