"""Texts from data: on one line, with nothing that acts on a terminal, and not endless."""

from __future__ import annotations

import unicodedata
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftline.jobs.texts import cell, reason_text, shown

ESCAPE = "\x1b[31mred\x1b]8;;http://evil\x07link"


@given(st.text(max_size=300) | st.integers() | st.floats() | st.none(), st.integers(2, 80))
def test_any_value_becomes_one_short_visible_line(value: object, longest: int) -> None:
    text = shown(value, longest)
    assert len(text) <= longest
    assert not {unicodedata.category(one) for one in text} & {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Málaga 😀", "Málaga 😀"),
        ("two\nlines\tand  more", "two lines and more"),
        ("a\u202eb\u2066c", "a�b�c"),
        (ESCAPE, "�[31mred�]8;;http://evil�link"),
        ("x" * 10_000, "x" * 59 + "…"),
        (" " * 10_000 + "x", "…"),
        (12.5, "12.5"),
        (None, "None"),
    ],
)
def test_only_what_is_hidden_or_too_long_is_changed(value: object, expected: str) -> None:
    assert shown(value) == expected


def test_a_reason_is_shown_with_its_distance_if_it_has_one() -> None:
    reason = {"feature": "am\x1bount", "value": "9", "typical": "1", "direction": "low", "distance": 8.04}
    assert reason_text(reason) == "am�ount 9 (typical 1, 8.0 σ below)"
    assert reason_text(reason | {"distance": None}) == "am�ount 9 (typical 1)"


def test_cells_that_are_numbers_and_times_stay_what_they_are() -> None:
    noon = datetime(2026, 3, 9, 12)  # noqa: DTZ001
    assert [cell(value) for value in (1, 2.5, None, noon)] == [1, 2.5, None, noon]
    assert cell(ESCAPE) == shown(ESCAPE)
    assert cell(["a\nb"]) == "['a\\nb']"
