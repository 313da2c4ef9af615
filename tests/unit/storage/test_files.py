"""Files are written whole or not at all, and refused when they are not what they say."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftline.errors import IntegrityError, StorageError
from siftline.storage.files import (
    digest,
    file_digest,
    read_record,
    rename,
    replacing,
    seal,
    unseal,
    write_record,
)
from tests.support import visible_files

VERSION = 3
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
records = st.dictionaries(
    st.text().filter(lambda key: key not in ("digest", "format_version")), json_values, max_size=5
)


def write_half(path: Path, error: Exception) -> None:
    with replacing(path) as temporary:
        temporary.write_text("half")
        raise error


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_whole(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "deep" / "file"
    for content in ("old", "new"):
        with replacing(path, durable) as temporary:
            temporary.write_text(content)
            assert temporary.parent == path.parent
        assert path.read_text() == content
    assert visible_files(path.parent) == ["file"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError):
        write_half(path, ZeroDivisionError())
    assert path.read_text() == "old"
    assert visible_files(tmp_path) == ["file"]


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("half")
        assert path.read_text() == "old"


def test_a_full_disk_is_a_storage_error_with_its_remedy(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(StorageError) as caught:
        write_half(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert str(caught.value) == (
        f"{path}: No space left on device; "
        "free some space and run the same command again: finished chunks are kept"
    )
    assert visible_files(tmp_path) == []


def test_a_file_in_the_way_of_a_directory_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file/below"), replacing(tmp_path / "file" / "below" / "x"):
        pass


def test_renaming_makes_the_directory_and_moves_everything(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")
    rename(tmp_path / "a", tmp_path / "deep" / "b")
    assert (tmp_path / "deep" / "b" / "x").read_text() == "1"
    assert not (tmp_path / "a").exists()


def test_renaming_what_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        rename(tmp_path / "none", tmp_path / "b")


def test_a_files_digest_is_the_sha_256_of_its_bytes(tmp_path: Path) -> None:
    content = os.urandom(3 << 20)
    (tmp_path / "x").write_bytes(content)
    assert file_digest(tmp_path / "x") == hashlib.sha256(content).hexdigest()


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [2, 3]}) == digest({"b": [2, 3], "a": 1})
    assert digest({"a": 1, "b": [2, 3]}) != digest({"a": 1, "b": [3, 2]})


@given(records)
def test_a_sealed_record_comes_back_through_json(record: dict[str, Any]) -> None:
    assert unseal(json.loads(json.dumps(seal(record, VERSION))), VERSION, "x") == record


@given(records, st.text(), json_values)
def test_a_sealed_record_that_was_altered_is_refused(record: dict[str, Any], key: str, value: object) -> None:
    sealed = seal(record, VERSION)
    altered = {**sealed, key: value}
    if json.dumps(altered, sort_keys=True) == json.dumps(sealed, sort_keys=True):
        return
    with pytest.raises(IntegrityError):
        unseal(altered, VERSION, "x")


@pytest.mark.parametrize("name", ["digest", "format_version"])
def test_a_record_may_not_have_the_seals_own_fields(name: str) -> None:
    with pytest.raises(ValueError, match="of its own"):
        seal({name: 1}, VERSION)


@pytest.mark.parametrize("record", [None, [], "text", 3])
def test_what_is_no_record_is_refused(record: object) -> None:
    with pytest.raises(IntegrityError, match="x: not a record; delete it and run again"):
        unseal(record, VERSION, "x")


def test_another_format_version_is_refused_with_the_way_out() -> None:
    with pytest.raises(IntegrityError) as caught:
        unseal(seal({"a": 1}, 2), VERSION, "plan.json")
    assert str(caught.value) == (
        "plan.json: format version 2, this version of Siftline reads 3; "
        "use the version of Siftline that wrote it, or run again with --fresh"
    )


def test_a_record_is_written_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_record(path, {"rows": 3, "names": ["ä", "b"]}, VERSION)
    assert read_record(path, VERSION) == {"rows": 3, "names": ["ä", "b"]}
    assert json.loads(path.read_text())["format_version"] == VERSION


def test_a_record_that_is_torn_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_record(path, {"rows": 3}, VERSION)
    content = path.read_bytes()
    for length in range(len(content) - 2):
        path.write_bytes(content[:length])
        with pytest.raises(IntegrityError):
            read_record(path, VERSION)


def test_a_record_that_is_not_there_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_record(tmp_path / "none.json", VERSION)


def test_a_record_altered_to_nan_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_record(path, {"rows": 3}, VERSION)
    path.write_text(path.read_text().replace('"rows": 3', '"rows": NaN'))
    with pytest.raises(IntegrityError):
        read_record(path, VERSION)
