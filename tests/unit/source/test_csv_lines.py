"""Lines of a CSV file: what is above the header, comments, and no row less."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftline.errors import SourceError
from tests.unit.source.csv_files import looked_at, staged, written


def test_comments_and_lines_before_the_header_are_left_out(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "# made by: hand\n# on Monday\na,b\n1,2\n# end\n3,4\n")
    assert staged(path, "b")["b"].to_pylist() == [2, 4]
    path = written(tmp_path / "y.csv", "Report\n2024\na,b\n1,2\n3,4\n")
    assert staged(path, "b", csv={"skip_rows": 2})["b"].to_pylist() == [2, 4]


def test_rows_that_begin_with_the_sign_of_comments_are_kept(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "# made by hand\nid,a\n#1,2\n7,3\n")
    assert staged(path, "id", "a", texts=("id",)).to_pydict() == {"id": ["#1", "7"], "a": [2, 3]}
    assert "skip_rows 1 (detected" in looked_at(path).notes[0]
    text = "# made by hand\nid,a\n" + "1,2\n" * 100_000 + "# pause\n#5,6\n"
    rows = staged(written(tmp_path / "y.csv", text), "id", "a", texts=("id",))
    assert (rows.num_rows, rows["id"][-1].as_py(), rows["a"][-1].as_py()) == (100_001, "#5", 6)


def test_a_line_of_quoted_text_is_no_comment(tmp_path: Path) -> None:
    text = '# made by hand\na,t\n1,"a\n#b ""c"" d\n"\n# end\n2,5" pipe\n# really\n3,z\n'
    path = written(tmp_path / "x.csv", text)
    for settings in ({}, {"comment": "#"}):
        rows = staged(path, "a", "t", texts=("t",), csv=settings)
        assert rows.to_pydict() == {"a": [1, 2, 3], "t": ['a\n#b "c" d\n', '5" pipe', "z"]}


@given(st.lists(st.text('a#",\n ', max_size=9), min_size=1, max_size=6))
def test_quoted_text_is_kept_whatever_lines_it_has(texts: list[str]) -> None:
    texts = [f"x{text}" for text in texts]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.csv"
        with path.open("w", newline="") as file:
            rows = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n# a comment\n")
            rows.writerows([["a", "t"], *enumerate(texts)])
        found = staged(path, "a", "t", texts=("t",), csv={"comment": "#"})
    assert found["t"].to_pylist() == texts


@pytest.mark.parametrize("above", ["# a\n# b\n", "title\n# b\n", "# a\n\n", "\r\n  \n"])
def test_lines_above_the_header_take_no_row_with_them(tmp_path: Path, above: str) -> None:
    settings = {"comment": "#", "skip_rows": 2}
    path = written(tmp_path / "x.csv", f"{above}a,b\n1,2\n3,4\n")
    assert staged(path, "b", csv=settings)["b"].to_pylist() == [2, 4]
    with pytest.raises(SourceError, match="row 5, column 'b': 'x' is not a number"):
        staged(written(path, f"{above}a,b\n1,2\n3,x\n"), "b", csv=settings, types={"b": "number"})


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "cp1252", "utf16"])
def test_comments_and_lines_for_excel_may_have_any_encoding(tmp_path: Path, encoding: str) -> None:
    path = written(tmp_path / "x.csv", "# f\u00fcr uns\na,t\n1,\u00fc\n# end\n2,z".encode(encoding))
    rows = staged(path, "a", "t", texts=("t",), csv={"encoding": encoding})
    assert rows.to_pydict() == {"a": [1, 2], "t": ["\u00fc", "z"]}
    path = written(tmp_path / "y.csv", "sep=;\r\na;b\r\n1;2,5\r\n".encode(encoding))
    assert staged(path, "b", csv={"encoding": encoding})["b"].to_pylist() == [2.5]


def test_a_header_that_begins_with_a_hash_is_one(tmp_path: Path) -> None:
    for above in ("", "# made by hand\n"):
        path = written(tmp_path / "x.csv", f"{above}#a,b\n1,2\n")
        assert looked_at(path).dialect.names == ("#a", "b")
