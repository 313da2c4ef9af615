"""Notifications through Prefect blocks, delivered to a real web server; none changes a run's outcome."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.blocks.system import Secret
from pydantic import SecretStr

from flows.batch_detection import batch_detection
from siftline import open_results
from tests.flows.batches import configuration
from tests.flows.records import flow_run, log
from tests.flows.webhook import Webhook, serving

TOO_STRICT = {"anomaly_rate": {"max": 0.001}}
# Split, so that a traceback that quotes this file does not look like a leak.
TOKEN = "-".join(["very", "secret", "token"])


@pytest.fixture(scope="module")
def server() -> Iterator[Webhook]:
    with serving() as webhook:
        yield webhook


@pytest.fixture
def webhook(server: Webhook) -> Webhook:
    server.received.clear()
    server.status = 200
    return server


def everything_written(directory: Path) -> str:
    """All text that a job left behind in its output and its checkpoint."""
    files = [path for path in directory.rglob("*.json") if path.is_file()]
    assert any(path.name == "plan.json" for path in files)
    return "\n".join(path.read_text() for path in files)


def test_completed_and_failed_are_told_to_whom_the_rules_say(tmp_path: Path, webhook: Webhook) -> None:
    rules = [
        {"block": webhook.block("all")},
        {"block": webhook.block("failures"), "on": ["failed"]},
        {"block": webhook.block("successes"), "on": ["completed"]},
    ]
    values = configuration(tmp_path, notify=rules)

    result = batch_detection(values)

    assert sorted(request.path for request in webhook.received) == ["/all", "/successes"]
    for request in webhook.received:
        assert request.body["subject"] == "Siftline: test completed"
        assert "6 anomalies among 600 rows" in request.body["body"]
        assert result.job_id in request.body["body"]

    webhook.received.clear()
    state = batch_detection({**values, "validation": TOO_STRICT}, return_state=True)

    assert state.name == "FailedForGood"
    assert sorted(request.path for request in webhook.received) == ["/all", "/failures"]
    for request in webhook.received:
        assert request.body["subject"] == "Siftline: test failed for good"
        what, kept, command = request.body["body"].splitlines()
        assert what.startswith("ValidationFailed: the result did not pass 1 of 6 checks: anomaly rate: 0.01 ")
        assert kept == (
            f"Kept: the chunks of job {result.job_id} that are done, "
            "and the result that was published before."
        )
        assert command == (
            f"To go on: siftline resume {result.job_id} --checkpoint {values['checkpoint']['path']}"
        )


def test_a_failure_that_another_run_may_help_is_told_as_such(tmp_path: Path, webhook: Webhook) -> None:
    values = configuration(tmp_path, notify=[{"block": webhook.block("all")}])
    cluster = {"kind": "factory", "factory": "no_such_module.Cluster"}

    state = batch_detection({**values, "cluster": cluster}, return_state=True)

    assert (state.type.value, state.name) == ("FAILED", "Failed")
    (request,) = webhook.received
    assert request.body["subject"] == "Siftline: test failed"
    assert request.body["body"].startswith(
        "ClusterError: cluster.factory no_such_module.Cluster: No module named 'no_such_module'; "
    )


def test_of_one_cause_people_are_told_once_for_a_job(tmp_path: Path, webhook: Webhook) -> None:
    values = configuration(tmp_path, validation=TOO_STRICT, notify=[{"block": webhook.block("all")}])
    subjects = []
    for _ in range(2):
        assert batch_detection(values, return_state=True).name == "FailedForGood"
        subjects.append([request.body["subject"] for request in webhook.received])
    assert subjects == [["Siftline: test failed for good"]] * 2

    # Another job, and another cause, are told; and once it was published, the first cause is again.
    other = {**values, "detector": {"params": {"n_estimators": 11}}}
    assert batch_detection(other, return_state=True).name == "FailedForGood"
    unreachable = {**values, "cluster": {"kind": "factory", "factory": "no_such_module.Cluster"}}
    assert batch_detection(unreachable, return_state=True).name == "Failed"
    batch_detection({**values, "validation": {}})
    assert batch_detection(values, return_state=True).name == "FailedForGood"
    assert [request.body["subject"] for request in webhook.received[1:]] == [
        "Siftline: test failed for good",
        "Siftline: test failed",
        "Siftline: test completed",
        "Siftline: test failed for good",
    ]


def test_nobody_is_told_of_a_finished_job_again(tmp_path: Path, webhook: Webhook) -> None:
    values = configuration(tmp_path, notify=[{"block": webhook.block("all")}])
    states = [batch_detection(values).state for _ in range(2)]
    assert states == ["Completed", "AlreadyPublished"]
    assert [request.body["subject"] for request in webhook.received] == ["Siftline: test completed"]


def test_a_notifier_that_fails_changes_nothing_and_is_reported(tmp_path: Path, webhook: Webhook) -> None:
    with serving() as gone:
        down = gone.block("down")
    Secret(value="x").save("not-a-notifier", overwrite=True, _sync=True)
    rules = [
        {"block": "custom-webhook/never-made"},
        {"block": "secret/not-a-notifier"},
        {"block": down},
        {"block": webhook.block("last")},
    ]

    result = batch_detection(configuration(tmp_path, notify=rules))

    assert flow_run(result.flow_run_id).state_name == "Completed"
    assert open_results(result.output).manifest.rows == 600
    assert [request.path for request in webhook.received] == ["/last"], (
        "the others don't keep it from being told"
    )
    said = log(result.flow_run_id)
    for block in ("custom-webhook/never-made", "secret/not-a-notifier", "custom-webhook/down"):
        assert f"notification through {block} was not delivered" in said
    assert "custom-webhook/last" not in said


@pytest.mark.parametrize(
    ("validation", "outcome"), [({}, "Completed"), (TOO_STRICT, "FailedForGood")], ids=["completed", "failed"]
)
def test_a_web_server_that_answers_500_is_reported_and_the_outcome_stays(
    tmp_path: Path, webhook: Webhook, validation: dict[str, object], outcome: str
) -> None:
    webhook.status = 500
    values = configuration(tmp_path, validation=validation, notify=[{"block": webhook.block("broken")}])

    state = batch_detection(values, return_state=True)

    assert state.name == outcome
    assert len(webhook.received) == 1
    run_id = state.state_details.flow_run_id
    assert flow_run(run_id).state_name == outcome
    assert "custom-webhook/broken was not delivered: " in log(run_id, until="was not delivered")


def test_secrets_of_a_block_reach_the_web_server_and_nobody_else(tmp_path: Path, webhook: Webhook) -> None:
    block = webhook.block(
        "confidential",
        headers={"Authorization": "Bearer {{token}}"},
        params={"key": "{{token}}"},
        secrets={"token": SecretStr(TOKEN)},
    )

    result = batch_detection(configuration(tmp_path, notify=[{"block": block}]))

    (request,) = webhook.received
    assert (request.path, request.authorization) == (f"/confidential?key={TOKEN}", f"Bearer {TOKEN}")
    assert TOKEN not in log(result.flow_run_id)
    assert TOKEN not in everything_written(tmp_path)
    assert TOKEN not in flow_run(result.flow_run_id).model_dump_json()


def test_secrets_of_a_block_stay_secret_when_it_cannot_deliver(tmp_path: Path, webhook: Webhook) -> None:
    webhook.status = 500
    block = webhook.block("leaky", params={"key": "{{token}}"}, secrets={"token": SecretStr(TOKEN)})

    result = batch_detection(configuration(tmp_path, notify=[{"block": block}]))

    assert len(webhook.received) == 1
    said = log(result.flow_run_id)
    assert "custom-webhook/leaky was not delivered" in said
    assert TOKEN not in said
    assert TOKEN not in everything_written(tmp_path)
