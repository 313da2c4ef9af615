"""The rate limit is recorded; without its record it holds too little back, never too much."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from siftline.notices.rate_limit import Permit, rate_limited
from siftline.storage.files import write_record
from siftline.storage.layout import Version

NOON = datetime(2026, 3, 9, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return tmp_path / "notified" / "flights.json"


def permit(memory: Path, minutes: float = 0, kind: str = "slack-webhook/ops failed") -> Permit:
    with rate_limited(memory, kind, HOUR, NOON + timedelta(minutes=minutes)) as permitted:
        return permitted


def test_one_message_goes_in_each_span_of_time_and_the_others_are_counted(memory: Path) -> None:
    permits = [permit(memory, minutes) for minutes in (0, 1, 59, 60, 61, 130, 131)]
    assert [one.granted for one in permits] == [True, False, False, True, False, True, False]
    assert [one.note for one in permits if one.granted] == [
        "",
        "2 more since 2026-03-09 12:00 UTC.",
        "1 more since 2026-03-09 13:00 UTC.",
    ]


def test_each_kind_has_its_own_limit(memory: Path) -> None:
    assert permit(memory).granted
    assert permit(memory, kind="slack-webhook/ops completed").granted
    assert permit(memory, kind="email/ops failed").granted
    assert not permit(memory).granted


def test_a_clock_that_was_set_back_holds_nothing_back(memory: Path) -> None:
    assert permit(memory, 600).granted
    assert permit(memory, 0).granted


def test_a_failure_withdraws_the_permit(memory: Path) -> None:
    permit(memory, 0)
    permit(memory, 1)
    with (
        pytest.raises(ConnectionError),
        rate_limited(memory, "slack-webhook/ops failed", HOUR, NOON + 2 * HOUR),
    ):
        raise ConnectionError
    assert permit(memory, 130).note == "1 more since 2026-03-09 12:00 UTC."


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format_version": 1}', b"\xff"])
def test_a_damaged_memory_remembers_nothing(memory: Path, content: bytes) -> None:
    memory.parent.mkdir()
    memory.write_bytes(content)
    assert permit(memory).granted
    assert not permit(memory, 1).granted


@pytest.mark.parametrize("entry", [None, 3, {"at": "soon"}, {"at": "2026-03-09T12:00:00"}])
def test_an_invalid_entry_holds_nothing_back(memory: Path, entry: object) -> None:
    write_record(memory, {"slack-webhook/ops failed": entry}, Version.NOTIFIED)
    assert permit(memory).granted


def test_without_a_limit_or_a_memory_nothing_is_held_back_or_written(memory: Path) -> None:
    for _ in range(2):
        with rate_limited(memory, "kind", None, NOON) as permitted:
            assert permitted.granted
        with rate_limited(None, "kind", HOUR, NOON) as permitted:
            assert permitted.granted
    assert not memory.parent.exists()


def test_of_many_in_parallel_one_goes_and_all_others_are_counted(memory: Path) -> None:
    granted: list[bool] = []
    threads = [threading.Thread(target=lambda: granted.append(permit(memory).granted)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(granted) == [False] * 11 + [True]
    assert permit(memory, 60).note == "11 more since 2026-03-09 12:00 UTC."
