"""Pipelines, the unit of deployment: a batch, its steps, its schedules and its concurrency."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt, WithJsonSchema, model_validator

from siftline.config.batch import BatchConfig
from siftline.config.clusters import Cluster, default_kind
from siftline.config.fields import Name, Section
from siftline.config.loading import parse, parse_config, read_yaml
from siftline.config.paths import local_path
from siftline.config.resources import ResourcesConfig
from siftline.config.templates import has_template
from siftline.errors import ConfigError, InputError, SourceError, renamed
from siftline.pipelines.assignment import Assignment, Schedules
from siftline.pipelines.steps import STANDARD, STANDARD_STEPS, Step, Steps, import_step
from siftline.stages.inspection import inspect_batch


def _with_settings(values: dict[str, Any], steps: tuple[Step, ...]) -> dict[str, Any]:
    """Return the values of a batch with the settings of its standard steps; without those of absent steps."""
    given = {step.uses: step for step in steps if not step.own}
    processing = given.pop("batch_processing")
    values = _merged(values, processing.settings)
    if processing.retries:
        retries = processing.retries.model_dump(mode="json", exclude_unset=True)
        values = _merged({"retries": retries}, values)
    validation, notification = given.get("result_validation"), given.get("notification")
    if validation is None:
        values["validation"] = {"ties": "warn"}
    elif validation.settings:
        values = _merged(values, {"validation": validation.settings})
    if notification is None:
        values.pop("notify", None)
    elif notification.settings:
        problem = "steps.notification.settings: it has no settings"
        raise ConfigError(problem, "list the notifications in notify of the batch")
    return values


def _merged(values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    both = {key for key in given if isinstance(given[key], dict) and isinstance(values.get(key), dict)}
    return {**values, **given, **{key: _merged(values[key], given[key]) for key in both}}


class Concurrency(Section):
    """Limit of concurrent runs of a pipeline. Default: no limit."""

    limit: PositiveInt = 1
    """Concurrent runs."""
    on_overlap: Literal["wait", "skip"] = "wait"
    """Action of a run that would exceed the limit: wait, or give up."""


class Pipeline(Section):
    """A pipeline, as read from a file in ``deployments/``."""

    name: Name
    """Name of the pipeline, and of its deployment."""
    description: str = ""
    """Purpose of the pipeline, in Markdown."""
    tags: tuple[str, ...] = ()
    """Tags of its runs, in addition to `siftline`."""
    batch: Annotated[dict[str, Any], WithJsonSchema({"type": ["object", "string"]})] = Field(
        examples=["flights.yaml"]
    )
    """The batch: a configuration, or the path of one, relative to this file."""
    steps: Steps = Field(
        default=STANDARD_STEPS, json_schema_extra={"default": [{"uses": name} for name in STANDARD]}
    )
    """Steps of a run, in order."""
    schedules: Schedules = ()
    """Schedules of the runs."""
    parameters: dict[str, Any] = Field(default={}, examples=[{"region": "EU"}])
    """Values for `{{ parameters.… }}` in the batch; a run may override them."""
    concurrency: Concurrency | None = Field(default=None, title="Concurrency")
    """Limit of concurrent runs."""
    work_pool: Name = "siftline"
    """Work pool whose workers run it."""
    cluster: Annotated[Cluster, BeforeValidator(default_kind)] | None = None
    """Where chunks are scored, instead of the `cluster` of the batch."""
    resources: ResourcesConfig | None = Field(default=None, title="Resources")
    """Resources that its jobs ask for, instead of the `resources` of the batch."""
    automations: tuple[dict[str, Any], ...] = ()
    """Automations of its own, as in automations.yaml."""

    @model_validator(mode="before")
    @classmethod
    def _cluster_by_its_name(cls, values: Any) -> Any:
        """Take a cluster under its former name."""
        given = values.get("resources") if isinstance(values, dict) else None
        if not isinstance(given, dict) or given.keys() <= ResourcesConfig.model_fields.keys():
            return values
        renamed("a cluster as resources of a pipeline", "its cluster")
        return {**{key: value for key, value in values.items() if key != "resources"}, "cluster": given}

    @model_validator(mode="before")
    @classmethod
    def _one_place_for_notifications(cls, values: Any) -> Any:
        """Move notifications from their former places."""
        if not isinstance(values, dict) or not isinstance(values.get("batch"), dict):
            return values
        values, batch = dict(values), dict(values["batch"])
        if "notifications" in values:
            renamed("notifications of a pipeline", "notify of its batch")
            former = values.pop("notifications")
            if former is not None:
                batch["notify"] = former
        steps = values.get("steps")
        for number, step in enumerate(steps if isinstance(steps, (list, tuple)) else ()):
            if isinstance(step, dict) and step.get("uses") == "notification":
                settings = step.get("settings")
                if isinstance(settings, dict) and settings.keys() == {"rules"}:
                    renamed("settings.rules of the step notification", "notify of the batch")
                    batch["notify"] = settings["rules"]
                    values["steps"] = [*steps[:number], {**step, "settings": {}}, *steps[number + 1 :]]
        return {**values, "batch": batch}

    def config(self) -> BatchConfig:
        """Return the batch with the settings of the pipeline and its steps; raise ConfigError if invalid."""
        values = {"name": self.name, **self.batch}
        for name in ("cluster", "resources"):
            section = getattr(self, name)
            if section is not None:
                values[name] = section.model_dump(mode="json", exclude_unset=True)
        return parse_config(_with_settings(values, self.steps), f"pipeline {self.name}: batch")

    def assignment(self) -> Assignment:
        """Return the assignment of a run without parameters of its own."""
        return Assignment(
            config=self.config(),
            steps=tuple(step if step.own else _without_settings(step) for step in self.steps),
            parameters=self.parameters,
            schedules=self.schedules,
        )


def _without_settings(step: Step) -> Step:
    """Return a standard step without the settings that are in the batch's configuration."""
    retries = None if step.uses == "batch_processing" else step.retries
    return Step.model_validate({"uses": step.uses, **({"retries": retries} if retries else {})})


def load_pipeline(path: Path | str) -> Pipeline:
    """Read the file of a pipeline, and that of its batch; raise ConfigError if one is invalid."""
    values = read_yaml(Path(path))
    if isinstance(values.get("batch"), str):
        values["batch"] = read_yaml(Path(path).parent / _batch_file(values["batch"], path))
    return parse(Pipeline, values, str(path), "siftline schema pipeline")


def _batch_file(given: str, pipeline: Path | str) -> str:
    try:
        return local_path(given)
    except ValueError as error:
        raise ConfigError(f"{pipeline}: batch: {error}", "give the path of a configuration file") from None


def is_pipeline(path: Path) -> bool:
    """Return True if a YAML file seems to be of a pipeline, not of a batch or automations."""
    return "batch" in read_yaml(path)


def check_pipeline(pipeline: Pipeline, now: datetime) -> list[str]:
    """Check a pipeline without a server; raise InputError, or return remarks.

    Missing data of a source whose path depends on the interval is only a remark.
    """
    assignment = pipeline.assignment()
    for step in pipeline.steps:
        if step.own:
            import_step(step)
    try:
        inspect_batch(assignment.batch(now, assignment.due(now)))
    except SourceError as error:
        if not has_template(assignment.config.source.path):
            raise error.about(f"pipeline {pipeline.name}") from None
        return [f"no data yet for a run now: {error.problem}"]
    except InputError as error:
        raise error.about(f"pipeline {pipeline.name}") from None
    return []
