"""Pipelines on a Prefect server: the changes that bring it in line with their files.

A pipeline is a deployment of batch-detection with its name and the tag ``siftline``. Deployments without the
tag are never touched. Schedules without a slug were made by hand and stay; automations named for the
pipeline belong to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate, WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyOptions
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.exceptions import ObjectNotFound
from prefect.utilities.callables import parameter_schema

from siftline.config.batch import BatchConfig
from siftline.config.fields import parse_duration
from siftline.config.schedules import ANCHOR, Schedule
from siftline.errors import ConfigError
from siftline.flows.batch_detection import batch_detection
from siftline.flows.control.automations import automation_changes, automation_mistakes, missing_deployments
from siftline.flows.control.change import Change
from siftline.flows.server import TAG, deployment_name, deployment_of, find_deployment
from siftline.pipelines.spec import Pipeline

ENTRYPOINT = "siftline.flows.batch_detection.batch_detection"
# The server's default: its setting is PREFECT_SERVER_API_MAX_PARAMETER_SIZE.
_MOST_BYTES = 512 * 1024
_STRATEGIES = {"wait": "ENQUEUE", "skip": "CANCEL_NEW"}


def check_on_server(client: SyncPrefectClient, pipeline: Pipeline) -> None:
    """Check that a server can take a pipeline, and has the blocks and deployments it refers to."""
    mistakes = list(_missing_blocks(client, pipeline.config()))
    size = len(json.dumps(parameters_of(pipeline)))
    if size > _MOST_BYTES:
        problem = f"parameters: {size:,} bytes, and the server takes {_MOST_BYTES:,}"
        mistakes.append(f"{problem}: move long values to a file that the source or your step reads")
    found = find_deployment(client, pipeline.name)
    if found is not None and TAG not in found.tags:
        problem = f"Siftline did not create the deployment {deployment_name(pipeline.name)}"
        mistakes.append(f"name: {problem} (it has no tag {TAG!r}): choose another name, or remove it")
    automations = _automations(pipeline)
    mistakes += automation_mistakes(automations) or missing_deployments(client, automations)
    if mistakes:
        lines = "\n".join(f"  {mistake}" for mistake in mistakes)
        raise ConfigError(f"pipeline {pipeline.name}:\n{lines}", "correct the file, or the server")


def check_blocks(client: SyncPrefectClient, config: BatchConfig) -> None:
    """Check that a server has the blocks of a configuration; raise ConfigError with those missing."""
    mistakes = list(_missing_blocks(client, config))
    if mistakes:
        raise ConfigError("; ".join(mistakes), "or correct the name")


def changes_for(client: SyncPrefectClient, pipeline: Pipeline) -> list[Change]:
    """Return the changes that bring a server in line with a pipeline's file, in order."""
    changes = [*_work_pool(client, pipeline)]
    found = find_deployment(client, pipeline.name)
    if found is None:
        changes.append(_creation(client, pipeline))
    else:
        changes += [*_update(client, pipeline, found), *_schedule_changes(client, pipeline, found)]
    return changes + automation_changes(client, _automations(pipeline), f"{pipeline.name}/")


def removal_of(client: SyncPrefectClient, pipeline: str) -> list[Change]:
    """Return the changes that remove a pipeline from a server."""
    found = deployment_of(client, pipeline)
    gone = Change("-", f"deployment {deployment_name(pipeline)}", partial(client.delete_deployment, found.id))
    return [*automation_changes(client, [], f"{pipeline}/"), gone]


def parameters_of(pipeline: Pipeline) -> dict[str, Any]:
    """Return the parameters of a pipeline's deployment, without the defaults."""
    assignment = pipeline.assignment()
    values = assignment.model_dump(mode="json", exclude_unset=True, exclude={"schedules", "steps"})
    if not assignment.parameters:
        del values["parameters"]
    if pipeline.steps != type(pipeline).model_fields["steps"].default:
        values["steps"] = [step.model_dump(mode="json", exclude_unset=True) for step in assignment.steps]
    if assignment.schedules:
        # Not with each schedule on the server: pausing one there clears its parameters.
        values["schedules"] = [
            one.model_dump(mode="json", exclude_unset=True, exclude={"active"})
            for one in assignment.schedules
        ]
    return values


def _automations(pipeline: Pipeline) -> list[dict[str, Any]]:
    return [{**one, "name": f"{pipeline.name}/{one.get('name', '')}"} for one in pipeline.automations]


