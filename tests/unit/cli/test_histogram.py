"""The histogram of scores: rows that are exact, and bars of what the terminal can show."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftline.cli.histogram import histogram
from siftline.jobs.findings import Curve

points = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=80, unique=True).map(
    lambda scores: sorted(scores, reverse=True)
)


@given(points, st.data(), st.integers(20, 200))
def test_any_curve_is_drawn_whole_within_the_width(
    scores: list[float], data: st.DataObject, width: int
) -> None:
    added = data.draw(st.lists(st.integers(0, 10**6), min_size=len(scores), max_size=len(scores)))
    rows = tuple(sum(added[: place + 1]) for place in range(len(added)))
    threshold = data.draw(st.sampled_from(scores))
    curve = Curve(scores=tuple(scores), rows=rows, exact_from=None)
    lines = list(histogram(curve, threshold, width, blocks=True))
    assert 1 <= len(lines) <= 25
    assert sum(int(line.split()[1].replace(",", "")) for line in lines) == rows[-1]
    assert sum("threshold" in line for line in lines) == 1
    assert max(map(len, lines)) <= max(width, 60)


@pytest.mark.parametrize(("blocks", "bar"), [(True, "█"), (False, "#")])
def test_bars_are_of_blocks_or_of_ascii(blocks: bool, bar: str) -> None:
    curve = Curve(scores=(0.5, 0.25), rows=(1, 1_000), exact_from=0.25)
    lines = list(histogram(curve, 0.5, 60, blocks))
    assert [line.split()[:2] for line in lines] == [["0.5000", "1"], ["0.2500", "999"]]
    assert lines[1].endswith(bar * 4)
    assert blocks or "".join(lines).isascii()


def test_a_curve_of_one_point_is_one_line() -> None:
    curve = Curve(scores=(0.5,), rows=(0,), exact_from=0.5)
    assert list(histogram(curve, 0.5, 60, blocks=False)) == ["0.5000  0    <- threshold"]
