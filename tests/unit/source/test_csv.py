"""CSV becomes Parquet: whatever is in it, as it is, or an error that names row and column."""

from __future__ import annotations

import gzip
import os
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from siftline.errors import SourceError
from siftline.stages.inspection import inspect_batch
from tests.support import make_config, run_job, visible_files
from tests.unit.source.csv_files import copied, looked_at, staged, written


def test_the_columns_asked_for_are_kept(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "a,b,c\n1.5,x,2\n2.5,y,3\n")
    assert staged(path, "c", "a").to_pydict() == {"c": [2, 3], "a": [1.5, 2.5]}


def test_a_quoted_newline_is_part_of_the_value(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", 'a,t\n1,"two\nlines"\n2,"a ""quote"", too"\n')
    assert staged(path, "a", "t", texts=("t",)).to_pydict() == {
        "a": [1, 2],
        "t": ["two\nlines", 'a "quote", too'],
    }


def test_quoted_newlines_survive_the_edges_of_blocks(tmp_path: Path) -> None:
    lines = [f'{i},"{"ä" * (i % 7)}\n\n{i}"' for i in range(200)]
    path = written(tmp_path / "x.csv", "a,t\n" + "\n".join(lines) + "\n")
    table = staged(path, "a", "t", texts=("t",), read_bytes=64)
    assert table["a"].to_pylist() == list(range(200))
    assert table["t"].to_pylist() == [f"{'ä' * (i % 7)}\n\n{i}" for i in range(200)]


def test_gzip_and_zstd_are_read_through(tmp_path: Path) -> None:
    text = b"a\n1.5\n2.5\n"
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(text))
    (tmp_path / "x.csv.zst").write_bytes(pa.compress(text, codec="zstd", asbytes=True))
    for name in ("x.csv.gz", "x.csv.zst"):
        assert staged(tmp_path / name, "a")["a"].to_pylist() == [1.5, 2.5]


def test_a_torn_gzip_is_a_source_error(tmp_path: Path) -> None:
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(os.urandom(100_000).hex().encode())[:5000])
    with pytest.raises(SourceError, match=r"x\.csv\.gz: "):
        staged(path, "a")


def test_whole_numbers_may_become_fractions_in_later_rows(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "a\n" + "1\n" * 500 + "2.5\n")
    assert staged(path, "a", read_bytes=64)["a"].to_pylist()[-2:] == [1.0, 2.5]


KEYS = [
    "00326",
    "1",
    "01",
    "001",
    "0.10",
    "0.1",
    "12E3",
    "0x1F",
    "NA",
    "",
    " x ",
    "98765432109876543210",
    "1e400",
    "+1",
    "-0",
    "1,5",
    "true",
    "2024-02-30",
]


def test_text_comes_out_byte_for_byte(tmp_path: Path) -> None:
    lines = [f'"{key}",{number}' for number, key in enumerate(KEYS)]
    path = written(tmp_path / "x.csv", "\n".join(["id,a", *lines]) + "\n")
    assert staged(path, "id", "a", texts=("id",))["id"].to_pylist() == KEYS


@pytest.mark.parametrize(
    "values", [["00326", "1"], ["12E3", "7"], ["98765432109876543210", "1"], ["+4912345678", "1"]]
)
def test_codes_are_no_numbers_unless_they_are_declared_so(tmp_path: Path, values: list[str]) -> None:
    path = written(tmp_path / "x.csv", "\n".join(["a,b", *(f"{value},1" for value in values)]) + "\n")
    assert looked_at(path).kinds == {"a": "code", "b": "integer"}
    assert looked_at(path).schema.field("a").type == pa.string()
    assert looked_at(path, types={"a": "number"}).schema.field("a").type == pa.float64()


