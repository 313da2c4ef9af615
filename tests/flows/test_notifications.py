"""Notifications through Prefect blocks, delivered to a real web server; none changes a run's outcome."""

from __future__ import annotations

import functools
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from prefect.blocks.core import Block
from prefect.blocks.notifications import MattermostWebhook, PagerDutyWebHook, SendgridEmail, SlackWebhook
from prefect.blocks.system import Secret
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import PREFECT_UI_URL, temporary_settings
from pydantic import SecretStr

from siftline import open_results
from siftline.config.loading import parse_config
from siftline.errors import StorageUnavailable
from siftline.flows.batch_detection import batch_detection
from siftline.flows.recovery import recovery
from siftline.notices.delivery import deliver
from siftline.stages import detect
from siftline.stages.plan import plan_batch
from siftline.stages.scoring import ChunkTask, score_chunk
from siftline.tasks.notify import _hearing_apprise
from siftline.types import ChunkReceipt
from tests.flows.batches import configuration
from tests.flows.records import artifacts, flow_run, label, log
from tests.flows.webhook import Webhook, serving

# Apprise, which Prefect's blocks speak through, imports it where there is one.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

TOO_STRICT = {"anomaly_rate": {"max": 0.001}}
# Split, so that a traceback that quotes this file does not look like a leak.
TOKEN = "-".join(["very", "secret", "token"])


@pytest.fixture(scope="module")
def server() -> Iterator[Webhook]:
    with serving() as webhook:
        yield webhook


@pytest.fixture
def webhook(server: Webhook) -> Webhook:
    server.reset()
    return server


@pytest.fixture(autouse=True)
def no_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("siftline.tasks.notify.deliver", functools.partial(deliver, delays=(0.0, 0.0)))


def everything_written(directory: Path) -> str:
    """All text that a job left behind in its output and its checkpoint."""
    files = [path for path in directory.rglob("*.json") if path.is_file()]
    assert any(path.name == "plan.json" for path in files)
    return "\n".join(path.read_text() for path in files)


def test_the_link_to_the_report_leads_to_the_page_of_this_runs_report(
    tmp_path: Path, webhook: Webhook
) -> None:
    values = configuration(tmp_path, notify=[{"block": webhook.block("all")}])
    with temporary_settings({PREFECT_UI_URL: "http://prefect.test"}):
        runs = [batch_detection(values, fresh=True).flow_run_id for _ in range(2)]

    for run, request in zip(runs, webhook.received, strict=True):
        report = artifacts(run)["siftline-report-test"]
        assert f"\nReport: http://prefect.test/artifacts/artifact/{report.id}\n" in request.body["body"]


