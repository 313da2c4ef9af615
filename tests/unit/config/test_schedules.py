"""When a pipeline runs: once a day on every day, about stretches of time that follow one another."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftline.config.loading import parse
from siftline.config.schedules import (
    ANCHOR,
    Interval,
    Schedule,
    intervals_of,
    last_interval,
    missed_intervals,
    next_boundaries,
    reason_to_skip,
)
from siftline.errors import ConfigError

ZONES = ["America/New_York", "Europe/London", "Australia/Lord_Howe"]
DAILY = ["30 2 * * *", "30 1 * * *", "15 2 * * *", "45 1 * * *", "0 0 * * *"]
RHYTHMS: list[dict[str, Any]] = [
    *({"cron": cron} for cron in [*DAILY, "0 * * * *", "*/20 * * * *", "30 1 * * 0"]),
    {"every": "15m"},
    {"every": "7h"},
]
SCHEDULES = [Schedule(**rhythm, timezone=zone) for rhythm in RHYTHMS for zone in ZONES]
MOMENTS = st.datetimes(datetime(2025, 1, 1), datetime(2026, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001


def _named(schedule: Schedule) -> str:
    return f"{schedule.cron or schedule.every} {schedule.timezone}"


FIRST = date(2025, 1, 1)
# Clocks change in all zones within the first two; the last one spans the end of a year.
PERIODS = [
    (date(2026, 3, 1), date(2026, 4, 12)),
    (date(2026, 9, 27), date(2026, 11, 8)),
    (date(2025, 12, 25), date(2026, 1, 8)),
]


def day(number: int, hour: int = 0, month: int = 1) -> datetime:
    return datetime(2026, month, number, hour, tzinfo=UTC)


def ends(interval: Interval) -> tuple[str, str]:
    return interval.start.isoformat(), interval.end.isoformat()


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("cron", DAILY)
def test_a_daily_schedule_fires_once_on_every_local_date(cron: str, zone: str) -> None:
    start = datetime(2025, 1, 1, tzinfo=ZoneInfo(zone))
    found = next_boundaries(Schedule(cron=cron, timezone=zone), start, 730)
    dates = [moment.astimezone(ZoneInfo(zone)).date() for moment in found]
    assert dates == [FIRST + timedelta(days=number) for number in range(730)]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=_named)
def test_intervals_follow_one_another_without_gap_or_overlap(schedule: Schedule) -> None:
    zone = ZoneInfo(schedule.timezone)
    for first, last in PERIODS:
        found = intervals_of(schedule, first, last)
        assert all(one.end == other.start for one, other in pairwise(found))
        assert all(one.start.astimezone(UTC) < one.end.astimezone(UTC) for one in found)
        assert found[0].start.astimezone(zone).date() <= first + timedelta(days=6)
        assert found[-1].end.astimezone(zone).date() > last


@given(schedule=st.sampled_from(SCHEDULES), now=MOMENTS)
def test_the_last_interval_is_over_and_nothing_fired_since_its_start(
    schedule: Schedule, now: datetime
) -> None:
    interval = last_interval(schedule, now)
    start, end = interval.start.astimezone(UTC), interval.end.astimezone(UTC)
    following = next_boundaries(schedule, start, 3)
    assert following[:2] == [start, end]
    assert end <= now < following[2]


@given(schedule=st.sampled_from(SCHEDULES), now=MOMENTS)
def test_the_interval_before_the_last_one_ends_where_that_starts(schedule: Schedule, now: datetime) -> None:
    last = last_interval(schedule, now)
    start = last.start.astimezone(UTC)
    assert last_interval(schedule, start).end == last.start
    assert last_interval(schedule, last.end) == last
    assert last_interval(schedule, last.end.astimezone(UTC) - timedelta(microseconds=1)).end == last.start


@given(schedule=st.sampled_from(SCHEDULES), now=MOMENTS, count=st.integers(1, 9))
def test_missed_intervals_are_the_newest_ones_oldest_first(
    schedule: Schedule, now: datetime, count: int
) -> None:
    missed = missed_intervals(schedule, now - timedelta(days=90), now, count)
    assert missed[-1] == last_interval(schedule, now)
    assert len(missed) == count
    assert all(one.end == other.start for one, other in pairwise(missed))
    assert missed_intervals(schedule, missed[0].end, now, 100) == missed[1:]
    assert missed_intervals(schedule, now, now, count) == []


@pytest.mark.parametrize(
    ("cron", "zone", "first", "expected"),
    [
        # The hour from 02:00 is skipped on 8 March, and the one from 01:00 comes twice on 1 November.
        (
            "30 2 * * *",
            "America/New_York",
            date(2026, 3, 7),
            ["2026-03-07T02:30:00-05:00", "2026-03-08T03:30:00-04:00", "2026-03-09T02:30:00-04:00"],
        ),
        (
            "30 1 * * *",
            "America/New_York",
            date(2026, 10, 31),
            ["2026-10-31T01:30:00-04:00", "2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"],
        ),
        (
            "30 1 * * *",
            "Europe/London",
            date(2026, 3, 28),
            ["2026-03-28T01:30:00+00:00", "2026-03-29T02:30:00+01:00", "2026-03-30T01:30:00+01:00"],
        ),
        # Half an hour from 02:00 is skipped on 4 October, and that from 01:30 comes twice on 5 April.
        (
            "15 2 * * *",
            "Australia/Lord_Howe",
            date(2026, 10, 3),
            ["2026-10-03T02:15:00+10:30", "2026-10-04T02:45:00+11:00", "2026-10-05T02:15:00+11:00"],
        ),
        (
            "45 1 * * *",
            "Australia/Lord_Howe",
            date(2026, 4, 4),
            ["2026-04-04T01:45:00+11:00", "2026-04-05T01:45:00+11:00", "2026-04-06T01:45:00+10:30"],
        ),
        # Midnight itself is skipped on 24 April.
        (
            "0 0 * * *",
            "Africa/Cairo",
            date(2026, 4, 23),
            ["2026-04-23T00:00:00+02:00", "2026-04-24T01:00:00+03:00", "2026-04-25T00:00:00+03:00"],
        ),
    ],
)
def test_intervals_of_dates_when_clocks_change(
    cron: str, zone: str, first: date, expected: list[str]
) -> None:
    found = intervals_of(Schedule(cron=cron, timezone=zone), first, first + timedelta(days=2))
    assert [interval.start.isoformat() for interval in found] == expected
    assert [interval.label for interval in found] == [text[:10] for text in expected]


def test_days_have_the_hours_that_they_have() -> None:
    schedule = Schedule(cron="0 0 * * *", timezone="Europe/London")
    for first, hours in [(date(2026, 3, 28), [24, 23, 24]), (date(2026, 10, 24), [24, 25, 24])]:
        found = intervals_of(schedule, first, first + timedelta(days=2))
        lengths = [one.end.astimezone(UTC) - one.start.astimezone(UTC) for one in found]
        assert [length / timedelta(hours=1) for length in lengths] == hours


def test_an_hourly_schedule_does_not_fire_twice_at_one_local_time() -> None:
    schedule = Schedule(cron="0 * * * *", timezone="America/New_York")
    counts = Counter(
        len(intervals_of(schedule, one, one))
        for one in [date(2026, 3, 7), date(2026, 3, 8), date(2026, 11, 1), date(2026, 11, 2)]
    )
    assert counts == {24: 3, 23: 1}
    (long,) = [
        one
        for one in intervals_of(schedule, date(2026, 11, 1), date(2026, 11, 1))
        if one.end.astimezone(UTC) - one.start.astimezone(UTC) == timedelta(hours=2)
    ]
    assert ends(long) == ("2026-11-01T01:00:00-04:00", "2026-11-01T02:00:00-05:00")


def test_dates_without_an_interval_have_none() -> None:
    weekly = Schedule(cron="0 6 * * mon")
    assert intervals_of(weekly, date(2026, 3, 3), date(2026, 3, 8)) == []
    (week,) = intervals_of(weekly, date(2026, 3, 2), date(2026, 3, 8))
    assert ends(week) == ("2026-03-02T06:00:00+00:00", "2026-03-09T06:00:00+00:00")


def test_dates_are_those_of_the_place() -> None:
    schedule = Schedule(cron="0 0 * * *", timezone="America/New_York")
    (found,) = intervals_of(schedule, date(2026, 1, 5), date(2026, 1, 5))
    assert ends(found) == ("2026-01-05T00:00:00-05:00", "2026-01-06T00:00:00-05:00")


def test_the_next_boundaries_begin_with_the_moment_itself() -> None:
    schedule = Schedule(cron="0 6 * * *")
    assert next_boundaries(schedule, day(1, 6), 2) == [day(1, 6), day(2, 6)]
    assert next_boundaries(schedule, day(1, 6) + timedelta(microseconds=1), 2) == [day(2, 6), day(3, 6)]
    yearly = next_boundaries(Schedule(cron="0 0 29 2 *"), day(1), 2)
    assert [moment.year for moment in yearly] == [2028, 2032]


@pytest.mark.parametrize("every", ["15m", "7h", "90s", "5400"])
def test_every_is_counted_from_one_midnight_whatever_clocks_do(every: str) -> None:
    step = {"15m": 900, "7h": 25_200, "90s": 90, "5400": 5400}[every]
    start = datetime(2026, 3, 8, 3, tzinfo=UTC)
    found = next_boundaries(Schedule(every=every, timezone="America/New_York"), start, 50)
    assert [one - other for other, one in pairwise(found)] == [timedelta(seconds=step)] * 49
    assert all((moment - ANCHOR).total_seconds() % step == 0 for moment in found)


def test_an_interval_can_be_converted_to_another_time_zone() -> None:
    told = Interval(start=day(2), end=day(3)).local("Asia/Tokyo")
    assert ends(told) == ("2026-01-02T09:00:00+09:00", "2026-01-03T09:00:00+09:00")


# ----- lateness: the interval of 5 January, which is due on the 6th


LATE = Interval(start=day(5), end=day(6))
ONE_DAY, TEN = "1 day, 1:00:00 late", "10 days, 0:00:00 late"


@pytest.mark.parametrize(
    ("catch_up", "max_lateness", "now", "reason"),
    [
        ("skip", None, day(6), None),
        ("skip", None, day(6, 23), None),
        ("skip", None, day(7, 1), f"{ONE_DAY}: missed intervals are skipped"),
        ("skip", "2h", day(6, 2), None),
        ("skip", "2h", day(6, 3), "3:00:00 late: missed intervals are skipped"),
        ("skip", "30h", day(7, 1), None),
        ("latest", None, day(6, 23), None),
        ("latest", None, day(7, 1), f"{ONE_DAY}: only the latest missed interval is processed"),
        ("latest", "2h", day(6, 3), None),
        ("latest", "2h", day(7, 1), f"{ONE_DAY}: only the latest missed interval is processed"),
        ("latest", "30h", day(7, 1), None),
        ("all", None, day(7, 1), None),
        ("all", None, day(9), None),
        ("all", None, day(16), f"{TEN}: only the latest 4 missed intervals are processed"),
        ("all", "2h", day(9), None),
        ("all", "2h", day(16), f"{TEN}: only the latest 4 missed intervals are processed"),
        ("all", "20d", day(16), None),
    ],
)
def test_a_late_run_is_skipped_as_configured(
    catch_up: str, max_lateness: str | None, now: datetime, reason: str | None
) -> None:
    schedule = Schedule.model_validate(
        {"cron": "0 0 * * *", "catch_up": catch_up, "max_lateness": max_lateness, "catch_up_limit": 4}
    )
    assert reason_to_skip(schedule, LATE, now) == reason


def test_as_many_missed_intervals_are_made_up_for_as_the_limit_says() -> None:
    schedule = Schedule(cron="0 0 * * *", catch_up="all", catch_up_limit=3)
    intervals = intervals_of(schedule, date(2026, 1, 1), date(2026, 1, 9))
    done = [one.label for one in intervals if reason_to_skip(schedule, one, day(10, 5)) is None]
    assert done == ["2026-01-07", "2026-01-08", "2026-01-09"]


# ----- what intervals are called


@pytest.mark.parametrize(
    ("start", "end", "zone", "label"),
    [
        (day(1), day(2), "UTC", "2026-01-01"),
        (day(1, 3), day(2, 3), "America/New_York", "2025-12-31"),
        (day(8, 5, 3), day(9, 4, 3), "America/New_York", "2026-03-08"),  # 23 hours
        (day(1), day(1, 1), "UTC", "2026-01-01 00:00:00 to 2026-01-01 01:00:00"),
        (day(1), day(8), "Europe/London", "2026-01-01 00:00:00 to 2026-01-08 00:00:00"),
    ],
)
def test_a_day_is_called_by_its_date_and_other_intervals_by_both_ends(
    start: datetime, end: datetime, zone: str, label: str
) -> None:
    assert Interval(start=start, end=end).local(zone).label == label


def test_the_key_of_an_interval_is_the_same_in_every_time_zone() -> None:
    interval = Interval(start=day(1), end=day(2))
    assert interval.key == "20260101T000000Z-20260102T000000Z"
    assert {interval.local(zone).key for zone in ZONES} == {interval.key}


@pytest.mark.parametrize("schedule", [one for one in SCHEDULES if one.cron], ids=_named)
def test_no_two_intervals_of_a_cron_schedule_have_one_key_or_one_label(schedule: Schedule) -> None:
    found = [one for period in PERIODS for one in intervals_of(schedule, *period)]
    assert len({one.key for one in found}) == len(found)
    assert len({one.label for one in found}) == len(found)


def test_an_interval_ends_after_it_starts_by_any_clock() -> None:
    zone = ZoneInfo("Europe/London")
    first, second = (datetime(2026, 10, 25, 1, 30, fold=fold, tzinfo=zone) for fold in (0, 1))
    assert Interval(start=first, end=second).key == "20261025T003000Z-20261025T013000Z"
    for start, end in [(second, first), (first, first)]:
        with pytest.raises(ValueError, match="the end must be after the start"):
            Interval(start=start, end=end)


# ----- mistakes


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"cron": "every day at three"},
            "cron: 'every day at three' is not a cron expression: minute, hour, day, month, day of week",
        ),
        (
            {"cron": "0 3 * * * 0"},
            "cron: '0 3 * * * 0' is not a cron expression: minute, hour, day, month, day of week",
        ),
        ({"cron": "61 3 * * *"}, "cron: '61 3 * * *' is not a cron expression such as '30 3 * * *'"),
        ({"cron": "@teatime"}, "cron: '@teatime' is not a cron expression such as '30 3 * * *'"),
        ({"cron": "R 3 * * *"}, "cron: 'R 3 * * *' is not a cron expression such as '30 3 * * *'"),
        ({"cron": "r(0-5) 3 * * *"}, "cron: 'r(0-5) 3 * * *' is not a cron expression such as '30 3 * * *'"),
        ({"cron": "R/15 * * * *"}, "cron: 'R/15 * * * *' is not a cron expression such as '30 3 * * *'"),
        ({"cron": "0 3 30 2 *"}, "cron: '0 3 30 2 *' never fires"),
        (
            {"cron": "0 3 * * *", "timezone": "Mars/Olympus"},
            "timezone: unknown time zone 'Mars/Olympus'; use one such as Europe/London",
        ),
        (
            {"cron": "0 3 * * *", "timezone": "../UTC"},
            "timezone: unknown time zone '../UTC'; use one such as Europe/London",
        ),
        (
            {"cron": "0 3 * * *", "timezone": ""},
            "timezone: unknown time zone ''; use one such as Europe/London",
        ),
        ({"cron": "0 3 * * *", "every": "15m"}, "configuration: set either cron or every"),
        ({}, "configuration: set either cron or every"),
        (
            {"every": "1d"},
            "configuration: every must be more than 0 and less than a day; use cron for days",
        ),
        (
            {"every": "0m"},
            "configuration: every must be more than 0 and less than a day; use cron for days",
        ),
        (
            {"every": "soon"},
            "every: should be a duration such as 90s, 15m, 2h or 1d, not 'soon'",
        ),
        ({"cron": "0 3 * * *", "catchup": "all"}, "catchup: unknown field; did you mean catch_up?"),
    ],
)
def test_a_mistake_is_one_line(values: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Schedule, values, "schedule")
    first, told, _ = str(caught.value).splitlines()
    assert (first, told) == ("schedule: 1 mistake", f"  {line}")
