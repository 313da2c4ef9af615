"""Locks exclude others, wait as long as asked, and forgive file systems without locks, all by one rule."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

import pytest

from siftline.errors import StorageError
from siftline.storage.locks import locked, try_lock


def refuse_locks(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(fcntl, "flock", flock)


def test_a_lock_excludes_others_until_it_is_released(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock"
    with locked(path) as first, locked(path) as second:
        assert (first, second) == (True, False)
    with locked(path) as alone:
        assert alone


def test_a_waiting_process_gets_the_lock_once_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = (tmp_path / "lock").open("w")
    fcntl.flock(holder, fcntl.LOCK_EX)
    monkeypatch.setattr("time.sleep", lambda seconds: holder.close())
    with locked(tmp_path / "lock", seconds=60) as alone:
        assert alone
        assert holder.closed


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_excludes_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    refuse_locks(monkeypatch, number)
    with locked(tmp_path / "lock") as first, locked(tmp_path / "lock") as second:
        assert first
        assert second
    with (tmp_path / "lock").open() as file:
        assert try_lock(file) is None


def test_any_other_refusal_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_locks(monkeypatch, errno.EIO)
    with pytest.raises(StorageError, match="lock: refused"), locked(tmp_path / "lock"):
        pass


def test_a_lock_that_cannot_be_created_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file"), locked(tmp_path / "file" / "lock"):
        pass


def test_shared_locks_exclude_exclusive_ones_only(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("w") as first, path.open() as second, path.open() as third:
        assert try_lock(second, shared=True)
        assert try_lock(third, shared=True)
        assert try_lock(first) is False
