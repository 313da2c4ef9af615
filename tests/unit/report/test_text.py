"""Texts of the report: harmless, and as short as their numbers allow."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftline.report import text
from tests.unit.report.samples import HOSTILE


@given(st.text())
def test_no_value_is_markup(value: str) -> None:
    inner = text.isolated(value).removeprefix("<bdi>").removesuffix("</bdi>")
    assert not set("<>\"'") & set(inner)


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_a_value_is_short_visible_and_isolated(value: str) -> None:
    shown = text.isolated(value, 100)
    assert shown.startswith("<bdi>")
    assert not set("\x1b\x07\u202e\u2066") & set(shown)
    assert len(shown.unescape()) <= 100 + len("<bdi></bdi>")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (-2.0, "−2"), (1234567.0, "1,234,567"), (0.7122509, "0.712251"), (None, "–")],
)
def test_a_number_has_at_most_six_digits(value: float | None, shown: str) -> None:
    assert text.number(value) == shown


@pytest.mark.parametrize(
    ("share", "shown"), [(0, "0"), (1, "100"), (0.5, "50.0"), (0.01234, "1.23"), (0.001, "0.100")]
)
def test_a_share_keeps_three_digits(share: float, shown: str) -> None:
    assert text.percent(share) == f"{shown}\u202f%"


def test_differences_durations_sizes_and_times_read_well() -> None:
    assert [text.difference(value) for value in (-1200, 0, 3)] == ["1,200 fewer", "the same", "3 more"]
    durations = [text.duration(value) for value in (None, 2.34, 75, 7320)]
    assert durations == ["–", "2.3\u202fs", "1\u202fmin 15\u202fs", "2\u202fh 2\u202fmin"]
    assert [text.size(value) for value in (12, 3 << 20, 5 << 40)] == [
        "12\u202fB",
        "3\u202fMiB",
        "5120.0\u202fGiB",
    ]
    assert text.moment(datetime(2026, 3, 1, 12, tzinfo=UTC)) == "2026-03-01 12:00:00 UTC"
    assert text.moment("2026-03-01T12:00:00+00:00") == "2026-03-01 12:00:00 UTC"
