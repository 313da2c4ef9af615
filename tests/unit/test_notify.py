"""What is said about a run, and that a notifier that fails changes nothing."""

from __future__ import annotations

from siftline.config import NotifyConfig
from siftline.errors import SourceError
from siftline.notify import Delivery, Message, completed_message, deliver, failed_message
from siftline.types import BatchResult

RESULT = BatchResult(
    job_id="abc",
    flow_run_id=None,
    state="Completed",
    rows=12_345,
    chunks=9,
    chunks_reused=4,
    chunks_computed=5,
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


def test_a_failed_run_is_told_with_its_error() -> None:
    message = failed_message("flights", SourceError("x.csv: gone", "put it back"))
    assert message == Message("failed", "Siftline: flights failed", "SourceError: x.csv: gone; put it back")


def test_those_are_told_who_asked_for_it() -> None:
    told: list[str] = []
    deliveries = deliver(completed_message("f", RESULT), RULES, lambda block, message: told.append(block))
    assert told == ["slack-webhook/ops", "custom-webhook/log"]
    assert deliveries == [Delivery("slack-webhook/ops"), Delivery("custom-webhook/log")]
    told.clear()
    deliver(failed_message("f", ValueError()), RULES, lambda block, message: told.append(block))
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
