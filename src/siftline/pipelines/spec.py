"""Pipelines: what is deployed. A batch, the steps around it, when it runs, and how often at once."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PositiveInt,
    ValidationError,
    WithJsonSchema,
    field_validator,
)

from siftline.config.batch import (
    BatchConfig,
    Cluster,
    Name,
    NotifyConfig,
    RetriesConfig,
    Section,
    default_kind,
)
from siftline.config.loading import parse, parse_config, read_yaml, resolve_config
from siftline.config.schedules import Interval, Schedule, last_interval
from siftline.errors import ConfigError, InputError, IntegrityError, SourceError
from siftline.stages.inspection import inspect_batch
from siftline.storage.files import read_record, write_record

STANDARD = ("batch_processing", "result_validation", "notification")
_KEPT = "assignment.json"
_FORMAT_VERSION = 1
_IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def _check_slugs(schedules: tuple[Schedule, ...]) -> tuple[Schedule, ...]:
    slugs = [schedule.slug for schedule in schedules]
    for slug in slugs:
        if slugs.count(slug) > 1:
            raise ValueError(f"two schedules have the slug {slug!r}; give each a slug of its own")
    return schedules


Schedules = Annotated[tuple[Schedule, ...], AfterValidator(_check_slugs)]


class Step(Section):
    """A step of a pipeline: one of the standard ones, or a function of your own."""

    uses: str = Field(
        description="`batch_processing`, `result_validation`, `notification`, or a function of your own as "
        "`import.path:function`, which is called with the result.",
        examples=["result_validation", "company.reports:send"],
    )
    settings: dict[str, Any] = Field(
        default={},
        description="Of batch_processing: sections of the batch. Of result_validation: fields of "
        "`validation`. Of notification: `rules`. Of your own function: its arguments.",
        examples=[{"anomaly_rate": {"max": 0.05}}],
    )
    retries: RetriesConfig | None = Field(
        default=None,
        title="Retries",
        description="How often it is tried. Of batch_processing: each chunk, where the batch does not say.",
    )
    on_failure: Literal["fail", "warn"] = Field(
        default="fail",
        description="What a failure of your own function does to the run, whose result is published then.",
    )

    @field_validator("uses")
    @classmethod
    def _known(cls, uses: str) -> str:
        if uses not in STANDARD and not _IMPORT_PATH.fullmatch(uses):
            raise ValueError(f"{uses!r} is neither one of {', '.join(STANDARD)} nor import.path:function")
        return uses

    @property
    def own(self) -> bool:
        """Whether it is a function of the user's."""
        return self.uses not in STANDARD


