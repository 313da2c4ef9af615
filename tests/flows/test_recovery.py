"""What becomes of jobs that fail: taken up again, given up, published in part; and who is told how often."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prefect.client.orchestration import get_client
from prefect.states import Failed, Scheduled

from siftline import open_results
from siftline.errors import ConfigError, GivenUp, RowError, SourceError, StorageUnavailable, UnknownJob
from siftline.flows.batch_detection import batch_detection
from siftline.flows.recovery import partial_publication, recovery
from siftline.jobs.record import read_job, write_job
from siftline.jobs.status import batch_statuses
from siftline.pipelines.steps import STANDARD
from siftline.progress import Incident, listening
from siftline.stages import detect
from siftline.stages.scoring import ChunkTask, score_chunk
from siftline.storage.files import read_record, write_record
from siftline.storage.layout import Version
from siftline.types import ChunkReceipt
from tests.flows.batches import configuration, scores_digest, write_rows
from tests.flows.records import flow_run, label
from tests.flows.webhook import Webhook, serving

NO_DELAY = {"attempts": 2, "delay_seconds": 0}
Breaking = Callable[[Exception | None], None]


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with serving() as webhook:
        yield webhook


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> Breaking:
    """Make chunk 1 of 3 fail with an error, until it is called with none."""

    def set_error(error: Exception | None) -> None:
        def score(task: ChunkTask) -> ChunkReceipt:
            if error is not None and task.chunk.index == 1:
                raise error
            return score_chunk(task)

        monkeypatch.setattr(detect, "score_chunk", score)

    return set_error


def away() -> StorageUnavailable:
    return StorageUnavailable("part-1: Input/output error", "check the disk")


def fail(values: dict[str, Any], labelled: str | None = None) -> UUID:
    """Run a job that fails, and return its run."""
    state = batch_detection(values, return_state=True)
    assert (state.type.value, state.name, label(state)) == ("FAILED", "Failed", labelled)
    assert state.state_details.flow_run_id is not None
    return state.state_details.flow_run_id


def checkpoint(values: dict[str, Any]) -> str:
    return str(values["checkpoint"]["path"])


def job_id(values: dict[str, Any]) -> str:
    """The id of the one job in a checkpoint."""
    (job,) = batch_statuses(checkpoint(values))
    assert job.job_id is not None
    return job.job_id


def undisturbed(tmp_path: Path) -> str:
    return scores_digest(batch_detection(configuration(tmp_path / "undisturbed")).output)


def test_a_failed_run_is_recovered_by_its_id_and_only_what_is_left_is_done(
    tmp_path: Path, breaking: Breaking
) -> None:
    values = configuration(tmp_path, retries=NO_DELAY)
    breaking(away())
    run = fail(values)
    (before,) = batch_statuses(checkpoint(values))
    assert (before.state, before.final, before.flow_run_id) == ("failed", True, str(run))
    assert (before.chunks.total, before.chunks.done) == (3, 1)
    assert "chunk 1 (rows 200-399) failed after 2 attempts: part-1: Input/output error" in str(before.error)

    breaking(None)
    result = recovery(flow_run_id=run)

    assert (result.state, result.chunks_reused, result.chunks_computed) == ("Completed", 1, 2)
    assert scores_digest(result.output) == undisturbed(tmp_path)
    (after,) = batch_statuses(checkpoint(values))
    assert (after.state, after.chunks.done, after.chunks.reused, after.error) == ("completed", 3, 1, None)


def test_a_job_is_recovered_by_the_beginning_of_its_id_from_anywhere(
    tmp_path: Path, breaking: Breaking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    values = configuration(tmp_path, retries=NO_DELAY)
    values["source"]["path"] = "rows-600.parquet"
    values["output"]["path"] = "output"
    breaking(away())
    fail(values)
    job = job_id(values)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    breaking(None)
    result = recovery(job_id=job[:5], checkpoint=checkpoint(values))

    assert (result.job_id, result.chunks_reused) == (job, 1)
    assert scores_digest(tmp_path / "output") == undisturbed(tmp_path)


def test_a_job_has_failed_for_good_when_its_recoveries_are_used_up_and_each_cause_is_told_once(
    tmp_path: Path, breaking: Breaking, webhook: Webhook
) -> None:
    values = configuration(tmp_path, retries=NO_DELAY, notify=[{"block": webhook.block("all")}])
    breaking(away())
    run = fail(values)
    for _ in range(2):
        state = recovery(flow_run_id=run, max_recoveries=2, return_state=True)
        assert state.name == "Failed"
        run = state.state_details.flow_run_id  # as the automation does: of a recovery that failed
    state = recovery(flow_run_id=run, max_recoveries=2, return_state=True)

    assert (state.type.value, label(state)) == ("FAILED", "for-good")
    with pytest.raises(GivenUp, match="and 2 recoveries did not help: chunk 1 "):
        state.result()
    assert label(state.state_details.flow_run_id) == "for-good"
    assert [request.body["subject"] for request in webhook.received] == [
        "Siftline: test failed",
        "Siftline: test is recovering",
        "Siftline: test failed for good",
    ]
    job = Path(checkpoint(values)).resolve() / "jobs" / job_id(values)
    assert (
        f"To resume: siftline resume {job.name} --checkpoint {job.parent.parent}"
        in (webhook.received[-1].body["body"])
    )
    (given_up,) = batch_statuses(checkpoint(values))
    assert (given_up.state, given_up.recoveries) == ("failed", 2)

    breaking(None)
    assert recovery(job_id=job.name, checkpoint=checkpoint(values), max_recoveries=None).state == "Completed"
    assert webhook.received[-1].body["subject"] == "Siftline: test recovered"


def test_recoveries_that_fail_before_they_reach_the_job_come_to_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = configuration(tmp_path)

    def refuse(*given: object) -> None:
        raise away()

    monkeypatch.setattr("siftline.stages.plan.inspect_batch", refuse)
    run, names = fail(values), []
    while len(names) < 9 and "for-good" not in names:
        state = recovery(flow_run_id=run, max_recoveries=2, return_state=True)
        names.append(label(state))
        assert state.state_details.flow_run_id is not None
        run = state.state_details.flow_run_id
    assert names == [None, None, None, "for-good"]


def test_a_run_whose_parameters_are_no_configuration_is_not_recovered(tmp_path: Path) -> None:
    values = configuration(tmp_path, threshold={"score": 0.5, "quantile": 0.5})
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(batch_detection, parameters={"config": values}, state=Failed())
    state = recovery(flow_run_id=run.id, return_state=True)
    assert label(state) == "for-good"


def test_a_fresh_start_that_failed_is_not_done_by_what_was_published_before(
    tmp_path: Path, breaking: Breaking
) -> None:
    values = configuration(tmp_path, retries=NO_DELAY)
    batch_detection(values)
    breaking(away())
    with pytest.raises(StorageUnavailable):
        batch_detection(values, fresh=True)
    breaking(None)
    result = recovery(job_id=job_id(values), checkpoint=checkpoint(values))
    assert (result.state, result.chunks_reused, result.chunks_computed) == ("Completed", 1, 2)
    assert batch_detection(values).state == "AlreadyPublished"


def test_more_rows_than_are_tolerated_can_be_left_out_on_request(tmp_path: Path) -> None:
    values = configuration(tmp_path, tolerate={"rows": 1})
    source = Path(values["source"]["path"])
    table = pq.read_table(source)
    amounts = table["amount"].to_numpy().copy()
    amounts[[17, 399]] = np.inf
    pq.write_table(table.set_column(table.column_names.index("amount"), "amount", pa.array(amounts)), source)
    with pytest.raises(RowError):
        batch_detection(values)

    partial = partial_publication(job_id(values), checkpoint(values))

    assert (partial.state, partial.rows_failed >= 2) == ("Partial", True)
    manifest = open_results(partial.output).manifest
    assert not manifest.complete
    assert manifest.rows == 600 == manifest.rows_failed + open_results(partial.output).scores.count_rows()


def test_a_published_job_counts_and_tells_anew(tmp_path: Path, breaking: Breaking, webhook: Webhook) -> None:
    values = configuration(
        tmp_path, retries=NO_DELAY, notify=[{"block": webhook.block("all"), "on": ["failed"]}]
    )
    for _ in range(2):
        breaking(away())
        with pytest.raises(StorageUnavailable):
            batch_detection(values, fresh=True)
        breaking(None)
        batch_detection(values)
    assert len(webhook.received) == 2


def test_a_run_is_recovered_with_the_input_of_its_own_day(tmp_path: Path) -> None:
    values = configuration(tmp_path)
    write_rows(tmp_path / "2013-01-02.parquet", 300)
    values["source"]["path"] = str(tmp_path / "{{ date }}.parquet")
    day = datetime(2013, 1, 2, 3, 30, tzinfo=UTC)
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(
            batch_detection, parameters={"config": values}, state=Scheduled(scheduled_time=day)
        )
        client.set_flow_run_state(run.id, Failed(message="its machine was on fire"), force=True)

    assert recovery(flow_run_id=run.id).rows == 300


def test_what_another_run_cannot_help_is_not_to_be_taken_up(tmp_path: Path) -> None:
    values = configuration(tmp_path)
    (tmp_path / "rows-600.parquet").write_bytes(b"no Parquet")
    fail(values, labelled="for-good")
    with pytest.raises(SourceError):
        batch_detection(values)


def test_a_published_job_is_not_published_again_and_nobody_is_told(tmp_path: Path, webhook: Webhook) -> None:
    values = configuration(tmp_path, notify=[{"block": webhook.block("all")}])
    first = batch_detection(values)
    manifest = (Path(first.output) / "manifest.json").read_bytes()

    for again in (
        lambda: batch_detection(values),
        lambda: recovery(flow_run_id=UUID(str(first.flow_run_id))),
    ):
        result = again()
        assert (result.state, result.chunks_computed) == ("AlreadyPublished", 0)
        assert label(result.flow_run_id) == "already-published"
    assert (Path(first.output) / "manifest.json").read_bytes() == manifest
    assert len(webhook.received) == 1


def test_fresh_computes_and_publishes_again(tmp_path: Path) -> None:
    values = configuration(tmp_path)
    first, second = batch_detection(values), batch_detection(values, fresh=True)
    assert (second.state, second.chunks_computed) == ("Completed", 3)
    assert scores_digest(second.output) == scores_digest(first.output)
    assert open_results(second.output).manifest.flow_run_id == second.flow_run_id


def test_a_result_that_is_gone_is_published_again_from_the_receipts(tmp_path: Path) -> None:
    values = configuration(tmp_path)
    first = batch_detection(values)
    next(Path(first.output).glob("scores/*.parquet")).unlink()
    second = batch_detection(values)
    assert (second.state, second.chunks_reused, second.chunks_computed) == ("Completed", 3, 0)
    assert scores_digest(second.output) == undisturbed(tmp_path)


def test_what_is_done_of_a_failed_job_can_be_published_and_the_whole_later(
    tmp_path: Path, breaking: Breaking
) -> None:
    values = configuration(tmp_path, retries=NO_DELAY, tolerate={"chunks": 1})
    breaking(away())
    tolerated = batch_detection(values)
    assert (tolerated.state, tolerated.chunks_failed, tolerated.rows_failed) == (
        "CompletedWithRejects",
        1,
        200,
    )
    strict = {**values, "tolerate": {"chunks": 0}}
    fail(strict)

    partial = partial_publication(job_id(values), checkpoint(values))

    assert (partial.state, partial.chunks_failed, partial.rows_failed) == ("Partial", 1, 200)
    assert label(partial.flow_run_id) == "partial"
    results = open_results(partial.output)
    assert (results.manifest.complete, results.manifest.missing) == (False, ((200, 399),))
    ids = results.scores.to_table()["id"].to_pylist()
    assert ids == [*range(1000, 1200), *range(1400, 1600)]

    breaking(None)
    whole = recovery(job_id=job_id(values), checkpoint=checkpoint(values))
    assert (whole.state, whole.chunks_computed) == ("Completed", 1)
    assert open_results(whole.output).manifest.complete
    assert scores_digest(whole.output) == undisturbed(tmp_path)


def test_rows_that_cannot_be_scored_are_set_aside_counted_and_told(tmp_path: Path, webhook: Webhook) -> None:
    values = configuration(tmp_path, notify=[{"block": webhook.block("all")}], tolerate={"rows": 2})
    source = Path(values["source"]["path"])
    table = pq.read_table(source)
    amounts = table["amount"].to_numpy().copy()
    amounts[[17, 399]] = np.inf
    index = table.column_names.index("amount")
    pq.write_table(table.set_column(index, "amount", pa.array(amounts)), source)

    result = batch_detection(values)

    assert (result.state, result.rows, result.rows_failed) == ("CompletedWithRejects", 600, 2)
    assert (flow_run(result.flow_run_id).state_name, label(result.flow_run_id)) == ("Completed", "rejects")
    results = open_results(result.output)
    assert results.failed is not None
    assert [(row["id"], row["row"]) for row in results.failed.to_pylist()] == [(1017, 17), (1399, 399)]
    assert results.scores.count_rows() == 598
    (told,) = webhook.received
    assert told.body["subject"] == "Siftline: test completed with rejects"
    assert told.body["body"].startswith("2 of 600 rows could not be scored.")

    with pytest.raises(RowError, match="2 rows so far cannot be scored, 1 is tolerated"):
        batch_detection({**values, "tolerate": {"rows": 1}})


def test_a_part_file_damaged_after_scoring_is_computed_again_by_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = configuration(tmp_path)
    tidy = detect._tidy
    damaged: list[Path] = []

    def damage(plan: Any, receipts: Any) -> None:
        tidy(plan, receipts)
        if not damaged:
            damaged.append(plan.parts / receipts.in_order[1].part.name)
            damaged[0].write_bytes(damaged[0].read_bytes()[:-8])

    monkeypatch.setattr(detect, "_tidy", damage)
    result = batch_detection(values)
    assert damaged
    assert (result.state, result.chunks_computed) == ("Completed", 1)
    assert scores_digest(result.output) == undisturbed(tmp_path)


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({}, ConfigError, "neither flow_run_id nor job_id is given; give one of them"),
        ({"flow_run_id": uuid4()}, ConfigError, "no such run on this server; correct it, or give job_id"),
        ({"job_id": "abc", "checkpoint": "nowhere"}, UnknownJob, "matches no job in nowhere; see "),
    ],
)
def test_what_is_to_be_recovered_must_be_there(
    given: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        recovery(**given)


# Steps that a checkpoint names


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module in the working directory; the file that it leaves when it is imported is returned."""
    monkeypatch.chdir(tmp_path)
    marker = tmp_path / "imported"
    (tmp_path / "own_steps_of_recovery.py").write_text(
        f"from pathlib import Path\nPath({str(marker)!r}).touch()\n\ndef send(result, **settings): pass\n"
    )
    monkeypatch.delitem(sys.modules, "own_steps_of_recovery", raising=False)
    return marker


