"""Anomalies over time: equal intervals that people count in, few of them, and every anomaly in one."""

from __future__ import annotations

from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftline.stages.findings.times import count_times

moments = st.datetimes(datetime(1700, 1, 1), datetime(2240, 1, 1))  # noqa: DTZ001


def counted(home: Path, values: pa.Array, row_group: int = 3) -> tuple[tuple[str, int], ...]:
    path = home / "anomalies.parquet"
    pq.write_table(pa.table({"at": values}), path, row_group_size=row_group)
    return count_times(path, "at")


def test_hours_of_a_week_are_counted_hour_by_hour(tmp_path: Path) -> None:
    values = pa.array(
        [datetime(2026, 3, day, 4, 30, tzinfo=UTC) for day in (1, 1, 3, 7)], pa.timestamp("us", "UTC")
    )
    found = counted(tmp_path, values)
    assert len(found) == 6 * 24 + 1
    assert (found[0], found[48], found[-1]) == (
        ("2026-03-01T04:00:00+00:00", 2),
        ("2026-03-03T04:00:00+00:00", 1),
        ("2026-03-07T04:00:00+00:00", 1),
    )


@given(st.lists(st.none() | moments, min_size=1, max_size=30))
def test_any_times_are_counted_once_in_few_equal_intervals(
    tmp_path_factory: pytest.TempPathFactory, values: list[datetime | None]
) -> None:
    found = counted(tmp_path_factory.mktemp("times"), pa.array(values, pa.timestamp("us")))
    known = [one for one in values if one is not None]
    assert sum(count for _, count in found) == len(known)
    assert len(found) <= 200
    starts = [datetime.fromisoformat(name) for name, _ in found]
    assert len({later - one for one, later in pairwise(starts)}) <= 1
    assert not known or (starts[0] <= min(known) and found[0][1] and found[-1][1])


def test_dates_are_times_and_texts_are_not(tmp_path: Path) -> None:
    assert counted(tmp_path, pa.array([date(2026, 3, 9)])) == (("2026-03-09T00:00:00", 1),)
    assert counted(tmp_path, pa.array(["2026-03-09"])) == ()
    assert counted(tmp_path, pa.array([None], pa.timestamp("s"))) == ()
