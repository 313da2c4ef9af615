"""Which files a path means: links, pipes, globs, tables of others, and what is our own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from siftline.config.batch import SourceConfig
from siftline.errors import SourceError
from siftline.source.files import find_files


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def found(path: Path | str, root: Path) -> list[str]:
    return [str(file.relative_to(root)) for file in find_files(SourceConfig(path=str(path)))[0]]


def refusal(path: Path | str) -> str:
    with pytest.raises(SourceError) as caught:
        find_files(SourceConfig(path=str(path)))
    return str(caught.value)


# -- links


def test_a_linked_directory_is_read(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere" / "a.parquet")
    touch(tmp_path / "data" / "b.parquet")
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
    assert found(tmp_path / "data", tmp_path / "data") == ["b.parquet", "link/a.parquet"]


@pytest.mark.parametrize("pattern", ["", "**/*.parquet"])
def test_every_real_directory_is_read_once_and_cycles_end(tmp_path: Path, pattern: str) -> None:
    touch(tmp_path / "2024" / "a.parquet")
    for name in ("1", "2", "latest"):
        (tmp_path / name).symlink_to(tmp_path / "2024")
        (tmp_path / "2024" / f"up{name}").symlink_to(tmp_path)
    assert found(tmp_path / pattern, tmp_path) == ["2024/a.parquet"]


def test_a_file_and_a_link_to_it_are_one_file(tmp_path: Path) -> None:
    touch(tmp_path / "b.parquet")
    (tmp_path / "a.parquet").symlink_to("b.parquet")
    assert found(tmp_path, tmp_path) == ["b.parquet"]
    assert found(tmp_path / "a.parquet", tmp_path) == ["a.parquet"]


@pytest.mark.parametrize("below", ["", "sub"])
def test_a_broken_link_is_refused_by_its_name(tmp_path: Path, below: str) -> None:
    touch(tmp_path / "a.parquet")
    link = tmp_path / below / "b.parquet"
    link.parent.mkdir(exist_ok=True)
    link.symlink_to("missing.parquet")
    text = f"{link}: a link to missing.parquet, where there is nothing; correct or remove it"
    assert refusal(tmp_path) == refusal(link) == refusal(f"{tmp_path}/**/b*") == text


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").symlink_to("a.parquet")
    assert "too many levels of symbolic links" in refusal(tmp_path)
    assert "too many levels of symbolic links" in refusal(tmp_path / "a.parquet")


# -- no files


@pytest.mark.parametrize("given", ["{0}/pipe.parquet", "{0}", "{0}/*.parquet"])
def test_a_named_pipe_is_refused_and_never_opened(tmp_path: Path, given: str) -> None:
    os.mkfifo(tmp_path / "pipe.parquet")
    assert refusal(given.format(tmp_path)) == (
        f"{tmp_path}/pipe.parquet: a named pipe, not a file; write the rows to a file first"
    )


def test_a_device_is_refused() -> None:
    assert refusal("/dev/zero").startswith("/dev/zero: a device, not a file; ")


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    path = tmp_path / f"{'a' * 300}.parquet"
    assert refusal(path) == f"{path}: file name too long; correct source.path"


def test_a_name_that_is_not_utf_8_is_refused_without_its_bytes(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.parquet")).touch()
    assert (
        refusal(tmp_path)
        == f"{tmp_path}/a\N{REPLACEMENT CHARACTER}.parquet: its name is not UTF-8; rename it"
    )


# -- names


@pytest.mark.parametrize("name", ["a.parq", "a.PARQ", "a.PARQUET", "a.Pq"])
def test_usual_endings_of_parquet_are_known_in_any_case(tmp_path: Path, name: str) -> None:
    touch(tmp_path / name)
    assert found(tmp_path, tmp_path) == [name]
    assert find_files(SourceConfig(path=str(tmp_path / name)))[1] == "parquet"


@pytest.mark.parametrize("pattern", ["*.parquet", "**/*.parquet", "sub/*.parquet", "s*/[a-c].parquet"])
def test_brackets_of_a_directory_that_exists_are_no_pattern(tmp_path: Path, pattern: str) -> None:
    touch(tmp_path / "run[1]" / "sub" / "a.parquet")
    touch(tmp_path / "run[1]" / "a.parquet")
    touch(tmp_path / "run1" / "a.parquet")
    assert all(file.startswith("run[1]/") for file in found(f"{tmp_path}/run[1]/{pattern}", tmp_path))
    assert found(f"{tmp_path}/run[12]/*.parquet", tmp_path) == ["run1/a.parquet"]


def test_a_glob_of_directories_with_the_name_of_a_file_reads_their_files(tmp_path: Path) -> None:
    for day in ("1", "2"):
        touch(tmp_path / f"{day}.parquet" / "part-0.snappy.parquet")
        touch(tmp_path / f"{day}.parquet" / "_SUCCESS")
    files = ["1.parquet/part-0.snappy.parquet", "2.parquet/part-0.snappy.parquet"]
    assert found(f"{tmp_path}/*.parquet", tmp_path) == files


def test_a_url_of_a_file_is_its_path(tmp_path: Path) -> None:
    touch(tmp_path / "a b.parquet")
    assert found(f"file://{tmp_path}/a%20b.parquet", tmp_path) == ["a b.parquet"]
    assert found(f"file://{tmp_path}/*.parquet", tmp_path) == ["a b.parquet"]


# -- what others, and we, own


def delta(table: Path) -> None:
    (table / "_delta_log").mkdir(parents=True)


def hudi(table: Path) -> None:
    (table / ".hoodie").mkdir(parents=True)


def iceberg(table: Path) -> None:
    touch(table / "metadata" / "00000-1.metadata.json")


@pytest.mark.parametrize(
    "given", ["lake/t", "lake", "lake/t/p=1", "lake/t/p=1/a.parquet", "lake/*/p=1/*", "link", "a.pq"]
)
@pytest.mark.parametrize(("kind", "make"), [("a Delta", delta), ("a Hudi", hudi), ("an Iceberg", iceberg)])
def test_a_table_is_refused_from_above_and_from_within(
    tmp_path: Path, kind: str, make: Callable[[Path], None], given: str
) -> None:
    touch(tmp_path / "lake" / "t" / "p=1" / "a.parquet")
    (tmp_path / "link").symlink_to("lake/t/p=1")
    (tmp_path / "a.pq").symlink_to("lake/t/p=1/a.parquet")
    make(tmp_path / "lake" / "t")
    assert refusal(tmp_path / given) == (
        f"{tmp_path}/lake/t: {kind} table, whose files also have former rows; "
        "export its current rows to Parquet, and give the path of these files"
    )


def test_a_table_without_files_is_called_a_table(tmp_path: Path) -> None:
    delta(tmp_path)
    assert "a Delta table" in refusal(tmp_path)


def test_a_directory_named_metadata_makes_no_table(tmp_path: Path) -> None:
    touch(tmp_path / "metadata" / "readme.json")
    touch(tmp_path / "data" / "a.parquet")
    assert found(tmp_path, tmp_path) == ["data/a.parquet"]