def _check_steps(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    order = [step.uses for step in steps]
    for name in STANDARD:
        if order.count(name) > 1:
            raise ValueError(f"{name} is there twice")
    if order[:1] != ["batch_processing"]:
        raise ValueError("batch_processing comes first, and cannot be left out")
    if "result_validation" in order[2:]:
        raise ValueError("result_validation comes right after batch_processing, before anything is published")
    return steps


Steps = Annotated[tuple[Step, ...], AfterValidator(_check_steps)]
STANDARD_STEPS = tuple(Step(uses=name) for name in STANDARD)


def _check_unset(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    for step in steps:
        if step.settings and not step.own:
            raise ValueError(f"the settings of {step.uses} belong in the configuration of the batch")
    return steps


class Assignment(Section):
    """What a run is to do.

    Attributes
    ----------
    config : BatchConfig
        The batch, with the settings of the standard steps in it.
    steps : tuple of Step
        What is done, in order.
    parameters : dict
        Values for the templates of the configuration.
    schedules : tuple of Schedule
        Whose intervals the runs are about.
    interval : Interval or None
        What this run is about; by default the last interval that was over when it was due.
    """

    config: BatchConfig
    steps: Annotated[Steps, AfterValidator(_check_unset)] = STANDARD_STEPS
    parameters: dict[str, Any] | None = None
    schedules: Schedules = ()
    interval: Interval | None = None

    @property
    def told(self) -> BatchConfig:
        """The batch, before its templates are filled in; without notification, nobody is told of it."""
        if any(step.uses == "notification" for step in self.steps):
            return self.config
        return self.config.model_copy(update={"notify": ()})

    def due(self, when: datetime) -> Interval | None:
        """Return the interval that a run is about which was due at a moment."""
        schedule = self.schedule(when)
        if self.interval is not None:
            return self.interval.local(schedule.timezone if schedule else "UTC")
        return last_interval(schedule, when) if schedule else None

    def schedule(self, when: datetime) -> Schedule | None:
        """Return the schedule that fired at a moment, or was the last to fire before it."""
        return max(self.schedules, key=lambda one: last_interval(one, when).end, default=None)

    def batch(self, when: datetime, interval: Interval | None) -> BatchConfig:
        """Return the batch, with its templates filled in.

        Raises
        ------
        ConfigError
            When a template is wrong.
        """
        return resolve_config(self.config, when, interval, self.parameters)

    def own_steps(self, *, notified: bool) -> list[Step]:
        """Return the steps of the user's own before the notification, or those after it."""
        order = [step.uses for step in self.steps]
        cut = order.index("notification") if "notification" in order else len(order)
        return [step for step in (self.steps[cut:] if notified else self.steps[:cut]) if step.own]

    def retries_of(self, uses: str) -> RetriesConfig | None:
        """Return how often a step is tried, where that is said."""
        return next((step.retries for step in self.steps if step.uses == uses), None)


def assignment_of(parameters: Mapping[str, Any]) -> Assignment:
    """Return what the parameters of a run, or of a deployment, say is to be done.

    Raises
    ------
    ConfigError
        When they are wrong.
    """
    given = {key: value for key, value in parameters.items() if key != "fresh"}
    return parse(Assignment, given, "parameters of the run")


def keep_assignment(assignment: Assignment, directory: Path) -> None:
    """Write down in a job's directory what its run is to do, but for the batch: that is in the job's plan.

    Raises
    ------
    StorageError
        When it cannot be written.
    """
    record = assignment.model_dump(mode="json", exclude={"config"})
    write_record(directory / _KEPT, record, _FORMAT_VERSION)


def kept_assignment(config: BatchConfig, directory: Path) -> Assignment:
    """Return what the run of a job was to do; where that is not known, the standard steps."""
    try:
        record = read_record(directory / _KEPT, _FORMAT_VERSION)
        return Assignment.model_validate({**record, "config": config})
    except (FileNotFoundError, IntegrityError, ValidationError):
        return Assignment(config=config)


def _with_settings(values: dict[str, Any], steps: tuple[Step, ...]) -> dict[str, Any]:
    """Return the values of a batch as the standard steps want them.

    Without result_validation, a result need only be whole, whatever share of it is flagged; without
    notification nobody is told.
    """
    given = {step.uses: step for step in steps if not step.own}
    processing = given.pop("batch_processing")
    values = _merged(values, processing.settings)
    if processing.retries:
        retries = processing.retries.model_dump(mode="json", exclude_unset=True)
        values = _merged({"retries": retries}, values)
    validation, notification = given.get("result_validation"), given.get("notification")
    if validation is None:
        values.pop("validation", None)
    elif validation.settings:
        values = _merged(values, {"validation": validation.settings})
    if notification is None:
        values.pop("notify", None)
    elif notification.settings:
        values["notify"] = _rules(notification.settings)
    return values


def _rules(settings: Mapping[str, Any]) -> Any:
    if set(settings) != {"rules"}:
        raise ConfigError("steps.notification.settings: its one field is rules", "list there whom to tell")
    return settings["rules"]


def _merged(values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    both = {key for key in given if isinstance(given[key], dict) and isinstance(values.get(key), dict)}
    return {**values, **given, **{key: _merged(values[key], given[key]) for key in both}}


def import_step(step: Step) -> Callable[..., Any]:
    """Import the function of a step; modules in the working directory are found too.

    Raises
    ------
    ConfigError
        When it cannot be imported, or not be called.
    """
    module, _, name = step.uses.partition(":")
    try:
        with _working_directory_importable():
            function = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise ConfigError(
            f"steps: {step.uses}: {type(error).__name__}: {error}",
            "correct the import path, or install it where the runs happen",
        ) from error
    if not callable(function):
        raise ConfigError(f"steps: {step.uses}: not a function", "name one that takes the result")
    return function  # type: ignore[no-any-return]


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    before = list(sys.path)
    sys.path.insert(0, str(Path.cwd()))
    try:
        yield
    finally:
        sys.path[:] = before


class Concurrency(Section):
    """How many runs of a pipeline there may be at once; any number, where it is left out."""

    limit: PositiveInt = Field(default=1, description="Runs at once.")
    on_overlap: Literal["wait", "skip"] = Field(
        default="wait", description="What a run does that would be one too many: wait, or give up."
    )


class Pipeline(Section):
    """A pipeline, as a file in ``deployments/`` says it."""

    name: Name = Field(description="Name of the pipeline, and of its deployment.")
    description: str = Field(default="", description="What it is for, in Markdown.")
    tags: tuple[str, ...] = Field(default=(), description="Tags of its runs, beside `siftline`.")
    batch: Annotated[dict[str, Any], WithJsonSchema({"type": ["object", "string"]})] = Field(
        description="The batch: a configuration, or the path of a file with one, beside this file.",
        examples=["flights.yaml"],
    )
    steps: Steps = Field(
        default=STANDARD_STEPS,
        description="What is done, in order.",
        json_schema_extra={"default": [{"uses": name} for name in STANDARD]},
    )
    schedules: Schedules = Field(default=(), description="When it runs.")
    parameters: dict[str, Any] = Field(
        default={},
        description="Values for `{{ parameters.… }}` in the batch; a run may be given others.",
        examples=[{"region": "EU"}],
    )
    concurrency: Concurrency | None = Field(
        default=None, title="Concurrency", description="How many runs there may be at once."
    )
    work_pool: Name = Field(default="siftline", description="Work pool whose workers run it.")
    resources: Annotated[Cluster, BeforeValidator(default_kind)] | None = Field(
        default=None, description="Who scores the chunks: a `cluster`."
    )
    notifications: tuple[NotifyConfig, ...] | None = Field(
        default=None, description="Who is told: a list like `notify`."
    )
    automations: tuple[dict[str, Any], ...] = Field(
        default=(), description="Automations of its own, as in automations.yaml."
    )

    def config(self) -> BatchConfig:
        """Return the batch, with what the pipeline and its standard steps say of it.

        Raises
        ------
        ConfigError
            When it is wrong.
        """
        values = {"name": self.name, **self.batch}
        if self.resources is not None:
            values["cluster"] = self.resources.model_dump(mode="json", exclude_unset=True)
        if self.notifications is not None:
            values["notify"] = [one.model_dump(mode="json", exclude_unset=True) for one in self.notifications]
        return parse_config(_with_settings(values, self.steps), f"pipeline {self.name}: batch")

    def assignment(self) -> Assignment:
        """Return what a run is to do that nobody gives anything else.

        Raises
        ------
        ConfigError
            When the batch is wrong.
        """
        return Assignment(
            config=self.config(),
            steps=tuple(step if step.own else _without_settings(step) for step in self.steps),
            parameters=self.parameters,
            schedules=self.schedules,
        )


def _without_settings(step: Step) -> Step:
    """Return a standard step without what is in the batch's configuration."""
    retries = None if step.uses == "batch_processing" else step.retries
    return Step.model_validate({"uses": step.uses, **({"retries": retries} if retries else {})})


def load_pipeline(path: Path | str) -> Pipeline:
    """Read the file of a pipeline, and the file of its batch if that is one.

    Raises
    ------
    ConfigError
        When a file is missing or no YAML, or says something wrong.
    """
    values = read_yaml(Path(path))
    if isinstance(values.get("batch"), str):
        values["batch"] = read_yaml(Path(path).parent / values["batch"])
    return parse(Pipeline, values, str(path), "siftline schema pipeline")


def is_pipeline(path: Path) -> bool:
    """Whether a YAML file seems to be of a pipeline, rather than of a batch or of automations."""
    return "batch" in read_yaml(path)


def check_pipeline(pipeline: Pipeline, now: datetime) -> list[str]:
    """Check all of a pipeline that can be checked without a server, and return remarks.

    Of a source whose path depends on the interval, data need not be there yet: that is a remark.

    Raises
    ------
    InputError
        When something about it is wrong.
    """
    assignment = pipeline.assignment()
    for step in pipeline.steps:
        if step.own:
            import_step(step)
    try:
        inspect_batch(assignment.batch(now, assignment.due(now)))
    except SourceError as error:
        if "{{" not in assignment.config.source.path:
            raise error.about(f"pipeline {pipeline.name}") from None
        return [f"no data yet for a run now: {error.problem}"]
    except InputError as error:
        raise error.about(f"pipeline {pipeline.name}") from None
    return []
