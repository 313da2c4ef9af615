"""Runs that start in a process of this machine are shown as long as that process lives."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from siftline.jobs.starting import Starting, find_starting, starting
from siftline.storage.files import write_record
from siftline.storage.layout import Version


@pytest.fixture
def dead() -> Iterator[int]:
    """The number of a process that has ended, and is still listed until it is waited for."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    yield process.pid
    process.wait()


def write(checkpoint: Path, name: str = "batch", **changes: object) -> None:
    here = {"name": name, "host": socket.gethostname(), "pid": os.getpid(), "at": datetime.now(UTC)}
    record = Starting.model_validate({**here, **changes})
    directory = checkpoint / "starting"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{record.name}-{record.pid}.json"
    write_record(path, record.model_dump(mode="json"), Version.STARTING)


def test_a_process_is_found_from_the_start_to_the_end_of_the_block(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    with starting(checkpoint, "batch"):
        found = find_starting(checkpoint, "batch")
        assert find_starting(checkpoint, "other") is None
    assert found is not None
    assert (found.name, found.pid, found.host) == ("batch", os.getpid(), socket.gethostname())
    assert find_starting(checkpoint, "batch") is None
    assert not checkpoint.exists(), "nothing is left of a run that did nothing"


def test_directories_with_other_content_stay(tmp_path: Path) -> None:
    with starting(tmp_path, "batch"):
        (tmp_path / "jobs").mkdir()
        write(tmp_path, "other", pid=1)
    assert [path.name for path in (tmp_path / "starting").iterdir()] == ["other-1.json"]
    assert (tmp_path / "jobs").is_dir()


def test_an_error_within_ends_it_as_well(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), starting(tmp_path, "batch"):
        raise ZeroDivisionError
    assert find_starting(tmp_path, "batch") is None


def test_a_process_that_has_died_does_not_start_anything(tmp_path: Path, dead: int) -> None:
    write(tmp_path, pid=dead)
    assert find_starting(tmp_path, "batch") is None


def test_a_later_process_of_the_same_number_is_not_taken_for_it(tmp_path: Path) -> None:
    write(tmp_path, at=datetime.now(UTC) - timedelta(days=300))
    assert find_starting(tmp_path, "batch") is None


def test_a_process_of_another_machine_is_not_judged_by_its_number(tmp_path: Path) -> None:
    write(tmp_path, host="elsewhere")
    assert find_starting(tmp_path, "batch") is None


def test_the_last_of_several_is_found(tmp_path: Path) -> None:
    parent = datetime.now(UTC) + timedelta(seconds=1)
    write(tmp_path)
    write(tmp_path, pid=os.getppid(), at=parent)
    found = find_starting(tmp_path, "batch")
    assert found is not None
    assert found.pid == os.getppid()


@pytest.mark.parametrize("name", ["", "*", "[", "/etc", "../x", "a/b", "\0", "batch-1", "**"])
def test_no_text_is_taken_for_a_pattern_or_a_path(tmp_path: Path, name: str) -> None:
    write(tmp_path)
    assert find_starting(tmp_path, name) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format_version": 1}'])
def test_a_torn_record_is_none(tmp_path: Path, content: str) -> None:
    directory = tmp_path / "starting"
    directory.mkdir()
    (directory / "batch-1.json").write_text(content)
    assert find_starting(tmp_path, "batch") is None


def test_a_checkpoint_that_cannot_be_written_does_not_stop_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with starting(tmp_path / "file", "batch"):
        pass
    assert (tmp_path / "file").is_file()
