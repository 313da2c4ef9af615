"""Recorded names stay in their directory, and nothing but our own is removed."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftline.errors import StorageError
from siftline.storage.locks import locked
from siftline.storage.owned import CHUNK, inner_name, plain_name, refuse_links, remove_own

FOREIGN = [
    "../x",
    "/etc/passwd",
    "a/../../x",
    "",
    ".",
    "..",
    "a\0b",
    "a" * 300,
    "a\nb",
    "~",
    "a\\b",
    " a",
    "a/",
]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    for check in (plain_name, inner_name):
        with pytest.raises(ValueError, match="not a plain file name"):
            check(name)


@given(st.text(max_size=12) | st.text(alphabet="./a~\0", max_size=8))
def test_whatever_is_accepted_is_inside(name: str) -> None:
    try:
        inner_name(name)
    except ValueError:
        return
    path = os.path.normpath(f"/home/{name}")
    assert path == f"/home/{name}"
    assert path.startswith("/home/")


def test_our_own_names_are_accepted() -> None:
    assert plain_name("chunk-0000001-0123abcd-candidates.parquet")
    assert inner_name(".publications/0123456789abcdef-01234567-89abcdef/scores/part-00000-0123abcd.parquet")


def test_only_names_of_the_form_are_removed(tmp_path: Path) -> None:
    ours = ["chunk-0000001-0123abcd.parquet", ".chunk-0000001-0123abcd.parquet.00112233.tmp"]
    kept = ["chunk-0000002-0123abcd.parquet", "chunk-1.parquet", "notes.txt", ".hidden"]
    for name in [*ours, *kept]:
        (tmp_path / name).touch()
    remove_own(tmp_path, CHUNK, {"chunk-0000002-0123abcd.parquet"})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_a_link_is_removed_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "a").touch()
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "a").symlink_to(tmp_path / "others")
    (tmp_path / "link").symlink_to(tmp_path / "others")
    remove_own(tmp_path / "ours", re.compile("a"))
    remove_own(tmp_path / "link", re.compile("a"))
    remove_own(tmp_path / "missing", re.compile("a"))
    assert not list((tmp_path / "ours").iterdir())
    assert (tmp_path / "others" / "a").exists()


def test_a_link_where_something_is_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("elsewhere")
    with pytest.raises(StorageError, match="is a link, and Siftline does not write through it; remove it"):
        refuse_links([tmp_path / "file", tmp_path / "link"])


def test_a_lock_is_not_taken_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (tmp_path / "lock").symlink_to(victim)
    with pytest.raises(StorageError, match="remove it"), locked(tmp_path / "lock"):
        pass
    assert not victim.exists()
