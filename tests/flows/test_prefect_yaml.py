"""The deployments in prefect.yaml, as they are written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from prefect.utilities.callables import parameter_schema
from prefect.utilities.templating import find_placeholders

from siftline import BatchConfig, load_config
from siftline.flows.batch_detection import batch_detection

ROOT = Path(__file__).parents[2]

# What has no default: there is none that could work.
REQUIRED = {
    "config",
    "BatchConfig.source",
    "BatchConfig.output",
    "SourceConfig.path",
    "OutputConfig.path",
    "NotifyConfig.block",
    "AddressCluster.address",
    "FactoryCluster.factory",
    "WorkerRange.maximum",
    "TlsConfig.ca",
    "TlsConfig.cert",
    "TlsConfig.key",
    "AddressCluster.kind",
    "FactoryCluster.kind",
    "SerialCluster.kind",
    "Step.uses",
    "Interval.start",
    "Interval.end",
}


def deployments() -> dict[str, dict[str, Any]]:
    text = (ROOT / "prefect.yaml").read_text(encoding="utf-8")
    return {deployment["name"]: deployment for deployment in yaml.safe_load(text)["deployments"]}


def fields(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Every field of a form: its path, what is shown of it, and whether it must be filled in."""
    definitions = schema["definitions"]
    for prefix, section in [("", schema), *((f"{name}.", one) for name, one in definitions.items())]:
        for name, field in section["properties"].items():
            shown = {**definitions.get(field.get("$ref", "").rpartition("/")[2], {}), **field}
            yield prefix + name, shown, name in section.get("required", ())


def test_the_nightly_deployment_runs_the_configuration_of_the_demo() -> None:
    nightly = deployments()["flights-nightly"]
    demo = yaml.safe_load((ROOT / "deployments/flights.yaml").read_text(encoding="utf-8"))

    assert nightly["parameters"]["config"] == demo
    assert BatchConfig.model_validate(demo) == load_config(ROOT / "deployments/flights.yaml")


def test_the_form_has_what_a_run_is_given_most_before_what_is_long_and_seldom_changed() -> None:
    shown = sorted(parameter_schema(batch_detection).properties.items(), key=lambda one: one[1]["position"])

    assert [name for name, _ in shown] == [
        "config",
        "fresh",
        "interval",
        "parameters",
        "steps",
        "schedules",
    ]


def test_the_nightly_deployment_has_a_schedule_with_timezone_and_slug() -> None:
    nightly = deployments()["flights-nightly"]

    (schedule,) = nightly["schedules"]
    assert {"cron", "timezone", "slug"} <= schedule.keys()
    assert nightly["work_pool"]["name"] == "siftline"
    assert nightly["entrypoint"] == "siftline.flows.batch_detection.batch_detection"


def test_no_parameter_holds_a_placeholder_that_deploying_would_eat() -> None:
    for deployment in deployments().values():
        assert not find_placeholders(deployment.get("parameters", {}))


def test_every_field_of_the_form_says_what_it_is_for_and_has_a_default() -> None:
    schema = parameter_schema(batch_detection).model_dump()

    found = list(fields(schema))
    assert len(found) > 40
    assert [path for path, shown, _ in found if not shown.get("title")] == []
    assert [path for path, shown, _ in found if not shown.get("description")] == []
    assert {path for path, _, required in found if required} == REQUIRED
    assert [path for path, shown, required in found if not required and "default" not in shown] == []


def test_the_defaults_of_the_form_are_accepted_as_they_are() -> None:
    schema = parameter_schema(batch_detection).model_dump()
    config = schema["definitions"]["BatchConfig"]["properties"]
    values = {name: field["default"] for name, field in config.items() if "default" in field}
    given = {"source": {"path": "data.parquet"}, "output": {"path": "results"}}

    assert BatchConfig.model_validate({**values, **given}) == BatchConfig.model_validate(given)
