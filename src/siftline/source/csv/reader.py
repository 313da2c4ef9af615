"""Reading of CSV by pyarrow, its columns addressed by position, its errors with row and column."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from siftline.errors import SourceError
from siftline.progress import counted
from siftline.source.csv.dialect import Dialect, by_name, not_utf8
from siftline.source.csv.lines import CsvLines, open_lines
from siftline.source.csv.numbers import unmarked_numbers, well_separated
from siftline.source.damage import unreadable

_RAGGED = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+)")
_INVALID = re.compile(
    r"CSV column #(\d+): Row #(\d+): CSV conversion error to ([\w\[\], ]+): invalid value '(.*)'", re.DOTALL
)
_SEPARATED = re.compile(r"[+-]?\d[\d.,' ]*\d")
_STANDS_FOR_NOTHING = re.compile(r"\W{0,5}|(?i:none|missing|unknown|nil|void|-?9{3,})")
_NOT_UTF8 = re.compile(r"CSV column #(\d+): Row #(\d+): .*invalid UTF8")


class CsvReader:
    """An open CSV file, read in batches of `read_bytes`; without `schema` all columns are text, by position.

    Types of `schema` are those of the columns to read, in any order.
    """

    def __init__(
        self, path: Path, dialect: Dialect, schema: pa.Schema | None = None, read_bytes: int = 8 << 20
    ) -> None:
        self.path = path
        self.rows = 0
        self.ended = False
        self._dialect = dialect
        self._schema = schema
        self._read_bytes = read_bytes
        self._stack = ExitStack()

    def __enter__(self) -> CsvReader:
        self._lines: CsvLines = self._stack.enter_context(open_lines(self.path, self._dialect))
        try:
            stream = pa.PythonFile(self._lines, mode="r")
            self._reader = self._stack.enter_context(self._open(stream))
        except (pa.ArrowException, OSError, UnicodeError) as error:
            self._stack.close()
            raise self._malformed(error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def first_row(self) -> int:
        """Number of the first row below the header."""
        return self._lines.above + self._dialect.header + 1

    @property
    def line_breaks(self) -> int:
        """Line breaks within quotes, so far as they can be counted."""
        dialect, lines = self._dialect, self._lines
        blank = 0 if dialect.empty_lines_are_rows else lines.blank
        return max(0, lines.lines - blank - dialect.header - self.rows)

    def first(self) -> pa.RecordBatch:
        """Return the first batch, perhaps without rows; all of the file's bytes may have been read then."""
        batches = self.batches()
        found = next(batches, None)
        if self._lines.ended:
            next(batches, None)
        return found if found is not None else pa.RecordBatch.from_pylist([], self._reader.schema)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Read the file to its end."""
        while True:
            try:
                batch = self._reader.read_next_batch()
            except StopIteration:
                self.ended = True
                return
            except (pa.ArrowException, OSError, UnicodeError) as error:
                raise self._malformed(error) from error
            yield batch if self._schema is None else self._typed(batch, self._schema)
            self.rows += batch.num_rows

    def _open(self, stream: pa.NativeFile) -> pcsv.CSVStreamingReader:
        dialect = self._dialect
        names = [str(position) for position in range(len(dialect.names))]
        if self._schema is None:
            types, chosen = dict.fromkeys(names, pa.string()), names
        else:
            places = by_name(dialect.names, names)
            types = {places[field.name]: self._stored(field.type) for field in self._schema}
            chosen = list(types)
        return pcsv.open_csv(
            stream,
            # Only the serial reader reports the number of an invalid row.
            read_options=pcsv.ReadOptions(
                use_threads=False,
                block_size=self._read_bytes,
                column_names=names,
                skip_rows_after_names=int(dialect.header),
            ),
            parse_options=pcsv.ParseOptions(
                delimiter=dialect.delimiter,
                quote_char=dialect.quote or False,
                newlines_in_values=True,
                ignore_empty_lines=not dialect.empty_lines_are_rows,
            ),
            convert_options=pcsv.ConvertOptions(
                include_columns=chosen,
                column_types=types,
                null_values=list(dialect.missing),
                decimal_point=dialect.decimal,
            ),
        )

    def _stored(self, kind: pa.DataType) -> pa.DataType:
        """Return the type that pyarrow reads; numbers with separated thousands are text to it."""
        return pa.string() if self._separated(kind) else kind

    def _separated(self, kind: pa.DataType) -> bool:
        number = pa.types.is_floating(kind) or pa.types.is_integer(kind)
        return self._dialect.thousands is not None and number

    def _typed(self, batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
        """Give the columns their names, and those with separated thousands their type."""
        columns = [
            self._numbers(column, field) if self._separated(field.type) else column
            for column, field in zip(batch.columns, schema, strict=True)
        ]
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def _numbers(self, values: pa.Array, field: pa.Field) -> pa.Array:
        decimal, thousands = self._dialect.decimal, self._dialect.thousands
        known = pc.if_else(self._dialect.is_missing(values), None, pc.utf8_trim_whitespace(values))
        wrong = pc.fill_null(pc.invert(well_separated(known, decimal, thousands)), False)
        plain = unmarked_numbers(known, decimal, thousands)
        try:
            numbers = plain.cast(field.type)
        except pa.ArrowInvalid:
            fits = [text is None or _fits(text, field.type) for text in plain.to_pylist()]
            wrong, numbers = pc.or_(wrong, pc.invert(pa.array(fits))), None
        if numbers is None or pc.any(wrong).as_py():
            place = pc.index(wrong, True).as_py()
            raise misfit(
                self.path,
                self.first_row + self.rows + place,
                field.name,
                str(field.type),
                values[place].as_py(),
            )
        return numbers

    def _malformed(self, error: Exception) -> SourceError:
        """Map an error of pyarrow to one that names row and column."""
        if isinstance(error, OSError):
            return unreadable(self.path, error)
        text, dialect = str(error), self._dialect
        if found := _RAGGED.search(text):
            row, expected, got = found.groups()
            return SourceError(
                f"{self.path}, row {self._row(row)}: {counted(int(got), 'field')} where the header has "
                f"{expected} (delimiter {dialect.delimiter!r})",
                "correct that row, or set source.csv.delimiter, quote, comment or skip_rows",
            )
        if found := _NOT_UTF8.search(text):
            return not_utf8(self.path, f"row {self._row(found[2])}, column {dialect.names[int(found[1])]!r}")
        if found := _INVALID.search(text):
            return misfit(self.path, self._row(found[2]), dialect.names[int(found[1])], found[3], found[4])
        if "straddling" in text:
            size = self._read_bytes >> 20
            return SourceError(
                f"{self.path}: a row is longer than {size} MiB", "look for a quote without its end"
            )
        if "Empty CSV" in text:
            return SourceError(
                f"{self.path}: the file is empty", "replace it, or leave it out of source.path"
            )
        if isinstance(error, UnicodeError):
            return SourceError(
                f"{self.path}: the text is not in the encoding {dialect.encoding}",
                "correct source.csv.encoding",
            )
        what = " ".join(text.split())
        return SourceError(f"{self.path}: {what[:200]!r}", "correct the file, or see source.csv")

    def _row(self, found: str) -> int:
        """Return the row in the file: pyarrow does not see the lines above the header."""
        return int(found) + self._lines.above


def misfit(path: Path, row: int, name: str, kind: str, value: str) -> SourceError:
    """Return the error of a value that is none of its column's type."""
    shown = value if len(value) <= 60 else value[:57] + "..."
    wanted = {"double": "a number", "bool": "true or false", "int64": "an integer"}
    remedy = "correct it, leave the column out of source.features, or set source.types"
    if kind == "double" and _SEPARATED.fullmatch(value.strip()):
        remedy = "correct it, or set source.csv.thousands or source.csv.decimal"
    elif kind == "double" and _STANDS_FOR_NOTHING.fullmatch(value.strip()):
        remedy = f"correct it, or add {shown!r} to source.csv.null_values if it stands for a missing value"
    elif kind not in wanted:
        remedy = "correct it, or set source.types"
    what = wanted.get(kind, f"a {kind.partition('[')[0].removesuffix('32')}")
    return SourceError(f"{path}, row {row}, column {name!r}: {shown!r} is not {what}", remedy)


def _fits(text: str, kind: pa.DataType) -> bool:
    try:
        pa.scalar(text).cast(kind)
    except pa.ArrowInvalid:
        return False
    return True