def _missing_blocks(client: SyncPrefectClient, config: BatchConfig) -> Iterator[str]:
    named = [("notifications", rule.block) for rule in config.notify]
    if config.checkpoint.block is not None:
        named.append(("checkpoint.block", config.checkpoint.block))
    for where, block in named:
        kind, _, name = block.partition("/")
        try:
            client.read_block_document_by_name(name, kind)
        except ObjectNotFound:
            yield f"{where}: there is no block {block} on the server: create it (in its UI, under Blocks)"


def _work_pool(client: SyncPrefectClient, pipeline: Pipeline) -> Iterator[Change]:
    try:
        client.read_work_pool(pipeline.work_pool)
    except ObjectNotFound:
        pool = WorkPoolCreate(name=pipeline.work_pool, type="process")
        yield Change("+", f"work pool {pipeline.work_pool} (process)", partial(client.create_work_pool, pool))


def _wanted(pipeline: Pipeline) -> dict[str, Any]:
    """Return the fields of the deployment, apart from its schedules."""
    limit = pipeline.concurrency
    strategy = {"collision_strategy": _STRATEGIES[limit.on_overlap]} if limit else None
    return {
        "description": pipeline.description,
        "tags": [TAG, *pipeline.tags],
        "parameters": parameters_of(pipeline),
        "work_pool_name": pipeline.work_pool,
        "entrypoint": ENTRYPOINT,
        "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": str(Path.cwd())}}],
        "parameter_openapi_schema": parameter_schema(batch_detection).model_dump(exclude_none=True),
        "concurrency_limit": limit.limit if limit else None,
        "concurrency_options": ConcurrencyOptions.model_validate(strategy) if strategy else None,
    }


def _creation(client: SyncPrefectClient, pipeline: Pipeline) -> Change:
    def create() -> None:
        client.create_deployment(
            flow_id=client.create_flow(batch_detection),
            name=pipeline.name,
            schedules=[_for_server(schedule) for schedule in pipeline.schedules],
            enforce_parameter_schema=True,
            **_wanted(pipeline),
        )

    slugs = ", ".join(schedule.slug for schedule in pipeline.schedules)
    listed = f" with schedule{'s' if len(pipeline.schedules) > 1 else ''} {slugs}" if slugs else ""
    return Change("+", f"deployment {deployment_name(pipeline.name)}{listed}", create)


def _update(client: SyncPrefectClient, pipeline: Pipeline, found: DeploymentResponse) -> Iterator[Change]:
    wanted = _wanted(pipeline)
    limit = found.global_concurrency_limit
    current = {**dict(found), "concurrency_limit": limit.limit if limit else None}
    differing = {field: value for field, value in wanted.items() if current[field] != value}
    if differing:
        what = f"deployment {deployment_name(pipeline.name)}: {', '.join(differing)}"
        # The tags are always sent: Prefect's model would clear them otherwise.
        update = DeploymentUpdate(**{"tags": wanted["tags"], **differing})
        yield Change("~", what, partial(client.update_deployment, found.id, update))


def _for_server(schedule: Schedule) -> DeploymentScheduleCreate:
    if schedule.cron is not None:
        when: Any = CronSchedule(cron=schedule.cron, timezone=schedule.timezone)
    else:
        when = IntervalSchedule(interval=parse_duration(schedule.every or ""), anchor_date=ANCHOR)
    return DeploymentScheduleCreate(schedule=when, active=schedule.active, slug=schedule.slug)


def _schedule_changes(
    client: SyncPrefectClient, pipeline: Pipeline, found: DeploymentResponse
) -> Iterator[Change]:
    current = {one.slug: one for one in found.schedules if one.slug}
    wanted = {schedule.slug: _for_server(schedule) for schedule in pipeline.schedules}
    for slug in dict.fromkeys([*wanted, *current]):
        what = f"schedule {slug} of {pipeline.name}"
        new, old = wanted.get(slug), current.get(slug)
        if new and not old:
            yield Change("+", what, partial(client.create_deployment_schedules, found.id, [new]))
        elif old and not new:
            yield Change("-", what, partial(client.delete_deployment_schedule, found.id, old.id))
        elif new and old and new.schedule.model_dump(mode="json") != old.schedule.model_dump(mode="json"):
            # A schedule that is paused on the server stays paused.
            update = partial(client.update_deployment_schedule, found.id, old.id, active=old.active)
            yield Change("~", what, partial(update, schedule=new.schedule, parameters=old.parameters))
