"""Schedules of pipelines, and the data interval of each run.

A schedule fires at its *boundaries*. Two consecutive ones bound an *interval*, which is due at its end and
processed by the run that fires then: intervals have no gaps and no overlaps, even when clocks change.

Cron means local time. A boundary at a skipped local time is as much later: ``30 2 * * *`` is 03:30 on that
day in New York. Of a repeated local time, the first one counts. A daily schedule therefore fires once on
every local date. Prefect's server fires the same way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice, takewhile
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, AwareDatetime, Field, PositiveInt, model_validator

from siftline.config.fields import Duration, Name, Section, parse_duration

# No clock changes by more.
_MOST_SHIFTED = timedelta(hours=3)
# croniter draws a new random number for these each time.
_AT_RANDOM = re.compile(r"\b[rh]\b", re.IGNORECASE)
ANCHOR = datetime(2020, 1, 1, tzinfo=UTC)


def _check_cron(cron: str) -> str:
    from croniter import CroniterBadDateError, croniter  # slow, and most batches have no schedule

    if len(cron.split()) != 5 and not cron.startswith("@"):
        raise ValueError(f"{cron!r} is not a cron expression: minute, hour, day, month, day of week")
    if not croniter.is_valid(cron) or _AT_RANDOM.search(cron):
        raise ValueError(f"{cron!r} is not a cron expression such as '30 3 * * *'")
    try:
        croniter(cron, datetime(2020, 1, 1)).get_next(datetime)  # noqa: DTZ001  a local time
    except CroniterBadDateError:
        raise ValueError(f"{cron!r} never fires") from None
    return cron


def _check_timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # KeyError: an invalid name
        raise ValueError(f"unknown time zone {name!r}; use one such as Europe/London") from None
    return name


class Interval(Section):
    """Half-open interval of time: the start is included, the end is not."""

    start: AwareDatetime = Field(examples=["2026-03-01T00:00:00Z"])
    """Start, included."""
    end: AwareDatetime = Field(examples=["2026-03-02T00:00:00Z"])
    """End, not included."""

    @model_validator(mode="after")
    def _ordered(self) -> Interval:
        if self.start.astimezone(UTC) >= self.end.astimezone(UTC):
            raise ValueError("the end must be after the start")
        return self

    @property
    def key(self) -> str:
        """Name in file names: both ends, in UTC."""
        return "-".join(f"{end.astimezone(UTC):%Y%m%dT%H%M%SZ}" for end in (self.start, self.end))

    @property
    def label(self) -> str:
        """Name for people: the date for about a day, otherwise both ends."""
        if timedelta(hours=22) < self.end.astimezone(UTC) - self.start.astimezone(UTC) < timedelta(hours=26):
            return f"{self.start:%Y-%m-%d}"
        return f"{self.start:%Y-%m-%d %H:%M:%S} to {self.end:%Y-%m-%d %H:%M:%S}"

    def local(self, timezone: str) -> Interval:
        """Return the same interval in another time zone."""
        zone = ZoneInfo(timezone)
        return Interval(start=self.start.astimezone(zone), end=self.end.astimezone(zone))


class Schedule(Section):
    """A schedule of a pipeline."""

    slug: Name = "default"
    """Name of the schedule, unique within its pipeline."""
    cron: Annotated[str, AfterValidator(_check_cron)] | None = Field(default=None, examples=["30 3 * * *"])
    """Cron expression: minute, hour, day, month, day of week."""
    every: Duration | None = Field(default=None, examples=["15m"])
    """In place of cron: period of less than a day, counted from midnight UTC."""
    timezone: Annotated[str, AfterValidator(_check_timezone)] = Field(
        default="UTC", examples=["America/New_York"]
    )
    """Time zone of the cron expression and of dates."""
    active: bool = True
    """Whether the schedule is active when first created. Afterwards use pause and resume."""
    catch_up: Literal["skip", "latest", "all"] = "latest"
    """Missed intervals to process later: none (`skip`), the newest (`latest`), or `all`, oldest first."""
    max_lateness: Duration | None = Field(default=None, examples=["2h"])
    """How late a run may start before its interval counts as missed. Default: until the next one is due."""
    catch_up_limit: PositiveInt = 30
    """Most missed intervals to process later; the newest are kept."""

    @model_validator(mode="after")
    def _one_rhythm(self) -> Schedule:
        if (self.cron is None) == (self.every is None):
            raise ValueError("set either cron or every")
        if self.every is not None and not timedelta(0) < parse_duration(self.every) < timedelta(days=1):
            raise ValueError("every must be more than 0 and less than a day; use cron for days")
        return self


def last_interval(schedule: Schedule, now: datetime) -> Interval:
    """Return the last interval that ended at or before a moment, in the schedule's time zone."""
    return next(_newest_first(schedule, now))


