"""CSV becomes Parquet once: a quoted newline makes it impossible to split a CSV file safely.

The staged copy is named by the digest of what it was made from, so that a job that goes on, or another
one on the same files, finds it again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from siftline.errors import SourceChanged, SourceError
from siftline.files import digest, replacing
from siftline.source import unreadable

_BLOCK_BYTES = 8 << 20
_ROW_GROUP_ROWS = 131_072


def csv_schema(path: Path, exact: Collection[str] = ()) -> pa.Schema:
    """Return the columns of a CSV file, with the types that its first 8 MiB suggest.

    Whole numbers are taken as floating point, because a later row may have a fraction, and so is a column
    without any value yet.

    Parameters
    ----------
    path : Path
        The CSV file.
    exact : collection of str
        Columns whose whole numbers must stay so (keys and carried columns).

    Raises
    ------
    SourceError
        When the file is empty or is no CSV.
    """

    def settle(field: pa.Field) -> pa.Field:
        unsettled = pa.types.is_null(field.type) or (
            pa.types.is_integer(field.type) and field.name not in exact
        )
        return field.with_type(pa.float64()) if unsettled else field

    with _reader(path, pc.ConvertOptions()) as reader:
        return pa.schema([settle(field) for field in reader.schema])


def stage_csv(path: Path, columns: Sequence[str], exact: Collection[str], directory: Path) -> Path:
    """Stream a CSV file into a Parquet file, in bounded memory, and return its path.

    Parameters
    ----------
    path : Path
        The CSV file; may be compressed with gzip, bzip2 or zstd.
    columns : sequence of str
        The columns to keep.
    exact : collection of str
        As for `csv_schema`.
    directory : Path
        Where staged files are.

    Raises
    ------
    SourceError
        When a line has too many or too few fields, or a value does not fit its column; it names the row.
    SourceChanged
        When the file changes meanwhile.
    StorageError
        When the staged file cannot be written.
    """
    schema = csv_schema(path, exact)
    fields = [schema.field(name) for name in columns]
    stat = path.stat()
    made_from = [str(path.absolute()), stat.st_size, stat.st_mtime_ns, *map(str, fields)]
    staged = directory / f"{digest(made_from)[:32]}.parquet"
    if staged.exists():
        return staged
    options = pc.ConvertOptions(include_columns=list(columns), column_types=pa.schema(fields))
    with (
        replacing(staged) as temporary,
        pq.ParquetWriter(temporary, pa.schema(fields)) as writer,
        _reader(path, options) as reader,
    ):
        for table in _grouped(reader, path):
            writer.write_table(table, row_group_size=_ROW_GROUP_ROWS)
        after = path.stat()
        if (after.st_size, after.st_mtime_ns) != (stat.st_size, stat.st_mtime_ns):
            raise SourceChanged(f"{path}: changed while it was read", "run again when it is complete")
    return staged


def _reader(path: Path, options: pc.ConvertOptions) -> pc.CSVStreamingReader:
    try:
        return pc.open_csv(
            pa.input_stream(str(path), compression="detect"),
            # Only the serial reader knows the number of a row that it refuses.
            read_options=pc.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES),
            parse_options=pc.ParseOptions(newlines_in_values=True),
            convert_options=options,
        )
    except (pa.ArrowException, OSError) as error:
        raise _malformed(path, error) from error


def _grouped(reader: pc.CSVStreamingReader, path: Path) -> Iterator[pa.Table]:
    batches: list[pa.RecordBatch] = []
    try:
        for batch in reader:
            batches.append(batch)
            if sum(held.num_rows for held in batches) >= _ROW_GROUP_ROWS:
                yield pa.Table.from_batches(batches)
                batches = []
    except (pa.ArrowException, OSError) as error:
        raise _malformed(path, error) from error
    if batches:
        yield pa.Table.from_batches(batches)


def _malformed(path: Path, error: Exception) -> SourceError:
    if isinstance(error, OSError):
        return unreadable(path, error)
    what = " ".join(str(error).split())
    if len(what) > 200:
        what = what[:197] + "..."
    return SourceError(f"{path}: {what}", "correct that row, or leave the column out of source.features")