def test_declared_types_are_those_read(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "i,d,t,b\n1,2024-01-31,2024-01-31T10:00:00Z,true\n")
    types = {"i": "integer", "d": "date", "t": "timestamp", "b": "boolean"}
    schema = staged(path, "i", "d", "t", "b", types=types).schema
    assert schema.types == [pa.int64(), pa.date32(), pa.timestamp("us", "UTC"), pa.bool_()]


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_other_delimiters_are_detected_and_said(tmp_path: Path, delimiter: str) -> None:
    path = written(tmp_path / "x.csv", f"a{delimiter}b\n1{delimiter}x, y\n2{delimiter}z\n")
    file = looked_at(path)
    assert (file.dialect.delimiter, dict(file.kinds)) == (delimiter, {"a": "integer", "b": "text"})
    assert f"delimiter {delimiter!r} (detected" in file.notes[0]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a;b\n1,5;2\n-0,25;3\n", [1.5, -0.25]),
        ("a;b\n1.234,5;2\n7;3\n", [1234.5, 7]),
        ('a,b\n"1,234.5",2\n"1,234,567",3\n', [1234.5, 1234567]),
        ("a;b\n1.234.567;2\n1;3\n", [1234567, 1]),
    ],
)
def test_decimal_commas_and_thousands_are_detected_where_nothing_else_fits(
    tmp_path: Path, text: str, values: list[float]
) -> None:
    assert staged(written(tmp_path / "x.csv", text), "a")["a"].to_pylist() == values


def test_a_mark_with_two_meanings_is_not_guessed(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", 'a,b\n"1,234",2\n"5,678",3\n')
    file = looked_at(path)
    assert file.kinds["a"] == "text"
    assert "'1,234' may be a decimal fraction or have separated thousands" in file.notes[0]
    assert staged(path, "a", csv={"thousands": ","})["a"].to_pylist() == [1234, 5678]
    assert staged(path, "a", csv={"decimal": ","})["a"].to_pylist() == [1.234, 5.678]


def test_a_wrong_number_with_thousands_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "a;b\n1.234;2\n1.5x;3\n")
    with pytest.raises(SourceError, match=r"row 3, column 'a': '1\.5x' is not a number"):
        staged(path, "a", csv={"thousands": "."}, types={"a": "number"})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_unicode_is_read_as_it_is(tmp_path: Path, encoding: str) -> None:
    path = written(tmp_path / "x.csv", "größe,ort\n1,Čáslav\n2,\u202f€\n".encode(encoding))
    assert staged(path, "größe", "ort", texts=("ort",)).to_pydict() == {
        "größe": [1, 2],
        "ort": ["Čáslav", "\u202f€"],
    }


@pytest.mark.parametrize("place", ["header", "first rows", "later row"])
def test_text_that_is_not_utf8_names_the_setting(tmp_path: Path, place: str) -> None:
    rows = ["name,a", *["x,1"] * 200_000]
    rows[{"header": 0, "first rows": 2, "later row": 199_000}[place]] = (
        "n\u00e9e,1" if place != "header" else "n\u00e9e,a"
    )
    path = written(tmp_path / "x.csv", "\n".join(rows).encode("latin-1"))
    with pytest.raises(
        SourceError, match=r"x\.csv, (line|row) \d+.*: the text is not UTF-8; set source\.csv\.encoding"
    ):
        staged(path, "name", "a", texts=("name",))
    name = rows[0].split(",")[0]
    assert staged(path, name, texts=(name,), csv={"encoding": "cp1252"}).num_rows == 200_000


def test_empty_lines_of_a_single_column_are_missing_values(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "a\n1\n\n3\n\n\n6\n")
    assert staged(path, "a")["a"].to_pylist() == [1, None, 3, None, None, 6]


def test_empty_lines_between_rows_of_several_columns_are_none(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "a,b\r\n1,2\r\n\r\n\r\n3,4\r\n")
    assert staged(path, "a")["a"].to_pylist() == [1, 3]
    assert looked_at(path).notes == ()


def test_rows_joined_by_a_stray_quote_are_suspected(tmp_path: Path) -> None:
    lines = [f"{number},x" for number in range(30)]
    lines[7], lines[17] = '7,"x', '17,x"'
    path = written(tmp_path / "x.csv", "\n".join(["a,t", *lines]) + "\n")
    assert "10 line breaks lie within quotes" in looked_at(path).notes[0]
    assert staged(path, "a", csv={"quote": ""}).num_rows == 30


def test_a_header_of_numbers_is_suspected(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "5.1,3.5\n4.9,3.0\n")
    assert "its header looks like a row (5.1, 3.5)" in looked_at(path).notes[0]
    assert staged(path, "column_1", csv={"header": False})["column_1"].to_pylist() == [5.1, 4.9]