def missed_intervals(schedule: Schedule, after: datetime, now: datetime, most: int) -> list[Interval]:
    """Return the newest intervals that ended between two moments, oldest first."""
    after = _utc(after)
    newest = takewhile(lambda interval: interval.end.astimezone(UTC) > after, _newest_first(schedule, now))
    return list(islice(newest, most))[::-1]


def intervals_of(schedule: Schedule, first: date, last: date) -> list[Interval]:
    """Return the intervals that start on local dates from the first to the last, oldest first."""
    zone = ZoneInfo(schedule.timezone)
    days = (first, last + timedelta(days=1))
    start, stop = (datetime.combine(day, time.min, zone).astimezone(UTC) for day in days)
    starts = [one for one in _boundaries(schedule, start, stop) if one < stop]
    ends = [*starts[1:], *next_boundaries(schedule, stop, 1)]
    pairs = zip(starts, ends, strict=True) if starts else ()
    return [Interval(start=start, end=end).local(schedule.timezone) for start, end in pairs]


def next_boundaries(schedule: Schedule, moment: datetime, count: int) -> list[datetime]:
    """Return the first boundaries from a moment on, in UTC."""
    moment, reach = _utc(moment), timedelta(hours=1)
    while len(found := _boundaries(schedule, moment, moment + reach)) < count:
        reach *= 4
    return found[:count]


def reason_to_skip(schedule: Schedule, interval: Interval, now: datetime) -> str | None:
    """Return why a run that starts now must skip its interval, or None."""
    newer = len(missed_intervals(schedule, interval.end, now, schedule.catch_up_limit))
    late = now - interval.end
    if not (late > parse_duration(schedule.max_lateness) if schedule.max_lateness else newer):
        return None
    lateness = f"{timedelta(seconds=int(late.total_seconds()))} late"
    if schedule.catch_up == "skip":
        return f"{lateness}: missed intervals are skipped"
    if schedule.catch_up == "latest" and newer:
        return f"{lateness}: only the latest missed interval is processed"
    if schedule.catch_up == "all" and newer >= schedule.catch_up_limit:
        return f"{lateness}: only the latest {schedule.catch_up_limit} missed intervals are processed"
    return None


# Below, all moments are in UTC: Python compares two of one time zone by their wall clocks.


def _utc(moment: datetime) -> datetime:
    """Return a moment in UTC as a plain datetime: Prefect's have arithmetic of their own."""
    moment = moment.astimezone(UTC)
    return datetime.combine(moment.date(), moment.time(), UTC)


def _newest_first(schedule: Schedule, now: datetime) -> Iterator[Interval]:
    end = _last_boundary(schedule, _utc(now))
    while True:
        start = _last_boundary(schedule, end - timedelta(microseconds=1))
        yield Interval(start=start, end=end).local(schedule.timezone)
        end = start


def _last_boundary(schedule: Schedule, moment: datetime) -> datetime:
    reach = timedelta(hours=1)
    while not (found := _boundaries(schedule, moment - reach, moment)):
        reach *= 4
    return found[-1]


def _boundaries(schedule: Schedule, start: datetime, stop: datetime) -> list[datetime]:
    """Return the boundaries from start to stop, both included."""
    found = _cron(schedule, start, stop) if schedule.cron else _every(schedule, start, stop)
    return [moment for moment in sorted(found) if start <= moment <= stop]


def _cron(schedule: Schedule, start: datetime, stop: datetime) -> set[datetime]:
    """Return all boundaries between two moments, and some outside."""
    from croniter import croniter

    zone = ZoneInfo(schedule.timezone)
    ticks = croniter(schedule.cron or "", start.astimezone(zone).replace(tzinfo=None) - _MOST_SHIFTED)
    last = stop.astimezone(zone).replace(tzinfo=None) + _MOST_SHIFTED
    local = takewhile(lambda tick: tick <= last, ticks.all_next(datetime))
    # As Prefect does: a skipped local time is as much later, and a repeated one is the first.
    return {tick.replace(tzinfo=zone, fold=0).astimezone(UTC) for tick in local}


def _every(schedule: Schedule, start: datetime, stop: datetime) -> set[datetime]:
    step = parse_duration(schedule.every or "")
    first = (start - ANCHOR) // step
    return {ANCHOR + number * step for number in range(first, (stop - ANCHOR) // step + 1)}
