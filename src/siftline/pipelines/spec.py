"""Pipelines: what is deployed. A batch, the steps around it, when it runs, and how often at once."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PositiveInt,
    WithJsonSchema,
)

from siftline.config.batch import BatchConfig, NotifyConfig
from siftline.config.clusters import Cluster, default_kind
from siftline.config.fields import Name, Section
from siftline.config.loading import parse, parse_config, read_yaml
from siftline.errors import ConfigError, InputError, SourceError
from siftline.pipelines.assignment import Assignment, Schedules
from siftline.pipelines.steps import STANDARD, STANDARD_STEPS, Step, Steps, import_step
from siftline.stages.inspection import inspect_batch


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