@pytest.mark.parametrize("value", ["1,5", "12,34", "1,2345", ",123", "1,234,56", "0.1,234"])
def test_separators_where_no_thousands_are_make_no_number(tmp_path: Path, value: str) -> None:
    path = written(tmp_path / "x.csv", f"a;b\n1,234;2\n1,00,000;3\n{value};4\n")
    with pytest.raises(SourceError, match=f"row 4, column 'a': '{re.escape(value)}' is not a number"):
        staged(path, "a", csv={"thousands": ",", "delimiter": ";"})


@pytest.mark.parametrize(
    ("value", "remedy"), [("?", "null_values"), (" ", "null_values"), ("1,234", "thousands"), ("x", "types")]
)
def test_a_feature_with_a_value_that_is_no_number_is_refused_with_its_row(
    tmp_path: Path, value: str, remedy: str
) -> None:
    path = written(tmp_path / "x.csv", f"a;b\n1;2\n{value};3\n5;6\n7;8\n")
    config = make_config(tmp_path, path, source={"features": ["a", "b"]})
    with pytest.raises(
        SourceError, match=rf"row 3, column 'a': '{re.escape(value)}' is not a number; .*{remedy}"
    ):
        inspect_batch(config)


def test_a_type_of_an_unknown_column_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "a,b\n1,2\n3,5\n")
    with pytest.raises(SourceError, match=r"source.types: .*x.csv has no column c; it has: a, b"):
        inspect_batch(make_config(tmp_path, path, source={"features": ["a"], "types": {"c": "text"}}))


def test_names_that_a_program_left_out_are_empty(tmp_path: Path) -> None:
    assert looked_at(written(tmp_path / "r.csv", "a,b\nx,1,2\ny,3,4\n")).dialect.names == ("", "a", "b")
    assert looked_at(written(tmp_path / "x.csv", "a,b\n1,2,\n3,4,\n")).dialect.names == ("a", "b", "")


def test_a_column_beside_a_repeated_name_is_read_by_its_place(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "a,b,b,c\n1,2,3,4\n")
    assert staged(path, "c", "a").to_pydict() == {"c": [4], "a": [1]}
    with pytest.raises(SourceError, match="column 'b' is there 2 times; rename all but one"):
        staged(path, "b")


def test_spellings_of_a_missing_number_can_be_declared(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "a,b\n1,2\n?,3\n")
    assert staged(path, "a", csv={"null_values": ["?"]})["a"].to_pylist() == [1, None]
    assert looked_at(path).kinds["a"] == "text"


@pytest.mark.parametrize(
    "start", [b"PK\x03\x04\x14", b"\xfd7zXZ\x00", b"PAR1\x15", b"\n<!DOCTYPE html>", b"%PDF-1.7", b'{"a": 1}']
)
def test_a_file_that_is_no_csv_is_refused_without_its_bytes(tmp_path: Path, start: bytes) -> None:
    with pytest.raises(SourceError, match=r"x\.csv: it is .*, not CSV; ") as caught:
        looked_at(written(tmp_path / "x.csv", start + bytes(range(256))))
    assert str(caught.value).isprintable()


def test_compression_goes_by_the_bytes_not_by_the_name(tmp_path: Path) -> None:
    for name in ("x.csv", "x.CSV.GZ", "x.csv.zst"):
        assert staged(written(tmp_path / name, gzip.compress(b"a\n1.5\n")), "a")["a"].to_pylist() == [1.5]


def test_a_file_with_a_header_only_has_no_rows(tmp_path: Path) -> None:
    assert staged(written(tmp_path / "x.csv", "a,b"), "a").num_rows == 0


@pytest.mark.parametrize(("line", "got"), [("1,2,3", 3), ("1", 1)], ids=["too many fields", "too few fields"])
@pytest.mark.parametrize("row", [3, 400])
def test_a_ragged_line_is_named(tmp_path: Path, row: int, line: str, got: int) -> None:
    lines = ["a,b", *["1,2"] * 600]
    lines[row - 1] = line
    path = written(tmp_path / "x.csv", "\n".join(lines) + "\n")
    with pytest.raises(SourceError) as caught:
        staged(path, "a", "b", read_bytes=64)
    text = str(caught.value)
    fields = "1 field" if got == 1 else f"{got} fields"
    assert text.startswith(f"{path}, row {row}: {fields} where the header has 2 (delimiter ',');")
    assert "\n" not in text
    assert visible_files(tmp_path) == ["x.csv"]


