"""Which files the input is, and reading them as they were planned."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from siftline.batch_plan import Chunk, Piece, SourceFile
from siftline.config.batch import SourceConfig
from siftline.errors import SourceChanged, SourceError, SourceUnavailable
from siftline.source import reading as source
from siftline.source.files import find_files, open_parquet, unreadable
from siftline.source.reading import joined, only_files, read_chunk

TABLE = pa.table({"a": np.arange(10), "b": np.arange(10) / 2, "c": [f"t{i}" for i in range(10)]})


def written(path: Path, table: pa.Table = TABLE, row_group: int = 4) -> SourceFile:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=row_group)
    return planned(path)


def planned(path: Path) -> SourceFile:
    file = open_parquet(path)
    return SourceFile(
        path=str(path),
        size=file.size,
        mtime_ns=file.mtime_ns,
        footer=file.footer,
        rows=file.rows,
        origin="origin",
    )


def names(path: Path | str, **fields: str) -> list[str]:
    return [file.name for file in find_files(SourceConfig(path=str(path), **fields))[0]]  # type: ignore[arg-type]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.parquet", "a.parquet", "sub/c.pq", "_tmp.parquet", ".hidden.parquet", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in ("_spark/d.parquet", ".cache/e.parquet"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    return tmp_path


def test_a_directory_is_its_data_files_sorted_by_path(tree: Path) -> None:
    assert names(tree) == ["a.parquet", "b.parquet", "c.pq"]


def test_a_directory_below_a_hidden_one_is_read(tmp_path: Path) -> None:
    (tmp_path / ".data").mkdir()
    (tmp_path / ".data" / "a.parquet").touch()
    assert names(tmp_path / ".data") == ["a.parquet"]


def test_a_glob_is_what_it_matches(tree: Path) -> None:
    assert names(f"{tree}/?.parquet") == ["a.parquet", "b.parquet"]
    assert names(f"{tree}/[!_]*/**/*.p*q*") == ["c.pq"]


def test_a_file_is_itself_even_when_hidden(tree: Path) -> None:
    assert names(tree / ".hidden.parquet") == [".hidden.parquet"]


def test_a_file_whose_name_looks_like_a_glob_is_itself(tmp_path: Path) -> None:
    (tmp_path / "a[1].parquet").touch()
    assert names(tmp_path / "a[1].parquet") == ["a[1].parquet"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("x.parquet", "parquet"),
        ("x.PQ", "parquet"),
        ("x.csv", "csv"),
        ("x.csv.gz", "csv"),
        ("x.CSV.zst", "csv"),
    ],
)
def test_the_format_goes_by_the_name(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).touch()
    assert find_files(SourceConfig(path=str(tmp_path)))[1] == kind


def test_the_format_may_be_given(tmp_path: Path) -> None:
    (tmp_path / "x.dat").touch()
    assert find_files(SourceConfig(path=str(tmp_path / "x.dat"), format="csv"))[1] == "csv"


def test_a_name_that_tells_nothing_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "x.dat").touch()
    with pytest.raises(SourceError) as caught:
        find_files(SourceConfig(path=str(tmp_path / "x.dat")))
    assert str(caught.value) == (
        f"{tmp_path}/x.dat: its name does not tell whether it is Parquet or CSV; "
        "name it .parquet or .csv, or set source.format"
    )


def test_mixed_formats_are_refused_unless_one_is_given(tmp_path: Path) -> None:
    (tmp_path / "x.csv").touch()
    (tmp_path / "y.parquet").touch()
    with pytest.raises(SourceError, match="do not indicate one format"):
        names(tmp_path)
    assert names(tmp_path, format="csv") == ["x.csv"]


@pytest.mark.parametrize("pattern", ["none.parquet", "none/*.parquet", ""])
def test_nothing_there_is_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(SourceError) as caught:
        names(tmp_path / pattern)
    assert str(caught.value) == (
        f"source.path {tmp_path / pattern}: no parquet or csv files there; "
        "give an existing file, directory or glob"
    )


def test_a_file_opens_with_its_stat_and_footer(tmp_path: Path) -> None:
    file = written(tmp_path / "x.parquet")
    opened = open_parquet(tmp_path / "x.parquet")
    assert (opened.size, opened.mtime_ns) == (file.size, file.mtime_ns)
    assert len(opened.row_groups) == 3
    assert opened.schema.names == ["a", "b", "c"]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"a,b\n1,2\n", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_other_content_than_parquet_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(content)
    with pytest.raises(SourceError) as caught:
        open_parquet(path)
    assert str(caught.value).startswith(f"{path}: cannot be read: ")
    assert str(caught.value).endswith("; replace the file with an intact one")
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "x.parquet")
    content = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "x.parquet").write_bytes(content[:-30])
    with pytest.raises(SourceError, match="cannot be read"):
        open_parquet(tmp_path / "x.parquet")


def test_a_missing_and_a_forbidden_file_have_different_errors() -> None:
    assert str(unreadable("x", FileNotFoundError())) == "x: no such file; put it back, or correct source.path"
    assert str(unreadable("x", PermissionError())) == "x: permission denied; make it readable for this user"


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_a_transient_error_is_unavailable(number: int) -> None:
    error = unreadable("x", OSError(number, "whatever"))
    assert type(error) is SourceUnavailable
    assert str(error) == (
        f"x: cannot be read just now: {os.strerror(number)}; check the storage; it is tried again"
    )


@pytest.mark.parametrize(
    "error",
    [OSError("Couldn't deserialize thrift"), OSError(errno.EISDIR, "x"), OSError(errno.ENOTDIR, "x")],
    ids=str,
)
def test_a_permanent_error_is_not(error: OSError) -> None:
    assert type(unreadable("x", error)) is SourceError


def test_a_chunk_is_read_across_row_groups_and_files(tmp_path: Path) -> None:
    files = [written(tmp_path / "x.parquet"), written(tmp_path / "y.parquet", row_group=10)]
    chunk = Chunk(0, 0, (Piece(0, 0, 3, 1), Piece(0, 1, 0, 4), Piece(1, 0, 2, 5)))
    table = joined(read_chunk(files, chunk, ["c", "a"]))
    assert table.column_names == ["c", "a"]
    assert table["a"].to_pylist() == [3, 4, 5, 6, 7, 2, 3, 4, 5, 6]


def test_files_may_order_their_columns_differently(tmp_path: Path) -> None:
    files = [written(tmp_path / "x.parquet"), written(tmp_path / "y.parquet", TABLE.select(["c", "b", "a"]))]
    table = joined(read_chunk(files, Chunk(0, 0, (Piece(0, 0, 0, 2), Piece(1, 0, 0, 2))), ["a", "b"]))
    assert table.to_pydict() == {"a": [0, 1, 0, 1], "b": [0, 0.5, 0, 0.5]}


def test_files_may_differ_in_nullability(tmp_path: Path) -> None:
    strict = pa.schema([field.with_nullable(False) for field in TABLE.schema])
    files = [written(tmp_path / "x.parquet"), written(tmp_path / "y.parquet", TABLE.cast(strict))]
    table = joined(read_chunk(files, Chunk(0, 0, (Piece(0, 0, 0, 2), Piece(1, 0, 0, 2))), ["a"]))
    assert table["a"].to_pylist() == [0, 1, 0, 1]


def test_fewer_rows_than_planned_have_changed(tmp_path: Path) -> None:
    file = written(tmp_path / "x.parquet")
    with pytest.raises(SourceChanged, match="origin: 4 rows where 9 were planned"):
        joined(read_chunk([file], Chunk(0, 0, (Piece(0, 0, 0, 9),)), ["a"]))


def test_a_footer_is_read_once_as_long_as_the_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = tmp_path / "x.parquet", tmp_path / "other.parquet"
    for target, values in ((path, np.arange(10)), (other, np.arange(10) + 1)):
        pq.write_table(pa.table({"a": values}), target, use_dictionary=False, compression="none")
    file = planned(path)
    chunk = Chunk(0, 0, (Piece(0, 0, 0, 10),))
    read: list[object] = []

    def watched(handle: pa.NativeFile) -> source.Footer:
        read.append(handle)
        return footer(handle)

    footer = source.read_footer
    monkeypatch.setattr(source, "read_footer", watched)
    for _ in range(3):
        joined(read_chunk([file], chunk, ["a"]))
    assert len(read) == 1

    with path.open("r+b") as opened:  # in place: another footer, of the same size and time
        opened.write(other.read_bytes())
    os.utime(path, ns=(file.mtime_ns, file.mtime_ns))
    assert path.stat().st_size == file.size
    with pytest.raises(SourceChanged, match="origin: changed since it was planned"):
        joined(read_chunk([file], chunk, ["a"]))


@pytest.mark.parametrize("rows", [3, 4])
def test_a_batch_is_given_before_the_next_one_is_read(tmp_path: Path, rows: int) -> None:
    file = written(tmp_path / "x.parquet", row_group=rows)
    pieces = (Piece(0, 0, 0, rows), Piece(0, 1, 0, rows))
    batches = read_chunk([file], Chunk(0, 0, pieces), ["a"], rows)
    assert next(batches)["a"].to_pylist() == list(range(rows))
    (tmp_path / "x.parquet").touch()
    with pytest.raises(SourceChanged):
        next(batches)


def test_corrupt_pages_are_a_source_error(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    values = pa.table({"a": [f"text {i}" for i in range(5000)]})
    pq.write_table(values, path, compression="zstd", use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[100:400] = b"\xff" * 300
    path.write_bytes(content)
    with pytest.raises(SourceError, match="origin: cannot be read") as caught:
        joined(read_chunk([planned(path)], Chunk(0, 0, (Piece(0, 0, 0, 5000),)), ["a"]))
    assert type(caught.value) is SourceError


def test_a_task_gets_the_files_that_it_reads_only(tmp_path: Path) -> None:
    files = [written(tmp_path / f"{name}.parquet") for name in "abc"]
    chunk = Chunk(5, 70, (Piece(2, 1, 0, 3), Piece(2, 2, 0, 1)))
    kept, (renumbered,) = only_files(files, [chunk])
    assert kept == (files[2],)
    assert renumbered == Chunk(5, 70, (Piece(0, 1, 0, 3), Piece(0, 2, 0, 1)))
