"""CSV files for tests: writing, inspecting and staging them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from siftline.batch_plan import Feature
from siftline.config.batch import SourceConfig
from siftline.source.csv.columns import CsvFile, csv_schema, inspect_csv
from siftline.source.csv.staging import stage_csv


def looked_at(path: Path, **settings: Any) -> CsvFile:
    return inspect_csv(path, SourceConfig(path=str(path), **settings))


def copied(
    path: Path, *columns: str, texts: tuple[str, ...] = (), read_bytes: int = 8 << 20, **settings: Any
) -> Path:
    """Stage columns: features, but for `texts`."""
    file = looked_at(path, **settings)
    features = [Feature(name=name, column=name) for name in columns if name not in texts]
    schema = csv_schema([file], SourceConfig(path=str(path), **settings), features, columns)
    return stage_csv(file, schema, path.parent / "staged", read_bytes=read_bytes)


def staged(
    path: Path, *columns: str, texts: tuple[str, ...] = (), read_bytes: int = 8 << 20, **settings: Any
) -> pa.Table:
    return pq.read_table(copied(path, *columns, texts=texts, read_bytes=read_bytes, **settings))


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path