def test_text_among_numbers_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "a,b\n" + "1,2\n" * 500 + "1,none\n")
    with pytest.raises(SourceError, match=r"x\.csv, row 502, column 'b': 'none' is not a number; "):
        staged(path, "a", "b", read_bytes=64)


def test_an_error_does_not_drag_a_long_line_along(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "a,b\n1,2\n" + "x" * 100_000 + "\n")
    with pytest.raises(SourceError) as caught:
        staged(path, "a", "b")
    assert len(str(caught.value)) < 400


def test_a_column_without_a_value_at_first_is_a_number(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "a,b\n" + "1,\n" * 100 + "1,2.5\n")
    values = staged(path, "a", "b", read_bytes=64)["b"].to_pylist()
    assert values[:2] == [None, None]
    assert values[-1] == 2.5


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    for text in ("", "\n\n", "  \n"):
        with pytest.raises(SourceError, match=r"x\.csv: the file is empty"):
            looked_at(written(tmp_path / "x.csv", text))


def test_a_staged_file_is_used_again_while_the_source_is_the_same(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "a\n1\n")
    first = copied(path, "a")
    made = first.stat().st_mtime_ns
    assert copied(path, "a") == first
    assert first.stat().st_mtime_ns == made
    path.write_text("a\n22\n")
    second = copied(path, "a")
    assert second != first
    assert pq.read_table(second)["a"].to_pylist() == [22]


def test_a_csv_job_is_the_parquet_job(tmp_path: Path) -> None:
    rows = [(i, (i * 37 % 101) / 8, (i * 53 % 97) / 4) for i in range(300)]
    (tmp_path / "csv").mkdir()
    (tmp_path / "parquet").mkdir()
    columns: dict[str, Any] = dict(zip(("id", "x", "y"), map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table(columns), tmp_path / "parquet" / "x.parquet")
    for number, part in enumerate((rows[:100], rows[100:])):
        lines = [f"{i},{x!r},{y!r}" for i, x, y in part]
        written(tmp_path / "csv" / f"{number}.csv", "\n".join(["id,x,y", *lines]) + "\n")
    jobs = [
        run_job(
            make_config(
                tmp_path / f"{kind} job",
                tmp_path / kind,
                source={"key": ["id"], **({"types": {"id": "integer"}} if kind == "csv" else {})},
                chunking={"rows": 70},
            )
        )
        for kind in ("csv", "parquet")
    ]
    assert jobs[0].outcome() == jobs[1].outcome()
    assert jobs[0].table["id"].to_pylist() == list(range(300))


def test_files_may_have_whole_numbers_where_others_have_fractions(tmp_path: Path) -> None:
    (tmp_path / "csv").mkdir()
    written(tmp_path / "csv" / "0.csv", "x,y\n1,2\n3,4\n")
    written(tmp_path / "csv" / "1.csv", "x,y\n1.5,2\n3,4.5\n")
    assert run_job(make_config(tmp_path, tmp_path / "csv")).manifest.rows == 4


def test_a_copy_that_another_run_has_made_meanwhile_stays_the_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "rows.csv"
    source.write_text("id,x\n1,2.5\n2,3.5\n")
    others: list[tuple[Path, int]] = []

    def open_last(*given: Any, convert_options: pc.ConvertOptions, **options: Any) -> Any:
        if convert_options.include_columns == ["1"] and not others:
            others.append((source, 0))
            path = copied(source, "x")
            others[0] = (path, path.stat().st_mtime_ns)
        return open_csv(*given, convert_options=convert_options, **options)

    open_csv = pc.open_csv
    monkeypatch.setattr(pc, "open_csv", open_last)
    path = copied(source, "x")
    assert others == [(path, path.stat().st_mtime_ns)]
    assert visible_files(tmp_path / "staged") == [path.name]
