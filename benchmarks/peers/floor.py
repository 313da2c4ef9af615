"""The floor: read the columns and write as many scores, and nothing else, on two threads of pyarrow.

What is written has the layout and the encodings of Siftline's results.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

KEY = "id"
WORKERS = 2


def main(data: Path, output: Path) -> None:
    output.mkdir()
    groups = pq.read_metadata(data).num_row_groups
    with ThreadPoolExecutor(WORKERS) as threads:
        for _ in threads.map(lambda group: _copy(data, output, group), range(groups)):
            pass


def _copy(data: Path, output: Path, group: int) -> None:
    with pq.ParquetFile(data, page_checksum_verification=True) as file:
        rows = file.read_row_group(group, use_threads=False)
    scores = next(rows[name] for name in rows.column_names if name != KEY)
    labels = pa.array(np.zeros(rows.num_rows, dtype=np.int8))
    pq.write_table(
        pa.table({KEY: rows[KEY], "score": scores, "label": labels}),
        output / f"part-{group:05d}.parquet",
        use_dictionary=["label"],
        column_encoding={KEY: "DELTA_BINARY_PACKED"},
        compression={KEY: "zstd", "score": "none", "label": "zstd"},
        write_page_checksum=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    main(arguments.data, arguments.output)
