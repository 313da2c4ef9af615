"""Notifications are limited by kind; a lost memory sends too many, never too few."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from siftline.notices.rate_limit import Turn, turn
from siftline.storage.files import write_record
from siftline.storage.layout import Version

NOON = datetime(2026, 3, 9, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return tmp_path / "notified" / "flights.json"


def take(memory: Path, minutes: float = 0, kind: str = "slack-webhook/ops failed") -> Turn:
    with turn(memory, kind, HOUR, NOON + timedelta(minutes=minutes)) as taken:
        return taken


def test_one_message_goes_in_each_span_of_time_and_the_others_are_counted(memory: Path) -> None:
    turns = [take(memory, minutes) for minutes in (0, 1, 59, 60, 61, 130, 131)]
    assert [one.granted for one in turns] == [True, False, False, True, False, True, False]
    assert [one.note for one in turns if one.granted] == [
        "",
        "2 more since 2026-03-09 12:00 UTC.",
        "1 more since 2026-03-09 13:00 UTC.",
    ]


def test_each_kind_has_its_own_turn(memory: Path) -> None:
    assert take(memory).granted
    assert take(memory, kind="slack-webhook/ops completed").granted
    assert take(memory, kind="email/ops failed").granted
    assert not take(memory).granted


def test_a_clock_that_was_set_back_holds_nothing_back(memory: Path) -> None:
    assert take(memory, 600).granted
    assert take(memory, 0).granted


def test_a_failed_notification_gives_its_turn_back(memory: Path) -> None:
    take(memory, 0)
    take(memory, 1)
    with pytest.raises(ConnectionError), turn(memory, "slack-webhook/ops failed", HOUR, NOON + 2 * HOUR):
        raise ConnectionError
    assert take(memory, 130).note == "1 more since 2026-03-09 12:00 UTC."


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format_version": 1}', b"\xff"])
def test_a_damaged_memory_remembers_nothing(memory: Path, content: bytes) -> None:
    memory.parent.mkdir()
    memory.write_bytes(content)
    assert take(memory).granted
    assert not take(memory, 1).granted


@pytest.mark.parametrize("entry", [None, 3, {"at": "soon"}, {"at": "2026-03-09T12:00:00"}])
def test_an_entry_that_says_nothing_is_none(memory: Path, entry: object) -> None:
    write_record(memory, {"slack-webhook/ops failed": entry}, Version.NOTIFIED)
    assert take(memory).granted


def test_without_a_limit_or_a_memory_nothing_is_held_back_or_written(memory: Path) -> None:
    for _ in range(2):
        with turn(memory, "kind", None, NOON) as taken:
            assert taken.granted
        with turn(None, "kind", HOUR, NOON) as taken:
            assert taken.granted
    assert not memory.parent.exists()


def test_of_many_at_once_one_goes_and_all_others_are_counted(memory: Path) -> None:
    granted: list[bool] = []
    threads = [threading.Thread(target=lambda: granted.append(take(memory).granted)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(granted) == [False] * 11 + [True]
    assert take(memory, 60).note == "11 more since 2026-03-09 12:00 UTC."
