"""Assignments of runs, and their records with the jobs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ValidationError

from siftline.config.batch import BatchConfig, RetriesConfig
from siftline.config.fields import Section
from siftline.config.loading import parse, resolve_config
from siftline.config.schedules import Interval, Schedule, last_interval
from siftline.errors import IntegrityError
from siftline.pipelines.steps import STANDARD_STEPS, Step, Steps
from siftline.storage.files import read_record, write_record
from siftline.storage.layout import JobFiles, Version


def _check_slugs(schedules: tuple[Schedule, ...]) -> tuple[Schedule, ...]:
    slugs = [schedule.slug for schedule in schedules]
    for slug in slugs:
        if slugs.count(slug) > 1:
            raise ValueError(f"two schedules have the slug {slug!r}; give each a slug of its own")
    return schedules


def _check_unset(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    for step in steps:
        if step.settings and not step.own:
            raise ValueError(f"the settings of {step.uses} belong in the configuration of the batch")
    return steps


Schedules = Annotated[tuple[Schedule, ...], AfterValidator(_check_slugs)]


class Assignment(Section):
    """The work of a run. Its interval is by default the last one that had ended when the run was due."""

    config: BatchConfig
    steps: Annotated[Steps, AfterValidator(_check_unset)] = STANDARD_STEPS
    parameters: dict[str, Any] | None = None
    schedules: Schedules = ()
    interval: Interval | None = None

    @property
    def announced(self) -> BatchConfig:
        """The batch before its templates are filled in; without a notification step, without `notify`."""
        if any(step.uses == "notification" for step in self.steps):
            return self.config
        return self.config.model_copy(update={"notify": ()})

    def due(self, when: datetime) -> Interval | None:
        """Return the interval of a run that was due at a moment."""
        schedule = self.schedule(when)
        if self.interval is not None:
            return self.interval.local(schedule.timezone if schedule else "UTC")
        return last_interval(schedule, when) if schedule else None

    def schedule(self, when: datetime) -> Schedule | None:
        """Return the schedule that fired at a moment, or was the last to fire before it."""
        return max(self.schedules, key=lambda one: last_interval(one, when).end, default=None)

    def batch(self, when: datetime, interval: Interval | None) -> BatchConfig:
        """Return the batch with its templates filled in; raise ConfigError if one is wrong."""
        return resolve_config(self.config, when, interval, self.parameters)

    def own_steps(self, *, notified: bool) -> list[Step]:
        """Return the user's own steps before the notification, or those after it."""
        order = [step.uses for step in self.steps]
        cut = order.index("notification") if "notification" in order else len(order)
        return [step for step in (self.steps[cut:] if notified else self.steps[:cut]) if step.own]

    def retries_of(self, uses: str) -> RetriesConfig | None:
        """Return the retries of a step, if set."""
        return next((step.retries for step in self.steps if step.uses == uses), None)


def assignment_of(parameters: Mapping[str, Any]) -> Assignment:
    """Return the assignment in the parameters of a run or deployment; raise ConfigError if they are wrong."""
    given = {key: value for key, value in parameters.items() if key != "fresh"}
    return parse(Assignment, given, "parameters of the run")


def keep_assignment(assignment: Assignment, directory: Path) -> None:
    """Write the assignment of a job's run, without the batch, which is in the job's plan."""
    record = assignment.model_dump(mode="json", exclude={"config"})
    write_record(JobFiles(directory).assignment, record, Version.ASSIGNMENT)


def kept_assignment(config: BatchConfig, directory: Path) -> Assignment:
    """Return the assignment of a job's last run; the standard steps if it is unknown."""
    try:
        record = read_record(JobFiles(directory).assignment, Version.ASSIGNMENT)
        return Assignment.model_validate({**record, "config": config})
    except (FileNotFoundError, IntegrityError, ValidationError):
        return Assignment(config=config)
