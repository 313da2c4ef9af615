"""Numbers, times and tables as a terminal shows them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftline.cli.terminal import amount, duration, local_time, size, table, width


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (10, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (80, "1 min 20 s"),
        (3599.7, "1 h 0 min"),
        (3_660, "1 h 1 min"),
        (4_000_000, "1,111 h 6 min"),
    ],
)
def test_durations_have_one_or_two_units(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, ""),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1 << 20, "1 MiB"),
        (5 * (1 << 30), "5 GiB"),
        (3 << 39, "1.5 TiB"),
        (1 << 60, "1048576.0 TiB"),
    ],
)
def test_sizes_have_a_readable_unit(count: int | None, text: str) -> None:
    assert size(count) == text


def test_amounts_have_separators_and_unknown_ones_nothing() -> None:
    assert (amount(1234567), amount(0), amount(None)) == ("1,234,567", "0", "")


def test_times_are_local_and_to_the_second() -> None:
    moment = datetime(2026, 3, 1, 12, 30, 15, 999_999, tzinfo=UTC)
    assert local_time(moment) == moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    assert local_time(None) == ""


def test_columns_are_as_wide_as_their_widest_cell_and_lines_have_no_blanks_at_the_end() -> None:
    rows = [("JOB", "NAME", "OUT"), ("1", "東京", "x"), ("22222", "", "")]
    assert list(table(rows)) == [
        "JOB    NAME  OUT",
        "1      東京  x",
        "22222",
    ]


@given(st.lists(st.tuples(st.text("abc東 ", max_size=9), st.text("xyz", max_size=5)), min_size=1))
def test_a_second_column_begins_at_the_same_place_in_every_line(rows: list[tuple[str, str]]) -> None:
    widest = max(width(first) for first, _ in rows)
    for (first, second), line in zip(rows, table(rows), strict=True):
        if second:
            assert line.endswith(second)
            assert width(line) == widest + 2 + len(second)
        else:
            assert line == first.rstrip()
