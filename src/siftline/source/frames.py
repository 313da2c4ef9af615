"""Data frames of any library, written to Parquet for the workers, for a resumed run and for a recovery.

They come through Arrow's PyCapsule interface: pandas, Polars, DuckDB and pyarrow have it.
"""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq

from siftline.errors import SourceError, storage_error
from siftline.source.column_types import select, stored_type
from siftline.source.row_groups import write_row_groups
from siftline.storage.files import file_digest, replacing
from siftline.storage.owned import remove_staged

# The index of a pandas frame, unless it has a name.
_UNNAMED_INDEX = re.compile(r"__index_level_\d+__")


def is_frame(value: object) -> bool:
    """Return whether a value is a data frame: it has Arrow's ``__arrow_c_stream__``."""
    return hasattr(value, "__arrow_c_stream__")


def stage_frame(frame: object, directory: Path) -> Path:
    """Write a data frame to a Parquet file named by its content, in bounded memory; return its path.

    The unnamed index of a pandas frame is left out. The same frame gives the same whole file, left as it is.

    Raises
    ------
    SourceError
        When it is not a table, or a column has no single type.
    StorageError
        When the directory cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=directory, prefix=".frame-") as home:
            written = Path(home) / "frame.parquet"
            _write(frame, written)
            content = file_digest(written)
            staged = directory / f"{content[:32]}.parquet"
            if staged.is_file() and file_digest(staged) != content:
                remove_staged(staged)
            with replacing(staged, keep=True) as temporary:
                written.rename(temporary)
            return staged
    except OSError as error:
        raise storage_error(error, directory) from error


def _write(frame: object, path: Path) -> None:
    try:
        reader = pa.RecordBatchReader.from_stream(frame)
        columns = [name for name in reader.schema.names if not _UNNAMED_INDEX.fullmatch(name)]
        fields = map(reader.schema.field, columns)
        schema = pa.schema([pa.field(field.name, stored_type(field.type)) for field in fields])
        with pq.ParquetWriter(path, schema, write_page_checksum=True) as writer:
            write_row_groups(writer, (select(batch, columns) for batch in reader))
    except (pa.ArrowException, ValueError, TypeError, KeyError) as error:
        what = " ".join(str(error).split())[:200]
        remedy = "give every column a name of its own and values of one type"
        raise SourceError(f"the data frame cannot be read as a table: {what}", remedy) from error