def test_where_the_server_cannot_say_where_the_report_is_there_is_no_link_to_it(
    tmp_path: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise httpx.ConnectError("no route")

    monkeypatch.setattr(SyncPrefectClient, "read_artifacts", unreachable)
    values = configuration(tmp_path, notify=[{"block": webhook.block("all")}])
    with temporary_settings({PREFECT_UI_URL: "http://prefect.test"}):
        result = batch_detection(values)

    (request,) = webhook.received
    assert "Report: " not in request.body["body"]
    assert f"Run: http://prefect.test/runs/flow-run/{result.flow_run_id}" in request.body["body"]


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

    assert label(state) == "for-good"
    assert sorted(request.path for request in webhook.received) == ["/all", "/failures"]
    for request in webhook.received:
        assert request.body["subject"] == "Siftline: test failed for good"
        what, kept, command, page = request.body["body"].splitlines()
        assert what.startswith("ValidationFailed: the result did not pass 1 of 6 checks: anomaly rate: 1 % ")
        assert kept == (
            f"Kept: the finished chunks of job {result.job_id}, and the previously published result."
        )
        assert command == (
            f"To resume: siftline resume {result.job_id} --checkpoint {values['checkpoint']['path']}"
        )
        assert page.startswith("Run: http://127.0.0.1")
        assert page.endswith(f"/runs/flow-run/{state.state_details.flow_run_id}")


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
        assert label(batch_detection(values, return_state=True)) == "for-good"
        subjects.append([request.body["subject"] for request in webhook.received])
    assert subjects == [["Siftline: test failed for good"]] * 2

    # Another job, and another cause, are told; and once it was published, the first cause is again.
    other = {**values, "detector": {"params": {"n_estimators": 11}}}
    assert label(batch_detection(other, return_state=True)) == "for-good"
    unreachable = {**values, "cluster": {"kind": "factory", "factory": "no_such_module.Cluster"}}
    assert batch_detection(unreachable, return_state=True).name == "Failed"
    batch_detection({**values, "validation": {}})
    assert label(batch_detection(values, return_state=True)) == "for-good"
    assert [request.body["subject"] for request in webhook.received[1:]] == [
        "Siftline: test failed for good",
        "Siftline: test failed",
        "Siftline: test recovered",
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
    ("validation", "outcome"), [({}, "Completed"), (TOO_STRICT, "Failed")], ids=["completed", "failed"]
)
def test_a_web_server_that_answers_500_is_reported_and_the_outcome_stays(
    tmp_path: Path, webhook: Webhook, validation: dict[str, object], outcome: str
) -> None:
    webhook.status = 500
    values = configuration(tmp_path, validation=validation, notify=[{"block": webhook.block("broken")}])

    state = batch_detection(values, return_state=True)

    assert state.name == outcome
    assert (len(webhook.received), len(webhook.delivered)) == (3, 0)
    run_id = state.state_details.flow_run_id
    assert flow_run(run_id).state_name == outcome
    assert "custom-webhook/broken was not delivered: answered with status 500" in log(
        run_id, until="was not delivered"
    )


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

    assert len(webhook.received) == 3
    said = log(result.flow_run_id)
    assert "custom-webhook/leaky was not delivered" in said
    assert TOKEN not in said
    assert TOKEN not in everything_written(tmp_path)
    assert TOKEN not in flow_run(result.flow_run_id).model_dump_json()


def test_a_web_server_that_recovers_gets_the_message_once(tmp_path: Path, webhook: Webhook) -> None:
    webhook.next = [500, 503]

    result = batch_detection(configuration(tmp_path, notify=[{"block": webhook.block("shaky")}]))

    assert len(webhook.received) == 3
    (request,) = webhook.delivered
    assert request.body["subject"] == "Siftline: test completed"
    assert "not delivered" not in log(result.flow_run_id)


def test_a_web_server_that_does_not_want_the_message_is_not_asked_again(
    tmp_path: Path, webhook: Webhook
) -> None:
    webhook.status = 404

    result = batch_detection(configuration(tmp_path, notify=[{"block": webhook.block("gone")}]))

    assert len(webhook.received) == 1
    said = log(result.flow_run_id)
    assert "custom-webhook/gone was not delivered: answered with status 404" in said


def test_a_slow_web_server_is_asked_again_and_then_given_up(tmp_path: Path, webhook: Webhook) -> None:
    block = webhook.block("slow", timeout=0.2)
    with webhook.busy():
        result = batch_detection(configuration(tmp_path, notify=[{"block": block}]))

    assert flow_run(result.flow_run_id).state_name == "Completed"
    assert len(webhook.received) == 3
    said = log(result.flow_run_id)
    assert "custom-webhook/slow was not delivered: ReadTimeout" in said


def test_a_web_server_slower_than_the_timeout_delays_neither_the_run_nor_the_others(
    tmp_path: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("siftline.tasks.notify.deliver", functools.partial(deliver, timeout=1.0))
    with serving() as fast, webhook.busy():
        rules = [{"block": webhook.block("asleep")}, {"block": fast.block("awake")}]
        result = batch_detection(configuration(tmp_path, notify=rules))
        assert [request.path for request in fast.delivered] == ["/awake"]

    assert flow_run(result.flow_run_id).state_name == "Completed"
    said = log(result.flow_run_id)
    assert "custom-webhook/asleep was not delivered: no answer within 1 s" in said


# The blocks of services that cannot be asked to be elsewhere, and where their addresses are.
ELSEWHERE = {
    "slack-webhook": ("apprise.plugins.slack.NotifySlack.webhook_url", "/services"),
    "pager-duty-webhook": ("apprise.plugins.pagerduty.PAGERDUTY_API_LOOKUP", ""),
    "sendgrid-email": ("apprise.plugins.sendgrid.NotifySendGrid.notify_url", "/mail/send"),
}
HOOK = f"T1JJ3T3L2/A1BRTD4JD/{TOKEN.replace('-', '')}abcdefgh"


@pytest.fixture(params=["slack-webhook", "pager-duty-webhook", "sendgrid-email", "mattermost-webhook"])
def service(request: pytest.FixtureRequest, webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a saved block of Prefect's own for a service, whose address is the local web server."""
    blocks: dict[str, Block] = {
        "slack-webhook": SlackWebhook(url=SecretStr(f"https://hooks.slack.com/services/{HOOK}")),
        "pager-duty-webhook": PagerDutyWebHook(
            integration_key=SecretStr("a" * 32), api_key=SecretStr(TOKEN.replace("-", ""))
        ),
        "sendgrid-email": SendgridEmail(
            api_key=SecretStr(TOKEN), sender_email="siftline@example.org", to_emails=["ops@example.org"]
        ),
        "mattermost-webhook": MattermostWebhook(
            hostname="127.0.0.1", port=webhook.port, secure=False, token=SecretStr("m" * 26)
        ),
    }
    slug = str(request.param)
    blocks[slug].save("ops", overwrite=True, _sync=True)
    if slug in ELSEWHERE:
        name, path = ELSEWHERE[slug]
        here = f"http://127.0.0.1:{webhook.port}{path}"
        monkeypatch.setattr(name, {"us": here} if name.endswith("LOOKUP") else here)
    return f"{slug}/ops"


def test_the_blocks_of_services_say_the_essentials(tmp_path: Path, webhook: Webhook, service: str) -> None:
    webhook.next = [503]

    result = batch_detection(configuration(tmp_path, notify=[{"block": service}]))

    said = log(result.flow_run_id)
    assert "not delivered" not in said, service
    assert len(webhook.received) == 2
    (request,) = webhook.delivered
    text = json.dumps(request.body)
    assert "Siftline: test completed" in text
    assert "6 anomalies among 600 rows (1.000%)" in text
    assert result.job_id in text


def test_a_service_that_refuses_is_asked_once_and_its_address_is_not_told(
    tmp_path: Path, webhook: Webhook, service: str
) -> None:
    webhook.status = 403

    result = batch_detection(configuration(tmp_path, notify=[{"block": service}]))

    assert len(webhook.received) == 1
    said = log(result.flow_run_id)
    assert f"notification through {service} was not delivered: answered with status 403" in said
    for secret in (TOKEN, TOKEN.replace("-", ""), "127.0.0.1:" + str(webhook.port), "hooks.slack.com"):
        assert secret not in said


def test_the_message_says_how_many_how_unusual_which_and_where(tmp_path: Path, webhook: Webhook) -> None:
    values = configuration(tmp_path, notify=[{"block": webhook.block("all")}])
    batch_detection(values)
    more = {**values, "detector": {"params": {"n_estimators": 11}}, "threshold": {"contamination": 0.02}}
    last = batch_detection(more)

    body = webhook.delivered[-1].body["body"]
    assert "12 anomalies among 600 rows (2.000%, 1.000% in the run before), score " in body
    lines = body.splitlines()
    start = lines.index("Most anomalous:")
    for rank, row in enumerate(open_results(last.output).top(3).to_pylist(), 1):
        line = lines[start + rank]
        assert line.startswith(
            f"{row['rank']}. score {row['score']:.4f}  id={row['id']}  row={row['row']}  "
            f"place={row['place']}: "
        )
        assert f"{row['reasons'][0]['feature']} {row['reasons'][0]['value']} (typical " in line
    assert f"Results: {last.output}" in lines
    assert lines[-2].endswith(f"/runs/flow-run/{last.flow_run_id}")
    assert lines[-1] == f"Job: {last.job_id}"


def test_a_template_of_the_configuration_gives_the_words(tmp_path: Path, webhook: Webhook) -> None:
    rule = {
        "block": webhook.block("own"),
        "subject": "{{ name }} {{ event }}",
        "template": "{{ anomalies }}/{{ rows }} {{ top[0].identity.place }} {{ run_id }}",
    }
    broken = {"block": webhook.block("broken"), "template": "{{ rate / (rows_failed or 0) }}"}
    values = configuration(tmp_path, name="test", notify=[rule, broken])
    values["output"]["path"] += "/{{ date }}"  # which is filled in when the run starts

    result = batch_detection(values)

    said = {request.path: request.body for request in webhook.delivered}
    place = open_results(result.output).top(1).to_pylist()[0]["place"]
    assert said["/own"] == {"subject": "test completed", "body": f"6/600 {place} {result.flow_run_id}"}
    assert said["/broken"]["subject"] == "Siftline: test completed"
    assert "its template failed, the default text was sent: float division by zero" in log(result.flow_run_id)


def test_few_anomalies_are_not_told_but_every_failure_is(tmp_path: Path, webhook: Webhook) -> None:
    rule = {"block": webhook.block("many"), "min_anomalies": 7}
    values = configuration(tmp_path, notify=[rule])
    batch_detection(values)
    assert webhook.received == []
    assert label(batch_detection({**values, "validation": TOO_STRICT}, return_state=True)) == "for-good"
    assert [request.body["subject"] for request in webhook.delivered] == ["Siftline: test failed for good"]


def test_what_comes_too_often_is_held_back_and_counted(tmp_path: Path, webhook: Webhook) -> None:
    block = webhook.block("seldom")
    values = configuration(tmp_path, notify=[{"block": block, "at_most_every": "1d"}])
    jobs = [{**values, "detector": {"params": {"n_estimators": number}}} for number in (10, 11, 12, 13)]
    results = [batch_detection(job) for job in jobs[:3]]
    assert len(webhook.delivered) == 1
    assert "custom-webhook/seldom was held back" in log(results[-1].flow_run_id)

    batch_detection({**jobs[3], "notify": [{"block": block, "at_most_every": "0s"}]})
    first, second = webhook.delivered
    assert " more since " not in first.body["body"]
    assert second.body["body"].splitlines()[-1].startswith("2 more since ")


def test_a_job_that_had_failed_and_is_published_is_told_as_recovered(
    tmp_path: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = [True]

    def score(task: ChunkTask) -> ChunkReceipt:
        if away[0]:
            raise StorageUnavailable("part-1: Input/output error", "check the disk")
        return score_chunk(task)

    monkeypatch.setattr(detect, "score_chunk", score)
    rules = [
        {"block": webhook.block("recovered"), "on": ["recovered"]},
        {"block": webhook.block("completed"), "on": ["completed"]},
        {"block": webhook.block("both"), "on": ["completed", "recovered"]},
        {"block": webhook.block("rejected"), "on": ["rejected"]},
    ]
    values = configuration(tmp_path, retries={"attempts": 1}, notify=rules)
    run = batch_detection(values, return_state=True).state_details.flow_run_id
    away[0] = False
    recovery(flow_run_id=run)
    assert sorted(request.path for request in webhook.delivered) == ["/both", "/completed", "/recovered"]
    assert {request.body["subject"] for request in webhook.delivered} == {"Siftline: test recovered"}

    webhook.reset()
    batch_detection(values, fresh=True)
    assert sorted(request.path for request in webhook.delivered) == ["/both", "/completed"]
    assert {request.body["subject"] for request in webhook.delivered} == {"Siftline: test completed"}


def test_a_job_whose_run_died_and_is_published_is_told_as_recovered(tmp_path: Path, webhook: Webhook) -> None:
    values = configuration(tmp_path, notify=[{"block": webhook.block("all")}])
    job = plan_batch(parse_config(values)).directory
    die = f"import os; from pathlib import Path; from siftline.storage.lease import Lease; Lease('{uuid4()}')"
    die += f".take(Path({str(job)!r})); os._exit(0)"
    subprocess.run([sys.executable, "-c", die], check=True)

    batch_detection(values)

    assert [request.body["subject"] for request in webhook.delivered] == ["Siftline: test recovered"]


def test_a_result_whose_run_died_before_it_could_tell_is_told_by_the_next_one_once(
    tmp_path: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = configuration(tmp_path, notify=[{"block": webhook.block("all")}])
    with monkeypatch.context() as dying:
        dying.setattr("siftline.flows.run.lifecycle.Run.complete", lambda *given: sys.exit(1))
        with pytest.raises(SystemExit):
            batch_detection(values)
    assert webhook.received == []

    assert [batch_detection(values).state for _ in range(2)] == ["AlreadyPublished"] * 2

    assert [request.body["subject"] for request in webhook.delivered] == ["Siftline: test completed"]


def test_each_service_is_heard_by_itself() -> None:
    apprise = logging.getLogger("apprise")
    with _hearing_apprise() as heard:
        apprise.warning("Failed to send Slack notification: Server Error., error=503.")
        other = threading.Thread(target=apprise.warning, args=("error=404.",))
        other.start()
        other.join()
    assert heard.status == 503
    apprise.warning("error=500.")
    assert heard.status == 503


def test_what_cannot_be_remembered_changes_nothing(tmp_path: Path, webhook: Webhook) -> None:
    values = configuration(tmp_path, notify=[{"block": webhook.block("all"), "at_most_every": "1d"}])
    checkpoint = Path(values["checkpoint"]["path"])
    checkpoint.mkdir()
    for name in ("history", "notified"):
        (checkpoint / name).touch()

    result = batch_detection(values)

    assert flow_run(result.flow_run_id).state_name == "Completed"
    assert len(webhook.delivered) == 1
    assert "the history of the publications could not be written: " in log(result.flow_run_id)
