"""What is said about a run, and that a notifier that fails changes nothing."""

from __future__ import annotations

import logging
from pathlib import Path

from siftline.config import NotifyConfig
from siftline.errors import ClusterError, SourceError, ValidationFailed
from siftline.notify import (
    Delivery,
    Message,
    completed_message,
    deliver,
    failed_message,
    recovering_message,
)
from siftline.types import BatchResult

RESULT = BatchResult(
    name="flights",
    job_id="abc",
    flow_run_id=None,
    state="Completed",
    rows=12_345,
    chunks=9,
    chunks_reused=4,
    chunks_computed=5,
    chunks_failed=0,
    rows_failed=0,
    anomalies=124,
    threshold=0.61803398875,
    output="results/flights",
    wall_seconds=1.5,
)
RULES = [
    NotifyConfig(block="slack-webhook/ops"),
    NotifyConfig(block="email/boss", on=("failed",)),
    NotifyConfig(block="custom-webhook/log", on=("completed",)),
]


def test_a_completed_run_is_told_in_numbers() -> None:
    message = completed_message("flights", RESULT)
    assert (message.event, message.subject) == ("completed", "Siftline: flights completed")
    assert message.body == (
        "124 anomalies among 12,345 rows (1.004%), score 0.618034 or more.\n"
        "Chunks: 5 computed, 4 reused.\n"
        "Results: results/flights\n"
        "Job: abc"
    )


def test_rejects_are_told_in_numbers_and_as_a_warning() -> None:
    result = RESULT.model_copy(update={"rows_failed": 345, "chunks_failed": 1})
    message = completed_message("flights", result)
    assert (message.event, message.subject, message.level) == (
        "rejects",
        "Siftline: flights completed with rejects",
        logging.WARNING,
    )
    assert message.body.startswith(
        "345 of 12,345 rows could not be scored, among them 1 chunk as a whole. "
        "They are told with the results: `failed`, and `chunks_failed` in the manifest.\n"
        "124 anomalies among 12,000 rows (1.033%), score 0.618034 or more.\n"
    )


def test_a_failed_run_is_told_with_its_error_what_is_kept_and_how_to_go_on() -> None:
    message = failed_message("flights", ClusterError("no worker", "start one"), Path("/c/jobs/abc"), False)
    assert (message.event, message.subject, message.level) == (
        "failed",
        "Siftline: flights failed",
        logging.ERROR,
    )
    assert message.body == (
        "ClusterError: no worker; start one\n"
        "Kept: the chunks of job abc that are done, and the result that was published before.\n"
        "To go on: siftline resume abc --checkpoint /c"
    )


def test_a_run_that_failed_before_its_job_was_known_is_told_with_its_error() -> None:
    message = failed_message("flights", SourceError("x.csv: gone", "put it back"), None, True)
    assert (message.subject, message.body) == (
        "Siftline: flights failed for good",
        "SourceError: x.csv: gone; put it back",
    )


def test_another_chunk_is_not_another_cause() -> None:
    errors = [ClusterError(f"chunk {number} failed", "see to it") for number in (3, 14)]
    first, second = (failed_message("flights", error, None, False) for error in errors)
    assert first.cause == second.cause
    other = failed_message("flights", SourceError("chunk 3 failed", "see to it"), None, False)
    assert first.cause != other.cause


def test_another_name_by_chance_is_not_another_cause() -> None:
    places = ["/out/.staged/abc-5d2f0c1e-0a1b2c3d", "/out/.staged/abc-5d2f0c1e-ffffffff"]
    causes = {
        failed_message("flights", ValidationFailed("1 check", f"see {place}"), None, True).cause
        for place in places
    }
    assert len(causes) == 1
    parts = ["chunk-0000001-deadbeef.parquet: damaged", "chunk-0000020-12345678.parquet: damaged"]
    causes = {failed_message("f", SourceError(part, "see to it"), None, True).cause for part in parts}
    assert causes == {"SourceError: chunk-#-#.parquet: damaged; see to it"}


def test_a_recovery_is_told_as_a_warning() -> None:
    message = recovering_message("flights", Path("/c/jobs/abc"), 2, 3, 1_234)
    assert (message.event, message.level) == ("recovering", logging.WARNING)
    assert message.body == "Recovery 2 of 3 of job abc has begun; 1,234 chunks are left."


def test_those_are_told_who_asked_for_it() -> None:
    told: list[str] = []
    deliveries = deliver(completed_message("f", RESULT), RULES, lambda block, message: told.append(block))
    assert told == ["slack-webhook/ops", "custom-webhook/log"]
    assert deliveries == [Delivery("slack-webhook/ops"), Delivery("custom-webhook/log")]
    told.clear()
    deliver(failed_message("f", ValueError(), None, False), RULES, lambda block, message: told.append(block))
    assert told == ["slack-webhook/ops", "email/boss"]


def test_a_block_that_fails_does_not_keep_the_others_from_being_told() -> None:
    told: list[str] = []

    def send(block: str, message: Message) -> None:
        if block.startswith("slack"):
            raise ConnectionError("refused")
        told.append(block)

    deliveries = deliver(completed_message("f", RESULT), RULES, send)
    assert told == ["custom-webhook/log"]
    assert deliveries[0] == Delivery("slack-webhook/ops", "ConnectionError: refused")
    assert deliveries[1].error is None


def test_nobody_is_told_when_nobody_asked() -> None:
    assert deliver(completed_message("f", RESULT), [], lambda block, message: None) == []