def forge_step(values: dict[str, Any], uses: str) -> None:
    """Write a step into the record of the one job, as somebody may who can write to the checkpoint."""
    (path,) = Path(checkpoint(values)).glob("jobs/*/assignment.json")
    record = read_record(path, Version.ASSIGNMENT)
    write_record(path, {**record, "steps": [*record["steps"], {"uses": uses}]}, Version.ASSIGNMENT)


@pytest.mark.parametrize("forged_run", [False, True])
def test_a_step_that_only_the_checkpoint_names_is_not_imported_and_the_rest_is_done(
    tmp_path: Path, breaking: Breaking, module: Path, forged_run: bool
) -> None:
    values = configuration(tmp_path, retries=NO_DELAY)
    breaking(away())
    fail(values)
    forge_step(values, "own_steps_of_recovery:send")
    if forged_run:
        (directory,) = Path(checkpoint(values)).glob("jobs/*")
        write_job(directory, read_job(directory).model_copy(update={"run": str(uuid4())}))
    breaking(None)
    told: list[Any] = []
    with listening(told.append):
        result = recovery(job_id=job_id(values), checkpoint=checkpoint(values))
    assert (result.state, module.exists()) == ("Completed", False)
    (incident,) = [one for one in told if isinstance(one, Incident) and one.kind == "steps left out"]
    assert incident.text.startswith("own_steps_of_recovery:send: the checkpoint names them, and neither ")
    assert incident.text.endswith("siftline pipelines run test")


def test_a_step_that_the_pipeline_on_the_server_has_is_done_as_it_is_there(
    tmp_path: Path, breaking: Breaking, module: Path
) -> None:
    values = configuration(tmp_path, retries=NO_DELAY)
    breaking(away())
    fail(values)
    forge_step(values, "own_steps_of_recovery:send")
    breaking(None)
    steps = [{"uses": name} for name in STANDARD] + [{"uses": "own_steps_of_recovery:send"}]
    with get_client(sync_client=True) as client:
        flow = client.create_flow(batch_detection)
        parameters = {"config": values, "steps": steps}
        deployment = client.create_deployment(flow, "test", parameters=parameters, tags=["siftline"])
        try:
            result = recovery(job_id=job_id(values), checkpoint=checkpoint(values))
        finally:
            client.delete_deployment(deployment)
    assert (result.state, module.exists()) == ("Completed", True)
