"""Schedules fire when Prefect's server says that they do."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from prefect.server.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.types._datetime import now

from siftline.config.schedules import ANCHOR, Schedule, last_interval, missed_intervals, next_boundaries

ZONES = ["America/New_York", "Europe/London", "Australia/Lord_Howe", "UTC"]
CRONS = ["30 2 * * *", "30 1 * * *", "15 2 * * *", "45 1 * * *", "0 0 * * *", "30 1 * * 0", "0 0 1 * *"]
# When clocks change in one of the zones in 2026, as month and day.
CHANGES = [(3, 8), (3, 29), (4, 5), (10, 4), (10, 25), (11, 1)]
# So few at a time that Prefect, which looks at 1000 at most, finds them all; and begun at any time of day.
SPANS = [datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=73, hours=5) * number for number in range(10)]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("cron", CRONS)
def test_cron_fires_when_prefect_does(cron: str, zone: str) -> None:
    schedule, theirs = Schedule(cron=cron, timezone=zone), CronSchedule(cron=cron, timezone=zone)
    for start in SPANS:
        count = len(found := dates(theirs, start, start + timedelta(days=80)))
        assert found == next_boundaries(schedule, start, count)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("cron", ["0 * * * *", "*/20 * * * *"])
def test_cron_within_the_hour_fires_when_prefect_does_around_changes_of_clocks(cron: str, zone: str) -> None:
    schedule, theirs = Schedule(cron=cron, timezone=zone), CronSchedule(cron=cron, timezone=zone)
    for month, day in CHANGES:
        start = datetime(2026, month, day, tzinfo=UTC) - timedelta(days=2)
        count = len(found := dates(theirs, start, start + timedelta(days=4)))
        assert found == next_boundaries(schedule, start, count)


@pytest.mark.parametrize(("every", "minutes"), [("15m", 15), ("7h", 420), ("90m", 90)])
def test_every_fires_when_prefect_does(every: str, minutes: int) -> None:
    schedule = Schedule(every=every, timezone="America/New_York")
    theirs = IntervalSchedule(interval=timedelta(minutes=minutes), anchor_date=ANCHOR, timezone="UTC")
    start = datetime(2026, 3, 7, 3, 1, tzinfo=UTC)
    found = dates(theirs, start, start + timedelta(days=3))
    assert found == next_boundaries(schedule, start, len(found))


def dates(schedule: CronSchedule | IntervalSchedule, start: datetime, end: datetime) -> list[datetime]:
    found = asyncio.run(schedule.get_dates(start=start, end=end))
    assert 1 <= len(found) < 1000
    return [moment.astimezone(UTC) for moment in found]


def test_moments_may_be_those_of_prefect() -> None:
    schedule = Schedule(cron="30 2 * * *", timezone="America/New_York")
    moment = now("UTC")
    plain = datetime.fromisoformat(moment.isoformat())
    assert last_interval(schedule, moment) == last_interval(schedule, plain)
    assert type(last_interval(schedule, moment).end) is datetime
    assert next_boundaries(schedule, moment, 3) == next_boundaries(schedule, plain, 3)
    before = moment - timedelta(days=9)
    assert len(missed_intervals(schedule, before, moment, 5)) == 5
